# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be read of a host: a suspended pool answers no question about its datasets, and must not hold up others."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..command import Runner
from ..errors import Refused
from .properties import Property
from .state import SILENT_HEALTH, Dataset, read_datasets, way_back


@dataclass(frozen=True)
class Reach:
    """What was read.

    ``silent``: why nothing is known of a pool, by its name.
    """

    datasets: t.Mapping[str, Dataset]
    silent: t.Mapping[str, str] = field(default_factory=dict)

    def covers(self, name: str) -> bool:
        """Whether a dataset of this name would have been read, as far as that depends on its pool."""
        return name.split("/")[0] not in self.silent


def read_reachable(
    runner: Runner,
    pools: t.Mapping[str, t.Mapping[str, Property]],
    name: str | None,
    properties: t.Sequence[str],
    recursive: bool,
) -> Reach:
    """The datasets at and below one, or of all pools that answer, in one process.

    :param pools: the properties of all imported pools
    :raises Refused: the pool of ``name`` does not answer
    :raises StorageError: ZFS can't be asked
    """
    silent = {
        pool: f"Pool '{pool}' is {found['health'].value}: its datasets can't be read."
        for pool, found in pools.items()
        if found["health"].value in SILENT_HEALTH
    }
    if name is not None:
        pool = name.split("/")[0]
        if pool in silent:
            raise Refused(silent[pool], hint=way_back(pool))
        return Reach(read_datasets(runner, (name,), properties, recursive), silent)
    if len(silent) == len(pools):
        return Reach({}, silent)
    # Without names, unless there is something to leave out.
    names = [pool for pool in pools if pool not in silent] if silent else []
    return Reach(read_datasets(runner, names, properties, recursive, at_once=True), silent)
