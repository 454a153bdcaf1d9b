# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.offers import (
    Offer,
    Offers,
    doubt,
    parse_offers,
    plain_words,
)

HEX = "00A1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f"
RAW = bytes(range(200, 232))
BASE64 = base64.b64encode(RAW).decode("ascii")
SECRET = "secret words"


def refusal(call: t.Callable[[], object], *secrets: str) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    for secret in secrets:
        assert secret not in str(caught.value)
    return str(caught.value)


class TestText:
    def test_hex_keeps_its_zeros_and_letters(self) -> None:
        assert Offer("here", HEX).key_for("hex") == Key("hex", HEX.encode("ascii"))

    def test_a_raw_key_is_base64_or_the_digits_that_truenas_writes(self) -> None:
        assert Offer("here", BASE64).key_for("raw") == Key("raw", RAW)
        assert Offer("here", RAW.hex()).key_for("raw") == Key("raw", RAW)
        assert Offer("here", RAW.hex().upper()).key_for("raw") == Key("raw", RAW)

    @pytest.mark.parametrize("text", ["x", "seven77", "x" * 600, "tab\tin it", " blanks ", "return\r", "€", HEX])
    def test_a_passphrase_is_taken_as_it_is_whatever_its_length(self, text: str) -> None:
        assert Offer("here", text).key_for("passphrase") == Key("passphrase", text.encode("utf-8"))

    @pytest.mark.parametrize(
        "key_format,text,message",
        [
            ("hex", HEX[1:], "The key from keys['tank'] is not a hex key: it has 63 characters"),
            ("hex", HEX + " ", "blanks or line breaks around the digits"),
            ("hex", SECRET, "is not a hex key"),
            ("raw", SECRET, "The key from keys['tank'] is not base64"),
            ("raw", BASE64[:-4], "The key from keys['tank'] holds 30 bytes; a raw key has exactly 32"),
            ("passphrase", "", "is an empty passphrase"),
            ("passphrase", SECRET + "\n", "holds a line break"),
            ("passphrase", SECRET + "\0more", "holds a line break or a null character"),
            ("passphrase", SECRET + "\ud800", "holds half a character"),
            ("hex", SECRET + "\ud800", "holds half a character"),
            ("rot13", SECRET, "'rot13' is no key format"),
        ],
    )
    def test_what_is_no_key_of_the_format_is_refused_with_its_origin(
        self, key_format: str, text: str, message: str
    ) -> None:
        assert message in refusal(lambda: Offer("keys['tank']", text).key_for(key_format), HEX[1:], SECRET, BASE64[:-4])

    def test_a_key_in_a_file_has_no_text(self) -> None:
        assert "which was not read" in refusal(lambda: Offer("here", None, "/k").key_for("hex"))

    def test_the_text_is_in_no_repr(self) -> None:
        assert SECRET not in repr(Offers({"tank": (Offer("here", SECRET),)}))

    @pytest.mark.parametrize(
        "text,words",
        [
            (f"{SECRET}\r", "ends with a carriage return"),
            (f"{SECRET} ", "begins or ends with a blank"),
            (f"\t{SECRET}", "begins or ends with a blank"),
            (f"{SECRET}\u00a0", "begins or ends with a blank"),
            (SECRET, ""),
        ],
    )
    def test_what_strikes_the_eye_in_a_passphrase_is_a_hint(self, text: str, words: str) -> None:
        said = doubt(Key("passphrase", text.encode()), "keys['tank']")
        assert words in said
        assert bool(said) == bool(words)
        assert SECRET not in said

    def test_other_formats_leave_no_doubt(self) -> None:
        assert doubt(Key("raw", b" " * 32), "here") == ""


class TestChoice:
    def test_the_key_of_an_entry_counts_before_keys_and_these_before_the_manifest(self) -> None:
        offers = parse_offers(
            {"tank/a": "two", "tank/b": "two"},
            dict.fromkeys(("tank/a", "tank/b", "tank/c"), "three"),
            [("tank/a", Offer("entry", "one"))],
        )
        chosen = {name: [offer.text for offer in offers.of(name)] for name in ("tank/a", "tank/b", "tank/c", "tank/d")}
        assert chosen == {"tank/a": ["one"], "tank/b": ["two"], "tank/c": ["three"], "tank/d": []}
        assert [offer.text for offer in offers.explicit["tank/a"]] == ["one", "two", "three"]

    def test_the_nearest_key_above_that_is_meant_for_all_below_is_used(self) -> None:
        offers = parse_offers(
            {
                "tank": {"value": "top", "recursive": True},
                "tank/a": "own",
                "tank/a/b": {"file": "/k/b", "recursive": True},
                "tank/a/b/c": {"value": "c", "recursive": False},
            },
            {},
        )
        found = {
            name: [offer.text or offer.file for offer in offers.of(name)]
            for name in (
                "tank",
                "tank/x",
                "tank/a",
                "tank/a/x",
                "tank/a/b/x/y",
                "tank/a/b/c",
                "tank/a/b/c/d",
                "tankx/y",
            )
        }
        assert found == {
            "tank": ["top"],
            "tank/x": ["top"],
            "tank/a": ["own"],
            "tank/a/x": ["top"],
            "tank/a/b/x/y": ["/k/b"],
            "tank/a/b/c": ["c"],
            "tank/a/b/c/d": ["/k/b"],
            "tankx/y": [],
        }

    def test_a_manifest_is_for_the_datasets_it_names_alone(self) -> None:
        offers = parse_offers(None, {"tank": HEX})
        assert offers.of("tank/a") == ()
        (offer,) = offers.of("tank")
        assert offer == Offer("the manifest's entry 'tank'", HEX)

    def test_without_any_keys_nothing_is_offered(self) -> None:
        assert Offers({}).of("tank") == ()
        assert parse_offers(None, {}) == Offers({}) == Offers()

    names = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4).map("/".join)

    @given(st.dictionaries(names, st.booleans(), max_size=6), names)
    def test_at_most_one_is_chosen_and_it_lies_on_the_way_up(self, recursive: dict[str, bool], root: str) -> None:
        offers = parse_offers({name: {"value": name, "recursive": flag} for name, flag in recursive.items()}, {})
        way_up = ["/".join(root.split("/")[:depth]) for depth in range(root.count("/") + 1, 0, -1)]
        wanted = [name for name in way_up if name in recursive and (name == root or recursive[name])]
        assert [offer.text for offer in offers.of(root)] == wanted[:1]


class TestKeysOption:
    def test_a_text_stands_for_a_value(self) -> None:
        assert parse_offers({"tank": SECRET}, {}) == Offers({"tank": (Offer("keys['tank']", SECRET),)})
        assert parse_offers({"tank": {"value": SECRET}}, {}) == Offers({"tank": (Offer("keys['tank']", SECRET),)})

    def test_files_are_absolute_or_those_of_the_keystore(self) -> None:
        offers = parse_offers({"tank/a b": {"file": "auto"}, "tank": {"file": "/k//tank.key", "value": None}}, {})
        assert offers.of("tank/a b")[0].file == "/etc/zfs/keys/tank%2Fa%20b.key"
        assert offers.of("tank") == (Offer("keys['tank'].file", None, "/k/tank.key"),)

    @pytest.mark.parametrize(
        "value,wanted", [(True, True), ("yes", True), (False, False), ("no", False), (None, False)]
    )
    def test_recursive_is_a_flag(self, value: t.Any, wanted: bool) -> None:
        (offer,) = parse_offers({"tank": {"value": SECRET, "recursive": value}}, {}).of("tank")
        assert offer.recursive is wanted

    @pytest.mark.parametrize(
        "content,message",
        [
            (None, "keys['tank'] is null; the text of a key is wanted"),
            (123456789, "keys['tank'] is a number; the text of a key is wanted"),
            ([SECRET], "keys['tank'] is a list"),
            ("", "keys['tank'] is empty"),
            ({}, "keys['tank'] has neither a value nor a file. An entry is the text of a key"),
            ({"recursive": True}, "keys['tank'] has neither a value nor a file"),
            ({"value": SECRET, "file": "/k"}, "keys['tank'] has a value and a file"),
            ({"value": 123456789}, "keys['tank'].value is a number"),
            ({"value": ""}, "keys['tank'].value is empty"),
            ({"value": SECRET, "recursive": "often"}, "keys['tank'].recursive is neither true nor false"),
            ({"value": SECRET, "recursive": []}, "keys['tank'].recursive is neither true nor false"),
            ({"value": SECRET, SECRET: 1}, "keys['tank'] has words that mean nothing"),
            ({"file": "tank.key"}, "keys['tank']: key.file is 'tank.key'; wanted is an absolute path"),
            ({"file": 5}, "keys['tank'].file is no text"),
        ],
    )
    def test_an_entry_of_another_shape_is_refused(self, content: t.Any, message: str) -> None:
        assert message in refusal(lambda: parse_offers({"tank": content}, {}), SECRET, "123456789")

    def test_names_are_those_of_datasets(self) -> None:
        assert "'tank@now' names a snapshot" in refusal(lambda: parse_offers({"tank@now": HEX}, {}), HEX)
        assert "Entry 2 of keys does not begin with the name" in refusal(
            lambda: parse_offers({"tank": SECRET, f"{SECRET}!": "tank"}, {}), SECRET
        )


class TestPlainWords:
    def test_paths_and_flags_are_no_secrets(self) -> None:
        keys = {
            "tank": SECRET,
            "tank/a": {"file": "auto", "recursive": "yes"},
            "tank/b": {"file": "/k", "recursive": True},
        }
        assert plain_words(keys) == {"auto", "/k", "yes"}

    def test_a_word_that_is_a_key_as_well_stays_one(self) -> None:
        keys = {"tank": "/k", "tank/a": {"file": "/k"}, "tank/b": {"value": "auto"}, "tank/c": {"file": "auto"}}
        assert plain_words(keys) == set()

    def test_whatever_is_given_it_does_not_fail(self) -> None:
        assert plain_words(None) == set()
        assert plain_words({"tank": None, "tank/a": {"file": 5}, "tank/b": []}) == set()


class TestSecrets:
    def test_every_text_is_hidden_whatever_it_stands_for(self) -> None:
        offers = parse_offers({"tank/a": SECRET, "tank/b": {"file": "/k"}}, {"tank/a": HEX, "tank/c": BASE64})
        mask = Mask()
        for key in offers.secrets():
            mask.add(key)
        for text in (SECRET, HEX, HEX.lower(), BASE64, RAW.hex(), base64.b64encode(bytes.fromhex(HEX)).decode("ascii")):
            assert mask.hides(f"<{text}>")
        assert not mask.hides("/k")

    def test_a_text_shorter_than_a_passphrase_would_hide_words(self) -> None:
        assert list(parse_offers({"tank": "seven77"}, {}).secrets()) == []

    def test_half_a_character_does_no_harm_here(self) -> None:
        assert [key.format for key in parse_offers({"tank": "\ud800" * 8}, {}).secrets()] == ["passphrase"]
