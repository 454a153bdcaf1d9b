# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pass over a dataset: what differs is copied, and the target gets a snapshot that stands for what it holds."""

from __future__ import annotations

import contextlib
import io
import os
import select
import subprocess
import time
import typing as t
from dataclasses import dataclass, field

from ..command import Command, Runner
from ..errors import Refused, StorageError, in_a_sentence
from ..zfs.replicate_progress import Meter
from ..zfs.replicate_run import ReplicaRunner, Sent, Stalled, end_process, held_back, replica_runner
from ..zfs.state import run_zfs
from ..zfs.stream_digest import NotAStream
from ..zfs.volume_stream import blocks_of
from .copy_empty import something_in
from .copy_state import COPY_RECORD, PARTIAL, PARTIAL_SNAPSHOT, Copied, named, under_way
from .far import far_end
from .far_alone import Occupied, alone, marked
from .private_mount import Mount, mounted
from .rsync import Across, rsync_command, run_rsync
from .volume_copy import writer

# Bytes of a stream that are read at a time, and of what zfs said that are worth keeping.
_CHUNK, _SAID = 1 << 20, 2000


@dataclass(frozen=True)
class Pass:
    """Brings a dataset of the target up to a state of the source.

    ``source`` is what is read: a dataset, or a snapshot of it, and ``guid`` the GUID of the dataset. ``state`` names
    what is read, "" for the GUID of that snapshot, which may be taken only later. ``snapshot`` is what the target's is
    called. ``before`` is the GUID of the one it has, and ``doomed`` has the names of all it has: they would keep the
    room of what is deleted. ``settings`` are properties that it has to have meanwhile, and ``afterwards`` what they are
    set to then, also when it fails; None for inherited. ``new``: it was made by this very plan. ``empty``: it was there
    before, and has to be empty.
    """

    title: str
    source: str
    target: str
    snapshot: str
    volume: bool = False
    state: str = ""
    before: str = "-"
    doomed: tuple[str, ...] = ()
    settings: t.Mapping[str, str] = field(default_factory=dict)
    afterwards: t.Mapping[str, str | None] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    guid: str = "-"
    estimate: int = 0
    stall_timeout: float = 300.0
    new: bool = False
    empty: bool = False
    resumed: bool = False

    def __call__(self, runner: Runner) -> None:
        own = replica_runner(runner)
        begun = time.monotonic()
        state = named(self.state or self._guid(own, self.source), self.skip)
        with alone(own, self.target):
            self._pass(own, state)
        seconds = time.monotonic() - begun
        own.sent.append(Sent(self.title, self.source, self.target, self.estimate, seconds, self.resumed))

    def _pass(self, own: ReplicaRunner, state: str) -> None:
        if self.empty:
            # Before anything is marked as ours: rsync deletes what the source does not have.
            self._see_empty(own)
        copying = False
        try:
            mark = under_way(self.snapshot, self.afterwards)
            self._set(own, self.settings, Copied(self.guid, self.before, mark))
            if self.doomed:
                _zfs(own, "destroy", f"{self.target}@{','.join(self.doomed)}")
            copying = True
            self._copy(own)
            copying = False
            whole = f"{self.target}@{self.snapshot}"
            _zfs(own, "snapshot", whole)
            self._close(own, Copied(self.guid, self._guid(own, whole), state))
        except BaseException as error:
            fault = self._leave(own, copying)
            if fault and isinstance(error, StorageError):
                error.details["left_writable"] = fault
            raise

    def _copy(self, own: ReplicaRunner) -> None:
        if self.volume:
            _copy_volume(own, self)
            return
        source, target = Mount(self.source), Mount(self.target, write=True)
        far = far_end(own)
        if far is None:
            with mounted(own, source, target) as place:
                ours, theirs = place.inside
                command = rsync_command(ours, theirs, self.skip, self.stall_timeout, place.enter)
                run_rsync(own, self.title, command, self.estimate)
            return
        mark = marked(own, self.target)
        with mounted(own, source) as here, mounted(own, target, end=far, before=mark) as there:
            across = Across(far.host, far.shell(), far.line((*mark, *there.enter, "rsync")))
            ours, theirs = here.inside[0], there.inside[0]
            command = rsync_command(ours, theirs, self.skip, self.stall_timeout, here.enter, across)
            run_rsync(own, self.title, command, self.estimate, far.host)

    def _leave(self, own: ReplicaRunner, copying: bool) -> str:
        """What broke off is not left writable; returns what keeps it from being closed, "" if it is.

        A snapshot stands for what was copied until then, so that the next run can tell what others do meanwhile. It is
        not needed where nothing was written since one that the record knows of.
        """
        with contextlib.ExitStack() as held:
            # What still runs there would lose what it has got of a file: it can't put that into its place then. A line
            # that is found dead by this is another one at the second try. It is closed in any case, if that can be.
            for _try in range(2):
                try:
                    held.enter_context(alone(own, self.target))
                    break
                except Occupied as error:
                    return error.message
                except StorageError:
                    continue
            try:
                self._close(own)
            except StorageError as error:
                return error.message
            if copying:
                partial = f"{self.target}@{PARTIAL_SNAPSHOT}"
                with contextlib.suppress(StorageError):
                    _zfs(own, "snapshot", partial)
                    self._set(own, {}, Copied(self.guid, self._guid(own, partial), PARTIAL))
        return ""

    def _close(self, own: ReplicaRunner, record: Copied | None = None) -> None:
        for one in (one for one, value in self.afterwards.items() if value is None):
            _zfs(own, "inherit", one, self.target)
        kept = {one: value for one, value in self.afterwards.items() if value is not None}
        if kept or record is not None:
            self._set(own, kept, record)

    def _set(self, own: ReplicaRunner, values: t.Mapping[str, str], record: Copied | None) -> None:
        also = {} if record is None else {COPY_RECORD: record.text()}
        _zfs(own, "set", *(f"{one}={value}" for one, value in {**values, **also}.items()), self.target)

    def _guid(self, runner: Runner, snapshot: str) -> str:
        return run_zfs(runner, Command(("zfs", "get", "-Hp", "-o", "value", "guid", snapshot))).strip()

    def _see_empty(self, own: ReplicaRunner) -> None:
        entry = something_in(own, Mount(self.target, write=True))
        if entry:
            raise Refused(
                f"'{self.target}' is not empty: there is '{entry}'. Everything in it would be deleted.",
                hint="Choose another target, or empty it yourself.",
            )


def _zfs(own: ReplicaRunner, *words: str) -> None:
    # One that a signal leaves behind would go on when what it does has been taken back.
    with held_back():
        run_zfs(own, Command(("zfs", *words)))


def _copy_volume(own: ReplicaRunner, one: Pass) -> None:
    """The blocks come as zfs sends them, which needs no device of the source; the target's is written to.

    :raises StorageError: the source can't be read to its end, or the device not be written
    """
    meter, begun = Meter(), time.monotonic()
    meter.total = one.estimate

    def count(size: int) -> None:
        meter.add(size)
        own.progress.write(one.title, meter, begun)

    process: subprocess.Popen[bytes] | None = None
    fault: NotAStream | None = None
    reading, writing = os.pipe()
    try:
        with io.BufferedReader(_Patient(reading, one.source, one.stall_timeout), _CHUNK) as stream:
            try:
                with writer(own, one.target, one.new, one.stall_timeout) as write:
                    with held_back():
                        process = own.start(Command(("zfs", "send", "-L", one.source)), subprocess.DEVNULL, writing)
                    os.close(writing)
                    writing = -1
                    write(blocks_of(stream, count))
            except NotAStream as error:
                # zfs tells why it ended early.
                fault = error
        if process is not None:
            _verdict(own, one, process, fault)
    except OSError as error:
        raise StorageError(f"The device of '{one.target}' can't be written: {error.strerror}.") from None
    finally:
        if writing != -1:
            os.close(writing)
        if process is not None:
            end_process(process)


def _verdict(own: ReplicaRunner, one: Pass, process: subprocess.Popen[bytes], fault: NotAStream | None) -> None:
    said = own.redact(b"" if process.stderr is None else process.stderr.read(_SAID))
    status = process.wait()
    if fault is None and status == 0:
        return
    words = in_a_sentence(said) or (fault.message if fault is not None else f"zfs ended with status {status}")
    raise StorageError(
        f"'{one.source}' can't be read to its end: {words.rstrip('.')}.",
        hint="See 'zpool status -v' of its pool. A volume with a damaged block can't be copied: exclude it, or restore "
        "the block where the pool can be written to.",
        rc=status,
        stderr=said,
    )


class _Patient(io.RawIOBase):
    """The reading end of a pipe, which is given up when nothing comes for too long."""

    def __init__(self, descriptor: int, what: str, limit: float) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._what = what
        self._limit = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        """:raises Stalled: nothing comes"""
        if not select.select([self._descriptor], [], [], self._limit or None)[0]:
            raise Stalled(
                f"Nothing of '{self._what}' has come for {self._limit:.0f} seconds.",
                hint="See 'zpool status' of its pool, and its disks: run this again, with a longer 'stall_timeout' if "
                "they are that slow.",
            )
        return os.readv(self._descriptor, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
