# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where filesystems are mounted, which ZFS does not tell of those with a legacy mountpoint."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from .. import mountinfo
from ..command import Command, Runner
from ..errors import StorageError

TABLE = mountinfo.TABLE

_GAP = re.compile(r"[ \t]+")
# What mount(8) is told again; the rest of what the table shows are defaults, or properties of the dataset.
_KEPT = ("ro", "nosuid", "nodev", "noexec", "noatime")


@dataclass(frozen=True)
class Place:
    """Where a filesystem is mounted, and the options to mount it there with again.

    ``folder``: the one of its folders that is seen there, for a bind mount; "" for the whole filesystem.
    """

    path: str
    options: tuple[str, ...] = ()
    folder: str = ""


def places_of(runner: Runner, names: t.Collection[str]) -> dict[str, tuple[Place, ...]]:
    """The places of these filesystems, in the order in which they were mounted; none where that is not found out."""
    found: dict[str, list[Place]] = {name: [] for name in names}
    try:
        rows = list(_rows(runner))
    except (OSError, StorageError):
        rows = []
    for name, place in rows:
        if name in found:
            found[name].append(place)
    return {name: tuple(places) for name, places in found.items()}


def _rows(runner: Runner) -> t.Iterator[tuple[str, Place]]:
    """The filesystems of ZFS that are mounted."""
    try:
        mounted = mountinfo.read(TABLE)
    except FileNotFoundError:
        # On FreeBSD, where no folder can be bound.
        for line in runner.run(Command(("mount", "-p"), timeout=30)).stdout.split("\n"):
            words = [mountinfo.plain(word) for word in _GAP.split(line)]
            if len(words) >= 4 and words[2] == "zfs":
                yield words[0], Place(words[1], _kept(words[3]))
        return
    for one in mounted:
        if one.kind == "zfs":
            folder = "" if one.folder == "/" else one.folder
            yield one.source, Place(one.place, _kept(f"{one.options},{one.of_filesystem}"), folder)


def _kept(options: str) -> tuple[str, ...]:
    given = options.split(",")
    return tuple(one for one in _KEPT if one in given)
