# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several wishes in one task, and what one of them says about what another one covers as well."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_actions import LoadKey, MountAll
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_result import outcome
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import Node
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    child,
    four,
    locked,
    replica,
    root,
    run,
    wishes,
    world,
)

pytestmark = pytest.mark.usefixtures("as_root")


class TestKeysThatAreNotForThis:
    def test_keys_of_other_pools_are_left_alone(self, tmp_path: Path) -> None:
        zfs = world(Node("other", mounted=True), root("other/x"), locked(root("plain/a")))
        keys = {"plain/a": HEX["a"], "other/x": HEX["b"], "gone/y": HEX["c"]}
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, keys=keys)
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/a"].loaded

    def test_a_key_for_a_plain_dataset_does_not_hold_up_what_is_below(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a")))
        keys = {"plain": HEX["c"], "plain/a": HEX["a"]}
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, keys=keys)
        assert [one.branch for one in done.plan.failures] == ["plain"]
        assert zfs.world.nodes["plain/a"].loaded

    def test_a_recursive_key_is_not_tried_where_the_task_describes_another(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a", "a")), locked(root("plain/a/b", "b")))
        wanted = [
            {"name": "plain/a", "state": "unlocked", "recursive": True, "key": {"value": HEX["a"]}},
            {"name": "plain/a/b", "key": {"value": HEX["b"]}},
        ]
        done = four(zfs, tmp_path, datasets=wanted)
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/a/b"].loaded


class TestNothingIsToBeCreated:
    def test_what_is_there_gets_its_key_all_the_same(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a", "a"))
        wanted = [{"name": f"plain/{one}", "key": {"value": HEX["b"]}} for one in ("a", "gone", "gone/below")]
        zfs.world.nodes["plain/a"].location = "prompt"
        done = four(zfs, tmp_path, datasets=wanted, create=False)
        assert [str(one) for one in done.plan.failures] == [
            f"There is no dataset 'plain/{name}', and this task creates none. See whether it has another name now "
            "('zfs list -r'), or create it first."
            for name in ("gone", "gone/below")
        ]
        assert done.plan.actions == ["Change the key of 'plain/a' to key.value, since it is another one"]
        assert sorted(zfs.world.nodes) == ["plain", "plain/a"]


class TestInherited:
    def test_with_the_key_of_what_is_to_inherit(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a", "a"), locked(root("plain/a/b", "b")))
        done = four(zfs, tmp_path, name="plain/a/b", state="inherited", key={"value": HEX["b"]})
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/a/b"].root == "plain/a"
        assert zfs.world.nodes["plain/a/b"].mounted

    def test_with_its_key_among_others(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a", "a"), locked(root("plain/a/b", "b")))
        done = four(zfs, tmp_path, name="plain/a/b", state="inherited", mount=False, keys={"plain/a/b": HEX["b"]})
        assert done.plan.failures == ()
        assert not zfs.world.nodes["plain/a/b"].mounted


class TestMounts:
    def test_nothing_is_unlocked_if_nothing_can_be_mounted(self, tmp_path: Path) -> None:
        folder = tmp_path / "full"
        folder.mkdir()
        (folder / "file").touch()
        zfs = world(locked(root("plain/a", properties={"mountpoint": str(folder)})))
        done = four(zfs, tmp_path / "keys", name="plain/a", key={"value": HEX["a"]})
        assert "'plain/a' stays locked" in done.plan.failures[0].message
        assert not zfs.world.nodes["plain/a"].loaded

    def test_what_belongs_to_a_jail_is_unlocked_and_mounted_there(self, tmp_path: Path) -> None:
        folder = tmp_path / "full"
        folder.mkdir()
        (folder / "file").touch()
        zfs = world(locked(root("plain/a", properties={"mountpoint": str(folder), "zoned": "on"})))
        done = four(zfs, tmp_path / "keys", name="plain/a", key={"value": HEX["a"]})
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/a"].loaded
        assert not zfs.world.nodes["plain/a"].mounted

    @pytest.mark.parametrize("recursive", [False, True])
    def test_a_child_that_is_not_to_be_mounted(self, tmp_path: Path, recursive: bool) -> None:
        zfs = world(locked(root("plain/a")), child("plain/a/b", "plain/a", mounted=False))
        wanted = [
            {"name": "plain/a", "state": "unlocked", "recursive": recursive, "key": {"value": HEX["a"]}},
            {"name": "plain/a/b", "mount": False},
        ]
        four(zfs, tmp_path, datasets=wanted)
        assert zfs.world.nodes["plain/a"].mounted
        assert not zfs.world.nodes["plain/a/b"].mounted

    def test_filesystems_do_not_wait_for_device_nodes(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a")), child("plain/a/v", "plain/a", kind="volume", mounted=False))
        wanted = wishes(name="plain/a", state="unlocked", key={"value": HEX["a"]})
        load, mount = run(zfs, tmp_path, wanted, check=True).plan.steps
        assert isinstance(load.action, LoadKey)
        assert isinstance(mount.action, MountAll)
        assert (load.action.volumes, mount.action.volumes) == ((), ("plain/a/v",))

    def test_without_filesystems_the_key_does(self, tmp_path: Path) -> None:
        volume = root("plain/v", kind="volume", properties={"volmode": "dev"}, volsize=1 << 20)
        zfs = world(locked(volume))
        wanted = wishes(name="plain/v", state="unlocked", key={"value": HEX["a"]})
        (load,) = run(zfs, tmp_path, wanted, check=True).plan.steps
        assert isinstance(load.action, LoadKey)
        assert load.action.volumes == ("plain/v",)

    def test_what_was_locked_again_is_not_told_to_be_unlocked(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a")))
        wanted = wishes(name="plain/a", state="unlocked", key={"value": HEX["a"]})
        check = run(zfs, tmp_path, wanted, check=True)
        assert outcome(check.plan, check.state.host, True)["unlocked"] == ["plain/a"]
        zfs.refuses_mounts = True
        done = run(zfs, tmp_path, wanted)
        assert "'plain/a' was locked again" in done.plan.failures[0].message
        assert outcome(done.plan, done.state.host, False)["unlocked"] == []


class TestAbsent:
    @pytest.mark.parametrize("clone", ["plain/0-clone", "plain/z-clone", "plain/deep/clone"])
    def test_a_clone_and_what_it_was_made_of(self, tmp_path: Path, clone: str) -> None:
        zfs = world(
            root("plain/a", snapshots=[("s", 1, 1)]), root("plain/deep"), child(clone, "plain/a", origin="plain/a@s")
        )
        wanted = [{"name": "plain/a", "recursive": True}, {"name": clone}]
        done = four(zfs, tmp_path, datasets=wanted, state="absent")
        assert done.plan.failures == ()
        assert done.plan.actions == [f"Destroy '{clone}'", "Destroy 'plain/a'"]


class TestReplica:
    def refused(self, zfs_nodes: list[Node], tmp_path: Path) -> bool:
        done = four(world(*zfs_nodes), tmp_path, name="plain/r", key={"value": HEX["c"]})
        return bool(done.plan.failures)

    def test_its_first_snapshot_is_gone_but_something_is_younger_than_an_increment(self, tmp_path: Path) -> None:
        older = root("plain/r", "b", creation=5000, createtxg=50, snapshots=[("hourly", 8000, 90)])
        assert self.refused([older, root("plain/a", creation=8001, createtxg=80)], tmp_path)

    def test_it_has_properties_from_a_stream(self, tmp_path: Path) -> None:
        assert self.refused([replica("plain/r", "b")], tmp_path)

    def test_no_increment_comes_where_there_is_no_snapshot(self, tmp_path: Path) -> None:
        assert not self.refused([replica("plain/r", "b", snapshots=[])], tmp_path)

    def test_one_may_come_below_it(self, tmp_path: Path) -> None:
        assert self.refused([replica("plain/r", "b", snapshots=[]), child("plain/r/c", "plain/r")], tmp_path)

    def test_one_may_come_to_what_uses_its_key_elsewhere(self, tmp_path: Path) -> None:
        assert self.refused([replica("plain/r", "b", snapshots=[]), child("plain/z", "plain/r")], tmp_path)

    def test_one_may_come_below_what_uses_its_key(self, tmp_path: Path) -> None:
        zfs = world(
            replica("plain/r", "b"),
            child("plain/r/c", "plain/r", received=True),
            child("plain/r/c/d", "plain/r", received=True, snapshots=[("s", 10**10, 200)]),
        )
        done = four(zfs, tmp_path, name="plain/r/c", key={"value": HEX["c"]})
        assert "received as a raw stream" in done.plan.failures[0].message

    def test_what_was_to_be_destroyed_may_stay(self, tmp_path: Path) -> None:
        zfs = world(
            replica("plain/r", "b", snapshots=[]), child("plain/r/c", "plain/r", snapshots=[("s", 10**10, 200)])
        )
        gone = {"name": "plain/r/c", "state": "absent", "recursive": True}
        entries: list[dict[str, t.Any]] = [{"name": "plain/r", "key": {"value": HEX["c"]}}, gone]
        done = run(zfs, tmp_path, wishes(datasets=entries), check=True)
        assert [one.branch for one in done.plan.failures] == ["plain/r"]

    def test_its_first_stream_has_not_come_whole(self, tmp_path: Path) -> None:
        assert self.refused([root("plain/r", "b", inconsistent=True)], tmp_path)

    def test_what_is_made_here_does_not_take_its_key(self, tmp_path: Path) -> None:
        zfs = world(replica("plain/r", "a"), root("plain/r/l", "b"))
        done = four(zfs, tmp_path, name="plain/r/l", state="inherited")
        (failure,) = done.plan.failures
        assert "'plain/r/l' can't take the key of 'plain/r'" in failure.message
        assert zfs.world.nodes["plain/r/l"].root == "plain/r/l"
        done = four(zfs, tmp_path, name="plain/r/l", state="inherited", detach_replica=True)
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/r/l"].root == "plain/r"

    @pytest.mark.parametrize("options", [{}, {"detach_replica": True}, {"key": {"value": HEX["c"]}}])
    def test_what_is_created_with_its_key_is_warned_of(self, tmp_path: Path, options: dict[str, t.Any]) -> None:
        zfs = world(replica("plain/r", "a"))
        done = four(zfs, tmp_path, name="plain/r/l", policy="openzfs", **options)
        assert done.plan.failures == ()
        warned = [one for one in done.plan.warnings if "no key would open 'plain/r/l' any more" in one]
        assert len(warned) == (0 if options else 1)

    @pytest.mark.parametrize(
        ("creation", "createtxg"), [(9000, 91), (9000, 90), (8000, 80)], ids=["younger", "together", "as old"]
    )
    def test_a_snapshot_of_its_own(self, tmp_path: Path, creation: int, createtxg: int) -> None:
        mine = root("plain/r", "b", creation=5000, createtxg=50, snapshots=[("hourly", 8000, 90)])
        assert not self.refused([mine, root("plain/a", creation=creation, createtxg=createtxg)], tmp_path)
