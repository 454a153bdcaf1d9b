# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a host is looked at: with many datasets, that is what a task takes its time for."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import dataset_read, keystore
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset import plan_datasets
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_options import Wishes
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_result import describe
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_state import DatasetHost
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import (
    DatasetZfs,
    Node,
    Refusal,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    PASSPHRASES,
    child,
    file_of,
    four,
    key,
    passphrase_root,
    root,
    run,
    wishes,
    world,
)

pytestmark = pytest.mark.usefixtures("as_root")


def with_file(name: str, folder: Path, letter: str = "a") -> Node:
    """An encryption root whose key is in its file."""
    path = file_of(folder, name)
    keystore.store(path, key(letter))
    return root(name, letter, location=keystore.location_of(path))


def with_passphrase_file(name: str, folder: Path) -> Node:
    path, passphrase = file_of(folder, name), Key("passphrase", PASSPHRASES[0].encode())
    keystore.store(path, passphrase)
    return passphrase_root(name, PASSPHRASES[0], location=keystore.location_of(path))


def rotated(folder: Path, *names: str) -> list[dict[str, t.Any]]:
    return [
        {"name": name, "key": {"file": file_of(folder, name), "generate": True}, "rotate": "always"} for name in names
    ]


def reads(zfs: DatasetZfs) -> list[tuple[str, ...]]:
    """The looks at properties of datasets, without those for properties that came with a stream."""
    return [argv for argv in zfs.commands if argv[:2] == ("zfs", "get") and "received" not in argv]


class TestAfterwards:
    def test_a_rotation_is_seen_at_the_datasets_concerned(self, tmp_path: Path) -> None:
        nodes = [with_file(f"plain/{name}", tmp_path) for name in "abc"]
        zfs = world(*nodes, child("plain/a/c", "plain/a"), child("plain/b/c", "plain/b"))
        done = run(zfs, tmp_path, wishes(datasets=rotated(tmp_path, "plain/a", "plain/c")))
        assert (done.plan.failures, len(done.plan.actions)) == ((), 6)
        before, after = reads(zfs)
        assert "-r" in before
        # What uses the key has it in its own properties.
        assert ("-r" in after, after[8:]) == (False, ("plain/a", "plain/c", "plain/a/c"))

    def test_another_format_is_seen_at_what_uses_the_key(self, tmp_path: Path) -> None:
        zfs = world(root("plain/a"), child("plain/a/c", "plain/a"))
        entry = {"name": "plain/a", "key": {"format": "passphrase", "value": PASSPHRASES[0]}}
        done = run(zfs, tmp_path, wishes(datasets=[entry]))
        assert done.plan.failures == ()
        assert {name: one.value("keyformat") for name, one in done.state.host.datasets.items()} == {
            "plain": "none",
            "plain/a": "passphrase",
            "plain/a/c": "passphrase",
        }

    @pytest.mark.parametrize(
        "entry",
        [
            {"name": "plain/a/b", "state": "inherited"},
            {"name": "plain/a/c", "key": {"value": HEX["c"]}},
            {"name": "plain/a/d"},
        ],
        ids=["a root less", "a root more", "a dataset more"],
    )
    def test_where_roots_come_or_go_all_is_read(self, tmp_path: Path, entry: dict[str, t.Any]) -> None:
        zfs = world(root("plain/a"), root("plain/a/b", "b"), child("plain/a/c", "plain/a"))
        done = run(zfs, tmp_path, wishes(datasets=[entry]))
        assert (done.plan.failures, done.plan.changed) == ((), True)
        assert ["-r" in argv for argv in reads(zfs)] == [True, True]

    def test_what_somebody_destroyed_meanwhile_holds_up_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        zfs = world(with_file("plain/a", tmp_path), child("plain/a/layer", "plain/a"))
        change = zfs.change

        def destroying(*arguments: t.Any) -> None:
            change(*arguments)
            del zfs.world.nodes["plain/a/layer"]

        monkeypatch.setattr(zfs, "change", destroying)
        done = run(zfs, tmp_path, wishes(datasets=rotated(tmp_path, "plain/a")))
        assert (done.plan.failures, len(done.plan.actions)) == ((), 3)
        assert "plain/a/layer" not in done.state.host.datasets

    def test_a_pool_that_does_not_answer_any_more(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        zfs = world(with_file("plain/a", tmp_path), Node("other", mounted=True), with_file("other/b", tmp_path, "b"))
        change = zfs.change

        def suspending(root: str, *arguments: t.Any) -> None:
            change(root, *arguments)
            zfs.world.suspended.add("other")

        monkeypatch.setattr(zfs, "change", suspending)
        wanted = wishes(datasets=rotated(tmp_path, "plain/a", "other/b"))
        done = run(zfs, tmp_path, wanted)
        assert [one.branch for one in done.plan.failures] == ["other/b"]
        assert "SUSPENDED" in done.plan.failures[0].message
        assert [row["state"] for row in describe(wanted, done.state.host)] == ["present", "unknown"]

    def test_what_a_step_that_failed_has_done_is_seen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        create = DatasetZfs._create

        def failing(*arguments: t.Any) -> None:
            create(*arguments)
            raise Refusal("filesystem successfully created, but not mounted")

        monkeypatch.setattr(DatasetZfs, "_create", failing)
        zfs = world(with_file("plain/a", tmp_path))
        entries = [*rotated(tmp_path, "plain/a"), {"name": "plain/new", "key": {"value": HEX["b"]}}]
        done = run(zfs, tmp_path, wishes(datasets=entries))
        assert [one.branch for one in done.plan.failures] == ["plain/new"]
        assert "plain/new" in done.state.host.datasets


class TestMeanwhile:
    """Key files are read while the state is."""

    def test_it_saves_a_round_of_planning(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rounds: list[int] = []

        def counting(wanted: Wishes, host: DatasetHost) -> t.Any:
            rounds.append(len(host.answers))
            return plan_datasets(wanted, host)

        monkeypatch.setattr(dataset_read, "plan_datasets", counting)
        zfs = world(with_file("plain/a", tmp_path), with_passphrase_file("plain/p", tmp_path))
        run(zfs, tmp_path, wishes(datasets=rotated(tmp_path, "plain/a")), check=True)
        # The file; then also whether its key is the present one, whose file it is, and the snapshots.
        assert rounds == [1, 4]
        del rounds[:]
        wanted = wishes(name="plain/p", key={"file": file_of(tmp_path, "plain/p"), "format": "passphrase"})
        assert run(zfs, tmp_path, wanted).plan.actions == []
        assert rounds == [1, 2]

    def test_a_key_file_of_another_format_than_foreseen(self, tmp_path: Path) -> None:
        zfs = world(with_passphrase_file("plain/p", tmp_path))
        done = four(zfs, tmp_path, name="plain/p", key={"file": file_of(tmp_path, "plain/p")})
        assert (done.plan.actions, done.plan.failures) == ([], ())

    def test_a_key_file_that_is_not_there_yet(self, tmp_path: Path) -> None:
        zfs = world(with_file("plain/a", tmp_path))
        done = run(zfs, tmp_path, wishes(datasets=rotated(tmp_path, "plain/a", "plain/new")))
        assert done.plan.failures == ()
        assert zfs.world.nodes["plain/new"].loaded

    def test_what_fails_then_is_tried_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read_many = keystore.read_many
        calls: list[t.Any] = []

        def failing_once(*arguments: t.Any) -> t.Any:
            calls.append(arguments)
            if len(calls) == 1:
                raise StorageError("df does not answer")
            return read_many(*arguments)

        monkeypatch.setattr(keystore, "read_many", failing_once)
        done = run(world(with_file("plain/a", tmp_path)), tmp_path, wishes(datasets=rotated(tmp_path, "plain/a")))
        assert (done.plan.failures, len(done.plan.actions)) == ((), 3)

    def test_nothing_is_read_for_a_pool_that_does_not_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file may lie in that pool, too."""
        read_many = keystore.read_many
        paths: list[str] = []

        def noting(runner: t.Any, wanted: t.Any) -> t.Any:
            paths.extend(path for path, _format, _strict in wanted)
            return read_many(runner, wanted)

        monkeypatch.setattr(keystore, "read_many", noting)
        zfs = world(with_file("plain/a", tmp_path), Node("gone", mounted=True))
        zfs.world.suspended.add("gone")
        done = run(zfs, tmp_path, wishes(datasets=rotated(tmp_path, "plain/a", "gone/b")))
        assert [one.branch for one in done.plan.failures] == ["gone/b"]
        assert set(paths) == {file_of(tmp_path, "plain/a")}


def test_who_shares_a_key_file_is_found_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each dataset anew, by way of all the others."""
    asked: list[int] = []
    identities = DatasetHost.identities

    def counting(host: DatasetHost, paths: t.Iterable[str]) -> t.Any:
        listed = list(paths)
        asked.append(len(listed))
        return identities(host, listed)

    monkeypatch.setattr(DatasetHost, "identities", counting)
    names = [f"plain/d{number}" for number in range(40)]
    zfs = world(*(with_file(name, tmp_path) for name in names))
    done = run(zfs, tmp_path, wishes(datasets=rotated(tmp_path, *names)), check=True)
    assert (done.plan.failures, len(done.plan.actions)) == ((), 120)
    # Once while it is not known, and once in the plan that is good.
    assert [number for number in asked if number > 1] == [80, 80]
