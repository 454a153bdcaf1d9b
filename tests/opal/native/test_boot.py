# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host runs when it starts, without Ansible, against emulated drives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_files import archive
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_refused import REFUSED_FILE
from ansible_collections.nasops.encryption.tests.opal.drive import Mbr, Spec
from ansible_collections.nasops.encryption.tests.opal.player import Player

COMMON, OWN = "the-password-of-all", "a-password-of-its-own"


def test_drives_are_unlocked_by_the_file_and_one_that_is_wrong_holds_up_no_other(
    player: Player, shim: Path, tmp_path: Path
) -> None:
    host = player.host
    drives = [host.plug(Spec(serial), name) for serial, name in (("S1", "nvme7"), ("S2", "nvme8"), ("S3", "nvme9"))]
    for serial, password in (("S1", COMMON), ("S2", OWN), ("S3", "another one")):
        player.run(serial=serial, password=password)
    host.partition("nvme7")
    host.power_cycle()
    program, settings = tmp_path / "program.pyz", tmp_path / "settings.json"
    program.write_bytes(archive())
    settings.write_text(
        json.dumps({"devices": ["S1", "S2", "S3"], "password": COMMON, "passwords": {"S2": OWN}, "hash": "raw"})
    )
    settings.chmod(0o600)

    def start() -> tuple[int, str]:
        environment = {**os.environ, **host.environment(shim)}
        argv = [sys.executable, "-I", str(program), str(settings)]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == "" and not any(one in done.stdout for one in (COMMON, OWN))
        return done.returncode, done.stdout

    status, shown = start()
    assert status == 1
    assert [drive.readable() for drive in drives] == [True, True, False]
    assert "nasops-unlock-drives: done: Unlock range 0 of 'S1'\n" in shown
    assert "nasops-unlock-drives: 'S3' STAYS LOCKED: Admin1 of 'S3' does not take the password" in shown
    assert host.partitions("nvme7") == ["nvme7n1p1"], "the pool on it can be imported"
    # The same once more costs no more tries.
    status, shown = start()
    assert status == 1 and "'S3' STAYS LOCKED: It was offered the password in the file since the host started" in shown
    assert [len(drive.wrong) for drive in drives] == [0, 0, 1]
    notes = host.root / REFUSED_FILE.lstrip("/")
    assert notes.stat().st_mode & 0o777 == 0o600 and COMMON not in notes.read_text()
    player.run(serial="S3", password="another one", state="unlocked")
    assert start() == (0, "")
    assert not json.loads(notes.read_text())["drives"], "somebody was at the drive, so it may take another one by now"
    host.power_cycle()
    player.run(serial="S3", password="another one", state="unlocked")
    # That of S2, too, which has no partitions: the two go side by side.
    host.fail_rescans = 2
    status, shown = start()
    assert status == 1 and "nasops-unlock-drives: 'S1' IS OPEN, BUT: Failed to read the partition table" in shown
    assert start() == (0, "nasops-unlock-drives: done: Read the partition table of 'S1' again\n")


def test_what_can_not_be_read_is_not_told_as_open(player: Player, shim: Path, tmp_path: Path) -> None:
    host = player.host
    shadowed = host.plug(Spec("S1"), "nvme8")
    host.plug(Spec("S2", kind=""), "nvme9")
    player.run(serial="S1", password=COMMON)
    shadowed.mbr = Mbr(enabled=True)
    # The range opens, and what puts the shadow away goes wrong.
    host.power_cycle()
    shadowed.faults.inject("Set", skip=1, times=9)
    program, settings = tmp_path / "program.pyz", tmp_path / "settings.json"
    program.write_bytes(archive())
    settings.write_text(json.dumps({"devices": ["S1", "S2"], "password": COMMON, "hash": "raw"}))
    settings.chmod(0o600)
    argv = [sys.executable, "-I", str(program), str(settings)]
    environment = {**os.environ, **host.environment(shim)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "IS OPEN" not in done.stdout, done.stdout
    assert "'S1' STAYS LOCKED: Failed to put away the shadow MBR" in done.stdout
    assert "'S2' STAYS LOCKED: 'S2' (" in done.stdout and "does not show itself" in done.stdout
    assert not shadowed.locked() and not shadowed.readable()
