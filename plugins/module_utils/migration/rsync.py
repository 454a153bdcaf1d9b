# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs rsync between two folders, tells how far it is, and says in words why it has failed."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import time
import typing as t

from ..command import Command, ProgramMissing, Runner
from ..errors import StorageError
from ..zfs.replicate_progress import Meter
from ..zfs.replicate_run import ReplicaRunner, end_process, held_back
from .tree import OF_THE_HOST

# setpriv has rsync end with this process, which holds the lock of the target.
PROGRAMS = ("rsync", "setpriv")

_TICK = 0.5
_SAID = 8000
# Seconds that it gets to end by itself after it has closed what it says.
_GRACE = 30.0
# Bytes, share of all, rate: what it says with progress2, each line ended by a carriage return.
_PROGRESS = re.compile(rb"^\s*([0-9][0-9,.]*)\s+\d+%\s")
_VERSION = re.compile(r"rsync\s+version\s+v?(\d+)\.(\d+)\.(\d+)")
# Since then it compares times to the nanosecond, so that what was written within the same second is seen, and knows
# filters of extended attributes.
_OLDEST = (3, 1, 3)
_LACKS = {"no ACLs": "ACLs", "no xattrs": "extended attributes", "no hardlinks": "hard links"}

_KEPT = "What was copied whole is kept: run this again to go on."
_SOME = (
    "All others were. See in stderr which: restore those whose blocks are damaged ('zpool status -v') where the pool "
    "can be written to, or name them in 'exclude_files'."
)
# rsync(1), EXIT VALUES, in the words of what happens here.
_ENDS = {
    1: ("it did not understand its options", "Is it older than 3.1.3?"),
    2: ("it can't do what is asked for", "Is it older than 3.1.3?"),
    3: ("a folder could not be entered", "See the kernel log."),
    10: ("the connection between its processes broke", _KEPT),
    11: ("a file could not be read or written, such as for lack of room or by a quota", f"Make room. {_KEPT}"),
    12: ("one of its processes ended early, such as for lack of room or memory", _KEPT),
    13: ("its diagnostics failed", _KEPT),
    14: ("its processes could not talk to each other", _KEPT),
    20: ("it was ended by a signal", _KEPT),
    21: ("one of its processes got lost", _KEPT),
    22: ("there was not enough memory", _KEPT),
    23: (
        "some files could not be copied, or not whole",
        _SOME,
    ),
    24: ("some files were gone before they were read", "Run this again."),
    25: ("it was not allowed to delete so much", _KEPT),
    30: ("nothing has come for too long", "See 'stall_timeout', 'zpool status', and the kernel log. " + _KEPT),
}


class CopyFailed(StorageError):
    """rsync did not bring everything over."""


def fault_of_programs(runner: Runner) -> str:
    """What keeps rsync from being used on this host, "" for nothing."""
    missing = [one for one in PROGRAMS if not runner.has(one)]
    if missing:
        return f"The programs {', '.join(missing)} are missing on this host: install the packages rsync and util-linux."
    try:
        said = runner.run(Command(("rsync", "--version"))).stdout
    except ProgramMissing as error:
        return error.message
    return fault_of_version(said)


def fault_of_version(said: str) -> str:
    """The same, by what ``rsync --version`` says."""
    match = _VERSION.search(said)
    if match is None or tuple(int(part) for part in match.groups()) < _OLDEST:
        found = ".".join(match.groups()) if match else "unknown"
        wanted = ".".join(str(one) for one in _OLDEST)
        return f"The version of rsync on this host is {found}; wanted is {wanted} or later."
    lacks = [what for words, what in _LACKS.items() if words in said]
    return f"The rsync of this host was built without {', '.join(lacks)}, which would be lost." if lacks else ""


def rsync_command(
    source: str, target: str, skip: t.Sequence[str] = (), stall_timeout: float = 0.0, enter: t.Sequence[str] = ()
) -> Command:
    """What makes one folder the same as the other, with all that rsync can carry.

    Files are written anew and take the place of the old ones (no ``--inplace``), so that a name that was a link to
    another file is none any more when it differs. One that breaks off begins anew: between folders of one host rsync
    makes no use of the beginning of a file (``--partial``), it would have to read both for that.

    :param skip: paths from the root that are left alone at both ends
    :param enter: words that let it run where the folders are. It must not be given a way there through /proc: rsync 3.5
        follows that link by itself, and then writes to the folder of the same name on this side
    """
    argv = ["setpriv", "--pdeathsig", "TERM", *enter, "rsync"]
    # The second X is for attributes whose names rsync uses itself, such as a backup that it has made has.
    argv += ["-aHAXXS", "--numeric-ids", "--one-file-system", "--delete", "--modify-window=-1", "--whole-file"]
    argv += ["--info=progress2", "--no-human-readable", "--outbuf=N"]
    if stall_timeout:
        argv.append(f"--timeout={max(1, int(stall_timeout))}")
    # A filter of attributes takes the place of what rsync leaves out by itself: ACLs are among system.*, and are -A's.
    argv += [f"--filter=-x {one}" for one in (*OF_THE_HOST, "system.*")]
    argv += [f"--exclude=/{one}" for one in (".zfs", *(escaped(path) for path in skip))]
    return Command((*argv, f"{source}/", f"{target}/"))


def escaped(path: str) -> str:
    """A path as a pattern that stands for nothing else."""
    return re.sub(r"([\\*?\[])", r"\\\1", path) if re.search(r"[*?\[]", path) else path


def run_rsync(runner: ReplicaRunner, title: str, command: Command, estimate: int) -> None:
    """Run it to its end.

    :raises CopyFailed: it did not copy all
    """
    reading, writing = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            with held_back():
                process = runner.start(command, subprocess.DEVNULL, writing)
        finally:
            os.close(writing)
        said = _listen(runner, title, process, reading, estimate)
        _verdict(runner, command, process, said)
    finally:
        os.close(reading)
        if process is not None:
            end_process(process)


def _listen(runner: ReplicaRunner, title: str, process: subprocess.Popen[bytes], progress: int, estimate: int) -> bytes:
    """Read what it says until it has ended; returns what was no progress."""
    meter, begun = Meter(), time.monotonic()
    meter.total = estimate
    said = line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(progress, selectors.EVENT_READ)
        if process.stderr is not None:
            selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(_TICK)
            for key, _events in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fd == progress:
                    *lines, line = (line + data).replace(b"\n", b"\r").split(b"\r")
                    for one in lines:
                        meter.add(max(0, _bytes_of(one) - meter.sent))
                else:
                    said = (said + data)[-_SAID:]
            runner.progress.write(title, meter, begun)
            if not ready and process.poll() is not None:
                # What one of its processes left behind may hold its standard error for ever.
                break
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    return said


def _bytes_of(line: bytes) -> int:
    """The bytes that a line of progress tells, 0 for one that tells none."""
    match = _PROGRESS.match(line)
    return int(re.sub(rb"\D", b"", match.group(1))) if match else 0


def _verdict(runner: ReplicaRunner, command: Command, process: subprocess.Popen[bytes], said: bytes) -> None:
    status = process.returncode
    if status == 0:
        return
    text = runner.redact(said)
    sentence, hint = words_of(status)
    last = next((line.strip() for line in text.splitlines() if line.strip()), "")
    raise CopyFailed(
        f"{sentence}{': ' + last.rstrip('.') if last else ''}.",
        hint=hint,
        cmd=list(command.argv),
        rc=status,
        stderr=text,
    )


def words_of(status: int | None) -> tuple[str, str]:
    """What an exit status of rsync means here, and what to do."""
    if status is None:
        return "rsync does not end", "See the kernel log."
    if status < 0:
        return f"rsync was ended by signal {-status}", _KEPT
    sentence, hint = _ENDS.get(status, ("it failed", _KEPT))
    return f"rsync ended with status {status}: {sentence}", hint
