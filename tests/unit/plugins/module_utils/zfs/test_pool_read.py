# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading, planning and applying as the module does, with pools made of real files and a model of ZFS."""

from __future__ import annotations

import json
import os
import typing as t
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome, StepFailed, converge
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import state
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool import plan_pools
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_read import read_host
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_state import PoolHost
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.blockdev.test_signatures import zfs_disk
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import said
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.model import ZfsModel
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.options import parse

Options = dict[str, t.Any]


class Host(ZfsModel):
    """The model, on a host whose other programs have nothing to tell."""

    def __init__(self) -> None:
        super().__init__()
        # What wipefs finds.
        self.signatures: list[dict[str, str]] = []

    def run(self, command: Command, ok: Sequence[int] = (0,)) -> Result:
        if command.argv[0] in ("zfs", "zpool", "df"):
            return super().run(command, ok)
        return said(command, stdout=json.dumps({"signatures": self.signatures}) if command.argv[0] == "wipefs" else "")

    def zfs_processes(self) -> list[tuple[str, ...]]:
        return [command.argv for command in self.commands if command.argv[0] in ("zfs", "zpool")]


@pytest.fixture(name="host")
def make_host(monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Host()


def files(folder: Path, *names: str) -> list[str]:
    """Sparse files that are large enough for ZFS."""
    for name in names:
        with (folder / name).open("wb") as file:
            file.truncate(64 << 20)
    return [str(folder / name) for name in names]


def play(host: Host, options: Options, check_mode: bool = False) -> Outcome[PoolHost]:
    wanted = parse(options)
    return converge(lambda: read_host(host, wanted), lambda found: plan_pools(wanted, found), host, check_mode)


def new_pool(folder: Path, name: str = "nasops-test", **more: t.Any) -> Options:
    return {
        "name": name,
        "vdevs": [{"type": "mirror", "disks": files(folder, f"{name}-a", f"{name}-b")}],
        "key": {"file": str(folder / f"{name}.key"), "generate": True},
        **more,
    }


def test_create_lock_unlock_export_import_extend(host: Host, tmp_path: Path) -> None:
    options = new_pool(tmp_path)
    checked = play(host, options, check_mode=True)
    assert host.pools == []
    assert not (tmp_path / "nasops-test.key").exists()
    done = play(host, options)
    assert done.plan.actions == checked.plan.actions
    assert not play(host, options).plan.changed
    (pool,) = host.pools
    pool.loaded = pool.mounted = False
    assert play(host, options).plan.actions[0].startswith("Unlock 'nasops-test' with the key from")
    assert play(host, {"name": "nasops-test", "state": "exported"}).plan.actions == ["Export pool 'nasops-test'"]
    # Files are not where zpool looks by itself.
    assert play(host, options).plan.actions[0] == f"Import pool 'nasops-test' ({pool.guid})"
    options["vdevs"].append({"type": "mirror", "role": "log", "disks": files(tmp_path, "c", "d")})
    assert play(host, options).plan.actions == [f"Add to pool 'nasops-test': log mirror: {tmp_path}/c {tmp_path}/d"]
    assert not play(host, options).plan.changed
    destroyed = play(host, {"name": "nasops-test", "state": "absent", "confirm_guid": pool.guid})
    assert destroyed.plan.actions == [f"Destroy pool 'nasops-test' ({pool.guid})"]
    assert (tmp_path / "nasops-test.key").exists()


@pytest.mark.parametrize("count", [1, 12])
def test_when_there_is_nothing_to_do_three_processes_are_enough(host: Host, tmp_path: Path, count: int) -> None:
    pools = [new_pool(tmp_path, f"nasops-test-{number}") for number in range(count)]
    for pool in pools:
        pool["properties"] = {"autotrim": True, "comment": "x"}
        pool["filesystem_properties"] = {"recordsize": "1M", "org.x:note": "y"}
    play(host, {"pools": pools})
    for created in host.pools:
        created.children = {f"{created.name}/{number}": {} for number in range(50)}
    host.commands.clear()
    assert not play(host, {"pools": pools}).plan.changed
    assert len(host.zfs_processes()) <= 3


def test_so_many_pools_that_their_names_alone_would_be_worth_two_processes(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "cores", lambda: 4)
    disks = files(tmp_path, *(f"{number:03}" for number in range(120)))
    pools = [{"name": f"p{number}", "cipher": "off", "vdevs": [{"disks": [disk]}]} for number, disk in enumerate(disks)]
    play(host, {"pools": pools})
    host.commands.clear()
    assert not play(host, {"pools": pools}).plan.changed
    assert len(host.zfs_processes()) == 3
    host.commands.clear()
    play(host, {"pools": [{**pool, "mount": False} for pool in pools]})
    assert len(host.zfs_processes()) == 3


def test_a_pool_that_is_gone_for_good_costs_a_search_of_the_disks(host: Host, tmp_path: Path) -> None:
    options = [new_pool(tmp_path), {"name": "gone", "state": "absent"}]
    play(host, {"pools": options})
    for more, searches in ({}, 1), ({"search_paths": [str(tmp_path)]}, 2):
        host.commands.clear()
        assert not play(host, {"pools": [options[0], {**options[1], **more}]}).plan.changed
        assert len(host.zfs_processes()) == 3 + searches


def test_what_is_in_the_way_of_a_child_is_read_and_said_in_each_run(host: Host, tmp_path: Path) -> None:
    options = new_pool(tmp_path)
    play(host, options)
    (pool,) = host.pools
    (tmp_path / "full" / "mine").mkdir(parents=True)
    pool.children = {
        f"{pool.name}/a": {"mountpoint": str(tmp_path / "full")},
        f"{pool.name}/b": {"mounted": "yes"},
        f"{pool.name}/c": {},
        f"{pool.name}/d": {"mountpoint": str(tmp_path / "full"), "zoned": "on"},
    }
    pool.loaded = pool.mounted = False
    (foreseen,) = play(host, options, check_mode=True).plan.warnings
    with pytest.raises(StepFailed, match=f"Not mounted: {pool.name}/a: the mountpoint {tmp_path}/full is not empty"):
        play(host, options)
    # All that can be done was done.
    assert pool.loaded
    assert pool.mounted
    mounted = [argv[2] for argv in host.zfs_processes() if argv[:2] == ("zfs", "mount")]
    assert mounted == [pool.name, f"{pool.name}/c"]
    for check_mode in (True, False):
        assert play(host, options, check_mode).plan.warnings == (foreseen,)
    assert f": '{pool.name}/a' (the mountpoint {tmp_path}/full is not empty). Move" in foreseen
    assert f"{pool.name}/c" not in foreseen
    assert f"{pool.name}/d" not in foreseen


@pytest.mark.parametrize(
    ("options", "recursive"),
    [
        ([{}, {}], True),
        ([{"mount": False}, {}], True),
        ([{"mount": False}, {"mount": False}], False),
        ([{"mount": False}, {"state": "exported"}], False),
    ],
)
def test_what_is_below_is_read_only_where_it_matters(
    host: Host, tmp_path: Path, options: list[Options], recursive: bool
) -> None:
    pools = [new_pool(tmp_path, f"nasops-test-{number}") for number in range(len(options))]
    play(host, {"pools": pools})
    host.commands.clear()
    play(host, {"pools": [{**pool, **more} for pool, more in zip(pools, options)]}, check_mode=True)
    (get,) = [argv for argv in host.zfs_processes() if argv[:2] == ("zfs", "get")]
    assert ("-r" in get) is recursive


def test_only_what_can_not_be_there_yet_is_looked_for_on_the_disks(host: Host, tmp_path: Path) -> None:
    options = new_pool(tmp_path)
    play(host, options)
    host.commands.clear()
    play(host, options)
    assert ("zpool", "import") not in host.zfs_processes()
    play(host, {"name": "nasops-test", "state": "exported"})
    host.commands.clear()
    play(host, {"name": "nasops-test", "state": "exported"})
    assert not any(argv[:2] == ("zpool", "import") for argv in host.zfs_processes())


def test_a_disk_of_an_exported_pool_is_recognised_in_a_pool_that_grows(host: Host, tmp_path: Path) -> None:
    options = new_pool(tmp_path)
    play(host, options)
    old = new_pool(tmp_path, "old")
    play(host, old)
    play(host, {"name": "old", "state": "exported"})
    guid = host.pools[1].guid
    disk = tmp_path / "old-a"
    disk.write_bytes(zfs_disk(64 << 20, {"version": 5000, "name": "old", "state": 1, "pool_guid": int(guid)}))
    options["vdevs"].append({"role": "cache", "disks": [str(disk)]})
    host.commands.clear()
    with pytest.raises(Refused, match="is not blank: ZFS label"):
        play(host, options)
    # What is refused anyway is not worth a look at all disks.
    assert ("zpool", "import") not in host.zfs_processes()
    options["wipe_disks"] = [str(disk)]
    with pytest.raises(Refused, match=rf"belongs to the pool 'old' \({guid}\), which is not imported but could be"):
        play(host, options)
    options["wipe_disks"].append(guid)
    assert play(host, options, check_mode=True).plan.actions[0].startswith(f"Wipe {disk}")


def test_a_key_is_tried_only_where_the_plan_depends_on_it(host: Host, tmp_path: Path) -> None:
    options = new_pool(tmp_path)
    play(host, options)
    host.commands.clear()
    play(host, options)
    assert not any("load-key" in argv for argv in host.zfs_processes())
    host.pools[0].loaded = host.pools[0].mounted = False
    play(host, options, check_mode=True)
    assert [argv[:3] for argv in host.zfs_processes() if "load-key" in argv] == [("zfs", "load-key", "-n")]


def test_a_wrong_key_unlocks_and_changes_nothing(host: Host, tmp_path: Path) -> None:
    options = {**new_pool(tmp_path), "key": {"value": "0f" * 32}}
    play(host, options)
    host.pools[0].loaded = host.pools[0].mounted = False
    before = host.state()
    for check_mode in (True, False):
        with pytest.raises(Refused, match="is not the one that opens 'nasops-test'; nothing was changed"):
            play(host, {**options, "key": {"value": "f0" * 32}}, check_mode)
    assert host.state() == before


def test_a_wrong_key_for_an_exported_pool_puts_it_back(host: Host, tmp_path: Path) -> None:
    options = {**new_pool(tmp_path), "key": {"value": "0f" * 32}}
    play(host, options)
    play(host, {"name": "nasops-test", "state": "exported"})
    before = host.state()
    with pytest.raises(StepFailed, match="Incorrect key provided"):
        play(host, {**options, "key": {"value": "f0" * 32}})
    assert host.state() == before


def test_files_that_are_missing_or_hold_something_are_refused(host: Host, tmp_path: Path) -> None:
    options = new_pool(tmp_path)
    host.signatures = [{"device": "nasops-test-b", "type": "ext4", "usage": "filesystem"}]
    with pytest.raises(Refused) as caught:
        play(host, options)
    assert [text for text in caught.value.details["refused_disks"] if f"{tmp_path}/nasops-test-b is not blank" in text]
    (tmp_path / "nasops-test-a").unlink()
    with pytest.raises(Refused, match=f"{tmp_path}/nasops-test-a does not exist"):
        play(host, options)
    assert host.pools == []


def test_nothing_is_created_over_files_in_the_mountpoint(host: Host, tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "mine").touch()
    options = new_pool(tmp_path, filesystem_properties={"mountpoint": str(tmp_path / "mount")})
    with pytest.raises(Refused, match="is not empty"):
        play(host, options)
    (tmp_path / "mount" / "mine").unlink()
    play(host, options)
    assert host.pools[0].mounted


def test_a_pool_that_does_not_answer_is_not_asked_for_its_datasets(host: Host, tmp_path: Path) -> None:
    options = new_pool(tmp_path)
    play(host, options)
    real = host.run

    def run(command: Command, ok: Sequence[int] = (0,)) -> Result:
        result = real(command, ok)
        return said(command, stdout=result.stdout.replace("ONLINE", "SUSPENDED"))

    host.run = run  # type: ignore[method-assign]
    host.commands.clear()
    with pytest.raises(Refused, match="is SUSPENDED"):
        play(host, options)
    assert not any(argv[0] == "zfs" for argv in host.zfs_processes())


def test_the_keys_of_two_pools_stay_apart(host: Host, tmp_path: Path) -> None:
    one, two = new_pool(tmp_path, "nasops-test-1"), new_pool(tmp_path, "nasops-test-2")
    play(host, {"pools": [one, two]})
    assert host.pools[0].key != host.pools[1].key
    for pool in host.pools:
        assert (tmp_path / f"{pool.name}.key").read_bytes() == pool.key.hex().encode("ascii") + b"\n"


@pytest.mark.parametrize("found", ["unlocked", "locked", "exported"])
@pytest.mark.parametrize("given", [False, True], ids=["key in the file", "key given as well"])
def test_an_interrupted_rotation_of_its_key_is_finished(host: Host, tmp_path: Path, found: str, given: bool) -> None:
    options = new_pool(tmp_path)
    play(host, options)
    file = Path(options["key"]["file"])
    current = file.read_bytes()
    file.rename(f"{file}.new")
    file.write_text("ab" * 32 + "\n", encoding="ascii")
    if given:
        options["key"] = {"file": str(file), "value": current.decode("ascii").strip()}
    if found == "locked":
        host.pools[0].loaded = host.pools[0].mounted = False
    if found == "exported":
        play(host, {"name": "nasops-test", "state": "exported"})
    check = play(host, options, check_mode=True)
    done = play(host, options)
    if found != "exported":
        # In an exported pool, check mode can't see which key it is.
        assert check.plan.actions == done.plan.actions
    assert f"Put the current key of 'nasops-test' in its place, {file}" in done.plan.actions
    assert file.read_bytes() == current
    assert not Path(f"{file}.new").exists()
    assert host.pools[0].loaded
    assert host.pools[0].mounted
    assert play(host, options).plan.actions == []


def test_a_successor_that_never_came_into_use_is_left_for_the_next_rotation(host: Host, tmp_path: Path) -> None:
    options = new_pool(tmp_path)
    play(host, options)
    successor = Path(options["key"]["file"] + ".new")
    successor.write_text("ab" * 32 + "\n", encoding="ascii")
    assert play(host, options).plan.actions == []
    assert successor.exists()
