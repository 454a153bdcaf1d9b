# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys through the program zfs, and the choice between the two ways."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
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

HEX = Key("hex", b"a" * 64)
RAW = Key("raw", bytes(32))


class Recorded:
    """A runner whose programs all end in the same way."""

    def __init__(self, said: str = "") -> None:
        self.said = said
        self.commands: list[Command] = []

    def has(self, program: str) -> bool:
        return True

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command)
        if self.said:
            raise CommandError(Result(command.argv, 255, "", self.said))
        return Result(command.argv, 0, "", "")


def test_a_key_goes_to_standard_input_and_nowhere_else() -> None:
    runner = Recorded()
    keys = CommandKeys(runner)
    assert keys.try_all([RootKey("t", HEX), RootKey("u", RAW)]) == [True, True]
    keys.load(RootKey("t", HEX))
    keys.change("t", HEX, "file:///k", None)
    assert sorted(command.stdin or b"" for command in runner.commands[:2]) == [bytes(32), b"a" * 64 + b"\n"]
    assert not any("a" * 64 in " ".join(command.argv) for command in runner.commands)
    assert [command.argv[:3] for command in runner.commands[2:]] == [
        ("zfs", "load-key", "-L"),
        ("zfs", "change-key", "-o"),
        ("zfs", "set", "keylocation=file:///k"),
    ]


def test_trying() -> None:
    assert CommandKeys(Recorded()).try_all([]) == []
    assert CommandKeys(Recorded("Key load error: Incorrect key provided for 't'.")).try_all([RootKey("t", HEX)]) == [
        False
    ]
    answer = CommandKeys(Recorded("Key load error: I/O error")).try_all([RootKey("t", HEX)])[0]
    assert "I/O error" in str(answer)


def test_loading_and_unloading() -> None:
    CommandKeys(Recorded("Key load error: Key already loaded for 't'.")).load(RootKey("t", HEX))
    with pytest.raises(WrongKey):
        CommandKeys(Recorded("Key load error: Incorrect key provided for 't'.")).load(RootKey("t", HEX))
    with pytest.raises(CommandError):
        CommandKeys(Recorded("Key load error: Permission denied.")).load(RootKey("t", HEX))
    CommandKeys(Recorded("Key unload error: Key already unloaded for 't'.")).unload("t")
    with pytest.raises(Busy):
        CommandKeys(Recorded("Key unload error: 't' is busy.")).unload("t")
    with pytest.raises(CommandError):
        CommandKeys(Recorded("Key unload error: Permission denied.")).unload("t")


def test_a_host_without_the_library_uses_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> t.NoReturn:
        raise OSError("no such library")

    monkeypatch.setattr(lzc, "NativeLibrary", missing)
    assert engine(Recorded()).name == "zfs"
    with pytest.raises(OSError, match="no such library"):
        engine(Recorded(), "libzfs_core")
    assert engine(Recorded(), "zfs").name == "zfs"
    assert keys_of(Recorded()).name == "zfs"


def test_the_library_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lzc, "NativeLibrary", object)
    assert engine(Recorded()).name == "libzfs_core"
