# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One talker for each drive, sessions of others that are left alone, and partition tables that nobody has read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import typing as t
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.module_utils.sed import hold as holding
from ansible_collections.nasops.encryption.plugins.module_utils.sed import link, pin, uids
from ansible_collections.nasops.encryption.plugins.module_utils.sed import session as sessions
from ansible_collections.nasops.encryption.plugins.module_utils.sed.discovery import Discovery
from ansible_collections.nasops.encryption.plugins.module_utils.sed.drive import Drive as Seen
from ansible_collections.nasops.encryption.plugins.module_utils.sed.hold import Hold, hold
from ansible_collections.nasops.encryption.plugins.module_utils.sed.journal import Journal
from ansible_collections.nasops.encryption.plugins.module_utils.sed.link import Identity
from ansible_collections.nasops.encryption.plugins.module_utils.sed.partitions import has_partitions
from ansible_collections.nasops.encryption.plugins.module_utils.sed.sedutil import Sedutil
from ansible_collections.nasops.encryption.plugins.module_utils.sed.state import WRITEONLY, DriveState, Secret
from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, Session, Spec
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sed.drives import Host

NODE = "/dev/nvme0n1"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A drive that is set up, and no patience with others."""
    monkeypatch.setattr(sessions, "_BUSY_PATIENCE", 0.3)
    monkeypatch.setattr(sessions, "_OWN_PATIENCE", 0.1)
    one = Host(Spec("S1"))
    one.play(serial="S1", password="secret")
    return one


def test_a_session_of_another_program_is_waited_for_and_never_reset(host: Host) -> None:
    drive = host.drives[0]
    theirs = Session(names.LOCKING_SP, 105, 0x2000, True)
    drive.session = theirs
    done = host.play(serial="S1", password="secret", state="locked")
    assert ["The drive is busy: another program has a session" in one.message for one in done.plan.failures] == [True]
    assert drive.session is theirs and drive.readable()
    drive.session = None
    assert host.play(serial="S1", password="secret", state="locked").plan.steps and not drive.readable()


def test_a_session_that_a_task_of_ours_left_open_is_ended(host: Host) -> None:
    drive = host.drives[0]
    drive.session = Session(names.LOCKING_SP, 4711, 0x2000, True)
    with host.hold(NODE) as held:
        held.note("S1")
    assert host.play(serial="S1", password="secret", state="locked").plan.steps and not drive.readable()
    with host.hold(NODE) as held:
        assert held.opened == ""


def test_a_note_about_another_drive_of_that_name_ends_no_session(host: Host) -> None:
    drive = host.drives[0]
    drive.session = theirs = Session(names.LOCKING_SP, 105, 0x2000, True)
    with host.hold(NODE) as held:
        held.note("S2")
    assert host.play(serial="S1", password="secret", state="locked").plan.failures
    assert drive.session is theirs


def test_every_process_has_a_number_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = []
    for pid in (4711, 4712):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        numbers.append(sessions.host_session())
    assert numbers == [4711, 4712]


def test_a_drive_is_held_by_one_at_a_time_and_its_note_outlives_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(holding, "RUN_FOLDER", str(tmp_path))
    monkeypatch.setattr(holding, "_PATIENCE", 0.2)
    with hold("/dev/sda") as first:
        assert first.opened == ""
        first.note("S1")
        with pytest.raises(Exception, match="Another task of this collection"), hold("/dev/sda"):
            pass
        with hold("/dev/sdb") as other:
            assert other.opened == ""
    with hold("/dev/sda") as second:
        assert second.opened == "S1"
        second.note("")
    with hold("/dev/sda") as third:
        assert third.opened == ""


def test_what_was_noted_is_there_for_the_next_task_and_holds_no_password(tmp_path: Path) -> None:
    path = tmp_path / "drives"
    one = Journal(str(path))
    one.begin("S1", uids.ADMIN1, "ours")
    one.refuse("S1", uids.SID, "factory")
    one.begin("S2", uids.SID, "factory")
    assert path.stat().st_mode & 0o777 == 0o600
    another = Journal(str(path))
    assert another.memory("S1").begun(uids.ADMIN1) == "ours" and another.memory("S1").refused(uids.SID) == "factory"
    another.end("S1", uids.ADMIN1, "ours")
    assert another.memory("S1").refused(uids.ADMIN1) == "ours", "until the task ends"
    assert Journal(str(path)).memory("S1").refused(uids.ADMIN1) == ""
    another.forget("S1")
    assert Journal(str(path)).memory("S1").refused(uids.SID) == ""
    assert Journal(str(path)).memory("S2").begun(uids.SID) == "factory"
    path.write_text('{"S2": {"SI')
    assert Journal(str(path)).memory("S2").begun(uids.SID) == "", "what was cut off tells nothing"


class Started:
    """A link to a drive, and a program that is only told to be held while it runs."""

    def __init__(self) -> None:
        self.held = 0
        self.ran: list[tuple[tuple[str, ...], int]] = []

    @contextlib.contextmanager
    def hold(self, node: str) -> t.Iterator[Hold]:
        assert node == NODE
        self.held += 1
        yield Hold()
        self.held -= 1

    def answer(self, command: Command) -> Result:
        self.ran.append((command.argv, self.held))
        return Result(command.argv, 0, "", "")


def test_sedutil_runs_while_the_drive_is_held_and_writes_nothing_in_check_mode() -> None:
    started, emulated = Started(), Host(Spec("S1"))
    drive = Seen("nvme0n1", NODE, "S1")
    identity = Identity("nvme", "S1", "EMU OPAL 1TB", "1.0EMU", b"S1".ljust(20))
    state = DriveState(drive, identity, Discovery("opal2", enabled=True, locking=True))
    hand = Sedutil(
        RecordedRunner(default=started.answer), Mask(), True, True, opener=emulated.open, holder=started.hold
    )
    checking = Sedutil(RecordedRunner(), Mask(), True, False, opener=emulated.open, holder=started.hold)
    for one, writes in ((hand, True), (checking, False)):
        assert one.can_try(state, uids.ADMIN1) and one.can_try(state, uids.band_master(0))
        # That locking is on is seen after the owner has begun a session.
        assert one.can_try(state, uids.SID) and one.can_try(state, uids.ERASE_MASTER) is writes
        for other in (Discovery("opal2", locking=True), Discovery("enterprise", enabled=True, locking=True)):
            assert one.can_try(replace(state, found=other), uids.SID) is writes
    hand.look(drive)
    hand.holder(state, uids.ADMIN1, (Secret("ours", b"secret"),))
    assert [held for _argv, held in started.ran] == [1, 1]
    assert [argv[-1] for argv, _held in started.ran] == [NODE, NODE]


def enterprise(host: Host) -> DriveState:
    identity = Identity("nvme", "S1", "EMU OPAL 1TB", "1.0EMU", b"S1".ljust(20))
    found = Discovery("enterprise", enabled=True, locking=True)
    return DriveState(Seen("nvme0n1", NODE, "S1"), replace(identity, wwn=host.drives[0].spec.wwn), found)


@pytest.mark.parametrize("raw", [True, False])
def test_the_owner_of_an_enterprise_drive_is_proven_without_sedutil(raw: bool) -> None:
    host = Host(Spec("S1", kind=ENTERPRISE))
    drive, state, warnings = host.drives[0], enterprise(host), list[str]()
    runner = RecordedRunner(default=lambda command: Result(command.argv, 0, "MSID: MSID0123456789ABCDEF\n", ""))
    hand = Sedutil(runner, Mask(), raw, True, warnings.append, host.open, host.hold)
    secret = Secret("ours", b"secret")
    made = pin.derive(b"secret", state.identity.salt, "raw" if raw else "sha1")
    eraser = names.pin_of(names.ERASE_MASTER)
    drive.pins[eraser].value = made

    def take() -> None:
        hand.set_pin(state, uids.SID, Secret("factory"), secret)

    # The program says that all is well, whatever is in the drive.
    with pytest.raises(sessions.NotStored, match="password of SID, said that it had, and does not take it; sedutil"):
        take()
    assert drive.wrong == [names.PIN_SID] and warnings == []
    drive.pins[names.PIN_SID].value = made
    take()
    assert drive.wrong == [names.PIN_SID] and warnings == []
    # What can't be told is no failure.
    drive.faults.inject("StartSession")
    take()
    assert len(warnings) == 1 and "could not be proven that the drive takes it: The drive refused to" in warnings[0]
    if not raw:
        drive.pins[eraser].value = drive.pins[names.PIN_SID].value = b"what a fork makes of it"
        take()
        assert len(warnings) == 2 and "makes another credential of it" in warnings[1]
        assert drive.wrong == [names.PIN_SID, eraser]


@pytest.mark.parametrize("reset", [True, False])
def test_a_session_of_ours_that_sedutil_could_not_drop_stays_noted(host: Host, reset: bool) -> None:
    busy = "method status code NO_SESSIONS_AVAILABLE\nSession start failed rc = 7\nEndSession Failed\n"
    asked: list[int] = []

    @contextlib.contextmanager
    def opened(node: str, exclusive: bool) -> t.Iterator[t.Any]:
        with host.open(node, exclusive) as one:
            if not reset:
                one.send = refuse  # type: ignore[method-assign]
            yield one

    def refuse(protocol: int, specific: int, data: bytes) -> None:
        raise StorageError("no")

    def answer(command: Command) -> Result:
        asked.append(1)
        return Result(command.argv, 7, "", busy)

    identity = Identity("nvme", "S1", "EMU OPAL 1TB", "1.0EMU", b"S1".ljust(20), host.drives[0].spec.wwn)
    state = DriveState(Seen("nvme0n1", NODE, "S1"), identity, Discovery("opal2", enabled=True, locking=True))
    hand = Sedutil(RecordedRunner(default=answer), Mask(), True, opener=opened, holder=host.hold)
    with host.hold(NODE) as held:
        held.note("S1")
    with pytest.raises(StorageError, match="no session is available"):
        hand.holder(state, uids.ADMIN1, (Secret("ours", b"secret"),))
    assert len(asked) == 2
    with host.hold(NODE) as held:
        assert held.opened == ("" if reset else "S1")


def test_sedutil_is_not_asked_for_what_it_can_not_do() -> None:
    emulated = Host(Spec("S1"))
    identity = Identity("nvme", "S1", "EMU OPAL 1TB", "1.0EMU", b"S1".ljust(20))
    state = DriveState(Seen("nvme0n1", NODE, "S1"), identity, Discovery("opal2", enabled=True, locking=True))
    hand = Sedutil(RecordedRunner(), Mask(), False, True, opener=emulated.open, holder=emulated.hold)
    with pytest.raises(StorageError, match="can't keep a range from being read alone. Use backend: native"):
        hand.lock(state, 0, WRITEONLY, Secret("ours", b"secret"))


def test_the_lock_of_a_drive_that_another_program_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(link, "_PATIENCE", 0.2)
    node = tmp_path / "sda"
    node.touch()
    with node.open() as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(link.Gone, match=f"Another program has held the lock of {node}") as caught:
            link.open_link(str(node)).__enter__()
        assert f"fuser {node}" in caught.value.hint
        fcntl.flock(theirs, fcntl.LOCK_UN)
        # It is no drive, which is another matter.
        with pytest.raises(StorageError, match="does not take security commands"), link.open_link(str(node)) as one:
            one.identify()


def disk(first: bytes = b"", block: int = 512, entry: bytes = b"", signature: bytes = b"EFI PART") -> bytes:
    """A disk with a GPT of 128 entries whose first one is given."""
    entries = entry.ljust(128 * 128, b"\0")
    header = struct.pack("<8sIIII48xQIII", signature, 0x10000, 92, 0, 0, 2, 128, 128, zlib.crc32(entries))
    header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
    return first.ljust(block, b"\0") + header.ljust(block, b"\0") + entries


def broken(content: bytes, at: int) -> bytes:
    """The same with one other byte."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def dos(*rows: bytes) -> bytes:
    return (bytes(446) + b"".join(row.ljust(16, b"\0") for row in rows)).ljust(510, b"\0") + b"\x55\xaa"


PART = struct.pack("<BxxxBxxxII", 0, 0x83, 2048, 4096)
COVER = struct.pack("<BxxxBxxxII", 0, 0xEE, 1, 0xFFFFFFFF)


@pytest.mark.parametrize(
    "content,there",
    [
        (b"", False),
        (bytes(65536), False),
        # Linux ignores a GPT without the sector that protects it.
        (disk(entry=b"\1" * 16), False),
        (disk(dos(COVER)[:-1], entry=b"\1" * 16), False),
        (disk(dos(PART[:4] + b"\0" + PART[5:]), entry=b"\1" * 16), False),
        (disk(dos(COVER), block=4096, entry=b"\1" * 16), True),
        (disk(dos(COVER), entry=b"\1" * 16), True),
        (disk(dos(COVER)), False),
        # What is left of an old table: nor does Linux take one whose checksums are wrong.
        (broken(disk(dos(COVER), entry=b"\1" * 16), 512 + 60), False),
        (broken(disk(dos(COVER), entry=b"\1" * 16), 1024 + 40), False),
        (disk(dos(COVER), entry=b"\1" * 16, signature=b"EFI NONE"), False),
        (dos(PART), True),
        (dos(COVER), False),
        (dos(), False),
        (dos(b"\x33" + PART[1:]), False),
        (b"\xeb\x3c\x90NTFS".ljust(446, b"\0") + dos(PART)[446:], False),
        (dos(PART)[:-1], False),
    ],
)
def test_a_partition_table_with_a_partition(content: bytes, there: bool) -> None:
    assert has_partitions(lambda offset, length: content[offset : offset + length]) is there
