# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is mounted on Linux, by the kernel's own table (``/proc/self/mountinfo``, proc(5)), and what is swapped to.

Only that one tells a bind mount of a folder from a mount of the whole filesystem.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

TABLE = "/proc/self/mountinfo"

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class MountLine:
    """A line of the table: ``folder`` of a filesystem is seen at ``place``.

    ``number`` is that of its device, ``kind`` its type; ``options`` are those of this mount, ``of_filesystem`` those of
    the filesystem wherever it is mounted.
    """

    number: str
    folder: str
    place: str
    options: str
    kind: str
    source: str
    of_filesystem: str


def read(table: str = TABLE) -> list[MountLine]:
    """All mounts in this mount namespace, in the order in which they were made.

    :raises OSError: there is no such table
    """
    # The kernel writes no carriage return otherwise, and it is no end of a line.
    with open(table, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return parse(file.read().split("\n"))


def parse(lines: t.Iterable[str]) -> list[MountLine]:
    """The mounts that these lines tell of; what is no line of the table is left out."""
    found: list[MountLine] = []
    for line in lines:
        mount, dash, filesystem = line.rstrip("\n").partition(" - ")
        words, tail = mount.split(" "), filesystem.split(" ")
        if dash and len(words) >= 6 and len(tail) >= 3:
            number, folder, place, options = words[2:6]
            kind, source, of_filesystem = tail[:3]
            found.append(MountLine(number, plain(folder), plain(place), options, kind, plain(source), of_filesystem))
    return found


def swaps(lines: t.Iterable[str]) -> list[str]:
    """The devices and files that are swapped to, by the lines of ``/proc/swaps``; the first one has the titles."""
    return [plain(line.split()[0]) for line in list(lines)[1:] if line.strip()]


def plain(word: str) -> str:
    """A word as it is. In its tables the kernel writes a blank, tab, line break and backslash as octal numbers."""
    return _ESCAPED.sub(lambda match: chr(int(match.group(1), 8)), word)
