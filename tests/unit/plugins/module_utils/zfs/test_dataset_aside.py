# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies at a mountpoint is renamed only if somebody is told, also where it shows only during the run."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import dataset_read
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import DatasetZfs, World
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    child,
    locked,
    root,
    run,
    wishes,
    world,
)

Options = dict[str, t.Any]


pytestmark = pytest.mark.usefixtures("as_root")


class Revealing(DatasetZfs):
    """A host where a filesystem that is mounted shows what is in it."""

    def __init__(self, world: World, shows: t.Mapping[str, Path], refuses: str = "") -> None:
        super().__init__(world)
        self.shows = shows
        self.refuses = refuses

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.refuses_mounts = command.argv == ("zfs", "mount", self.refuses)
        result = super().run(command, ok)
        if command.argv[:2] == ("zfs", "mount") and command.argv[2] in self.shows:
            place = self.shows[command.argv[2]]
            place.mkdir(parents=True)
            (place / "file").touch()
        return result


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return tmp_path / "m"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir()
    return tmp_path / "keys"


def tree(top: Path, refuses: str = "") -> Revealing:
    """A locked root with a child, and one below it with a key of its own; there are files in the folders of both."""
    found = world(
        locked(root("plain/a", "a", properties={"mountpoint": str(top)})),
        child("plain/a/b", "plain/a", mounted=False),
        locked(root("plain/a/b/c", "b")),
    )
    return Revealing(found.world, {"plain/a": top / "b", "plain/a/b": top / "b" / "c"}, refuses)


UNLOCK: Options = {
    "name": "plain/a",
    "state": "unlocked",
    "recursive": True,
    "keys": {"plain/a": HEX["a"], "plain/a/b/c": HEX["b"]},
}


class TestWhatShowsDuringTheRun:
    def test_its_renames_are_told(self, top: Path, folder: Path) -> None:
        zfs = tree(top)
        done = run(zfs, folder, wishes(**UNLOCK, on_nonempty_mountpoint="move_aside"))
        assert done.plan.failures == ()
        moved = f"{top}/b to {top}/b.aside-1, {top}/b/c to {top}/b/c.aside-1"
        assert done.plan.warnings == (f"Moved aside, since it was in the way of a mount: {moved}.",)
        again = run(zfs, folder, wishes(**UNLOCK, on_nonempty_mountpoint="move_aside"))
        assert (again.plan.actions, again.plan.warnings) == ([], ())

    def test_also_if_the_mount_fails(self, top: Path, folder: Path) -> None:
        zfs = tree(top, refuses="plain/a/b")
        done = run(zfs, folder, wishes(**UNLOCK, on_nonempty_mountpoint="move_aside"))
        assert f"Moved aside before: {top}/b to {top}/b.aside-1." in done.plan.failures[0].message

    def test_also_if_the_host_can_not_be_read_any_more(
        self, top: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*arguments: t.Any) -> t.NoReturn:
            raise StorageError("ZFS is gone.")

        monkeypatch.setattr(dataset_read, "_read_again", broken)
        with pytest.raises(StorageError, match=f"ZFS is gone. Moved aside, .*{top}/b to {top}/b.aside-1"):
            run(tree(top), folder, wishes(**UNLOCK, on_nonempty_mountpoint="move_aside"))

    def test_what_the_plan_names_is_not_told_again(self, top: Path, folder: Path) -> None:
        zfs = tree(top)
        zfs.shows = {}
        top.mkdir()
        (top / "file").touch()
        done = run(zfs, folder, wishes(**UNLOCK, on_nonempty_mountpoint="move_aside"))
        assert f"Mount 2 filesystems of 'plain/a', after moving {top} to {top}.aside-1" in done.plan.actions
        assert done.plan.warnings == ()


class TestCheckMode:
    def warnings(self, zfs: DatasetZfs, folder: Path, **options: t.Any) -> tuple[str, ...]:
        return run(zfs, folder, wishes(**options), check=True).plan.warnings

    def test_it_tells_where_it_can_not_look(self, top: Path, folder: Path) -> None:
        (warning,) = self.warnings(tree(top), folder, **UNLOCK, on_nonempty_mountpoint="move_aside")
        assert warning == (
            "Check mode can't see what lies at mountpoints below filesystems that are not mounted yet; what is there "
            f"will be moved aside, and told then: {top}/b, {top}/b/c."
        )

    def test_nothing_is_moved_unless_asked_for(self, top: Path, folder: Path) -> None:
        assert self.warnings(tree(top), folder, **UNLOCK) == ()

    def test_it_sees_what_is_mounted(self, top: Path, folder: Path) -> None:
        zfs = tree(top)
        for name in ("plain/a", "plain/a/b"):
            zfs.world.nodes[name].loaded = zfs.world.nodes[name].mounted = True
        assert self.warnings(zfs, folder, **UNLOCK, on_nonempty_mountpoint="move_aside") == ()

    def test_there_is_nothing_in_what_is_created(self, folder: Path) -> None:
        wanted = [{"name": "plain/new", "key": {"value": HEX["a"]}}, {"name": "plain/new/b"}]
        assert self.warnings(world(), folder, datasets=wanted, on_nonempty_mountpoint="move_aside") == ()

    def test_many_are_not_all_named(self, top: Path, folder: Path) -> None:
        children = [child(f"plain/a/{number:02}", "plain/a", mounted=False) for number in range(12)]
        zfs = world(locked(root("plain/a", "a", properties={"mountpoint": str(top)})), *children)
        (warning,) = self.warnings(zfs, folder, **UNLOCK, on_nonempty_mountpoint="move_aside")
        assert warning.endswith(f"{top}/09 and 2 more.")
