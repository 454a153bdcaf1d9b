# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was read of a host for the pools of one task."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..blockdev.content import DiskContent
from ..blockdev.identity import DeviceTable
from .keystore import KeyFile
from .state import Pool
from .status import ImportablePool


@dataclass(frozen=True)
class PoolHost:
    """What was read of a host for the pools of one task.

    ``contents``: by wanted disk, only for disks that are not yet in their pool. ``key_files``: by path.
    ``opens``: by pool, whether the key at hand is the current one, where that had to be tried.
    ``successors``: by pool, what an interrupted rotation left beside its key file, if that is the current key.
    ``obstacles``: by mountpoint, what is in the way of a mount.
    """

    pools: t.Mapping[str, Pool]
    importable: tuple[ImportablePool, ...]
    devices: DeviceTable
    contents: t.Mapping[str, DiskContent] = field(default_factory=dict)
    key_files: t.Mapping[str, KeyFile] = field(default_factory=dict)
    opens: t.Mapping[str, bool] = field(default_factory=dict)
    successors: t.Mapping[str, KeyFile] = field(default_factory=dict)
    obstacles: t.Mapping[str, str] = field(default_factory=dict)
