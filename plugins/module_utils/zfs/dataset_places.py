# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where filesystems lie that are mounted by themselves."""

from __future__ import annotations

import typing as t

from .names import folders_above
from .state import Dataset


class Places:
    """Which filesystem lies in a folder of which, by what was read of a host."""

    def __init__(self, datasets: t.Iterable[Dataset]) -> None:
        filesystems = [one for one in datasets if one.mountable()]
        self._at: dict[str, list[str]] = {}
        for one in filesystems:
            self._at.setdefault(one.value("mountpoint"), []).append(one.name)
        self._inside: dict[str, list[str]] = {}
        for one in filesystems:
            for name in self.around(one):
                self._inside.setdefault(name, []).append(one.name)

    def around(self, dataset: Dataset) -> list[str]:
        """The filesystems of the nearest folder above a mountpoint that is one."""
        folders = folders_above(dataset.value("mountpoint"))
        return next((self._at[folder] for folder in folders if folder in self._at), [])

    def inside(self, name: str) -> list[str]:
        """What lies in the folders of a filesystem, and not in those of another one in between."""
        return self._inside.get(name, [])
