# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration tells of itself: plain values without a secret."""

from __future__ import annotations

import typing as t

from ..zfs.names import within
from ..zfs.replicate_checks import selected
from ..zfs.replicate_state import HEAD
from .checks import notes
from .options import Migration
from .plan import closing, planned_streams, reached
from .read import size
from .room import available_bytes, estimate
from .state import VERIFIED_RECORD, Found, verified_record


def describe_migration(wanted: Migration, found: Found) -> dict[str, t.Any]:
    """The result, as things are."""
    record = verified_record(found.record(VERIFIED_RECORD))
    return {
        "reached": reached(wanted, found),
        "source_read_only": found.read_only,
        "members": [{"path": one.path, "state": one.state, "geli": one.geli} for one in found.members],
        "datasets": [_row(found, name) for name in selected(found.wanted, found.ends.source)],
        "estimated_bytes": estimate(wanted, found),
        "available_bytes": available_bytes(found),
        "streams": planned_streams(wanted, found).actions,
        "notes": notes(wanted, found),
        "closing": closing(wanted, found),
        "source_guid": found.source_guid or None,
        "verified": None if record is None else record.level,
        "manifest": _manifest(found),
    }


def _row(found: Found, name: str) -> dict[str, t.Any]:
    wanted, ends = found.wanted, found.ends
    dataset, target = ends.source.datasets[name], wanted.at_target(name)
    replica = ends.target.datasets.get(target)
    newest = ends.target.of(target)[-1:]
    origin = dataset.value("origin")
    return {
        "source": name,
        "target": target,
        "type": dataset.value("type"),
        "origin": None if origin == "-" else origin,
        "snapshots": sum(one.name != HEAD for one in ends.source.of(name)),
        "bytes": size(dataset.properties, "usedbydataset") + size(dataset.properties, "usedbysnapshots"),
        "snapshot": newest[0].name if newest else None,
        "guid": newest[0].guid if newest else None,
        "encryption": None if replica is None else replica.value("encryption"),
        "encryptionroot": None if replica is None else replica.root or None,
    }


def _manifest(found: Found) -> list[dict[str, t.Any]]:
    """The encryption roots whose keys are worth a backup now."""
    roots: dict[str, dict[str, t.Any]] = {}
    if found.source_gone:
        names = [name for name in found.ends.target.datasets if within(name, (found.wanted.target,))]
    else:
        names = [found.wanted.at_target(name) for name in selected(found.wanted, found.ends.source)]
    for name in names:
        replica = found.ends.target.datasets.get(name)
        if replica is not None and replica.encrypted:
            root = found.root if found.root and found.root.name == replica.root else found.roots.get(replica.root)
            location = None if root is None else root.location
            roots[replica.root] = {
                "name": replica.root,
                "keyformat": replica.value("keyformat"),
                "keylocation": location,
            }
    return list(roots.values())
