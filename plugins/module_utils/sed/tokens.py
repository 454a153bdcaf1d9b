# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token stream of TCG Storage: numbers, bytes, lists and named values (Core specification, 3.2.2)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..errors import StorageError

CALL, END_OF_DATA, END_OF_SESSION = 0xF8, 0xF9, 0xFA
_LIST, _LIST_END, _NAME, _NAME_END, _NOTHING = 0xF0, 0xF1, 0xF2, 0xF3, 0xFF
_LONGEST = 1 << 24


class BadAnswer(StorageError):
    """What a drive answered is not what the specification allows."""


@dataclass(frozen=True)
class Control:
    """A token that stands for itself."""

    code: int


@dataclass(frozen=True)
class Named:
    """A value with a name: a column number in Opal, mostly a text in Enterprise."""

    name: int | bytes
    # May be a credential.
    value: t.Any

    def __repr__(self) -> str:
        return f"Named({self.name!r})"


def encode(value: t.Any) -> bytes:
    """One value as tokens."""
    if isinstance(value, Control):
        return bytes((value.code,))
    if isinstance(value, Named):
        return bytes((_NAME,)) + encode(value.name) + encode(value.value) + bytes((_NAME_END,))
    if isinstance(value, (list, tuple)):
        return bytes((_LIST,)) + b"".join(encode(one) for one in value) + bytes((_LIST_END,))
    if isinstance(value, int):
        return _encode_number(int(value))
    return _encode_bytes(value)


def _encode_number(value: int) -> bytes:
    if value < 0x40:
        return bytes((value,))
    # Some drives take whole machine words only.
    size = next(size for size in (1, 2, 4, 8) if value < 1 << 8 * size)
    return bytes((0x80 + size,)) + value.to_bytes(size, "big")


def _encode_bytes(value: bytes) -> bytes:
    size = len(value)
    if size < 0x10:
        return bytes((0xA0 + size,)) + value
    if size < 0x800:
        return bytes((0xD0 + (size >> 8), size & 0xFF)) + value
    if size < _LONGEST:
        return b"\xe2" + size.to_bytes(3, "big") + value
    raise ValueError("longer than a token can be")


def decode(data: bytes) -> list[t.Any]:
    """The values of a stream.

    :raises BadAnswer: it is none
    """
    # What is open: its closing token, and the values so far.
    stack: list[tuple[int, list[t.Any]]] = [(-1, [])]
    at = 0
    while at < len(data):
        code = data[at]
        if code in (_LIST, _NAME):
            stack.append((code + 1, []))
            at += 1
        elif code in (_LIST_END, _NAME_END):
            end, values = stack.pop()
            if end != code:
                raise _bad("what is closed was not opened")
            stack[-1][1].append(values if code == _LIST_END else _named(values))
            at += 1
        elif code >= 0xE4:
            if code != _NOTHING:
                stack[-1][1].append(Control(code))
            at += 1
        else:
            value, at = _atom(data, at)
            stack[-1][1].append(value)
    if len(stack) != 1:
        raise _bad("a list is not closed")
    return stack[0][1]


def _named(values: list[t.Any]) -> Named:
    if len(values) != 2 or not isinstance(values[0], (int, bytes)):
        raise _bad("a name without a value")
    return Named(values[0], values[1])


def _atom(data: bytes, at: int) -> tuple[int | bytes, int]:
    code = data[at]
    if code < 0x40:
        return code, at + 1
    if code < 0x80:
        return (code & 0x3F) - ((code & 0x20) << 1), at + 1
    if code < 0xC0:
        head, size, text = 1, code & 0x0F, code & 0x20
    elif code < 0xE0:
        head, size, text = 2, (code & 0x07) << 8 | (data[at + 1] if at + 1 < len(data) else 0), code & 0x10
    else:
        head, size, text = 4, int.from_bytes(data[at + 1 : at + 4], "big"), code & 0x02
    start = at + head
    value = data[start : start + size]
    if len(value) != size:
        raise _bad("it is cut off")
    return (value if text else int.from_bytes(value, "big")), start + size


def _bad(reason: str) -> BadAnswer:
    return BadAnswer(
        f"The drive's answer is no stream of tokens: {reason}.",
        hint="Does another program talk to the same drive? Run the task again; if it stays so, turn the drive off and "
        "on.",
    )
