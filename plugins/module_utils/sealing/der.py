# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads DER, the binary form of certificates and sealed messages, and takes nothing that is not strictly DER."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..errors import BadInput

INTEGER, BIT_STRING, OCTET_STRING, OBJECT, SEQUENCE, SET = 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
# Tags of the context they stand in: [0] and so on, with elements inside or with bytes.
CONSTRUCTED, PRIMITIVE = 0xA0, 0x80

_LENGTH_BYTES_MAX = 4


class NotDer(BadInput):
    """Bytes that are no DER, or not of the expected shape."""


@dataclass(frozen=True)
class Element:
    """One element: its tag, what is in it, and all of it as it is written."""

    tag: int
    body: bytes
    whole: bytes

    def children(self) -> list[Element]:
        return parse(self.body)


def parse(data: bytes) -> list[Element]:
    """The elements that follow each other in these bytes, to the very last byte.

    :raises NotDer: there is something else in them
    """
    found: list[Element] = []
    at = 0
    while at < len(data):
        element = _read(data, at)
        found.append(element)
        at += len(element.whole)
    return found


def only(data: bytes, tag: int) -> Element:
    """The one element that these bytes are.

    :raises NotDer: they are more than that, or something else
    """
    found = parse(data)
    if len(found) != 1:
        raise NotDer(f"There are {len(found)} elements in place of one.")
    return expect(found[0], tag)


def expect(element: Element, tag: int) -> Element:
    """Returns the element.

    :raises NotDer: it has another tag
    """
    if element.tag != tag:
        raise NotDer(f"There is an element with the tag {element.tag} in place of {tag}.")
    return element


def take(elements: t.Sequence[Element], *tags: int) -> list[Element]:
    """Returns the elements.

    :raises NotDer: they are not exactly as many, with exactly these tags
    """
    if [element.tag for element in elements] != list(tags):
        raise NotDer(f"There are elements with the tags {[one.tag for one in elements]} in place of {list(tags)}.")
    return list(elements)


def sequence(*parts: bytes) -> bytes:
    """A sequence of elements that are written already."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes((SEQUENCE, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((SEQUENCE, 0x80 | len(length))) + length + body


def _read(data: bytes, at: int) -> Element:
    if len(data) < at + 2 or data[at] & 0x1F == 0x1F:
        raise NotDer("An element is cut off, or has a tag that is not used here.")
    size, start = data[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        digits = data[start : start + count]
        size, start = int.from_bytes(digits, "big"), start + count
        # No more bytes than needed, and never the open end that only BER has.
        least = 0x80 if count < 2 else 1 << 8 * (count - 1)
        if not 0 < count <= _LENGTH_BYTES_MAX or len(digits) < count or size < least:
            raise NotDer("The length of an element is not written as DER has it.")
    if len(data) < start + size:
        raise NotDer("An element is cut off.")
    return Element(data[at], data[start : start + size], data[at : start + size])
