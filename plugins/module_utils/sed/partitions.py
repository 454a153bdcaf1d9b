# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partition tables that are on a drive and that the kernel has not read, since the drive was locked when it looked."""

from __future__ import annotations

import os
import struct
import typing as t
import zlib

from ..blockdev.identity import BlockDevice, DeviceTable
from .drive import Drive

# Bytes of a logical block; the header of a GPT is in the second one (UEFI 5.3.2).
_BLOCKS = (512, 4096)
_SIGNATURE = b"EFI PART"
# Bytes of the header and their checksum; where the entries are, how many, of how many bytes, and their checksum.
_HEADER = struct.Struct("<12xII52xQIII")
_CHECKSUM = slice(16, 20)
_MOST_ENTRIES, _LONGEST_ENTRY = 512, 4096
# The table of a DOS disk: four entries of 16 bytes behind the code that boots (UEFI 5.2.1).
_DOS_TABLE, _DOS_ENTRY, _DOS_END = 446, 16, b"\x55\xaa"
# The type of an entry that stands for a GPT.
_PROTECTIVE = 0xEE
# What a whole filesystem begins with that has the same ending.
_FILESYSTEMS = ((3, b"NTFS"), (3, b"EXFAT"), (54, b"FAT"), (82, b"FAT"))

Read = t.Callable[[int, int], bytes]


def unread(table: DeviceTable, drive: Drive) -> bool:
    """Whether a drive holds partitions of which the kernel knows none.

    :param table: the devices that the kernel knows
    """
    members = [device for device in map(table.named, drive.members) if device is not None]
    # The partitions of a disk with several paths are those of the map on it.
    return any(not one.parent and not table.partitions(one) and _holds(one) for one in members)


def _holds(device: BlockDevice) -> bool:
    try:
        descriptor = os.open(device.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return has_partitions(lambda offset, length: os.pread(descriptor, length, offset))
    except OSError:
        # It can't be read, so it is not told what is there.
        return False
    finally:
        os.close(descriptor)


def has_partitions(read: Read) -> bool:
    """Whether a disk has a partition table with a partition in it.

    :param read: reads so many bytes, or fewer at the end, from an offset
    """
    first = read(0, 512)
    return _dos(first) or (_protects(first) and any(_gpt(read, size) for size in _BLOCKS))


def _protects(first: bytes) -> bool:
    """Whether it is the first sector that stands before a GPT (UEFI 5.2.3); without it, Linux ignores the GPT."""
    return len(first) == 512 and first.endswith(_DOS_END) and any(row[4] == _PROTECTIVE for row in _rows(first))


def _rows(first: bytes) -> list[bytes]:
    """The entries of the table in the first sector."""
    return [first[_DOS_TABLE + at : _DOS_TABLE + at + _DOS_ENTRY] for at in range(0, 4 * _DOS_ENTRY, _DOS_ENTRY)]


def _gpt(read: Read, block: int) -> bool:
    header = read(block, 512)
    if len(header) < 512 or not header.startswith(_SIGNATURE):
        return False
    length, checksum, where, count, size, entries_checksum = _HEADER.unpack_from(header)
    if not 128 <= size <= _LONGEST_ENTRY or not 0 < count <= _MOST_ENTRIES:
        return False
    # What is left of a table that was overwritten in part is none to the kernel.
    if not _HEADER.size <= length <= len(header) or zlib.crc32(_without_checksum(header[:length])) != checksum:
        return False
    entries = read(where * block, count * size)
    if zlib.crc32(entries) != entries_checksum:
        return False
    # The type of an entry that is not used is all zeros.
    return any(any(entries[at : at + 16]) for at in range(0, len(entries), size))


def _without_checksum(header: bytes) -> bytes:
    """What the checksum of a header is made of."""
    plain = bytearray(header)
    plain[_CHECKSUM] = bytes(4)
    return bytes(plain)


def _dos(first: bytes) -> bool:
    if len(first) < 512 or not first.endswith(_DOS_END):
        return False
    if any(first[at:].startswith(name) for at, name in _FILESYSTEMS):
        return False
    rows = _rows(first)
    if any(row[0] not in (0x00, 0x80) for row in rows):
        return False
    # A GPT tells by itself.
    return any(row[4] not in (0x00, _PROTECTIVE) and any(row[12:16]) for row in rows)
