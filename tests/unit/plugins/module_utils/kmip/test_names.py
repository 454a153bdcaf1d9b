# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names as they are on a server: ASCII, and no two alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.names import NEXT, check_name, shown, stored
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.objects import Stored, as_key, key_text

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(NAMES)
def test_every_name_goes_to_the_server_in_ascii_and_comes_back(name: str) -> None:
    assert stored(name).isascii()
    assert shown(stored(name)) == name


@pytest.mark.parametrize("text", ["100%", "a%C3", "a%zz", "%41"])
def test_a_name_that_others_have_stored_and_we_would_not_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize("name", ["tank", "tank/media-1.2:3_4 5", "tank/media" + NEXT])
def test_names_of_datasets_are_stored_as_they_are(name: str) -> None:
    assert stored(check_name(name)) == name


@pytest.mark.parametrize("name", ["", " ", "tank ", "tank\n", "tank\0", "\ud800"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(StorageError):
        check_name(name)


@pytest.mark.parametrize(
    "kind,value,text",
    [
        ("secret_data", b"a word", "a word"),
        ("secret_data", "schl\u00fcssel".encode(), "schl\u00fcssel"),
        ("secret_data", b"\xff" * 32, "ff" * 32),
        ("symmetric_key", b"a" * 32, "61" * 32),
    ],
)
def test_a_key_is_read_as_text_or_as_digits(kind: str, value: bytes, text: str) -> None:
    assert key_text(Stored("1", kind, (), "active"), value) == text
    assert as_key(text).material == text.encode()


@pytest.mark.parametrize("kind,value", [("secret_data", b""), ("secret_data", b"\xff" * 31), ("certificate", b"PEM")])
def test_what_is_no_key_is_not_returned(kind: str, value: bytes) -> None:
    with pytest.raises(StorageError, match="1"):
        key_text(Stored("1", kind, (), "active"), value)
