# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs rsync between two folders, be it to another host, tells how far it is, and says in words why it has failed."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import time
import typing as t
from dataclasses import dataclass

from ..command import Command, ProgramMissing, Runner
from ..errors import StorageError
from ..zfs.replicate_progress import Meter
from ..zfs.replicate_run import ReplicaRunner, end_process, held_back
from .listing import OF_THE_HOST

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
# The same where the other end is on another host.
_ENDS_THERE = {
    10: ("the connection broke", "See that the host can be reached."),
    12: (
        "the connection broke, or rsync ended early there, such as for lack of room or memory",
        "See stderr, the room at the target, and that the host can be reached.",
    ),
    127: ("a program was not found there", "Install rsync and util-linux there."),
    255: ("the connection was lost, or could not be made", "Try 'ssh' by hand on this host, as root."),
}
_KEPT_THERE = "What was copied is kept, also of a file that was not copied to its end: run this again to go on."


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


def fault_of_version(said: str, where: str = "this host") -> str:
    """The same, by what ``rsync --version`` says there."""
    match = _VERSION.search(said)
    if match is None or tuple(int(part) for part in match.groups()) < _OLDEST:
        found = ".".join(match.groups()) if match else "unknown"
        wanted = ".".join(str(one) for one in _OLDEST)
        return f"The version of rsync on {where} is {found}; wanted is {wanted} or later."
    lacks = [what for words, what in _LACKS.items() if words in said]
    return f"The rsync of {where} was built without {', '.join(lacks)}, which would be lost." if lacks else ""


@dataclass(frozen=True)
class Across:
    """How rsync reaches a target on another host.

    ``shell`` are the words before that host, which connect to it, and ``program`` is what is run there in place of
    rsync, as one line for the shell there.
    """

    host: str
    shell: tuple[str, ...]
    program: str

    def at(self, folder: str) -> str:
        """A folder there, in the words of rsync."""
        return f"[{self.host}]:{folder}" if ":" in self.host else f"{self.host}:{folder}"


def rsync_command(
    source: str,
    target: str,
    skip: t.Sequence[str] = (),
    stall_timeout: float = 0.0,
    enter: t.Sequence[str] = (),
    across: Across | None = None,
) -> Command:
    """What makes one folder the same as the other, with all that rsync can carry.

    Files are written anew and take the place of the old ones (no ``--inplace``), so that a name that was a link to
    another file is none any more when it differs. One that breaks off begins anew: between folders of one host rsync
    makes no use of the beginning of a file (``--partial``), it would have to read both for that. To another host that
    is worth it, as it is to send of a file only what has changed. What is there of it has no time then, so that the
    next run does not take it for whole.

    :param skip: paths from the root that are left alone at both ends
    :param enter: words that let it run where the folders are, or that of the source. It must not be given a way there
        through /proc: rsync 3.5 follows that link by itself, and then writes to the folder of the same name on this
        side
    :param across: how the target is reached, None if it is on this host
    """
    argv = ["setpriv", "--pdeathsig", "TERM", *enter, "rsync"]
    # The second X is for attributes whose names rsync uses itself, such as a backup that it has made has.
    argv += ["-aHAXXS", "--numeric-ids", "--one-file-system", "--delete", "--modify-window=-1"]
    argv += ["--whole-file"] if across is None else ["--partial"]
    argv += ["--info=progress2", "--no-human-readable", "--outbuf=N"]
    if stall_timeout:
        argv.append(f"--timeout={max(1, int(stall_timeout))}")
    # A filter of attributes takes the place of what rsync leaves out by itself: ACLs are among system.*, and are -A's.
    argv += [f"--filter=-x {one}" for one in (*OF_THE_HOST, "system.*")]
    argv += [f"--exclude=/{one}" for one in (".zfs", *(escaped(path) for path in skip))]
    if across is not None:
        argv += [f"--rsh={' '.join(quoted(word) for word in across.shell)}", f"--rsync-path={across.program}"]
        target = across.at(target)
    return Command((*argv, f"{source}/", f"{target}/"))


def quoted(word: str) -> str:
    """A word of ``--rsh``, which rsync splits by itself: in quotes, where only those have to be doubled."""
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII) else "'" + word.replace("'", "''") + "'"


def escaped(path: str) -> str:
    """A path as a pattern that stands for nothing else."""
    return re.sub(r"([\\*?\[])", r"\\\1", path) if re.search(r"[*?\[]", path) else path


def run_rsync(runner: ReplicaRunner, title: str, command: Command, estimate: int, host: str = "") -> None:
    """Run it to its end.

    :param host: that of the target, "" for this one
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
        _verdict(runner, command, process, said, host)
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


def _verdict(runner: ReplicaRunner, command: Command, process: subprocess.Popen[bytes], said: bytes, host: str) -> None:
    status = process.returncode
    if status == 0:
        return
    text = runner.redact(said)
    sentence, hint = words_of(status, host)
    last = next((line.strip() for line in text.splitlines() if line.strip()), "")
    raise CopyFailed(
        f"{sentence}{': ' + last.rstrip('.') if last else ''}.",
        hint=hint,
        cmd=list(command.argv),
        rc=status,
        stderr=text,
    )


def words_of(status: int | None, host: str = "") -> tuple[str, str]:
    """What an exit status of rsync means here, and what to do.

    :param host: that of the target, "" for this one
    """
    kept = _KEPT_THERE if host else _KEPT
    if status is None:
        return "rsync does not end", "See the kernel log."
    if status < 0:
        return f"rsync was ended by signal {-status}", kept
    if host and status in _ENDS_THERE:
        sentence, hint = _ENDS_THERE[status]
        return f"rsync to '{host}' ended with status {status}: {sentence}", f"{hint} {kept}"
    sentence, hint = _ENDS.get(status, ("it failed", _KEPT))
    where = f" to '{host}'" if host else ""
    return f"rsync{where} ended with status {status}: {sentence}", hint.replace(_KEPT, kept)
