# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contents of a dataset, as ``zfs send`` gives them, in one number.

Two full streams of the same contents differ byte by byte: in names and times, in how empty space is told of, and in
the checksums that the blocks have on their disks. So the records are read, and only what a file or volume is made of
is counted: of each object its kind and attributes, of each block its place and data. Blocks of zeros count as the hole
that they may have become.

Source of the format: ``include/sys/zfs_ioctl.h`` of OpenZFS 2.1 to 2.4. A record has 312 bytes: its kind, the length of
what follows a BEGIN record, both 32 bits, and 304 bytes that depend on the kind. All numbers are in the byte order of
the host that sends. What follows a record is as long as the record says.
"""

from __future__ import annotations

import hashlib
import struct
import typing as t
from dataclasses import dataclass

from ..errors import StorageError

RECORD = 312
MAGIC = 0x2F5BACBAC
# Kinds of records.
BEGIN, OBJECT, FREEOBJECTS, WRITE, FREE, END, WRITE_BYREF, SPILL, WRITE_EMBEDDED, OBJECT_RANGE, REDACT = range(11)

# In the version of a BEGIN record, the low two bits say that the stream is one of a single snapshot. Features follow.
_SINGLE = 1
_FEATURES = 2
# DMU_BACKUP_FEATURE_COMPRESSED and DMU_BACKUP_FEATURE_RAW: the data is not there as it is.
_NOT_PLAIN = (1 << 22) | (1 << 24)
# A block has 16 MiB at most.
_MOST_BYTES = 1 << 24
_ZEROS = bytes(1 << 20)
_SUM = 1 << 256

Counter = t.Callable[[int], None]


class NotAStream(StorageError):
    """What came is no whole stream of the kind that can be compared."""


@dataclass(frozen=True)
class Contents:
    """What a stream holds: equal for two streams of the same contents. ``data`` is in bytes."""

    digest: str
    objects: int
    data: int


class Reader(t.Protocol):
    """What a stream is read from. It gives less than it is asked for only at the end."""

    def read(self, size: int) -> bytes:
        """The next bytes."""


def contents_of(stream: Reader, count: Counter) -> Contents:
    """Read a stream to its end.

    :param count: is told of bytes as they are read
    :raises NotAStream: it is cut short, or holds something that is not understood
    """
    total = objects = data = 0
    for kind, what, payload in records_of(stream, count):
        if kind == WRITE and is_empty(payload):
            continue
        objects += kind == OBJECT
        data += len(payload) if kind != OBJECT else 0
        total = add_to(total, what, payload)
    return Contents(f"{total:064x}", objects, data)


def add_to(total: int, what: bytes, payload: bytes) -> int:
    """A sum with one piece more. A sum, since the two ends need not tell of the same pieces in the same order."""
    one = hashlib.blake2b(what, digest_size=32)
    one.update(payload)
    return (total + int.from_bytes(one.digest(), "little")) % _SUM


def records_of(stream: Reader, count: Counter) -> t.Iterator[tuple[int, bytes, bytes]]:
    """The records that tell what a dataset holds: kind, what counts of the record itself, and what follows it.

    Of a WRITE record that is its kind (8 bits), and the object, offset and length (64 bits each), little-endian.

    :raises NotAStream: it is cut short, or holds something that is not understood
    """
    first = _exactly(stream, RECORD, "its first record")
    order = _byte_order(first)
    kind, after = struct.unpack_from(f"{order}II", first)
    version = struct.unpack_from(f"{order}Q", first, 16)[0]
    if kind != BEGIN or version & 3 != _SINGLE:
        raise NotAStream("zfs sent a stream of several snapshots, where one was asked for.")
    if (version >> _FEATURES) & _NOT_PLAIN:
        raise NotAStream("zfs sent a stream that is compressed or encrypted, where a plain one was asked for.")
    _exactly(stream, _sane(after), "the words behind its first record")
    while True:
        record = _exactly(stream, RECORD, "a record")
        kind = struct.unpack_from(f"{order}I", record)[0]
        count(RECORD)
        if kind == END:
            return
        if kind in (FREE, FREEOBJECTS):
            continue
        what, size = _described(kind, record, order)
        payload = _exactly(stream, size, "the data of a record")
        count(size)
        yield kind, what, payload


def _byte_order(record: bytes) -> str:
    for order in ("<", ">"):
        if struct.unpack_from(f"{order}Q", record, 8)[0] == MAGIC:
            return order
    raise NotAStream("What zfs sent does not begin as a stream does.")


def _described(kind: int, record: bytes, order: str) -> tuple[bytes, int]:
    """What counts of a record itself, and the length of what follows it."""
    if kind == OBJECT:
        number, of, bonus, _block, length = struct.unpack_from(f"{order}QIIII", record, 8)
        raw = struct.unpack_from(f"{order}I", record, 36)[0]
        if raw:
            raise NotAStream("zfs sent an encrypted object, where a plain one was asked for.")
        return struct.pack("<BQIII", kind, number, of, bonus, length), _sane((length + 7) // 8 * 8)
    if kind == WRITE:
        number, _of, _pad, offset, size = struct.unpack_from(f"{order}QIIQQ", record, 8)
        if record[50]:
            raise NotAStream("zfs sent a compressed block, where a plain one was asked for.")
        return struct.pack("<BQQQ", kind, number, offset, size), _sane(size)
    if kind == SPILL:
        number, size = struct.unpack_from(f"{order}QQ", record, 8)
        if record[33]:
            raise NotAStream("zfs sent a compressed block, where a plain one was asked for.")
        return struct.pack("<BQQ", kind, number, size), _sane(size)
    raise NotAStream(f"zfs sent a record of the kind {kind}, which no plain stream has.")


def _sane(size: int) -> int:
    if size > _MOST_BYTES:
        raise NotAStream(f"zfs sent a record with {size} bytes, and a block has {_MOST_BYTES} at most.")
    return size


def is_empty(payload: bytes) -> bool:
    """Whether there is nothing but zeros."""
    if payload[:64].strip(b"\0"):
        return False
    size = len(_ZEROS)
    return all(payload[at : at + size] == _ZEROS[: len(payload) - at] for at in range(0, len(payload), size))


def _exactly(stream: Reader, size: int, what: str) -> bytes:
    found = stream.read(size) if size else b""
    if len(found) != size:
        raise NotAStream(f"The stream ended in the middle of {what}.")
    return found
