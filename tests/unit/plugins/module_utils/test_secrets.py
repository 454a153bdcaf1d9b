# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import typing as t
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import (
    FORMATS,
    Key,
    Mask,
    check_iterations,
    encodings,
    generate,
    parse_file,
    parse_option,
)

HEX = "00a1B2c3D4e5F60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f"
RAW = bytes(range(32))

hex_keys = st.binary(min_size=32, max_size=32).map(lambda raw: Key("hex", raw.hex().encode("ascii")))
raw_keys = st.binary(min_size=32, max_size=32).map(lambda raw: Key("raw", raw))


def _passphrase(text: str) -> bool:
    return 8 <= len(text.encode("utf-8")) <= 512 and text == text.strip(" ")


passphrases = (
    st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), min_size=3, max_size=60)
    .filter(_passphrase)
    .map(lambda text: Key("passphrase", text.encode("utf-8")))
)
keys = st.one_of(hex_keys, raw_keys, passphrases)


def as_option(key: Key) -> str:
    return base64.b64encode(key.material).decode("ascii") if key.format == "raw" else key.material.decode("utf-8")


def refusal(call: t.Callable[[], object], secret: str = "") -> BadInput:
    """The BadInput that a call raises; it must not repeat the secret."""
    with pytest.raises(BadInput) as caught:
        call()
    if secret:
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value.details)
    # A chained exception would carry the value into a traceback.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


class TestHex:
    @pytest.mark.parametrize("value", [HEX, HEX.lower(), HEX.upper(), "0" * 64, "f" * 64])
    def test_sixty_four_digits_in_either_case_are_kept_as_given(self, value: str) -> None:
        assert parse_option("hex", value) == Key("hex", value.encode("ascii"))

    @pytest.mark.parametrize("length", [0, 31, 32, 62, 63, 65, 66, 128])
    def test_another_number_of_digits_is_refused_with_that_number(self, length: int) -> None:
        value = ("ab" * 64)[:length]
        error = refusal(lambda: parse_option("hex", value), value)
        assert f"it has {length} characters, wanted are 64 hexadecimal digits" in error.message

    @pytest.mark.parametrize("stray", ["g", "x", "-", ":", "é", " "])
    def test_another_character_inside_is_refused(self, stray: str) -> None:
        value = HEX[:10] + stray + HEX[11:]
        error = refusal(lambda: parse_option("hex", value), value)
        assert "key.value is not a hex key" in error.message

    @pytest.mark.parametrize(
        "before,after", [("", "\n"), ("", "\r\n"), ("", "\r"), ("", " "), (" ", ""), ("\t", ""), ("\n", "")]
    )
    def test_stray_blanks_and_line_ends_are_refused_and_named(self, before: str, after: str) -> None:
        error = refusal(lambda: parse_option("hex", before + HEX + after), HEX)
        assert "it has blanks or line breaks around the digits" in error.message
        if after.strip(" "):
            assert "'|-'" in error.hint

    def test_a_digit_that_only_looks_like_one_is_refused(self) -> None:
        refusal(lambda: parse_option("hex", "\uff11" + HEX[1:]))

    @pytest.mark.parametrize("content", [HEX, HEX + "\n"])
    def test_one_newline_at_the_end_of_a_file_is_no_part_of_it(self, content: str) -> None:
        assert parse_file("hex", content.encode("ascii"), "The file") == Key("hex", HEX.encode("ascii"))

    @pytest.mark.parametrize("content", [HEX + "\r\n", HEX + "\n\n", HEX + " \n", HEX + "\nmore\n", "\ufeff" + HEX, ""])
    def test_anything_else_in_a_file_is_refused(self, content: str) -> None:
        error = refusal(lambda: parse_file("hex", content.encode("utf-8"), "The key file /etc/k"), HEX)
        assert error.message.startswith("The key file /etc/k is not a hex key")


class TestRaw:
    def test_it_comes_as_base64(self) -> None:
        assert parse_option("raw", base64.b64encode(RAW).decode("ascii")) == Key("raw", RAW)

    @pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 64])
    def test_another_number_of_bytes_is_refused(self, size: int) -> None:
        value = base64.b64encode(bytes(size)).decode("ascii")
        error = refusal(lambda: parse_option("raw", value), value)
        assert f"key.value holds {size} bytes; a raw key has exactly 32" in error.message

    @pytest.mark.parametrize(
        "value", ["", "=", "no base64!", "ä" * 44, HEX[:-1], base64.b64encode(RAW).decode("ascii") + "\n"]
    )
    def test_what_is_not_base64_of_a_key_is_refused(self, value: str) -> None:
        refusal(lambda: parse_option("raw", value), value)

    def test_url_safe_base64_is_not_taken_for_the_usual_one(self) -> None:
        value = base64.urlsafe_b64encode(b"\xff" * 32).decode("ascii")
        assert "not base64" in refusal(lambda: parse_option("raw", value), value).message

    @pytest.mark.parametrize("content", [RAW, b"\n" * 32, bytes(32), RAW[:31] + b"\n"])
    def test_a_file_holds_exactly_its_bytes(self, content: bytes) -> None:
        assert parse_file("raw", content, "The file") == Key("raw", content)

    def test_a_newline_at_the_end_of_a_file_counts(self) -> None:
        error = refusal(lambda: parse_file("raw", RAW + b"\n", "The file"))
        assert "holds 33 bytes" in error.message
        assert "A trailing newline counts" in error.hint

    def test_hex_in_a_raw_file_is_refused(self) -> None:
        assert "holds 64 bytes" in refusal(lambda: parse_file("raw", HEX.encode("ascii"), "The file"), HEX).message


class TestPassphrase:
    @pytest.mark.parametrize(
        "value",
        [
            "x" * 8,
            "x" * 512,
            "é" * 4,
            "é" * 256,
            "€€€",
            "\U0001f511\U0001f511",
            "two words",
            "with \u00a0 inside",
            "'\"$HOME`\\",
        ],
    )
    def test_eight_to_512_bytes_in_utf_8_are_taken_as_they_are(self, value: str) -> None:
        assert parse_option("passphrase", value).material == value.encode("utf-8")

    @pytest.mark.parametrize(
        "value,size",
        [("", 0), ("x" * 7, 7), ("€€x", 7), ("é" * 3, 6), ("x" * 513, 513), ("é" * 256 + "x", 513), ("x" * 4096, 4096)],
    )
    def test_fewer_or_more_are_refused(self, value: str, size: int) -> None:
        error = refusal(lambda: parse_option("passphrase", value), value)
        assert f"key.value holds {size} bytes; a passphrase has 8 to 512 bytes" in error.message

    @pytest.mark.parametrize("stray", ["\n", "\r", "\r\n", "\t", "\0", "\x1b", "\x7f"])
    @pytest.mark.parametrize("where", ["end", "middle"])
    def test_line_breaks_and_control_characters_are_refused(self, stray: str, where: str) -> None:
        value = "secret words" + stray if where == "end" else "secret" + stray + " words"
        error = refusal(lambda: parse_option("passphrase", value), "secret")
        assert "a line break or another control character" in error.message

    @pytest.mark.parametrize("value", [" secret words", "secret words "])
    def test_a_blank_at_the_begin_or_end_is_refused(self, value: str) -> None:
        assert (
            "begins or ends with a blank" in refusal(lambda: parse_option("passphrase", value), "secret words").message
        )

    def test_a_file_may_end_with_one_newline(self) -> None:
        assert parse_file("passphrase", b"secret words\n", "The file").material == b"secret words"

    @pytest.mark.parametrize("content", [b"secret words\r\n", b"secret words\n\n", b"secret words\nmore", b"seven77\n"])
    def test_a_file_of_another_shape_is_refused(self, content: bytes) -> None:
        refusal(lambda: parse_file("passphrase", content, "The file"), "secret words")

    def test_a_file_with_the_longest_passphrase_and_a_newline_is_fine(self) -> None:
        assert len(parse_file("passphrase", b"x" * 512 + b"\n", "The file").material) == 512


class TestIterations:
    @pytest.mark.parametrize("iterations", [None, 100_000, 350_000, 2**31])
    def test_enough_rounds_are_fine_for_a_passphrase(self, iterations: int | None) -> None:
        check_iterations(iterations, "passphrase")

    @pytest.mark.parametrize("iterations", [99_999, 1, 0, -1])
    def test_too_few_are_refused(self, iterations: int) -> None:
        error = refusal(lambda: check_iterations(iterations, "passphrase"))
        assert f"key.iterations is {iterations}; OpenZFS accepts 100000 or more" in error.message

    @pytest.mark.parametrize("key_format", ["hex", "raw"])
    def test_only_a_passphrase_has_rounds(self, key_format: str) -> None:
        check_iterations(None, key_format)
        error = refusal(lambda: check_iterations(350_000, key_format))
        assert f"key.format is '{key_format}'" in error.message


class TestGenerate:
    @pytest.mark.parametrize("key_format", FORMATS)
    def test_a_new_key_is_valid_and_never_the_same(self, key_format: str) -> None:
        made = [generate(key_format) for _round in range(20)]
        assert len({key.material for key in made}) == 20
        for key in made:
            assert parse_file(key_format, key.file_content(), "The file") == key

    def test_a_passphrase_can_be_typed_and_carries_256_bits(self) -> None:
        text = generate("passphrase").material.decode("ascii")
        assert len(base64.urlsafe_b64decode(text + "=")) == 32

    def test_another_format_is_refused(self) -> None:
        refusal(lambda: generate("base64"))
        refusal(lambda: parse_option("base64", HEX))


class TestKey:
    def test_hex_and_passphrase_are_one_line_on_stdin_and_raw_is_bytes(self) -> None:
        assert Key("hex", HEX.encode("ascii")).stdin() == HEX.encode("ascii") + b"\n"
        assert Key("passphrase", b"secret words").stdin() == b"secret words\n"
        assert Key("raw", RAW).stdin() == RAW

    def test_hex_digits_in_either_case_are_the_same_key(self) -> None:
        assert Key("hex", HEX.upper().encode("ascii")).same_as(Key("hex", HEX.lower().encode("ascii")))

    def test_upper_and_lower_case_are_different_passphrases_and_raw_keys(self) -> None:
        assert not Key("passphrase", b"secret words").same_as(Key("passphrase", b"Secret words"))
        assert not Key("raw", b"a" * 32).same_as(Key("raw", b"A" * 32))

    def test_another_format_is_another_key(self) -> None:
        assert not Key("hex", HEX.encode("ascii")).same_as(Key("passphrase", HEX.encode("ascii")))

    @given(keys)
    def test_the_material_is_in_no_repr(self, key: Key) -> None:
        for text in (repr(key), str(key)):
            assert text == f"Key(format='{key.format}')"


@given(keys)
def test_what_a_file_holds_reads_back_as_the_key(key: Key) -> None:
    assert parse_file(key.format, key.file_content(), "The file") == key
    assert parse_file(key.format, key.stdin(), "The file").same_as(key)


@given(keys)
def test_what_an_option_holds_reads_back_as_the_key(key: Key) -> None:
    assert parse_option(key.format, as_option(key)) == key


@given(keys, keys)
def test_same_as_tells_keys_apart(one: Key, other: Key) -> None:
    assert one.same_as(one)
    assert one.same_as(other) == other.same_as(one)
    assert one.same_as(other) == (one.format == other.format and one.material == other.material)


class TestEncodings:
    def test_a_hex_key_is_known_as_digits_and_as_its_bytes(self) -> None:
        raw = bytes.fromhex(HEX)
        found = encodings(HEX.encode("ascii"))
        for text in (HEX, HEX.lower(), HEX.upper(), base64.b64encode(raw).decode("ascii")):
            assert text in found
        assert base64.b64encode(HEX.encode("ascii")).decode("ascii") in found

    def test_a_raw_key_is_known_as_hex_and_base64_of_both_kinds(self) -> None:
        raw = b"\xfb\xff" * 16
        found = encodings(raw)
        for text in (
            raw.hex(),
            raw.hex().upper(),
            base64.b64encode(raw).decode("ascii"),
            base64.b64encode(raw).decode("ascii").rstrip("="),
            base64.urlsafe_b64encode(raw).decode("ascii"),
            base64.urlsafe_b64encode(raw).decode("ascii").rstrip("="),
        ):
            assert text in found

    def test_a_passphrase_is_known_as_text_hex_and_base64(self) -> None:
        found = encodings("schlüssel".encode())
        assert "schlüssel" in found
        assert "schlüssel".encode().hex() in found
        assert base64.b64encode("schlüssel".encode()).decode("ascii") in found

    @given(keys)
    def test_none_is_empty_and_none_comes_twice(self, key: Key) -> None:
        found = encodings(key.material)
        assert all(found)
        assert len(set(found)) == len(found)


class TestMask:
    def test_without_a_secret_text_stays_as_it_is(self) -> None:
        mask = Mask()
        assert mask.text("plain ü\n".encode()) == "plain ü\n"
        assert not mask.hides("plain")

    def test_bytes_that_are_no_text_do_not_fail(self) -> None:
        assert Mask().text(b"a\xffb") == "a\ufffdb"

    def test_the_longest_secret_goes_first_so_that_no_rest_of_it_stays(self) -> None:
        mask = Mask()
        mask.add(Key("passphrase", b"opensesame"))
        mask.add(Key("passphrase", b"opensesame and more"))
        assert mask.text(b"key 'opensesame and more'.") == "key '********'."

    def test_it_tells_the_encodings_for_other_masks(self) -> None:
        key = Key("hex", HEX.encode("ascii"))
        assert set(Mask().add(key)) == set(encodings(key.material))

    def test_an_argument_with_raw_bytes_of_a_key_is_recognised(self) -> None:
        mask = Mask()
        mask.add(Key("raw", b"\xff\xfe" * 16))
        assert mask.hides("key=" + (b"\xff\xfe" * 16).decode("utf-8", "surrogateescape"))

    @given(keys, st.binary(max_size=20), st.binary(max_size=20), st.data())
    def test_no_encoding_of_a_secret_is_left_in_masked_text(
        self, key: Key, before: bytes, after: bytes, data: st.DataObject
    ) -> None:
        assume(b"*" not in key.material)
        mask = Mask()
        spellings = [text.encode("utf-8") for text in mask.add(key)] + [key.material]
        drawn = data.draw(st.lists(st.sampled_from(spellings), max_size=4))
        text = mask.text(before + b" ".join(drawn) + after)
        for spelling in encodings(key.material):
            assert spelling not in text
        assert not mask.hides(text)
        assert key.material not in text.encode("utf-8")

    @given(keys, keys)
    def test_several_secrets_are_hidden_at_once(self, one: Key, other: Key) -> None:
        assume(b"*" not in one.material + other.material)
        mask = Mask()
        mask.add(one)
        mask.add(other)
        text = mask.text(one.material + other.material + b" " + other.material + one.material)
        assert not mask.hides(text)

    @given(keys, st.text(max_size=10), st.text(max_size=10))
    def test_every_encoding_is_recognised_inside_a_word(self, key: Key, before: str, after: str) -> None:
        mask = Mask()
        for spelling in mask.add(key):
            assert mask.hides(f"{before}{spelling}{after}")

    def test_where_secrets_overlap_nothing_of_either_is_left(self) -> None:
        mask = Mask()
        mask.add(Key("passphrase", b"opensesame"))
        mask.add(Key("passphrase", b"samecharacters"))
        assert mask.text(b"[opensesamecharacters] [opensesame][samecharacters]") == "[********] [********][********]"

    @given(
        st.lists(st.text("abc .", min_size=1, max_size=3), min_size=1, max_size=60, unique=True),
        st.text("abcdef0123456789= .", max_size=40),
        st.randoms(use_true_random=False),
    )
    def test_few_and_many_secrets_are_found_as_by_a_plain_search(
        self, secrets: list[str], noise: str, random: Random
    ) -> None:
        mask = Mask()
        needles = {needle for secret in secrets for needle in mask.add(Key("passphrase", secret.encode("ascii")))}
        pieces = [*random.sample(secrets, len(secrets) // 10), noise]
        random.shuffle(pieces)
        text = "".join(pieces)
        hidden = {at for needle in needles for at in covered(needle, text)}
        shown = "".join(letter for at, letter in enumerate(text) if at not in hidden)
        assert mask.text(text.encode("ascii")).replace("*", "") == shown
        assert mask.hides(text) == bool(hidden)


def covered(needle: str, text: str) -> t.Iterator[int]:
    """The places of all letters of a text that belong to a needle."""
    for start in range(len(text)):
        if text.startswith(needle, start):
            yield from range(start, start + len(needle))
