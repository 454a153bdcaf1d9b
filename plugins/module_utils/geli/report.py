# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of GELI disks: plain values without a secret."""

from __future__ import annotations

import typing as t

from .config_backup import BackedUpDisk, ConfigBackup
from .metadata import Located
from .provider import Provider
from .trial import Verdict


def row(provider: Provider, verdict: Verdict | None, backup: ConfigBackup) -> dict[str, t.Any]:
    """One provider; what is not known is None."""
    return {
        "device": provider.path,
        "names": list(provider.names),
        "partuuid": provider.partuuid or None,
        "disk": provider.disk or None,
        "serial": provider.serial or None,
        "size": provider.size,
        "state": provider.state,
        "problem": provider.problem or None,
        "in_use_by": list(provider.holders),
        **_metadata(provider.located),
        **_trial(provider, verdict, backup),
    }


def _metadata(located: Located | None) -> dict[str, t.Any]:
    metadata = located.metadata if located is not None else None
    return {
        "version": metadata.version if metadata else None,
        "algorithm": metadata.algorithm.name if metadata else None,
        "key_bits": metadata.key_bits if metadata else None,
        "authentication": metadata.authentication or None if metadata else None,
        "sector_size": metadata.sector_size if metadata else None,
        "provider_sector": located.provider_sector if located else None,
        "decrypted_size": located.size or None if located else None,
        "flags": list(metadata.flag_names) if metadata else None,
        "iterations": metadata.iterations if metadata and metadata.iterations >= 0 else None,
        "slots": list(metadata.slots) if metadata else None,
    }


def _trial(provider: Provider, verdict: Verdict | None, backup: ConfigBackup) -> dict[str, t.Any]:
    # Of what carries no GELI there is nothing to open.
    verdict = verdict if verdict is not None and provider.located is not None else Verdict(None)
    known = backup.disk(provider.partuuid, provider.names)
    pool, guid = (known.pool, known.pool_guid) if known else ("", "")
    if verdict.content is not None:
        pool, guid = verdict.content.pool, verdict.content.pool_guid
    return {
        "opens": verdict.opens,
        "slot": verdict.slot,
        "with_passphrase": verdict.with_passphrase if verdict.opens else None,
        "key_origin": verdict.origin or None,
        "key_error": verdict.error or None,
        "content": verdict.content.what if verdict.content else None,
        "content_error": verdict.content_error or None,
        "pool": pool or None,
        "pool_guid": guid or None,
    }


def missing(backup: ConfigBackup, providers: t.Iterable[Provider]) -> list[dict[str, t.Any]]:
    """The disks of the backup that were not found, and the partition that one of them was on, if that is still there.

    It is known by the UUID alone: on another host, a disk by the same kernel name is another one.
    """
    there: list[BackedUpDisk | None] = []
    bare: dict[str, str] = {}
    for one in providers:
        if one.state != "none":
            there.append(backup.disk(one.partuuid, one.names))
        elif one.partuuid:
            bare[f"gptid/{one.partuuid}"] = one.path
    return [
        {
            "provider": disk.provider,
            "pool": disk.pool,
            "passphrase": disk.passphrase,
            "device": bare.get(disk.provider),
        }
        for disk in backup.disks
        if disk not in there
    ]
