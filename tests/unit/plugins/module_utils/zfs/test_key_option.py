# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_option import (
    KEY_SPEC,
    WantedKey,
    parse_key_option,
)

HEX = "0f" * 32


def parse(**option: t.Any) -> WantedKey:
    return parse_key_option(
        {"format": "hex", "value": None, "file": None, "generate": False, "iterations": None, **option}, "tank/a b"
    )


def test_a_value_alone_is_asked_for_with_every_unlock() -> None:
    key = parse(value=HEX)
    assert key == WantedKey("hex", Key("hex", HEX.encode("ascii")))
    assert key.location == "prompt"


def test_a_raw_value_is_base64() -> None:
    raw = bytes(range(32))
    assert parse(format="raw", value=base64.b64encode(raw).decode("ascii")).value == Key("raw", raw)


def test_a_file_is_the_keylocation() -> None:
    assert parse(file="/root//k").location == "file:///root/k"
    assert parse(file="auto").file == "/etc/zfs/keys/tank%2Fa%20b.key"
    assert parse(file="/root/k", value=HEX).location == "file:///root/k"


def test_a_value_is_handed_over_where_no_file_has_it() -> None:
    assert parse(value=HEX).by_hand == Key("hex", HEX.encode("ascii"))
    assert parse(file="/root/k", value=HEX).by_hand is None
    assert parse(file="/root/k").by_hand is None


def test_what_makes_a_dataset_an_encryption_root_of_this_key() -> None:
    key = parse(format="passphrase", value="long enough", iterations=350_000)
    assert list(key.properties("aes-128-gcm").items()) == [
        ("encryption", "aes-128-gcm"),
        ("keyformat", "passphrase"),
        ("keylocation", "prompt"),
        ("pbkdf2iters", "350000"),
    ]
    assert list(parse(file="/root/k").properties("on").items()) == [
        ("encryption", "on"),
        ("keyformat", "hex"),
        ("keylocation", "file:///root/k"),
    ]


def test_a_new_key_needs_a_file() -> None:
    assert parse(file="auto", generate=True).generate
    with pytest.raises(BadInput, match="key.file is missing, so it would exist nowhere") as caught:
        parse(generate=True)
    assert "file: auto" in caught.value.hint


@pytest.mark.parametrize(
    "option,message",
    [
        ({}, "The key of 'tank/a b' has neither a value nor a file"),
        ({"value": HEX, "file": "auto", "generate": True}, "has a value and is to be generated"),
        ({"file": "relative"}, "wanted is an absolute path"),
        ({"value": HEX[:-1]}, "key.value is not a hex key: it has 63 characters"),
        ({"value": ""}, "key.value is not a hex key: it has 0 characters"),
        ({"value": HEX, "iterations": 350_000}, "key.iterations is set, but key.format is 'hex'"),
        ({"format": "passphrase", "value": "long enough", "iterations": 99_999}, "key.iterations is 99999"),
        ({"format": "passphrase", "value": "seven77"}, "key.value holds 7 bytes"),
        ({"format": "raw", "value": "QUJD"}, "key.value holds 3 bytes"),
    ],
)
def test_what_can_not_be_right(option: dict[str, t.Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(**option)
    assert message in caught.value.message
    assert HEX[:-1] not in str(caught.value)


def test_the_value_is_in_no_repr() -> None:
    assert "0f0f" not in repr(parse(value=HEX))
    assert "long enough" not in repr(parse(format="passphrase", value="long enough"))


def test_only_the_value_is_secret_and_every_option_says_so() -> None:
    options = t.cast("dict[str, dict[str, t.Any]]", KEY_SPEC["options"])
    assert [name for name, spec in options.items() if spec.get("no_log")] == ["value"]
    # ansible-core guesses from the name where this is left open, and would hide the name of a file.
    assert KEY_SPEC["no_log"] is False
    assert all("no_log" in spec for name, spec in options.items() if name != "format")
