# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locking: the order in which filesystems are unmounted, and what is mounted again when something is in use."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import dataset_actions, mount_table
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_actions import Mounted, Remount
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_read import Survey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.mount_table import Place, places_of
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import DatasetZfs, Node
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    child,
    four,
    root,
    run,
    wishes,
    world,
)


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a host without /proc, where the model tells what is mounted."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(mount_table, "TABLE", str(tmp_path / "none"))
    monkeypatch.setattr(dataset_actions, "BUSY_PATIENCE", 0.0)


def legacy(name: str, of: str, place: str) -> Node:
    return child(name, of, properties={"mountpoint": "legacy"}, place=place)


def lock(zfs: DatasetZfs, folder: Path) -> Outcome[Survey]:
    return run(zfs, folder, wishes(name="plain/a", state="locked", recursive=True, policy="openzfs"))


def unmounted(zfs: DatasetZfs) -> list[str]:
    return [argv[-1] for argv in zfs.commands if argv[0] == "umount" or argv[:2] == ("zfs", "unmount")]


class TestLegacy:
    def test_it_is_unmounted_where_it_is(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a"), child("plain/a/b", "plain/a"), legacy("plain/a/l", "plain/a", "/srv/on top"))
        done = four(zfs, tmp_path, name="plain/a", state="locked")
        assert done.plan.actions == ["Unmount 3 filesystems at and below 'plain/a'", "Lock 'plain/a'"]
        assert "mounted" not in [argv[1] for argv in zfs.commands]

    def test_what_is_mounted_inside_goes_first(self, tmp_path: Path) -> None:
        zfs = world(
            root("plain/a"),
            legacy("plain/a/l", "plain/a", "/srv"),
            child("plain/a/l/in", "plain/a", properties={"mountpoint": "/srv/in"}),
        )
        lock(zfs, tmp_path)
        assert unmounted(zfs) == ["plain/a", "plain/a/l/in", "/srv"]

    def test_it_is_mounted_again_if_another_is_in_use(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a", busy=True), legacy("plain/a/l", "plain/a", "/srv/a/deep/l"))
        done = lock(zfs, tmp_path)
        assert zfs.world.nodes["plain/a/l"].mounted
        assert ("mount", "-t", "zfs", "-o", "nosuid", "plain/a/l", "/srv/a/deep/l") in zfs.commands
        assert done.plan.failures[0].hint == (
            "Stop what uses it, then run this again. All that was unmounted was mounted again."
        )

    def test_it_is_mounted_again_if_the_key_is_in_use(self, tmp_path: Path) -> None:
        volume = child("plain/a/v", "plain/a", kind="volume", mounted=False, busy=True)
        zfs = world(root("plain/a"), legacy("plain/a/l", "plain/a", "/srv/l"), volume)
        done = lock(zfs, tmp_path)
        assert "its key can't be unloaded" in done.plan.failures[0].message
        assert zfs.world.nodes["plain/a"].mounted
        assert zfs.world.nodes["plain/a/l"].mounted

    @pytest.mark.parametrize("place", ["", "/srv/a/deep/l"])
    def test_what_stays_unmounted_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
        zfs = world(root("plain/a", busy=True), legacy("plain/a/l", "plain/a", place))
        monkeypatch.setattr(Mounted, "mounting", lambda self: Command(("zfs", "mount", "gone")))
        done = lock(zfs, tmp_path)
        assert "'plain/a' is in use" in done.plan.failures[0].message
        assert "mounted again." not in done.plan.failures[0].hint
        assert "Not mounted again: 'plain/a/l'" in done.plan.failures[0].hint


class TestMountedAgain:
    def test_not_below_what_is_locked_by_then(self, tmp_path: Path) -> None:
        """The key of the child is unloaded, that of the parent is in use."""
        zfs = world(
            root("plain/a"),
            child("plain/a/v", "plain/a", kind="volume", mounted=False, busy=True),
            root("plain/a/b", "b"),
            Node("plain/a/b/c", mounted=True),
            Node("plain/a/d", mounted=True),
        )
        lock(zfs, tmp_path)
        assert [name for name, one in zfs.world.nodes.items() if one.mounted] == ["plain", "plain/a", "plain/a/d"]

    def test_not_the_whole_filesystem_where_a_folder_of_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = tmp_path / "mountinfo"
        table.write_text("33 26 0:31 /folder /srv/a/deep/l rw - zfs plain/a/l rw\n", encoding="utf-8")
        monkeypatch.setattr(mount_table, "TABLE", str(table))
        zfs = world(root("plain/a", busy=True), legacy("plain/a/l", "plain/a", "/srv/a/deep/l"))
        done = lock(zfs, tmp_path / "keys")
        assert unmounted(zfs)[0] == "/srv/a/deep/l"
        assert not [argv for argv in zfs.commands if argv[0] == "mount"]
        assert done.plan.failures[0].hint.endswith(
            "Not mounted again: 'plain/a/l' at /srv/a/deep/l: its folder /folder was there, by 'mount --bind'."
        )

    @pytest.mark.parametrize("own", [False, True])
    def test_one_of_which_a_folder_is_still_mounted_elsewhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
    ) -> None:
        """ZFS takes it for mounted then."""
        table = tmp_path / "mountinfo"
        places = ("/srv/export", "/plain/a") if own else ("/srv/export",)
        lines = [f"40 30 0:31 /folder {place} rw - zfs plain/a rw\n" for place in places]
        table.write_text("".join(lines), encoding="utf-8")
        monkeypatch.setattr(mount_table, "TABLE", str(table))
        zfs = world(root("plain/a"))
        Remount((Mounted("plain/a", "/plain/a"),))(zfs)
        by_hand = ("mount", "-t", "zfs", "-o", "zfsutil", "plain/a", "/plain/a")
        assert (by_hand in zfs.commands) != own

    def test_all_are_tried(self) -> None:
        zfs = world(root("plain/a", mounted=False))
        with pytest.raises(StorageError) as caught:
            Remount((Mounted("plain/gone", "/gone"), Mounted("plain/l", "", legacy=True), Mounted("plain/a", "/a")))(
                zfs
            )
        assert caught.value.message == (
            "Not mounted again: 'plain/gone' at /gone: cannot open 'plain/gone': dataset does not exist; "
            "'plain/l': where it was mounted is not known."
        )
        assert zfs.world.nodes["plain/a"].mounted


class TestTheTable:
    TABLE: t.ClassVar[str] = (
        "21 26 0:20 / /proc rw,nosuid - proc proc rw\n"
        "30 26 0:31 / /srv/on\\040top rw,nosuid,relatime shared:7 master:2 - zfs tank/a ro,xattr,casesensitive\n"
        "31 26 0:32 / /srv/x\u00a0y rw - zfs tank/a\\040b rw\n"
        "32 26 0:31 / /srv/second rw,noatime - zfs tank/a rw\n"
        "33 26 0:31 /some\\040folder /srv/bound rw - zfs tank/a rw\n"
        "34 26 0:34 / /srv/c rw - nfs tank/c rw\n"
    )

    def test_linux(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        table = tmp_path / "mountinfo"
        table.write_text(self.TABLE, encoding="utf-8")
        monkeypatch.setattr(mount_table, "TABLE", str(table))
        assert places_of(world(), ("tank/a", "tank/a b", "tank/c")) == {
            "tank/a": (
                Place("/srv/on top", ("ro", "nosuid")),
                Place("/srv/second", ("noatime",)),
                Place("/srv/bound", (), "/some folder"),
            ),
            "tank/a b": (Place("/srv/x\u00a0y"),),
            "tank/c": (),
        }

    def test_freebsd(self) -> None:
        zfs = world(legacy("plain/l", "plain", "/mnt/a b"))
        assert places_of(zfs, ["plain/l"]) == {"plain/l": (Place("/mnt/a b", ("nosuid",)),)}

    def test_nobody_tells(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(mount_table, "TABLE", str(tmp_path))
        assert places_of(world(), ["plain"]) == {"plain": ()}


class TestPlainFilesystems:
    """What is not encrypted is unmounted only where it would keep something else from being unmounted."""

    def test_one_beside_the_roots_stays(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a"), Node("plain/media", mounted=True), root("plain/media/b"))
        done = four(zfs, tmp_path, name="plain", state="locked", recursive=True, policy="openzfs")
        assert done.plan.failures == ()
        assert unmounted(zfs) == ["plain/media/b", "plain/a"]
        assert [name for name, node in zfs.world.nodes.items() if node.mounted] == ["plain", "plain/media"]

    def test_one_in_a_folder_of_a_root_goes_with_it(self, tmp_path: Path) -> None:
        zfs = world(
            root("plain/a"),
            Node("plain/a/inside", mounted=True),
            Node("plain/a/beside", mounted=True, properties={"mountpoint": "/srv/beside"}),
            Node("plain/below", mounted=True, properties={"mountpoint": "/nasops-test/plain/a/inside/deeper"}),
        )
        four(zfs, tmp_path, name="plain", state="locked", recursive=True, policy="openzfs")
        assert unmounted(zfs) == ["plain/below", "plain/a/inside", "plain/a"]

    def test_a_legacy_mount_in_a_folder_of_a_root_goes_with_it(self, tmp_path: Path) -> None:
        inside, beside = (
            Node(f"plain/{name}", mounted=True, properties={"mountpoint": "legacy"}, place=place)
            for name, place in (("l", "/nasops-test/plain/a/l"), ("m", "/srv/m"))
        )
        zfs = world(root("plain/a"), inside, beside)
        four(zfs, tmp_path, name="plain", state="locked", recursive=True, policy="openzfs")
        assert unmounted(zfs) == ["/nasops-test/plain/a/l", "plain/a"]

    def test_what_stays_closed_by_another_root_is_mounted_again_without_it(self, tmp_path: Path) -> None:
        """The lower of two roots is locked, the upper one in use; what lay in a folder of the lower one stays away."""
        zfs = world(
            root("plain/a"),
            root("plain/a/b"),
            Node("plain/a/b/p", mounted=True),
            Node("plain/a/q", mounted=True),
            child("plain/a/v", "plain/a", kind="volume", volsize=16384, mounted=False, busy=True),
        )
        done = run(zfs, tmp_path, wishes(name="plain/a", state="locked", recursive=True, policy="openzfs"))
        assert "'plain/a' is in use" in done.plan.failures[0].message
        assert [name for name, node in zfs.world.nodes.items() if node.mounted] == ["plain", "plain/a", "plain/a/q"]
