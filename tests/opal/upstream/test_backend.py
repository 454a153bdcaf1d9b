# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module with sedutil-cli in place of its own client."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Spec
from ansible_collections.nasops.encryption.tests.opal.player import Player, Worker, at_once

OLD, NEW, WRONG = "an-old-password", "the-new-password", "not-the-password"
NODES = {"nvme": "nvme8", "sata": "sdx", "sas": "sdy"}
# In every run of the tests one of each kind; all of them by `make sed-faults`.
MATRIX = [("sas", ENTERPRISE), ("nvme", OPAL2)]
if os.environ.get("NASOPS_ALL_FAULTS"):
    MATRIX = [(bus, kind) for bus in NODES for kind in (OPAL2, ENTERPRISE)]


@pytest.mark.parametrize("bus,kind", MATRIX)
def test_a_drive_from_its_first_day_to_its_last(player: Player, bus: str, kind: str) -> None:
    player.backend = "sedutil"
    spec = Spec(f"SER{bus.upper()}1", kind=kind, transport=bus, ranges=1)
    drive = player.host.plug(spec, NODES[bus])
    keys = drive.keys
    done = player.run(serial=spec.serial, password=OLD)
    assert done["changed"] and "as arguments" in str(done["warnings"])
    assert drive.owned() and drive.ranges[0].read_enabled and not drive.mbr.enabled
    assert player.run(serial=spec.serial, password=OLD)["changed"] is False
    player.host.power_cycle()
    assert "does not take the password" in player.fails(serial=spec.serial, password=WRONG, state="unlocked")
    assert max(pin.tries for pin in drive.pins.values()) == 1
    player.four_runs(serial=spec.serial, password=OLD, state="unlocked")
    assert drive.readable()
    if kind == ENTERPRISE:
        assert "read-only" in player.fails(serial=spec.serial, password=OLD, state="readonly")
        assert "can neither try nor change" in player.fails(serial=spec.serial, password=OLD, new_password=NEW)
    else:
        player.run(serial=spec.serial, password=OLD, state="readonly")
        assert drive.ranges[0].reads and not drive.ranges[0].writes
        player.run(serial=spec.serial, password=OLD, new_password=NEW)
        player.backend = "native"
        assert player.run(serial=spec.serial, password=NEW)["changed"] is False
        player.backend = "sedutil"
    password = OLD if kind == ENTERPRISE else NEW
    player.run(serial=spec.serial, password=password, state="locked")
    assert not drive.readable() and drive.keys == keys
    options: dict[str, t.Any] = {"state": "absent", "confirm_serial": [spec.serial]}
    # Twice, since check mode can't know whether an Enterprise drive is the factory's.
    for changed in (True, False):
        assert player.run(serial=spec.serial, password=password, **options)["changed"] is changed
    assert not drive.owned() and not set(drive.keys) & set(keys)


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_check_mode_writes_nothing_to_try_a_password(player: Player, kind: str) -> None:
    player.backend = "sedutil"
    drive = player.host.plug(Spec("S1", kind=kind, ranges=1), "nvme8")
    for options in ({}, {"state": "absent", "confirm_serial": ["S1"]}, {"new_password": NEW}):
        player.run(check_mode=True, check_password=True, serial="S1", password=OLD, **options)
    player.run(serial="S1", password=OLD)
    drive.calls.clear()
    for options in ({}, {"state": "absent", "confirm_serial": ["S1"]}, {"new_password": NEW}):
        player.run(check_mode=True, check_password=True, serial="S1", password=OLD, **options)
    assert {name for name, _uid, _who in drive.calls} <= {"Properties", "StartSession", "Get", "Next", "Authenticate"}


def test_two_tasks_with_different_backends_take_turns(player: Player, shim: Path) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=OLD)
    other = Worker(shim)
    second = Player(player.host, other)
    second.backend = "sedutil"
    failures: list[str] = []

    def work(one: Player, check_mode: bool) -> None:
        for state in ("locked", "unlocked") * 2:
            done = one.run(check_mode, serial="S1", password=OLD, state=state, check_password=check_mode)
            if done.get("failed"):
                failures.append(done["msg"])

    try:
        at_once(lambda: work(player, False), lambda: work(second, True))
    finally:
        other.close()
    assert failures == [] and drive.wrong == []


def test_an_error_shows_no_password(player: Player) -> None:
    player.backend = "sedutil"
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=OLD)
    drive.faults.inject("Set", "lose")
    failed = player.run(serial="S1", password=OLD, state="locked")
    assert failed["failed"]
    assert OLD not in str(failed)
