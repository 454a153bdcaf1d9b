# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys through libzfs_core: what it is called with, and what its error numbers come to mean."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import threading
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils import parallel
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import lzc
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keys import Busy, RootKey, WrongKey

HEX = Key("hex", b"0A" * 32)
RAW = Key("raw", bytes(range(32)))
PASSPHRASE = Key("passphrase", b"correct horse")


class FakeLibrary:
    """Remembers what it was called with, and answers with one error number; dry runs may have their own."""

    def __init__(self, status: int = 0, dry_run: int | None = None) -> None:
        self.status = status
        self.dry_run = status if dry_run is None else dry_run
        self.calls: list[tuple[t.Any, ...]] = []

    def load_key(self, name: str, dry_run: bool, wrapping_key: bytes) -> int:
        self.calls.append(("load", name, dry_run, wrapping_key))
        return self.dry_run if dry_run else self.status

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
    candidates = [RootKey("h", HEX), RootKey("r", RAW), RootKey("p", PASSPHRASE, 1000, 1)]
    assert lzc.LibraryKeys(library).try_all(candidates) == [True, True, True]
    used = {call[1]: call[3] for call in library.calls}
    assert (used["h"], used["r"]) == (bytes([10] * 32), bytes(range(32)))
    assert used["p"] == hashlib.pbkdf2_hmac("sha1", b"correct horse", bytes([1, *bytes(7)]), 1000, 32)
    assert all(call[2] for call in library.calls), "trying a key loaded it"


def test_answers_come_in_the_order_of_the_questions() -> None:
    class Picky(FakeLibrary):
        def load_key(self, name: str, dry_run: bool, wrapping_key: bytes) -> int:
            return {"h": 0, "r": errno.EACCES, "p": errno.ENOENT}[name]

    keys = lzc.LibraryKeys(Picky())
    answers = keys.try_all([RootKey("h", HEX), RootKey("p", PASSPHRASE, 1, 1), RootKey("r", RAW), RootKey("h", HEX)])
    assert [answers[0], answers[2], answers[3]] == [True, False, True]
    assert isinstance(answers[1], StorageError) and "'p': it does not exist" in answers[1].message
    assert keys.try_all([]) == []


def test_passphrases_are_derived_on_all_cores_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    # Nobody gets past it before two have come.
    meeting = threading.Barrier(2, timeout=60)

    def derive(candidate: RootKey) -> bytes:
        meeting.wait()
        return bytes(32)

    monkeypatch.setattr(lzc, "derive", derive)
    mixed = [RootKey("p", PASSPHRASE, 1, 1), *(RootKey(f"h{number}", HEX) for number in range(9))]
    assert all(lzc.LibraryKeys(FakeLibrary()).try_all([*mixed, RootKey("q", PASSPHRASE, 1, 1)]))


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
    with pytest.raises(Busy):
        lzc.LibraryKeys(FakeLibrary(errno.EBUSY)).unload("t")
    with pytest.raises(StorageError, match="Can't unload the key of 't': it does not exist"):
        lzc.LibraryKeys(FakeLibrary(errno.ENOENT)).unload("t")


def test_a_key_that_is_not_loaded_is_unloaded_already_if_there_can_be_one() -> None:
    library = FakeLibrary(errno.EACCES)
    lzc.LibraryKeys(library).unload("t")
    assert library.calls == [("unload", "t"), ("load", "t", True, bytes(32))]
    with pytest.raises(StorageError, match="Can't unload the key of 't/child': it is no encryption root"):
        lzc.LibraryKeys(FakeLibrary(errno.EACCES, dry_run=errno.EINVAL)).unload("t/child")


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
    with pytest.raises(StorageError, match="not encrypted, a clone, or can't have such a key"):
        lzc.LibraryKeys(FakeLibrary(errno.EINVAL)).change("t", HEX, "prompt", None)
    with pytest.raises(StorageError, match="read-only"):
        lzc.LibraryKeys(FakeLibrary(errno.EROFS)).inherit("t")
    with pytest.raises(Refused, match="its key or that of its parent is not loaded"):
        lzc.LibraryKeys(FakeLibrary(errno.EACCES)).inherit("t")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (errno.EPERM, "permission denied"),
        (errno.EAGAIN, "does not answer"),
        (errno.ENOTSUP, "can't hold encrypted datasets"),
        (errno.EBADE, "I/O error"),
        (1048, "does not know its cipher"),
        (errno.ENOSPC, "No space left on device"),
    ],
)
def test_numbers_in_words(status: int, words: str) -> None:
    with pytest.raises(StorageError, match=words) as caught:
        lzc.LibraryKeys(FakeLibrary(status)).load(RootKey("t", HEX))
    assert caught.value.details == {"errno": status}


class Function:
    """A C function that answers with a number. It takes whatever ctypes lets one say about a function."""

    argtypes: list[t.Any]
    restype: t.Any = None

    def __init__(self, work: t.Callable[..., int]) -> None:
        self.work = work

    def __call__(self, *arguments: t.Any) -> int:
        return self.work(*arguments)


class Libraries:
    """libzfs_core and libnvpair, as far as they are called, by the names of their files."""

    def __init__(self, *names: str, init: int = 0, status: int = 0) -> None:
        self.names = names
        self.status = status
        self.tried: list[str] = []
        self.seen: list[t.Any] = []
        self.buffers: list[t.Any] = []
        self.libzfs_core_init = Function(lambda: init)
        self.lzc_load_key = Function(self._load)
        self.lzc_unload_key = Function(lambda name: self._see(name, status))
        self.lzc_change_key = Function(self._change)
        self.nvlist_alloc = Function(lambda *_arguments: 0)
        self.nvlist_add_uint64 = Function(lambda _pairs, name, value: self._see((name, value)))
        self.nvlist_add_string = Function(lambda _pairs, name, value: self._see((name, value)))
        self.nvlist_free = Function(lambda _pairs: self._see("freed"))

    def _see(self, what: t.Any, status: int = 0) -> int:
        self.seen.append(what)
        return status

    def __call__(self, name: str) -> Libraries:
        self.tried.append(name)
        if name not in self.names:
            raise OSError(f"{name}: cannot open shared object file")
        return self

    def _load(self, name: bytes, dry_run: int, buffer: t.Any, size: int) -> int:
        self.buffers.append(buffer)
        self.seen.append((name, dry_run, bytes(buffer), size))
        return self.status

    def _change(self, name: bytes, command: int, _pairs: t.Any, buffer: t.Any, size: int) -> int:
        self.buffers.append(buffer)
        self.seen.append((name, command, buffer if buffer is None else bytes(buffer), size))
        return self.status


class TestNativeLibrary:
    def native(self, monkeypatch: pytest.MonkeyPatch, libraries: Libraries) -> lzc.NativeLibrary:
        monkeypatch.setattr(ctypes, "CDLL", libraries)
        return lzc.NativeLibrary()

    @pytest.mark.parametrize(
        "names",
        [("libzfs_core.so.3", "libnvpair.so.3"), ("libzfs_core.so.2", "libnvpair.so.2")],
        ids=["linux", "freebsd"],
    )
    def test_libraries_are_found_by_their_names(self, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        libraries = Libraries(*names)
        self.native(monkeypatch, libraries)
        assert set(names) <= set(libraries.tried)

    def test_a_host_without_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OSError, match="cannot open shared object file"):
            self.native(monkeypatch, Libraries())

    def test_a_host_whose_zfs_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OSError, match="No such file"):
            self.native(monkeypatch, Libraries("libzfs_core.so.3", "libnvpair.so.3", init=errno.ENOENT))

    def test_a_library_from_before_encryption(self, monkeypatch: pytest.MonkeyPatch) -> None:
        libraries = Libraries("libzfs_core.so.3", "libnvpair.so.3")
        del libraries.lzc_load_key
        with pytest.raises(AttributeError, match="lzc_load_key"):
            self.native(monkeypatch, libraries)

    def test_keys_are_wiped_after_each_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        libraries = Libraries("libzfs_core.so.3", "libnvpair.so.3", status=errno.EACCES)
        native = self.native(monkeypatch, libraries)
        key = bytes(range(32))
        assert native.load_key("tank/ä", True, key) == errno.EACCES
        assert native.change_key("t", 2, {"keyformat": 2, "keylocation": "file:///ä"}, key) == errno.EACCES
        assert native.change_key("t", 3, {}, None) == errno.EACCES
        assert native.unload_key("t") == errno.EACCES
        assert libraries.seen == [
            ("tank/ä".encode(), 1, key, 32),
            (b"keyformat", 2),
            (b"keylocation", "file:///ä".encode()),
            (b"t", 2, key, 32),
            "freed",
            (b"t", 3, None, 0),
            "freed",
            b"t",
        ]
        assert [bytes(buffer) for buffer in libraries.buffers if buffer is not None] == [bytes(32), bytes(32)]

    def test_properties_that_do_not_fit_into_memory_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        libraries = Libraries("libzfs_core.so.3", "libnvpair.so.3")
        libraries.nvlist_add_string = Function(lambda *_arguments: errno.ENOMEM)
        native = self.native(monkeypatch, libraries)
        assert native.change_key("t", 2, {"keylocation": "prompt", "keyformat": 1}, bytes(32)) == errno.ENOMEM
        assert libraries.seen == ["freed"]
