# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a filesystem that rsync has copied with its source, without rsync."""

from __future__ import annotations

import os
import threading
import time
import typing as t
from dataclasses import dataclass

from ..command import Runner
from ..errors import StorageError
from ..remote import RemoteRunner
from ..zfs.replicate_progress import Meter
from ..zfs.replicate_run import ReplicaRunner, Stalled, replica_runner
from .compare import Differs
from .far import far_end
from .far_alone import alone, marked
from .far_compare import far_listing
from .listing import Counter
from .private_mount import Mount, mounted
from .tree import Unreadable, differences, unreadable

_TICK = 0.25
# Differences that are told; after these it is not worth reading on.
_MOST = 20


@dataclass(frozen=True)
class CompareTree:
    """Reads all files at both ends, and compares them with their names, owners, modes, times, attributes and links.

    ``source`` is a dataset or a snapshot, ``target`` a snapshot. ``skip`` are paths that are left out. ``estimate`` is
    in bytes. ``stall_timeout``: seconds in which nothing comes after which it is given up, 0 for never.
    """

    title: str
    source: str
    target: str
    skip: tuple[str, ...] = ()
    estimate: int = 0
    stall_timeout: float = 300.0

    def __call__(self, runner: Runner) -> None:
        own = replica_runner(runner)
        far = far_end(own)
        if far is None:
            self._here(own)
        else:
            self._there(own, far)

    @property
    def _skipped(self) -> frozenset[bytes]:
        return frozenset(os.fsencode(path) for path in self.skip)

    def _here(self, own: ReplicaRunner) -> None:
        with mounted(own, Mount(self.source), Mount(self.target)) as place:
            source, target = place.folders
            found = self._look(own, lambda count: differences(source, target, count, self._skipped))
        self._tell(found)

    def _there(self, own: ReplicaRunner, far: RemoteRunner) -> None:
        """The target is read by its own host. What comes over the line is a listing."""
        dataset = self.target.partition("@")[0]
        mark, skipped = marked(own, dataset), self._skipped
        what = f"'{self.target}' on '{far.host}'"
        with (
            alone(own, dataset),
            mounted(own, Mount(self.source)) as here,
            mounted(own, Mount(self.target), end=far, before=mark) as there,
            far_listing(own, far, what, (*mark, *there.enter), there.inside[0], skipped) as listing,
        ):
            found = self._look(own, lambda count: listing.differences(here.folders[0], skipped, count))
        # Not before it is known that both were mounted all the time: what lies below is empty.
        self._tell(found)

    def _tell(self, found: list[str]) -> None:
        """:raises Differs: something was found"""
        if found:
            more = " and more" if len(found) > _MOST else ""
            raise Differs(
                f"'{self.target}' is not what '{self.source}' is: {'; '.join(found[:_MOST])}{more}.",
                hint="Keep the source. If the target was changed behind its back, or names of one file became several, "
                "destroy this dataset at the target and migrate it anew; look for failing memory or disks first "
                "('zpool status -v', the kernel log).",
                differences=found[:_MOST],
            )

    def _look(self, own: ReplicaRunner, look: t.Callable[[Counter], t.Iterator[str]]) -> list[str]:
        looking = _Looking(look)
        looking.start()
        meter, begun = Meter(), time.monotonic()
        meter.total = 2 * self.estimate
        moved = begun
        while looking.is_alive():
            looking.join(_TICK)
            now = time.monotonic()
            if looking.count != meter.sent:
                moved = now
                meter.add(looking.count - meter.sent)
            own.progress.write(self.title, meter, begun)
            if self.stall_timeout and now - moved > self.stall_timeout:
                looking.stop = True
                raise Stalled(
                    f"Nothing has come for {self.stall_timeout:.0f} seconds, of '{self.source}' or '{self.target}'.",
                    hint="See 'zpool status' of both pools and their disks. Run this again.",
                )
        if looking.fault is not None:
            raise looking.fault
        if not looking.done:
            # What has ended the thread is on standard error. That nothing was found says nothing then.
            raise Unreadable(
                f"'{self.source}' and '{self.target}' were not compared to the end.", hint="Run this again."
            )
        return looking.found


class _Looking(threading.Thread):
    """Looks from a thread of its own, so that a disk which does not answer is noticed."""

    def __init__(self, look: t.Callable[[Counter], t.Iterator[str]]) -> None:
        super().__init__(daemon=True)
        self._differences = look
        self.found: list[str] = []
        self.fault: StorageError | None = None
        self.done = False
        self.count = 0
        self.stop = False

    def run(self) -> None:
        try:
            for one in self._differences(self._add):
                self.found.append(one)
                if self.stop or len(self.found) > _MOST:
                    break
            self.done = True
        except OSError as error:
            self.fault = unreadable(error)
        except StorageError as error:
            self.fault = error

    def _add(self, count: int) -> None:
        self.count += count
