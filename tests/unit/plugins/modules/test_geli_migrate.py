# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole module, with programs that stand in for zfs and zpool: each call as check, apply, check, apply."""

from __future__ import annotations

import contextlib
import io
import json
import marshal
import os
import py_compile
import shlex
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.module_utils import lock
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import replicate_task
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner
from ansible_collections.nasops.encryption.plugins.modules import geli_migrate

from . import fake_zfs
from .fake_zfs import new

SECRET = "5e" * 32


class Host:
    """Two pools: old, and new that is encrypted."""

    def __init__(self, folder: Path, read_only: str) -> None:
        self.path = folder / "pools"
        self.key_file = folder / "new.key"
        self.key_file.write_text(SECRET + "\n")
        pool = {"health": "ONLINE", "altroot": "-"}
        top = {**new("filesystem", 3, "new"), "secret": SECRET, "loaded": True, "location": f"file://{self.key_file}"}
        self.write(
            {
                "clock": 1000,
                "pools": {
                    "new": {**pool, "guid": "2", "readonly": "off", "disks": ["/dev/sda1"]},
                    "old": {**pool, "guid": "1", "readonly": "off", "disks": ["/run/nasops-geli/eli-1"]},
                },
                "datasets": {
                    "new": {**top, "mounted": True, "own": {"mountpoint": "/new"}},
                    "old": new("filesystem", 4),
                },
            }
        )
        with self.changed() as state:
            nodes = state["datasets"]
            nodes["old"].update(data="top", written=1)
            nodes["old/docs"] = {
                **new("filesystem", 5),
                "data": "one",
                "own": {"org.example:who": "me", "quota": "9000"},
            }
            nodes["old/vol"] = {**new("volume", 6), "data": "blocks", "own": {"refreservation": "4096"}}
        self.zfs("snapshot", "old/docs@a")
        self.zfs("snapshot", "old/vol@a")
        with self.changed() as state:
            nodes = state["datasets"]
            nodes["old/docs"].update(data="one and two", written=3)
            nodes["old/copy"] = {**new("filesystem", 7, origin="old/docs@a"), "data": "another", "written": 3}
            state["pools"]["old"]["readonly"] = read_only

    def read(self) -> dict[str, t.Any]:
        found: dict[str, t.Any] = marshal.loads(self.path.read_bytes())
        return found

    def write(self, state: dict[str, t.Any]) -> None:
        self.path.write_bytes(marshal.dumps(state))

    def changed(self) -> Changed:
        return Changed(self)

    def zfs(self, *words: str) -> None:
        pools = fake_zfs.Pools(str(self.path))
        getattr(pools, words[0])(list(words[1:]))
        pools.save()

    def nodes(self, top: str) -> dict[str, dict[str, t.Any]]:
        return {name: node for name, node in self.read()["datasets"].items() if f"{name}/".startswith(f"{top}/")}


class Runner(ReplicaRunner):
    """Looks without starting a process, of which there would be hundreds; what sends and receives is one."""

    pools = ""

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        program, *words = command.argv
        if program not in ("zfs", "zpool"):
            return super().run(command, ok)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = fake_zfs.run(self.pools, program, words, (command.stdin or b"").decode("ascii"))
        result = Result(command.argv, status, out.getvalue(), err.getvalue())
        if status not in ok:
            raise CommandError(result)
        return result


class Changed:
    """The pools for somebody who changes them."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def __enter__(self) -> dict[str, t.Any]:
        self.state = self.host.read()
        return self.state

    def __exit__(self, *_error: object) -> None:
        self.host.write(self.state)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What stands in, compiled once and not by each process."""
    path = tmp_path_factory.mktemp("program") / "fake_zfs.pyc"
    py_compile.compile(fake_zfs.__file__, str(path), doraise=True)
    return str(path)


@pytest.fixture(params=["on", "off"], ids=["read-only", "writable"])
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> Host:
    found = Host(tmp_path, request.param)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("zfs", "zpool"):
        words = [sys.executable, "-I", "-S", program, str(found.path), name]
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Runner, "pools", str(found.path))
    monkeypatch.setattr(replicate_task, "ReplicaRunner", Runner)
    monkeypatch.setattr(lock, "LOCK_FILE", str(tmp_path / "lock"))
    monkeypatch.setattr(replicate_task, "end_in_order", lambda: None)
    return found


def once(capsys: pytest.CaptureFixture[str], check: bool, **options: t.Any) -> dict[str, t.Any]:
    """One run of the module."""
    given = {"source": "old", "target": "new/old", **options, "_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args(given), pytest.raises(SystemExit):
        geli_migrate.main()
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    found: dict[str, t.Any] = json.loads(captured.out)
    return found


def runs(host: Host, capsys: pytest.CaptureFixture[str], **options: t.Any) -> dict[str, t.Any]:
    """Check, apply, check, apply; the result of the first apply."""
    before = host.read()
    check = once(capsys, True, **options)
    assert host.read() == before
    apply = once(capsys, False, **options)
    assert not apply.get("failed"), apply["msg"]
    for word in ("changed", "actions", "diff"):
        assert check[word] == apply[word]
    for mode in (True, False):
        again = once(capsys, mode, **options)
        assert not again.get("failed"), again["msg"]
        assert (again["changed"], again["actions"]) == (False, [])
        assert again["reached"] == apply["reached"]
    return apply


def test_from_the_plan_to_the_end(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    source = host.nodes("old")
    read_only = host.read()["pools"]["old"]["readonly"] == "on"
    plan = runs(host, capsys)
    assert not plan["changed"]
    assert plan["reached"] == "planned"
    assert plan["members"] == [{"path": "/run/nasops-geli/eli-1", "state": "ONLINE", "geli": True}]
    assert bool(plan["closing"]) != read_only
    assert "new/old" not in host.read()["datasets"]

    synced = runs(host, capsys, state="synced")
    assert synced["reached"] == "synced"
    assert len(synced["sent"]) == (5 if read_only else 6)
    assert all(one["encryptionroot"] == "new" for one in synced["datasets"])

    verified = runs(host, capsys, state="verified", verify="full")
    assert (verified["reached"], verified["verified"]) == ("verified", "full")
    assert verified["sent"] == []
    assert host.read()["datasets"]["new"]["mounted"]
    again = {"state": "verified", "verify": "full", "verify_again": True}
    would = once(capsys, True, **again)
    for _time in range(2):
        found = once(capsys, False, **again)
        assert (found["changed"], found["reached"], found["verified"]) == (True, "verified", "full")
        assert found["actions"] == would["actions"]
        assert found["sent"] == []
    assert not once(capsys, False, state="verified", verify="full")["changed"]

    final = runs(host, capsys, state="finalized")
    assert final["reached"] == "finalized"
    target = host.nodes("new/old")
    assert {name: node["data"] for name, node in target.items()} == {
        "new/old": "top",
        "new/old/copy": "another",
        "new/old/docs": "one and two",
        "new/old/vol": "blocks",
    }
    assert target["new/old/copy"]["origin"] == "new/old/docs@a"
    assert target["new/old/docs"]["own"]["org.example:who"] == "me"
    assert target["new/old/docs"]["own"]["quota"] == "9000"
    assert target["new/old/vol"]["own"]["refreservation"] == "4096"
    assert not {"readonly", "volmode"} & set(target["new/old"]["own"])
    assert all(node["key"] == "new" for node in target.values())
    if read_only:
        assert host.nodes("old") == source
    else:
        assert host.nodes("old")["old"]["own"]["readonly"] == "on"
    assert once(capsys, False, state="synced")["failed"]


def test_a_list_of_datasets(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is not named is no part of any stage; it is a clone of one that is."""
    # Both may be in the same second, which the names of snapshots have.
    runs(host, capsys, state="synced", include=["old/docs", "old/vol"], snapshot_prefix="first-")
    failed = once(capsys, False, state="finalized", include=["old/docs"])
    assert "copied before, and would not be brought up to date: 'new/old/vol'" in failed["msg"]
    result = runs(host, capsys, state="finalized", include=["old/docs", "old/vol"])
    assert [one["source"] for one in result["datasets"]] == ["old", "old/docs", "old/vol"]
    assert sorted(host.nodes("new/old")) == ["new/old", "new/old/docs", "new/old/vol"]
    closed = [
        one for one in result.get("warnings", []) if "'old/copy' is left out, and inherits readonly=on" in str(one)
    ]
    assert bool(closed) != result["source_read_only"]
    for state in ("planned", "finalized"):
        failed = once(capsys, False, state=state, include=["old/docs", "old/vol", "old/copy"])
        assert "was finished without what 'include' names: 'old/copy'" in failed["msg"]
    take_away(host)
    again = runs(host, capsys, state="finalized", include=["old/docs", "old/vol"])
    assert (again["changed"], again["reached"]) == (False, "finalized")


def take_away(host: Host) -> None:
    """The pool of the source, as when its disks are."""
    with host.changed() as state:
        del state["pools"]["old"]
        state["datasets"] = {name: node for name, node in state["datasets"].items() if name.split("/")[0] != "old"}


def test_once_it_is_finalized_the_source_is_not_needed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    runs(host, capsys, state="finalized", exclude=["old/copy"])
    take_away(host)
    for state in ("finalized", "planned"):
        # What was left out can't be looked up any more.
        result = runs(host, capsys, state=state, exclude=["old/copy"])
        assert (result["changed"], result["reached"], result["verified"]) == (False, "finalized", "checksums")
        assert (result["members"], result["datasets"], result["streams"]) == ([], [], [])
        assert result["manifest"] == [{"name": "new", "keyformat": "hex", "keylocation": f"file://{host.key_file}"}]
        assert result["source_guid"] == "1"
        (note,) = result["notes"]
        assert "The pool of 'old' is not imported" in note
        assert "GUID 1 of that pool" in note
    failed = once(capsys, False, state="synced")
    assert "the target is in use" in failed["msg"]


@pytest.fixture
def finalized(host: Host, capsys: pytest.CaptureFixture[str]) -> Host:
    """A host at the end of a migration."""
    assert once(capsys, False, state="finalized")["reached"] == "finalized"
    return host


def test_without_the_source_a_record_that_does_not_fit_is_not_believed(
    finalized: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    take_away(finalized)
    before = finalized.read()
    assert once(capsys, False, state="finalized")["reached"] == "finalized"
    for change in (
        # Another source, or none that anybody noted.
        {"source": "1:older"},
        {"source": "old"},
        {"source": ""},
        # What was not finalized, or verified anew and not finalized since.
        {"finalized": ""},
        {"verified": "checksums:0123"},
        {"verified": ""},
    ):
        finalized.write(before)
        with finalized.changed() as state:
            own = state["datasets"]["new/old"]["own"]
            own.update({f"nasops.encryption:migration-{name}": value for name, value in change.items()})
        failed = once(capsys, False, state="finalized")
        assert failed.get("failed"), change
        assert "'old': dataset does not exist" in failed["msg"], change


def test_a_pool_that_is_there_without_the_source_is_told_of(
    finalized: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    with finalized.changed() as state:
        state["datasets"] = {name: node for name, node in state["datasets"].items() if name.split("/")[0] != "old"}
    assert "'old': dataset does not exist" in once(capsys, False, state="finalized")["msg"]


def test_what_differs_is_found_and_not_called_verified(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    runs(host, capsys, state="verified", verify="streams")
    with host.changed() as state:
        # Behind the back of ZFS: the snapshot keeps its GUID.
        state["datasets"]["new/old/docs"]["snapshots"][-1]["data"] = "one and too"
    failed = once(capsys, False, state="verified", verify="checksums")
    assert failed["failed"]
    assert "'new/old/docs@" in failed["msg"]
    assert "does not hold what" in failed["msg"]
    result = once(capsys, False)
    assert (result["reached"], result["verified"]) == ("synced", None)


def test_what_can_not_be_read_is_found(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert once(capsys, False, state="synced")["reached"] == "synced"
    with host.changed() as state:
        state["datasets"]["new/old/vol"]["damaged"] = True
    failed = once(capsys, False, state="verified", verify="full")
    assert "can't be read: warning: cannot send" in failed["msg"]
    assert once(capsys, False)["verified"] is None


def test_a_key_that_does_not_fit_is_found_before_anything_is_locked(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert once(capsys, False, state="synced")["reached"] == "synced"
    host.key_file.write_text("00" * 32 + "\n")
    failed = once(capsys, False, state="verified")
    assert "is not the one that opens 'new'. It was not locked" in failed["msg"]
    assert host.read()["datasets"]["new"]["loaded"]
    # Given by hand it does.
    assert once(capsys, False, state="verified", proof_key={"value": SECRET})["reached"] == "verified"


def test_all_refusals_are_in_the_result(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with host.changed() as state:
        state["datasets"]["new"].update(loaded=False, mounted=False)
        state["pools"]["new"]["feature@bookmark_v2"] = "disabled"
    for check in (True, False):
        failed = once(capsys, check, state="synced")
        assert len(failed["refusals"]) == 2
        assert all(one in failed["msg"] for one in failed["refusals"])
        assert failed["sent"] == []
