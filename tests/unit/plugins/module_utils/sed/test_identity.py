# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another drive takes the place of the one that is meant while a task runs: it is left alone, whenever that happens."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.module_utils.sed import uids
from ansible_collections.nasops.encryption.plugins.module_utils.sed.discovery import Discovery
from ansible_collections.nasops.encryption.plugins.module_utils.sed.drive import Drive as Seen
from ansible_collections.nasops.encryption.plugins.module_utils.sed.link import Identity
from ansible_collections.nasops.encryption.plugins.module_utils.sed.sedutil import Sedutil
from ansible_collections.nasops.encryption.plugins.module_utils.sed.state import LOCKED, DriveState, Range, Secret
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Drive, Spec
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sed.drives import Host

OLD, NEW = "old-password", "new-password"
Options = dict[str, t.Any]
TASKS: dict[str, tuple[list[Options], Options]] = {
    "set up": ([], {}),
    "change the password": ([{}], {"new_password": NEW}),
    "lock": ([{}], {"state": "locked"}),
    "unlock": ([{}, {"state": "locked"}], {"state": "unlocked"}),
    "reset": ([{}], {"state": "absent", "confirm_serial": ["S1"]}),
}


def ready(kind: str, task: str) -> Host:
    host = Host(Spec("S1", kind=kind, ranges=1))
    for options in TASKS[task][0]:
        host.play(serial="S1", password=OLD, **options)
    host.opened = 0
    return host


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
@pytest.mark.parametrize("task", TASKS)
def test_a_drive_that_takes_the_place_of_another_one_is_not_touched(task: str, kind: str) -> None:
    host = ready(kind, task)
    host.play(serial="S1", password=OLD, **TASKS[task][1])
    count = host.opened
    assert count >= 4
    for place in range(count):
        host = ready(kind, task)
        # Of the same maker, set up with the same password: all would work on it.
        other = Host(Spec("S2", kind=kind, ranges=1))
        for options in TASKS[task][0]:
            other.play(serial="S2", password=OLD, **options)
        there = other.drives[0]
        there.calls.clear()
        there.wrong.clear()
        host.exchange = (place, there)
        done = host.play(serial="S1", password=OLD, **TASKS[task][1])
        said = " ".join(str(one) for one in done.plan.failures)
        assert "with serial number 'S2'; meant was 'S1'. Nothing was done" in said or "number is 'S2'" in said, place
        assert there.calls == [] and there.wrong == [], (place, "no session was begun")


SECRET = Secret("ours", b"secret")
IDENTITY = Identity("nvme", "S1", "EMU OPAL 1TB", "1.0EMU", b"S1".ljust(20))
STATE = DriveState(Seen("nvme0n1", "/dev/nvme0n1", "S1"), IDENTITY, Discovery("opal2", enabled=True, locking=True))


@pytest.mark.parametrize(
    "work",
    [
        lambda hand: hand.holder(STATE, uids.ADMIN1, (SECRET,)),
        lambda hand: hand.read_range(STATE, 0, SECRET),
        lambda hand: hand.set_pin(STATE, uids.ADMIN1, SECRET, Secret("new", b"other")),
        lambda hand: hand.own_bands(STATE, SECRET, 0),
        lambda hand: hand.activate(STATE, SECRET),
        lambda hand: hand.place(STATE, Range(1, 0, 8), SECRET),
        lambda hand: hand.enable(STATE, 0, SECRET),
        lambda hand: hand.lock(STATE, 0, LOCKED, SECRET),
        lambda hand: hand.shadow(STATE, False, True, SECRET),
        lambda hand: hand.revert(STATE, uids.SID, SECRET),
    ],
)
def test_sedutil_is_not_started_for_another_drive(work: t.Callable[[Sedutil], object]) -> None:
    started: list[Command] = []

    def answer(command: Command) -> Result:
        started.append(command)
        return Result(command.argv, 0, "", "")

    host = Host(Spec("S1"))
    host.exchange = (0, Drive(Spec("S2")))
    hand = Sedutil(RecordedRunner(default=answer), Mask(), False, True, opener=host.open, holder=host.hold)
    with pytest.raises(Refused, match="is now EMU OPAL 1TB with serial number 'S2'; meant was 'S1'"):
        work(hand)
    assert started == []
