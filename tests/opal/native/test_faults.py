# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Something goes wrong with every call of every operation: an error, no lost drive, and the next run finishes."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace

import pytest

from ansible_collections.nasops.encryption.tests.opal import faults
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Drive, Mbr, Spec
from ansible_collections.nasops.encryption.tests.opal.mishaps import (
    ALL,
    BASE,
    NEW,
    RESET,
    SERIAL,
    Options,
    see_finished,
)
from ansible_collections.nasops.encryption.tests.opal.player import Player

# In every run of the tests the most telling ones, each at one of the calls.
HOW = faults.HOW if ALL else ("refuse", "lose", "vanish_after")
LABEL = Spec("").psid.decode()
RANGE: Options = {"range": 1, "range_start": 0, "range_length": 2048}


def shadowed(drive: Drive) -> None:
    """As sedutil-cli leaves a drive, after a power cut."""
    drive.mbr = Mbr(enabled=True)


def placed(drive: Drive) -> None:
    """A range that does not lock."""
    drive.ranges[1] = replace(drive.ranges[1], length=2048, read_enabled=False, write_enabled=False)


@dataclass(frozen=True)
class Operation:
    """What is done to a drive that was made ready by these tasks, and by hand. ``cut``: one was cut off here before."""

    options: Options = field(default_factory=dict)
    before: tuple[Options, ...] = ()
    by_hand: t.Callable[[Drive], None] | None = None
    kinds: tuple[str, ...] = (OPAL2, ENTERPRISE)
    cut: tuple[str, int] | None = None


OPERATIONS = {
    "set up": Operation(),
    "finish a set-up": Operation(kinds=(OPAL2,), cut=("Activate", 0)),
    "finish a set-up of bands": Operation(kinds=(ENTERPRISE,), cut=("Set", 1)),
    "unlock": Operation({"state": "unlocked"}, ({}, {"state": "locked"})),
    "lock": Operation({"state": "locked"}, ({},)),
    "make read-only": Operation({"state": "readonly"}, ({},)),
    "change the password": Operation({"new_password": NEW}, ({},)),
    "reset": Operation(RESET, ({},)),
    "reset by its label": Operation({**RESET, "password": None, "psid": LABEL}, ({},)),
    "place a range": Operation({**RANGE, "confirm_serial": [SERIAL]}, ({},)),
    "let a range be locked": Operation({"range": 1}, ({},), placed),
    "remove the shadow": Operation({}, ({},), shadowed, (OPAL2,)),
    "put the shadow away": Operation({"state": "unlocked"}, ({}, {"state": "locked"}), shadowed, (OPAL2,)),
}
CASES = [(name, kind) for name, one in OPERATIONS.items() for kind in one.kinds]
# All of one sort in one test takes minutes.
FAULTS = [(*case, hows) for case in CASES for hows in ([(how,) for how in HOW] if ALL else [HOW])]


def prepared(player: Player, kind: str, operation: Operation) -> Drive:
    # Not the drive before, though it has its serial number.
    player.host.restart()
    drive = player.host.plug(Spec(SERIAL, kind=kind, ranges=1), "nvme8")
    if operation.cut is not None:
        drive.faults.inject(operation.cut[0], skip=operation.cut[1])
        assert player.run(**BASE).get("failed")
    for options in operation.before:
        assert not player.run(**{**BASE, **options}).get("failed")
    if operation.by_hand is not None:
        operation.by_hand(drive)
    drive.faults.seen.clear()
    return drive


def places(calls: int, case: int, hows: tuple[str, ...]) -> list[tuple[str, int]]:
    """What goes wrong, and with which call: with one that differs from case to case, or with each of them."""
    if ALL:
        return [(how, place) for how in hows for place in range(calls)]
    return [(how, (calls * (2 * number + 1) // (2 * len(hows)) + case) % calls) for number, how in enumerate(hows)]


@pytest.mark.parametrize("name,kind,hows", FAULTS)
def test_whatever_goes_wrong_the_next_run_finishes(player: Player, name: str, kind: str, hows: tuple[str, ...]) -> None:
    operation = OPERATIONS[name]
    wanted = {**BASE, **operation.options}
    drive = prepared(player, kind, operation)
    done = player.run(**wanted)
    assert done["changed"] and not done.get("failed"), done.get("msg")
    calls = len(drive.faults.seen)
    assert calls >= 4 and "EndSession" in drive.faults.seen
    player.host.unplug("nvme8")
    for how, place in places(calls, CASES.index((name, kind)), hows):
        drive = prepared(player, kind, operation)
        drive.faults.inject("*", how, skip=place)
        done = player.run(**wanted)
        see_finished(player, drive, done, wanted, wanted, (how, place))
