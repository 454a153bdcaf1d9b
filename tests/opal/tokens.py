# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token stream of TCG Storage, as the emulated drive reads and writes it (TCG Storage Core, 3.2.2).

Written apart from the client of the collection on purpose: a mistake made in one of them shows in the other.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Item = t.Any
"""int, bytes, list, Named or Mark."""

CALL, END_OF_DATA, END_OF_SESSION = 0xF8, 0xF9, 0xFA
_START_LIST, _END_LIST, _START_NAME, _END_NAME, _EMPTY = 0xF0, 0xF1, 0xF2, 0xF3, 0xFF


class BadStream(Exception):
    """What the host sent is no stream of tokens."""


@dataclass(frozen=True)
class Mark:
    """A control token that is neither a list nor a name."""

    code: int


@dataclass(frozen=True)
class Named:
    """A value with a name: a number in Opal, mostly a text in Enterprise."""

    name: int | bytes
    value: Item


def encode(*items: Item) -> bytes:
    """The items as tokens."""
    return b"".join(_encode(item) for item in items)


def _encode(item: Item) -> bytes:
    if isinstance(item, bool):
        return _encode(int(item))
    if isinstance(item, int):
        return _number(item)
    if isinstance(item, str):
        return _bytes(item.encode("ascii"))
    if isinstance(item, bytes):
        return _bytes(item)
    if isinstance(item, (list, tuple)):
        return bytes([_START_LIST]) + encode(*item) + bytes([_END_LIST])
    if isinstance(item, Named):
        return bytes([_START_NAME]) + encode(item.name, item.value) + bytes([_END_NAME])
    return bytes([item.code])


def _number(value: int) -> bytes:
    if value < 64:
        return bytes([value])
    length = 1
    while length < 8 and value >> (8 * length):
        length *= 2
    return bytes([0x80 | length]) + value.to_bytes(length, "big")


def _bytes(value: bytes) -> bytes:
    length = len(value)
    if length < 16:
        return bytes([0xA0 | length]) + value
    if length < 2048:
        return bytes([0xD0 | length >> 8, length & 0xFF]) + value
    return b"\xe2" + length.to_bytes(3, "big") + value


def decode(data: bytes) -> list[Item]:
    """The items of a stream.

    :raises BadStream: it ends too early, or lists and names are not closed
    """
    items, at = _sequence(data, 0, None)
    if at != len(data):
        raise BadStream("something is closed that was not opened")
    return items


def _sequence(data: bytes, at: int, end: int | None) -> tuple[list[Item], int]:
    items: list[Item] = []
    while at < len(data):
        code = data[at]
        if code == end:
            return items, at + 1
        if code in (_END_LIST, _END_NAME):
            raise BadStream("something is closed that was not opened")
        item, at = _item(data, at)
        if item is not None:
            items.append(item)
    if end is not None:
        raise BadStream("a list or a name is not closed")
    return items, at


def _item(data: bytes, at: int) -> tuple[Item, int]:
    code = data[at]
    if code == _START_LIST:
        return _sequence(data, at + 1, _END_LIST)
    if code == _START_NAME:
        pair, at = _sequence(data, at + 1, _END_NAME)
        if len(pair) != 2 or not isinstance(pair[0], (int, bytes)):
            raise BadStream("a name has one value")
        return Named(pair[0], pair[1]), at
    if code == _EMPTY:
        return None, at + 1
    if code >= 0xE4:
        return Mark(code), at + 1
    return _atom(data, at)


def _atom(data: bytes, at: int) -> tuple[Item, int]:
    code = data[at]
    if code < 0x40:
        return code, at + 1
    if code < 0x80:
        raise BadStream("no number of this protocol is negative")
    if code < 0xC0:
        head, length, is_bytes = 1, code & 0x0F, bool(code & 0x20)
    elif code < 0xE0:
        head, length, is_bytes = 2, (code & 0x07) << 8 | int.from_bytes(data[at + 1 : at + 2], "big"), bool(code & 0x10)
    else:
        head, length, is_bytes = 4, int.from_bytes(data[at + 1 : at + 4], "big"), bool(code & 0x02)
    value = data[at + head : at + head + length]
    if len(value) != length:
        raise BadStream("the last value is cut off")
    return value if is_bytes else int.from_bytes(value, "big"), at + head + length
