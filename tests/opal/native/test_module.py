# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules with their real system calls, against emulated drives of every bus and kind."""

from __future__ import annotations

import os
import typing as t

import pytest

from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Drive, Spec
from ansible_collections.nasops.encryption.tests.opal.player import Player

OLD, NEW, WRONG = "an old password", "the new password", "not the password"
NODES = {"nvme": "nvme8", "sata": "sdx", "sas": "sdy"}
MATRIX = [(bus, kind) for bus in NODES for kind in (OPAL2, ENTERPRISE)]
# Whether the drive tells its owner: in every run of the tests one of both, both by `make sed-faults`.
TELLS = [(*one, tells) for number, one in enumerate(MATRIX) for tells in (number % 4 < 2, number % 4 >= 2)]
if not os.environ.get("NASOPS_ALL_FAULTS"):
    TELLS = TELLS[::2]


def plug(player: Player, bus: str = "nvme", kind: str = OPAL2, tells_owner: bool = False) -> Drive:
    spec = Spec(f"SER{bus.upper()}1", kind=kind, transport=bus, ranges=3, tells_owner=tells_owner)
    return player.host.plug(spec, NODES[bus])


@pytest.mark.parametrize("bus,kind,tells_owner", TELLS)
def test_a_drive_from_its_first_day_to_its_last(player: Player, bus: str, kind: str, tells_owner: bool) -> None:
    player.hash = "sha1" if (bus, kind) == ("nvme", OPAL2) else "raw"
    drive = plug(player, bus, kind, tells_owner)
    serial = drive.spec.serial
    keys = drive.keys
    # Whose an Enterprise drive is that does not tell, check mode can't know without trying.
    player.four_runs(serial=serial, password=OLD, check_password=kind == ENTERPRISE and not tells_owner)
    assert drive.owned() and drive.locking_enabled and drive.readable()
    assert drive.ranges[0].read_enabled and drive.ranges[0].write_enabled
    assert player.run(serial=serial, password=OLD, state="unlocked")["changed"] is False

    locked = player.four_runs(serial=serial, password=OLD, state="locked")
    assert locked["drives"][0]["locked"] is True and not drive.readable()
    unlocked = player.four_runs(serial=serial, password=OLD, state="unlocked")
    assert unlocked["actions"][-1] == f"Read the partition table of '{serial}' again"
    assert player.host.rescans and drive.readable()

    # Discovery tells neither whether a range can be read, nor which password is in the drive.
    known: dict[str, t.Any] = {"serial": serial, "password": OLD, "check_password": True}
    for state, reads, writes in (("readonly", True, False), ("unlocked", True, True), ("locked", False, False)):
        player.host.power_cycle()
        assert not drive.readable()
        # What was set up stays as it is while it is locked, and is locked by that.
        player.four_runs(False, serial=serial, password=OLD)
        player.four_runs(state != "locked", **known, state=state)
        assert (drive.ranges[0].reads, drive.ranges[0].writes) == (reads, writes)
    player.four_runs(**known, state="readonly")
    player.four_runs(**known, state="locked")
    player.four_runs(**known, state="unlocked")

    player.four_runs(serial=serial, password=OLD, new_password=NEW, check_password=True)
    player.host.power_cycle()
    assert "does not take the password" in player.fails(serial=serial, password=OLD, state="unlocked")
    player.four_runs(serial=serial, password=NEW, state="unlocked")
    assert drive.readable()
    assert drive.keys == keys, "no data was lost until now"

    assert "confirm_serial" in player.fails(serial=serial, password=NEW, state="absent")
    # Nor does it tell, on most drives, that they are the factory's again.
    reset: dict[str, t.Any] = {"serial": serial, "password": NEW, "state": "absent", "confirm_serial": [serial]}
    player.four_runs(**reset, check_password=not tells_owner)
    assert not drive.owned() and not set(drive.keys) & set(keys)


@pytest.mark.parametrize("bus,kind", MATRIX)
def test_a_drive_whose_password_is_lost(player: Player, bus: str, kind: str) -> None:
    drive = plug(player, bus, kind, tells_owner=kind == ENTERPRISE)
    serial = drive.spec.serial
    player.run(serial=serial, password=OLD)
    psid = drive.spec.psid.decode()
    grouped = "-".join(psid[at : at + 4] for at in range(0, 32, 4)).lower()
    wrong = player.fails(serial=serial, psid="F" * 32, state="absent", confirm_serial=[serial])
    assert "not authorized" in wrong and drive.owned()
    player.four_runs(serial=serial, psid=grouped, state="absent", confirm_serial=[serial], check_password=True)
    assert not drive.owned()
    assert drive.pins[names.PSID].tries == 0
