# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.manifest import (
    LIMIT,
    parse_manifest,
    parse_manifests,
    read_manifest_file,
)

HEX = "00a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f"
ORIGIN = "the manifest"


def refusal(given: t.Any, *secrets: str) -> str:
    """The message for a manifest that is refused; it must not tell a key."""
    with pytest.raises(BadInput) as caught:
        parse_manifest(given, ORIGIN)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    for secret in secrets:
        assert secret not in str(caught.value)
    return str(caught.value)


class TestManifest:
    def test_json_text_and_what_it_stands_for_are_the_same(self) -> None:
        wanted = {"tank/a": HEX, "tank/b c": "a passphrase"}
        assert parse_manifest(json.dumps(wanted), ORIGIN) == wanted
        assert parse_manifest(wanted, ORIGIN) == wanted

    def test_none_is_no_manifest_and_an_empty_one_has_no_keys(self) -> None:
        assert parse_manifest(None, ORIGIN) == {}
        assert parse_manifest("{}", ORIGIN) == {}
        assert parse_manifest({}, ORIGIN) == {}

    def test_blanks_line_breaks_and_a_byte_order_mark_around_it_do_not_matter(self) -> None:
        assert parse_manifest(f'\ufeff\r\n {{"tank": "{HEX}"}}\r\n', ORIGIN) == {"tank": HEX}

    def test_leading_zeros_and_letters_of_a_key_stay_as_they_are(self) -> None:
        assert parse_manifest({"tank": HEX.upper()}, ORIGIN) == {"tank": HEX.upper()}

    @pytest.mark.parametrize(
        "text,message",
        [
            ("", "is not JSON"),
            ("tank: x", "is not JSON: Expecting value in line 1, column 1"),
            ('{"tank": "x",}', "is not JSON"),
            ('{"tank": "x"} {}', "is not JSON: Extra data"),
            ("[" * 100_000, "is no JSON that can be read"),
            ('{"tank": ' + "9" * 5000 + "}", "JSON|a number"),
            ('["tank"]', "is a list; wanted is an object"),
            ('"tank"', "is a text; wanted is an object"),
            ("null", "is null; wanted is an object"),
            ("true", "is true or false; wanted is an object"),
            ("5", "is a number; wanted is an object"),
        ],
    )
    def test_what_is_no_json_object_is_refused(self, text: str, message: str) -> None:
        said = refusal(text)
        assert any(part in said for part in message.split("|"))
        assert said.startswith("The manifest ")

    @pytest.mark.parametrize("given", [5, ["tank"], True, b"{}"])
    def test_an_option_of_another_type_is_refused(self, given: t.Any) -> None:
        assert "wanted is an object" in refusal(given)

    @pytest.mark.parametrize(
        "value,kind",
        [
            (None, "null"),
            (1234567, "a number"),
            (1.5, "a number"),
            (False, "true or false"),
            ([], "a list"),
            ({}, "an object"),
        ],
    )
    def test_a_key_that_is_no_text_is_refused_with_the_name_of_its_dataset(self, value: t.Any, kind: str) -> None:
        for manifest in ({"tank/a": value}, json.dumps({"tank/a": value})):
            said = refusal(manifest, "1234567")
            assert f"The entry 'tank/a' of the manifest is {kind}; the text of a key is wanted" in said
            assert "put quotes around a key" in said

    def test_an_empty_key_is_refused(self) -> None:
        assert "The entry 'tank/a' of the manifest is empty" in refusal({"tank/a": ""})

    def test_the_objects_inside_an_object_are_no_keys_either(self) -> None:
        assert "is an object" in refusal('{"tank": {"key": "secret words"}}', "secret words")

    def test_a_name_that_comes_twice_is_refused(self) -> None:
        said = refusal(f'{{"tank/a": "{HEX}", "tank/b": "x", "tank/a": "secret words"}}', HEX, "secret words")
        assert "The manifest holds 'tank/a' twice" in said

    @pytest.mark.parametrize("name", ["tank@now", "tank#mark", "/mnt/tank", "tank/", "tank//a", "tank/../a", ""])
    def test_what_is_no_dataset_is_named_where_the_key_is_in_its_place(self, name: str) -> None:
        said = refusal({name: HEX}, HEX)
        assert f"holds a key for '{name}', which is no dataset: " in said

    @pytest.mark.parametrize(
        "name,value",
        [(HEX, "tank"), ("f" * 64, "tank"), ("secret words!", "tank"), ("secret words!", "other words"), (5, "x")],
    )
    def test_where_name_and_key_may_be_swapped_the_entry_is_counted(self, name: t.Any, value: str) -> None:
        said = refusal({"tank/ok": HEX, name: value}, HEX, "f" * 64, "secret words", "other words")
        assert "Entry 2 of the manifest does not begin with the name of a dataset" in said

    def test_a_pool_may_have_a_name_like_a_key(self) -> None:
        assert parse_manifest({"f" * 64: HEX}, ORIGIN) == {"f" * 64: HEX}

    def test_half_a_character_does_no_harm_here(self) -> None:
        assert parse_manifest('{"tank": "\\ud800"}', ORIGIN) == {"tank": "\ud800"}

    def test_ten_mebibytes_are_taken_and_one_byte_more_is_not(self) -> None:
        body = json.dumps({"tank": "é" * 100}, ensure_ascii=False)
        filler = LIMIT - len(body.encode("utf-8"))
        assert parse_manifest(body + " " * filler, ORIGIN) == {"tank": "é" * 100}
        assert "has more than 10 MiB" in refusal(body + " " * (filler + 1))
        assert "has more than 10 MiB" in refusal({"tank": "é" * (LIMIT // 2)})

    @given(
        st.dictionaries(st.from_regex(r"[a-l][a-z0-9]{0,5}(/[a-z0-9]{1,5}){0,3}", fullmatch=True), st.text(min_size=1))
    )
    def test_every_manifest_reads_back(self, wanted: dict[str, str]) -> None:
        wanted = {name: text for name, text in wanted.items() if name != "log"}
        assert parse_manifest(json.dumps(wanted), ORIGIN) == wanted


class TestSeveral:
    def test_one_alone_is_no_list(self) -> None:
        assert parse_manifests({"tank": HEX}, ORIGIN) == {"tank": HEX}
        assert parse_manifests(json.dumps({"tank": HEX}), ORIGIN) == {"tank": HEX}
        assert parse_manifests([], ORIGIN) == {}

    def test_the_first_that_has_a_key_counts(self) -> None:
        several = [{"tank/a": "one"}, '{"tank/a": "two", "tank/b": "two"}', None, {"tank/b": "four", "tank/c": "four"}]
        assert parse_manifests(several, ORIGIN) == {"tank/a": "one", "tank/b": "two", "tank/c": "four"}

    @pytest.mark.parametrize(
        "several,message",
        [
            ([{}, "{bad"], "The manifest 2 of 2 is not JSON"),
            ([{}, [{"tank": HEX}], {}], "The manifest 2 of 3 is a list; wanted is an object"),
            ([{}, f'[{{"tank": "{HEX}"}}]'], "The manifest 2 of 2 is a list; wanted is an object"),
            ([f'{{"tank": "{HEX}", "tank": "{HEX}"}}', {}], "The manifest 1 of 2 holds 'tank' twice"),
            ([{"tank": 5}], "The entry 'tank' of the manifest is a number"),
            ([{}, {"tank": "x" * (LIMIT + 1)}], "The manifest 2 of 2 has more than 10 MiB"),
        ],
    )
    def test_each_of_them_is_checked_and_named(self, several: t.Any, message: str) -> None:
        with pytest.raises(BadInput) as caught:
            parse_manifests(several, ORIGIN)
        assert message in str(caught.value)
        assert HEX not in str(caught.value)


class TestFile:
    def test_it_is_read_as_text(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_bytes('{"tank": "schlüssel"}'.encode())
        assert parse_manifest(read_manifest_file(str(path)), ORIGIN) == {"tank": "schlüssel"}

    def failure(self, path: str) -> str:
        with pytest.raises(StorageError) as caught:
            read_manifest_file(path)
        return str(caught.value)

    def test_one_that_is_not_there_is_told_with_what_may_have_been_meant(self, tmp_path: Path) -> None:
        said = self.failure(str(tmp_path / "none.json"))
        assert f"The manifest {tmp_path}/none.json does not exist on this host." in said
        assert "lookup('ansible.builtin.file'" in said

    def test_a_folder_and_a_pipe_are_no_manifests(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            assert self.failure(str(path)) == f"The manifest {path} is no regular file."

    def test_a_path_through_a_file_can_not_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("{}")
        assert "can't be read: Not a directory" in self.failure(str(tmp_path / "file" / "x"))

    def test_no_permission_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def deny(*_arguments: object) -> t.NoReturn:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", deny)
        assert self.failure("/etc/keys.json") == "The manifest /etc/keys.json can't be read: Permission denied."

    def test_a_relative_path_is_refused(self) -> None:
        assert "wanted is an absolute path" in self.failure("keys.json")

    def test_no_more_than_the_limit_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_bytes(b" " * LIMIT)
        assert len(read_manifest_file(str(path))) == LIMIT
        with path.open("ab") as handle:
            handle.write(b" ")
        assert "has more than 10 MiB" in self.failure(str(path))

    def test_bytes_that_are_no_text_are_refused_without_showing_them(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_bytes(b'{"tank": "secret\xff"}')
        said = self.failure(str(path))
        assert "is no text in UTF-8" in said
        assert "secret" not in said
