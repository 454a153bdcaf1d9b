# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys through libzfs_core: what it is called with, and what its error numbers come to mean."""

from __future__ import annotations

import errno
import hashlib
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import lzc
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keys import Busy, RootKey, WrongKey

HEX = Key("hex", b"0A" * 32)
RAW = Key("raw", bytes(range(32)))
PASSPHRASE = Key("passphrase", b"correct horse")


class FakeLibrary:
    """Remembers what it was called with, and answers with one error number."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.calls: list[tuple[t.Any, ...]] = []

    def load_key(self, name: str, dry_run: bool, wrapping_key: bytes) -> int:
        self.calls.append(("load", name, dry_run, wrapping_key))
        return self.status

    def unload_key(self, name: str) -> int:
        self.calls.append(("unload", name))
        return self.status

    def change_key(
        self, name: str, command: int, properties: t.Mapping[str, int | str], wrapping_key: bytes | None
    ) -> int:
        self.calls.append(("change", name, command, dict(properties), wrapping_key))
        return self.status


def test_a_wrapping_key_has_32_bytes_whatever_the_format() -> None:
    library = FakeLibrary()
    lzc.LibraryKeys(library).try_all([RootKey("t", HEX), RootKey("t", RAW), RootKey("t", PASSPHRASE, 100000, 1)])
    assert [call[3] for call in library.calls[:2]] == [bytes([10] * 32), bytes(range(32))]
    assert len(library.calls[2][3]) == 32
    assert all(call[2] for call in library.calls), "trying a key loaded it"


def test_the_salt_is_taken_little_endian() -> None:
    found = lzc.derive(RootKey("t", PASSPHRASE, 1000, 0x0102030405060708))
    assert found == hashlib.pbkdf2_hmac("sha1", b"correct horse", bytes([8, 7, 6, 5, 4, 3, 2, 1]), 1000, 32)


def test_a_passphrase_is_derived_once(monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[RootKey] = []
    original = lzc.derive

    def counted(candidate: RootKey) -> bytes:
        derived.append(candidate)
        return original(candidate)

    monkeypatch.setattr(lzc, "derive", counted)
    keys = lzc.LibraryKeys(FakeLibrary())
    candidate = RootKey("t", PASSPHRASE, 1000, 7)
    keys.try_all([candidate, candidate])
    keys.load(candidate)
    assert derived == [candidate]


def test_a_passphrase_without_its_salt_can_not_be_tried() -> None:
    answers = lzc.LibraryKeys(FakeLibrary()).try_all([RootKey("t", PASSPHRASE), RootKey("t", HEX)])
    assert isinstance(answers[0], StorageError) and "salt" in answers[0].message
    assert answers[1] is True


@pytest.mark.parametrize(
    ("status", "answer"), [(0, True), (errno.EACCES, False), (errno.EIO, "I/O error"), (errno.ENOENT, "not exist")]
)
def test_trying_tells_a_wrong_key_from_everything_else(status: int, answer: bool | str) -> None:
    found = lzc.LibraryKeys(FakeLibrary(status)).try_all([RootKey("t", HEX)])[0]
    if isinstance(answer, str):
        assert isinstance(found, StorageError) and answer in found.message
    else:
        assert found is answer


def test_loading() -> None:
    lzc.LibraryKeys(FakeLibrary(0)).load(RootKey("t", HEX))
    lzc.LibraryKeys(FakeLibrary(errno.EEXIST)).load(RootKey("t", HEX))
    with pytest.raises(WrongKey):
        lzc.LibraryKeys(FakeLibrary(errno.EACCES)).load(RootKey("t", HEX))
    with pytest.raises(StorageError, match="permission denied"):
        lzc.LibraryKeys(FakeLibrary(errno.EPERM)).load(RootKey("t", HEX))


def test_unloading() -> None:
    lzc.LibraryKeys(FakeLibrary(0)).unload("t")
    lzc.LibraryKeys(FakeLibrary(errno.EACCES)).unload("t")
    with pytest.raises(Busy):
        lzc.LibraryKeys(FakeLibrary(errno.EBUSY)).unload("t")


def test_changing_sets_all_in_one_call() -> None:
    library = FakeLibrary()
    keys = lzc.LibraryKeys(library)
    keys.change("t", HEX, "file:///k", None)
    keys.change("t", PASSPHRASE, "prompt", 100000)
    keys.inherit("t")
    assert library.calls[0] == ("change", "t", 2, {"keyformat": 2, "keylocation": "file:///k"}, bytes([10] * 32))
    properties = library.calls[1][3]
    assert (properties["keyformat"], properties["keylocation"], properties["pbkdf2iters"]) == (3, "prompt", 100000)
    assert library.calls[1][4] == lzc.derive(RootKey("t", PASSPHRASE, 100000, properties["pbkdf2salt"]))
    assert library.calls[2] == ("change", "t", 3, {}, None)


def test_every_passphrase_gets_a_salt_of_its_own() -> None:
    library = FakeLibrary()
    for _time in range(2):
        lzc.LibraryKeys(library).change("t", PASSPHRASE, "prompt", 1000)
    assert library.calls[0][3]["pbkdf2salt"] != library.calls[1][3]["pbkdf2salt"]


def test_what_can_not_be_changed_is_told() -> None:
    with pytest.raises(Refused, match="its key is not loaded"):
        lzc.LibraryKeys(FakeLibrary(errno.EACCES)).change("t", HEX, "prompt", None)
    with pytest.raises(StorageError, match="read-only"):
        lzc.LibraryKeys(FakeLibrary(errno.EROFS)).inherit("t")
