# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No key is lost: files whose content is not known to be out of use are neither replaced nor removed."""

from __future__ import annotations

import contextlib
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import keystore
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import (
    DatasetZfs,
    Killed,
    Node,
)
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


def write(path: str | Path, letter: str) -> str:
    Path(path).write_text(HEX[letter] + "\n", encoding="ascii")
    return str(path)


def read(path: str | Path) -> str:
    return Path(path).read_text(encoding="ascii")[0]


def material(zfs: DatasetZfs, name: str) -> str:
    wrapped = zfs.world.nodes[name].wrapped
    assert wrapped is not None
    return wrapped.material.decode("ascii")[0]


def at(path: str) -> str:
    return keystore.location_of(path)


class TestNamesThatChangedHands:
    def test_swapped(self, tmp_path: Path) -> None:
        a, b = write(file_of(tmp_path, "plain/a"), "a"), write(file_of(tmp_path, "plain/b"), "b")
        zfs = world(root("plain/a", "b", location=at(b)), root("plain/b", "a", location=at(a)))
        wanted = [
            {"name": f"plain/{one}", "key": {"file": file, "generate": True}} for one, file in (("a", a), ("b", b))
        ]
        four(zfs, tmp_path, datasets=wanted)
        for name, file in (("plain/a", a), ("plain/b", b)):
            assert zfs.world.nodes[name].location == at(file)
            assert read(file) == material(zfs, name)

    @pytest.mark.parametrize("lives", range(8))
    def test_swapped_and_killed(self, tmp_path: Path, lives: int) -> None:
        a, b = write(file_of(tmp_path, "plain/a"), "a"), write(file_of(tmp_path, "plain/b"), "b")
        zfs = world(root("plain/a", "b", location=at(b)), root("plain/b", "a", location=at(a)))
        wanted = wishes(
            datasets=[{"name": f"plain/{one}", "key": {"file": file}} for one, file in (("a", a), ("b", b))]
        )
        zfs.lives = lives
        with contextlib.suppress(Killed):
            run(zfs, tmp_path, wanted)
        kept = {read(path) for path in tmp_path.iterdir()}
        assert {material(zfs, "plain/a"), material(zfs, "plain/b")} <= kept

    def test_the_old_one_is_rotated_under_a_new_name_first(self, tmp_path: Path) -> None:
        # data was renamed to data_old, and data_new to data.
        data, data_new = write(file_of(tmp_path, "plain/data"), "a"), write(file_of(tmp_path, "plain/data_new"), "b")
        zfs = world(root("plain/data_old", "a", location=at(data)), root("plain/data", "b", location=at(data_new)))
        done = four(zfs, tmp_path, name="plain/data", key={"file": data, "generate": True}, rotate="always")
        assert f"{data} holds another key than the one that opens 'plain/data'" in done.plan.failures[0].message
        assert (read(data), read(data_new)) == ("a", "b")


class TestFilesOfOthers:
    @pytest.mark.parametrize("more", [{"value": HEX["c"]}, {"generate": True}], ids=["given", "random"])
    def test_a_file_with_an_unknown_key_is_not_replaced(self, tmp_path: Path, more: dict[str, t.Any]) -> None:
        file = write(tmp_path / "exported-pool", "f")
        zfs = world(root("plain/a", "a"))
        done = four(zfs, tmp_path, name="plain/a", key={"file": file, **more}, rotate="always")
        assert "holds another key" in done.plan.failures[0].message
        assert read(file) == "f"
        assert material(zfs, "plain/a") == "a"

    def test_a_successor_outside_the_keystore_is_left_alone(self, tmp_path: Path) -> None:
        keys = tmp_path / "keys"
        file, staged = write(tmp_path / "k", "a"), write(tmp_path / "k.new", "b")
        zfs = world(root("plain/a", "a", location=at(file)))
        done = four(zfs, keys, name="plain/a", key={"file": file})
        assert done.plan.actions == []
        done = four(zfs, keys, name="plain/a", key={"file": file, "value": HEX["c"]})
        assert f"has to be written to {staged}" in done.plan.failures[0].message
        assert read(staged) == "b"

    @pytest.mark.parametrize("lives", range(6))
    def test_a_rotation_outside_the_keystore_is_finished(self, tmp_path: Path, lives: int) -> None:
        keys = tmp_path / "keys"
        file = write(tmp_path / "k", "a")
        zfs = world(root("plain/a", "a", location=at(file)))
        zfs.lives = lives
        rotation = {"name": "plain/a", "key": {"file": file, "generate": True}}
        with contextlib.suppress(Killed):
            run(zfs, keys, wishes(**rotation, rotate="always"))
        zfs.lives = None
        four(zfs, keys, **rotation)
        wrapped = zfs.world.nodes["plain/a"].wrapped
        assert wrapped == Key("hex", Path(file).read_bytes()[:-1])
        assert os.listdir(tmp_path) == ["k"]

    def test_an_unused_successor_in_the_keystore_is_removed(self, tmp_path: Path) -> None:
        file = write(file_of(tmp_path, "plain/a"), "a")
        write(file + keystore.NEXT, "b")
        zfs = world(root("plain/a", "a", location=at(file)))
        four(zfs, tmp_path, name="plain/a", key={"file": file})
        assert os.listdir(tmp_path) == [os.path.basename(file)]


class TestInterrupted:
    @pytest.mark.parametrize("is_locked", [False, True], ids=["unlocked", "locked"])
    def test_then_another_key_is_given(self, tmp_path: Path, is_locked: bool) -> None:
        # ZFS has taken the key in the successor; now a third one is wanted.
        file = write(file_of(tmp_path, "plain/a"), "a")
        write(file + keystore.NEXT, "b")
        zfs = world(root("plain/a", "b", location=at(file)))
        if is_locked:
            locked(zfs.world.nodes["plain/a"])
        done = four(zfs, tmp_path, name="plain/a", key={"file": file, "value": HEX["c"]})
        assert done.plan.failures == ()
        assert material(zfs, "plain/a") == read(file) == "c"

    @pytest.mark.parametrize("lives", range(8))
    def test_then_another_key_is_given_and_that_is_interrupted(self, tmp_path: Path, lives: int) -> None:
        file = write(file_of(tmp_path, "plain/a"), "a")
        write(file + keystore.NEXT, "b")
        zfs = world(root("plain/a", "b", location=at(file)))
        zfs.lives = lives
        with contextlib.suppress(Killed):
            run(zfs, tmp_path, wishes(name="plain/a", key={"file": file, "value": HEX["c"]}))
        assert material(zfs, "plain/a") in {read(path) for path in tmp_path.iterdir()}


def sealed(path: str, letter: str) -> str:
    """A key file as the collection makes it."""
    write(path, letter)
    os.chmod(path, 0o400)
    return path


def to_a_file(tmp_path: Path) -> DatasetZfs:
    return world(root("plain/a", "a"))


def renamed(tmp_path: Path) -> DatasetZfs:
    return world(root("plain/a", "a", location=at(sealed(file_of(tmp_path, "plain/former"), "a"))))


def own_key(tmp_path: Path) -> DatasetZfs:
    return world(root("plain", "c"), child("plain/a", "plain"))


def from_a_passphrase(tmp_path: Path) -> DatasetZfs:
    return world(passphrase_root("plain/a", PASSPHRASES[0]))


class TestRandomKeyThatNeverCameIntoUse:
    """``rotate: always`` finds a key in the key file that does not open the dataset."""

    @pytest.mark.parametrize("make", [to_a_file, renamed, own_key, from_a_passphrase], ids=lambda one: one.__name__)
    @pytest.mark.parametrize("lives", range(4))
    def test_it_is_taken_by_the_next_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: t.Callable[[Path], DatasetZfs], lives: int
    ) -> None:
        zfs = make(tmp_path)
        rotation = {
            "name": "plain/a",
            "rotate": "always",
            "key": {"format": "hex", "file": file_of(tmp_path, "plain/a"), "generate": True},
        }
        store = keystore.store

        def counted(path: str, new: Key) -> None:
            store(path, new)
            zfs.effect()

        monkeypatch.setattr(keystore, "store", counted)
        zfs.lives = lives
        with contextlib.suppress(Killed):
            run(zfs, tmp_path, wishes(**rotation))
        zfs.lives = None
        done = run(zfs, tmp_path, wishes(**rotation))
        assert done.plan.failures == ()
        file = file_of(tmp_path, "plain/a")
        assert os.listdir(tmp_path) == [os.path.basename(file)]
        assert zfs.world.nodes["plain/a"].wrapped == Key("hex", Path(file).read_bytes()[:-1])

    def rotate(self, zfs: DatasetZfs, folder: Path, file: str) -> t.Any:
        return run(zfs, folder, wishes(name="plain/a", rotate="always", key={"file": file, "generate": True})).plan

    def test_a_stale_key_file_opens_again(self, tmp_path: Path) -> None:
        file = sealed(file_of(tmp_path, "plain/a"), "b")
        zfs = world(root("plain/a", "a", location=at(file)))
        plan = self.rotate(zfs, tmp_path, file)
        assert f"{file} is there already, with a key that opens nothing" in plan.warnings[0]
        assert material(zfs, "plain/a") == read(file) == "b"
        self.rotate(zfs, tmp_path, file)
        assert zfs.world.nodes["plain/a"].wrapped == Key("hex", Path(file).read_bytes()[:-1])
        assert Path(file).read_text(encoding="ascii") != HEX["b"] + "\n"

    def refused(self, zfs: DatasetZfs, folder: Path, file: str, content: str = "b") -> None:
        plan = self.rotate(zfs, folder, file)
        assert "holds another key" in plan.failures[0].message
        assert "without 'rotate: always'" in plan.failures[0].hint
        assert (material(zfs, "plain/a"), read(file)) == ("a", content)

    def test_not_if_somebody_else_made_the_file(self, tmp_path: Path) -> None:
        self.refused(world(root("plain/a", "a")), tmp_path, write(file_of(tmp_path, "plain/a"), "b"))

    @pytest.mark.parametrize("place", ["keys/plain%2Fb.key", "keys/a.key", "a.key"])
    def test_not_if_the_file_is_not_named_after_it(self, tmp_path: Path, place: str) -> None:
        folder = tmp_path / "keys"
        folder.mkdir()
        self.refused(world(root("plain/a", "a")), folder, sealed(str(tmp_path / place), "b"))

    def test_not_if_another_has_its_key_in_the_file(self, tmp_path: Path) -> None:
        file = sealed(file_of(tmp_path, "plain/a"), "b")
        self.refused(world(root("plain/a", "a"), root("plain/old", "b", location=at(file))), tmp_path, file)

    def test_not_if_it_opens_another_that_has_no_key_file(self, tmp_path: Path) -> None:
        # plain/old was plain/a, and somebody set its keylocation to prompt since.
        file = sealed(file_of(tmp_path, "plain/a"), "b")
        self.refused(world(root("plain/a", "a"), root("plain/old", "b"), root("plain/z", "c")), tmp_path, file)

    def test_a_second_one_beside_it_is_removed(self, tmp_path: Path) -> None:
        file = sealed(file_of(tmp_path, "plain/a"), "b")
        sealed(file + keystore.NEXT, "c")
        zfs = world(root("plain/a", "a"))
        assert self.rotate(zfs, tmp_path, file).failures == ()
        assert material(zfs, "plain/a") == read(file) == "b"
        assert os.listdir(tmp_path) == [os.path.basename(file)]

    def test_not_if_a_second_one_beside_it_opens_another(self, tmp_path: Path) -> None:
        file = sealed(file_of(tmp_path, "plain/a"), "b")
        beside = sealed(file + keystore.NEXT, "c")
        self.refused(world(root("plain/a", "a"), root("plain/old", "c")), tmp_path, file)
        assert read(beside) == "c"

    @pytest.mark.parametrize("before", ["a", "b"])
    @pytest.mark.parametrize("opens", ["plain/old", ""])
    def test_one_beside_a_file_that_is_used_as_it_is(self, tmp_path: Path, before: str, opens: str) -> None:
        file = sealed(file_of(tmp_path, "plain/a"), "b")
        beside = sealed(file + keystore.NEXT, "c")
        zfs = world(root("plain/a", before), root("plain/old", "c" if opens else "d"))
        assert four(zfs, tmp_path, name="plain/a", key={"file": file}).plan.failures == ()
        assert material(zfs, "plain/a") == read(file) == "b"
        assert os.path.exists(beside) is bool(opens)

    def test_not_if_it_opens_another_that_has_a_stale_key_file(self, tmp_path: Path) -> None:
        file, stale = sealed(file_of(tmp_path, "plain/a"), "b"), write(tmp_path / "old", "c")
        self.refused(world(root("plain/a", "a"), root("plain/old", "b", location=at(stale))), tmp_path, file)

    def other_pool(self, tmp_path: Path, location: str) -> DatasetZfs:
        return world(root("plain/a", "a"), Node("backup"), root("backup/a", "b", location=location))

    def test_not_if_a_replica_in_another_pool_has_no_key_file(self, tmp_path: Path) -> None:
        file = sealed(file_of(tmp_path, "plain/a"), "b")
        self.refused(self.other_pool(tmp_path, "prompt"), tmp_path, file)

    def test_not_if_another_pool_does_not_answer(self, tmp_path: Path) -> None:
        file = sealed(file_of(tmp_path, "plain/a"), "b")
        zfs = self.other_pool(tmp_path, at(str(tmp_path / "backup")))
        zfs.world.suspended.add("backup")
        self.refused(zfs, tmp_path, file)
        zfs.world.suspended.clear()
        assert self.rotate(zfs, tmp_path, file).failures == ()


class TestFilesInMemory:
    """What is in memory is gone after a restart, so no random key may be there only."""

    @pytest.fixture
    def memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder in memory, beside the keystore on a disk."""
        folder = tmp_path / "shm"
        folder.mkdir()
        monkeypatch.setattr(
            keystore, "memory_of", lambda _runner, place, _source: "tmpfs" if place.startswith(str(folder)) else ""
        )
        # Files there are on the same device as all others of the test.
        read_many = keystore.read_many
        monkeypatch.setattr(
            keystore, "read_many", lambda runner, wanted: [read_many(runner, [one])[0] for one in wanted]
        )
        return folder

    def refused(self, zfs: DatasetZfs, keys: Path, file: str, **more: t.Any) -> None:
        before = {path.name: path.read_bytes() for path in keys.iterdir()}
        done = four(zfs, keys, name="plain/a", key={"file": file, "generate": True}, **more)
        assert "That is in memory (tmpfs)" in done.plan.failures[0].message
        assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
        assert material(zfs, "plain/a") == "a"

    def test_a_random_key_is_not_moved_there(self, tmp_path: Path, memory: Path) -> None:
        keys = tmp_path / "keys"
        keys.mkdir()
        zfs = world(root("plain/a", "a", location=at(write(file_of(keys, "plain/a"), "a"))))
        self.refused(zfs, keys, str(memory / "a.key"))
        assert list(memory.iterdir()) == []
        # One that is given is known to who gave it.
        done = four(zfs, keys, name="plain/a", key={"file": str(memory / "a.key"), "value": HEX["a"]})
        assert done.plan.failures == ()

    @pytest.mark.parametrize("ending", ["", keystore.NEXT])
    def test_what_an_interrupted_run_left_there_is_not_taken(self, memory: Path, ending: str) -> None:
        file = file_of(memory, "plain/a")
        if ending:
            write(file, "a")
        sealed(file + ending, "b")
        self.refused(
            world(root("plain/a", "a", location=at(file) if ending else "prompt")), memory, file, rotate="always"
        )


class TestOtherFormats:
    def test_passphrase_to_a_key_in_the_same_file(self, tmp_path: Path) -> None:
        file = file_of(tmp_path, "plain/a")
        Path(file).write_text(PASSPHRASES[0] + "\n", encoding="ascii")
        zfs = world(passphrase_root("plain/a", PASSPHRASES[0], location=at(file)))
        done = four(zfs, tmp_path, name="plain/a", key={"format": "hex", "file": file, "generate": True})
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/a"].wrapped == Key("hex", Path(file).read_bytes()[:-1])

    def test_key_to_a_passphrase_in_the_same_file(self, tmp_path: Path) -> None:
        file = write(file_of(tmp_path, "plain/a"), "a")
        zfs = world(root("plain/a", "a", location=at(file)))
        wanted = {"format": "passphrase", "file": file, "value": PASSPHRASES[1]}
        four(zfs, tmp_path, name="plain/a", key=wanted)
        assert Path(file).read_text(encoding="ascii") == PASSPHRASES[1] + "\n"

    def test_the_present_key_is_not_taken_for_one_of_the_new_format(self, tmp_path: Path) -> None:
        file = write(file_of(tmp_path, "plain/a"), "a")
        zfs = world(root("plain/a", "a", location=at(file)))
        done = four(zfs, tmp_path, name="plain/a", key={"format": "passphrase", "file": file})
        assert "holds the present key of 'plain/a', which is of format hex" in done.plan.failures[0].message

    @pytest.mark.parametrize("exists", [True, False])
    def test_iterations_are_for_passphrases_only(self, tmp_path: Path, exists: bool) -> None:
        zfs = world(*([root("plain/a", "a")] if exists else []))
        done = four(zfs, tmp_path, name="plain/a", key={"value": HEX["a"], "iterations": 200000})
        assert "only a passphrase is stretched" in done.plan.failures[0].message


class TestWhereNobodyCouldReadIt:
    @pytest.mark.parametrize("place", ["plain/a", "plain/a/b"])
    def test_below_what_it_opens(self, tmp_path: Path, place: str) -> None:
        zfs = world(root("plain/a", "a"), child("plain/a/b", "plain/a", mounted=False))
        zfs.world.nodes[place].properties["mountpoint"] = f"{tmp_path}/inside"
        wanted = {"value": HEX["a"], "file": f"{tmp_path}/inside/key"}
        done = four(zfs, tmp_path / "keys", name="plain/a", key=wanted, mount=False)
        assert f"would lie below {tmp_path}/inside, where '{place}' itself is mounted" in done.plan.failures[0].message

    def test_on_a_volume_that_it_opens(self, tmp_path: Path) -> None:
        zfs = world(root("plain/v", "a", kind="volume", volsize=16384, mounted=False))
        # As for /dev/zd0.
        zfs.source = "plain/v"
        done = four(zfs, tmp_path, name="plain/v", key={"file": f"{tmp_path}/key", "generate": True})
        assert (
            "key lies on 'plain/v', which can be read only while 'plain/v' is unlocked" in done.plan.failures[0].message
        )

    @pytest.mark.parametrize("circle", [True, False])
    def test_where_its_own_key_leads_back_to(self, tmp_path: Path, circle: bool) -> None:
        """The key of a is on b, the key of b on c, and that of c is to be on a, or beside."""
        lies_on = {f"{tmp_path}/on_b/a.key": "plain/b", f"{tmp_path}/on_c/b.key": "plain/c"}
        wanted = f"{tmp_path}/new/c.key"
        lies_on[wanted] = "plain/a" if circle else "/dev/vda1"
        for path in lies_on:
            Path(path).parent.mkdir()

        class Zfs(DatasetZfs):
            """Tells of each folder what it lies on."""

            def _run(self, command: Command) -> str:
                if command.argv[0] == "df":
                    source = next(
                        on for path, on in lies_on.items() if command.argv[-1].startswith(os.path.dirname(path))
                    )
                    return f"Filesystem 1024-blocks Used Available Capacity Mounted on\n{source} 9999 99 9900 1% /\n"
                return super()._run(command)

        for path, letter in zip(lies_on, "ab"):
            write(path, letter)
        nodes = [root(f"plain/{name}", name, location=at(path)) for name, path in zip("ab", lies_on)]
        zfs = Zfs(world(*nodes, root("plain/c", "c")).world)
        done = four(zfs, tmp_path / "keys", name="plain/c", key={"file": wanted, "generate": True})
        if circle:
            assert f"that of 'plain/a' is {tmp_path}/on_b/a.key, that of 'plain/b' is" in done.plan.failures[0].message
        assert bool(done.plan.failures) == circle
        assert os.path.exists(wanted) != circle


class TestFilesThatOthersCanRead:
    """They are told of, each time: only a person can know who has read them."""

    @pytest.mark.parametrize(("mode", "told"), [(0o400, False), (0o440, True), (0o644, True)])
    @pytest.mark.parametrize("key_format", ["hex", "passphrase"])
    def test_of_an_existing_dataset(self, tmp_path: Path, mode: int, told: bool, key_format: str) -> None:
        path = write(file_of(tmp_path, "plain/a"), "a")
        os.chmod(path, mode)
        zfs = world(root("plain/a", "a", location=at(path)))
        # A new format is set with a key that is made for it.
        wanted = wishes(name="plain/a", key={"format": key_format, "file": path, "generate": True})
        done = run(zfs, tmp_path, wanted, check=True)
        said = (f"The key file {path} can be read by others than root; set its mode to 0400.",)
        assert done.plan.warnings == (said if told else ())

    def test_again_when_there_is_nothing_to_do(self, tmp_path: Path) -> None:
        path = write(file_of(tmp_path, "plain/a"), "a")
        os.chmod(path, 0o604)
        zfs = world(root("plain/a", "a", location=at(path)))
        for _run in range(2):
            done = run(zfs, tmp_path, wishes(name="plain/a", key={"file": path}))
            assert (done.plan.actions, len(done.plan.warnings)) == ([], 1)
