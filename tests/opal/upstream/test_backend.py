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

READS = {"Properties", "StartSession", "Get", "Next", "Authenticate"}
OLD, NEW, WRONG = "an-old-password", "the-new-password", "not-the-password"
NODES = {"nvme": "nvme8", "sata": "sdx", "sas": "sdy"}
# In every run of the tests one of each kind; all of them by `make sed-faults`.
MATRIX = [("sas", ENTERPRISE), ("nvme", OPAL2)]
ALL = bool(os.environ.get("NASOPS_ALL_FAULTS"))
EVERY = [(bus, kind) for bus in NODES for kind in (OPAL2, ENTERPRISE)]
if ALL:
    MATRIX = EVERY
# How a drive is before a task, and for which of them each state has something to do. What check mode can't know is in
# the life of a drive below.
STARTS = ("open", "read-only", "locked", "power cut")
CHANGES = {
    "present": (),
    "unlocked": ("read-only", "locked", "power cut"),
    "locked": ("open", "read-only"),
    "readonly": ("open", "locked", "power cut"),
}
STATES = [
    (bus, kind, start, state)
    for bus, kind in EVERY
    for start in STARTS
    for state in CHANGES
    # Which sedutil-cli can't do.
    if not (kind == ENTERPRISE and state == "readonly")
]


# One that closes a drive, and some of all.
SOME = [("sata", OPAL2, "open", "locked"), *STATES[::13]]


@pytest.mark.parametrize("bus,kind,start,state", STATES if ALL else SOME)
def test_every_state_from_every_other_one(player: Player, bus: str, kind: str, start: str, state: str) -> None:
    spec = Spec("SER1", kind=kind, transport=bus, ranges=1)
    drive = player.host.plug(spec, NODES[bus])
    # What is quicker makes it ready.
    player.run(serial=spec.serial, password=OLD)
    if start == "power cut":
        player.host.power_cycle()
    elif start != "open":
        player.run(serial=spec.serial, password=OLD, state=start.replace("-", ""))
    drive.wrong.clear()
    player.backend = "sedutil"
    player.four_runs(start in CHANGES[state], serial=spec.serial, password=OLD, state=state, check_password=True)
    wanted = {"unlocked": (True, True), "locked": (False, False), "readonly": (True, False)}
    before = {"open": "unlocked", "read-only": "readonly"}.get(start, "locked")
    assert (drive.ranges[0].reads, drive.ranges[0].writes) == wanted[before if state == "present" else state]
    assert drive.wrong == []


@pytest.mark.parametrize("bus,kind", MATRIX)
def test_a_drive_from_its_first_day_to_its_last(player: Player, bus: str, kind: str) -> None:
    player.backend = "sedutil"
    spec = Spec(f"SER{bus.upper()}1", kind=kind, transport=bus, ranges=1)
    drive = player.host.plug(spec, NODES[bus])
    keys = drive.keys
    if kind == ENTERPRISE:
        # Whose it is it does not tell, and check mode does not write to find out.
        done = player.run(serial=spec.serial, password=OLD)
        player.four_runs(False, serial=spec.serial, password=OLD)
    else:
        done = player.four_runs(serial=spec.serial, password=OLD)
    assert done["changed"] and "as arguments" in str(done["warnings"])
    assert drive.owned() and drive.ranges[0].read_enabled and not drive.mbr.enabled
    player.host.power_cycle()
    assert "does not take the password" in player.fails(serial=spec.serial, password=WRONG, state="unlocked")
    assert max(pin.tries for pin in drive.pins.values()) == 1
    player.four_runs(serial=spec.serial, password=OLD, state="unlocked")
    assert drive.readable()
    if kind == ENTERPRISE:
        assert "read-only" in player.fails(serial=spec.serial, password=OLD, state="readonly")
        assert "can neither try nor change" in player.fails(serial=spec.serial, password=OLD, new_password=NEW)
    else:
        player.four_runs(serial=spec.serial, password=OLD, state="readonly", check_password=True)
        assert drive.ranges[0].reads and not drive.ranges[0].writes
        player.four_runs(serial=spec.serial, password=OLD, new_password=NEW, check_password=True)
        player.backend = "native"
        assert player.run(serial=spec.serial, password=NEW)["changed"] is False
        player.backend = "sedutil"
    password = OLD if kind == ENTERPRISE else NEW
    player.run(serial=spec.serial, password=password, state="locked")
    assert not drive.readable() and drive.keys == keys
    drive.calls.clear()
    assert player.run(serial=spec.serial, password=password)["changed"] is False
    # But for EraseMaster, who can't be tried otherwise, what has nothing to do writes nothing.
    assert {name for name, _uid, _who in drive.calls} <= (READS | {"Set"} if kind == ENTERPRISE else READS)
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
    assert {name for name, _uid, _who in drive.calls} <= READS


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


def test_a_password_that_the_drive_did_not_store_is_told_while_it_is_open(player: Player) -> None:
    player.backend = "sedutil"
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=OLD)
    drive.faults.inject("Set", "other_value")
    failed = player.fails(serial="S1", password=OLD, new_password=NEW)
    assert "said that it had, and does not take it; sedutil-cli can't set the former one again" in failed
    assert "Do not take its power" in failed and drive.readable()


def test_what_the_firmware_of_the_host_forbids_is_seen_without_the_help_of_sedutil(player: Player) -> None:
    player.backend = "sedutil"
    drive = player.host.plug(Spec("S1", tells_owner=True), "nvme8")
    drive.blocked = True
    assert "(Block SID)" in player.fails(serial="S1", password=OLD)
    player.host.power_cycle()
    player.run(serial="S1", password=OLD)
    drive.blocked = True
    assert player.run(serial="S1", password=OLD)["changed"] is False
    assert drive.wrong == []


@pytest.mark.parametrize("backend", ["native", "sedutil"])
def test_another_drive_in_its_place_is_left_alone(player: Player, backend: str) -> None:
    host = player.host
    drive, other = host.plug(Spec("S1"), "nvme8"), host.plug(Spec("S2"), "nvme9")
    for serial in ("S1", "S2"):
        player.run(serial=serial, password=OLD)
    options: dict[str, t.Any] = {"serial": "S1", "password": OLD, "backend": backend}
    host.looks = 0
    assert player.run(**options, state="locked")["changed"]
    looks = host.looks
    for place in range(2, looks + 1) if ALL else (looks // 2, looks):
        player.run(**{**options, "backend": "native"}, state="unlocked")
        other.calls.clear()
        host.looks = 0
        host.before_look = lambda look, place=place: host.exchange("nvme8", other) if look == place else None
        failed = player.fails(**options, state="locked")
        assert "meant was 'S1'. Nothing was done to it" in failed or "number is 'S2'" in failed, (place, failed)
        # A look at what it is needs no session.
        assert {name for name, _uid, _who in other.calls} <= {"Properties"} and other.readable(), place
        host.before_look = None
        host.exchange("nvme8", drive)
