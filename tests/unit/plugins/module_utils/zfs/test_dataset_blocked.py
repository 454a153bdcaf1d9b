# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A filesystem that stays unmounted keeps those from being mounted that would lie in its bare folder, and no others."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import DatasetZfs, Node
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    child,
    four,
    locked,
    root,
    world,
)

Keys = dict[str, str]


pytestmark = pytest.mark.usefixtures("as_root")


def at(mountpoint: str) -> dict[str, t.Any]:
    return {"properties": {"mountpoint": mountpoint}}


def unlock_all(zfs: DatasetZfs, folder: Path, keys: Keys) -> list[str]:
    """Unlocks all for which there is a key; returns the others."""
    done = four(zfs, folder, name="plain", state="unlocked", recursive=True, keys=keys)
    return [one.branch for one in done.plan.failures]


class TestFormerCopyThatStaysLocked:
    def copy(self, mountpoint: str) -> Node:
        return locked(root("plain/a_replica", "f", **at(mountpoint)))

    def test_it_shares_a_mountpoint(self, tmp_path: Path) -> None:
        zfs = world(self.copy("/srv/data"), locked(root("plain/data", "b", **at("/srv/data"))))
        assert unlock_all(zfs, tmp_path, {"plain/data": HEX["b"]}) == ["plain/a_replica"]
        assert zfs.world.nodes["plain/data"].mounted

    def test_it_shares_one_at_which_the_other_is_mounted(self, tmp_path: Path) -> None:
        zfs = world(
            self.copy("/srv/data"),
            root("plain/data", "b", **at("/srv/data")),
            locked(root("plain/data/video", "c")),
        )
        assert unlock_all(zfs, tmp_path, {"plain/data/video": HEX["c"]}) == ["plain/a_replica"]
        assert zfs.world.nodes["plain/data/video"].mounted

    def test_it_is_that_of_a_system(self, tmp_path: Path) -> None:
        zfs = world(self.copy("/"), locked(root("plain/b", "b")))
        assert unlock_all(zfs, tmp_path, {"plain/b": HEX["b"]}) == ["plain/a_replica"]
        assert zfs.world.nodes["plain/b"].mounted

    def test_something_else_is_mounted_in_its_folder(self, tmp_path: Path) -> None:
        zfs = world(
            self.copy("/srv/data"),
            root("plain/b", "b", **at("/srv/data/b")),
            locked(root("plain/b/c", "c")),
        )
        assert unlock_all(zfs, tmp_path, {"plain/b/c": HEX["c"]}) == ["plain/a_replica"]
        assert zfs.world.nodes["plain/b/c"].mounted


class TestRefusedEntry:
    REFUSED: t.ClassVar[dict[str, t.Any]] = {"name": "plain/a", "cipher": "aes-128-ccm"}

    def test_another_is_mounted_at_its_place(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a", "a", mounted=False, **at("/srv/b")), root("plain/b", "b", **at("/srv/b")))
        done = four(zfs, tmp_path, datasets=[self.REFUSED, {"name": "plain/b/new"}])
        assert [one.branch for one in done.plan.failures] == ["plain/a"]
        assert zfs.world.nodes["plain/b/new"].mounted

    @pytest.mark.parametrize("mount", [True, False])
    def test_a_member_is_not_to_be_mounted(self, tmp_path: Path, mount: bool) -> None:
        zfs = world(
            root("plain/a", "a"),
            child("plain/a/x", "plain/a", mounted=False, **at("/srv/x")),
            locked(root("plain/b", "b", **at("/srv/x/b"))),
        )
        wanted = [
            self.REFUSED,
            {"name": "plain/a/x", "cipher": "aes-128-ccm", "mount": mount},
            {"name": "plain/b", "key": {"value": HEX["b"]}},
        ]
        done = four(zfs, tmp_path, datasets=wanted)
        assert {one.branch for one in done.plan.failures} == {"plain/a", "plain/a/x", *["plain/b"] * mount}
        assert zfs.world.nodes["plain/b"].mounted is not mount


class TestNewPlaceOfARefusedEntry:
    """It is to be mounted there once what is wrong is mended."""

    def refused(self, zfs: DatasetZfs, folder: Path, place: str, **more: t.Any) -> list[str]:
        """What is refused, where plain/x is, and plain/y would be mounted below a place."""
        wrong = {"name": "plain/x", "key": {"file": str(folder / "missing")}, **more}
        below = {"name": "plain/y", "key": {"value": HEX["b"]}, **at(f"{place}/y")}
        return [one.branch for one in four(zfs, folder, datasets=[below, wrong]).plan.failures]

    def test_of_a_new_one(self, tmp_path: Path) -> None:
        zfs = world()
        assert self.refused(zfs, tmp_path, "/srv/x", **at("/srv/x")) == ["plain/x", "plain/y"]
        assert "plain/y" not in zfs.world.nodes

    def test_of_a_new_one_that_inherits_it(self, tmp_path: Path) -> None:
        assert self.refused(world(), tmp_path, "/nasops-test/plain/x") == ["plain/x", "plain/y"]

    @pytest.mark.parametrize(
        "more",
        [
            {"mount": False, **at("/srv/x")},
            {"properties": {"mountpoint": "/srv/x", "canmount": "noauto"}},
            {"volsize": "1M"},
        ],
    )
    def test_of_a_new_one_that_is_not_mounted(self, tmp_path: Path, more: dict[str, t.Any]) -> None:
        assert self.refused(world(), tmp_path, "/srv/x", **more) == ["plain/x"]

    def test_of_a_new_one_in_a_pool_that_is_away(self, tmp_path: Path) -> None:
        assert self.refused(world(), tmp_path, "/srv/x", **{"name": "usb/x", **at("/srv/x")}) == ["usb/x"]

    @pytest.mark.parametrize("place", ["/srv/old", "/srv/new"])
    @pytest.mark.parametrize("is_open", [True, False])
    def test_of_one_that_is_to_move(self, tmp_path: Path, place: str, is_open: bool) -> None:
        zfs = world(root("plain/x", "a", loaded=is_open, mounted=is_open, **at("/srv/old")))
        # One that is mounted elsewhere keeps nobody locked.
        also = ["plain/y"] if place == "/srv/new" and not is_open else []
        assert self.refused(zfs, tmp_path, place, **at("/srv/new")) == ["plain/x", *also]
