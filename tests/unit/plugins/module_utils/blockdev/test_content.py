# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk holds and who uses it."""

from __future__ import annotations

import errno
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.content import (
    DiskContent,
    merge,
    probe,
    probe_all,
    uses_of,
)
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, Mount
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.signatures import Signature
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.blockdev.fake_host import FakeHost, NoRunner
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.blockdev.test_signatures import (
    config,
    zfs_disk,
)

GPT = Signature("gpt", "GPT partition table")
EXT4 = Signature("ext4", 'ext4 filesystem "home"')


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.add("sda", serial="S1", wwn="naa.1", number="8:0")
    host.add("sda1", 2 << 20, kind="partition", parent="sda", partition=1, number="8:1")
    host.add("sda2", 1 << 20, kind="partition", parent="sda", partition=2, number="8:2")
    host.add("sdb", number="8:16")
    return host


def look(host: FakeHost, name: str) -> DiskContent:
    runner = NoRunner()
    path = name if name.startswith("/") else host.path(name)
    return probe(runner, host.read_table(runner), path, host)


def uses(content: DiskContent) -> list[tuple[str, str]]:
    return [(finding.what, os.path.basename(finding.where)) for finding in content.used]


def test_a_blank_disk(host: FakeHost) -> None:
    host.devices = [device for device in host.devices if device.kind != "partition"]
    content = look(host, "sda")
    assert content.blank and content.readable and content.exists
    assert (content.kind, content.size, content.serial, content.wwn) == ("disk", 4 << 20, "S1", "naa.1")
    assert (content.access, content.problem, content.words()) == ("write", "", "")


def test_partitions_are_looked_into(host: FakeHost) -> None:
    host.recognised = {host.path("sda"): (GPT,), host.path("sda2"): (EXT4,)}
    content = look(host, "sda")
    assert not content.blank
    assert content.partitions == (host.path("sda1"), host.path("sda2"))
    assert [(finding.type, finding.where) for finding in content.dead] == [
        ("gpt", host.path("sda")),
        ("ext4", host.path("sda2")),
    ]
    assert content.words() == f'GPT partition table, ext4 filesystem "home" on {host.path("sda2")}'


def test_geli_and_zfs_are_found_on_a_partition(host: FakeHost) -> None:
    with open(host.path("sda1"), "r+b") as file:
        file.seek((2 << 20) - 4096)
        file.write(b"GEOM::ELI\0\0\0\0\0\0\0")
    host.recognised = {host.path("sda2"): (Signature("zfs_member", "remains of a ZFS label"),)}
    geli, zfs = look(host, "sda").dead
    assert (geli.what, geli.where, geli.spans) == ("GELI metadata", host.path("sda1"), (((2 << 20) - 4096, 4096),))
    # Uberblocks alone: where to write comes from the size of the partition.
    assert [offset for offset, _length in zfs.spans] == [0, 1 << 18, 2 << 18, 3 << 18]


def test_a_partition_is_looked_at_alone(host: FakeHost) -> None:
    host.recognised = {host.path("sda"): (GPT,), host.path("sda2"): (EXT4,)}
    assert look(host, "sda1").blank
    assert [finding.what for finding in look(host, "sda2").findings] == [EXT4.what]


def test_mounts_by_number_and_by_name(host: FakeHost) -> None:
    host.mounted = [
        Mount("8:1", "/dev/root", "/"),
        Mount("0:44", host.path("sda2"), "/srv"),
        Mount("0:45", "tank/set", "/tank"),
    ]
    assert uses(look(host, "sda")) == [("mounted on /", "sda1"), ("mounted on /srv", "sda2")]
    assert uses(look(host, "sda2")) == [("mounted on /srv", "sda2")]
    assert uses(look(host, "sdb")) == []


def test_swap(host: FakeHost) -> None:
    host.swapping = [host.path("sda2"), "/srv/swapfile"]
    assert uses(look(host, "sda")) == [("active swap", "sda2")]


def test_holders_are_named_with_what_they_are(host: FakeHost) -> None:
    host.devices[3] = BlockDevice("sdb", host.path("sdb"), size=4 << 20, holders=("dm-2", "md127", "sdb.eli"))
    host.devices.append(BlockDevice("dm-2", "/dev/dm-2", aliases=("/dev/mapper/vg0-home",), kind="lvm"))
    host.devices.append(BlockDevice("md127", "/dev/md127", kind="md"))
    assert [what for what, _where in uses(look(host, "sdb"))] == [
        "part of dm-2 (LVM /dev/mapper/vg0-home)",
        "part of md127 (RAID)",
        "part of sdb.eli",
    ]


def test_one_path_of_a_multipath_disk_shows_the_map_and_is_not_in_use_by_it(host: FakeHost) -> None:
    host.devices[3] = BlockDevice("sdb", host.path("sdb"), size=4 << 20, parent="dm-0", holders=("dm-0",))
    host.add("dm-0", kind="multipath", serial="LUN7", holders=("dm-1",))
    host.add("dm-1", 2 << 20, kind="partition", parent="dm-0", partition=1)
    host.recognised = {host.path("dm-1"): (EXT4,)}
    content = look(host, "sdb")
    assert (content.device, content.kind, content.serial) == (host.path("dm-0"), "multipath", "LUN7")
    assert content.used == ()
    # A partition's map holds the map below it; that says nothing about who uses the disk.
    host.held = {host.path("dm-0")}
    assert look(host, "sdb").used == ()
    host.held = {host.path("dm-0"), host.path("dm-1")}
    assert [where for _what, where in uses(look(host, "sdb"))] == ["dm-1"]
    assert [finding.where for finding in content.dead] == [host.path("dm-1")]


def test_what_the_kernel_holds_without_telling_for_whom(host: FakeHost) -> None:
    host.held = {host.path("sda"), host.path("sda1"), host.path("sdb")}
    assert [where for _what, where in uses(look(host, "sda"))] == ["sda1"]
    assert [where for _what, where in uses(look(host, "sdb"))] == ["sdb"]


def test_a_known_use_is_not_told_twice(host: FakeHost) -> None:
    host.held = {host.path("sda"), host.path("sda1")}
    host.mounted = [Mount("8:1", "", "/srv")]
    assert uses(look(host, "sda")) == [("mounted on /srv", "sda1")]


def test_uses_are_found_without_looking_into_the_disk(host: FakeHost) -> None:
    runner = NoRunner()
    table = host.read_table(runner)
    disk = host.devices[0]
    assert uses_of(runner, table, disk, host) == ()
    host.held = {host.path("sda1")}
    held = uses_of(runner, table, disk, host)
    assert [(one.type, one.pool, one.where) for one in held] == [("busy", "", host.path("sda1"))]
    # What the label of a pool says is told in place of "held"; a disk that can't be read is told as before.
    with open(host.path("sda1"), "r+b") as file:
        file.write(zfs_disk(2 << 20, config(0)))
    assert [(one.what, one.pool) for one in uses_of(runner, table, disk, host)] == [
        ('member of the imported pool "tänk"', "tänk")
    ]
    os.unlink(host.path("sda1"))
    assert uses_of(runner, table, disk, host) == held
    host.mounted = [Mount("8:2", host.path("sda2"), "/srv")]
    # A partition that is mounted does not hide what holds another one.
    both = uses_of(runner, table, disk, host)
    assert [one.what for one in both][:1] == ["mounted on /srv"] and both[1:] == held
    assert host.probes == 0


def test_many_disks_are_asked_about_at_once(host: FakeHost) -> None:
    runner = NoRunner()
    host.recognised = {host.path("sdb"): (EXT4,)}
    contents = probe_all(runner, host.read_table(runner), [host.path("sdb"), "/nonexistent", host.path("sda")], host)
    assert [content.access for content in contents] == ["write", "missing", "write"]
    assert [len(content.findings) for content in contents] == [1, 0, 0]
    assert host.probes == 1


def test_nothing_is_asked_when_nothing_can_be_read(host: FakeHost) -> None:
    assert not look(host, "/nonexistent").exists
    assert host.probes == 0


def test_a_file(host: FakeHost) -> None:
    path = host.path("vdev.img")
    Path(path).write_bytes(bytes(1 << 20))
    content = look(host, path)
    assert content.blank
    assert (content.kind, content.size, content.identity, content.device) == ("file", 1 << 20, path, path)


def test_a_file_behind_a_loop_device_or_used_as_swap_is_in_use(host: FakeHost) -> None:
    path = host.path("vdev.img")
    Path(path).write_bytes(bytes(1 << 20))
    os.symlink(path, host.path("link.img"))
    host.add("loop0", kind="loop", backing=path)
    host.swapping = [path]
    assert [what for what, _where in uses(look(host, "link.img"))] == ["shown as loop device loop0", "active swap"]


@pytest.mark.parametrize(
    ("pools", "used"),
    [
        ({"tank": "7"}, True),
        # OpenZFS before 2.2 tells the name alone.
        ({"tank": ""}, True),
        # Another pool of that name.
        ({"tank": "8", "other": "7"}, False),
        ({}, False),
    ],
)
def test_a_file_of_an_imported_pool_is_in_use(host: FakeHost, pools: dict[str, str], used: bool) -> None:
    path = host.path("vdev.img")
    Path(path).write_bytes(bytes(1 << 20))
    host.recognised = {path: (Signature("zfs_member", "ZFS label", pool="tank", pool_guid="7"),)}
    host.pools = pools
    assert uses(look(host, path)) == ([('member of the imported pool "tank"', "vdev.img")] if used else [])


def test_a_former_disk_of_an_imported_pool_is_free_because_the_kernel_says_so(host: FakeHost) -> None:
    host.recognised = {host.path("sdb"): (Signature("zfs_member", "ZFS label", pool="tank", pool_guid="7"),)}
    host.pools = {"tank": "7"}
    assert look(host, "sdb").used == ()


def test_the_name_of_a_mounted_dataset_is_not_taken_for_a_disk() -> None:
    disk = BlockDevice("null", "/dev/null", aliases=("/dev/disk/by-label/tank",), size=1)
    host = FakeHost(Path("/nonexistent"))
    host.devices = [disk]
    host.mounted = [Mount("0:40", "tank", "/tank")]
    host.recognised = {"/dev/null": ()}
    assert look(host, "/dev/null").used == ()


@pytest.mark.parametrize(
    ("make", "access", "words"),
    [
        (lambda path: None, "missing", "does not exist"),
        (os.mkdir, "unsuitable", "a directory"),
        (os.mkfifo, "unsuitable", "neither a block device nor a regular file"),
        (lambda path: open(path, "wb").close(), "unsuitable", "is empty (0 bytes)"),
    ],
)
def test_what_can_not_be_a_disk(host: FakeHost, make: t.Callable[[str], object], access: str, words: str) -> None:
    make(host.path("thing"))
    content = look(host, "thing")
    assert content.access == access
    assert words in content.problem and host.path("thing") in content.problem
    assert not content.blank and not content.readable


def test_a_character_device_is_no_disk(host: FakeHost) -> None:
    assert look(host, "/dev/null").access == "unsuitable"


def test_a_path_through_a_file_is_missing(host: FakeHost) -> None:
    assert look(host, host.path("sda") + "/x").access == "missing"


def test_a_drive_without_a_medium(host: FakeHost) -> None:
    host.add("sr0", 0, kind="other")
    assert (look(host, "sr0").access, look(host, "sr0").blank) == ("unsuitable", False)


def test_a_device_whose_node_is_gone(host: FakeHost) -> None:
    os.unlink(host.path("sdb"))
    assert look(host, "sdb").access == "missing"


def test_a_read_only_disk_is_read_all_the_same(host: FakeHost) -> None:
    host.add("sdc", read_only=True)
    host.recognised = {host.path("sdc"): (EXT4,)}
    content = look(host, "sdc")
    assert (content.access, content.problem) == ("read_only", f"{host.path('sdc')} is read-only.")
    assert content.readable and content.words() == EXT4.what


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EACCES, "permission denied. Run the task as root"), (errno.EIO, "Input/output error")]
)
def test_a_disk_that_can_not_be_opened(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    content = look(host, "sdb")
    assert content.access == "unreadable" and words in content.problem


def test_a_disk_that_the_tools_can_not_read(host: FakeHost) -> None:
    host.recognised = {host.path("sda2"): "wipefs: error: Input/output error"}
    content = look(host, "sda")
    assert (content.access, content.blank) == ("unreadable", False)
    assert "Input/output error" in content.problem and host.path("sda2") in content.problem


def test_merge_keeps_each_type_once_and_puts_partition_tables_first() -> None:
    ours = (Signature("zfs_member", 'ZFS label of pool "tank"', ((0, 1),)), Signature("gpt", "GPT (backup)"))
    theirs = (EXT4, Signature("zfs_member", "remains"), Signature("PMBR", "protective MBR"))
    assert [found.what for found in merge(theirs, ours)] == ["GPT (backup)", EXT4.what, 'ZFS label of pool "tank"']
