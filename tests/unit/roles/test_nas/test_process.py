# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process is recognised as the VM's only while it is the very one that was started."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm import process
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import TestNasError as NasError
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.paths import Files

UUID = "12345678-1234-5678-1234-567812345678"
# Opens a "monitor", says something and goes on until it is killed.
QEMU = "import socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind('qmp.sock')\ntime.sleep(600)\n"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def running(files: Files) -> Iterator[process.Running]:
    """A process that stands for QEMU."""
    started = process.start([sys.executable, "-c", QEMU, UUID], files, UUID, 2222, "tcg")
    yield started
    started.kill()


def test_what_was_started_is_found_again(files: Files, running: process.Running) -> None:
    assert running.alive()
    assert process.read_running(files) == running
    assert (running.port, running.accel) == (2222, "tcg")


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another"}, {"uuid": "another"}])
def test_another_process_of_that_number_is_not_the_vm(
    files: Files, running: process.Running, change: dict[str, object]
) -> None:
    other = dataclasses.replace(running, **change)  # type: ignore[arg-type]
    other.write(files.run)
    assert process.read_running(files) is None
    other.kill()
    assert running.alive()


def test_a_killed_process_is_gone(files: Files, running: process.Running) -> None:
    running.kill()
    assert not running.alive()
    assert process.read_running(files) is None


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 1}', '{"surplus": 1}'])
def test_a_note_of_another_kind_is_no_process(files: Files, text: str) -> None:
    files.run.write_text(text)
    assert process.read_running(files) is None


def test_what_qemu_said_before_it_ended_is_told(files: Files) -> None:
    code = "import sys; sys.exit('no such device')"
    with pytest.raises(NasError, match="QEMU did not start: no such device"):
        process.start([sys.executable, "-c", code], files, UUID, 2222, "tcg")


def test_a_program_that_is_not_there_raises(files: Files) -> None:
    with pytest.raises(FileNotFoundError):
        process.start(["./qemu"], files, UUID, 2222, "tcg")


def test_a_zombie_is_not_alive() -> None:
    argv = [sys.executable, "-c", "input(input())", UUID]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        if child.stdin is None or child.stdout is None:
            raise ValueError("pipes were asked for")
        # it runs once it has answered
        child.stdin.write(b"?\n")
        child.stdin.flush()
        assert child.stdout.read(1) == b"?"
        ticks = process._start_ticks(child.pid)
        assert ticks is not None
        kept = process.Running(child.pid, ticks, process.boot_id(), UUID, 0, "tcg")
        assert kept.alive()
        child.stdin.close()
        # nobody has asked for its exit status yet
        assert kept.wait_for_end(60)
