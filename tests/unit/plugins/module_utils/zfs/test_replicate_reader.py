# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process whose reader goes away, in each kind of channel that a connection gives to a module."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs import replicate_reader
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_reader import ended_with_its_reader

POLL = select.poll
# Seconds for a machine that is busy with something else.
PATIENCE = 60
# As a module does it: SIGTERM ends what runs at both ends, and then this.
WORK = """
import importlib.util, signal, sys, time
spec = importlib.util.spec_from_file_location("reader", sys.argv[1])
reader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reader)
def stop(number, frame):
    raise SystemExit(143)
signal.signal(signal.SIGTERM, stop)
with reader.ended_with_its_reader():
    open(sys.argv[2] + ".begun", "w").close()
    try:
        for _tick in range(int(sys.argv[3])):
            time.sleep(0.1)
    finally:
        open(sys.argv[2], "w").close()
"""


def begin(place: Path, stdout: int, ticks: int = 10 * PATIENCE) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-I", "-S", "-c", WORK, replicate_reader.__file__, str(place), str(ticks)]
    process = subprocess.Popen(words, stdout=stdout)
    end = time.monotonic() + PATIENCE
    while not Path(f"{place}.begun").exists() and time.monotonic() < end:
        time.sleep(0.02)
    return process


def channel(kind: str) -> tuple[int, int]:
    """The reader's end, and the writer's."""
    if kind == "pipe":
        return os.pipe()
    if kind == "terminal":
        return os.openpty()
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_it_is_ended_in_order_when_its_reader_is_gone(tmp_path: Path, kind: str) -> None:
    reading, writing = channel(kind)
    process = begin(tmp_path / "end", writing)
    os.close(writing)
    try:
        time.sleep(0.3)
        assert process.poll() is None
        os.close(reading)
        assert process.wait(PATIENCE) == 143
        assert (tmp_path / "end").exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_it_comes_to_its_own_end_when_there_is_one(tmp_path: Path, kind: str) -> None:
    reading, writing = channel(kind)
    if kind == "socket":
        # As after the last byte of what the module was given.
        with socket.socket(fileno=os.dup(reading)) as ours:
            ours.shutdown(socket.SHUT_WR)
    process = begin(tmp_path / "end", writing, 5)
    os.close(writing)
    assert process.wait(PATIENCE) == 0
    os.close(reading)


@pytest.mark.parametrize("place", ["file", "/dev/null"])
def test_what_has_no_reader_is_no_reason(tmp_path: Path, place: str) -> None:
    with open(tmp_path / place, "wb") as file:
        assert begin(tmp_path / "end", file.fileno(), 5).wait(PATIENCE) == 0


def test_it_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda *words: killed.append(words))
    reading, writing = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    for _time in range(3):
        with ended_with_its_reader(writing):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(reading)
    with ended_with_its_reader(writing):
        _wait(lambda: bool(killed))
    os.close(writing)
    assert killed == [(threading.main_thread().ident, signal.SIGTERM)]


class Asleep:
    """As on FreeBSD: that the reader is gone does not wake who waits, and is seen with the next look."""

    def __init__(self) -> None:
        self.poll_it = POLL()
        self.looks = 0

    def register(self, descriptor: int, events: int) -> None:
        self.poll_it.register(descriptor, events)

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        assert 0 < timeout <= 10000
        self.looks += 1
        return [] if self.looks == 1 else self.poll_it.poll(timeout)


def test_it_looks_again_where_nobody_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda *words: killed.append(words))
    monkeypatch.setattr(select, "poll", Asleep)
    reading, writing = os.pipe()
    os.close(reading)
    with ended_with_its_reader(writing):
        _wait(lambda: bool(killed))
    os.close(writing)
    assert killed == [(threading.main_thread().ident, signal.SIGTERM)]


def _wait(is_so: t.Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
