# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wiping: what it refuses, what it writes, and that the disk is blank after it."""

from __future__ import annotations

import os
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.content import DiskContent, Finding, probe
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import Mount
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.linux import Linux
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.signatures import Signature
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.wipe import (
    check_unchanged,
    check_wipeable,
    size_words,
    wipe_step,
)
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Plan, StepFailed, apply
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.blockdev.fake_host import FakeHost, NoRunner
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.blockdev.host_tree import Tree

EXT4 = Signature("ext4", "ext4 filesystem")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.add("sda", serial="S1")
    host.add("sda1", 2 << 20, kind="partition", parent="sda", partition=1)
    host.add("sda2", 1 << 20, kind="partition", parent="sda", partition=2)
    host.recognised = {host.path("sda"): (Signature("gpt", "GPT partition table"),), host.path("sda2"): (EXT4,)}
    with open(host.path("sda1"), "r+b") as file:
        file.seek((2 << 20) - 512)
        file.write(b"GEOM::ELI\0")
    return host


def look(host: FakeHost, name: str = "sda") -> DiskContent:
    return probe(NoRunner(), host.read_table(NoRunner()), host.path(name), host)


def carry_out(host: FakeHost, content: DiskContent) -> None:
    apply(Plan((wipe_step(content, host),)), NoRunner())


def test_after_it_the_disk_is_blank_and_partitions_went_first(host: FakeHost) -> None:
    carry_out(host, look(host))
    assert host.erased == [host.path("sda2"), host.path("sda1"), "settle", host.path("sda"), "settle"]
    assert host.forgotten == [host.path("sda2"), host.path("sda1")]
    assert look(host).blank


def test_the_step_tells_disk_and_content(host: FakeHost) -> None:
    plan = Plan((wipe_step(look(host), host),))
    words = f"GPT partition table, GELI metadata on {host.path('sda1')}, ext4 filesystem on {host.path('sda2')}"
    assert plan.actions == [f"Wipe {host.path('sda')} (serial S1, 4.2 MB): {words}"]
    assert plan.diff() == {
        "before": {"disks": {host.path("sda"): {"content": words}}},
        "after": {"disks": {host.path("sda"): {"content": None}}},
    }
    assert host.erased == []


def test_only_the_partition_that_was_asked_for_is_wiped(host: FakeHost) -> None:
    carry_out(host, look(host, "sda2"))
    assert host.erased == [host.path("sda2"), "settle"]
    assert look(host, "sda2").blank and not look(host, "sda1").blank


def test_a_disk_in_use_is_refused(host: FakeHost) -> None:
    host.mounted = [Mount("", host.path("sda2"), "/srv")]
    with pytest.raises(Refused, match="in use: mounted on /srv"):
        wipe_step(look(host), host)


@pytest.mark.parametrize("access", ["read_only", "unreadable", "missing", "unsuitable"])
def test_what_can_not_be_written_is_refused(access: str) -> None:
    with pytest.raises(Refused, match="can't be wiped: because"):
        check_wipeable(DiskContent("/dev/sda", "/dev/sda", access, "because"))


def test_a_disk_that_came_into_use_after_planning_is_not_written(host: FakeHost) -> None:
    step = wipe_step(look(host), host)
    host.held = {host.path("sda2")}
    with pytest.raises(StepFailed, match="in use"):
        apply(Plan((step,)), NoRunner())
    assert host.erased == []


def test_something_new_on_the_disk_stops_it(host: FakeHost) -> None:
    step = wipe_step(look(host), host)
    host.recognised[host.path("sda1")] = (Signature("xfs", "xfs filesystem"),)
    with pytest.raises(StepFailed, match="not there when it was examined: xfs filesystem"):
        apply(Plan((step,)), NoRunner())
    assert host.erased == []


def test_another_disk_behind_the_path_stops_it(host: FakeHost) -> None:
    step = wipe_step(look(host), host)
    host.devices[0] = replace(host.devices[0], serial="S2")
    with pytest.raises(StepFailed, match="serial number is 'S2', it was 'S1'"):
        apply(Plan((step,)), NoRunner())
    os.rename(host.path("sda"), host.path("old"))
    host.devices[0] = replace(host.devices[0], serial="S1")
    Path(host.path("sda")).write_bytes(bytes(4 << 20))
    with pytest.raises(StepFailed, match="device number"):
        apply(Plan((step,)), NoRunner())
    assert host.erased == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "/dev/sdb"}, "device is"),
        ({"number": "8:16"}, "device number is"),
        ({"size": 2}, "size is"),
        ({"serial": "x"}, "serial number is"),
        ({"wwn": "x"}, "WWN is"),
        ({"access": "missing", "problem": "gone"}, "gone"),
        ({"findings": (Finding("mounted on /", "/dev/sda", True),)}, "in use"),
        ({"findings": (Finding("xfs", "/dev/sda"),)}, "not there"),
    ],
)
def test_every_difference_is_refused(change: dict[str, t.Any], words: str) -> None:
    before = DiskContent(
        "/dev/x", "/dev/sda", "write", device="/dev/sda", number="8:0", size=1, serial="s", wwn="w",
        findings=(Finding("ext4", "/dev/sda"),),
    )  # fmt: skip
    check_unchanged(before, before)
    check_unchanged(before, replace(before, findings=()))
    with pytest.raises(Refused, match=words):
        check_unchanged(before, replace(before, **change))


def test_a_disk_that_ignores_writes_is_told(host: FakeHost) -> None:
    host.deaf = True
    with pytest.raises(StepFailed, match="still not blank: GPT partition table"):
        carry_out(host, look(host))


def test_a_disk_that_became_blank_by_itself_is_left_alone(host: FakeHost) -> None:
    step = wipe_step(look(host, "sda2"), host)
    host.recognised = {}
    apply(Plan((step,)), NoRunner())
    assert host.erased == []


def test_there_is_no_step_for_a_blank_disk(host: FakeHost) -> None:
    host.recognised = {}
    with pytest.raises(ValueError, match="nothing to wipe"):
        wipe_step(look(host, "sda2"), host)


class Wipefs:
    """Keeps what it was asked to run."""

    def __init__(self) -> None:
        self.argv: list[tuple[str, ...]] = []

    def has(self, program: str) -> bool:
        return program == "udevadm"

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.argv.append(command.argv)
        return Result(command.argv, 0, "", "")


def test_linux_overwrites_the_given_places_and_leaves_the_rest_to_wipefs(tmp_path: Path) -> None:
    image, runner = tmp_path / "image", Wipefs()
    image.write_bytes(b"x" * 4096)
    number = f"{image.stat().st_dev}/{image.stat().st_ino}"
    Linux().erase(runner, str(image), number, ((0, 512), (3584, 512)), whole=False)
    assert image.read_bytes() == bytes(512) + b"x" * 3072 + bytes(512)
    assert runner.argv == [("wipefs", "--all", "--force", "--quiet", "--", str(image))]


def test_linux_writes_nothing_to_a_file_that_was_replaced(tmp_path: Path) -> None:
    image, runner = tmp_path / "image", Wipefs()
    image.write_bytes(b"x" * 4096)
    with pytest.raises(Refused, match="was examined"):
        Linux().erase(runner, str(image), "8:0", ((0, 512),), whole=True)
    with pytest.raises(Refused, match="No such file"):
        Linux().erase(runner, str(tmp_path / "none"), "8:0", ((0, 512),), whole=True)
    assert image.read_bytes() == b"x" * 4096
    assert runner.argv == []


def test_linux_waits_for_udev_where_there_is_one() -> None:
    runner = Wipefs()
    Linux().settle(runner)
    assert runner.argv == [("udevadm", "settle", "--timeout=60")]
    Linux().settle(NoRunner())


def test_linux_removes_partitions_that_are_maps(nas: Tree) -> None:
    runner, host = Wipefs(), Linux(nas.roots)
    for path in ("/dev/sda1", "/dev/cciss/c0d0p1", "/dev/dm-1"):
        host.forget_partition(runner, path)
    assert runner.argv == [("dmsetup", "remove", "--retry", "mpatha-part1")]


def test_sizes() -> None:
    assert [size_words(size) for size in (0, 999, 1000, 4000787030016, 10**16)] == [
        "0 B", "999 B", "1.0 kB", "4.0 TB", "10.0 PB"
    ]  # fmt: skip
