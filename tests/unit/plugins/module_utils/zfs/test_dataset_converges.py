# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole tasks on a model of a host: check equals apply, the second pair is silent, a killed run is finished."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import keystore
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_result import describe
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import DatasetZfs, Killed
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    PASSPHRASES,
    child,
    file_of,
    four,
    locked,
    passphrase_root,
    root,
    run,
    wishes,
    world,
)

pytestmark = pytest.mark.usefixtures("as_root")


class TestCreate:
    def test_own_key_in_a_file(self, tmp_path: Path) -> None:
        zfs = world()
        file = file_of(tmp_path, "plain/a")
        done = four(zfs, tmp_path, name="plain/a", key={"file": file, "generate": True})
        assert done.plan.actions == [
            f"Write the new random hex key of 'plain/a' to {file}",
            "Create filesystem 'plain/a', encrypted with aes-256-gcm and a key of its own",
            "Mount 'plain/a'",
        ]
        assert zfs.world.nodes["plain/a"].wrapped == Key("hex", Path(file).read_bytes()[:-1])
        assert zfs.world.nodes["plain/a"].location == f"file://{file}"

    def test_a_new_random_key_is_not_kept_in_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keystore, "memory_of", lambda _runner, _path, _source: "tmpfs")
        zfs = world()
        file = file_of(tmp_path, "plain/a")
        new = {"file": file, "generate": True}
        done = four(zfs, tmp_path, name="plain/a", key=new)
        assert "That is in memory (tmpfs)" in done.plan.failures[0].message
        assert (list(tmp_path.iterdir()), "plain/a" in zfs.world.nodes) == ([], False)
        # A key that was given is known elsewhere, and one that is in use is left as it is.
        four(zfs, tmp_path, name="plain/a", key={"file": file, "value": HEX["a"]})
        before = Path(file).read_bytes()
        assert four(zfs, tmp_path, name="plain/a", key=new).plan.actions == []
        done = four(zfs, tmp_path, name="plain/a", key=new, rotate="always")
        assert "That is in memory (tmpfs)" in done.plan.failures[0].message
        assert ([path.name for path in tmp_path.iterdir()], Path(file).read_bytes()) == ([Path(file).name], before)

    def test_a_parent_and_its_children_in_one_task(self, tmp_path: Path) -> None:
        zfs = world()
        four(
            zfs,
            tmp_path,
            datasets=[
                {"name": "plain/media/video", "key": {"format": "passphrase", "value": PASSPHRASES[0]}},
                {"name": "plain/media", "key": {"value": HEX["b"]}},
                {"name": "plain/media/documents"},
                {"name": "plain/media/disk", "volsize": "1M"},
            ],
        )
        nodes = zfs.world.nodes
        assert nodes["plain/media/documents"].root == nodes["plain/media/disk"].root == "plain/media"
        assert nodes["plain/media/video"].root == "plain/media/video"
        assert nodes["plain/media/disk"].volsize == 1 << 20

    def test_plain_text_only_when_asked_for(self, tmp_path: Path) -> None:
        zfs = world()
        done = four(zfs, tmp_path, name="plain/a")
        assert "would be stored in plain text" in done.plan.failures[0].message
        four(zfs, tmp_path, name="plain/a", cipher="off")
        assert zfs.world.nodes["plain/a"].cipher == "off"

    def test_a_volume_grows_in_blocks_and_never_shrinks(self, tmp_path: Path) -> None:
        zfs = world()
        four(zfs, tmp_path, name="plain/v", key={"value": HEX["a"]}, volsize="1000001")
        assert zfs.world.nodes["plain/v"].volsize == 62 * 16384
        four(zfs, tmp_path, name="plain/v", volsize="2000001")
        assert zfs.world.nodes["plain/v"].volsize == 123 * 16384
        done = four(zfs, tmp_path, name="plain/v", volsize="1M")
        assert "what is behind the new end would be lost" in done.plan.failures[0].message

    def test_a_volume_without_a_reservation(self, tmp_path: Path) -> None:
        zfs = world()
        options = {"name": "plain/v", "key": {"value": HEX["a"]}, "volsize": "1M"}
        run(zfs, tmp_path, wishes(**options, properties={"refreservation": None}))
        assert zfs.world.nodes["plain/v"].properties == {"refreservation": "none"}

    def test_policy(self, tmp_path: Path) -> None:
        zfs = world(passphrase_root("p", PASSPHRASES[0]))
        done = four(zfs, tmp_path, name="p/a", key={"value": HEX["a"]})
        assert "which is opened by a passphrase" in done.plan.failures[0].message
        done = four(zfs, tmp_path, name="p/a", cipher="off")
        assert "in plain text below the encrypted 'p'" in done.plan.failures[0].message
        assert not four(zfs, tmp_path, name="p/a", key={"value": HEX["a"]}, policy="openzfs").plan.failures

    def test_a_child_of_what_fails_is_skipped(self, tmp_path: Path) -> None:
        zfs = world()
        done = four(
            zfs,
            tmp_path,
            datasets=[{"name": "plain/a"}, {"name": "plain/a/b"}, {"name": "plain/c", "cipher": "off"}],
        )
        assert [(one.branch, one.because) for one in done.plan.failures] == [("plain/a", ""), ("plain/a/b", "plain/a")]
        assert "plain/c" in zfs.world.nodes


class TestUnlock:
    def test_with_children_and_their_own_keys(self, tmp_path: Path) -> None:
        zfs = world(
            locked(root("t")),
            child("t/inherits", "t", mounted=False),
            locked(passphrase_root("t/p", PASSPHRASES[0])),
            locked(root("t/q", "b")),
            locked(root("t/q/r", "c")),
        )
        done = four(
            zfs,
            tmp_path,
            name="t",
            state="unlocked",
            recursive=True,
            keys={
                "t": HEX["a"],
                "t/p": PASSPHRASES[0],
                "t/q": {"value": HEX["b"], "recursive": True},
                "t/q/r": HEX["c"],
            },
        )
        assert all(node.loaded for node in zfs.world.nodes.values() if node.wrapped)
        assert all(node.mounted for name, node in zfs.world.nodes.items() if name.startswith("t"))
        assert done.plan.actions[0] == "Unlock 't' with the key from keys['t']"

    def test_a_wrong_key_fails_that_root_and_skips_what_is_below(self, tmp_path: Path) -> None:
        zfs = world(locked(root("t")), locked(root("t/a", "b")), locked(root("t/a/b", "c")), locked(root("t/d", "d")))
        keys = {"t": HEX["a"], "t/a": HEX["f"], "t/a/b": HEX["c"], "t/d": HEX["d"].upper()}
        done = four(zfs, tmp_path, name="t", state="unlocked", recursive=True, keys=keys)
        assert [(one.branch, one.because) for one in done.plan.failures] == [("t/a", ""), ("t/a/b", "t/a")]
        assert zfs.world.nodes["t/d"].mounted and not zfs.world.nodes["t/a"].loaded

    def test_a_key_file_and_its_successor(self, tmp_path: Path) -> None:
        file = Path(file_of(tmp_path, "t"))
        file.write_bytes(HEX["a"].encode() + b"\n")
        Path(f"{file}.new").write_bytes(HEX["b"].encode() + b"\n")
        zfs = world(locked(root("t", "b", location=f"file://{file}")))
        four(zfs, tmp_path, name="t", state="unlocked")
        assert zfs.world.nodes["t"].mounted
        assert file.read_bytes() == HEX["b"].encode() + b"\n"
        assert not Path(f"{file}.new").exists()

    def test_a_dirty_mountpoint_keeps_it_locked(self, tmp_path: Path) -> None:
        dirty = tmp_path / "mnt"
        dirty.mkdir()
        (dirty / "file").touch()
        zfs = world(locked(root("t", properties={"mountpoint": str(dirty)})))
        done = four(zfs, tmp_path, name="t", state="unlocked", key={"value": HEX["a"]})
        assert "is not empty" in done.plan.failures[0].message
        assert not zfs.world.nodes["t"].loaded
        options = {"name": "t", "state": "unlocked", "key": {"value": HEX["a"]}}
        four(zfs, tmp_path, on_nonempty_mountpoint="move_aside", **options)
        assert zfs.world.nodes["t"].mounted
        assert (tmp_path / "mnt.aside-1" / "file").exists()

    def test_locked_parent(self, tmp_path: Path) -> None:
        zfs = world(locked(root("t")), locked(root("t/a", "b")))
        done = four(zfs, tmp_path, name="t/a", state="unlocked", key={"value": HEX["b"]})
        assert "'t/a' can't be unlocked while 't' above it is locked" in done.plan.failures[0].message

    def test_a_key_for_a_child_that_inherits(self, tmp_path: Path) -> None:
        zfs = world(root("t"), child("t/a", "t"))
        done = four(zfs, tmp_path, name="t/a", state="unlocked", key={"value": HEX["b"]})
        assert "it uses that of 't'" in done.plan.failures[0].message

    def test_nothing_more_than_two_processes_when_all_is_open(self, tmp_path: Path) -> None:
        zfs = world(root("t"), *(root(f"t/{number}", "b") for number in range(50)))
        run(zfs, tmp_path, wishes(name="t", state="unlocked", recursive=True))
        assert len(zfs.commands) == 2

    def test_the_result_shows_what_a_key_opened_below(self, tmp_path: Path) -> None:
        zfs = world(locked(root("t")), child("t/a", "t", mounted=False))
        wanted = wishes(state="unlocked", mount=False, keys={"t": HEX["a"]}, datasets=[{"name": "t"}, {"name": "t/a"}])
        done = run(zfs, tmp_path, wanted)
        assert [row["locked"] for row in describe(wanted, done.state.host)] == [False, False]


class TestLock:
    def test_with_children(self, tmp_path: Path) -> None:
        zfs = world(passphrase_root("t", PASSPHRASES[0]), child("t/a", "t"), passphrase_root("t/b", PASSPHRASES[1]))
        done = four(zfs, tmp_path, name="t", state="locked")
        assert "Set 'recursive: true'" in done.plan.failures[0].hint
        done = four(zfs, tmp_path, name="t", state="locked", recursive=True)
        assert done.plan.actions == ["Unmount 3 filesystems at and below 't'", "Lock 't/b'", "Lock 't'"]

    def test_roots_with_keys_only_by_name(self, tmp_path: Path) -> None:
        zfs = world(root("t"), root("t/a", "b"))
        done = four(zfs, tmp_path, name="t", state="locked", recursive=True)
        assert "t/a" in done.plan.failures[0].message
        datasets = [{"name": "t", "state": "locked"}, {"name": "t/a", "state": "locked"}]
        assert not four(zfs, tmp_path, datasets=datasets).plan.failures

    def test_a_mounted_clone_elsewhere(self, tmp_path: Path) -> None:
        zfs = world(root("t"), root("t/a", "b"), child("t/clone", "t/a", origin="t/a@s"))
        done = four(zfs, tmp_path, name="t/a", state="locked")
        assert "clones elsewhere use its key and are mounted: t/clone" in done.plan.failures[0].message


class TestInheritAndAbsent:
    def test_inherit(self, tmp_path: Path) -> None:
        file = Path(file_of(tmp_path, "t/a"))
        file.write_bytes(HEX["b"].encode() + b"\n")
        zfs = world(
            root("t"), locked(root("t/a", "b", location=f"file://{file}")), child("t/a/c", "t/a", mounted=False)
        )
        four(zfs, tmp_path, name="t/a", state="inherited")
        assert zfs.world.nodes["t/a/c"].root == "t"
        assert list(tmp_path.iterdir()) == []

    def test_a_raw_replica_is_refused(self, tmp_path: Path) -> None:
        zfs = world(root("t"), root("t/a", "b", creation=5000, createtxg=50, snapshots=[("s", 4000, 60)]))
        done = four(zfs, tmp_path, name="t/a", state="inherited")
        assert "received as a raw stream" in done.plan.failures[0].message
        done = four(zfs, tmp_path, name="t/a", key={"value": HEX["c"]})
        assert "received as a raw stream" in done.plan.failures[0].message
        four(zfs, tmp_path, name="t/a", state="inherited", detach_replica=True)
        assert zfs.world.nodes["t/a"].root == "t"

    def test_absent_spares_clones(self, tmp_path: Path) -> None:
        zfs = world(root("t"), child("t/a", "t", snapshots=[("s", 1, 1)]), child("t/clone", "t", origin="t/a@s"))
        done = four(zfs, tmp_path, name="t/a", state="absent", recursive=True)
        assert "t/clone" in done.plan.failures[0].message
        zfs.world.nodes["t/clone"].origin = "-"
        done = four(zfs, tmp_path, name="t/a", state="absent")
        assert "1 snapshot" in done.plan.failures[0].message
        four(zfs, tmp_path, name="t/a", state="absent", recursive=True)
        assert "t/a" not in zfs.world.nodes


class Task(t.NamedTuple):
    """What is asked for, and the keys that somebody knows besides the keystore: given to the task, or typed."""

    options: dict[str, t.Any]
    known: tuple[str, ...] = ()


def rotate(zfs: DatasetZfs, folder: Path) -> Task:
    file = file_of(folder, "t")
    Path(file).write_bytes(HEX["a"].encode() + b"\n")
    zfs.world.nodes["t"] = root("t", location=f"file://{file}")
    return Task({"name": "t", "key": {"value": HEX["b"], "file": file}}, (HEX["b"],))


def generate(zfs: DatasetZfs, folder: Path) -> Task:
    file = rotate(zfs, folder).options["key"]["file"]
    return Task({"name": "t", "rotate": "always", "key": {"file": file, "generate": True}})


def change_value(zfs: DatasetZfs, folder: Path) -> Task:
    zfs.world.nodes["t"] = root("t")
    return Task({"name": "t", "key": {"value": HEX["b"]}, "keys": {"t": HEX["a"]}}, (HEX["a"], HEX["b"]))


def to_passphrase(zfs: DatasetZfs, folder: Path) -> Task:
    rotate(zfs, folder)
    key_option = {"format": "passphrase", "value": PASSPHRASES[0], "iterations": 100000}
    return Task({"name": "t", "key": key_option}, (PASSPHRASES[0],))


def to_file(zfs: DatasetZfs, folder: Path) -> Task:
    zfs.world.nodes["t"] = passphrase_root("t", PASSPHRASES[0])
    key_option = {"format": "hex", "file": file_of(folder, "t"), "generate": True}
    return Task({"name": "t", "key": key_option, "keys": {"t": PASSPHRASES[0]}}, (PASSPHRASES[0],))


def to_passphrase_in_its_file(zfs: DatasetZfs, folder: Path) -> Task:
    file = rotate(zfs, folder).options["key"]["file"]
    return Task(
        {"name": "t", "key": {"format": "passphrase", "value": PASSPHRASES[0], "file": file}}, (PASSPHRASES[0],)
    )


def to_hex_in_its_file(zfs: DatasetZfs, folder: Path) -> Task:
    file = file_of(folder, "t")
    Path(file).write_bytes(PASSPHRASES[0].encode() + b"\n")
    zfs.world.nodes["t"] = passphrase_root("t", PASSPHRASES[0], location=f"file://{file}")
    return Task({"name": "t", "key": {"format": "hex", "file": file, "generate": True}})


def renamed(zfs: DatasetZfs, folder: Path) -> Task:
    file = file_of(folder, "former")
    Path(file).write_bytes(HEX["a"].encode() + b"\n")
    zfs.world.nodes["t"] = root("t", location=f"file://{file}")
    return Task({"name": "t", "key": {"file": file_of(folder, "t"), "generate": True}})


def inherit(zfs: DatasetZfs, folder: Path) -> Task:
    file = file_of(folder, "t/a")
    Path(file).write_bytes(HEX["a"].encode() + b"\n")
    zfs.world.nodes["t"] = root("t", "b")
    zfs.world.nodes["t/a"] = root("t/a", location=f"file://{file}")
    return Task({"datasets": [OWNER, {"name": "t/a", "state": "inherited"}]}, (HEX["b"],))


def inherit_locked(zfs: DatasetZfs, folder: Path) -> Task:
    task = inherit(zfs, folder)
    lock_all(zfs)
    return task


def create(zfs: DatasetZfs, folder: Path) -> Task:
    return Task({"name": "plain/a", "key": {"file": file_of(folder, "plain/a"), "generate": True}})


def own_root(zfs: DatasetZfs, folder: Path) -> Task:
    zfs.world.nodes["t"] = root("t", "b")
    zfs.world.nodes["t/a"] = child("t/a", "t")
    entry = {"name": "t/a", "key": {"file": file_of(folder, "t/a"), "generate": True}}
    return Task({"datasets": [OWNER, entry]}, (HEX["b"],))


def lock(zfs: DatasetZfs, folder: Path) -> Task:
    zfs.world.nodes["t"] = passphrase_root("t", PASSPHRASES[0])
    zfs.world.nodes["t/a"] = passphrase_root("t/a", PASSPHRASES[1])
    return Task({"name": "t", "state": "locked", "recursive": True}, PASSPHRASES)


def unlock(zfs: DatasetZfs, folder: Path) -> Task:
    zfs.world.nodes["t"] = locked(passphrase_root("t", PASSPHRASES[0]))
    zfs.world.nodes["t/a"] = locked(passphrase_root("t/a", PASSPHRASES[1]))
    keys = {"t": PASSPHRASES[0], "t/a": PASSPHRASES[1]}
    return Task({"name": "t", "state": "unlocked", "recursive": True, "keys": keys}, PASSPHRASES[:2])


# What opens the parent, if it has to be opened.
OWNER = {"name": "t", "key": {"value": HEX["b"]}}

Operation = t.Callable[[DatasetZfs, Path], Task]

OPERATIONS: tuple[Operation, ...] = (
    rotate,
    generate,
    change_value,
    to_passphrase,
    to_file,
    to_passphrase_in_its_file,
    to_hex_in_its_file,
    renamed,
    inherit,
    inherit_locked,
    create,
    own_root,
    lock,
    unlock,
)


class TestChange:
    @pytest.mark.parametrize("operation", [one for one in OPERATIONS if one is not generate])
    def test_it_converges(self, operation: Operation, tmp_path: Path) -> None:
        zfs = world()
        done = four(zfs, tmp_path, **operation(zfs, tmp_path).options)
        assert done.plan.changed and not done.plan.failures
        check_no_leftovers(tmp_path)

    def test_always_makes_a_new_key_every_time(self, tmp_path: Path) -> None:
        zfs = world()
        task = generate(zfs, tmp_path)
        for _time in range(2):
            before = zfs.world.nodes["t"].wrapped
            run(zfs, tmp_path, wishes(**task.options))
            assert zfs.world.nodes["t"].wrapped != before
            check_opens(zfs, tmp_path, task.known)
        check_no_leftovers(tmp_path)

    @pytest.mark.parametrize("restarted", [False, True])
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_killed_after_every_effect(
        self, operation: Operation, restarted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every change of ZFS and of the keystore is an effect; the run dies right after each of them in turn.

        The next run finds the host as it was left, or after a restart: locked, with nothing but the keystore and the
        keys that somebody knows.
        """
        survived = False
        lives = 0
        while not survived:
            folder = tmp_path / str(lives)
            folder.mkdir()
            zfs = world()
            options, known = operation(zfs, folder)
            before = set(zfs.world.nodes)
            count_file_effects(zfs, monkeypatch)
            zfs.lives = lives
            try:
                run(zfs, folder, wishes(**options))
                survived = True
            except Killed:
                lives += 1
            zfs.lives = None
            check_opens(zfs, folder, known)
            assert before <= set(zfs.world.nodes)
            if restarted:
                lock_all(zfs)
            done = run(zfs, folder, wishes(**options))
            assert not done.plan.failures
            check_opens(zfs, folder, known)
            check_no_leftovers(folder)
            assert before <= set(zfs.world.nodes)
            if options.get("rotate") != "always":
                assert run(zfs, folder, wishes(**options)).plan.actions == []
        assert lives >= (1 if operation is change_value else 2)


class TestAChangeOfFormatThatWasInterrupted:
    """The present key is in the successor of the key file, and the file has one of another format, or of the same."""

    @pytest.mark.parametrize("opened", [True, False], ids=["unlocked", "locked"])
    @pytest.mark.parametrize("rotate", ["when_different", "always"])
    @pytest.mark.parametrize(
        "wish",
        [
            {"format": "hex", "generate": True},
            {"format": "raw", "generate": True},
            {"format": "hex", "value": HEX["b"]},
            {"format": "hex", "value": HEX["a"]},
            {"format": "passphrase", "value": PASSPHRASES[1]},
        ],
        ids=["random hex", "random raw", "hex", "the former one", "passphrase"],
    )
    @pytest.mark.parametrize("present", ["passphrase", "hex"])
    def test_whatever_is_wanted_next(
        self, tmp_path: Path, present: str, wish: dict[str, t.Any], rotate: str, opened: bool
    ) -> None:
        file = file_of(tmp_path, "t")
        if present == "passphrase":
            node = passphrase_root("t", PASSPHRASES[0], location=f"file://{file}")
            left = HEX["a"], PASSPHRASES[0]
        else:
            node = root("t", "c", location=f"file://{file}")
            left = PASSPHRASES[0], HEX["c"]
        for path, text in zip((file, file + ".new"), left):
            Path(path).write_text(text + "\n", "ascii")
        zfs = world(node if opened else locked(node))
        options = {"name": "t", "key": {"file": file, **wish}, "rotate": rotate}
        done = run(zfs, tmp_path, wishes(**options)) if rotate == "always" else four(zfs, tmp_path, **options)
        assert done.plan.failures == ()
        check_opens(zfs, tmp_path, ())
        check_no_leftovers(tmp_path)
        wrapped = zfs.world.nodes["t"].wrapped
        assert wrapped is not None and wrapped.format == wish["format"]

    @staticmethod
    def left(folder: Path, former: bytes = HEX["a"].encode() + b"\n", **facts: t.Any) -> tuple[str, DatasetZfs]:
        """ZFS has a passphrase, which is in the successor of the key file."""
        file = file_of(folder, "t")
        Path(file).write_bytes(former)
        Path(file + ".new").write_text(PASSPHRASES[0] + "\n", "ascii")
        return file, world(passphrase_root("t", PASSPHRASES[0], **{"location": f"file://{file}", **facts}))

    @pytest.mark.parametrize("opened", [True, False], ids=["unlocked", "locked"])
    @pytest.mark.parametrize("more", [{}, {"generate": True}])
    def test_the_former_key_is_back_where_it_is_described(
        self, tmp_path: Path, more: dict[str, t.Any], opened: bool
    ) -> None:
        file, zfs = self.left(tmp_path)
        zfs.world.nodes["t"].loaded = zfs.world.nodes["t"].mounted = opened
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "hex", **more})
        assert done.plan.failures == ()
        wrapped = zfs.world.nodes["t"].wrapped
        assert wrapped is not None and wrapped.material == HEX["a"].encode()
        check_no_leftovers(tmp_path)

    def test_without_a_key_to_change_to(self, tmp_path: Path) -> None:
        file, zfs = self.left(tmp_path)
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "raw"})
        assert f"{file}.new holds the present key of 't', which is of format passphrase" in str(done.plan.failures[0])
        check_opens(zfs, tmp_path, ())

    @pytest.mark.parametrize(
        "former", [b"-----BEGIN PRIVATE KEY-----\nabcdef\n", bytes(4096), b"", b"two\nlines of text\n"]
    )
    def test_what_was_no_key_is_not_replaced(self, tmp_path: Path, former: bytes) -> None:
        file, zfs = self.left(tmp_path, former)
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "hex", "value": HEX["b"]})
        assert "can't be used" in str(done.plan.failures[0])
        assert Path(file).read_bytes() == former

    def test_a_folder_is_not_replaced(self, tmp_path: Path) -> None:
        file, zfs = self.left(tmp_path)
        Path(file).unlink()
        Path(file).mkdir()
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "hex", "value": HEX["b"]})
        assert "is not a regular file" in str(done.plan.failures[0])

    def test_the_key_of_another_dataset_is_not_replaced(self, tmp_path: Path) -> None:
        file, zfs = self.left(tmp_path)
        zfs.world.nodes["t/u"] = root("t/u")
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "hex", "value": HEX["b"]})
        assert "holds another key than the one that opens 't'" in str(done.plan.failures[0])
        assert Path(file).read_text("ascii").strip() == HEX["a"]

    @pytest.mark.parametrize("which", ["", ".new"], ids=["file", "successor"])
    def test_a_shared_file_is_not_replaced(self, tmp_path: Path, which: str) -> None:
        file, zfs = self.left(tmp_path)
        alias = tmp_path / "alias"
        alias.symlink_to(file + which)
        zfs.world.nodes["u"] = passphrase_root("u", PASSPHRASES[0 if which else 1], location=f"file://{alias}")
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "hex", "value": HEX["b"]})
        assert "is also that of 'u'" in str(done.plan.failures[0])
        assert Path(file).read_text("ascii").strip() == HEX["a"] and Path(file + ".new").exists()

    def test_what_zfs_does_not_look_at_is_no_interrupted_change(self, tmp_path: Path) -> None:
        file, zfs = self.left(tmp_path, location="prompt")
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "hex", "value": HEX["b"]})
        assert "holds another key than the one that opens 't'" in str(done.plan.failures[0])
        assert Path(file).read_text("ascii").strip() == HEX["a"]

    def test_a_successor_that_somebody_else_made_is_left_alone(self, tmp_path: Path) -> None:
        file = tmp_path / "k"
        file.write_text(HEX["a"] + "\n", "ascii")
        (tmp_path / "k.new").write_text(PASSPHRASES[0] + "\n", "ascii")
        zfs = world(passphrase_root("t", PASSPHRASES[0], location=f"file://{file}"))
        done = four(zfs, tmp_path / "keys", name="t", key={"file": str(file), "format": "hex", "value": HEX["b"]})
        assert "holds another key than the one that opens 't'" in str(done.plan.failures[0])
        assert f"The present key of 't' is in {file}.new" in str(done.plan.failures[0])
        assert file.read_text("ascii").strip() == HEX["a"]

    @pytest.mark.parametrize("opened", [True, False], ids=["unlocked", "locked"])
    def test_a_file_that_somebody_made_for_it(self, tmp_path: Path, opened: bool) -> None:
        file = tmp_path / "k"
        file.write_text(HEX["a"] + "\n", "ascii")
        (tmp_path / "k.new").write_text(PASSPHRASES[0] + "\n", "ascii")
        (tmp_path / "k.new").chmod(0o400)
        node = passphrase_root("t", PASSPHRASES[0], location=f"file://{file}")
        zfs = world(node if opened else locked(node))
        done = four(zfs, tmp_path / "keys", name="t", key={"file": str(file), "format": "passphrase"})
        assert done.plan.failures == ()
        assert file.read_text("ascii").strip() == PASSPHRASES[0] and not (tmp_path / "k.new").exists()

    @pytest.mark.parametrize("opened", [True, False], ids=["unlocked", "locked"])
    def test_the_file_is_gone(self, tmp_path: Path, opened: bool) -> None:
        file, zfs = self.left(tmp_path)
        Path(file).unlink()
        zfs.world.nodes["t"].loaded = zfs.world.nodes["t"].mounted = opened
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "hex", "value": HEX["b"]})
        assert done.plan.failures == ()
        assert Path(file).read_text("ascii").strip() == HEX["b"]
        check_no_leftovers(tmp_path)

    @pytest.mark.parametrize("more", [{}, {"value": HEX["b"]}, {"format": "raw", "generate": True}])
    def test_a_file_that_is_not_replaced_stays_while_it_is_unlocked(
        self, tmp_path: Path, more: dict[str, t.Any]
    ) -> None:
        file, zfs = self.left(tmp_path)
        # The former key is that of another dataset as well, so that it may be a copy of it.
        zfs.world.nodes["t/u"] = root("t/u")
        lock_all(zfs)
        done = four(zfs, tmp_path, name="t", key={"file": file, "format": "hex", **more})
        assert Path(file).read_text("ascii").strip() == HEX["a"]
        wrapped = zfs.world.nodes["t"].wrapped
        assert wrapped is not None
        if more:
            assert f"The present key of 't' is in {file}.new" in str(done.plan.failures[0])
            assert wrapped.format == "passphrase"
        else:
            assert done.plan.failures == ()
            assert wrapped.material == HEX["a"].encode()

    def test_the_file_holds_the_present_key_and_zfs_was_not_told_yet(self, tmp_path: Path) -> None:
        file = file_of(tmp_path, "t")
        Path(file).write_text(HEX["a"] + "\n", "ascii")
        zfs = world(locked(root("t", location=f"file://{file}.new")))
        assert four(zfs, tmp_path, name="t", state="unlocked").plan.failures == ()
        lock_all(zfs)
        done = four(zfs, tmp_path, name="t", key={"file": file, "value": HEX["b"]})
        assert done.plan.failures == ()
        assert zfs.world.nodes["t"].location == f"file://{file}"

    def test_unlocking_does_not_move_the_key_file_of_another(self, tmp_path: Path) -> None:
        file, zfs = self.left(tmp_path)
        alias = tmp_path / "alias.key"
        alias.symlink_to(file + ".new")
        zfs.world.nodes["u"] = passphrase_root("u", PASSPHRASES[0], location=f"file://{alias}")
        lock_all(zfs)
        assert four(zfs, tmp_path, name="t", state="unlocked").plan.failures == ()
        assert alias.exists() and Path(file).read_text("ascii").strip() == HEX["a"]

    @pytest.mark.parametrize("more", [{"rotate": "always"}, {"key": {"iterations": 200000}}])
    def test_the_present_key_does_not_replace_what_is_in_the_file(self, tmp_path: Path, more: dict[str, t.Any]) -> None:
        file = tmp_path / "k"
        file.write_text("the passphrase of an exported pool\n", "ascii")
        zfs = world(passphrase_root("t", PASSPHRASES[0]))
        wish = {"file": str(file), "format": "passphrase", "value": PASSPHRASES[0], **more.get("key", {})}
        done = run(zfs, tmp_path / "keys", wishes(name="t", key=wish, rotate=more.get("rotate", "when_different")))
        assert "holds another key than the one that opens 't'" in str(done.plan.failures[0])
        assert file.read_text("ascii") == "the passphrase of an exported pool\n"


class TestTheProofItself:
    def test_a_key_file_that_is_removed_too_early_is_seen(self, tmp_path: Path) -> None:
        for operation in (rotate, generate, to_passphrase, renamed, inherit):
            zfs = world()
            task = operation(zfs, tmp_path)
            check_opens(zfs, tmp_path, task.known)
            for path in tmp_path.iterdir():
                path.unlink()
            with pytest.raises(AssertionError):
                check_opens(zfs, tmp_path, task.known)


def lock_all(zfs: DatasetZfs) -> None:
    """What a restart of the host does."""
    for node in zfs.world.nodes.values():
        if node.cipher != "off":
            node.loaded = node.mounted = False


def count_file_effects(zfs: DatasetZfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of the keystore counts as an effect, too."""
    for name in ("link", "replace", "unlink"):
        real = getattr(os, name)
        original = getattr(real, "original", real)

        def counted(*words: t.Any, _real: t.Callable[..., t.Any] = original, **named: t.Any) -> None:
            _real(*words, **named)
            zfs.effect()

        counted.original = original  # type: ignore[attr-defined]
        monkeypatch.setattr(os, name, counted)


def check_opens(zfs: DatasetZfs, folder: Path, known: t.Sequence[str]) -> None:
    """Every root opens with a key that is in the keystore, or that somebody knows."""
    contents = [path.read_bytes() for path in folder.iterdir() if path.is_file()]
    # A raw key may end with that byte.
    at_hand = {*contents, *(one.rstrip(b"\n") for one in contents)}
    at_hand |= {text.encode() for text in known}
    for node in zfs.world.nodes.values():
        if node.wrapped is not None:
            assert node.wrapped.material in at_hand, node.name
            if node.location.startswith(f"file://{folder}"):
                path = node.location[len("file://") :]
                places = [Path(path), Path(path + ".new")]
                stored = [one.read_bytes() for one in places if one.exists()]
                assert node.wrapped.file_content() in stored or node.wrapped.material in stored


def check_no_leftovers(folder: Path) -> None:
    assert not [path.name for path in folder.iterdir() if not path.name.endswith(".key")]
