# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems that are mounted where nobody else sees them, and not any more when this process is gone."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import time
import typing as t
from dataclasses import dataclass

from ..command import Command
from ..errors import StorageError
from ..remote import RemoteRunner
from ..zfs.replicate_run import ReplicaRunner, end_process, held_back

PROGRAMS = ("unshare", "nsenter", "mount")

# In the mount namespace of the process below; outside of it these folders stay empty.
_BASE = "/run/nasops-rsync"
# Seconds. A pool on sleeping disks needs time; one that is suspended never answers.
_PATIENCE = 600.0
# Seconds that unmounting may take, which writes what is still in memory.
_LEAVE = 120.0
_SAID = 2000
# What a login shell has to say may come before it.
_READY = re.compile(rb"^ready (\d+)\n", re.MULTILINE)

# Mounts each pair of options and name on a folder of its own, and keeps that until its standard input ends, be it by
# the death of this process. Without the helper of mount(8), which has its own rules for each kind of mountpoint (-i),
# and without taking the name of a dataset for a path (-c), which mount before util-linux 2.36.2 would make absolute.
_HOLD = (
    'umask 077; base=$1; shift; number=0; while [ $# -gt 0 ]; do number=$((number + 1)); mkdir -p "$base/$number" '
    '&& mount -c -i -n -t zfs -o "$1" -- "$2" "$base/$number" || exit 1; shift 2; done; echo "ready $$"; '
    'cat >/dev/null; while [ $number -gt 0 ]; do umount "$base/$number" || exit 1; number=$((number - 1)); done'
)


@dataclass(frozen=True)
class Mount:
    """A filesystem, or a snapshot of one. ``write``: whether it is to be written to."""

    name: str
    write: bool = False

    @property
    def options(self) -> str:
        # What is read must not look read at the target.
        return "rw,noatime" if self.write else "ro"


@dataclass(frozen=True)
class Place:
    """Where filesystems are mounted, in their order: in the namespace of this process, of the host of that."""

    pid: int
    count: int

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders as they are reached on that host, for what takes a path as it is."""
        return tuple(f"/proc/{self.pid}/root{one}" for one in self.inside)

    @property
    def inside(self) -> tuple[str, ...]:
        """The folders for a program that runs there. Outside they are others, which are empty."""
        return tuple(f"{_BASE}/{number}" for number in range(1, self.count + 1))

    @property
    def enter(self) -> tuple[str, ...]:
        """The words that let a program run there."""
        return ("nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--wd=/")


class NotMounted(StorageError):
    """A filesystem could not be mounted, or unmounted."""


@contextlib.contextmanager
def mounted(
    runner: ReplicaRunner, *mounts: Mount, end: RemoteRunner | None = None, before: t.Sequence[str] = ()
) -> t.Iterator[Place]:
    """Filesystems for as long as it takes.

    They are mounted in a namespace of another process, so that no other user comes across them and nothing of them is
    left, whatever becomes of this process. What is unmounted outside meanwhile is unmounted there, too.

    :param end: the host on which they are, None for this one
    :param before: words before the program that holds them
    :raises NotMounted: one can't be mounted, or is not unmounted in the end
    """
    words = tuple(word for one in mounts for word in (one.options, one.name))
    argv = (*before, "unshare", "--mount", "--propagation", "slave", "sh", "-c", _HOLD, "sh", _BASE, *words)
    what = " and ".join(f"'{one.name}'" for one in mounts) + (f" on '{end.host}'" if end is not None else "")
    stdin, hold = os.pipe()
    ready, stdout = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            with held_back():
                process = (runner if end is None else end).start(Command(argv), stdin, stdout)
        finally:
            os.close(stdin)
            os.close(stdout)
        pid = _pid_of(ready)
        if pid is None:
            end_of_hold, hold = hold, -1
            os.close(end_of_hold)
            raise NotMounted(
                f"{what} can't be mounted: {_words(runner, process)}.",
                hint="See the kernel log. It must not be mounted otherwise meanwhile ('zfs unmount').",
            )
        yield Place(pid, len(mounts))
        end_of_hold, hold = hold, -1
        os.close(end_of_hold)
        if _wait(process) != 0:
            raise NotMounted(f"{what} can't be unmounted: {_words(runner, process)}.", hint="Run this again.")
    finally:
        os.close(ready)
        if hold != -1:
            os.close(hold)
        if process is not None:
            _wait(process)
            end_process(process)


def _pid_of(ready: int) -> int | None:
    """The process that holds the mounts, as it is called on its host; None if they can't be had."""
    found, end = b"", time.monotonic() + _PATIENCE
    match = None
    while match is None:
        if not select.select([ready], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        part = os.read(ready, 64)
        if not part:
            return None
        found += part
        match = _READY.search(found)
    return int(match.group(1))


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit status, None if it does not end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(_LEAVE)
    return None


def _words(runner: ReplicaRunner, process: subprocess.Popen[bytes]) -> str:
    if _wait(process) is None:
        return "mount does not end"
    said = b"" if process.stderr is None else process.stderr.read(_SAID)
    return " ".join(runner.redact(said).split()).rstrip(".") or f"status {process.returncode}"
