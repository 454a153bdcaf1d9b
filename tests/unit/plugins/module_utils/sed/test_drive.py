# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drives a host has, and which one is meant."""

from __future__ import annotations

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable
from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.sed.drive import drives, find

WWN = "naa.5000c500aaaaaaaa"
TABLE = DeviceTable(
    (
        BlockDevice("sdb", "/dev/sdb", ("/dev/disk/by-id/ata-X_SATA1",), serial="SATA1", wwn="naa.50025388a0000001"),
        BlockDevice("sdb1", "/dev/sdb1", kind="partition", parent="sdb", partition=1, serial="SATA1"),
        # Two paths to one drive.
        BlockDevice("sda", "/dev/sda", parent="dm-0", serial="SAS1", wwn=WWN),
        BlockDevice("sdaa", "/dev/sdaa", parent="dm-0", serial="SAS1", wwn=WWN),
        BlockDevice("dm-0", "/dev/dm-0", ("/dev/mapper/mpatha",), kind="multipath", serial="SAS1", wwn=WWN),
        # Two namespaces of one drive.
        BlockDevice("nvme0n1", "/dev/nvme0n1", serial="NVME1", wwn="eui.01"),
        BlockDevice("nvme0n2", "/dev/nvme0n2", serial="NVME1", wwn="eui.02"),
        # The same serial number twice, as of USB bridges; and what is no drive.
        BlockDevice("sdc", "/dev/sdc", serial="USB", wwn="naa.01"),
        BlockDevice("sdd", "/dev/sdd", serial="USB", wwn="naa.02"),
        BlockDevice("sr0", "/dev/sr0", kind="other"),
        BlockDevice("vda", "/dev/vda", serial="virtual"),
    )
)
KNOWN = drives(TABLE)


def test_paths_and_namespaces_are_one_drive() -> None:
    shown = [(one.name, one.members) for one in KNOWN]
    assert shown == [
        ("sda", ("sda", "sdaa")),
        ("sdb", ("sdb",)),
        ("sdc", ("sdc",)),
        ("sdd", ("sdd",)),
        ("nvme0n1", ("nvme0n1", "nvme0n2")),
    ]


@pytest.mark.parametrize(
    "address,name",
    [
        ("SATA1", "sdb"),
        ("/dev/disk/by-id/ata-X_SATA1", "sdb"),
        ("/dev/sdb1", "sdb"),
        ("sdaa", "sda"),
        ("/dev/mapper/mpatha", "sda"),
        (WWN, "sda"),
        ("wwn-0x5000c500aaaaaaaa", "sda"),
        ("0x5000C500AAAAAAAA", "sda"),
        ("/dev/disk/by-id/wwn-0x5000c500aaaaaaaa", "sda"),
        ("nvme0", "nvme0n1"),
        ("/dev/nvme0n2", "nvme0n1"),
    ],
)
def test_every_name_of_a_drive(address: str, name: str) -> None:
    assert find(TABLE, KNOWN, address).name == name


def test_names_that_fit_none_or_two() -> None:
    with pytest.raises(BadInput, match="'USB' fits 2 drives: /dev/sdc, /dev/sdd"):
        find(TABLE, KNOWN, "USB")
    for address in ("sata1", "/dev/vda", "sdz", "dm-0x", ""):
        with pytest.raises(BadInput, match="There is no drive"):
            find(TABLE, KNOWN, address)


def test_two_disks_with_one_wwn_are_two_drives() -> None:
    table = DeviceTable(
        (
            BlockDevice("sda", "/dev/sda", ("/dev/disk/by-path/pci-1-ata-1",), serial="A", wwn=WWN),
            BlockDevice("sdb", "/dev/sdb", ("/dev/disk/by-path/pci-1-ata-2",), serial="B", wwn=WWN),
            # No WWN at all, by its look; and no serial number to tell them apart.
            BlockDevice("sdc", "/dev/sdc", wwn="naa.0000000000000000"),
            BlockDevice("sdd", "/dev/sdd", wwn="naa.0000000000000000"),
            # A WWN that is shared, and no serial number either: not two paths to one drive.
            BlockDevice("sde", "/dev/sde", wwn="naa.5000c500bbbbbbbb"),
            BlockDevice("sdf", "/dev/sdf", wwn="naa.5000c500bbbbbbbb"),
        )
    )
    known = drives(table)
    assert [one.members for one in known] == [(f"sd{letter}",) for letter in "abcdef"]
    assert find(table, known, "B").name == "sdb"
    assert find(table, known, "/dev/disk/by-path/pci-1-ata-2").name == "sdb"
    with pytest.raises(BadInput, match=f"'{WWN}' fits 2 drives: /dev/sda, /dev/sdb"):
        find(table, known, WWN)
    with pytest.raises(BadInput, match="There is no drive ''"):
        find(table, known, "")


def test_two_controllers_with_one_serial_number_are_two_drives() -> None:
    table = DeviceTable(
        (
            BlockDevice("nvme0n1", "/dev/nvme0n1", serial="SAME", wwn="eui.01"),
            BlockDevice("nvme0n2", "/dev/nvme0n2", serial="SAME", wwn="eui.02"),
            BlockDevice("nvme1n1", "/dev/nvme1n1", serial="SAME", wwn="eui.03"),
        )
    )
    known = drives(table)
    assert [one.members for one in known] == [("nvme0n1", "nvme0n2"), ("nvme1n1",)]
    assert find(table, known, "/dev/nvme0n2").name == "nvme0n1"
    assert find(table, known, "eui.03").name == "nvme1n1"
    with pytest.raises(BadInput, match="'SAME' fits 2 drives: /dev/nvme0n1, /dev/nvme1n1"):
        find(table, known, "SAME")
