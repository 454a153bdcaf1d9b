# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drive that says it has stored a new credential, and has stored another one, still opens to the former one."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome
from ansible_collections.nasops.encryption.plugins.module_utils.sed.read import Survey
from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Drive, Spec
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sed.drives import Host

OLD, NEW = "old-password", "new-password"
AUTHORITIES = {OPAL2: ["Admin1", "SID"], ENTERPRISE: ["EraseMaster", "BandMaster0", "SID"]}
MATRIX = [(kind, place) for kind, authorities in AUTHORITIES.items() for place in range(len(authorities))]
PINS = {
    "SID": names.PIN_SID,
    "Admin1": names.pin_of(names.admin(1)),
    "EraseMaster": names.pin_of(names.ERASE_MASTER),
    "BandMaster0": names.pin_of(names.band_master(0)),
}


def set_up(kind: str, **spec: t.Any) -> tuple[Host, Drive]:
    host = Host(Spec("S1", kind=kind, ranges=1, **spec))
    host.play(serial="S1", password=OLD)
    return host, host.drives[0]


def said(done: Outcome[Survey]) -> str:
    return " ".join(str(one) for one in done.plan.failures)


@pytest.mark.parametrize("kind,place", MATRIX)
def test_the_former_password_is_set_again_and_that_is_said(kind: str, place: int) -> None:
    host, drive = set_up(kind)
    authority = AUTHORITIES[kind][place]
    drive.faults.inject("Set", "other_value", skip=place)
    failed = said(host.play(serial="S1", password=OLD, new_password=NEW))
    assert f"to set the password of {authority}, said that it had, and could not be seen to take the new one" in failed
    assert "the former one was set again, and the drive takes that" in failed
    assert drive.pins[PINS[authority]].value == OLD.encode() and not drive.faults.pending()
    for one in AUTHORITIES[kind][place:]:
        assert drive.pins[PINS[one]].value == OLD.encode()
    assert f"{authority} has the former password. What was changed before it has the new one." in failed
    for one in AUTHORITIES[kind][:place]:
        assert drive.pins[PINS[one]].value == NEW.encode()
    if place == 0:
        drive.power_cycle()
        assert not said(host.play(serial="S1", password=OLD, state="unlocked")) and drive.readable()
    # What went wrong with it once goes well the next time.
    assert not said(host.play(serial="S1", password=OLD, new_password=NEW))
    assert {drive.pins[PINS[one]].value for one in AUTHORITIES[kind]} == {NEW.encode()}


@pytest.mark.parametrize("kind,place", [(OPAL2, 0), (ENTERPRISE, 0), (ENTERPRISE, 1), (ENTERPRISE, 2)])
def test_a_set_up_goes_back_to_the_factory_s(kind: str, place: int) -> None:
    host = Host(Spec("S1", kind=kind, ranges=0))
    drive = host.drives[0]
    authority = ["EraseMaster", "SID", "BandMaster0"][place] if kind == ENTERPRISE else "SID"
    drive.faults.inject("Set", "other_value", skip=place)
    # The BandMaster of a drive that is new is offered the password before it has it.
    twice = [PINS[authority]] if authority == "BandMaster0" else []
    assert "the former one was set again" in said(host.play(serial="S1", password=OLD, twice=twice))
    assert drive.pins[PINS[authority]].value == drive.spec.msid
    assert not said(host.play(serial="S1", password=OLD))
    assert not host.play(serial="S1", password=OLD).plan.steps


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_what_can_not_be_set_back_is_told_while_the_drive_is_open(kind: str) -> None:
    host, drive = set_up(kind)
    drive.faults.inject("Set", "other_value", times=2)
    first = PINS[AUTHORITIES[kind][0]]
    failed = said(host.play(serial="S1", password=OLD, new_password=NEW, twice=[first]))
    assert "could be seen to take neither that nor the former one, which it was to set again" in failed
    assert "Do not take its power" in failed and drive.readable()
    assert host.journal.kept["S1"][AUTHORITIES[kind][0]] == ["begun", "ours"]


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_drive_that_answers_once_in_a_session_is_asked_in_the_next_one(kind: str) -> None:
    host, drive = set_up(kind, reauthenticates=False)
    assert host.play(serial="S1", password=OLD, new_password=NEW).plan.steps
    assert {drive.pins[PINS[one]].value for one in AUTHORITIES[kind]} == {NEW.encode()}
    drive.faults.inject("Set", "other_value")
    first = PINS[AUTHORITIES[kind][0]]
    failed = said(host.play(serial="S1", password=NEW, new_password=OLD, twice=[first]))
    assert "said that it had, and does not take it. Do not take its power" in failed


@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_change_that_goes_well_costs_no_try(kind: str) -> None:
    host, drive = set_up(kind)
    drive.wrong.clear()
    assert host.play(serial="S1", password=OLD, new_password=NEW).plan.steps and drive.wrong == []


# When a password is changed, the drive is asked in one session for the former one, and then for the new one.
@pytest.mark.parametrize("how", ["lose", "garble", "empty"])
@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_drive_that_can_not_be_asked_for_the_new_one_gets_the_former_one_again(kind: str, how: str) -> None:
    host, drive = set_up(kind)
    authority = AUTHORITIES[kind][0]
    drive.faults.inject("Authenticate", how, skip=asked_before(kind) + 1)
    failed = said(host.play(serial="S1", password=OLD, new_password=NEW))
    assert f"to set the password of {authority}, said that it had, and could not be seen to take the new one" in failed
    assert not drive.faults.pending() and drive.pins[PINS[authority]].value == OLD.encode()
    assert host.journal.kept["S1"][authority] == ["begun", "ours"]
    drive.wrong.clear()
    assert not said(host.play(serial="S1", password=OLD, new_password=NEW))
    assert len(drive.wrong) <= 1


def asked_before(kind: str) -> int:
    """How often Authenticate is called until a change asks for the former one in the session that is open."""
    host, drive = set_up(kind)
    drive.calls.clear()
    host.play(serial="S1", password=OLD, new_password=NEW)
    called = [name for name, _uid, _who in drive.calls]
    first = called.index("Set")
    return called[: first - 1].count("Authenticate")


@pytest.mark.parametrize("how", ["vanish", "vanish_after"])
@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_drive_that_goes_while_it_is_asked_is_told_as_not_known(kind: str, how: str) -> None:
    host, drive = set_up(kind)
    authority = AUTHORITIES[kind][0]
    drive.faults.inject("Authenticate", how, skip=asked_before(kind) + 1)
    failed = said(host.play(serial="S1", password=OLD, new_password=NEW))
    assert "could be seen to take neither that nor the former one" in failed and "Do not take its power" in failed
    assert host.journal.kept["S1"][authority] == ["begun", "ours"]
    drive.gone = False
    assert not said(host.play(serial="S1", password=OLD, new_password=NEW))
    assert {drive.pins[PINS[one]].value for one in AUTHORITIES[kind]} == {NEW.encode()}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_an_answer_that_is_lost_on_the_way_back_counts_as_a_no(kind: str, times: int) -> None:
    host, drive = set_up(kind)
    first = PINS[AUTHORITIES[kind][0]]
    drive.faults.inject("Set", "other_value")
    if times == 1:
        drive.faults.inject("Authenticate", "garble", skip=asked_before(kind) + 2)
    else:
        drive.faults.inject("Set", "garble")
    failed = said(host.play(serial="S1", password=OLD, new_password=NEW, twice=[first] if times == 2 else []))
    assert "could be seen to take neither" in failed and "Do not take its power" in failed
    assert host.journal.kept["S1"][AUTHORITIES[kind][0]] == ["begun", "ours"]
    assert not drive.faults.pending()


@pytest.mark.parametrize("how", ["lose", "garble", "empty", "refuse"])
@pytest.mark.parametrize("kind", [OPAL2, ENTERPRISE])
def test_a_drive_that_can_not_be_asked_in_a_session_is_asked_in_another_one(kind: str, how: str) -> None:
    host, drive = set_up(kind)
    drive.faults.inject("Authenticate", how, skip=asked_before(kind))
    drive.wrong.clear()
    assert not said(host.play(serial="S1", password=OLD, new_password=NEW))
    assert {drive.pins[PINS[one]].value for one in AUTHORITIES[kind]} == {NEW.encode()} and drive.wrong == []
    assert not drive.faults.pending()


def test_each_band_is_proven() -> None:
    host = Host(Spec("S1", kind=ENTERPRISE, ranges=2, reauthenticates=False))
    drive = host.drives[0]
    # EraseMaster and SID are set before, and the band of the task as the last one.
    drive.faults.inject("Set", "other_value", skip=2)
    stray = names.pin_of(names.band_master(1))
    failed = said(host.play(serial="S1", password=OLD, twice=[]))
    assert "to set the password of BandMaster1, said that it had, and does not take it" in failed
    assert drive.pins[stray].value not in (OLD.encode(), drive.spec.msid)
    assert drive.pins[PINS["BandMaster0"]].value == drive.spec.msid
