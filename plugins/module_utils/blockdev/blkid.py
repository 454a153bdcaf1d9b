# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libblkid knows about devices and files, from one run of wipefs that writes nothing."""

from __future__ import annotations

import json
import posixpath
import typing as t

from ..command import Command, CommandError, Runner
from ..errors import StorageError
from .signatures import Signature

_COLUMNS = "DEVICE,OFFSET,TYPE,USAGE,LABEL"

_WORDS = {
    "gpt": "GPT partition table",
    "dos": "MBR partition table",
    "PMBR": "protective MBR",
    "LVM2_member": "LVM physical volume",
    "LVM1_member": "LVM physical volume",
    "linux_raid_member": "RAID member (md)",
    "crypto_LUKS": "LUKS",
    "zfs_member": "remains of a ZFS label",
    "swap": "swap area",
    "swsuspend": "hibernation image in a swap area",
    "bcache": "bcache device",
    "ceph_bluestore": "Ceph OSD (BlueStore)",
    "drbd": "DRBD metadata",
    "vfat": "FAT filesystem",
}
_USAGES = {
    "filesystem": "{} filesystem",
    "raid": "RAID or volume member ({})",
    "crypto": "encrypted volume ({})",
    "partition-table": "{} partition table",
}


def probe(runner: Runner, paths: t.Sequence[str]) -> dict[str, tuple[Signature, ...] | str]:
    """The signatures on each path, or the words of wipefs why it could not read that one.

    :raises ProgramMissing: wipefs (util-linux) is not installed
    """
    found: dict[str, tuple[Signature, ...] | str] = {}
    for group in _groups(paths):
        try:
            found.update(_run(runner, group))
        except CommandError as error:
            # wipefs stops at the first path it can't read and tells nothing about the others.
            if len(group) == 1:
                found[group[0]] = error.result.stderr.strip() or error.message
                continue
            for path in group:
                found.update(probe(runner, (path,)))
    return found


def parse(text: str) -> dict[str, tuple[Signature, ...]]:
    """The signatures by the last part of the path, which is all that wipefs names.

    :raises StorageError: this is not the JSON of wipefs
    """
    try:
        rows = json.loads(text)["signatures"] if text.strip() else []
        types: dict[str, dict[str, Signature]] = {}
        for row in rows:
            kind = str(row["type"])
            words = _words(kind, str(row.get("usage") or ""), str(row.get("label") or ""))
            # One signature may have several magic strings.
            types.setdefault(str(row["device"]), {}).setdefault(kind, Signature(kind, words))
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"The output of 'wipefs --json' was not understood ({type(error).__name__}: {error}).",
            hint="util-linux 2.33 or newer is needed.",
        ) from None
    return {device: _without_pmbr(kinds) for device, kinds in types.items()}


def _run(runner: Runner, paths: t.Sequence[str]) -> dict[str, tuple[Signature, ...]]:
    command = Command(("wipefs", "--no-act", "--json", "--output", _COLUMNS, "--") + tuple(paths))
    named = parse(runner.run(command).stdout)
    return {path: named.get(posixpath.basename(path), ()) for path in paths}


def _groups(paths: t.Sequence[str]) -> list[list[str]]:
    """The paths in as few groups as possible, in each of which the last parts differ."""
    groups: list[dict[str, str]] = []
    for path in paths:
        name = posixpath.basename(path)
        home = next((group for group in groups if name not in group), None)
        if home is None:
            home = {}
            groups.append(home)
        home[name] = path
    return [list(group.values()) for group in groups]


def _words(kind: str, usage: str, label: str) -> str:
    words = _WORDS.get(kind) or _USAGES.get(usage, "{} signature").format(kind)
    # The label of a ZFS member is its pool, which is read with more detail elsewhere.
    return f'{words} "{label}"' if label else words


def _without_pmbr(kinds: t.Mapping[str, Signature]) -> tuple[Signature, ...]:
    """Every GPT has a protective MBR; it is worth a word only when it is alone."""
    return tuple(found for kind, found in kinds.items() if kind != "PMBR" or "gpt" not in kinds)
