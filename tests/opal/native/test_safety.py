# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not happen: a try too many, the wrong drive, a drive in use, a password where it can be seen."""

from __future__ import annotations

import threading
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, OPALITE, PYRITE2, RUBY, Spec
from ansible_collections.nasops.encryption.tests.opal.player import Player, Worker, at_once
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.nas import label

PASSWORD, WRONG = "pass-word-1", "pass-word-2"
ADMIN = names.pin_of(names.admin(1))


def test_a_wrong_password_costs_one_try_and_check_mode_none(player: Player) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    player.host.power_cycle()
    for state in ("unlocked", "locked", "present"):
        shown = player.run(serial="S1", password=WRONG, state=state, check_mode=True)
        assert "No password was tried" in str(shown["warnings"])
    assert drive.pins[ADMIN].tries == 0
    asked = player.run(serial="S1", password=WRONG, state="unlocked", check_mode=True, check_password=True)
    assert asked["failed"] and drive.pins[ADMIN].tries == 1
    assert player.fails(serial="S1", password=WRONG, state="unlocked") == asked["msg"]
    assert drive.pins[ADMIN].tries == 2 and drive.pins[names.PIN_SID].tries == 0
    assert not player.run(serial="S1", password=PASSWORD, state="unlocked").get("failed")
    assert drive.pins[ADMIN].tries == 0
    # An open drive needs no password, so none is tried.
    assert player.run(serial="S1", password=WRONG, state="unlocked")["changed"] is False
    assert drive.pins[ADMIN].tries == 0


def test_a_drive_that_is_locked_out_is_left_alone(player: Player) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    player.host.power_cycle()
    drive.pins[ADMIN].tries = 5
    assert "is locked out. Too many wrong passwords" in player.fails(serial="S1", password=PASSWORD, state="unlocked")
    assert drive.pins[ADMIN].tries == 5
    player.host.power_cycle()
    assert player.run(serial="S1", password=PASSWORD, state="unlocked")["changed"]


@pytest.mark.parametrize("kind", ["opal2", ENTERPRISE])
def test_somebody_elses_drive_is_refused_by_few_tries(player: Player, kind: str) -> None:
    drive = player.host.plug(Spec("S1", kind=kind), "nvme8")
    player.run(serial="S1", password="somebody else's")
    before = {uid: pin.value for uid, pin in drive.pins.items()}
    assert "does not take the password" in player.fails(serial="S1", password=PASSWORD)
    assert {uid: pin.value for uid, pin in drive.pins.items()} == before
    assert [pin.tries for pin in drive.pins.values() if pin.tries] == [1]


def test_what_sedutil_leaves_half_done_is_finished(player: Player) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    drive.faults.inject("Activate")
    assert "malfunction" in player.fails(serial="S1", password=PASSWORD)
    assert drive.owned() and not drive.locking_enabled
    done = player.run(serial="S1", password=PASSWORD)
    assert done["actions"] == ["Turn on locking of 'S1'", "Enable locking of range 0 of 'S1'"]
    assert not any(pin.tries for pin in drive.pins.values())


def test_a_drive_that_tells_its_owner_costs_no_try(player: Player) -> None:
    drive = player.host.plug(Spec("S1", tells_owner=True), "nvme8")
    drive.pins[names.PIN_SID].value = b"somebody's"
    player.fails(serial="S1", password=PASSWORD)
    assert drive.pins[names.PIN_SID].tries == 1, "ours only, since it told that the factory's is gone"


def test_a_drive_under_another_name_is_the_same_and_another_one_under_its_name_is_not(player: Player) -> None:
    first = player.host.plug(Spec("S1"), "nvme8")
    second = player.host.plug(Spec("S2"), "nvme9")
    for serial in ("S1", "S2"):
        player.run(serial=serial, password=PASSWORD)
    player.host.unplug("nvme8")
    player.host.unplug("nvme9")
    player.host.attach(first, "nvme9")
    player.host.attach(second, "nvme8")
    player.host.power_cycle()
    done = player.run(serial="S1", password=PASSWORD, state="unlocked")
    assert (first.readable(), second.readable()) == (True, False)
    assert done["drives"][0]["device"] == "/dev/nvme9n1"
    # The kernel still tells the old name, the drive knows better.
    player.host.write("sys/devices/nvme8/serial", "S1\n")
    player.host.write("sys/devices/nvme9/serial", "S2\n")
    assert "says that its serial number is" in player.fails(serial="S1", password=PASSWORD, state="locked")
    assert first.readable()


@pytest.mark.parametrize("state,options", [("locked", {}), ("readonly", {}), ("absent", {"confirm_serial": ["S1"]})])
def test_a_drive_in_use_is_refused(player: Player, state: str, options: dict[str, t.Any]) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    keys = drive.keys
    player.host.mount("nvme8n1", "/srv")
    assert "is in use: mounted on /srv" in player.fails(serial="S1", password=PASSWORD, state=state, **options)
    assert player.info()[0]["uses"] == ["mounted on /srv (/dev/nvme8n1)"]
    player.host.write("proc/self/mountinfo", "")
    drive.busy = True
    assert "is in use: held by the kernel" in player.fails(serial="S1", password=PASSWORD, state=state, **options)
    assert drive.readable() and drive.keys == keys
    drive.busy = False
    assert player.run(serial="S1", password=PASSWORD, state=state, **options)["changed"]


@pytest.mark.parametrize("state,options", [("locked", {}), ("readonly", {}), ("absent", {"confirm_serial": ["S1"]})])
def test_a_drive_of_a_pool_is_told_by_its_name_and_refused(
    player: Player, state: str, options: dict[str, t.Any]
) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    # The kernel holds what ZFS has imported, and does not say for whom.
    drive.media, drive.busy = label("vault", 17), True
    shown = player.info()[0]
    assert (shown["pool"], shown["uses"]) == ("vault", ['member of the imported pool "vault" (/dev/nvme8n1)'])
    message = player.fails(serial="S1", password=PASSWORD, state=state, **options)
    assert 'is in use: member of the imported pool "vault" (/dev/nvme8n1)' in message and drive.readable()
    # A pool that was lost with the power of its drives is not read by its name, but held all the same.
    player.host.power_cycle()
    shown = player.info()[0]
    assert shown["pool"] is None and len(shown["uses"]) == 1 and shown["uses"][0].startswith("held by the kernel")
    drive.busy = False
    player.run(serial="S1", password=PASSWORD, state="unlocked")
    assert (player.info()[0]["pool"], player.info()[0]["uses"]) == (None, [])


@pytest.mark.parametrize("state,options", [("locked", {}), ("readonly", {}), ("absent", {"confirm_serial": ["S1"]})])
def test_a_drive_that_is_mounted_between_plan_and_step_is_left_alone(
    player: Player, state: str, options: dict[str, t.Any]
) -> None:
    host = player.host
    drive = host.plug(Spec("S1"), "nvme8")
    mounts = (host.root / "proc/self/mountinfo").read_text()
    said: dict[str, int] = {"is in use: mounted on /srv": 0, "It is in use by now: mounted on /srv": 0}
    player.run(serial="S1", password=PASSWORD)
    host.looks = 0
    player.run(serial="S1", password=PASSWORD, state=state, **options, check_mode=True, check_password=True)
    # What check mode looks at comes before the plan; the next look is that of the step.
    for place in range(1, host.looks + 1):
        host.looks = 0
        host.write("proc/self/mountinfo", mounts)
        host.before_look = lambda look, place=place: host.mount("nvme8n1", "/srv") if look == place else None
        drive.calls.clear()
        message = player.fails(serial="S1", password=PASSWORD, state=state, **options)
        found = [words for words in said if words in message]
        assert found, (place, message)
        said[found[-1]] += 1
        assert drive.readable() and not {name for name, _uid, _who in drive.calls} & {"Set", "Revert", "RevertSP"}
    assert said["It is in use by now: mounted on /srv"] >= 1, said


@pytest.mark.parametrize(
    "address",
    ["S1", "nvme8", "nvme8n1", "/dev/nvme8n1", "/dev/disk/by-id/nvme-EMU_OPAL_1TB_S1", "eui.00000000000000s1"],
)
def test_every_name_of_a_drive_is_that_drive(player: Player, address: str) -> None:
    player.host.plug(Spec("S1"), "nvme8")
    player.host.plug(Spec("S2"), "nvme9")
    done = player.run(device=address, password=PASSWORD, check_mode=True)
    assert [one["serial"] for one in done["drives"]] == ["S1"]


def test_names_that_are_none(player: Player) -> None:
    player.host.plug(Spec("S1"), "nvme8")
    assert "There is no drive 'S9' on this host. The drives are: S1 (nvme8n1)." in player.fails(
        serial="S9", password=PASSWORD
    )
    assert "are the same drive" in player.fails(devices=["S1", "/dev/nvme8n1"], password=PASSWORD)


def test_what_encrypts_nothing_and_what_is_kept_from_telling(player: Player) -> None:
    player.host.plug(Spec("S1", kind=""), "nvme8")
    sata = player.host.plug(Spec("S2", transport="sata"), "sdx")
    assert "does not show itself as a self-encrypting drive" in player.fails(serial="S1", password=PASSWORD)
    player.host.allow_tpm(False)
    assert "libata.allow_tpm is 0" in player.fails(serial="S2", password=PASSWORD)
    assert [one["type"] for one in player.info()] == [None, None]
    assert "libata.allow_tpm is 0" in [one["error"] or "" for one in player.info(devices=["S2"])][0]
    assert not sata.owned()


@pytest.mark.parametrize("kind", [OPALITE, RUBY, PYRITE2])
def test_other_kinds_are_told_apart(player: Player, kind: str) -> None:
    drive = player.host.plug(Spec("S1", kind=kind), "nvme8")
    shown = player.info()[0]
    assert (shown["type"], shown["encrypts"]) == (kind, kind != PYRITE2)
    if kind == PYRITE2:
        assert "does not encrypt" in player.fails(serial="S1", password=PASSWORD)
    else:
        player.four_runs(serial="S1", password=PASSWORD)
    assert drive.owned() == (kind != PYRITE2)


def test_the_shadow_in_the_way_of_the_data(player: Player) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    drive.mbr = type(drive.mbr)(enabled=True)
    player.host.power_cycle()
    done = player.four_runs(serial="S1", password=PASSWORD, state="unlocked")
    assert done["actions"] == [
        "Unlock range 0 of 'S1'",
        "Put away the shadow MBR of 'S1' until the power was off",
        "Read the partition table of 'S1' again",
    ]
    assert drive.readable() and drive.mbr.enabled
    assert player.four_runs(serial="S1", password=PASSWORD)["actions"] == ["Turn off the shadow MBR of 'S1'"]


def test_a_range_of_its_own(player: Player) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    place: dict[str, t.Any] = {"range": 1, "range_start": 0, "range_length": 2048, "serial": "S1", "password": PASSWORD}
    assert "confirm_serial" in player.fails(**place)
    player.host.mount("nvme8n1", "/srv")
    assert "is in use: mounted on /srv" in player.fails(**place, confirm_serial=["S1"])
    player.host.write("proc/self/mountinfo", "")
    player.four_runs(**place, confirm_serial=["S1"], check_password=True)
    assert (drive.ranges[1].length, drive.ranges[1].read_enabled) == (2048, True)
    assert player.run(**place)["changed"] is False
    assert "wants multiples of 8" in player.fails(**{**place, "range_length": 2049}, confirm_serial=["S1"])
    assert "has no blocks" in player.fails(serial="S1", password=PASSWORD, range=2)
    player.four_runs(serial="S1", password=PASSWORD, range=1, state="locked", check_password=True)
    assert (drive.ranges[0].reads, drive.ranges[1].reads) == (True, False)
    player.four_runs(serial="S1", password=PASSWORD, range=1, state="unlocked")


def test_many_drives_at_once_and_one_of_them_is_wrong(player: Player) -> None:
    names_of = [f"S{number}" for number in range(1, 13)]
    drives = [player.host.plug(Spec(name), f"nvme{number}") for number, name in enumerate(names_of, 1)]
    own = {"S3": "a password of its own"}
    player.run(devices=names_of, password=PASSWORD, passwords=own)
    player.host.power_cycle()
    assert not any(drive.readable() for drive in drives)
    # Each command waits until eight drives have one: that ends only if they are unlocked at the same time.
    player.host.gate = threading.Barrier(8)
    done = player.run(devices=[*names_of[:4], *names_of[8:]], password=PASSWORD, passwords=own, state="unlocked")
    player.host.gate = None
    assert not done.get("failed"), done["msg"]
    player.host.unplug("nvme6")
    failed = player.run(devices=["S5", "S6", "S7", "S8"], password=PASSWORD, passwords={"S7": WRONG}, state="unlocked")
    assert "S6: There is no drive 'S6'" in failed["msg"] and "S7: Admin1 of 'S7' does not take" in failed["msg"]
    assert [one["locked"] for one in failed["drives"]] == [False, None, True, False]
    assert [drive.readable() for drive in drives] == [number not in (6, 7) for number in range(1, 13)]


@pytest.mark.parametrize(
    "options,message",
    [
        ({}, "No drive is named"),
        ({"serial": "S1", "device": "S1", "password": "x"}, "device and serial are given"),
        ({"serial": "S1"}, "No password is given"),
        ({"serial": "S1", "state": "absent"}, "reset with its password, or with the psid"),
        ({"serial": "S1", "password": "x", "psid": "A" * 32, "state": "absent"}, "without a password"),
        ({"serial": "S1", "psid": "!" * 32, "state": "absent"}, "not the code of a label"),
        ({"serial": "S1", "password": "a\nb"}, "a line break"),
        ({"serial": "S1", "password": "x" * 33, "hash": "raw"}, "has 33 bytes"),
        ({"serial": "S1", "password": "x", "new_password": "x"}, "there already"),
        ({"serial": "S1", "password": "x", "new_password": "y", "state": "locked"}, "goes with state: present"),
        ({"serial": "S1", "password": "x", "range": 1, "range_start": 8}, "go together"),
        ({"serial": "S1", "password": "x", "range": -1}, "range is -1"),
        ({"serial": "S1", "passwords": {"S2": "x"}}, "what the task is not about: S2"),
        ({"devices": ["S1", "S1"], "password": "x"}, "more than once: S1"),
        ({"devices": ["S1", " "], "password": "x"}, "an empty name"),
        ({"devices": ["S1", "S2"], "psid": "A" * 32, "state": "absent"}, "Every drive has a psid of its own"),
        ({"serial": "S1", "password": "x", "range": 1, "state": "absent"}, "it goes without range"),
        (
            {"serial": "S1", "password": "x", "range": 1, "range_start": -8, "range_length": 8},
            "begins at block 0 or later",
        ),
        ({"serial": "S1", "password": "x", "range": 1, "range_start": 8, "range_length": 0}, "at least one block"),
        ({"serial": "S1", "password": "x", "range": 1024}, "range is 1024; ranges have numbers from 0 to 1023"),
        ({"serial": "S1", "passwords": {"S1": 1234567}}, "passwords['S1'] is not text"),
        ({"serial": "S1", "password": "\ud83d"}, "half a character"),
        ({"serial": "S1", "password": "x", "hash": "sha512", "backend": "sedutil"}, "can't be told another"),
    ],
)
def test_options_that_contradict_each_other(player: Player, options: dict[str, str], message: str) -> None:
    assert message in player.fails(**options)


def test_a_host_without_sedutil(player: Player, shim: Path, tmp_path: Path) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    bare = Worker(shim, tmp_path)
    try:
        failed = Player(player.host, bare).run(serial="S1", password=PASSWORD, backend="sedutil")
    finally:
        bare.close()
    assert failed["failed"] and "The program 'sedutil-cli' was not found on this host" in failed["msg"]
    assert not drive.owned()


def test_a_session_that_a_killed_program_left_open_is_ended(player: Player) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    drive.faults.inject("EndSession", "refuse", times=1)
    assert player.run(serial="S1", password=PASSWORD, state="locked")["changed"]
    assert not drive.readable()


def test_two_tasks_at_once_take_turns(player: Player, shim: Path) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    other = Worker(shim)
    failures: list[str] = []

    def work(one: Player) -> None:
        for state in ("present", "locked", "unlocked", "locked", "unlocked"):
            done = one.run(serial="S1", password=PASSWORD, state=state)
            if done.get("failed"):
                failures.append(done["msg"])

    try:
        at_once(lambda: work(player), lambda: work(Player(player.host, other)))
    finally:
        other.close()
    assert failures == []
    assert not any(pin.tries for pin in drive.pins.values())
    assert drive.session is None


def test_flags_of_a_range_that_was_not_enabled_do_not_lock_it(player: Player) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    drive.ranges[0] = replace(drive.ranges[0], read_enabled=False, write_enabled=False, read_locked=True)
    player.host.mount("nvme8n1", "/srv")
    done = player.run(serial="S1", password=PASSWORD)
    assert done["actions"][0] == "Clear what would lock range 0 of 'S1' at once"
    assert drive.readable() and drive.ranges[0].read_enabled


def test_what_the_firmware_of_the_host_forbids(player: Player) -> None:
    drive = player.host.plug(Spec("S1", tells_owner=True), "nvme8")
    drive.blocked = True
    assert "(Block SID)" in player.fails(serial="S1", password=PASSWORD)
    psid = drive.spec.psid.decode()
    assert player.run(serial="S1", psid=psid, state="absent", confirm_serial=["S1"])["changed"] is False
    assert not any(pin.tries for pin in drive.pins.values())
    player.host.power_cycle()
    player.four_runs(serial="S1", password=PASSWORD)
    player.host.power_cycle()
    drive.frozen = True
    assert "(Locking SP Freeze Lock)" in player.fails(serial="S1", password=PASSWORD, state="unlocked")
    assert drive.pins[ADMIN].tries == 0
    player.host.power_cycle()
    player.four_runs(serial="S1", password=PASSWORD, state="unlocked")


def test_a_rescan_that_failed_or_was_cut_off_is_done_by_the_next_run(player: Player) -> None:
    player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    player.host.partition("nvme8")
    assert player.host.partitions("nvme8") == ["nvme8n1p1"]
    assert player.run(serial="S1", password=PASSWORD, state="unlocked")["changed"] is False
    player.host.power_cycle()
    assert player.host.partitions("nvme8") == []
    player.host.fail_rescans = 2
    for place in range(2):
        failed = player.run(serial="S1", password=PASSWORD, state="unlocked")
        assert failed["failed"] and "Failed to read the partition table of 'S1' again" in failed["msg"]
        assert "which refused to read /dev/nvme8n1 again" in failed["msg"]
        # It is open all the same, and that it was opened is told.
        assert failed["changed"] is (place == 0) and failed["drives"][0]["locked"] is False
        assert player.host.partitions("nvme8") == []
    done = player.four_runs(serial="S1", password=PASSWORD, state="unlocked")
    assert done["actions"] == ["Read the partition table of 'S1' again"]
    assert player.host.partitions("nvme8") == ["nvme8n1p1"]


def test_a_range_that_can_still_be_written_is_not_locked(player: Player) -> None:
    drive = player.host.plug(Spec("S1"), "nvme8")
    player.run(serial="S1", password=PASSWORD)
    for state, reads, writes in (("locked", False, False), ("readonly", True, False), ("unlocked", True, True)):
        drive.ranges[0] = replace(drive.ranges[0], read_locked=True, write_locked=False)
        done = player.run(serial="S1", password=PASSWORD, state=state)
        assert done["diff"]["before"]["S1"]["range 0"]["state"] == "writeonly"
        assert (drive.ranges[0].reads, drive.ranges[0].writes) == (reads, writes)


def test_what_a_reset_does_to_a_drive_that_does_not_encrypt(player: Player) -> None:
    drive = player.host.plug(Spec("S1", kind=PYRITE2), "nvme8")
    drive.pins[names.PIN_SID].value = PASSWORD.encode()
    drive.activate()
    options: dict[str, t.Any] = {"serial": "S1", "password": PASSWORD, "state": "absent"}
    refused = player.fails(**options)
    assert "takes its passwords away, and perhaps its data" in refused and "erases all its data" not in refused
    done = player.run(**options, confirm_serial=["S1"])
    assert done["actions"][0] == "Reset 'S1' to the factory's settings, which may leave its data readable"
    assert "data" not in done["diff"]["after"]["S1"]
    assert "does not encrypt: a reset destroys no key" in str(done["warnings"])


def test_drives_without_a_serial_number(player: Player) -> None:
    plain = player.host.plug(Spec("", transport="sata"), "sdx")
    assert "neither a serial number nor a WWN" in player.fails(device="/dev/sdx", password=PASSWORD)
    named = [
        player.host.plug(Spec("", transport=bus, wwn=wwn), node)
        for bus, wwn, node in (("sata", "5000c500aaaaaaa1", "sdv"), ("sas", "5000c500aaaaaaa2", "sdw"))
    ]
    for drive in named:
        done = player.run(device=f"naa.{drive.spec.wwn}", password=PASSWORD)
        assert done["changed"] and drive.owned()
        # Another one of the same model under its name is another drive.
        assert "confirm_serial: " + drive.spec.wwn in player.fails(
            device=f"naa.{drive.spec.wwn}", password=PASSWORD, state="absent"
        )
    assert not plain.owned()
