# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds the lock of a dataset at a host, after it has ended what an earlier run of the same task has left there.

Where a line goes silent, nobody at that host notices for hours.

This file is run by itself at the other host, which needs no more than Python 3.9 for it. So it imports nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
import typing as t

# How it ends: something does not end, or somebody else is at work.
STUCK, OCCUPIED = 3, 4
# Seconds that processes get to end after each signal. One that is stuck in the kernel does not.
_PATIENCE, _PAUSE = 15.0, 0.1
# Seconds that others get to go away by themselves: they may be just ending.
_WAIT = 10.0


def marks(proc: str = "/proc") -> t.Iterator[tuple[int, list[bytes]]]:
    """The environment of all other processes."""
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        # It may be gone by now.
        with contextlib.suppress(OSError), open(os.path.join(proc, name, "environ"), "rb") as file:
            yield int(name), file.read().split(b"\0")


def left_over(mark: bytes) -> list[int]:
    """The processes that have this in their environment."""
    return [pid for pid, environment in marks() if mark in environment]


def of_others(mark: bytes) -> list[int]:
    """The processes that work on the same dataset for somebody else. A mark is NAME=SOMEBODY:DATASET."""
    name, _equals, value = mark.partition(b"=")
    dataset = value.partition(b":")[2]
    return [
        pid
        for pid, environment in marks()
        if any(one != mark and one.startswith(name + b"=") and one.partition(b":")[2] == dataset for one in environment)
    ]


def end_left(mark: bytes) -> list[int]:
    """End them, politely first: rsync keeps what it has got of a file then. Returns those that do not end."""
    left = left_over(mark)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + _PATIENCE
        while left and time.monotonic() < end:
            time.sleep(_PAUSE)
            left = left_over(mark)
    return left


def fault_of_others(descriptor: int, mark: bytes) -> str:
    """Takes the lock; returns who else is at work, "" for nobody. Those whose line broke have no lock any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "it is locked"
    others = of_others(mark)
    return f"there is process {_shown(others)}" if others else ""


def _shown(pids: t.Sequence[int]) -> str:
    return ", ".join(str(pid) for pid in pids)


def main(argv: t.Sequence[str]) -> int:
    """What is run at another host: what ours have in their environment, as NAME=SOMEBODY:DATASET, and a lock file.

    The lock is held until standard input ends.
    """
    mark, path = os.fsencode(argv[0]), argv[1]
    left = end_left(mark)
    if left:
        sys.stderr.write(f"process {_shown(left)} does not end\n")
        return STUCK
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        sys.stderr.write(f"{path}: {error.strerror}\n")
        return 1
    end = time.monotonic() + _WAIT
    fault = fault_of_others(descriptor, mark)
    while fault:
        if time.monotonic() >= end:
            sys.stderr.write(f"{fault}\n")
            return OCCUPIED
        time.sleep(_PAUSE)
        fault = fault_of_others(descriptor, mark)
    sys.stdout.write(f"ready {os.getpid()}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[3:]))
