# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems that are mounted for a moment, by programs that behave as mount does."""

from __future__ import annotations

import os

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.migration.private_mount import (
    Mount,
    NotMounted,
    mounted,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner

from .tools import Tools


def test_each_has_a_folder(tools: Tools, runner: ReplicaRunner) -> None:
    with mounted(runner, Mount("old/my docs@a"), Mount("new/old", write=True)) as place:
        assert [os.listdir(one) for one in place.folders] == [["my docs@a"], ["old"]]
        assert place.folders == tuple(f"/proc/{place.pid}/root{one}" for one in place.inside)
        assert place.inside == (f"{tools.base}/1", f"{tools.base}/2")
        assert place.enter == ("nsenter", f"--mount=/proc/{place.pid}/ns/mnt", "--wd=/")
    assert [line for line in tools.log if "mount " in line[:7]] == [
        # Nothing can be written to what is left of a folder when it is not mounted any more.
        f"mount -i -n -t tmpfs -o size=1m,mode=700 nasops {tools.base.parent}",
        f"mount -i -n -t tmpfs -o remount,ro nasops {tools.base.parent}",
        f"mount -c -i -n -t zfs -o ro -- old/my docs@a {tools.base}/1",
        f"mount -c -i -n -t zfs -o rw,noatime -- new/old {tools.base}/2",
        f"umount {tools.base}/2",
        f"umount {tools.base}/1",
    ]
    assert (tools.base / "1").stat().st_mode & 0o777 == 0o700


def test_one_that_can_not_be_mounted(tools: Tools, runner: ReplicaRunner) -> None:
    (tools.folder / "status").write_text("32")
    tools.mount_by(f"echo 'mount: old/docs is busy.' >&2; exit $(cat {tools.folder}/status)")
    words = "'old/docs' can't be mounted: mount: old/docs is busy."
    with pytest.raises(NotMounted, match=words), mounted(runner, Mount("old/docs")):
        raise AssertionError("it was not mounted")


def test_one_that_can_not_be_unmounted(tools: Tools, runner: ReplicaRunner) -> None:
    tools.program("umount", "echo 'target is busy' >&2; exit 32")
    with pytest.raises(NotMounted, match="'old' can't be unmounted: target is busy"), mounted(runner, Mount("old")):
        pass


def test_it_is_unmounted_whatever_happens(tools: Tools, runner: ReplicaRunner) -> None:
    with pytest.raises(KeyError), mounted(runner, Mount("old")):
        raise KeyError
    assert tools.log[-1] == f"umount {tools.base}/1"
