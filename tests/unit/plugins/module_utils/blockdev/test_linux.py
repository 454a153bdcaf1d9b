# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from a made /sys, /dev and /proc."""

from __future__ import annotations

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev import linux
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable, Mount
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.blockdev.host_tree import Tree


def device(table: DeviceTable, name: str) -> BlockDevice:
    found = table.named(name)
    if found is None:
        raise LookupError(name)
    return found


def test_a_scsi_disk_with_every_name_udev_gives_it(nas: Tree) -> None:
    assert device(linux.read(nas.roots), "sda") == BlockDevice(
        name="sda",
        path="/dev/sda",
        aliases=(
            "/dev/bay/first",
            "/dev/disk/by-id/ata-ACME_VK0A1B2C",
            "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4",
            "/dev/disk/by-path/pci-0000:00:1f.2-ata-1",
            "/dev/disk/by-vdev/A1",
        ),
        size=2048000 * 512,
        serial="VK0A1B2C",
        wwn="naa.5000c500a1b2c3d4",
        number="8:0",
    )


def test_a_partition_knows_its_disk_and_that_disks_serial_number(nas: Tree) -> None:
    part = device(linux.read(nas.roots), "sda9")
    assert (part.kind, part.parent, part.partition, part.size) == ("partition", "sda", 9, 16384 * 512)
    assert (part.serial, part.wwn) == ("VK0A1B2C", "naa.5000c500a1b2c3d4")


def test_kinds(nas: Tree) -> None:
    kinds = {found.name: found.kind for found in linux.read(nas.roots).devices}
    assert kinds == {
        "sda": "disk",
        "sda1": "partition",
        "sda9": "partition",
        "sdb": "disk",
        "sdb1": "partition",
        "sdc": "disk",
        "sdc1": "partition",
        "dm-0": "multipath",
        "dm-1": "partition",
        "dm-2": "lvm",
        "dm-3": "crypt",
        "nvme0n1": "disk",
        "nvme0n1p1": "partition",
        "nvme0n1p2": "partition",
        "vda": "disk",
        "md127": "md",
        "loop0": "loop",
        "loop1": "loop",
        "zd0": "other",
        "sr0": "other",
        "cciss/c0d0": "disk",
        "cciss/c0d0p1": "partition",
    }


def test_a_multipath_map_owns_its_paths_and_has_their_serial_number(nas: Tree) -> None:
    table = linux.read(nas.roots)
    assert [device(table, name).parent for name in ("sdb", "sdc", "dm-1")] == ["dm-0", "dm-0", "dm-0"]
    assert (device(table, "dm-0").serial, device(table, "dm-0").wwn) == ("LUN7", "naa.600a0b80")
    assert device(table, "dm-1").partition == 1
    assert [part.name for part in table.partitions(device(table, "sdb"))] == ["dm-1"]


def test_serial_numbers_of_nvme_and_virtio(nas: Tree) -> None:
    table = linux.read(nas.roots)
    assert (device(table, "nvme0n1").serial, device(table, "nvme0n1").wwn) == ("S4EVNX0R", "eui.0025385b")
    assert device(table, "vda").serial == "TANK-01"


def test_holders_backing_files_and_names_with_a_slash(nas: Tree) -> None:
    table = linux.read(nas.roots)
    assert device(table, "nvme0n1p2").holders == ("dm-2",)
    assert device(table, "loop0").backing == "/srv/img 1.raw"
    assert device(table, "cciss/c0d0p1").parent == "cciss/c0d0"
    assert device(table, "cciss/c0d0").path == "/dev/cciss/c0d0"
    assert device(table, "dm-3").aliases == ("/dev/mapper/crypt home",)
    assert device(table, "zd0").aliases == ("/dev/zvol/tank/vol",)


def test_partitions_are_in_order(nas: Tree) -> None:
    table = linux.read(nas.roots)
    assert [part.partition for part in table.partitions(device(table, "nvme0n1"))] == [1, 2]


def test_a_read_only_disk(tree: Tree) -> None:
    tree.write(tree.device("sdq", "65:0", 8) + "/ro", "1\n")
    assert device(linux.read(tree.roots), "sdq").read_only


def test_a_serial_page_that_is_cut_short_gives_no_serial_number(tree: Tree) -> None:
    tree.device("sdq", "65:0", 8, device__vpd_pg80=b"\x00\x80\x00")
    assert device(linux.read(tree.roots), "sdq").serial == ""


def test_a_host_without_block_devices(tree: Tree) -> None:
    assert linux.read(tree.roots) == DeviceTable()
    assert linux.read(linux.Roots("/nonexistent/sys", "/nonexistent/dev")) == DeviceTable()


def test_mounts_with_blanks_and_optional_fields(tree: Tree) -> None:
    tree.write(
        "proc/self/mountinfo",
        "36 35 8:1 / /srv/my\\040files rw,noatime shared:1 master:2 - ext4 /dev/sda1 rw\n"
        "37 35 0:40 / /tank rw - zfs tank/my\\040set rw\n"
        "38 35 8:2 / /srv/a\fb\u2028c rw - ext4 /dev/sda2 rw\n"
        "a broken line\n",
    )
    assert linux.mounts(tree.roots) == (
        Mount("8:1", "/dev/sda1", "/srv/my files"),
        Mount("0:40", "tank/my set", "/tank"),
        Mount("8:2", "/dev/sda2", "/srv/a\fb\u2028c"),
    )


def test_swaps(tree: Tree) -> None:
    assert linux.swaps(tree.roots) == ()
    tree.write(
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/dm-2   partition 1 0 -2\n/srv/swap\\040file file 1 0 -3\n",
    )
    assert linux.swaps(tree.roots) == ("/dev/dm-2", "/srv/swap file")


def test_imported_pools_are_those_with_a_state(tree: Tree) -> None:
    assert linux.imported_pools(tree.roots) == {}
    tree.write("proc/spl/kstat/zfs/arcstats", "x")
    tree.write("proc/spl/kstat/zfs/fm", "x")
    tree.write("proc/spl/kstat/zfs/tank/state", "ONLINE\n")
    tree.write("proc/spl/kstat/zfs/tank/guid", "11410879103924611796\n")
    tree.write("proc/spl/kstat/zfs/old/state", "SUSPENDED\n")
    assert linux.imported_pools(tree.roots) == {"tank": "11410879103924611796", "old": ""}
