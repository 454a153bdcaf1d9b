# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of KMIP as bytes: each item is a tag, a type, a length and a value (KMIP 1.2, 9.1)."""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass

from ..errors import StorageError

STRUCTURE, INTEGER, ENUMERATION, TEXT, BYTES = 0x01, 0x02, 0x05, 0x07, 0x08
_LONG, _BOOLEAN, _TIME, _INTERVAL = 0x03, 0x06, 0x09, 0x0A
# The types that are numbers, as struct has them.
_NUMBERS = {INTEGER: ">i", _LONG: ">q", ENUMERATION: ">I", _BOOLEAN: ">Q", _TIME: ">q", _INTERVAL: ">I"}
_HEADER, _STEP = 8, 8
_FIRST_TAG, _LAST_TAG = 0x420000, 0x54FFFF
# Far more levels than a key has; each costs the stack of this program.
_DEEPEST = 16

Value = t.Union[int, str, bytes, "tuple[Item, ...]"]


class BadMessage(StorageError):
    """What arrived is no message of KMIP."""


@dataclass(frozen=True)
class Item:
    """One item. A structure has a tuple of items for its value, a number an int. The value may be a secret."""

    tag: int
    kind: int
    value: Value

    def __repr__(self) -> str:
        return f"Item(0x{self.tag:06x}, {self.kind})"

    @property
    def items(self) -> tuple[Item, ...]:
        """What is in a structure; nothing is in anything else."""
        return self.value if isinstance(self.value, tuple) else ()

    def all(self, tag: int) -> tuple[Item, ...]:
        """The items of a structure that have this tag."""
        return tuple(one for one in self.items if one.tag == tag)

    def first(self, *tags: int) -> Item | None:
        """The first item on the way down by these tags."""
        found: Item | None = self
        for tag in tags:
            found = None if found is None else next(iter(found.all(tag)), None)
        return found

    def number(self, *tags: int) -> int | None:
        """The number there, None if there is none."""
        one = self.first(*tags)
        return one.value if one is not None and isinstance(one.value, int) else None

    def text(self, *tags: int) -> str | None:
        """The text there, None if there is none."""
        one = self.first(*tags)
        return one.value if one is not None and isinstance(one.value, str) else None


def structure(tag: int, *items: Item) -> Item:
    return Item(tag, STRUCTURE, items)


def encode(item: Item) -> bytes:
    """The bytes of an item."""
    value = item.value
    if isinstance(value, tuple):
        body = b"".join(encode(one) for one in value)
    elif isinstance(value, str):
        body = value.encode("utf-8")
    elif isinstance(value, bytes):
        body = value
    else:
        body = struct.pack(_NUMBERS[item.kind], value)
    head = item.tag.to_bytes(3, "big") + bytes((item.kind,)) + len(body).to_bytes(4, "big")
    return head + body + bytes(-len(body) % _STEP)


def decode(data: bytes) -> Item:
    """The one item that these bytes are.

    :raises BadMessage: they are something else
    """
    item, end = _item(data, 0, len(data), 0)
    if end != len(data):
        raise BadMessage("There are bytes behind the message.")
    return item


def _item(data: bytes, start: int, end: int, depth: int) -> tuple[Item, int]:
    """The item that begins there, and where the next one begins."""
    if end - start < _HEADER or depth > _DEEPEST:
        raise BadMessage("The message is cut off, or nested without end.")
    tag, kind = int.from_bytes(data[start : start + 3], "big"), data[start + 3]
    length = int.from_bytes(data[start + 4 : start + _HEADER], "big")
    begin = start + _HEADER
    following = begin + length + (-length % _STEP)
    if following > end or not _FIRST_TAG <= tag <= _LAST_TAG:
        raise BadMessage("The message is cut off, or holds what is no item.")
    return Item(tag, kind, _value(data, kind, begin, begin + length, depth)), following


def _value(data: bytes, kind: int, begin: int, end: int, depth: int) -> Value:
    body = data[begin:end]
    if kind == STRUCTURE:
        found: list[Item] = []
        while begin < end:
            one, begin = _item(data, begin, end, depth + 1)
            found.append(one)
        return tuple(found)
    try:
        if kind in _NUMBERS:
            return int(struct.unpack(_NUMBERS[kind], body)[0])
        return body.decode("utf-8") if kind == TEXT else body
    except (struct.error, UnicodeDecodeError):
        raise BadMessage("The message holds a value that is not of its type.") from None
