# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts made of files, and runners that answer from a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.blockdev.host_tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "host")


@pytest.fixture
def nas(tree: Tree) -> Tree:
    """SCSI, NVMe and virtio disks, a multipath disk with ZFS's partitions, LVM, md, LUKS, a loop device and a zvol."""
    page = b"\x00\x80\x00\x14" + b"     VK0A1B2C       "
    tree.device("sda", "8:0", 2048000, device__vpd_pg80=page, device__wwid="naa.5000c500a1b2c3d4\n")
    tree.partition("sda", "sda1", "8:1", 2029568, 1)
    tree.partition("sda", "sda9", "8:9", 16384, 9)
    for name, number in (("sdb", "8:16"), ("sdc", "8:32")):
        tree.device(name, number, 4096000, device__vpd_pg80=b"\x00\x80\x00\x04LUN7", device__wwid="naa.600a0b80\n")
        tree.partition(name, f"{name}1", f"{number[:-1]}{int(number[-1]) + 1}", 4079616, 1)
    tree.device("dm-0", "253:0", 4096000, dm__name="mpatha\n", dm__uuid="mpath-3600a0b80\n")
    tree.stack("dm-0", "sdb", "sdc")
    tree.device("dm-1", "253:1", 4079616, dm__name="mpatha-part1\n", dm__uuid="part1-mpath-3600a0b80\n")
    tree.stack("dm-1", "dm-0")
    tree.device("nvme0n1", "259:0", 8192000, device__serial="S4EVNX0R  \n", wwid="eui.0025385b\n")
    tree.partition("nvme0n1", "nvme0n1p1", "259:1", 2048, 1)
    tree.partition("nvme0n1", "nvme0n1p2", "259:2", 8000000, 2)
    tree.device("nvme0c0n1", "259:9", 8192000, hidden="1\n")
    tree.device("vda", "254:0", 20480, serial="TANK-01\n")
    tree.device("dm-2", "253:2", 8000000, dm__name="vg0-home\n", dm__uuid="LVM-abcdef\n")
    tree.stack("dm-2", "nvme0n1p2")
    tree.device("md127", "9:127", 20000, md__level="raid1\n")
    tree.stack("md127", "vda")
    tree.device("dm-3", "253:3", 19000, dm__name="crypt home\n", dm__uuid="CRYPT-LUKS2-0-x\n")
    tree.stack("dm-3", "md127")
    tree.device("loop0", "7:0", 2048, loop__backing_file="/srv/img 1.raw\n")
    tree.device("loop1", "7:1", 0)
    tree.device("zd0", "230:0", 2048)
    tree.device("sr0", "11:0", 0)
    tree.device("cciss/c0d0", "104:0", 4096)
    tree.partition("cciss/c0d0", "cciss/c0d0p1", "104:1", 2048, 1)
    for path, node in (
        ("disk/by-id/ata-ACME_VK0A1B2C", "sda"),
        ("disk/by-id/ata-ACME_VK0A1B2C-part1", "sda1"),
        ("disk/by-id/wwn-0x5000c500a1b2c3d4", "sda"),
        ("disk/by-path/pci-0000:00:1f.2-ata-1", "sda"),
        ("disk/by-partuuid/11111111-2222-3333-4444-555555555555", "sda1"),
        ("disk/by-partlabel/zfs-one", "sda1"),
        ("disk/by-vdev/A1", "sda"),
        ("disk/by-vdev/A1-part1", "sda1"),
        ("disk/by-id/dm-uuid-mpath-3600a0b80", "dm-0"),
        ("disk/by-id/nvme-FAST_S4EVNX0R", "nvme0n1"),
        ("disk/by-id/virtio-TANK-01", "vda"),
    ):
        tree.link(path, f"../../{node}")
    tree.link("mapper/mpatha", "../dm-0")
    tree.link("mapper/mpatha-part1", "../dm-1")
    tree.link("vg0/home", "../dm-2")
    tree.link("zvol/tank/vol", "../../zd0")
    tree.link("bay/first", "../disk/by-vdev/A1")
    tree.link("dangling", "nowhere")
    return tree
