# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of a volume, as ``zfs send`` gives it: so it can be read where neither it nor its snapshots have a device.

Source: ``include/sys/zvol.h`` of OpenZFS 2.1 to 2.4: the data is object 1, and its size is in object 2.
"""

from __future__ import annotations

import struct
import typing as t

from .stream_digest import WRITE, Contents, Counter, NotAStream, Reader, add_to, is_empty, records_of

_DATA = 1
# Bytes that are compared at a time. The blocks of two volumes may differ in size.
_PAGE = 4096


def blocks_of(stream: Reader, count: Counter) -> t.Iterator[tuple[int, bytes]]:
    """Where each block of the volume begins, in ascending order, and what it holds. What lies between them is zeros.

    :param count: is told of bytes as they are read
    :raises NotAStream: it is cut short, or holds something that is not understood
    """
    end = 0
    for kind, what, payload in records_of(stream, count):
        if kind != WRITE:
            continue
        _kind, number, offset, _size = struct.unpack("<BQQQ", what)
        if number != _DATA:
            continue
        if offset < end:
            raise NotAStream("zfs sent the blocks of a volume out of order.")
        end = offset + len(payload)
        yield offset, payload


def volume_contents(stream: Reader, count: Counter) -> Contents:
    """What the volume holds, whatever the size of its blocks is."""
    total = pages = 0
    for at, page in _pages(blocks_of(stream, count)):
        if not is_empty(page):
            pages += 1
            total = add_to(total, struct.pack("<Q", at), page)
    return Contents(f"{total:064x}", pages, pages * _PAGE)


def _pages(blocks: t.Iterable[tuple[int, bytes]]) -> t.Iterator[tuple[int, bytes]]:
    """The same in pages of one size, filled up with zeros."""
    number, page = 0, bytearray(_PAGE)
    for offset, data in blocks:
        done = 0
        while done < len(data):
            at = offset + done
            if at // _PAGE != number:
                yield number, bytes(page)
                number, page = at // _PAGE, bytearray(_PAGE)
            start = at % _PAGE
            part = data[done : done + _PAGE - start]
            page[start : start + len(part)] = part
            done += len(part)
    yield number, bytes(page)
