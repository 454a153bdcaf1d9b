# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which filesystems are memory: by the mount table of Linux, and by what df and mdconfig say on FreeBSD."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils import filesystem
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, HostRunner
from ansible_collections.nasops.encryption.plugins.module_utils.filesystem import (
    df_source,
    memory_folder,
    memory_of,
    memory_there,
)
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, answer

HEAD = "Filesystem 512-blocks Used Avail Capacity  Mounted on\n"


def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str, options: str = "rw") -> None:
    """Let the folder of the test be a filesystem of this kind."""
    monkeypatch.setattr(sys, "platform", "linux")
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"22 1 0:999999 / / rw shared:1 - ext4 /dev/sda1 rw\n\n"
        f"30 22 {os.major(device)}:{os.minor(device)} / {tmp_path} rw,nosuid shared:5 - {kind} {source} {options}\n"
    )
    monkeypatch.setattr(filesystem, "_MOUNTS", str(mounts))


@pytest.mark.parametrize(
    "kind,source,memory",
    [
        ("tmpfs", "none", "tmpfs"),
        ("ramfs", "ramfs", "ramfs"),
        ("rootfs", "rootfs", "rootfs"),
        ("ext4", "/dev/zram0", "/dev/zram0"),
        ("ext4", "/dev/sda2", ""),
        # The source of a tmpfs is free to choose, and so is that of others.
        ("zfs", "tmpfs", ""),
    ],
)
def test_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str, memory: str) -> None:
    mounted(tmp_path, monkeypatch, kind, source)
    assert memory_of(RecordedRunner(), str(tmp_path), "tmpfs") == memory


def test_an_overlay_is_what_it_writes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(filesystem, "_MOUNTS", str(mounts))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(filesystem, "_number", {"/etc": "0:40", "/run/live rw": "0:23"}.__getitem__)
    root = "40 1 0:40 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/run/live\\040rw,x\n"
    lines = "23 1 0:23 / /run rw - {} {} rw\n" + root
    mounts.write_text(lines.format("tmpfs", "tmpfs"))
    assert memory_of(RecordedRunner(), "/etc") == "an overlay on tmpfs"
    mounts.write_text(lines.format("ext4", "/dev/sda2"))
    assert memory_of(RecordedRunner(), "/etc") == ""


@pytest.mark.parametrize("options", ["rw,lowerdir=/l,upperdir=/is/not/here,workdir=/w", "ro,lowerdir=/a:/b"])
def test_what_can_not_be_told_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    mounted(tmp_path, monkeypatch, "overlay", "overlay", options)
    assert memory_of(RecordedRunner(), str(tmp_path)) == ""
    monkeypatch.setattr(filesystem, "_MOUNTS", str(tmp_path / "none"))
    assert memory_of(RecordedRunner(), str(tmp_path)) == ""


@pytest.mark.parametrize("source", ["tmpfs", "/dev/ada0p2", "freebsd-boot/ROOT/default", "<above>:/x", "/dev/md0.uzip"])
def test_freebsd_by_what_df_said(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(sys, "platform", "freebsd13")
    # No program is started.
    assert memory_of(RecordedRunner(), "/etc/zfs", source) == ("tmpfs" if source == "tmpfs" else "")


@pytest.mark.parametrize("kind,memory", [("malloc", True), ("swap", True), ("preload", True), ("vnode", False)])
def test_a_memory_disk_of_freebsd(monkeypatch: pytest.MonkeyPatch, kind: str, memory: bool) -> None:
    monkeypatch.setattr(sys, "platform", "freebsd13")
    asked = ("mdconfig", "-l", "-v", "-u", "md1")
    runner = RecordedRunner({asked: answer(asked, f"md1\t{kind}\t  35M\t-\n")})
    for source in ("/dev/md1", "/dev/md1p2", "/dev/md1a"):
        assert memory_of(runner, "/", source) == ("the memory disk md1" if memory else "")
    assert memory_of(RecordedRunner(missing=("mdconfig",)), "/", "/dev/md1") == ""


def test_freebsd_asks_df_where_nobody_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "freebsd13")
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    asked = {str(first): f"{HEAD}/dev/ada0p2 9 1 8 1% /a\n", str(second): f"{HEAD}tmpfs 9 1 8 1% /b\n"}
    runner = RecordedRunner({("df", "-P", path): answer(("df", "-P", path), text) for path, text in asked.items()})
    places = (str(tmp_path / "none"), str(first), str(second))
    assert memory_folder(runner, places) == str(second)
    assert memory_folder(runner, places[:2]) == ""


@pytest.mark.parametrize(
    "text,memory",
    [
        ("Linux\ntmpfs\n", "tmpfs"),
        ("Linux\next2/ext3\n", ""),
        ("Linux\n", ""),
        (f"FreeBSD\n{HEAD}tmpfs 9 1 8 1% /etc\n", "tmpfs"),
        (f"FreeBSD\n{HEAD}zroot/data 9 1 8 1% /data\n", ""),
        ("", ""),
    ],
)
def test_another_host(text: str, memory: str) -> None:
    runner = RecordedRunner(default=lambda command: answer(command.argv, text))
    assert memory_there(runner, "/etc/zfs/keys/tank.key") == memory
    assert len(runner.commands) == 1


def test_the_question_to_another_host_is_one_that_sh_understands(tmp_path: Path) -> None:
    runner = HostRunner(Mask())
    found = runner.run(Command(("sh", "-c", filesystem._THERE, "sh", str(tmp_path / "none" / "x.key"))))
    system, kind = found.stdout.split("\n", 1)
    assert system == os.uname().sysname and kind.strip() and found.stderr == ""


def test_what_df_says() -> None:
    assert df_source(f"{HEAD}tank/my data   100 10 90 10% /mnt/my data\n") == "tank/my data"
    assert df_source("df: /x: No such file or directory\n") == ""
