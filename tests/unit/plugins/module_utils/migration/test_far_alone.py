# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody else works on a dataset of another host, and what an earlier run has left there is ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.lock import lock_of
from ansible_collections.nasops.encryption.plugins.module_utils.migration import leftovers
from ansible_collections.nasops.encryption.plugins.module_utils.migration.compare import Compare, ReadAll
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_compare import CompareTree
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_run import Pass
from ansible_collections.nasops.encryption.plugins.module_utils.migration.far_alone import (
    Alone,
    Occupied,
    alone,
    mark_of,
    marked,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.rsync import CopyFailed
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import AtTarget, ReplicaRunner

from .tools import Tools

DATASET = "new/old/my docs"
DOCS = Pass("Copy", "old/docs@b", DATASET, "b", state="1", afterwards={"readonly": None}, guid="3")


@pytest.fixture
def impatient(across: ReplicaRunner, monkeypatch: pytest.MonkeyPatch) -> ReplicaRunner:
    """What runs there is the source of this, so a number in it is changed there."""
    source = Path(leftovers.__file__).read_bytes().replace(b"_WAIT = 10.0", b"_WAIT = 0.3")
    for name in ("far", "far_alone"):
        monkeypatch.setattr(f"{alone.__module__.rpartition('.')[0]}.{name}.source_of", lambda program: source)
    return across


@contextlib.contextmanager
def started(mark: str, script: str = "exec sleep 60") -> t.Iterator[subprocess.Popen[bytes]]:
    """Something that is at work there, with its mark."""
    name, _equals, value = mark.partition("=")
    process = subprocess.Popen(("sh", "-c", script), env={**os.environ, name: value})
    try:
        while process.pid not in leftovers.left_over(os.fsencode(mark)):
            time.sleep(0.01)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def of_zfs(tools: Tools) -> list[str]:
    return [line for line in tools.log if line.startswith("zfs")]


class TestLeft:
    def test_what_was_left_is_ended_and_nothing_else(self, across: ReplicaRunner) -> None:
        with started(mark_of(across, DATASET)) as ours, started(mark_of(across, f"{DATASET}/below")) as other:
            with alone(across, DATASET):
                assert ours.wait(5) == -signal.SIGTERM
            assert other.poll() is None

    def test_so_is_what_holds_the_lock_where_the_line_is_dead(self, across: ReplicaRunner) -> None:
        with alone(across, DATASET), alone(across, DATASET):
            pass

    def test_one_that_does_not_listen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leftovers, "_PATIENCE", 0.5)
        mark = f"NASOPS_DEAF_{os.getpid()}=a:new/deaf"
        with started(mark, "trap '' TERM; while :; do sleep 0.1; done") as one:
            time.sleep(0.2)
            assert leftovers.end_left(mark.encode()) == []
            assert one.wait(5) == -signal.SIGKILL

    def test_one_that_does_not_end(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(leftovers, "_PATIENCE", 0.0)
        monkeypatch.setattr(leftovers, "left_over", lambda mark: [1 << 30])
        assert leftovers.main(("NASOPS_COPY=a:new/stuck", "/nowhere")) == leftovers.STUCK
        assert capsys.readouterr().err == f"process {1 << 30} does not end\n"

    def test_it_is_told(self, tools: Tools, across: ReplicaRunner) -> None:
        tools.program("python3", f"echo 'process 7 does not end' >&2; exit {leftovers.STUCK}")
        words = f"left something at work on '{DATASET}' on 'nas2': process 7 does not end"
        with pytest.raises(StorageError, match=words), alone(across, DATASET):
            raise AssertionError("it is not alone")

    @pytest.mark.parametrize("one", [DOCS, replace(DOCS, volume=True)])
    def test_nothing_is_begun_then(self, tools: Tools, across: ReplicaRunner, one: Pass) -> None:
        tools.program("python3", f"echo 'process 7 does not end' >&2; exit {leftovers.STUCK}")
        with pytest.raises(StorageError, match="does not end"):
            one(across)
        assert of_zfs(tools) == []

    def test_a_host_that_can_not_be_reached(self, tools: Tools, across: ReplicaRunner) -> None:
        (tools.folder / "ssh.broken").touch()
        words = "'new' on 'nas2' can't be locked: the connection to 'nas2' was lost: Connection closed by nas2"
        with pytest.raises(StorageError, match=words), alone(across, "new"):
            raise AssertionError("it is not alone")


class TestOthers:
    def test_the_same_task_has_the_same_mark(self, runner: ReplicaRunner) -> None:
        runner.lock = "/run/lock.1"
        one = mark_of(runner, "new/old")
        assert one == mark_of(runner, "new/old")
        assert one.endswith(":new/old")
        # By another name of that host, or with another target, it is another lock that keeps two tasks apart.
        runner.lock = "/run/lock.2"
        assert one != mark_of(runner, "new/old")

    def test_so_has_no_host_that_is_a_copy_of_this_one(
        self, runner: ReplicaRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = mark_of(runner, "new/old")
        name = os.uname()
        monkeypatch.setattr(os, "uname", lambda: os.uname_result((name[0], "elsewhere", *name[2:])))
        assert one != mark_of(runner, "new/old")

    def test_they_are_not_ended(self, tools: Tools, impatient: ReplicaRunner) -> None:
        impatient.lock = "/run/lock.1"
        theirs = mark_of(impatient, DATASET)
        impatient.lock = "/run/lock.2"
        with started(theirs) as other:
            words = f"Another task works on '{DATASET}' on 'nas2': there is process {other.pid}"
            with pytest.raises(Occupied, match=words):
                DOCS(impatient)
            assert other.poll() is None
        assert of_zfs(tools) == []

    def test_who_holds_the_lock_is_not_disturbed(self, tools: Tools, impatient: ReplicaRunner) -> None:
        impatient.lock = "/run/lock.1"
        with alone(impatient, DATASET):
            impatient.lock = "/run/lock.2"
            with pytest.raises(Occupied, match="it is locked") as caught:
                DOCS(impatient)
        assert lock_of(f":{DATASET}") in caught.value.hint
        assert of_zfs(tools) == []

    def test_the_lock_is_held_as_long_as_it_takes(self, across: ReplicaRunner) -> None:
        with alone(across, DATASET), open(lock_of(f":{DATASET}"), "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(lock_of(f":{DATASET}"), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_one_that_just_ends_is_waited_for(self, across: ReplicaRunner) -> None:
        across.lock = "/run/lock.1"
        theirs = mark_of(across, DATASET)
        across.lock = "/run/lock.2"
        with started(theirs, "sleep 0.5") as other, alone(across, DATASET):
            assert other.wait(5) == 0

    def test_on_this_host_nothing_is_asked(self, tools: Tools, runner: ReplicaRunner) -> None:
        with alone(runner, DATASET):
            assert not (tools.folder / "log").exists()


class TestSteps:
    """Whatever works there is marked, and begins when what was left is gone."""

    @pytest.fixture
    def left(self, across: ReplicaRunner) -> t.Iterator[subprocess.Popen[bytes]]:
        with started(mark_of(across, DATASET)) as one:
            yield one

    def test_a_volume_that_is_compared(
        self, tools: Tools, across: ReplicaRunner, left: subprocess.Popen[bytes]
    ) -> None:
        with contextlib.suppress(StorageError):
            Compare("Compare", "old/vol@b", f"{DATASET}@b", volumes=True)(across)
        assert left.poll() == -signal.SIGTERM
        assert self.marked_sends(tools, across) == 1

    def test_one_that_is_read(self, tools: Tools, across: ReplicaRunner, left: subprocess.Popen[bytes]) -> None:
        ReadAll("Read", f"{DATASET}", "b", "b", copied=True)(across)
        assert left.poll() == -signal.SIGTERM
        assert self.marked_sends(tools, across) == 1

    def marked_sends(self, tools: Tools, across: ReplicaRunner) -> int:
        lines = [line for line in tools.log if line.startswith("ssh") and "zfs send" in line]
        return sum(f"'{mark_of(across, DATASET)}' zfs send" in line for line in lines)

    def test_streams_need_nothing_there(self, tools: Tools, across: ReplicaRunner) -> None:
        tools.program("python3", "exit 127")
        ReadAll("Read", "new/old", "a", "b")(across)
        with contextlib.suppress(StorageError):
            Compare("Compare", "old/docs@b", f"{DATASET}@b")(across)
        assert not any(line.startswith("python3") or "NASOPS" in line for line in tools.log)

    def test_files_that_are_compared(self, across: ReplicaRunner, left: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(StorageError):
            CompareTree("Compare", "old/docs@b", f"{DATASET}@b")(across)
        assert left.poll() == -signal.SIGTERM

    def test_one_that_is_closed_after_a_run_that_was_killed(
        self, tools: Tools, across: ReplicaRunner, left: subprocess.Popen[bytes]
    ) -> None:
        tools.program("zfs", f"kill -0 {left.pid} && [ ! -e /proc/{left.pid}/exe ] || echo early >>{tools.folder}/log")
        Alone(DATASET, AtTarget(Command(("zfs", "inherit", "readonly", DATASET))))(across)
        assert left.poll() == -signal.SIGTERM
        assert of_zfs(tools) == [f"zfs inherit readonly {DATASET}"]
        assert "early" not in tools.log

    def test_a_pass_that_fails_ends_its_own_before_it_closes(self, tools: Tools, across: ReplicaRunner) -> None:
        """rsync there may not know yet that the line is cut. It puts what it has got into its place when it ends."""
        name, _equals, value = mark_of(across, DATASET).partition("=")
        tools.program(
            "rsync",
            f"{name}='{value}' setsid sh -c 'trap \"echo placed >>{tools.folder}/log; exit\" TERM; "
            f"echo there >>{tools.folder}/log; while :; do sleep 0.1; done' >/dev/null 2>&1 </dev/null & "
            f"until grep -q ^there {tools.folder}/log; do sleep 0.1; done; exit 12",
        )
        with pytest.raises(CopyFailed, match="status 12"):
            DOCS(across)
        assert tools.log.index("placed") < tools.log.index(f"zfs inherit readonly {DATASET}")
        assert leftovers.left_over(os.fsencode(mark_of(across, DATASET))) == []

    def test_what_somebody_else_has_taken_meanwhile_is_left_to_them(
        self, tools: Tools, impatient: ReplicaRunner
    ) -> None:
        impatient.lock = "/run/lock.1"
        theirs = mark_of(impatient, DATASET)
        impatient.lock = "/run/lock.2"
        name, _equals, value = theirs.partition("=")
        tools.program("rsync", f"{name}='{value}' sleep 60 >/dev/null 2>&1 & echo $! >{tools.folder}/pid; exit 12")
        try:
            with pytest.raises(CopyFailed, match="status 12") as caught:
                DOCS(impatient)
        finally:
            os.kill(int((tools.folder / "pid").read_text()), signal.SIGKILL)
        assert "Another task works on" in caught.value.details["left_writable"]
        assert not any("inherit" in line for line in of_zfs(tools))

    def test_one_that_does_not_end_is_closed_all_the_same(self, tools: Tools, across: ReplicaRunner) -> None:
        tools.program("rsync", f"touch {tools.folder}/stuck; exit 12")
        python = (tools.folder / "python3").read_text().splitlines()[-1]
        tools.program("python3", f"[ ! -e {tools.folder}/stuck ] || {{ echo stuck >&2; exit 3; }}; {python}")
        with pytest.raises(CopyFailed, match="status 12"):
            DOCS(across)
        assert of_zfs(tools)[-4] == f"zfs inherit readonly {DATASET}"

    def test_a_line_that_is_found_dead_then(self, tools: Tools, across: ReplicaRunner) -> None:
        tools.program("rsync", f"touch {tools.folder}/dead; exit 255")
        python = (tools.folder / "python3").read_text().splitlines()[-1]
        dead = f"{tools.folder}/dead"
        tools.program(
            "python3", f"[ ! -e {dead} ] || {{ rm {dead}; exit 255; }}; echo ended >>{tools.folder}/log; {python}"
        )
        with pytest.raises(CopyFailed, match="status 255"):
            DOCS(across)
        assert tools.log.count("ended") == 2
        assert tools.log[::-1].index("ended") > tools.log[::-1].index(f"zfs inherit readonly {DATASET}")

    def test_words_of_a_mark(self, across: ReplicaRunner) -> None:
        assert marked(across, DATASET) == ("env", mark_of(across, DATASET))
