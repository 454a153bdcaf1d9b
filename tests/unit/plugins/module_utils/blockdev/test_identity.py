# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names are the same disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev import linux
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import (
    BlockDevice,
    DeviceTable,
    strip_partition,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.blockdev.host_tree import Tree

PATHS = st.text(alphabet="/abdmnpstv0159-._:", min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("partition", "disk"),
    [
        ("/dev/sda1", "/dev/sda"),
        ("sdab12", "/dev/sdab"),
        ("/dev/vdb3", "/dev/vdb"),
        ("/dev/xvda1", "/dev/xvda"),
        ("nvme0n1p1", "/dev/nvme0n1"),
        ("/dev/nvme10n2p128", "/dev/nvme10n2"),
        ("/dev/mmcblk0p2", "/dev/mmcblk0"),
        ("/dev/md127p1", "/dev/md127"),
        ("/dev/loop3p1", "/dev/loop3"),
        ("/dev/disk/by-id/ata-FOO-part1", "/dev/disk/by-id/ata-FOO"),
        ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1-part12", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"),
        ("disk/by-vdev/A1-part1", "/dev/disk/by-vdev/A1"),
        ("/dev/mapper/mpatha-part1", "/dev/mapper/mpatha"),
        ("/dev/mapper/mpatha1", "/dev/mapper/mpatha"),
        ("/dev/mapper/mpath3p1", "/dev/mapper/mpath3"),
        ("ada0p2", "/dev/ada0"),
        ("/dev/da10s1a", "/dev/da10"),
        ("diskid/DISK-WD-1p2", "/dev/diskid/DISK-WD-1"),
        ("//dev//sda1/", "/dev/sda"),
    ],
)
def test_a_partition_loses_its_number(partition: str, disk: str) -> None:
    assert strip_partition(partition) == disk


@pytest.mark.parametrize(
    "path",
    [
        "/dev/sda",
        "/dev/nvme0n1",
        "/dev/md127",
        "/dev/dm-3",
        "/dev/loop0",
        "/dev/ada0",
        "/dev/da10",
        "/dev/zd16",
        "/dev/disk/by-id/ata-FOO1",
        "/dev/disk/by-id/ata-FOOp1",
        "/dev/disk/by-id/ata-FOO-part",
        "/dev/disk/by-partuuid/0001-part1",
        "/dev/disk/by-partlabel/data1",
        "/dev/gpt/disk1",
        "/dev/gptid/1111p1",
        "/dev/mapper/vg-lv1",
        "/dev/mapper/mpatha",
        "/dev/mapper/mpath3",
        "/srv/sda1",
        "/srv/disk/by-id/x-part1",
    ],
)
def test_a_name_that_ends_in_a_digit_is_not_cut(path: str) -> None:
    assert strip_partition(path) is None


@given(PATHS)
def test_an_identity_is_its_own_identity(path: str) -> None:
    table = DeviceTable()
    identity = table.identity(path)
    assert identity.startswith("/")
    assert table.identity(identity) == identity
    assert table.same_disk(path, path)
    assert table.whole(path) == table.whole(identity)
    assert table.same_disk(table.whole(path), path)


NAMES_OF_ONE_DISK = (
    "/dev/sda",
    "sda",
    "/dev/disk/by-id/ata-ACME_VK0A1B2C",
    "disk/by-id/ata-ACME_VK0A1B2C",
    "ata-ACME_VK0A1B2C",
    "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4",
    "/dev/disk/by-path/pci-0000:00:1f.2-ata-1",
    "/dev/disk/by-vdev/A1",
    "A1",
    "/dev/bay/first",
    "/dev//./disk/../sda",
)
NAMES_OF_ITS_FIRST_PARTITION = (
    "/dev/sda1",
    "sda1",
    "/dev/disk/by-id/ata-ACME_VK0A1B2C-part1",
    "/dev/disk/by-partuuid/11111111-2222-3333-4444-555555555555",
    "/dev/disk/by-partlabel/zfs-one",
    "/dev/gptid/11111111-2222-3333-4444-555555555555",
    "gptid/11111111-2222-3333-4444-555555555555",
    "A1-part1",
)
NAMES_OF_A_MULTIPATH_DISK = (
    "/dev/mapper/mpatha",
    "mpatha",
    "/dev/dm-0",
    "/dev/disk/by-id/dm-uuid-mpath-3600a0b80",
    "/dev/sdb",
    "sdc",
)


@pytest.mark.parametrize("names", [NAMES_OF_ONE_DISK, NAMES_OF_ITS_FIRST_PARTITION, NAMES_OF_A_MULTIPATH_DISK])
def test_all_names_of_one_thing_have_one_identity(nas: Tree, names: tuple[str, ...]) -> None:
    table = linux.read(nas.roots)
    assert len({table.identity(name) for name in names}) == 1


def test_different_things_have_different_identities(nas: Tree) -> None:
    table = linux.read(nas.roots)
    things = [names[0] for names in (NAMES_OF_ONE_DISK, NAMES_OF_ITS_FIRST_PARTITION, NAMES_OF_A_MULTIPATH_DISK)]
    things += ["sda9", "nvme0n1", "nvme0n1p1", "nvme0n1p2", "vda", "md127", "loop0", "zd0", "/srv/a.img", "sdz"]
    assert len({table.identity(thing) for thing in things}) == len(things)


@pytest.mark.parametrize("actual", NAMES_OF_ITS_FIRST_PARTITION)
def test_zfs_on_a_partition_of_a_whole_disk_is_on_that_disk(nas: Tree, actual: str) -> None:
    table = linux.read(nas.roots)
    for wanted in NAMES_OF_ONE_DISK:
        assert table.same_disk(wanted, actual), wanted
        assert not table.same_disk(wanted=actual, actual=wanted), wanted
        assert table.overlap(actual, wanted), wanted


@pytest.mark.parametrize("actual", ["/dev/mapper/mpatha-part1", "/dev/dm-1", "/dev/sdb1", "sdc1", "/dev/sdb"])
def test_a_pool_on_a_path_is_on_the_multipath_disk(nas: Tree, actual: str) -> None:
    table = linux.read(nas.roots)
    for wanted in NAMES_OF_A_MULTIPATH_DISK:
        assert table.same_disk(wanted, actual)
    assert table.identity("sdb1") == table.identity("/dev/mapper/mpatha-part1") == "/dev/dm-1"


def test_a_path_whose_map_has_no_partitions_still_belongs_to_the_map() -> None:
    table = DeviceTable(
        (
            BlockDevice("dm-0", "/dev/dm-0", kind="multipath"),
            BlockDevice("sda", "/dev/sda", parent="dm-0"),
            BlockDevice("sda1", "/dev/sda1", kind="partition", parent="sda", partition=1),
        )
    )
    assert table.whole("/dev/sda1") == "/dev/dm-0"
    assert table.same_disk("sda", "sda1")


@pytest.mark.parametrize(
    ("wanted", "actual"),
    [
        ("sda", "sdb"),
        ("sda9", "sda1"),
        ("sda", "nvme0n1p1"),
        ("md127", "vda"),
        ("/dev/mapper/vg0-home", "nvme0n1"),
        ("/srv/x", "/srv/x1"),
        ("/dev/disk/by-id/ata-GONE", "/dev/disk/by-id/ata-GONE2-part1"),
        ("/dev/disk/by-id/ata-GONE", "/dev/disk/by-id/ata-GONE2"),
        ("/dev/sdy", "/dev/sdyy1"),
    ],
)
def test_other_disks_are_not_taken_for_the_same(nas: Tree, wanted: str, actual: str) -> None:
    table = linux.read(nas.roots)
    assert not table.same_disk(wanted, actual)
    assert not table.overlap(wanted, actual)


@pytest.mark.parametrize(
    ("wanted", "actual"),
    [
        # Both are gone.
        ("/dev/disk/by-id/ata-GONE", "/dev/disk/by-id/ata-GONE-part1"),
        ("/dev/nvme7n1", "nvme7n1p1"),
        ("/dev/sdz", "/dev/sdz1"),
        ("/srv/./x", "/srv//x/"),
        # The disk is there, its partition is not (any more).
        ("/dev/disk/by-id/nvme-FAST_S4EVNX0R", "/dev/disk/by-id/nvme-FAST_S4EVNX0R-part7"),
        ("vda", "/dev/disk/by-id/virtio-TANK-01-part1"),
    ],
)
def test_a_missing_device_is_known_by_its_name(nas: Tree, wanted: str, actual: str) -> None:
    assert linux.read(nas.roots).same_disk(wanted, actual)


def test_an_alias_never_hides_a_device() -> None:
    table = DeviceTable(
        (BlockDevice("sda", "/dev/sda", aliases=("/dev/sdb", "/dev/x")), BlockDevice("sdb", "/dev/sdb"))
    )
    assert table.identity("/dev/sdb") == "/dev/sdb"
    assert table.identity("x") == "/dev/sda"


def test_an_empty_path_leads_nowhere(nas: Tree) -> None:
    assert linux.read(nas.roots).find("") is None
