# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what both ends hold: by the names and GUIDs of snapshots, by reading their contents, by reading all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
import typing as t
from dataclasses import dataclass

from ..command import Command, Runner
from ..errors import Refused, StorageError, in_a_sentence
from ..zfs.replicate_progress import Meter, human
from ..zfs.replicate_run import End, ReplicaRunner, Stalled, end_process, replica_runner
from ..zfs.state import run_zfs
from ..zfs.stream_digest import Contents, Counter, Reader, contents_of
from ..zfs.volume_stream import volume_contents
from .far import far_end
from .far_alone import alone, marked
from .tree import Unreadable

_TICK = 0.5
# What is read of a stream at a time.
_CHUNK = 1 << 20
# Characters of what zfs said that are worth keeping.
_SAID = 2000
# How zfs ends when what it sends is not read to the end, here and on another host.
_NOBODY_LISTENS = (-13, 141)
_HEALTHY = "No known data errors"

_Digest = t.Callable[[Reader, Counter], Contents]


class Differs(StorageError):
    """The target is not what the source is."""


@dataclass(frozen=True)
class Compare:
    """Reads one snapshot at both ends, as zfs sends it, and compares what a file or volume is made of.

    ZFS checks every block that it reads against its checksum, at the target against that of the encryption, too.
    ``estimate`` is in bytes. ``stall_timeout``: seconds in which nothing comes of one end after which it is given up,
    0 for never. ``volumes``: it is the data of a volume that counts, whatever blocks both ends have it in. So it was
    copied block by block, and a target on another host has what that takes.
    """

    title: str
    source: str
    target: str
    estimate: int = 0
    stall_timeout: float = 300.0
    volumes: bool = False

    def __call__(self, runner: Runner) -> None:
        own = replica_runner(runner)
        with _watched(own, self.target, self.volumes) as before:
            if self.volumes:
                self._compare_sizes(own)
            digest = volume_contents if self.volumes else contents_of
            ends = (
                _Reading(own, own, self.source, digest=digest),
                _Reading(own, own.target, self.target, digest=digest, before=before),
            )
            # Both are read, and the target may be on another host, which is the slower one.
            ours, theirs = read_side_by_side(own, self.title, ends, 2 * self.estimate, self.stall_timeout)
        if ours == theirs:
            return
        raise Differs(
            f"'{self.target}' does not hold what '{self.source}' holds: {_words(theirs)} against {_words(ours)}.",
            hint="Keep the source. Destroy this dataset at the target and migrate it anew; look for failing memory or "
            "disks first ('zpool status -v', the kernel log).",
            contents={"source": ours.digest, "target": theirs.digest},
        )

    def _compare_sizes(self, own: ReplicaRunner) -> None:
        """What lies beyond the last block is zeros, so that the data says nothing of where a volume ends."""
        ours, theirs = (
            run_zfs(end, Command(("zfs", "get", "-Hp", "-o", "value", "volsize", name))).strip()
            for end, name in ((own, self.source), (own.target, self.target))
        )
        if ours != theirs:
            raise Differs(
                f"'{self.target}' does not hold what '{self.source}' holds: it has {theirs} bytes, not {ours}.",
                hint="Keep the source. Destroy this dataset at the target and migrate it anew.",
                contents={"source": ours, "target": theirs},
            )


def _words(contents: Contents) -> str:
    return f"{contents.objects} objects with {human(contents.data)}, {contents.digest[:16]}"


@dataclass(frozen=True)
class ReadAll:
    """Reads every snapshot of a dataset of the target, from the oldest to the newest, so that ZFS checks all of it.

    ``stall_timeout`` as for Compare. ``copied``: by rsync or block by block, so that a target on another host has what
    that takes.
    """

    title: str
    target: str
    first: str
    last: str
    estimate: int = 0
    stall_timeout: float = 300.0
    copied: bool = False

    def __call__(self, runner: Runner) -> None:
        own = replica_runner(runner)
        streams: list[tuple[str, ...]] = [(f"{self.target}@{self.first}",)]
        if self.first != self.last:
            streams.append(("-I", f"@{self.first}", f"{self.target}@{self.last}"))
        with _watched(own, self.target, self.copied) as before:
            for words in streams:
                ends = (_Reading(own, own.target, *words, digest=None, before=before),)
                read_side_by_side(own, self.title, ends, self.estimate, self.stall_timeout)


@contextlib.contextmanager
def _watched(own: ReplicaRunner, target: str, copied: bool) -> t.Iterator[tuple[str, ...]]:
    """The words before what reads a target on another host, so that it is known there. Streams leave no need for that.

    What a line that went silent has left would hold the snapshot, which the next pass destroys.
    """
    if not copied or far_end(own) is None:
        yield ()
        return
    dataset = target.partition("@")[0]
    with alone(own, dataset):
        yield marked(own, dataset)


class _Reading:
    """One stream that is read here, by a thread of its own."""

    def __init__(
        self, own: ReplicaRunner, end: End, *words: str, digest: _Digest | None, before: t.Sequence[str] = ()
    ) -> None:
        """
        :param digest: what counts of the stream, None if it is only to be read
        :param before: words before the program
        """
        self._own = own
        self._end = end
        self.what = words[-1]
        self._command = Command((*before, "zfs", "send", "-L", *words))
        self._digest = digest
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._error: StorageError | None = None
        self._contents: Contents | None = None
        self._whole = False
        self.count = 0

    def start(self) -> None:
        reading, writing = os.pipe()
        try:
            self._process = self._end.start(self._command, subprocess.DEVNULL, writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._thread = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._thread.start()

    def _read(self, descriptor: int) -> None:
        # Whatever happens, the pipe is closed, so that zfs does not wait for a reader.
        with os.fdopen(descriptor, "rb", _CHUNK) as stream:
            try:
                if self._digest is not None:
                    self._contents = self._digest(stream, self._add)
                while True:
                    data = stream.read(_CHUNK)
                    if not data:
                        self._whole = True
                        return
                    self._add(len(data))
            except StorageError as error:
                self._error = error

    def _add(self, count: int) -> None:
        self.count += count

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)

    def end(self) -> None:
        """End it, if it still runs."""
        if self._process is not None:
            end_process(self._process)

    def result(self) -> Contents:
        """What was read.

        :raises Unreadable: zfs could not send all of it
        """
        process = self._process
        if process is None:
            raise ValueError("it was not started")
        said = b"" if process.stderr is None else process.stderr.read(_SAID)
        status = process.wait()
        if self._error is not None and status in (0, *_NOBODY_LISTENS):
            raise Unreadable(f"'{self.what}' can't be compared: {self._error.message}")
        if status != 0:
            words = in_a_sentence(self._own.redact(said)) or f"zfs ended with status {status}"
            raise Unreadable(
                f"'{self.what}' can't be read: {words}.",
                hint="See 'zpool status -v' of its pool and the kernel log. Keep the source.",
            )
        if not self._whole:
            # What has ended the thread is on standard error. What it had not come to is no contents.
            raise Unreadable(f"'{self.what}' was not read to the end.", hint="Run this again.")
        return self._contents or Contents("", 0, 0)


def read_side_by_side(
    own: ReplicaRunner, title: str, ends: t.Sequence[_Reading], estimate: int, stall_timeout: float
) -> tuple[Contents, ...]:
    """Read streams at the same time, and tell how far that is.

    :param estimate: bytes of all of them
    :param stall_timeout: seconds in which nothing comes of one of them, 0 for ever
    :raises Unreadable: one could not be read to the end
    :raises Stalled: nothing came of one for too long
    """
    begun = time.monotonic()
    meter = Meter()
    meter.total = estimate
    try:
        for one in ends:
            one.start()
        moved = [(0, time.monotonic()) for _one in ends]
        while any(one.running for one in ends):
            for one in ends:
                one.wait(_TICK / len(ends))
            moved = [_see_moving(one, *last, stall_timeout) for one, last in zip(ends, moved)]
            meter.add(sum(one.count for one in ends) - meter.sent)
            own.progress.write(title, meter, begun)
        return tuple(one.result() for one in ends)
    finally:
        for one in ends:
            with contextlib.suppress(StorageError):
                one.end()


def _see_moving(one: _Reading, count: int, since: float, limit: float) -> tuple[int, float]:
    """How much came of an end, and since when it is so much.

    :raises Stalled: for too long
    """
    now, came = time.monotonic(), one.count
    if came != count or not one.running:
        return came, now
    if limit and now - since > limit:
        raise Stalled(
            f"Nothing of '{one.what}' has come for {limit:.0f} seconds; {came} bytes were read until then.",
            hint="See 'zpool status' of its pool, its disks, and the connection to its host. Both ends are as they "
            "were: run this again, with a longer 'stall_timeout' if the disks are that slow.",
        )
    return count, since


@dataclass(frozen=True)
class SeeHealthy:
    """The pool of the target knows of no damage."""

    pool: str

    def __call__(self, runner: Runner) -> None:
        text = run_zfs(runner, Command(("zpool", "status", self.pool)))
        errors = [line.strip() for line in text.splitlines() if line.strip().startswith("errors:")]
        if not errors or not all(line.endswith(_HEALTHY) for line in errors):
            raise Refused(
                f"The pool '{self.pool}' has damaged data: {'; '.join(errors) or 'zpool status does not tell'}.",
                hint=f"See 'zpool status -v {self.pool}'. Keep the source.",
            )
