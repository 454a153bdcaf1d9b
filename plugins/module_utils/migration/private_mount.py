# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems that are mounted where nobody else sees them, and not any more when this process is gone."""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass

from ..command import Command, CommandError
from ..errors import StorageError, in_a_sentence
from ..remote import RemoteRunner
from ..zfs.replicate_run import ReplicaRunner
from .holder import Talk, holder

PROGRAMS = ("unshare", "nsenter", "mount")

# In the mount namespace of the process below an empty filesystem lies here, that nobody can write to, with a folder
# for each mount. So what comes when one is gone finds nothing, and can leave nothing. Outside there are no such
# folders: who does not get into that namespace finds none, and rsync makes no more than the last folder of a path.
_ROOT = "/run/nasops-rsync"
# Seconds. A pool on sleeping disks needs time; one that is suspended never answers.
_PATIENCE = 600.0
# Seconds that unmounting may take, which writes what is still in memory.
_LEAVE = 120.0
_SAID = 2000
_HINT = "See the kernel log. It must not be mounted otherwise meanwhile ('zfs unmount')."

# How these scripts end where a filesystem can't be mounted, or unmounted.
_NOT_MOUNTED, _STILL_MOUNTED = 90, 91
# Tries to unmount, a second apart: what was told to end at another host, such as a listing that nobody reads on, needs
# a moment for that. On this one it is waited for.
_TRIES = 15

# Mounts each pair of options and name on a folder of its own. Without the helper of mount(8), which has its own rules
# for each kind of mountpoint (-i), and without taking the name of a dataset for a path (-c), which mount before
# util-linux 2.36.2 would make absolute.
_MOUNT = (
    'umask 077; root=$1; count=$2; tries=$3; shift 3; mkdir -p "$root" '
    f'&& mount -i -n -t tmpfs -o size=1m,mode=700 nasops "$root" || exit {_NOT_MOUNTED}; '
    'number=0; while [ $number -lt $count ]; do number=$((number + 1)); mkdir -p "$root/fs/$number" '
    f"|| exit {_NOT_MOUNTED}; done; "
    f'mount -i -n -t tmpfs -o remount,ro nasops "$root" || exit {_NOT_MOUNTED}; '
    "number=0; while [ $number -lt $count ]; do number=$((number + 1)); "
    f'mount -c -i -n -t zfs -o "$1" -- "$2" "$root/fs/$number" || exit {_NOT_MOUNTED}; shift 2; done; '
)
_UNMOUNT = (
    'while [ $number -gt 0 ]; do until said=$(umount "$root/fs/$number" 2>&1); do tries=$((tries - 1)); '
    f'[ $tries -gt 0 ] || {{ echo "$said" >&2; exit {_STILL_MOUNTED}; }}; sleep 1; done; number=$((number - 1)); done'
)
# Keeps them until its standard input ends, be it by the death of this process.
_HOLD = f'{_MOUNT}echo "ready $$"; cat >/dev/null; {_UNMOUNT}'
# Runs a program there, and waits for nobody.
_RUN = f'{_MOUNT}"$@"; status=$?; {_UNMOUNT}; exit $status'


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
        """The folders for a program that runs there. Outside there are none of these."""
        return tuple(_folder(number) for number in range(1, self.count + 1))

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
    """Filesystems for as long as it takes. That it ends without an error says that they were mounted all the time.

    They are mounted in a namespace of another process, so that no other user comes across them and nothing of them is
    left, whatever becomes of this process. What is unmounted outside meanwhile is unmounted there, too.

    :param end: the host on which they are, None for this one
    :param before: words before the program that holds them
    :raises NotMounted: one can't be mounted, or is not unmounted in the end
    """
    command = Command((*before, *_script(_HOLD, mounts, 1 if end is None else _TRIES)))
    what = " and ".join(f"'{one.name}'" for one in mounts) + (f" on '{end.host}'" if end is not None else "")
    with holder(runner if end is None else end, command, _PATIENCE, _LEAVE) as held:
        if held.pid is None:
            held.release()
            raise NotMounted(f"{what} can't be mounted: {_words(runner, held)}.", hint=_HINT)
        yield Place(held.pid, len(mounts))
        if held.release() != 0:
            raise NotMounted(f"{what} can't be unmounted: {_words(runner, held)}.", hint="Run this again.")


def run_mounted(end: RemoteRunner, mount: Mount, program: t.Callable[[str], Command]) -> str:
    """What a program says that runs at another host, where a filesystem is mounted as long as that takes.

    All of it goes on by itself, and ends, when the connection is lost.

    :param program: the program, by the folder that it is mounted on
    :raises NotMounted: it can't be mounted, or is not unmounted in the end
    :raises CommandError: the program has failed
    """
    command = program(_folder(1))
    try:
        return end.run(Command((*_script(_RUN, (mount,), _TRIES), *command.argv), command.stdin)).stdout
    except CommandError as error:
        if error.result.rc not in (_NOT_MOUNTED, _STILL_MOUNTED):
            raise
        what = "mounted" if error.result.rc == _NOT_MOUNTED else "unmounted"
        words = in_a_sentence(error.result.stderr)
        raise NotMounted(f"'{mount.name}' on '{end.host}' can't be {what}: {words}.", hint=_HINT) from None


def _folder(number: int) -> str:
    return f"{_ROOT}/fs/{number}"


def _script(script: str, mounts: t.Sequence[Mount], tries: int) -> tuple[str, ...]:
    words = (word for one in mounts for word in (one.options, one.name))
    start = ("unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh")
    return (*start, _ROOT, str(len(mounts)), str(tries), *words)


def _words(runner: ReplicaRunner, held: Talk) -> str:
    process = held.process
    if held.wait() is None:
        return "mount does not end"
    said = b"" if process.stderr is None else process.stderr.read(_SAID)
    return in_a_sentence(runner.redact(said)) or f"status {process.returncode}"
