# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drive that was set up by one of the two is a drive of the other, with the same password."""

from __future__ import annotations

import os

import pytest

from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPAL2, Spec
from ansible_collections.nasops.encryption.tests.opal.player import Player
from ansible_collections.nasops.encryption.tests.opal.programs import Sedutil

DRIVES = [
    (Spec("NVME1"), "nvme8"),
    (Spec("SATA1", transport="sata"), "sdx"),
    (Spec("SAS1", kind=ENTERPRISE, transport="sas", ranges=2), "sdy"),
    (Spec("SAS2", transport="sas"), "sdy"),
    (Spec("SATA2", kind=ENTERPRISE, transport="sata", ranges=2), "sdx"),
    (Spec("NVME2", kind=ENTERPRISE, ranges=2), "nvme8"),
]
# Upstream's way with one half of them and the module's with the other, in every run; all by `make sed-faults`.
THEIRS, OURS = (DRIVES, DRIVES) if os.environ.get("NASOPS_ALL_FAULTS") else (DRIVES[:4], [DRIVES[0], *DRIVES[3:]])
PASSWORD, OTHER = "a password", "another password"


@pytest.mark.parametrize("spec,name", THEIRS)
def test_set_up_by_sedutil(player: Player, sedutil: Sedutil, spec: Spec, name: str) -> None:
    drive = player.host.plug(spec, name)
    player.hash = "sha1"
    sedutil.ok("--initialSetup", PASSWORD, f"/dev/{name}")
    done = player.run(serial=spec.serial, password=PASSWORD)
    # Upstream shows the shadow and does not lock; on Enterprise it does.
    assert len(done["actions"]) == (0 if spec.enterprise else 2), done["actions"]
    player.host.power_cycle()
    assert not drive.readable()
    assert player.run(serial=spec.serial, password=PASSWORD, state="unlocked")["changed"]
    assert drive.readable()
    assert player.run(serial=spec.serial, password=PASSWORD, new_password=OTHER)["changed"]
    sedutil.ok("--setLockingRange", "0", "LK", OTHER, f"/dev/{name}")
    assert not drive.readable()


@pytest.mark.parametrize("spec,name", OURS)
def test_set_up_by_the_module(player: Player, sedutil: Sedutil, spec: Spec, name: str) -> None:
    drive = player.host.plug(spec, name)
    player.hash = "sha1"
    player.run(serial=spec.serial, password=PASSWORD)
    player.host.power_cycle()
    sedutil.ok("--setLockingRange", "0", "RW", PASSWORD, f"/dev/{name}")
    assert drive.readable()
    sedutil.ok("--revertTPer", PASSWORD, f"/dev/{name}")
    assert not drive.owned()


def test_without_stretching(player: Player, sedutil: Sedutil) -> None:
    drive = player.host.plug(Spec("S1", kind=OPAL2), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    player.host.power_cycle()
    sedutil.ok("-n", "--setLockingRange", "0", "RW", PASSWORD, "/dev/nvme8")
    assert drive.readable()
