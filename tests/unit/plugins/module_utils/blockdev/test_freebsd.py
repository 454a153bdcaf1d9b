# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from GEOM's description of its graph."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev import freebsd
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import (
    BlockDevice,
    DeviceTable,
    Mount,
    number_of,
)
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, said

DATA = "aaaaaaaa-0000-11e0-8ff8-000000000002"


class Recorded:
    """Programs whose output is known."""

    def __init__(self, **outputs: str) -> None:
        self.outputs = outputs

    def has(self, program: str) -> bool:
        return program in self.outputs

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        return Result(command.argv, 0, self.outputs[command.argv[0]], "")


@pytest.fixture(scope="module")
def table() -> DeviceTable:
    # The kernel ends the text with a NUL.
    return freebsd.read(Recorded(sysctl=(Path(__file__).parent / "confxml.xml").read_text(encoding="utf-8") + "\0"))


def device(table: DeviceTable, name: str) -> BlockDevice:
    found = table.named(name)
    if found is None:
        raise LookupError(name)
    return found


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (("ada0", "/dev/ada0", "diskid/DISK-WD-WCC4E0000001"), "/dev/ada0"),
        (("ada0p2", f"gptid/{DATA}", f"/dev/gptid/{DATA}", f"/dev/disk/by-partuuid/{DATA}"), "/dev/ada0p2"),
        (("ada1p1", "gpt/bay2", "/dev/gptid/bbbbbbbb-0000-11e0-8ff8-000000000001"), "/dev/ada1p1"),
        (("ada1", "/dev/diskid/DISK-WD-WCC4E0000002"), "/dev/ada1"),
        (("ada2", "label/spare"), "/dev/ada2"),
        (("multipath/disk1", "da0", "/dev/da1"), "/dev/multipath/disk1"),
        ((f"gptid/{DATA}.eli", f"/dev/gptid/{DATA}.eli"), f"/dev/gptid/{DATA}.eli"),
        (("mirror/swap0",), "/dev/mirror/swap0"),
    ],
)
def test_names_of_one_thing(table: DeviceTable, names: tuple[str, ...], path: str) -> None:
    assert {table.identity(name) for name in names} == {path}


def test_a_partition_and_its_disk(table: DeviceTable) -> None:
    part = device(table, "ada0p2")
    assert (part.kind, part.parent, part.partition, part.size) == ("partition", "ada0", 2, 3998639460352)
    assert (part.serial, part.wwn) == ("WD-WCC4E0000001", "50014ee20c000001")
    assert table.same_disk("diskid/DISK-WD-WCC4E0000001", f"gptid/{DATA}")
    assert not table.same_disk("ada0", f"gptid/{DATA}.eli")


def test_names_that_can_not_be_opened_are_told(table: DeviceTable) -> None:
    assert device(table, "ada0p2").hidden == ()
    # Open by their own names, or names of a sort that kern.geom.label makes none of.
    assert device(table, "ada1p1").hidden == ("/dev/gptid/bbbbbbbb-0000-11e0-8ff8-000000000001", "/dev/gpt/bay2")
    assert (device(table, "ada0").hidden, device(table, "ada1").hidden) == (("/dev/diskid/DISK-WD-WCC4E0000001",), ())


def test_kinds(table: DeviceTable) -> None:
    kinds = {found.name: found.kind for found in table.devices if found.kind not in ("disk", "partition")}
    assert kinds == {
        f"gptid/{DATA}.eli": "crypt",
        "multipath/disk1": "multipath",
        "mirror/swap0": "md",
        "md0": "loop",
    }
    assert device(table, "md0").backing == "/mnt/disk.img"


def test_holders_are_what_is_built_on_top_through_any_label(table: DeviceTable) -> None:
    assert device(table, "ada0p2").holders == (f"gptid/{DATA}.eli",)
    assert device(table, "ada0p1").holders == ("mirror/swap0",)
    assert device(table, f"gptid/{DATA}.eli").holders == ("ZFS::VDEV zfs::vdev",)
    assert device(table, "ada0").holders == ()
    assert device(table, "ada1").holders == ()


def test_what_is_no_xml_is_told() -> None:
    with pytest.raises(StorageError, match="not well-formed"):
        freebsd.parse("<mesh><class>")


def test_mounts_and_swaps() -> None:
    runner = Recorded(
        mount="/dev/ada1p1\t\t/mnt/my\\040disk\tufs rw\t1 1\ndevfs\t\t/dev\tdevfs rw 0 0\n",
        swapctl="Device:       1024-blocks     Used:\n/dev/mirror/swap0.eli    2097148         0\n",
    )
    assert freebsd.mounts(runner) == (Mount("", "/dev/ada1p1", "/mnt/my disk"), Mount("", "devfs", "/dev"))
    assert freebsd.swaps(runner) == ("/dev/mirror/swap0.eli",)


def test_imported_pools() -> None:
    assert freebsd.FreeBSD().imported_pools(Recorded(zpool="tank\t77\nusb disk\t5\n")) == {
        "tank": "77",
        "usb disk": "5",
    }
    assert freebsd.FreeBSD().imported_pools(Recorded()) == {}


@pytest.mark.parametrize(
    ("text", "words"), [("ufs\n", "UFS filesystem"), ("msdosfs\n", "FAT filesystem"), ("exfat\n", "exfat filesystem")]
)
def test_filesystems(text: str, words: str) -> None:
    assert [found.what for found in freebsd.filesystem(text)] == [words]


def test_no_filesystem() -> None:
    assert freebsd.filesystem("") == ()


def partitioned() -> RecordedRunner:
    """A host whose every disk has a partition table."""
    return RecordedRunner(default=said)


@pytest.mark.parametrize(("path", "words"), [("/dev/nasops-none", "was not opened"), ("/dev/null", "not the device")])
def test_a_partition_table_stays_if_the_disk_is_not_the_one_that_was_examined(path: str, words: str) -> None:
    runner = partitioned()
    with pytest.raises(Refused, match=f"{words}.* Nothing was written to it"):
        freebsd.FreeBSD().erase(runner, path, "999:9", (), whole=True)
    assert runner.argvs == [("gpart", "show", path[len("/dev/") :])]


def test_a_partition_table_is_destroyed_before_both_ends_are_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    runner = partitioned()
    freebsd.FreeBSD().erase(runner, "/dev/null", number_of(os.stat("/dev/null")), (), whole=True)
    assert runner.argvs == [("gpart", "show", "null"), ("gpart", "destroy", "-F", "null")]
    assert len(synced) == 1


def test_a_disk_that_is_exchanged_after_its_partition_table_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = ["0:1", "0:2"]
    monkeypatch.setattr(freebsd, "number_of", lambda status: numbers.pop(0))
    with pytest.raises(Refused, match="Its partition table was destroyed; nothing else was written"):
        freebsd.FreeBSD().erase(partitioned(), "/dev/null", "0:1", (), whole=True)
