# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of a drive, from any state before: what is done, that it is enough, and that nothing more is."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.sed.usage import Usage
from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Spec
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sed.drives import Host

OLD, NEW = "old-password", "new-password"


STATES = ["present", "unlocked", "readonly", "locked", "absent"]
STEPS = st.lists(st.sampled_from([*STATES, "power", "interrupt"]), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
@settings(max_examples=25)
@given(steps=STEPS, last=st.sampled_from(STATES))
def test_every_state_is_reached_from_every_other_one(kind: str, steps: list[str], last: str) -> None:
    # What was never set up is asked for its password by every task that is to close it.
    host = Host(Spec("S1", kind=kind, ranges=2, try_limit=20))
    drive = host.drives[0]
    options: dict[str, t.Any] = {"serial": "S1", "password": OLD, "confirm_serial": ["S1"]}
    for step in steps:
        if step == "power":
            drive.power_cycle()
        elif step == "interrupt":
            drive.faults.inject("Set", skip=1)
            host.play(**options)
            drive.faults.clear()
        else:
            host.play(**options, state=step)
    master = names.band_master(0) if kind == ENTERPRISE else names.admin(1)
    ready = drive.pins[names.pin_of(master)].value == OLD.encode()
    done = host.play(**options, state=last)
    refused = bool(done.plan.failures)
    assert refused == (last in ("readonly", "locked") and not ready), "only what was set up can be closed"
    if not refused:
        assert host.play(**options, state=last).plan.steps == ()
        wanted = {"unlocked": True, "readonly": True, "locked": False, "absent": True}
        assert drive.readable() == wanted.get(last, drive.readable())
        assert drive.owned() or last in ("absent", "unlocked")
    assert not any(pin.locked_out for pin in drive.pins.values())


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_change_of_the_password_that_stopped_in_between_goes_on(kind: str) -> None:
    for place in range(3):
        host = Host(Spec("S1", kind=kind, ranges=1))
        drive = host.drives[0]
        host.play(serial="S1", password=OLD)
        drive.faults.inject("Set", skip=place)
        first = host.play(serial="S1", password=OLD, new_password=NEW)
        assert bool(first.plan.failures) == (place < (3 if kind == ENTERPRISE else 2))
        drive.faults.clear()
        done = host.play(serial="S1", password=OLD, new_password=NEW)
        assert not done.plan.failures
        assert drive.pins[names.PIN_SID].value == NEW.encode()
        again = host.play(serial="S1", password=OLD, new_password=NEW)
        assert not again.plan.steps and not again.plan.failures
        assert not host.play(serial="S1", password=NEW).plan.steps
        # That SID has the new one may be found out by offering it the former one; the next run would clear that.
        assert {uid: pin.tries for uid, pin in drive.pins.items() if pin.tries} in ({}, {names.PIN_SID: 1})


def test_in_check_mode_nothing_is_sent_that_needs_a_session() -> None:
    host = Host(Spec("S1"))
    drive = host.drives[0]
    host.play(check_mode=True, serial="S1", password=OLD)
    host.play(serial="S1", password=OLD)
    drive.calls.clear()
    for state in ("present", "unlocked", "locked", "readonly"):
        host.play(check_mode=True, serial="S1", password=OLD, state=state)
    assert drive.calls == []


def test_a_range_that_does_not_lock_at_power_off_is_mended() -> None:
    host = Host(Spec("S1"))
    drive = host.drives[0]
    host.play(serial="S1", password=OLD)
    drive.ranges[0] = replace(drive.ranges[0], lock_on_reset=())
    done = host.play(serial="S1", password=OLD)
    assert done.plan.actions == ["Enable locking of range 0 of 'S1'"]
    assert done.plan.diff() == {
        "before": {"S1": {"range 0": {"locks when the power was off": "no"}}},
        "after": {"S1": {"range 0": {"locks when the power was off": "yes"}}},
    }


def test_bands_that_are_somebody_elses_stay_theirs() -> None:
    host = Host(Spec("S1", kind=ENTERPRISE, ranges=2))
    drive = host.drives[0]
    other = names.pin_of(names.band_master(1))
    drive.pins[other].value = b"theirs"
    done = host.play(serial="S1", password=OLD)
    assert not done.plan.failures
    assert drive.pins[other].value == b"theirs"
    assert drive.pins[names.pin_of(names.band_master(0))].value == OLD.encode()


def test_drives_are_planned_apart() -> None:
    host = Host(Spec("S1"), Spec("S2"), Spec("S3", kind=""))
    host.drives[1].gone = True
    done = host.play(devices=["S1", "S2", "S3"], password=OLD)
    assert [one.branch for one in done.plan.failures] == ["S2", "S3"]
    assert host.drives[0].locking_enabled


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_drive_at_its_factory_settings_is_not_erased_and_that_is_said(kind: str) -> None:
    host = Host(Spec("S1", kind=kind, ranges=1))
    options: dict[str, t.Any] = {"serial": "S1", "password": OLD, "state": "absent", "confirm_serial": ["S1"]}
    keys = host.drives[0].keys
    done = host.play(**options)
    assert not done.plan.steps and not done.plan.failures
    assert ["'S1' is at its factory settings: nothing was erased" in one for one in done.plan.warnings] == [True]
    assert host.drives[0].keys == keys
    host.play(serial="S1", password=OLD)
    erased = host.play(**options)
    assert erased.plan.steps and not erased.plan.warnings, "what this very run has erased is not called untouched"


def test_an_enterprise_drive_with_a_locked_range_of_another_owner_is_reset_by_its_label_alone() -> None:
    host = Host(Spec("S1", kind=ENTERPRISE, ranges=1))
    drive = host.drives[0]
    host.play(serial="S1", password=OLD)
    host.play(serial="S1", password=OLD, state="locked")
    # Its owner went back to the factory's password, its ranges did not.
    drive.pins[names.PIN_SID].value = drive.spec.msid
    keys = drive.keys
    done = host.play(serial="S1", password=NEW, state="absent", confirm_serial=["S1"])
    assert ["a range of it is locked" in one.message and "psid" in one.hint for one in done.plan.failures] == [True]
    assert not done.plan.steps and drive.keys == keys
    done = host.play(serial="S1", psid=drive.spec.psid.decode(), state="absent", confirm_serial=["S1"])
    assert done.plan.steps and not done.plan.failures and drive.readable() and drive.keys != keys


@pytest.mark.parametrize("secret", ["password", "psid"])
@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_check_mode_takes_a_drive_of_an_unknown_owner_for_one_that_is_erased(kind: str, secret: str) -> None:
    host = Host(Spec("S1", kind=kind, ranges=1), Spec("S2", kind=kind, ranges=1, tells_owner=True))
    given = OLD if secret == "password" else host.drives[0].spec.psid.decode()
    options: dict[str, t.Any] = {secret: given, "state": "absent", "check_mode": True}
    refused = host.play(serial="S1", **options)
    assert ["confirm_serial: S1" in one.hint for one in refused.plan.failures] == [True]
    listed = host.play(serial="S1", confirm_serial=["S1"], **options)
    assert listed.plan.actions[:1] == ["Reset 'S1' to the factory's settings, which erases all its data"]
    told = host.play(serial="S2", **options)
    assert not told.plan.steps and not told.plan.failures, "it tells that nobody owns it"


def test_a_drive_that_the_host_starts_from_is_not_set_up_unasked() -> None:
    host = Host(Spec("S1"))
    drive = host.drives[0]
    host.usage = Usage(('member of the imported pool "tank" (/dev/nvme0n1)',))
    assert host.play(check_mode=True, serial="S1", password=OLD).plan.steps, "a data pool is no hindrance"
    host.usage = Usage(("mounted on / (/dev/nvme0n1)",), ("mounted on / (/dev/nvme0n1)",))
    refused = host.play(serial="S1", password=OLD)
    assert ["mounted on /" in one.message and "confirm_serial: S1" in one.hint for one in refused.plan.failures] == [
        True
    ]
    assert not drive.owned() and not drive.locking_enabled
    assert host.play(serial="S1", password=OLD, confirm_serial=["S1"]).plan.steps
    assert not host.play(serial="S1", password=OLD).plan.failures, "there is nothing left to refuse"


def test_a_new_password_that_one_of_the_drives_has_already_changes_nothing_there() -> None:
    host = Host(Spec("S1"), Spec("S2"))
    host.play(devices=["S1", "S2"], password=NEW, passwords={"S2": OLD})
    options: dict[str, t.Any] = {"passwords": {"S1": NEW}, "new_password": NEW}
    for check_mode in (True, False):
        done = host.play(serial="S1", **options, check_mode=check_mode)
        assert not done.plan.steps and not done.plan.failures
    both: dict[str, t.Any] = {"devices": ["S1", "S2"], "password": NEW, "passwords": {"S2": OLD}, "new_password": NEW}
    done = host.play(**both)
    assert {one.branch for one in done.plan.steps} == {"S2"} and not done.plan.failures
    assert not host.play(**both).plan.steps


@pytest.mark.parametrize("state", ["locked", "readonly"])
def test_a_drive_that_was_not_set_up_is_neither_closed_nor_offered_a_password(state: str) -> None:
    host = Host(Spec("S1"))
    for check_mode in (True, False):
        done = host.play(check_mode, serial="S1", password=OLD, state=state)
        said = [str(one) for one in done.plan.failures]
        assert said == ["Locking of 'S1' is not turned on. Set the drive up first: state: present."]
    assert host.drives[0].calls == []


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
@pytest.mark.parametrize("state", ["present", "locked", "readonly", "unlocked", "absent"])
def test_a_drive_without_a_password_among_others_is_told_so(kind: str, state: str) -> None:
    host = Host(Spec("S1", kind=kind), Spec("S2", kind=kind))
    host.play(devices=["S1", "S2"], password=OLD)
    for drive in host.drives:
        drive.power_cycle()
        drive.wrong.clear()
    done = host.play(devices=["S1", "S2"], passwords={"S1": OLD}, state=state, confirm_serial=["S1", "S2"])
    assert [(one.branch, one.message) for one in done.plan.failures] == [("S2", "No password is given for 'S2'.")]
    assert host.drives[1].pins[names.PIN_SID].tries <= 1
