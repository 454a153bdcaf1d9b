# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees to it that nobody else works on a dataset of a target on another host."""

from __future__ import annotations

import contextlib
import hashlib
import os
import typing as t
from dataclasses import dataclass

from ..command import Command, Runner
from ..errors import StorageError
from ..lock import lock_of
from ..plan import Action, act
from ..zfs.replicate_run import ReplicaRunner, replica_runner
from . import leftovers
from .far import ending, far_end, python, source_of
from .holder import holder

# In the environment of all that works on a dataset there, so that the next run can tell what one before it has left.
_MARK = "NASOPS_COPY"
# Seconds until the lock is held: what was left gets half a minute to end.
_PATIENCE = 180.0
# Seconds that it gets to let go. A line that is dead does not.
_LEAVE = 10.0


class Occupied(StorageError):
    """Somebody else works on it."""


def mark_of(own: ReplicaRunner, dataset: str) -> str:
    """What tells that something works on a dataset, and for whom: this host, in a task that holds this lock.

    While we hold that, what is there for the same one is left over.
    """
    identity = b""
    with contextlib.suppress(OSError), open("/etc/machine-id", "rb") as file:
        identity = file.read().strip()
    # What makes hosts one of which is a copy of the other two. The number of a host is not to be shown around.
    words = (identity, os.fsencode(os.uname().nodename), os.fsencode(own.lock))
    return f"{_MARK}={hashlib.sha256(bytes(1).join(words)).hexdigest()[:16]}:{dataset}"


def marked(own: ReplicaRunner, dataset: str) -> tuple[str, ...]:
    """The words before a program that works on a dataset at another host."""
    return ("env", mark_of(own, dataset))


@contextlib.contextmanager
def alone(own: ReplicaRunner, dataset: str) -> t.Iterator[None]:
    """Nobody else works on a dataset of the target meanwhile. What we have left there before is ended.

    The caller holds the lock of the target on this host, which is not the only one that may copy to it; and this one
    may do so by another name of that host. On this host itself, that lock is enough.

    :raises Occupied: somebody does
    :raises StorageError: what was left does not end, or that host can't be reached
    """
    far = far_end(own)
    if far is None:
        yield
        return
    # The same as of a task of that host itself which has this for its target.
    lock = lock_of(f":{dataset}")
    argv = (*marked(own, dataset), *python(leftovers, mark_of(own, dataset), lock))
    with holder(far, Command(argv), _PATIENCE, _LEAVE, source_of(leftovers)) as held:
        if held.pid is None:
            words, status = ending(far, own, held.process), held.process.returncode
            if status == leftovers.OCCUPIED:
                raise Occupied(
                    f"Another task works on '{dataset}' on '{far.host}': {words}.",
                    hint="Wait for its end. One of another host whose connection was lost may be left there for hours: "
                    f"'fuser {lock}' shows the process that holds the lock, and those at work have {_MARK} in their "
                    "environment. End them there if that host is done with it, and run this again.",
                )
            if status == leftovers.STUCK:
                raise StorageError(
                    f"An earlier run has left something at work on '{dataset}' on '{far.host}': {words}.",
                    hint="See 'zpool status' and the kernel log there.",
                )
            raise StorageError(
                f"'{dataset}' on '{far.host}' can't be locked: {words}.",
                hint="See that the host can be reached. Run this again.",
            )
        yield


@dataclass(frozen=True)
class Alone:
    """Something that is done to a dataset of the target while nobody else works on it."""

    dataset: str
    action: Action

    def __call__(self, runner: Runner) -> None:
        with alone(replica_runner(runner), self.dataset):
            act(self.action, runner)
