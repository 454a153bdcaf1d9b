# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where filesystems are mounted, which ZFS does not tell of those with a legacy mountpoint."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ..command import Command, Runner
from ..errors import StorageError

TABLE = "/proc/self/mounts"

# How the kernel writes a blank, tab, line break or backslash in its mount table.
_ESCAPED = re.compile(r"\\([0-7]{3})")
_GAP = re.compile(r"[ \t]+")
# What mount(8) is told again; the rest of what the table shows are defaults, or properties of the dataset.
_KEPT = ("ro", "nosuid", "nodev", "noexec", "noatime")


@dataclass(frozen=True)
class Place:
    """Where a filesystem is mounted, and the options to mount it there with again."""

    path: str
    options: tuple[str, ...] = ()


def places_of(runner: Runner, names: t.Collection[str]) -> dict[str, tuple[Place, ...]]:
    """The places of these filesystems, in the order in which they were mounted; none where that is not found out."""
    found: dict[str, list[Place]] = {name: [] for name in names}
    try:
        lines = _lines(runner)
    except (OSError, StorageError):
        lines = []
    for line in lines:
        # FreeBSD writes the same columns.
        words = [plain(word) for word in _GAP.split(line)]
        if len(words) >= 4 and words[2] == "zfs" and words[0] in found:
            given = words[3].split(",")
            found[words[0]].append(Place(words[1], tuple(one for one in _KEPT if one in given)))
    return {name: tuple(places) for name, places in found.items()}


def _lines(runner: Runner) -> list[str]:
    try:
        with open(TABLE, encoding="utf-8", errors="surrogateescape", newline="\n") as table:
            return table.read().split("\n")
    except FileNotFoundError:
        return runner.run(Command(("mount", "-p"), timeout=30)).stdout.split("\n")


def plain(word: str) -> str:
    """A word of the mount table as it is."""
    return _ESCAPED.sub(lambda match: chr(int(match.group(1), 8)), word)
