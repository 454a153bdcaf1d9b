# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Something goes wrong while sedutil-cli works for the module: an error, no lost drive, and the next run finishes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Drive, Spec
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

HOW = ("refuse", "lose", "vanish_after")


@dataclass(frozen=True)
class Operation:
    """What is done to a drive that was made ready by these tasks, which the native client does."""

    options: Options = field(default_factory=dict)
    before: tuple[Options, ...] = ()
    kinds: tuple[str, ...] = (OPAL2, ENTERPRISE)


OPERATIONS = {
    "set up": Operation(),
    "unlock": Operation({"state": "unlocked"}, ({}, {"state": "locked"})),
    "lock": Operation({"state": "locked"}, ({},)),
    # That of the owner of an Enterprise drive is nothing for sedutil-cli.
    "change the password": Operation({"new_password": NEW}, ({},), (OPAL2,)),
    "reset": Operation(RESET, ({},)),
    "reset by its label": Operation({**RESET, "password": None, "psid": Spec("").psid.decode()}, ({},)),
}
CASES = [(name, kind) for name, one in OPERATIONS.items() for kind in one.kinds]
# In every run of the tests one for each case, since each starts many processes.
FAULTS = [(*case, how) for number, case in enumerate(CASES) for how in (HOW if ALL else [HOW[number % len(HOW)]])]


def prepared(player: Player, kind: str, operation: Operation) -> Drive:
    player.host.restart()
    drive = player.host.plug(Spec(SERIAL, kind=kind, ranges=1), "nvme8")
    for options in operation.before:
        assert not player.run(**{**BASE, **options}, backend="native").get("failed")
    drive.faults.seen.clear()
    return drive


@pytest.mark.parametrize("name,kind,how", FAULTS)
def test_whatever_goes_wrong_the_next_run_finishes(player: Player, name: str, kind: str, how: str) -> None:
    operation = OPERATIONS[name]
    wanted = {**BASE, **operation.options, "backend": "sedutil"}
    drive = prepared(player, kind, operation)
    assert player.run(**wanted)["changed"]
    # What each process begins with, and sedutil-cli does not look at, is no matter.
    calls = [number for number, called in enumerate(drive.faults.seen) if called != "Properties"]
    player.host.unplug("nvme8")
    for place in calls if ALL else [calls[(2 + 5 * CASES.index((name, kind))) % len(calls)]]:
        drive = prepared(player, kind, operation)
        drive.faults.inject("*", how, skip=place)
        done = player.run(**wanted)
        see_finished(player, drive, done, wanted, {**wanted, "backend": "native"}, (place,))
