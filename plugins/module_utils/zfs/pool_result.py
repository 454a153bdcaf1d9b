# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools as plain values for the result of a module."""

from __future__ import annotations

import typing as t

from . import keystore
from .pool_options import WantedPool
from .pool_state import PoolHost


def describe(wanted: WantedPool, host: PoolHost) -> dict[str, t.Any]:
    """The documented keys of one entry of the result ``pools``."""
    name = wanted.name
    pool = host.pools.get(name)
    dormant = next((found for found in host.importable if found.name == name), None)
    root = pool.dataset if pool else None
    encrypted = root is not None and root.encrypted
    mountpoint = root.value("mountpoint") if root else "-"
    return {
        "name": name,
        "state": "present" if pool else "exported" if dormant or wanted.state == "exported" else "absent",
        "guid": pool.guid if pool else dormant.guid if dormant else None,
        "health": pool.health if pool else None,
        "encryption": root.value("encryption") if root else None,
        "keyformat": root.value("keyformat") if root and encrypted else None,
        "keylocation": keystore.describe_location(root.value("keylocation")) if root and encrypted else None,
        "locked": root.locked if root else None,
        "mounted": root.mounted if root else None,
        "mountpoint": mountpoint if mountpoint.startswith("/") else None,
    }
