# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys through the program zfs, and the choice between the two ways."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import lzc
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keys import (
    Busy,
    CommandKeys,
    RootKey,
    WrongKey,
    engine,
    keys_of,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import ZfsUnavailable
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, said

HEX = Key("hex", b"a" * 64)
RAW = Key("raw", bytes(32))
PASSPHRASE = Key("passphrase", b"correct horse")


def obedient() -> RecordedRunner:
    """A host where every program does what it should."""
    return RecordedRunner(default=said)


def saying(stderr: str) -> RecordedRunner:
    """A host where every program fails with these words."""
    return RecordedRunner(default=lambda command: said(command, stderr=stderr, rc=255))


class TestTrying:
    def test_a_key_goes_to_standard_input_and_nowhere_else(self) -> None:
        runner = obedient()
        assert CommandKeys(runner).try_all([RootKey("t", HEX), RootKey("u", RAW)]) == [True, True]
        stdin = {command.argv[-1]: command.stdin for command in runner.commands}
        assert stdin == {"t": b"a" * 64 + b"\n", "u": bytes(32)}
        assert {command.argv[:-1] for command in runner.commands} == {("zfs", "load-key", "-n", "-L", "prompt")}

    def test_no_key_is_no_process(self) -> None:
        runner = obedient()
        assert CommandKeys(runner).try_all([]) == []
        assert runner.commands == []

    def test_answers_come_in_the_order_of_the_questions(self) -> None:
        def answer(command: Command) -> Result:
            wrong = int(command.argv[-1][1:]) % 3 == 0
            return said(command, stderr="Key load error: Incorrect key provided for 't'." if wrong else "", rc=wrong)

        candidates = [RootKey(f"t{number}", HEX) for number in range(50)]
        found = CommandKeys(RecordedRunner(default=answer)).try_all(candidates)
        assert found == [number % 3 != 0 for number in range(50)]

    @pytest.mark.parametrize(
        "sentence",
        [
            "Incorrect key provided for 't'.",
            "Hex key too short (expected 64).",
            "Raw key too long (expected 32).",
            "Invalid hex character detected.",
            "Passphrase too long (max 512).",
        ],
    )
    def test_a_key_in_another_format_is_a_wrong_key(self, sentence: str) -> None:
        runner = saying(f"Key load error: {sentence}\n")
        assert CommandKeys(runner).try_all([RootKey("t", HEX)]) == [False]
        with pytest.raises(WrongKey, match="not the one that opens 't'"):
            CommandKeys(runner).load(RootKey("t", HEX))

    @pytest.mark.parametrize(
        ("sentence", "message", "hint"),
        [
            ("cannot open 't': dataset does not exist", "it does not exist", ""),
            ("Key load error: 't' is not encrypted.", "it is not encrypted", ""),
            (
                "Key load error: Keys must be loaded for encryption root of 't' (u).",
                "no encryption root",
                "encryptionroot",
            ),
            ("Key load error: Permission denied.", "permission denied", "become"),
            ("Key load error: Encryption feature not enabled.", "can't hold encrypted datasets", "zpool upgrade"),
            ("Key load error: 't' uses an unsupported encryption suite.", "does not know its cipher", "newer OpenZFS"),
            ("Key load error: Passphrase too short (min 8).", "less than 8 characters", "2.2"),
            ("cannot open 't': I/O error", "I/O error", "zpool status"),
            ("cannot open 't': pool I/O is currently suspended", "does not answer", "zpool status"),
        ],
    )
    def test_everything_else_is_told_in_words(self, sentence: str, message: str, hint: str) -> None:
        (found,) = CommandKeys(saying(f"{sentence}\n")).try_all([RootKey("t", PASSPHRASE)])
        assert isinstance(found, StorageError)
        assert found.message.startswith("Can't try a key of 't': ") and message in found.message
        assert hint in found.hint
        assert found.details["rc"] == 255

    def test_what_nobody_knows_stays_as_zfs_said_it(self) -> None:
        (found,) = CommandKeys(saying("Key load error: cosmic rays\n")).try_all([RootKey("t", HEX)])
        assert isinstance(found, CommandError) and "cosmic rays" in found.message

    def test_zfs_that_is_not_there_is_an_answer_too(self) -> None:
        (found,) = CommandKeys(RecordedRunner(missing=("zfs",))).try_all([RootKey("t", HEX)])
        assert isinstance(found, ZfsUnavailable)


class TestLoading:
    def test_a_key_is_loaded_from_standard_input_whatever_the_keylocation(self) -> None:
        runner = obedient()
        CommandKeys(runner).load(RootKey("t", RAW))
        assert [command.argv for command in runner.commands] == [("zfs", "load-key", "-L", "prompt", "t")]
        assert runner.commands[0].stdin == bytes(32)

    def test_what_is_loaded_or_unloaded_already_is_fine(self) -> None:
        CommandKeys(saying("Key load error: Key already loaded for 't'.")).load(RootKey("t", HEX))
        CommandKeys(saying("Key unload error: Key already unloaded for 't'.")).unload("t")

    def test_what_is_in_use_is_told_apart(self) -> None:
        with pytest.raises(Busy, match="'t' is busy"):
            CommandKeys(saying("Key unload error: 't' is busy.")).unload("t")

    def test_other_failures(self) -> None:
        with pytest.raises(StorageError, match="Can't load the key of 't': permission denied"):
            CommandKeys(saying("Key load error: Permission denied.")).load(RootKey("t", HEX))
        with pytest.raises(StorageError, match="Can't unload the key of 't': it is no encryption root"):
            CommandKeys(saying("Key unload error: Keys must be unloaded for encryption root of 't' (u).")).unload("t")


def changes(runner: RecordedRunner) -> list[tuple[str, bytes | None]]:
    return [(" ".join(command.argv), command.stdin) for command in runner.commands]


class TestChanging:
    def test_a_key_that_is_asked_for(self) -> None:
        runner = obedient()
        CommandKeys(runner).change("t", PASSPHRASE, "prompt", 200000)
        line = "zfs change-key -o keyformat=passphrase -o pbkdf2iters=200000 -o keylocation=prompt t"
        assert changes(runner) == [(line, b"correct horse\n")]

    def test_a_key_that_is_in_its_file_takes_one_process(self, tmp_path: Path) -> None:
        runner = obedient()
        path = tmp_path / "t.key"
        path.write_bytes(HEX.file_content())
        CommandKeys(runner).change("t", HEX, f"file://{path}", None)
        assert changes(runner) == [(f"zfs change-key -o keyformat=hex -o keylocation=file://{path} t", None)]

    @pytest.mark.parametrize(("key", "content"), [(HEX, b"a" * 64 + b"\n"), (HEX, b"a" * 64), (RAW, bytes(32))])
    def test_beside_the_former_key_zfs_can_find_it_at_every_moment(
        self, key: Key, content: bytes, tmp_path: Path
    ) -> None:
        runner = obedient()
        path = tmp_path / "t.key"
        path.write_bytes(b"the former key")
        (tmp_path / "t.key.new").write_bytes(content)
        CommandKeys(runner).change("t", key, f"file://{path}", None)
        assert changes(runner) == [
            (f"zfs change-key -o keyformat={key.format} -o keylocation=file://{path}.new t", None),
            (f"zfs set keylocation=file://{path} t", None),
        ]

    @pytest.mark.parametrize("content", [b"a" * 63 + b"\n", b"a" * 64 + b"\n\n", b"a" * 65, b""])
    def test_a_file_with_another_key_is_not_read(self, content: bytes, tmp_path: Path) -> None:
        runner = obedient()
        path = tmp_path / "t.key"
        path.write_bytes(content)
        CommandKeys(runner).change("t", HEX, f"file://{path}", None)
        assert changes(runner) == [
            ("zfs change-key -o keyformat=hex -o keylocation=prompt t", b"a" * 64 + b"\n"),
            (f"zfs set keylocation=file://{path} t", None),
        ]

    def test_inheriting(self) -> None:
        runner = obedient()
        CommandKeys(runner).inherit("t/a")
        assert changes(runner) == [("zfs change-key -i t/a", None)]

    @pytest.mark.parametrize(
        ("sentence", "message", "refused"),
        [
            ("Key must be loaded.", "its key is not loaded", True),
            ("Keys cannot be changed on clones.", "it is a clone", True),
            ("Dataset not encrypted.", "it is not encrypted", False),
            ("encryption failure", "ZFS tells no reason; the pool may be imported read-only", False),
        ],
    )
    def test_why_it_can_not_be_changed(self, sentence: str, message: str, refused: bool) -> None:
        with pytest.raises(StorageError, match=f"Can't change the key of 't': {message}") as caught:
            CommandKeys(saying(f"Key change error: {sentence}\n")).change("t", HEX, "prompt", None)
        assert isinstance(caught.value, Refused) is refused

    @pytest.mark.parametrize(
        ("sentence", "message"),
        [
            ("Parent key must be loaded.", "the key of its parent is not loaded"),
            ("Parent must be encrypted.", "its parent is not encrypted"),
            ("Root dataset cannot inherit key.", "it is the root dataset of a pool"),
            ("Key inheritting can only be performed on encryption roots.", "it is no encryption root"),
        ],
    )
    def test_why_it_can_not_inherit(self, sentence: str, message: str) -> None:
        with pytest.raises(StorageError, match=f"Can't let the parent's key open 't': {message}"):
            CommandKeys(saying(f"Key change error: {sentence}\n")).inherit("t")


class TestChoice:
    @pytest.mark.parametrize("problem", [OSError("no such library"), AttributeError("lzc_load_key")])
    def test_a_host_without_the_library_uses_programs(
        self, problem: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing() -> t.NoReturn:
            raise problem

        monkeypatch.setattr(lzc, "NativeLibrary", missing)
        runner = obedient()
        assert engine(runner).name == "zfs"
        with pytest.raises(StorageError, match=f"libzfs_core can't be used on this host: {problem}"):
            engine(runner, "libzfs_core")

    def test_the_library_comes_first_unless_another_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lzc, "NativeLibrary", object)
        runner = obedient()
        assert engine(runner).name == "libzfs_core"
        assert engine(runner, "libzfs_core").name == "libzfs_core"
        assert engine(runner, "zfs").name == "zfs"

    def test_a_runner_may_have_an_engine(self) -> None:
        runner = obedient()
        assert keys_of(runner).name == "zfs"
        runner.keys = lzc.LibraryKeys(t.cast(t.Any, None))  # type: ignore[attr-defined]
        assert keys_of(runner).name == "libzfs_core"
