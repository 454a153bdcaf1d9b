# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages of KMIP as bytes: the examples of its specification, and what is no message."""

from __future__ import annotations

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.kmip.ttlv import (
    BYTES,
    ENUMERATION,
    INTEGER,
    TEXT,
    BadMessage,
    Item,
    decode,
    encode,
    structure,
)

# KMIP 1.2, 9.1.2.
EXAMPLES = [
    (Item(0x420020, INTEGER, 8), "42002002000000040000000800000000"),
    (Item(0x420020, 0x03, 123456789000000000), "420020030000000801B69B4BA5749200"),
    (Item(0x420020, ENUMERATION, 255), "4200200500000004000000FF00000000"),
    (Item(0x420020, 0x06, 1), "42002006000000080000000000000001"),
    (Item(0x420020, TEXT, "Hello World"), "420020070000000B48656C6C6F20576F726C640000000000"),
    (Item(0x420020, BYTES, b"\x01\x02\x03"), "42002008000000030102030000000000"),
    (Item(0x420020, 0x09, 0x47DA67F8), "42002009000000080000000047DA67F8"),
    (Item(0x420020, 0x0A, 864000), "4200200A00000004000D2F0000000000"),
    (
        structure(0x420020, Item(0x420004, ENUMERATION, 254), Item(0x420005, INTEGER, 255)),
        "42002001000000204200040500000004000000FE000000004200050200000004000000FF00000000",
    ),
]


@pytest.mark.parametrize("item,text", EXAMPLES)
def test_examples_of_the_specification(item: Item, text: str) -> None:
    assert encode(item).hex().upper() == text
    assert decode(bytes.fromhex(text)) == item


def test_items_are_found_by_their_tags_and_types() -> None:
    name, number = Item(0x420055, TEXT, "drives"), Item(0x420009, INTEGER, 3)
    item = structure(0x420008, structure(0x42000B, name), number, number)
    assert item.text(0x42000B, 0x420055) == "drives" and item.number(0x420009) == 3
    assert item.all(0x420009) == (number, number)
    assert (item.text(0x420009), item.number(0x42000B, 0x420055), item.first(0x42000A)) == (None, None, None)
    assert item.text(0x42000B, 0x420055, 0x420055) is None, "nothing is in a text"


def test_what_a_key_is_in_is_not_shown() -> None:
    assert "drives-own" not in repr(structure(0x420040, Item(0x420043, BYTES, b"drives-own")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "420020",
        # cut off
        "4200200200000004000000080000",
        "42002001000000204200040500000004000000FE00000000",
        # more than the item
        "4200200200000004000000080000000000",
        # another length than that of the type
        "42002002000000080000000000000008",
        # no text
        "4200200700000001FF00000000000000",
        # no tag of KMIP
        "48545450020000040000000800000000",
        # an item in a structure that reaches beyond it
        "42002001000000104200070700000020" + "41" * 8,
    ],
)
def test_what_is_no_message_is_told_as_such(text: str) -> None:
    with pytest.raises(BadMessage):
        decode(bytes.fromhex(text))


def test_a_message_nested_without_end_does_not_use_up_the_stack() -> None:
    data = b""
    for _level in range(5000):
        data = b"\x42\x00\x20\x01" + len(data).to_bytes(4, "big") + data
    with pytest.raises(BadMessage, match="nested"):
        decode(data)
