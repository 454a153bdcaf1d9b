# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a replication tells of the replicas."""

from __future__ import annotations

import typing as t

from .replicate_checks import selected
from .replicate_options import RAW, Replication
from .replicate_state import Ends


def describe_ends(wanted: Replication, ends: Ends) -> dict[str, t.Any]:
    """The replicas as they are, and which keys open them."""
    replicas: list[dict[str, t.Any]] = []
    roots: list[dict[str, t.Any]] = []
    for name in selected(wanted, ends.source):
        dataset, replica = ends.source.datasets[name], ends.target.datasets.get(wanted.at_target(name))
        if replica is None:
            continue
        newest = ends.target.of(replica.name)[-1:]
        replicas.append(
            {
                "source": name,
                "target": replica.name,
                "snapshot": newest[0].name if newest else None,
                "guid": newest[0].guid if newest else None,
                "encryption": replica.value("encryption"),
                "encryptionroot": replica.root or None,
                "keystatus": replica.value("keystatus"),
            }
        )
        if replica.is_root:
            roots.append(
                {
                    "name": replica.name,
                    "opened_by": dataset.root if wanted.mode == RAW else replica.name,
                    "keyformat": replica.value("keyformat"),
                    "extra": wanted.mode == RAW and not dataset.is_root,
                }
            )
    return {"replicas": replicas, "roots": roots}
