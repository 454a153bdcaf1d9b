# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is opened first, and what happens at the mountpoints; mountpoints are real folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_order import opening_order
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import DatasetZfs
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    child,
    four,
    locked,
    root,
    world,
)

pytestmark = pytest.mark.usefixtures("as_root")


def mounted(zfs: DatasetZfs) -> list[str]:
    """The filesystems in the order in which they were mounted."""
    return [argv[-1] for argv in zfs.commands if argv[:2] == ("zfs", "mount")]


class TestOpeningOrder:
    def test_parents_first_then_by_name(self) -> None:
        names: dict[str, tuple[str, ...]] = dict.fromkeys(("t/b/a", "t/c", "t/b", "t/a-b", "t/a/x", "t/a"), ())
        assert opening_order(names) == ["t/a", "t/a-b", "t/b", "t/c", "t/a/x", "t/b/a"]

    def test_what_is_mounted_above_comes_first(self) -> None:
        places = {"t/a": ["/top/z"], "t/z": ["/top"], "t/a/m": ["/top/z/deep"]}
        assert opening_order(places) == ["t/z", "t/a", "t/a/m"]

    def test_a_dataset_below_may_be_mounted_above_another_one(self) -> None:
        places = {"t/a": ["/srv/deep"], "t/b": ["/elsewhere"], "t/b/x": ["/srv"]}
        assert opening_order(places) == ["t/b", "t/b/x", "t/a"]

    def test_parents_come_first_whatever_their_mountpoints(self) -> None:
        assert opening_order({"t/a": ["/top/z"], "t/a/m": ["/top"]}) == ["t/a", "t/a/m"]

    def test_two_that_are_mounted_above_each_other(self) -> None:
        places = {"t/a": ["/x", "/y/a"], "t/b": ["/y", "/x/b"]}
        assert opening_order(places) == opening_order(dict(reversed(places.items())))

    def test_names_that_begin_alike_are_not_above_each_other(self) -> None:
        assert opening_order({"t/a": ["/srv-old/x"], "t/b": ["/srv"]}) == ["t/a", "t/b"]


class TestMounting:
    def test_roots_are_mounted_from_the_top(self, tmp_path: Path) -> None:
        zfs = world(
            locked(root("plain/a", "a", properties={"mountpoint": f"{tmp_path}/top/z"})),
            locked(root("plain/a/m", "b", properties={"mountpoint": f"{tmp_path}/top/z/deep"})),
            locked(root("plain/z", "c", properties={"mountpoint": f"{tmp_path}/top"})),
        )
        keys = {"plain/a": HEX["a"], "plain/a/m": HEX["b"], "plain/z": HEX["c"]}
        four(zfs, tmp_path / "keys", name="plain", state="unlocked", recursive=True, keys=keys)
        assert mounted(zfs) == ["plain/z", "plain/a", "plain/a/m"]

    def test_described_datasets_are_created_from_the_top(self, tmp_path: Path) -> None:
        zfs = world()
        wanted = [
            {"name": "plain/a", "key": {"value": HEX["a"]}, "properties": {"mountpoint": f"{tmp_path}/top/z"}},
            {"name": "plain/z", "key": {"value": HEX["b"]}, "properties": {"mountpoint": f"{tmp_path}/top"}},
            {"name": "plain/a/b"},
        ]
        four(zfs, tmp_path / "keys", datasets=wanted)
        assert mounted(zfs) == ["plain/z", "plain/a", "plain/a/b"]

    def test_a_child_that_would_hide_its_parent_is_not_mounted(self, tmp_path: Path) -> None:
        zfs = world(
            locked(root("plain/a", "a", properties={"mountpoint": f"{tmp_path}/top/z"})),
            locked(root("plain/a/m", "b", properties={"mountpoint": f"{tmp_path}/top"})),
        )
        keys = {"plain/a": HEX["a"], "plain/a/m": HEX["b"]}
        done = four(zfs, tmp_path / "keys", name="plain", state="unlocked", recursive=True, keys=keys)
        (failure,) = done.plan.failures
        assert failure.branch == "plain/a/m"
        assert f"at {tmp_path}/top it would hide what is mounted before it at {tmp_path}/top/z" in failure.message
        assert mounted(zfs) == ["plain/a"]


class TestNewMountpoint:
    def full(self, tmp_path: Path) -> Path:
        folder = tmp_path / "full"
        folder.mkdir()
        (folder / "file").touch()
        return folder

    def test_nothing_is_mounted_over_what_is_there(self, tmp_path: Path) -> None:
        folder = self.full(tmp_path)
        zfs = world(root("plain/a"))
        done = four(zfs, tmp_path, name="plain/a", properties={"mountpoint": str(folder), "atime": "off"})
        assert f"the mountpoint {folder} is not empty" in done.plan.failures[0].message
        assert zfs.world.nodes["plain/a"].properties == {}

    def test_what_is_there_is_moved_aside_first(self, tmp_path: Path) -> None:
        folder = self.full(tmp_path)
        zfs = world(root("plain/a"))
        wanted = {"name": "plain/a", "properties": {"mountpoint": str(folder)}}
        done = four(zfs, tmp_path, on_nonempty_mountpoint="move_aside", **wanted)
        assert done.plan.actions == [
            f"Move {folder} to {folder}.aside-1, to make room for 'plain/a'",
            f"Set property mountpoint={folder} on 'plain/a'",
        ]
        assert (tmp_path / "full.aside-1" / "file").exists()
        assert not folder.exists()

    def test_one_that_is_not_mounted_yet(self, tmp_path: Path) -> None:
        folder = self.full(tmp_path)
        zfs = world(root("plain/a"), child("plain/a/b", "plain/a", mounted=False, properties={"mountpoint": "none"}))
        wanted = {"name": "plain/a/b", "properties": {"mountpoint": str(folder)}}
        done = four(zfs, tmp_path, on_nonempty_mountpoint="move_aside", **wanted)
        assert done.plan.actions[0] == f"Move {folder} to {folder}.aside-1, to make room for 'plain/a/b'"
        assert zfs.world.nodes["plain/a/b"].mounted

    def test_a_locked_one_is_not_mounted_by_that(self, tmp_path: Path) -> None:
        folder = self.full(tmp_path)
        zfs = world(locked(root("plain/a")))
        done = four(zfs, tmp_path, name="plain/a", properties={"mountpoint": str(folder)})
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/a"].properties == {"mountpoint": str(folder)}
