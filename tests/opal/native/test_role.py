# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role and its playbook as users run them, on a host whose Python sees emulated drives."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ansible_collections.nasops.encryption.tests.opal.drive import Mbr, Spec
from ansible_collections.nasops.encryption.tests.opal.host import Emulator
from ansible_collections.nasops.encryption.tests.opal.names import PIN_SID
from ansible_collections.nasops.encryption.tests.opal.roles import COMMON, OWN, PLAY, play


def changed(shown: str) -> list[bool]:
    """Of each task with drives, whether it changed something."""
    return [word == "changed" for word in re.findall(r"^(changed|ok): \[nas1\] => .*\"drives\"", shown, re.M)]


def test_drives_are_set_up_once_and_unlocked_after_a_power_cut(host: Emulator, shim: Path, tmp_path: Path) -> None:
    drives = [host.plug(Spec(serial), name) for serial, name in (("S1", "nvme8"), ("S2", "nvme9"))]
    book = tmp_path / "play.yml"
    book.write_text(PLAY)
    assert changed(play(host, shim, tmp_path, str(book))) == [True, False]
    assert all(drive.owned() and drive.ranges[0].read_enabled for drive in drives)
    host.power_cycle()
    assert not any(drive.readable() for drive in drives)
    assert changed(play(host, shim, tmp_path, "nasops.encryption.unlock_drives")) == [True]
    assert all(drive.readable() for drive in drives)


def test_a_drive_that_can_not_be_set_up_keeps_no_other_one_locked(host: Emulator, shim: Path, tmp_path: Path) -> None:
    drives = [host.plug(Spec(serial), name) for serial, name in (("S1", "nvme8"), ("S2", "nvme9"))]
    book = tmp_path / "play.yml"
    book.write_text(PLAY)
    play(host, shim, tmp_path, str(book))
    host.power_cycle()
    # A third one is new, and the second one has another password.
    third = host.plug(Spec("S3"), "nvme7")
    wrong = ["S1", {"device": "S2", "password": "not-its-password"}, "S3", "S4"]
    shown = play(host, shim, tmp_path, str(book), status=2, nas_drives=wrong)
    assert [drive.readable() for drive in drives] == [True, False]
    assert third.owned() and third.ranges[0].read_enabled
    assert re.search(r"S2: Admin1 of 'S2' does not take .*S4: There is no drive 'S4'", shown, re.S)
    assert [pin.tries for pin in drives[1].pins.values() if pin.tries] == [1], "it is not tried again to be unlocked"


def test_the_role_unlock_tells_of_drives_too(host: Emulator, shim: Path, tmp_path: Path) -> None:
    drives = [host.plug(Spec(serial), name) for serial, name in (("S1", "nvme8"), ("S2", "nvme9"))]
    book = tmp_path / "play.yml"
    book.write_text(PLAY)
    play(host, shim, tmp_path, str(book))
    host.power_cycle()
    wrong = ["S1", {"device": "S2", "password": "not-its-password"}]
    shown = play(host, shim, tmp_path, "nasops.encryption.unlock", status=2, nas_drives=wrong, nas_hosts="nas")
    assert "nas1: unlocked drive S1; FAILED drive S2" in shown
    assert "drive S2: Admin1 of 'S2' does not take" in shown
    assert [drive.readable() for drive in drives] == [True, False]
    shown = play(host, shim, tmp_path, "nasops.encryption.unlock", nas_hosts="nas")
    assert "nas1: unlocked drive S2" in shown and drives[1].readable()
    assert "nas1: nothing to do" in play(host, shim, tmp_path, "nasops.encryption.unlock", nas_hosts="nas")


def test_what_unlocks_at_boot_has_passwords_that_drives_take_and_goes_when_no_drive_is_left(
    host: Emulator, shim: Path, tmp_path: Path
) -> None:
    drives = [host.plug(Spec(serial), name) for serial, name in (("S1", "nvme8"), ("S2", "nvme9"))]
    book = tmp_path / "play.yml"
    book.write_text(PLAY)
    settings = host.root / "etc/zfs/nasops-drives.json"

    def run(status: int = 0, **more: object) -> str:
        return play(host, shim, tmp_path, str(book), status=status, **{"nas_drive_unlock_at_boot": True, **more})

    both = ["S1", {"device": "S2", "password": OWN}]
    # A drive that is not there holds nothing up, and gets in when it is.
    shown = run(2, nas_drives=[*both, "S4"])
    assert "S4: There is no drive 'S4'" in shown and "what it had before, if anything, for S4." in shown
    good = settings.read_bytes()
    assert json.loads(good) == {"devices": ["S1", "S2"], "password": COMMON, "passwords": {"S2": OWN}, "hash": "sha1"}
    assert settings.stat().st_mode & 0o777 == 0o600
    shown = run(2, nas_drives=both, nas_drive_password="mistyped")
    assert "S1: Admin1 of 'S1' does not take the password" in shown
    assert "has what it had before, if anything, for S1." in shown
    assert settings.read_bytes() == good
    assert [pin.tries for pin in drives[0].pins.values() if pin.tries] == [1]
    # Nor does it keep another drive from what is new, or one that is gone from what it had.
    host.plug(Spec("S3"), "nvme7")
    host.unplug("nvme9")
    shown = run(2, nas_drives=[*both, {"device": "S3", "password": "new-one"}], nas_drive_password="mistyped")
    assert json.loads(settings.read_bytes()) == {
        "devices": ["S1", "S2", "S3"],
        "password": COMMON,
        "passwords": {"S2": OWN, "S3": "new-one"},
        "hash": "sha1",
    }
    host.attach(drives[1], "nvme9")
    task = r"TASK \[[^]]*Let the host unlock them when it starts\] \**\n(\w+): \[nas1\]"
    # It goes whatever else is set: here an object, and nobody to ask for it.
    half = [{"device": "S1", "kmip": "drives/S1"}]
    for described, wanted, word in ((half, False, ["changed"]), ([], True, ["skipping"])):
        shown = run(nas_drives=described, nas_drive_unlock_at_boot=wanted)
        assert re.findall(task, shown) == word, shown
        assert not list((host.root / "etc").rglob("*nasops*"))


def test_a_drive_whose_owner_has_another_password_is_opened_and_told(
    host: Emulator, shim: Path, tmp_path: Path
) -> None:
    drives = [host.plug(Spec(serial), name) for serial, name in (("S1", "nvme8"), ("S2", "nvme9"))]
    book = tmp_path / "play.yml"
    book.write_text(PLAY)
    play(host, shim, tmp_path, str(book))
    drives[0].pins[PIN_SID].value = b"another one"
    # What opens the first one is not what its owner has; what opens the second is, and it can't be made whole.
    drives[1].mbr = Mbr(enabled=True, done=True)
    host.power_cycle()
    drives[1].faults.inject("Set")
    for _run in range(2):
        shown = play(host, shim, tmp_path, str(book), status=2 if drives[1].faults.pending() else 0)
        assert "its owner, SID, does not" in shown
        assert all(drive.readable() for drive in drives)
        assert drives[0].wrong == [PIN_SID]
