# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key file that several encryption roots use: it may be the only copy of the key of each of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs import keystore
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import DatasetZfs, Node
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    PASSPHRASES,
    child,
    file_of,
    four,
    locked,
    root,
    world,
)

USERS = {
    "in the same pool": "plain/b",
    "of the root of the pool": "plain",
    "in another pool": "other/b",
    "of the root of another pool": "other",
}


pytestmark = pytest.mark.usefixtures("as_root")


def shared(path: str, other: str, content: str = "a") -> DatasetZfs:
    """``plain/a`` and another encryption root with the same key file."""
    Path(path).write_text(HEX[content] + "\n", encoding="ascii")
    location = keystore.location_of(path)
    nodes = {"other": Node("other", mounted=True), "plain/a": root("plain/a", "a", location=location)}
    nodes[other] = root(other, "a", location=location)
    return world(*nodes.values())


@pytest.mark.parametrize("other", USERS.values(), ids=USERS)
class TestSharedWith:
    @pytest.mark.parametrize(
        "change",
        [
            {"key": {"generate": True}, "rotate": "always"},
            {"key": {"value": HEX["c"]}},
        ],
        ids=["a new random key", "a new given key"],
    )
    def test_its_content_is_not_replaced(self, tmp_path: Path, other: str, change: dict[str, dict[str, str]]) -> None:
        path = str(tmp_path / "both.key")
        zfs = shared(path, other)
        change["key"]["file"] = path
        done = four(zfs, tmp_path, name="plain/a", **change)
        (failure,) = done.plan.failures
        assert f"{path} of 'plain/a' is also that of '{other}'" in failure.message
        assert Path(path).read_text(encoding="ascii") == HEX["a"] + "\n"
        assert os.listdir(tmp_path) == ["both.key"]
        assert zfs.commands_that_change() == []

    @pytest.mark.parametrize(
        "change",
        [
            {"key": {"generate": True}, "rotate": "always"},
            {"key": {"value": HEX["c"]}},
            {"key": {"value": HEX["b"]}},
        ],
        ids=["a new random key", "a new given key", "the key that is in it"],
    )
    def test_what_is_beside_another_key_file_is_not_replaced(
        self, tmp_path: Path, other: str, change: dict[str, dict[str, str]]
    ) -> None:
        path = file_of(tmp_path, "plain/a")
        beside = path + keystore.NEXT
        zfs = shared(path, other)
        Path(beside).write_text(HEX["b"] + "\n", encoding="ascii")
        os.chmod(beside, 0o400)
        link = tmp_path / "link"
        link.symlink_to(beside)
        zfs.world.nodes[other] = root(other, "b", location=keystore.location_of(str(link)))
        change["key"]["file"] = path
        done = four(zfs, tmp_path, name="plain/a", **change)
        (failure,) = done.plan.failures
        assert f"{beside} of 'plain/a' is also that of '{other}'" in failure.message
        assert Path(beside).read_text(encoding="ascii") == HEX["b"] + "\n"
        assert Path(path).read_text(encoding="ascii") == HEX["a"] + "\n"
        assert zfs.commands_that_change() == []

    def test_it_is_kept_when_one_of_them_leaves_it(self, tmp_path: Path, other: str) -> None:
        path = file_of(tmp_path, "plain/a")
        zfs = shared(path, other)
        four(zfs, tmp_path, name="plain/a", key={"format": "passphrase", "value": PASSPHRASES[0]})
        assert zfs.world.nodes["plain/a"].location == "prompt"
        assert Path(path).read_text(encoding="ascii") == HEX["a"] + "\n"

    def test_one_of_them_moves_to_a_file_of_its_own(self, tmp_path: Path, other: str) -> None:
        path = str(tmp_path / "both.key")
        zfs = shared(path, other)
        own = file_of(tmp_path, "plain/a")
        four(zfs, tmp_path, name="plain/a", key={"file": own})
        assert zfs.world.nodes["plain/a"].location == keystore.location_of(own)
        four_with_new_key = four(zfs, tmp_path, name="plain/a", key={"file": own, "value": HEX["d"]})
        assert four_with_new_key.plan.failures == ()
        assert Path(path).read_text(encoding="ascii") == HEX["a"] + "\n"

    def test_a_successor_is_loaded_but_does_not_take_its_place(self, tmp_path: Path, other: str) -> None:
        path = str(tmp_path / "both.key")
        zfs = shared(path, other, content="b")
        Path(path + keystore.NEXT).write_text(HEX["a"] + "\n", encoding="ascii")
        locked(zfs.world.nodes["plain/a"])
        done = four(zfs, tmp_path, name="plain/a", state="unlocked")
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/a"].loaded
        assert Path(path).read_text(encoding="ascii") == HEX["b"] + "\n"


def test_a_file_that_is_not_named_after_its_pool_is_never_removed(tmp_path: Path) -> None:
    # A pool that is exported now may use it.
    path = tmp_path / "everything.key"
    path.write_text(HEX["a"] + "\n", encoding="ascii")
    zfs = world(root("plain/a", "a", location=keystore.location_of(str(path))))
    four(zfs, tmp_path, name="plain/a", key={"format": "passphrase", "value": PASSPHRASES[0]})
    assert path.exists()


class TestPoolThatDoesNotAnswer:
    """What its datasets say of their key files is not to be found out."""

    def stuck(self, path: str, content: str = "a") -> DatasetZfs:
        zfs = shared(path, "stuck/x", content)
        zfs.world.nodes["stuck"] = Node("stuck")
        zfs.world.suspended.add("stuck")
        return zfs

    def test_the_content_of_a_file_that_it_may_use_is_not_replaced(self, tmp_path: Path) -> None:
        path = str(tmp_path / "nas.key")
        zfs = self.stuck(path)
        done = four(zfs, tmp_path, name="plain/a", rotate="always", key={"file": path, "generate": True})
        (failure,) = done.plan.failures
        assert f"{path} of 'plain/a' may also be that of a dataset in stuck, which does not answer" in failure.message
        assert "zpool clear stuck" in failure.hint
        assert Path(path).read_text(encoding="ascii") == HEX["a"] + "\n"

    def test_a_successor_does_not_take_its_place(self, tmp_path: Path) -> None:
        path = str(tmp_path / "nas.key")
        zfs = self.stuck(path, content="b")
        Path(path + keystore.NEXT).write_text(HEX["a"] + "\n", encoding="ascii")
        locked(zfs.world.nodes["plain/a"])
        assert four(zfs, tmp_path, name="plain/a", state="unlocked").plan.failures == ()
        assert Path(path).read_text(encoding="ascii") == HEX["b"] + "\n"

    def test_an_unused_successor_is_kept(self, tmp_path: Path) -> None:
        path = str(tmp_path / "nas.key")
        zfs = self.stuck(path)
        successor = Path(path + keystore.NEXT)
        successor.write_text(HEX["b"] + "\n", encoding="ascii")
        successor.chmod(0o400)
        assert four(zfs, tmp_path, name="plain/a", key={"file": path}).plan.failures == ()
        assert successor.exists()

    def test_a_file_with_a_name_of_its_own_is_rotated(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, "plain/a")
        zfs = self.stuck(path)
        zfs.world.nodes["stuck/x"].location = "prompt"
        done = four(zfs, tmp_path, name="plain/a", key={"file": path, "value": HEX["c"]})
        assert done.plan.failures == ()
        assert Path(path).read_text(encoding="ascii") == HEX["c"] + "\n"


class TestOneFileByTwoNames:
    """Paths are compared by the file they lead to."""

    def test_a_hard_link_is_kept_when_one_of_them_leaves_it(self, tmp_path: Path) -> None:
        first, second = Path(file_of(tmp_path, "plain/a")), Path(file_of(tmp_path, "plain/b"))
        first.write_text(HEX["a"] + "\n", encoding="ascii")
        os.link(first, second)
        zfs = world(
            root("plain/a", "a", location=keystore.location_of(str(first))),
            root("plain/b", "a", location=keystore.location_of(str(second))),
        )
        four(zfs, tmp_path, name="plain/a", key={"format": "passphrase", "value": PASSPHRASES[0]})
        assert zfs.world.nodes["plain/a"].location == "prompt"
        assert second.read_text(encoding="ascii") == HEX["a"] + "\n"

    @pytest.mark.parametrize("linked", ["its own", "that of the other"])
    def test_a_file_below_a_linked_folder_is_not_replaced(self, tmp_path: Path, linked: str) -> None:
        folder, real = tmp_path / "keys", tmp_path / "real"
        real.mkdir()
        folder.symlink_to(real)
        path, other = Path(file_of(folder, "plain/a")), Path(file_of(real, "plain/a"))
        if linked == "that of the other":
            path, other = other, path
        path.write_text(HEX["a"] + "\n", encoding="ascii")
        zfs = world(
            root("plain/a", "a", location=keystore.location_of(str(path))),
            root("plain/b", "a", location=keystore.location_of(str(other))),
        )
        done = four(zfs, path.parent, name="plain/a", rotate="always", key={"file": str(path), "generate": True})
        assert f"{path} of 'plain/a' is also that of 'plain/b'" in done.plan.failures[0].message
        assert other.read_text(encoding="ascii") == HEX["a"] + "\n"

    def test_the_only_file_of_a_key_gets_another_spelling(self, tmp_path: Path) -> None:
        folder, real = tmp_path / "keys", tmp_path / "real"
        real.mkdir()
        folder.symlink_to(real)
        path, spelled = Path(file_of(folder, "plain/a")), Path(file_of(real, "plain/a"))
        path.write_text(HEX["a"] + "\n", encoding="ascii")
        zfs = world(root("plain/a", "a", location=keystore.location_of(str(path))))
        four(zfs, folder, name="plain/a", key={"file": str(spelled)})
        assert zfs.world.nodes["plain/a"].location == keystore.location_of(str(spelled))
        assert spelled.read_text(encoding="ascii") == HEX["a"] + "\n"


class TestMarkOfAnInterruptedRun:
    """Killed after the file of plain/a was marked, before its key was changed; then that was renamed."""

    def test_the_key_of_the_renamed_dataset_is_kept(self, tmp_path: Path) -> None:
        path = Path(file_of(tmp_path, "plain/a"))
        path.write_text(HEX["a"] + "\n", encoding="ascii")
        os.link(path, f"{path}{keystore.RETIRED}")
        location = keystore.location_of(str(path))
        zfs = world(root("plain", "c"), root("plain/old", "a", location=location), child("plain/a", "plain"))
        done = four(zfs, tmp_path, name="plain/a", state="inherited")
        assert done.plan.failures == ()
        assert path.read_text(encoding="ascii") == HEX["a"] + "\n"

    def test_what_is_not_named_after_the_pool_is_kept(self, tmp_path: Path) -> None:
        path, linked = Path(file_of(tmp_path, "plain/a")), tmp_path / "backup"
        path.write_text(HEX["a"] + "\n", encoding="ascii")
        os.link(path, f"{path}{keystore.RETIRED}")
        os.link(path, linked)
        four(world(root("plain", "c"), child("plain/a", "plain")), tmp_path, name="plain/a", state="inherited")
        assert os.listdir(tmp_path) == ["backup"]

    def test_a_name_that_has_become_another_file_is_not_removed(self, tmp_path: Path) -> None:
        mark, path = tmp_path / "a.key.old", tmp_path / "a.key"
        mark.write_text("former", encoding="ascii")
        path.write_text("other", encoding="ascii")
        keystore.remove_retired(str(mark), (str(path),))
        assert os.listdir(tmp_path) == ["a.key"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tank.key", True),
        ("tank%2Fa.key", True),
        ("tank%2Fa%2Fb.key", True),
        ("tank2%2Fa.key", False),
        ("tank.key.new", True),
        ("shared.key", False),
    ],
)
def test_named_after(name: str, expected: bool) -> None:
    assert keystore.named_after(f"/etc/zfs/keys/{name}", "tank") is expected
