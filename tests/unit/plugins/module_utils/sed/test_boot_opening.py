# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does with the passwords of its drives when it starts: which it fetches, and which it offers once."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Plan
from ansible_collections.nasops.encryption.plugins.module_utils.sed import boot
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_careful import Careful
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_keys import Fetched, Password
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_options import kmip_spec
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_refused import Refusals
from ansible_collections.nasops.encryption.plugins.module_utils.sed.decide import Tools, decide
from ansible_collections.nasops.encryption.plugins.module_utils.sed.journal import Journal
from ansible_collections.nasops.encryption.plugins.module_utils.sed.native import Native
from ansible_collections.nasops.encryption.plugins.module_utils.sed.options import Wish, argument_spec
from ansible_collections.nasops.encryption.plugins.module_utils.sed.read import Eyes, Survey, after, survey
from ansible_collections.nasops.encryption.plugins.module_utils.sed.usage import Usage
from ansible_collections.nasops.encryption.tests.opal.drive import Spec
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sed.drives import Host, _nothing

RIGHT, WRONG = "the-right-password", "another-password"
SERVER = {"server": "kmip", "certificate": "/etc/nas/client.crt"}


class World:
    """A host with two drives, which are locked, and a server with their passwords."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = Host(Spec("S1"), Spec("S2"))
        self.host.play(devices=["S1", "S2"], password=RIGHT)
        self.power_cycle("S1", "S2")
        self.notes = folder / "refused"
        self.passwords = {"S1": RIGHT, "S2": RIGHT}
        self.late: set[str] = set()
        self.fetched: list[list[str]] = []
        # What happens while the server is asked.
        self.meanwhile: t.Callable[[], None] = lambda: None
        self.said: list[str] = []
        self._locked = False
        world = self

        class OneTask:
            """In place of one on the drives of this machine."""

            def __init__(
                self,
                runner: object,
                hand: Careful,
                wishes: tuple[Wish, ...],
                check_mode: bool = False,
                trying: bool = True,
            ) -> None:
                self._hand, self._wishes, self._trying = hand, wishes, trying
                hand._open, hand._hold = world.host.open, world.host.hold
                self._journal = Journal(path="", writes=not check_mode)

            def read(self) -> Survey:
                assert world._locked or not self._trying
                eyes = Eyes(self._hand, self._journal, lambda _one: Usage(), lambda _one: False, self._trying)
                table = world.host.table()
                there = tuple(one for one in table.devices if one.serial not in world.late)
                return survey(eyes, type(table)(there), self._wishes)

            def plan(self, found: Survey) -> Plan:
                return decide(Tools(self._hand, self._journal, _nothing, _nothing), self._wishes, found)

            def read_again(self, _before: Survey, done: Plan) -> Survey:
                return after(self.read(), done)

        monkeypatch.setattr(boot, "Task", OneTask)
        monkeypatch.setattr(boot, "_wait", lambda _runner, _addresses: None)
        monkeypatch.setattr(boot, "exclusive", self._exclusive)
        monkeypatch.setattr(boot, "collect", self._collect)

    def power_cycle(self, *serials: str) -> None:
        for drive in self.host.drives:
            if drive.spec.serial in serials:
                drive.power_cycle()

    def start(self, by_server: bool = True, **file: t.Any) -> list[str]:
        """What one start of the program leaves locked."""
        self.said.clear()
        defaults = {name: one.get("default") for name, one in argument_spec().items()}
        kmip = {name: one.get("default") for name, one in kmip_spec().items()}
        given: dict[str, t.Any] = {"devices": ["S1", "S2"], "hash": "raw", **file}
        if by_server:
            given["kmip"] = {**kmip, **SERVER, "object": "drives"}
        return boot.unlock({**defaults, "kmip": None, **given}, self.said.append, by_server, Refusals(str(self.notes)))

    def open(self) -> list[str]:
        return [drive.spec.serial for drive in self.host.drives if drive.readable()]

    def tries(self) -> list[int]:
        """How many wrong passwords each drive was offered."""
        return [len(drive.wrong) for drive in self.host.drives]

    @contextlib.contextmanager
    def _exclusive(self, patience: float) -> t.Iterator[None]:
        assert patience < 600
        self._locked = True
        yield
        self._locked = False

    def _collect(self, kmip: object, devices: t.Collection[str], kind: str, say: object) -> Fetched:
        self.fetched.append(list(devices))
        self.meanwhile()
        found = {device: self.passwords.get(device) for device in devices}
        origin = f"object {len(self.fetched)}"
        passwords = {device: Password(text, origin) for device, text in found.items() if text}
        return Fetched(passwords, {device: StorageError("No such key.") for device, text in found.items() if not text})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_the_server_is_asked_for_what_is_not_open(world: World) -> None:
    assert world.start() == [] and world.open() == ["S1", "S2"]
    assert world.start() == [] and world.fetched == [["S1", "S2"]] and world.said == []
    world.power_cycle("S2")
    assert world.start() == [] and world.fetched[1:] == [["S2"]]


def test_a_drive_that_shows_itself_late_is_opened_too(world: World) -> None:
    world.late = {"S2"}
    world.meanwhile = world.late.clear
    assert world.start() == [] and world.open() == ["S1", "S2"]
    # One that does not is told of as missing, not as refusing anything.
    world.power_cycle("S2")
    world.late, world.meanwhile, world.passwords = {"S2"}, lambda: None, {}
    assert world.start() == ["S2"] and world.tries() == [0, 0]
    assert (
        "There is no drive 'S2'" in world.said[0] and "Nor could its password be fetched: No such key" in world.said[0]
    )


def test_a_drive_that_is_locked_meanwhile_is_not_said_to_have_refused_anything(world: World) -> None:
    assert world.start() == []
    world.power_cycle("S2")
    world.meanwhile = lambda: world.power_cycle("S1")
    assert world.start() == ["S1"] and world.tries() == [0, 0]
    told = next(line for line in world.said if "STAYS LOCKED" in line)
    assert "'S1' STAYS LOCKED: Its password was not fetched" in told and "tries" not in told


def test_the_same_password_is_not_offered_twice_wherever_it_comes_from(world: World) -> None:
    world.passwords["S2"] = WRONG
    assert world.start() == ["S2"] and world.tries() == [0, 1]
    assert "what 'S2' did not take is object 1" in world.said
    # As another object, or from the file.
    assert world.start() == ["S2"] and world.tries() == [0, 1]
    assert "'S2' STAYS LOCKED: It was offered object 2 since the host started" in world.said[0]
    assert "cost" not in world.said[0]
    assert world.start(False, password=WRONG) == ["S2"] and world.tries() == [0, 1]
    assert "It was offered the password in the file since the host started" in world.said[0]
    # Another one is, once.
    for _number in range(2):
        assert world.start(False, password="a-third-one") == ["S2"] and world.tries() == [0, 2]
    assert WRONG not in world.notes.read_text()
    assert world.start(False, password=RIGHT) == [] and world.open() == ["S1", "S2"]
    world.notes.unlink()
    world.power_cycle("S2")
    assert world.start() == ["S2"] and world.tries() == [0, 3], "the host has started again"


def test_one_that_was_offered_and_not_answered_to_is_not_offered_again(world: World) -> None:
    # The first one asks how many tries are left.
    world.host.drives[1].faults.inject("StartSession", "vanish_after", skip=1)
    world.passwords["S2"] = WRONG
    assert world.start() == ["S2"]
    world.host.drives[1].gone = False
    world.host.drives[1].faults.clear()
    world.power_cycle("S2")
    before = world.tries()
    assert world.start() == ["S2"] and world.tries() == before
    assert "did not take it as far as is known" in world.said[0]


def test_what_ends_the_program_leaves_the_note(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """What SIGTERM does to it."""

    def die(*_arguments: object) -> t.NoReturn:
        raise Killed

    world.late = {"S1"}
    with monkeypatch.context() as patch:
        patch.setattr(Native, "_as", die)
        with pytest.raises(Killed):
            world.start(False, password=WRONG)
    assert world.start(False, password=WRONG) == ["S1", "S2"] and world.tries() == [0, 0]
    assert any("'S2' STAYS LOCKED: It was offered" in line for line in world.said)


def test_what_a_drive_did_not_judge_is_offered_again(world: World) -> None:
    drive = world.host.drives[1]
    # AUTHORITY_LOCKED_OUT
    drive.faults.inject("StartSession", "refuse", 0x12, skip=1, times=9)
    assert world.start() == ["S2"] and "locked out" in "".join(world.said)
    drive.faults.clear()
    world.power_cycle("S2")
    assert world.start() == [] and world.open() == ["S1", "S2"]
