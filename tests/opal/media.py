# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written on an emulated drive: no locked range can be read or written, and with its key its data is gone."""

from __future__ import annotations

import os
import tempfile
import typing as t

from .drive import Drive, Range

# Bytes that a shadow MBR hides of the drive (Opal 2.0, 4.3.5.4: at least that many).
SHADOW = 128 * 1024 * 1024
_CHUNK = 1024 * 1024


class Denied(Exception):
    """A range is locked, or shadowed."""


class OutOfRange(Exception):
    """The drive has no such blocks."""


class Media:
    """The blocks of a drive, in a sparse file that has no name."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        # The ranges as they were at the last access: what is written was written with their keys.
        self._ranges = tuple(drive.ranges)
        self._size = drive.spec.blocks * drive.spec.block_size
        self._file, path = tempfile.mkstemp(prefix="opal-")
        os.unlink(path)
        os.ftruncate(self._file, self._size)

    def close(self) -> None:
        os.close(self._file)
        self._file = -1

    def read(self, block: int, count: int) -> bytes:
        """
        :raises Denied: they are locked
        :raises OutOfRange: there are no such blocks
        """
        offset, length = self._place(block, count)
        if self._shadowed(offset):
            return bytes(self._drive.mbr_table[offset : offset + length]).ljust(length, b"\0")
        if not all(one.reads for one in touched(self._drive.ranges, block, count)):
            raise Denied
        return os.pread(self._file, length, offset).ljust(length, b"\0")

    def write(self, block: int, data: bytes) -> None:
        """
        :raises Denied: they are locked
        :raises OutOfRange: there are no such blocks
        """
        count = len(data) // self._drive.spec.block_size
        offset, _length = self._place(block, count)
        if self._shadowed(offset) or not all(one.writes for one in touched(self._drive.ranges, block, count)):
            raise Denied
        os.pwrite(self._file, data, offset)

    def _place(self, block: int, count: int) -> tuple[int, int]:
        if block + count > self._drive.spec.blocks:
            raise OutOfRange
        self._forget()
        return block * self._drive.spec.block_size, count * self._drive.spec.block_size

    def _shadowed(self, offset: int) -> bool:
        mbr = self._drive.mbr
        return mbr.enabled and not mbr.done and offset < SHADOW

    def _forget(self) -> None:
        """Lose what was written with another key than the one that its blocks have now."""
        former, self._ranges = self._ranges, tuple(self._drive.ranges)
        if former == self._ranges or not self._drive.spec.encrypts:
            return
        size = self._drive.spec.block_size
        for first, end in lost(former, self._ranges, self._drive.spec.blocks):
            self._clear(first * size, end * size)

    def _clear(self, offset: int, end: int) -> None:
        if (offset, end) == (0, self._size):
            os.ftruncate(self._file, 0)
            os.ftruncate(self._file, self._size)
            return
        for at in range(offset, end, _CHUNK):
            os.pwrite(self._file, bytes(min(_CHUNK, end - at)), at)


def touched(ranges: t.Sequence[Range], block: int, count: int) -> list[Range]:
    """The ranges that these blocks are in. The first one has all that are in no other."""
    found: list[Range] = []
    left = count
    for one in ranges[1:]:
        common = min(block + count, one.start + one.length) - max(block, one.start)
        if common > 0:
            found.append(one)
            left -= common
    return [*found, ranges[0]] if left else found


def extents(ranges: t.Sequence[Range], number: int, blocks: int) -> list[tuple[int, int]]:
    """Where a range lies: the first block of each piece, and the one behind it."""
    if number:
        one = ranges[number]
        return [(one.start, one.start + one.length)] if one.length else []
    found: list[tuple[int, int]] = []
    at = 0
    for one in sorted((one for one in ranges[1:] if one.length), key=lambda one: one.start):
        found.append((at, one.start))
        at = one.start + one.length
    return [(first, end) for first, end in (*found, (at, blocks)) if first < end]


def lost(former: t.Sequence[Range], present: t.Sequence[Range], blocks: int) -> list[tuple[int, int]]:
    """The blocks whose key is another one: their range has a new one, or they are in another range."""
    found: list[tuple[int, int]] = []
    for first, end, key in _keyed(former, blocks):
        for start, stop, now in _keyed(present, blocks):
            begin, last = max(first, start), min(end, stop)
            if begin < last and key != now:
                if found and found[-1][1] == begin:
                    begin = found.pop()[0]
                found.append((begin, last))
    return found


def _keyed(ranges: t.Sequence[Range], blocks: int) -> list[tuple[int, int, int]]:
    """All blocks in order: pieces with one key each."""
    return sorted(
        (first, end, one.key) for number, one in enumerate(ranges) for first, end in extents(ranges, number, blocks)
    )
