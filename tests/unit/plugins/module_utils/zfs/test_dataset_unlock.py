# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unlocking: what is mounted with it, by which options, and what the keys lie on that it needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import dataset_actions, keystore
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_read import Survey
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import (
    DatasetZfs,
    Node,
    Refusal,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    PASSPHRASES,
    child,
    four,
    locked,
    passphrase_root,
    root,
    run,
    wishes,
    world,
)

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_actions, "BUSY_PATIENCE", 0.0)
    monkeypatch.setattr(dataset_actions, "NODE_PATIENCE", 0.0)


def mounted(zfs: DatasetZfs) -> list[str]:
    return sorted(name for name, node in zfs.world.nodes.items() if node.mounted)


class TestClonesBesideTheirOrigin:
    """They are opened by its key, and do not lie below it."""

    def closed(self) -> DatasetZfs:
        clone = child("plain/clone", "plain/a", mounted=False, origin="plain/a@s")
        return world(locked(root("plain/a", "a")), clone)

    def test_they_are_mounted_with_all_that_is_below_the_described_one(self, tmp_path: Path) -> None:
        zfs = self.closed()
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, keys={"plain/a": HEX["a"]})
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain", "plain/a", "plain/clone"]

    def test_they_are_left_alone_with_their_origin_only(self, tmp_path: Path) -> None:
        zfs = self.closed()
        four(zfs, tmp_path, name="plain/a", state="unlocked", recursive=True, keys={"plain/a": HEX["a"]})
        assert mounted(zfs) == ["plain", "plain/a"]

    def test_they_are_not_touched_when_their_origin_stays_locked(self, tmp_path: Path) -> None:
        zfs = self.closed()
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, keys={"plain/a": HEX["b"]})
        assert [failure.branch for failure in done.plan.failures] == ["plain/a"]
        assert mounted(zfs) == ["plain"]

    def test_one_that_can_not_be_mounted_fails_alone(self, tmp_path: Path) -> None:
        zfs = self.closed()
        place = tmp_path / "clone"
        place.mkdir()
        (place / "file").touch()
        zfs.world.nodes["plain/clone"].properties["mountpoint"] = str(place)
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, keys={"plain/a": HEX["a"]})
        (failure,) = done.plan.failures
        assert "'plain/clone' can't be mounted" in failure.message and "is not empty" in failure.message
        assert mounted(zfs) == ["plain", "plain/a"]

    def test_their_own_entry_counts(self, tmp_path: Path) -> None:
        zfs = self.closed()
        entries = [
            {"name": "plain", "state": "unlocked", "recursive": True},
            {"name": "plain/clone", "state": "unlocked", "mount": False},
        ]
        four(zfs, tmp_path, datasets=entries, keys={"plain/a": HEX["a"]})
        assert mounted(zfs) == ["plain", "plain/a"]


def test_plain_filesystems_in_its_folders_come_and_go_with_it(tmp_path: Path) -> None:
    zfs = world(
        root("plain/a", "a"),
        Node("plain/a/inside", mounted=True),
        Node("plain/a/beside", mounted=True, properties={"mountpoint": "/srv/beside"}),
    )
    four(zfs, tmp_path, name="plain/a", state="locked")
    assert mounted(zfs) == ["plain", "plain/a/beside"]
    four(zfs, tmp_path, name="plain/a", state="unlocked", keys={"plain/a": HEX["a"]})
    assert mounted(zfs) == ["plain", "plain/a", "plain/a/beside", "plain/a/inside"]


class TestOwnOptionOfAChild:
    """What is in the way of a child is dealt with as the entry of the child says, whoever opens it."""

    def both(self, tmp_path: Path, **options: dict[str, str]) -> tuple[Outcome[Survey], list[str]]:
        place = tmp_path / "b"
        place.mkdir()
        (place / "file").write_text("x")
        top = locked(root("plain/a", "a", properties={"mountpoint": "none"}))
        zfs = world(top, child("plain/a/b", "plain/a", mounted=False, properties={"mountpoint": str(place)}))
        entries = [
            {"name": "plain/a", "state": "unlocked", "key": {"value": HEX["a"]}, **options["parent"]},
            {"name": "plain/a/b", "state": "present", **options["child"]},
        ]
        return four(zfs, tmp_path / "keys", datasets=entries), sorted(os.listdir(tmp_path))

    def test_it_is_not_moved_aside(self, tmp_path: Path) -> None:
        done, names = self.both(tmp_path, parent={"on_nonempty_mountpoint": "move_aside"}, child={})
        assert names == ["b"]
        assert "plain/a" in [failure.branch for failure in done.plan.failures]

    def test_it_is_moved_aside(self, tmp_path: Path) -> None:
        done, names = self.both(tmp_path, parent={}, child={"on_nonempty_mountpoint": "move_aside"})
        assert names == ["b.aside-1"]
        assert done.plan.failures == ()


def test_when_it_can_be_neither_mounted_nor_locked_again_both_are_told(tmp_path: Path) -> None:
    volume = child("plain/a/v", "plain/a", kind="volume", volsize=16384, mounted=False, busy=True)
    zfs = world(locked(root("plain/a", "a")), volume)
    zfs.refuses_mounts = True
    done = run(zfs, tmp_path, wishes(name="plain/a", state="unlocked", key={"value": HEX["a"]}))
    (failure,) = done.plan.failures
    assert "Not mounted: 'plain/a': cannot mount" in failure.message
    assert "'plain/a' could not be locked again: 'plain/a' is in use" in failure.message


class TestKeyFileOnWhatTheTaskOpens:
    """It shows once that is mounted."""

    class Zfs(DatasetZfs):
        """Has key files on a filesystem."""

        shows: dict[str, str] = {}
        later: dict[str, tuple[str, str]] = {}
        fails = ""

        def _mount(self, words: list[str], stdin: bytes | None) -> None:
            if words[-1] == self.fails:
                raise Refusal(f"cannot mount '{self.fails}': permission denied")
            super()._mount(words, stdin)
            shown = self.shows.items() if words[-1] == "plain/z" else ()
            for path, text in (*shown, *([self.later[words[-1]]] if words[-1] in self.later else ())):
                Path(path).parent.mkdir(exist_ok=True)
                Path(path).write_text(text + "\n")

    def host(self, tmp_path: Path, text: str | None) -> TestKeyFileOnWhatTheTaskOpens.Zfs:
        """The name of what holds the key comes after those of what is opened by it."""
        place = tmp_path / "z"
        file = str(place / "b.key")
        holder = passphrase_root("plain/z", PASSPHRASES[0], properties={"mountpoint": str(place)})
        plain = world(
            locked(holder),
            locked(root("plain/b", "b", location=keystore.location_of(file))),
            locked(root("plain/b/c", "c")),
        )
        zfs = TestKeyFileOnWhatTheTaskOpens.Zfs(plain.world)
        zfs.shows = {} if text is None else {file: text}
        return zfs

    def unlock(self, zfs: DatasetZfs, tmp_path: Path, check: bool = False) -> Outcome[Survey]:
        keys = {"plain/z": PASSPHRASES[0], "plain/b/c": HEX["c"]}
        wanted = wishes(name="plain", state="unlocked", recursive=True, keys=keys)
        return run(zfs, tmp_path / "keystore", wanted, check)

    def test_one_run_opens_all(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["b"])
        done = self.unlock(zfs, tmp_path)
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain", "plain/b", "plain/b/c", "plain/z"]
        again = self.unlock(zfs, tmp_path)
        assert (again.plan.steps, again.plan.failures) == ((), ())

    def test_check_mode_says_that_it_can_not_look_that_far(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["b"])
        done = self.unlock(zfs, tmp_path, check=True)
        assert done.plan.failures == ()
        assert any("whether there are these key files shows once" in one for one in done.plan.warnings)
        assert any(str(tmp_path / "z" / "b.key") in one for one in done.plan.warnings)

    def test_one_that_is_not_there_even_then_is_told(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, None)
        done = self.unlock(zfs, tmp_path)
        assert [failure.branch for failure in done.plan.failures] == ["plain/b", "plain/b/c"]
        assert "b.key of 'plain/b' does not exist" in done.plan.failures[0].message
        assert mounted(zfs) == ["plain", "plain/z"]
        again = self.unlock(zfs, tmp_path)
        assert [failure.branch for failure in again.plan.failures] == ["plain/b", "plain/b/c"]

    def test_one_that_does_not_show_since_nothing_could_be_mounted_is_told(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["b"])
        zfs.refuses_mounts = True
        done = self.unlock(zfs, tmp_path)
        assert sorted(failure.branch for failure in done.plan.failures) == ["plain/b", "plain/b/c", "plain/z"]
        assert zfs.commands.count(("zfs", "mount", "plain/z")) == 1

    def test_with_the_wrong_key_in_it_the_other_is_open(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["e"])
        done = self.unlock(zfs, tmp_path)
        assert "is not the one that opens 'plain/b'" in done.plan.failures[0].message
        assert mounted(zfs) == ["plain", "plain/z"]

    def test_what_lies_in_a_folder_that_failed_meanwhile_is_not_attempted(self, tmp_path: Path) -> None:
        """The key of w/b is on z, and w itself fails when it is to be mounted."""
        zfs = self.host(tmp_path, HEX["b"])
        zfs.world.nodes["plain/w"] = locked(root("plain/w", "d"))
        zfs.world.nodes["plain/w/b"] = locked(root("plain/w/b", "b"))
        zfs.fails = "plain/w"
        entries = [
            {"name": "plain/z", "state": "unlocked", "key": {"value": PASSPHRASES[0]}},
            {"name": "plain/w", "state": "unlocked", "key": {"value": HEX["d"]}},
            {"name": "plain/w/b", "state": "unlocked", "key": {"file": str(tmp_path / "z" / "b.key")}},
        ]
        done = run(zfs, tmp_path / "keystore", wishes(datasets=entries))
        failed = {failure.branch: failure for failure in done.plan.failures}
        assert sorted(failed) == ["plain/w", "plain/w/b"]
        assert failed["plain/w/b"].message == "Not attempted, since 'plain/w' failed."
        assert mounted(zfs) == ["plain", "plain/z"]

    def test_other_failures_are_told_once(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["b"])
        zfs.world.nodes["plain/d"] = locked(root("plain/d", "d"))
        zfs.world.nodes["plain/d/e"] = locked(root("plain/d/e", "d"))
        keys = {"plain/z": PASSPHRASES[0], "plain/b/c": HEX["c"], "plain/d": HEX["e"], "plain/d/e": HEX["d"]}
        wanted = wishes(name="plain", state="unlocked", recursive=True, keys=keys)
        done = run(zfs, tmp_path / "keystore", wanted)
        assert [failure.branch for failure in done.plan.failures] == ["plain/d", "plain/d/e"]
        assert mounted(zfs) == ["plain", "plain/b", "plain/b/c", "plain/z"]

    def test_what_is_described_below_goes_along(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["b"])
        zfs.world.nodes["plain/b/ch"] = child("plain/b/ch", "plain/b", mounted=False)
        entries = [
            {"name": "plain/z", "state": "unlocked", "key": {"value": PASSPHRASES[0]}},
            {"name": "plain/b", "state": "unlocked"},
            {"name": "plain/b/ch", "state": "unlocked"},
        ]
        done = run(zfs, tmp_path / "keystore", wishes(datasets=entries))
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain", "plain/b", "plain/b/ch", "plain/z"]

    def test_one_key_file_lies_on_what_another_opens(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["b"])
        place = tmp_path / "b"
        zfs.world.nodes["plain/b"].properties["mountpoint"] = str(place)
        file = str(place / "a.key")
        zfs.world.nodes["plain/a"] = locked(root("plain/a", "a", location=keystore.location_of(file)))
        zfs.later = {"plain/b": (file, HEX["a"])}
        done = self.unlock(zfs, tmp_path)
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain", "plain/a", "plain/b", "plain/b/c", "plain/z"]

    def test_a_rotation_is_not_done_again_for_a_mount_that_waits(self, tmp_path: Path) -> None:
        """The mountpoint of r lies in b, whose key is on z; the key of r itself is at hand."""
        zfs = self.host(tmp_path, HEX["b"])
        place = "/nasops-test/plain/b/r"
        zfs.world.nodes["plain/r"] = root("plain/r", "d", mounted=False, properties={"mountpoint": place})
        entries = [
            {"name": "plain/z", "state": "unlocked", "key": {"value": PASSPHRASES[0]}},
            {"name": "plain/b", "state": "unlocked"},
            {"name": "plain/r", "key": {"file": str(tmp_path / "r.key"), "generate": True}, "rotate": "always"},
        ]
        done = run(zfs, tmp_path / "keystore", wishes(datasets=entries))
        assert sum("Change the key of 'plain/r'" in action for action in done.plan.actions) == 1
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain", "plain/b", "plain/r", "plain/z"]

    def test_a_child_in_its_folder_is_mounted_in_the_end(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["b"])
        zfs.world.nodes["plain/d"] = locked(root("plain/d", "d"))
        place = "/nasops-test/plain/b/x"
        zfs.world.nodes["plain/d/x"] = child("plain/d/x", "plain/d", mounted=False, properties={"mountpoint": place})
        keys = {"plain/z": PASSPHRASES[0], "plain/b/c": HEX["c"], "plain/d": HEX["d"]}
        done = run(zfs, tmp_path / "keystore", wishes(name="plain", state="unlocked", recursive=True, keys=keys))
        assert done.plan.failures == ()
        assert mounted(zfs) == ["plain", "plain/b", "plain/b/c", "plain/d", "plain/d/x", "plain/z"]

    def test_a_rotation_at_each_run_is_done_once(self, tmp_path: Path) -> None:
        zfs = self.host(tmp_path, HEX["b"])
        entries = [
            {"name": "plain/z", "state": "unlocked", "key": {"value": PASSPHRASES[0]}},
            {"name": "plain/b", "key": {"file": str(tmp_path / "new.key"), "generate": True}, "rotate": "always"},
        ]
        zfs.world.nodes.pop("plain/b/c")
        done = run(zfs, tmp_path / "keystore", wishes(datasets=entries))
        assert done.plan.failures == ()
        assert sum("Change the key of 'plain/b'" in action for action in done.plan.actions) == 1


@pytest.mark.parametrize(
    "ending,words",
    [("\r\n", "ends with a carriage return"), (" \n", "begins or ends with a blank")],
)
def test_what_strikes_the_eye_in_a_key_file_is_told(tmp_path: Path, ending: str, words: str) -> None:
    path = tmp_path / "k"
    path.write_bytes((PASSPHRASES[0] + ending).encode())
    zfs = world(locked(passphrase_root("plain/a", PASSPHRASES[0], location=keystore.location_of(str(path)))))
    for key in (None, {"file": str(path)}):
        done = four(zfs, tmp_path, name="plain/a", state="unlocked", key=key)
        assert words in str(done.plan.failures[0])
        assert PASSPHRASES[0] not in str(done.plan.failures[0])


def test_a_name_of_no_dataset_holds_up_no_other(tmp_path: Path) -> None:
    zfs = world(locked(root("plain/a", "a")))
    entries = [
        {"name": "plain/a@s", "state": "unlocked"},
        {"name": "plain//b", "state": "locked"},
        {"name": "plain/a", "state": "unlocked", "key": {"value": HEX["a"]}},
    ]
    done = four(zfs, tmp_path, datasets=entries)
    assert [failure.branch for failure in done.plan.failures] == ["plain/a@s", "plain//b"]
    assert "names a snapshot" in done.plan.failures[0].message
    assert mounted(zfs) == ["plain", "plain/a"]
