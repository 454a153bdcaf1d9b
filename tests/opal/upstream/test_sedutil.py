# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's sedutil-cli against the emulator: what it prints is what it prints with hardware.

The texts of the hardware are those of upstream's own baseline and of its public issues (216 and 474). The baseline is
linux/sedutil_baseline of Drive-Trust-Alliance/sedutil, here at commit 01746a54b8883dc5e4270048e9788bfbe084d7c2: what
linux/TestSuite.sh beside it printed in August 2017, by version 1.15-24-gb6f51bf, with a Seagate ST500LT025.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest

from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal.drive import Spec
from ansible_collections.nasops.encryption.tests.opal.host import Emulator
from ansible_collections.nasops.encryption.tests.opal.programs import Sedutil

NVME = Spec("S8EMUNVME0000001", model="EMU NVMe OPAL 1TB")
SATA = Spec("SATASERIAL01", transport="sata", model="EMU SATA OPAL SSD 500GB", firmware="EMT01B6Q")
SAS = Spec("SASSERIAL01", kind="enterprise", transport="sas", model="ST4000NM0063", vendor="SEAGATE", ranges=3)
PLAIN = Spec("P1", kind="", model="EMU plain NVMe", firmware="P1")

SET_UP = (
    "takeOwnership complete|Locking SP Activate Complete|LockingRange0 disabled |LockingRange0 set to RW|"
    "MBRDone set on |MBRDone set on |MBREnable set on |Initial setup of TPer complete on {dev}"
)

# command -> (what it prints, how discovery looks afterwards), from upstream's baseline with a real drive.
SEQUENCE = (
    (
        "--initialsetup passw0rd",
        SET_UP,
        "NYYY",
    ),
    ("--setAdmin1Pwd passw0rd password", "Admin1 password changed", "NYYY"),
    ("--enableLockingRange 0 password", "LockingRange0 enabled ReadLocking,WriteLocking", "NYYY"),
    ("--setLockingRange 0 RO password", "LockingRange0 set to RO", "YYYY"),
    ("--setLockingRange 0 RW password", "LockingRange0 set to RW", "NYYY"),
    ("--setLockingRange 0 lk password", "LockingRange0 set to LK", "YYYY"),
    ("--disableLockingRange 0 password", "LockingRange0 disabled ", "NYYY"),
    ("--setMBRDone OFF password", "MBRDone set off ", "NYNY"),
    ("--setMBREnable off password", "MBRDone set on |MBREnable set off ", "NYNN"),
    ("--revertnoerase password", "Revert LockingSP complete", "NNNN"),
    ("--reverttper passw0rd", "revertTper completed successfully", "NNNN"),
)


def flags(text: str) -> str:
    """Locked, LockingEnabled, MBRDone and MBREnabled of a query."""
    line = next(line for line in text.splitlines() if "Locked = " in line)
    found = dict(re.findall(r"(\w+) = ([YN])", line))
    return "".join(found[name] for name in ("Locked", "LockingEnabled", "MBRDone", "MBREnabled"))


def test_the_sequence_of_upstream_prints_what_hardware_prints(host: Emulator, sedutil: Sedutil) -> None:
    name = "nvme8"
    drive = host.plug(NVME, name)
    key = drive.keys[0]
    for words, printed, after in SEQUENCE:
        wanted = printed.format(dev=f"/dev/{name}").replace("|", "\n") + "\n"
        assert sedutil.ok(*words.split(), f"/dev/{name}") == wanted
        assert flags(sedutil.ok("--query", f"/dev/{name}")) == after
        if words.startswith("--revertnoerase"):
            assert drive.keys[0] == key, "the data of the global range is kept"
    assert drive.keys[0] != key, "the data is gone"
    assert not drive.owned()


def pbkdf2(password: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha1", password.encode(), salt, 75000, 32)


@pytest.mark.parametrize(
    "spec,name,salt",
    [
        (NVME, "nvme8", b"S8EMUNVME0000001    "),
        (SATA, "sdx", b"        SATASERIAL01"),
        (SAS, "sdy", b"SEAGATE " + bytes(12)),
    ],
)
def test_the_pin_in_the_drive_is_the_password_stretched_over_its_serial_number(
    host: Emulator, sedutil: Sedutil, spec: Spec, name: str, salt: bytes
) -> None:
    drive = host.plug(spec, name)
    sedutil.ok("--takeOwnership", "a password", f"/dev/{name}")
    assert drive.pins[names.PIN_SID].value == pbkdf2("a password", salt)
    if spec.enterprise:
        masters = [names.ERASE_MASTER, names.band_master(0), names.band_master(1)]
        assert {drive.pins[names.pin_of(one)].value for one in masters} == {pbkdf2("a password", salt)}
        assert drive.pins[names.pin_of(names.band_master(2))].value == spec.msid, "it is disabled"


def test_all_kinds_of_drives_are_scanned_as_on_hardware(host: Emulator, sedutil: Sedutil) -> None:
    for spec, name in ((NVME, "nvme8"), (PLAIN, "nvme9"), (SATA, "sdx"), (SAS, "sdy")):
        host.plug(spec, name)
    assert sedutil.ok("--scan").splitlines() == [
        "Scanning for Opal compliant disks",
        "/dev/nvme8  2  EMU NVMe OPAL 1TB                        1.0EMU  ",
        "/dev/nvme9 No  EMU plain NVMe                           P1      ",
        "/dev/sdx    2  EMU SATA OPAL SSD 500GB                  EMT01B6Q",
        "/dev/sdy     E ST4000NM0063     1.0E",
        "No more disks present ending scan",
    ]
    host.allow_tpm(False)
    assert sedutil.run("--query", "/dev/sdx").returncode == 136
    assert "/dev/sdx   No " in sedutil.ok("--scan")


WRONG = """\
method status code NOT_AUTHORIZED
Session start failed rc = 1
One or more header fields have 0 length
EndSession Failed
"""


def test_a_wrong_password_and_the_lock_out_as_in_public_reports(host: Emulator, sedutil: Sedutil) -> None:
    drive = host.plug(replace(NVME, try_limit=2), "nvme8")
    sedutil.ok("--initialSetup", "right", "/dev/nvme8")
    admin = drive.pins[names.pin_of(names.admin(1))]
    for tries in range(2):
        assert admin.tries == tries
        done = sedutil.run("--listLockingRanges", "wrong", "/dev/nvme8")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", WRONG)
    done = sedutil.run("--listLockingRanges", "right", "/dev/nvme8")
    assert (done.returncode, done.stderr) == (
        18,
        WRONG.replace("NOT_AUTHORIZED", "AUTHORITY_LOCKED_OUT").replace("= 1", "= 18"),
    )
    host.power_cycle()
    sedutil.ok("--listLockingRanges", "right", "/dev/nvme8")


def bands(text: str) -> dict[str, list[str]]:
    """The lines of each band, without the names before the colons."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("Band["):
            found[line.strip()] = []
        elif line.startswith(" "):
            found[list(found)[-1]].append(line.partition(":")[2].strip() or line.strip())
    return found


def test_an_enterprise_drive_over_its_life(host: Emulator, sedutil: Sedutil) -> None:
    drive = host.plug(SAS, "sdy")
    assert sedutil.ok("--listLockingRange", "0", "", "/dev/sdy"), "the MSID still opens it"
    assert "BandMaster1 password set" in sedutil.ok("--initialSetup", "passw0rd", "/dev/sdy")
    assert sedutil.run("--listLockingRange", "0", "", "/dev/sdy").returncode == 135
    shown = bands(sedutil.ok("--listLockingRanges", "passw0rd", "/dev/sdy"))
    assert shown["Band[0]:"] == ["Global_Range", "Locking", "0", "0", "1", "1", "0", "0", "1"]
    assert shown["Band[2]:"] == ["could not establish session for row[2]"]
    sedutil.ok("--setLockingRange", "0", "LK", "passw0rd", "/dev/sdy")
    assert drive.locked()
    assert sedutil.run("--setLockingRange", "0", "RO", "passw0rd", "/dev/sdy").returncode == 131
    sedutil.ok("--setLockingRange", "0", "RW", "passw0rd", "/dev/sdy")
    assert drive.readable()
    host.power_cycle()
    assert not drive.readable()
    sedutil.ok("--setPassword", "passw0rd", "BandMaster0", "other", "/dev/sdy")
    sedutil.ok("--setLockingRange", "0", "RW", "other", "/dev/sdy")
    key = drive.keys[0]
    assert sedutil.ok("--eraseLockingRange", "0", "passw0rd", "/dev/sdy") == "LockingRange0 erased\n"
    assert drive.keys[0] != key
    sedutil.ok("--PSIDrevert", SAS.psid.decode(), "/dev/sdy")
    assert not drive.owned()


def test_ranges_keys_and_the_shadow(host: Emulator, sedutil: Sedutil) -> None:
    drive = host.plug(NVME, "nvme8")
    sedutil.ok("--initialSetup", "passw0rd", "/dev/nvme8")
    key = drive.keys[1]
    sedutil.ok("--setupLockingRange", "1", "0", "2048", "passw0rd", "/dev/nvme8")
    assert (drive.ranges[1].start, drive.ranges[1].length) == (0, 2048)
    assert drive.keys[1] != key
    # not aligned, and across the range that is there
    assert sedutil.run("--setupLockingRange", "2", "4096", "1001", "passw0rd", "/dev/nvme8").returncode == 12
    assert sedutil.run("--setupLockingRange", "2", "1024", "4096", "passw0rd", "/dev/nvme8").returncode == 12
    assert drive.ranges[2].length == 0
    sedutil.ok("--enableLockingRange", "1", "passw0rd", "/dev/nvme8")
    assert drive.readable()
    host.power_cycle()
    assert not drive.readable()
    listed = sedutil.ok("--listLockingRanges", "passw0rd", "/dev/nvme8")
    assert "LR1 Begin 0 for 2048\n            RLKEna = Y  WLKEna = Y  RLocked = Y  WLocked = Y \n" in listed
    sedutil.ok("--setLockingRange", "1", "RW", "passw0rd", "/dev/nvme8")
    assert not drive.readable(), "the shadow is in the way"
    sedutil.ok("--setMBRDone", "on", "passw0rd", "/dev/nvme8")
    assert drive.readable()
    keys = drive.keys
    sedutil.ok("--rekeyLockingRange", "1", "passw0rd", "/dev/nvme8")
    assert [old == new for old, new in zip(keys, drive.keys)].count(False) == 1


@pytest.mark.parametrize("how,code", [("refuse", 15), ("empty", 136), ("vanish", None), ("garble", None)])
def test_faults_reach_the_program(host: Emulator, sedutil: Sedutil, how: str, code: int | None) -> None:
    drive = host.plug(NVME, "nvme8")
    drive.faults.inject("Set", how)
    done = sedutil.run("--initialSetup", "passw0rd", "/dev/nvme8")
    assert done.returncode == code if code is not None else done.returncode != 0
    assert not drive.owned()
    assert not drive.faults.pending()
