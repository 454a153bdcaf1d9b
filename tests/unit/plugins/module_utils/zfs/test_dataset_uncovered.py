# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an unlock mounts beyond what its key opens below the root: filesystems in its folders, and clones elsewhere."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs import dataset_actions
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import (
    DatasetZfs,
    Node,
    Refusal,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    child,
    four,
    locked,
    root,
    run,
    wishes,
    world,
)

KEYS = {f"plain/{name}": HEX[letter] for name, letter in (("a", "a"), ("a/b", "b"), ("x", "b"), ("clone/sub", "c"))}
A_KEY = {"value": HEX["a"]}


pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_actions, "BUSY_PATIENCE", 0.0)


def mounted(zfs: DatasetZfs) -> list[str]:
    return sorted(name for name, node in zfs.world.nodes.items() if node.mounted and name != "plain")


def clone(name: str, of: str = "plain/a", **facts: t.Any) -> Node:
    return child(name, of, mounted=False, origin=f"{of}@s", **facts)


class TestPlainBelowTwoRoots:
    """``p`` lies in a folder of ``b``, and that in one of ``a``."""

    def three(self, a: bool, b: bool) -> DatasetZfs:
        roots = [root("plain/a", "a"), root("plain/a/b", "b")]
        nodes = [one if is_open else locked(one) for one, is_open in zip(roots, (a, b))]
        return world(*nodes, Node("plain/a/b/p", mounted=b))

    def test_all_are_opened_from_the_top(self, tmp_path: Path) -> None:
        zfs = self.three(False, False)
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, manifest=KEYS)
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain/a", "plain/a/b", "plain/a/b/p"]

    @pytest.mark.parametrize(
        "first",
        [
            {"name": "plain/a", "state": "unlocked", "key": A_KEY},
            {"name": "plain/a", "key": A_KEY},
            {
                "datasets": [
                    {"name": "plain/a", "state": "unlocked", "key": A_KEY},
                    {"name": "plain/a/b", "state": "locked"},
                ]
            },
        ],
        ids=["unlocked", "present", "kept locked"],
    )
    @pytest.mark.parametrize("is_open", [False, True])
    def test_it_waits_for_the_lower_root(self, tmp_path: Path, first: dict[str, t.Any], is_open: bool) -> None:
        zfs = self.three(is_open, False)
        assert four(zfs, tmp_path, **first).plan.failures == ()
        assert mounted(zfs) == ["plain/a"]
        assert four(zfs, tmp_path, name="plain/a/b", state="unlocked", manifest=KEYS).plan.failures == ()
        assert mounted(zfs) == ["plain/a", "plain/a/b", "plain/a/b/p"]

    def test_the_lower_root_takes_it_along_when_it_is_locked(self, tmp_path: Path) -> None:
        zfs = self.three(True, True)
        entries = [
            {"name": "plain/a", "state": "unlocked", "recursive": True},
            {"name": "plain/a/b", "state": "locked"},
        ]
        done = four(zfs, tmp_path, datasets=entries)
        assert (done.plan.failures, mounted(zfs)) == ((), ["plain/a"])


class TestByFolders:
    """What a lock unmounts for its folder, an unlock finds by that, whatever its name."""

    @pytest.mark.parametrize(
        "node",
        [
            Node("plain/below", mounted=True, properties={"mountpoint": "/nasops-test/plain/a/deeper"}),
            Node("plain/a/inside", mounted=True),
        ],
        ids=["a name beside", "a name below"],
    )
    def test_plain_ones(self, tmp_path: Path, node: Node) -> None:
        zfs = world(root("plain/a", "a"), node)
        four(zfs, tmp_path, name="plain", state="locked", recursive=True, policy="openzfs")
        assert mounted(zfs) == []
        four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, manifest=KEYS)
        assert mounted(zfs) == ["plain/a", node.name]

    def test_one_in_another(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a", "a"), Node("plain/a/p", mounted=True), Node("plain/a/p/q", mounted=True))
        four(zfs, tmp_path, name="plain/a", state="locked")
        four(zfs, tmp_path, name="plain/a", state="unlocked", manifest=KEYS)
        assert mounted(zfs) == ["plain/a", "plain/a/p", "plain/a/p/q"]

    def test_a_clone_that_needs_no_key_of_this_root(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a", "a"), root("plain/x", "b"), clone("plain/a/c", "plain/x"))
        zfs.world.nodes["plain/a/c"].mounted = True
        four(zfs, tmp_path, name="plain/a", state="locked")
        assert mounted(zfs) == ["plain/x"]
        four(zfs, tmp_path, name="plain/a", state="unlocked", manifest=KEYS)
        assert mounted(zfs) == ["plain/a", "plain/a/c", "plain/x"]

    def test_without_mounts_none_is_mounted(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a", "a")), Node("plain/a/p"))
        four(zfs, tmp_path, name="plain/a", state="unlocked", mount=False, manifest=KEYS)
        assert mounted(zfs) == []

    def test_one_that_lies_in_no_folder_of_it_is_left_alone(self, tmp_path: Path) -> None:
        zfs = world(
            locked(root("plain/a", "a")), Node("plain/a/p", properties={"mountpoint": "/srv/p"}), Node("plain/b")
        )
        four(zfs, tmp_path, name="plain/a", state="unlocked", manifest=KEYS)
        assert mounted(zfs) == ["plain/a"]

    def test_what_the_key_opens_may_lie_in_one(self, tmp_path: Path) -> None:
        """``e`` lies in ``p`` and that in ``a``, and a root in ``p`` as well."""
        zfs = world(
            root("plain/a", "a"),
            Node("plain/a/p", mounted=True),
            child("plain/a/e", "plain/a", properties={"mountpoint": "/nasops-test/plain/a/p/e"}),
            root("plain/a/p/r", "b"),
        )
        everything = mounted(zfs)
        four(zfs, tmp_path, name="plain/a", state="locked", recursive=True, policy="openzfs")
        assert mounted(zfs) == []
        keys = {"plain/a": HEX["a"], "plain/a/p/r": HEX["b"]}
        done = four(zfs, tmp_path, name="plain/a", state="unlocked", recursive=True, keys=keys)
        assert (done.plan.failures, mounted(zfs)) == ((), everything)

    def test_one_with_an_entry_that_unlocks_what_is_below_it(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a", "a")), Node("plain/a/p"), locked(root("plain/a/p/r", "b")))
        entries = [{"name": name, "state": "unlocked", "recursive": True} for name in ("plain/a/p", "plain")]
        keys = {"plain/a": HEX["a"], "plain/a/p/r": HEX["b"]}
        done = four(zfs, tmp_path, datasets=entries, keys=keys)
        assert (done.plan.failures, mounted(zfs)) == ((), ["plain/a", "plain/a/p", "plain/a/p/r"])

    @pytest.mark.parametrize("kind", ["plain", "child"])
    def test_one_that_moves_with_what_it_lies_in(self, tmp_path: Path, kind: str) -> None:
        lower = Node("plain/a/p") if kind == "plain" else child("plain/a/p", "plain/a", mounted=False)
        old, new = tmp_path / "old", tmp_path / "new"
        (old / "p").mkdir(parents=True)
        (old / "p" / "file").touch()
        zfs = world(locked(root("plain/a", "a", properties={"mountpoint": str(old)})), lower)
        wanted = {"key": A_KEY, "properties": {"mountpoint": str(new)}}
        done = four(zfs, tmp_path / "keys", name="plain/a", **wanted)
        assert (done.plan.failures, mounted(zfs)) == ((), ["plain/a", "plain/a/p"])

    @pytest.mark.parametrize("below", [False, True], ids=["itself", "what is above it"])
    @pytest.mark.parametrize("dirty", ["old", "new"])
    def test_one_that_another_entry_moves_afterwards(self, tmp_path: Path, dirty: str, below: bool) -> None:
        """It is mounted at its old place before, so what is there is in its way."""
        place = tmp_path / dirty / "c" if below else tmp_path / dirty
        place.mkdir(parents=True)
        (place / "file").touch()
        zfs = world(
            locked(root("plain/a", "a", properties={"mountpoint": "none"})),
            child("plain/a/b", "plain/a", mounted=False, properties={"mountpoint": str(tmp_path / "old")}),
            *([child("plain/a/b/c", "plain/a", mounted=False)] if below else []),
        )
        entries = [
            {"name": "plain/a", "key": A_KEY},
            {"name": "plain/a/b", "properties": {"mountpoint": str(tmp_path / "new")}},
        ]
        done = run(zfs, tmp_path / "keys", wishes(datasets=entries))
        failed = {failure.branch: failure.message for failure in done.plan.failures}
        assert f"the mountpoint {tmp_path}/{dirty}" in failed["plain/a" if dirty == "old" else "plain/a/b"]
        assert zfs.world.nodes["plain/a"].loaded == (dirty == "new")

    def test_one_that_the_task_destroys(self, tmp_path: Path) -> None:
        zfs = world(
            locked(root("plain/a", "a")),
            Node("plain/d", mounted=True),
            Node("plain/d/p", properties={"mountpoint": "/nasops-test/plain/a/p"}),
        )
        entries = [
            {"name": "plain/d", "state": "absent", "recursive": True},
            {"name": "plain/a", "state": "unlocked", "key": A_KEY},
        ]
        assert four(zfs, tmp_path, datasets=entries).plan.failures == ()
        assert mounted(zfs) == ["plain/a"]

    def test_another_that_fails_does_not_hold_one_up(self, tmp_path: Path) -> None:
        class Zfs(DatasetZfs):
            """Has a filesystem that is damaged."""

            def _mount(self, words: list[str], stdin: bytes | None) -> None:
                if words[-1] == "plain/a/e":
                    raise Refusal("cannot mount 'plain/a/e': I/O error")
                super()._mount(words, stdin)

        zfs = Zfs(
            world(locked(root("plain/a", "a")), child("plain/a/e", "plain/a", mounted=False), Node("plain/a/p")).world
        )
        done = run(zfs, tmp_path, wishes(name="plain/a", state="unlocked", key=A_KEY))
        assert "Not mounted: 'plain/a/e'" in done.plan.failures[0].message
        assert mounted(zfs) == ["plain/a", "plain/a/p"]


class TestOrderOfEntries:
    def test_what_lies_below_another_entry_comes_after_it(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a", "a")), locked(root("plain/a/b", "b")), locked(root("plain/a/b/c", "c")))
        entries = [{"name": "plain", "state": "unlocked", "recursive": True}, {"name": "plain/a", "state": "unlocked"}]
        keys = {"plain/a": HEX["a"], "plain/a/b": HEX["b"], "plain/a/b/c": HEX["c"]}
        done = four(zfs, tmp_path, datasets=entries, manifest=keys)
        assert (done.plan.failures, mounted(zfs)) == ((), ["plain/a", "plain/a/b", "plain/a/b/c"])

    def test_what_lies_in_a_folder_of_another_entry_comes_after_it(self, tmp_path: Path) -> None:
        lower = root("plain/x", "b", properties={"mountpoint": "/nasops-test/plain/z/x"})
        zfs = world(locked(root("plain/z", "a")), locked(lower), clone("plain/c", "plain/z"))
        entries = [{"name": "plain", "state": "unlocked", "recursive": True}, {"name": "plain/z", "state": "unlocked"}]
        done = four(zfs, tmp_path, datasets=entries, manifest={"plain/z": HEX["a"], "plain/x": HEX["b"]})
        assert (done.plan.failures, mounted(zfs)) == ((), ["plain/c", "plain/x", "plain/z"])

    def test_roots_below_a_clone_come_after_what_opens_it(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/z", "a")), clone("plain/c", "plain/z"), locked(root("plain/c/r", "b")))
        keys = {"plain/z": HEX["a"], "plain/c/r": HEX["b"]}
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, keys=keys)
        assert (done.plan.failures, mounted(zfs)) == ((), ["plain/c", "plain/c/r", "plain/z"])


class TestPlainOnesDecideNothing:
    """Whether a root stays open depends on what its key opens."""

    def test_one_that_can_not_be_mounted_keeps_no_root_locked(self, tmp_path: Path) -> None:
        place = tmp_path / "a" / "p"
        place.mkdir(parents=True)
        (place / "file").touch()
        plain = Node("plain/p", properties={"mountpoint": str(place)})
        upper = root("plain/a", "a", mounted=True, properties={"mountpoint": str(tmp_path / "a")})
        zfs = world(upper, plain)
        done = four(zfs, tmp_path / "keys", name="plain/a", state="unlocked")
        assert "'plain/p' can't be mounted" in done.plan.failures[0].message
        assert zfs.world.nodes["plain/a"].loaded

    def test_one_that_can_be_mounted_keeps_none_open(self, tmp_path: Path) -> None:
        place = tmp_path / "e"
        place.mkdir()
        (place / "file").touch()
        zfs = world(
            locked(root("plain/a", "a", properties={"canmount": "off", "mountpoint": str(tmp_path)})),
            child("plain/a/e", "plain/a", mounted=False, properties={"mountpoint": str(place)}),
            Node("plain/a/p", properties={"mountpoint": str(tmp_path / "q")}),
        )
        done = four(zfs, tmp_path / "keys", name="plain/a", state="unlocked", manifest=KEYS)
        assert "'plain/a' stays locked" in done.plan.failures[0].message
        assert not zfs.world.nodes["plain/a"].loaded


class TestClones:
    def test_a_root_in_the_folder_of_one_comes_after_it(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a", "a")), clone("plain/clone"), locked(root("plain/clone/sub", "c")))
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, manifest=KEYS)
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain/a", "plain/clone", "plain/clone/sub"]

    def test_a_plain_filesystem_in_the_folder_of_one_comes_with_it(self, tmp_path: Path) -> None:
        zfs = world(locked(root("plain/a", "a")), clone("plain/clone"), Node("plain/clone/p"))
        four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, manifest=KEYS)
        assert mounted(zfs) == ["plain/a", "plain/clone", "plain/clone/p"]

    @pytest.mark.parametrize("state", ["unlocked", "present"])
    @pytest.mark.parametrize("of", ["plain/a", "plain/z"])
    def test_the_root_may_have_an_entry_of_its_own(self, tmp_path: Path, state: str, of: str) -> None:
        zfs = world(locked(root(of, "a")), Node("plain/b", mounted=True), clone("plain/b/c", of))
        entries = [
            {"name": "plain/b", "state": "unlocked", "recursive": True},
            {"name": of, "state": state, "key": A_KEY},
        ]
        done = four(zfs, tmp_path, datasets=entries)
        assert done.plan.failures == ()
        assert mounted(zfs) == sorted([of, "plain/b", "plain/b/c"])

    @pytest.mark.parametrize("entry", [{"state": "locked"}, {"state": "unlocked", "mount": False}])
    def test_one_that_would_lie_in_a_bare_folder_waits(self, tmp_path: Path, entry: dict[str, t.Any]) -> None:
        upper = root("plain/x", "b")
        zfs = world(root("plain/a", "a"), upper if entry["state"] == "locked" else locked(upper), clone("plain/x/c"))
        entries = [{"name": "plain", "state": "unlocked", "recursive": True}, {"name": "plain/x", **entry}]
        assert four(zfs, tmp_path, datasets=entries, manifest=KEYS).plan.failures == ()
        assert mounted(zfs) == ["plain/a"]
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, manifest=KEYS)
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain/a", "plain/x", "plain/x/c"]

    def test_one_in_a_folder_that_is_opened_only_later(self, tmp_path: Path) -> None:
        """The clone of ``a`` lies in ``x``, and that in ``a``."""
        lower = locked(root("plain/x", "b", properties={"mountpoint": "/nasops-test/plain/a/x"}))
        zfs = world(
            locked(root("plain/a", "a")), lower, clone("plain/c", properties={"mountpoint": "/nasops-test/plain/a/x/c"})
        )
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, manifest=KEYS)
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain/a", "plain/c", "plain/x"]
