# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Something goes wrong with every call of every operation: an error, no lost drive, and the next run finishes."""

from __future__ import annotations

import os
import typing as t

import pytest

from ansible_collections.nasops.encryption.tests.opal import faults, names
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Drive, Spec
from ansible_collections.nasops.encryption.tests.opal.player import Player

OLD, NEW, SERIAL = "old-password", "new-password", "SER1"
# In every run of the tests the most telling ones at some of the calls; all of them by `make sed-faults`.
ALL = bool(os.environ.get("NASOPS_ALL_FAULTS"))
HOW = faults.HOW if ALL else ("vanish_after",)

Options = dict[str, t.Any]
BASE: Options = {"serial": SERIAL, "hash": "raw", "password": OLD}
OPERATIONS: dict[str, tuple[list[Options], Options]] = {
    "set up": ([], {}),
    "unlock": ([{}, {"state": "locked"}], {"state": "unlocked"}),
    "lock": ([{}], {"state": "locked"}),
    "make read-only": ([{}], {"state": "readonly"}),
    "change the password": ([{}], {"new_password": NEW}),
    "reset": ([{}], {"state": "absent", "confirm_serial": [SERIAL]}),
}


def prepared(player: Player, kind: str, before: list[Options]) -> Drive:
    # Not the drive before, though it has its serial number.
    player.host.restart()
    drive = player.host.plug(Spec(SERIAL, kind=kind, ranges=1), "nvme8")
    for options in before:
        assert not player.run(**{**BASE, **options}).get("failed")
    drive.calls.clear()
    return drive


def opens(drive: Drive) -> bool:
    """Whether its owner is the factory, or somebody with the old or the new password; and so whoever unlocks it."""
    known = {OLD.encode(), NEW.encode(), drive.spec.msid}
    if drive.pins[names.PIN_SID].value not in known:
        return False
    master = names.band_master(0) if drive.spec.enterprise else names.admin(1)
    return not drive.locking_enabled or drive.pins[names.pin_of(master)].value in known


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_goes_wrong_the_next_run_finishes(player: Player, kind: str, operation: str) -> None:
    before, options = OPERATIONS[operation]
    wanted = {**BASE, **options}
    drive = prepared(player, kind, before)
    assert player.run(**wanted)["changed"]
    calls = len(drive.calls)
    assert calls >= 5
    player.host.unplug("nvme8")
    for how in HOW:
        for place in range(calls) if ALL else range(3, calls, 8):
            drive = prepared(player, kind, before)
            drive.faults.inject("*", how, skip=place)
            done = player.run(**wanted)
            assert not drive.faults.pending(), (how, place, "there were fewer calls than before")
            assert opens(drive), (how, place)
            if not done.get("failed"):
                # The end of a session says nothing, and what was done before it counts.
                assert done["changed"], (how, place)
            drive.faults.clear()
            if drive.gone:
                player.host.attach(drive, "nvme8")
            again = player.run(**wanted)
            assert not again.get("failed"), (how, place, done.get("msg"), again.get("msg"))
            assert player.run(**wanted)["changed"] is False, (how, place)
            assert not any(pin.locked_out for pin in drive.pins.values())
            player.host.unplug("nvme8")
