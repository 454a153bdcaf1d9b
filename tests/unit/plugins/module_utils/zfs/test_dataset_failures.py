# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of the others when one dataset of a task can't be dealt with."""

from __future__ import annotations

import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_model import Model
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import Dataset
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import DatasetZfs
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    PASSPHRASES,
    child,
    file_of,
    four,
    locked,
    root,
    run,
    wishes,
    world,
)

Entry = dict[str, t.Any]
LaterCheck = Callable[[DatasetZfs, Path], Entry]


pytestmark = pytest.mark.usefixtures("as_root")


def fixed_property(zfs: DatasetZfs, folder: Path) -> Entry:
    zfs.world.nodes["plain/a"].properties["casesensitivity"] = "sensitive"
    return {"key": {"value": HEX["a"]}, "properties": {"casesensitivity": "insensitive"}}


def read_only_pool(zfs: DatasetZfs, folder: Path) -> Entry:
    zfs.world.read_only = True
    return {"key": {"value": HEX["a"]}, "properties": {"atime": False}}


def keylocation_in_a_read_only_pool(zfs: DatasetZfs, folder: Path) -> Entry:
    zfs.world.read_only = True
    Path(file_of(folder, "plain/a")).write_text(HEX["a"] + "\n")
    return {"key": {"file": file_of(folder, "plain/a")}}


def file_with_another_key(zfs: DatasetZfs, folder: Path) -> Entry:
    Path(file_of(folder, "plain/a")).write_text(HEX["f"] + "\n")
    return {"key": {"value": HEX["a"], "file": file_of(folder, "plain/a")}}


def file_below_its_mountpoint(zfs: DatasetZfs, folder: Path) -> Entry:
    zfs.world.nodes["plain/a"].properties["mountpoint"] = str(folder / "a")
    return {"key": {"value": HEX["a"], "file": str(folder / "a" / "key")}}


def somebodys_file_beside(zfs: DatasetZfs, folder: Path) -> Entry:
    file = folder / "elsewhere"
    file.write_text(HEX["a"] + "\n")
    Path(f"{file}.new").write_text(HEX["f"] + "\n")
    zfs.world.nodes["plain/a"].location = f"file://{file}"
    return {"key": {"file": str(file), "generate": True}, "rotate": "always"}


def fixed_property_after_another_key(zfs: DatasetZfs, folder: Path) -> Entry:
    zfs.world.nodes["plain/a"].properties["casesensitivity"] = "sensitive"
    return {
        "key": {"format": "passphrase", "value": PASSPHRASES[0], "file": str(folder / "elsewhere")},
        "properties": {"casesensitivity": "insensitive"},
    }


CHECKS: tuple[LaterCheck, ...] = (
    fixed_property,
    read_only_pool,
    keylocation_in_a_read_only_pool,
    file_with_another_key,
    file_below_its_mountpoint,
    somebodys_file_beside,
    fixed_property_after_another_key,
)


@pytest.mark.parametrize("check", CHECKS)
class TestWhatIsRefusedAfterItsUnlocking:
    """None of its steps is done, so that it stays locked, and nothing may be opened or made below it."""

    def tree(self, check: LaterCheck, tmp_path: Path) -> tuple[DatasetZfs, Path, Entry]:
        keystore = tmp_path / "keys"
        keystore.mkdir()
        zfs = world(locked(root("plain/a", "a")))
        return zfs, keystore, {"name": "plain/a", **check(zfs, keystore)}

    def test_a_root_below_stays_locked(self, check: LaterCheck, tmp_path: Path) -> None:
        zfs, keystore, entry = self.tree(check, tmp_path)
        zfs.world.nodes["plain/a/b"] = locked(root("plain/a/b", "b"))
        below = {"name": "plain/a/b", "key": {"value": HEX["b"]}}
        done = four(zfs, keystore, datasets=[entry, below], keys={"plain/a": HEX["a"]})
        assert done.plan.actions == []
        assert [(one.branch, one.because) for one in done.plan.failures] == [("plain/a", ""), ("plain/a/b", "plain/a")]
        assert not zfs.world.nodes["plain/a/b"].loaded

    def test_nothing_is_created_below(self, check: LaterCheck, tmp_path: Path) -> None:
        zfs, keystore, entry = self.tree(check, tmp_path)
        done = four(zfs, keystore, datasets=[entry, {"name": "plain/a/b"}], keys={"plain/a": HEX["a"]})
        assert done.plan.actions == []
        assert [(one.branch, one.because) for one in done.plan.failures] == [
            ("plain/a", ""),
            ("plain/a/b", "" if zfs.world.read_only else "plain/a"),
        ]


class TestMalformedKeys:
    @pytest.mark.parametrize("there", [False, True])
    @pytest.mark.parametrize(
        ("key", "fault"),
        [
            ({"format": "passphrase", "value": "seven77"}, "key.value holds 7 bytes; a passphrase has 8 to 512"),
            ({"format": "hex", "value": HEX["b"][1:]}, "key.value is not a hex key: it has 63 characters"),
            ({"format": "raw", "value": "~"}, "key.value is not base64."),
            ({"value": HEX["b"][1:]}, "key.value is not a hex key: it has 63 characters"),
        ],
    )
    def test_one_holds_up_no_others(self, tmp_path: Path, key: Entry, fault: str, there: bool) -> None:
        zfs = world(*([locked(root("plain/a", "a"))] if there else []))
        wanted = [
            {"name": "plain/a", "key": key},
            {"name": "plain/b", "key": {"value": HEX["b"]}},
            {"name": "plain/a/c"},
        ]
        done = four(zfs, tmp_path, datasets=wanted)
        wrong, skipped = done.plan.failures
        assert wrong.message.startswith(f"Dataset 'plain/a': {fault}")
        assert skipped.because == "plain/a"
        assert zfs.world.nodes["plain/b"].mounted


class TestBareFolders:
    """Nothing is mounted in the folder of a filesystem that is not mounted itself."""

    def dirty(self, tmp_path: Path) -> tuple[DatasetZfs, Path, Path]:
        """A child of what is open has a file at its mountpoint, and a locked root below it."""
        top, keystore = tmp_path / "m", tmp_path / "keys"
        (top / "x").mkdir(parents=True)
        (top / "x" / "file").touch()
        keystore.mkdir()
        zfs = world(
            root("plain/a", "a", properties={"mountpoint": str(top)}),
            child("plain/a/x", "plain/a", mounted=False),
            locked(root("plain/a/x/y", "b")),
        )
        return zfs, keystore, top

    UNLOCK: t.ClassVar[Entry] = {
        "name": "plain/a",
        "state": "unlocked",
        "recursive": True,
        "keys": {"plain/a/x/y": HEX["b"]},
    }

    def test_a_root_below_a_child_stays_locked_until_that_is_mounted(self, tmp_path: Path) -> None:
        zfs, keystore, top = self.dirty(tmp_path)
        done = four(zfs, keystore, **self.UNLOCK)
        assert done.plan.actions == []
        above, below = done.plan.failures
        assert f"'plain/a/x' can't be mounted: the mountpoint {top}/x is not empty" in above.message
        assert below.because == "plain/a"
        assert str(below) == (
            f"'plain/a/x/y' can't be mounted, because nothing could be mounted at {top}/x. 'plain/a/x/y' stays locked. "
            "See what is said of 'plain/a'."
        )
        four(zfs, keystore, **self.UNLOCK, on_nonempty_mountpoint="move_aside")
        assert all(node.mounted for node in zfs.world.nodes.values())

    @pytest.mark.parametrize("key", [{"key": {"value": HEX["c"]}}, {}])
    def test_nothing_is_created_there(self, tmp_path: Path, key: Entry) -> None:
        zfs, keystore, top = self.dirty(tmp_path)
        wanted = [{"name": "plain/a", "state": "unlocked", "recursive": True}, {"name": "plain/a/x/new", **key}]
        done = four(zfs, keystore, datasets=wanted, keys={"plain/a/x/y": HEX["b"]})
        assert done.plan.actions == []
        assert f"nothing could be mounted at {top}/x" in done.plan.failures[-1].message

    def test_what_a_refused_dataset_would_have_mounted(self, tmp_path: Path) -> None:
        zfs = world(
            root("plain/a", "a", mounted=False, properties={"casesensitivity": "sensitive"}),
            locked(root("plain/a/b", "b")),
        )
        wanted = [
            {"name": "plain/a", "properties": {"casesensitivity": "insensitive"}},
            {"name": "plain/a/b", "key": {"value": HEX["b"]}},
        ]
        done = four(zfs, tmp_path, datasets=wanted)
        assert done.plan.actions == []
        assert not zfs.world.nodes["plain/a/b"].loaded

    def test_a_root_elsewhere_whose_mountpoint_is_there(self, tmp_path: Path) -> None:
        zfs = world(
            locked(root("plain/a", "a")),
            locked(root("plain/z", "b", properties={"mountpoint": "/nasops-test/plain/a/z"})),
        )
        keys = {"plain/a": HEX["f"], "plain/z": HEX["b"]}
        done = four(zfs, tmp_path, name="plain", state="unlocked", recursive=True, keys=keys)
        assert done.plan.actions == []
        assert [(one.branch, one.because) for one in done.plan.failures] == [("plain/a", ""), ("plain/z", "plain/a")]

    def test_another_entry_may_clear_it(self, tmp_path: Path) -> None:
        zfs, keystore, _top = self.dirty(tmp_path)
        wanted = [
            {"name": "plain/a", "state": "unlocked", "recursive": True},
            {"name": "plain/a/x", "state": "unlocked", "on_nonempty_mountpoint": "move_aside"},
            {"name": "plain/a/x/y", "state": "unlocked", "key": {"value": HEX["b"]}},
        ]
        run(zfs, keystore, wishes(datasets=wanted))
        assert all(node.mounted for node in zfs.world.nodes.values())


class TestTheLedger:
    """What a branch wrote is taken back as a whole."""

    def dataset(self, name: str, of: str, status: str = "available") -> Dataset:
        values = {
            "type": "filesystem",
            "encryption": "aes-256-gcm" if of else "off",
            "encryptionroot": of or "-",
            "keystatus": status if of else "none",
            "keyformat": "hex" if of else "none",
            "keylocation": "prompt" if name == of else "none",
            "mounted": "yes" if status == "available" else "no",
        }
        return Dataset(name, {word: Property(value, "-") for word, value in values.items()})

    def model(self) -> Model:
        found = [
            self.dataset("t", ""),
            self.dataset("t/a", "t/a"),
            self.dataset("t/a/b", "t/a"),
            self.dataset("t/a/c", "t/a/c"),
            self.dataset("t/l", "t/l", "unavailable"),
        ]
        return Model({one.name: one for one in found})

    def seen(self, model: Model) -> t.Any:
        names = ("t", "t/a", "t/a/b", "t/a/c", "t/l", "t/n")
        there = [one for one in (model.get(name) for name in names) if one is not None]
        return (
            there,
            [one.name for one in model.below("t")],
            {name: sorted(one.name for one in model.members(name)) for name in names},
            [one.name for one in there if model.locked(one)],
            [one.name for one in model.all_mounted()],
        )

    WRITES: t.ClassVar[dict[str, Callable[[Model], None]]] = {
        "unlock": lambda model: model.unlock("t/l"),
        "unlock what is open": lambda model: model.unlock("t/a"),
        "lock": lambda model: model.lock("t/a"),
        "lock what is locked": lambda model: model.lock("t/l"),
        "mount": lambda model: model.mount("t/l"),
        "mount what is mounted": lambda model: model.mount("t/a"),
        "unmount": lambda model: model.unmount("t/a"),
        "remove": lambda model: model.remove("t/a"),
        "inherit": lambda model: model.inherit("t/a/c", "t/a"),
        "a new key": lambda model: model.change_key("t/a", "raw", "file:///k"),
        "a key of its own": lambda model: model.change_key("t/a/b", "hex", "prompt"),
    }

    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    def test_one_write(self, write: Callable[[Model], None]) -> None:
        model = self.model()
        before = self.seen(model)
        model.begin()
        write(model)
        model.take_back()
        assert self.seen(model) == before

    def test_all_of_them_in_a_row(self) -> None:
        model = self.model()
        before = self.seen(model)
        model.begin()
        model.add(self.dataset("t/n", "t/l"))
        for name, write in self.WRITES.items():
            if name != "remove":
                write(model)
        self.WRITES["remove"](model)
        model.take_back()
        assert self.seen(model) == before

    def test_what_an_earlier_branch_wrote_stays(self) -> None:
        model = self.model()
        model.begin()
        model.unlock("t/l")
        model.begin()
        model.lock("t/a")
        model.take_back()
        assert [one.name for one in (self.dataset("t/a", "t/a"), self.dataset("t/l", "t/l")) if model.locked(one)] == []
