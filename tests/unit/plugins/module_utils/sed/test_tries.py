# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many tries a task costs: at most one of each authority, whatever is in the drive, and never the last one."""

from __future__ import annotations

import itertools
import typing as t
from dataclasses import replace

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome
from ansible_collections.nasops.encryption.plugins.module_utils.sed.read import Survey
from ansible_collections.nasops.encryption.plugins.module_utils.sed.result import describe
from ansible_collections.nasops.encryption.plugins.module_utils.sed.state import DriveState
from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Drive, Spec
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sed.drives import Host

OLD, NEW, THIRD, FACTORY = "old-password", "new-password", "third-password", "MSID0123456789ABCDEF"
ADMIN = names.pin_of(names.admin(1))
BAND, MASTER = names.pin_of(names.band_master(0)), names.pin_of(names.ERASE_MASTER)
SID = names.PIN_SID


def set_up(kind: str, **spec: t.Any) -> tuple[Host, Drive]:
    """A drive with the old password, of which this host remembers nothing."""
    host = Host(Spec("S1", kind=kind, ranges=1, **spec))
    host.play(serial="S1", password=OLD)
    host.journal.kept.clear()
    host.drives[0].wrong.clear()
    return host, host.drives[0]


def tries(drive: Drive) -> dict[bytes, int]:
    """The wrong ones that the drive counts, by authority."""
    return {uid: pin.tries for uid, pin in drive.pins.items() if pin.tries}


def message(done: Outcome[Survey]) -> str:
    return " ".join(str(one) for one in done.plan.failures)


@pytest.mark.parametrize("options", [{}, {"new_password": NEW}, {"state": "absent"}, {"state": "locked"}])
def test_no_mixture_of_passwords_costs_two_tries_of_an_opal_drive(options: dict[str, t.Any]) -> None:
    for owner, admin in itertools.product((OLD, NEW, THIRD, FACTORY), (OLD, NEW, THIRD)):
        host, drive = set_up(OPAL2)
        drive.pins[SID].value, drive.pins[ADMIN].value = owner.encode(), admin.encode()
        for _run in range(2):
            # It is the run itself that looks for a second one.
            host.play(serial="S1", password=OLD, confirm_serial=["S1"], **options)


@pytest.mark.parametrize("tells_owner", [False, True])
@pytest.mark.parametrize("options", [{}, {"new_password": NEW}, {"state": "absent"}, {"state": "unlocked"}])
def test_no_mixture_of_passwords_costs_two_tries_of_an_enterprise_drive(
    options: dict[str, t.Any], tells_owner: bool
) -> None:
    for owner, eraser, band in itertools.product((OLD, NEW, FACTORY), (OLD, NEW, FACTORY), (OLD, THIRD, FACTORY)):
        host, drive = set_up(ENTERPRISE, tells_owner=tells_owner)
        if options.get("state") == "unlocked":
            drive.power_cycle()
        for uid, text in ((SID, owner), (MASTER, eraser), (BAND, band)):
            drive.pins[uid].value = text.encode()
        # The page about drives names this exception.
        both = not tells_owner and not options and (owner, eraser, band) == (FACTORY, FACTORY, THIRD)
        for _run in range(2):
            done = host.play(serial="S1", password=OLD, confirm_serial=["S1"], twice=[BAND] if both else [], **options)
            assert not both or "BandMaster0 of 'S1' takes neither the password that is given nor" in message(done)
            assert not both or host.journal.kept["S1"]["BandMaster0"] == ["refused", "factory"]


def test_a_set_up_that_was_cut_off_and_a_mistyped_password_cost_two_tries_once() -> None:
    for tells_owner in (False, True):
        host = Host(Spec("S1", tells_owner=tells_owner))
        drive = host.drives[0]
        drive.faults.inject("Set", "vanish_after")
        assert host.play(serial="S1", password=OLD).plan.failures and drive.owned()
        drive.gone = False
        mistyped = host.play(serial="S1", password="mistyped", twice=[] if tells_owner else [SID])
        # Where it tells that it is owned, the factory's is not offered.
        assert tries(drive) == {SID: 1 if tells_owner else 2}
        assert ("takes neither" in message(mistyped)) is not tells_owner
        assert not tells_owner or "SID of 'S1' does not take the password that is given" in message(mistyped)
        drive.wrong.clear()
        done = host.play(serial="S1", password=OLD)
        assert done.plan.steps and not done.plan.failures
        assert drive.wrong == [] and tries(drive) == {}


@pytest.mark.parametrize(
    "kind,place,how,old,new,asked",
    [
        # Another new password, where the first one is in the drive.
        (OPAL2, 0, "vanish_after", OLD, THIRD, ADMIN),
        (ENTERPRISE, 0, "vanish_after", OLD, THIRD, MASTER),
        # Another former one, where the former one is.
        (OPAL2, 1, "vanish", THIRD, NEW, SID),
        (ENTERPRISE, 1, "vanish", THIRD, NEW, BAND),
        (ENTERPRISE, 2, "vanish", THIRD, NEW, SID),
        # What was changed before it refuses the other one at once.
        (OPAL2, 1, "vanish_after", OLD, THIRD, None),
        (ENTERPRISE, 1, "vanish_after", OLD, THIRD, None),
    ],
)
def test_a_change_that_was_cut_off_and_other_passwords_cost_two_tries_once(
    kind: str, place: int, how: str, old: str, new: str, asked: bytes | None
) -> None:
    host, drive = set_up(kind)
    drive.faults.inject("Set", how, skip=place)
    assert host.play(serial="S1", password=OLD, new_password=NEW).plan.failures
    drive.gone = False
    refused = host.play(serial="S1", password=old, new_password=new, twice=[] if asked is None else [asked])
    assert ("takes neither the password that is given nor" in message(refused)) is (asked is not None)
    assert asked is not None or "does not take the password that is given" in message(refused)
    # Where it was is not known any more, so it is found out run by run, with at most one try of each authority.
    done = host.play(serial="S1", password=OLD, new_password=NEW)
    for _run in range(3):
        if message(done):
            assert "run the same task again" in message(done)
            done = host.play(serial="S1", password=OLD, new_password=NEW)
    assert not message(done)
    assert {drive.pins[uid].value for uid in ((SID, ADMIN) if kind == OPAL2 else (SID, MASTER, BAND))} == {NEW.encode()}


@pytest.mark.parametrize("kind,asked", [(OPAL2, {SID: 1, ADMIN: 1}), (ENTERPRISE, {BAND: 1, SID: 1})])
def test_a_change_of_a_password_that_nobody_has(kind: str, asked: dict[bytes, int]) -> None:
    host, drive = set_up(kind)
    done = host.play(serial="S1", password="wrong", new_password="wrong, too")
    assert "does not take the password" in message(done)
    assert tries(drive) == asked
    # The one that was right all the time is not put off because of that.
    assert not message(host.play(serial="S1", password=OLD, new_password=NEW))
    assert tries(drive) == {}


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_change_that_is_done_costs_nothing_that_lasts(kind: str) -> None:
    host, drive = set_up(kind)
    first = host.play(serial="S1", password=OLD, new_password=NEW)
    assert first.plan.steps and drive.wrong == []
    host.journal.kept.clear()
    for _run in range(7):
        done = host.play(serial="S1", password=OLD, new_password=NEW)
        assert not done.plan.steps and not done.plan.failures
        assert tries(drive) in ({}, {SID: 1})


def test_admin1_that_has_another_password_than_sid_is_asked_once_in_each_run() -> None:
    host, drive = set_up(OPAL2)
    drive.pins[ADMIN].value = THIRD.encode()
    for count in (1, 2):
        done = host.play(serial="S1", password=OLD, new_password=NEW)
        assert "Admin1 of 'S1' does not take" in message(done) and "run the same task again" in message(done)
        assert tries(drive) == {ADMIN: count}


@pytest.mark.parametrize("owner", [OLD, THIRD])
@pytest.mark.parametrize("noted", [False, True])
def test_a_run_with_the_new_one_alone_tells_that_a_change_was_not_finished(owner: str, noted: bool) -> None:
    host, drive = set_up(OPAL2)
    if noted:
        drive.faults.inject("Set", "vanish_after")
        assert host.play(serial="S1", password=OLD, new_password=NEW).plan.failures
        drive.gone = False
    drive.pins[SID].value, drive.pins[ADMIN].value = owner.encode(), NEW.encode()
    drive.wrong.clear()
    before = dict(host.journal.kept.get("S1", {}))
    assert not host.play(serial="S1", password=NEW, check_mode=True).plan.failures and drive.wrong == []
    # It costs one try, and not one in each run.
    for done in [host.play(serial="S1", password=NEW) for _run in range(3)]:
        assert not message(done) and not done.plan.steps
        (warning,) = done.plan.warnings
        assert "Admin1 of 'S1' takes the password that is given, but its owner, SID, does not" in warning
        assert "the former password as password, and this one as new_password" in warning
        assert tries(drive) == {SID: 1} and drive.wrong == [SID]
        (row,) = done.state.rows
        assert describe(row, {})["proven"] is True
    kept = dict(host.journal.kept["S1"])
    assert kept.pop("apart") and kept == before
    if owner == OLD:
        runs = [host.play(serial="S1", password=OLD, new_password=NEW) for _run in range(1 if noted else 2)]
        assert not message(runs[-1]) and {drive.pins[uid].value for uid in (SID, ADMIN)} == {NEW.encode()}
        done = host.play(serial="S1", password=NEW)
        assert not done.plan.steps and not done.plan.failures and not done.plan.warnings
        assert tries(drive) == {} and host.journal.kept == {}


def test_what_sid_refused_is_forgotten_with_the_owner_that_refused_it() -> None:
    host, drive = set_up(OPAL2)
    drive.pins[SID].value = THIRD.encode()
    assert host.play(serial="S1", password=OLD).plan.warnings
    # Somebody resets it by its label, and it is set up anew.
    drive.revert()
    assert host.play(serial="S1", password=NEW).plan.steps
    done = host.play(serial="S1", password=NEW)
    assert not done.plan.steps and not done.plan.warnings and drive.wrong == [SID]


def test_a_drive_whose_owner_has_another_password_is_set_up_all_the_same() -> None:
    host, drive = set_up(OPAL2)
    drive.pins[SID].value = THIRD.encode()
    drive.ranges[0] = replace(drive.ranges[0], read_enabled=False, write_enabled=False)
    done = host.play(serial="S1", password=OLD)
    assert done.plan.actions == ["Enable locking of range 0 of 'S1'"] and not message(done)
    assert len(done.plan.warnings) == 1 and drive.wrong == [SID] and drive.ranges[0].read_enabled


def test_an_owner_that_is_locked_out_keeps_no_drive_from_being_opened() -> None:
    host, drive = set_up(OPAL2)
    drive.pins[SID].tries = drive.spec.try_limit
    done = host.play(serial="S1", password=OLD)
    assert not message(done) and "SID, the owner of 'S1', is locked out" in done.plan.warnings[0]
    assert "SID of 'S1' is locked out" in message(host.play(serial="S1", password=OLD, new_password=NEW))


def test_a_password_of_the_factory_that_opens_a_range_is_none_of_the_task_s() -> None:
    host = Host(Spec("S1", kind=ENTERPRISE, ranges=1, tells_owner=True))
    host.drives[0].faults.inject("Set", times=99)
    done = host.play(serial="S1", password=OLD)
    (row,) = done.state.rows
    assert message(done) and isinstance(row, DriveState) and row.range is not None
    assert describe(row, {})["proven"] is False
    host.drives[0].faults.clear()
    done = host.play(serial="S1", password=OLD)
    (row,) = done.state.rows
    assert not message(done) and describe(row, {})["proven"] is True


def test_what_only_opens_a_drive_does_not_ask_its_owner() -> None:
    host, drive = set_up(OPAL2)
    drive.pins[SID].value = THIRD.encode()
    for state in ("locked", "unlocked", "readonly"):
        assert not message(host.play(serial="S1", password=OLD, state=state))
    assert drive.wrong == []


def test_an_owner_that_is_the_factory_by_what_the_drive_tells_is_ours_afterwards() -> None:
    host, drive = set_up(OPAL2, tells_owner=True)
    drive.pins[SID].value = FACTORY.encode()
    for check_mode in (True, False):
        done = host.play(check_mode, serial="S1", password=OLD)
        assert done.plan.actions == ["Take ownership of 'S1' (SID)"]
    assert drive.pins[SID].value == OLD.encode() and drive.wrong == []
    assert not host.play(serial="S1", password=OLD).plan.steps


def test_a_run_with_one_password_for_all_ends_what_was_noted_of_a_change() -> None:
    host, drive = set_up(OPAL2)
    drive.faults.inject("Set", "vanish_after", skip=1)
    assert host.play(serial="S1", password=OLD, new_password=NEW).plan.failures
    drive.gone = False
    assert not message(host.play(serial="S1", password=NEW)) and host.journal.kept == {}
    drive.wrong.clear()
    assert host.play(serial="S1", password=NEW, new_password=THIRD).plan.steps
    assert drive.wrong == [] and drive.pins[ADMIN].value == THIRD.encode()


def test_where_the_firmware_blocks_the_owner_it_is_not_asked_and_not_changed() -> None:
    host, drive = set_up(OPAL2, tells_owner=True)
    drive.blocked = True
    done = host.play(serial="S1", password=OLD)
    assert not done.plan.steps and not done.plan.failures
    assert "(Block SID)" in message(host.play(serial="S1", password=OLD, new_password=NEW))
    assert drive.wrong == []


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_change_that_stopped_is_found_out_on_another_host_run_by_run(kind: str, place: int) -> None:
    host, drive = set_up(kind)
    drive.faults.inject("Set", skip=place)
    host.play(serial="S1", password=OLD, new_password=NEW)
    drive.faults.clear()
    host.journal.kept.clear()
    runs = [host.play(serial="S1", password=OLD, new_password=NEW) for _run in range(3)]
    assert not message(runs[-1])
    assert {drive.pins[uid].value for uid in ((SID, MASTER, BAND) if kind == ENTERPRISE else (SID, ADMIN))} == {
        NEW.encode()
    }


def test_an_opal_drive_of_an_unknown_owner_is_asked_once_in_each_run() -> None:
    host = Host(Spec("S1"))
    drive = host.drives[0]
    drive.pins[SID].value = OLD.encode()
    done = host.play(serial="S1", password=OLD)
    assert "SID of 'S1' does not take" in message(done) and "run the same task again" in message(done)
    assert tries(drive) == {SID: 1}
    assert host.play(serial="S1", password=OLD).plan.steps, "the set-up that stopped elsewhere is finished"
    assert tries(drive) == {} and drive.locking_enabled


def test_where_the_drive_tells_how_many_are_left_the_last_one_is_not_tried() -> None:
    host, drive = set_up(OPAL2, shows_tries=True)
    for count in (1, 2, 3, 4):
        done = host.play(serial="S1", password=THIRD, state="locked")
        assert "does not take the password" in message(done)
        assert tries(drive) == {ADMIN: count}
    done = host.play(serial="S1", password=THIRD, state="locked")
    assert "Admin1 of 'S1' allows one more wrong password only, so none was tried" in message(done)
    assert tries(drive) == {ADMIN: 4}
    drive.power_cycle()
    assert not message(host.play(serial="S1", password=OLD, state="unlocked"))


@pytest.mark.parametrize("tells_owner", [False, True])
def test_a_band_with_our_password_opens_whoever_owns_the_drive(tells_owner: bool) -> None:
    host, drive = set_up(ENTERPRISE, tells_owner=tells_owner)
    drive.pins[SID].value = FACTORY.encode()
    drive.power_cycle()
    assert not drive.readable()
    assert not message(host.play(serial="S1", password=OLD, state="unlocked"))
    assert drive.readable() and drive.wrong == []


def test_check_mode_remembers_nothing() -> None:
    host = Host(Spec("S1"))
    host.drives[0].pins[SID].value = OLD.encode()
    host.play(check_mode=True, check_password=True, serial="S1", password=OLD)
    assert host.journal.kept == {}


PSID_RESET: dict[str, t.Any] = {"serial": "S1", "state": "absent", "confirm_serial": ["S1"]}
RESET: dict[str, t.Any] = {**PSID_RESET, "password": OLD}


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_psid_that_was_mistyped_leaves_a_change_of_the_password_as_it_was(kind: str) -> None:
    host, drive = set_up(kind)
    refused = host.play(**PSID_RESET, psid="0" * 32)
    assert refused.plan.failures and drive.locking_enabled and names.PSID in drive.wrong
    drive.wrong.clear()
    done = host.play(serial="S1", password=OLD, new_password=NEW)
    assert done.plan.steps and not done.plan.failures
    assert drive.wrong == []


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_psid_that_was_mistyped_takes_no_note_away(kind: str) -> None:
    host, drive = set_up(kind)
    drive.faults.inject("Set", "vanish_after", skip=2 if kind == ENTERPRISE else 1)
    assert host.play(serial="S1", password=OLD, new_password=NEW).plan.failures
    drive.gone = False
    kept = host.journal.kept
    assert kept["S1"]["SID"] == ["begun", "ours"]
    host.play(**PSID_RESET, psid="0" * 32)
    assert host.journal.kept == kept


@pytest.mark.parametrize("secret", ["password", "psid"])
@pytest.mark.parametrize("tells_owner", [False, True])
@pytest.mark.parametrize("how", ["lose", "vanish_after"])
@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_reset_whose_answer_was_lost_is_found_to_be_done(kind: str, how: str, tells_owner: bool, secret: str) -> None:
    host = Host(Spec("S1", kind=kind, ranges=1, tells_owner=tells_owner))
    drive = host.drives[0]
    host.play(serial="S1", password=OLD)
    # Each kind has its own of the two methods, the other one is not there.
    drive.faults.inject("RevertSP" if kind == ENTERPRISE else "Revert", how)
    drive.wrong.clear()
    given = {**PSID_RESET, secret: OLD if secret == "password" else drive.spec.psid.decode()}
    assert host.play(**given).plan.failures and not drive.owned()
    drive.faults.clear()
    drive.gone = False
    done = host.play(**given)
    assert not done.plan.steps and not done.plan.failures
    assert len(drive.wrong) <= 1
    drive.wrong.clear()
    done = host.play(serial="S1", password=OLD)
    assert done.plan.steps and not done.plan.failures
    # Without a word of the drive, its BandMaster is offered the password first, and then has it.
    assert drive.wrong in ([], [BAND]) and tries(drive) == {}
    assert not drive.wrong or (kind == ENTERPRISE and not tells_owner)


def test_after_a_lost_answer_to_a_reset_the_drive_is_set_up_without_a_wrong_try() -> None:
    host, drive = set_up(OPAL2)
    drive.faults.inject("Set", skip=1)
    assert host.play(serial="S1", password=OLD, new_password=NEW).plan.failures
    drive.faults.clear()
    drive.faults.inject("Revert", "lose")
    # Nor can the drive be asked whose it is by now.
    drive.faults.inject("Get", times=99)
    assert host.play(**RESET).plan.failures and not drive.owned()
    drive.faults.clear()
    drive.wrong.clear()
    done = host.play(serial="S1", password=OLD)
    assert done.plan.steps and not done.plan.failures
    assert drive.wrong == []


def test_a_note_that_the_drive_contradicts_is_asked_for_once() -> None:
    host, drive = set_up(OPAL2)
    drive.faults.inject("Set", "vanish_after", skip=1)
    assert host.play(serial="S1", password=OLD, new_password=NEW).plan.failures
    drive.gone = False
    # Somebody else took both passwords back since.
    drive.pins[SID].value = drive.pins[ADMIN].value = OLD.encode()
    drive.wrong.clear()
    assert "does not take the password" in message(host.play(serial="S1", password=OLD, new_password=NEW))
    done = host.play(serial="S1", password=OLD, new_password=NEW)
    assert done.plan.steps and not done.plan.failures
    assert drive.wrong == [ADMIN]


def test_a_second_range_of_a_drive_that_this_host_has_set_up_costs_no_try() -> None:
    host = Host(Spec("S1", kind=ENTERPRISE, ranges=2))
    host.play(serial="S1", password=OLD)
    drive = host.drives[0]
    drive.wrong.clear()
    place: dict[str, t.Any] = {"range": 1, "range_start": 0, "range_length": 2048, "confirm_serial": ["S1"]}
    done = host.play(serial="S1", password=OLD, **place)
    assert done.plan.steps and not done.plan.failures and drive.wrong == []
