# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends the blocks of a volume to another host, where they are written to its device."""

from __future__ import annotations

import contextlib
import os
import select
import typing as t

from ..command import Command
from ..errors import StorageError
from ..remote import RemoteRunner
from ..zfs.replicate_run import ReplicaRunner, Stalled
from . import device
from .far import ending, python, source_of
from .far_alone import marked
from .holder import Talk, started

# Seconds until the device is there, and the host has told so.
_PATIENCE = 180.0
_CHUNK = 1 << 16
# Bytes of what it says that are kept: a word, and many dots before it.
_SAID = 64


@contextlib.contextmanager
def far_writer(
    own: ReplicaRunner, far: RemoteRunner, volume: str, fresh: bool, stall_timeout: float
) -> t.Iterator[t.Callable[[t.Iterable[tuple[int, bytes]]], None]]:
    """What writes blocks to a volume of another host. It returns when they are on the disks there.

    :param fresh: whether nothing was ever written to it
    :param stall_timeout: seconds in which nothing moves, 0 for ever
    :raises StorageError: it has no device, that can't be written, or the connection broke
    """
    argv = (*marked(own, volume), *python(device, volume, "fresh" if fresh else "used"))
    # Without the last frame it takes nothing for whole.
    with started(far, Command(argv), device.LEAVE) as talk:
        line = _Line(own, far, volume, talk)
        line.send(source_of(device), _PATIENCE)
        line.wait_for(device.READY, _PATIENCE)

        def write(blocks: t.Iterable[tuple[int, bytes]]) -> None:
            for offset, data in blocks:
                line.send(device.framed(offset, data), stall_timeout)
            line.send(device.END, stall_timeout)
            line.wait_for(device.DONE, stall_timeout)

        yield write


class _Line:
    """Both directions of the connection to the program that writes."""

    def __init__(self, own: ReplicaRunner, far: RemoteRunner, volume: str, talk: Talk) -> None:
        self._own = own
        self._far = far
        self._what = f"'{volume}' on '{far.host}'"
        self._talk = talk
        self._said = b""
        os.set_blocking(talk.sending, False)

    def send(self, data: bytes, limit: float) -> None:
        """:raises StorageError: it is not taken, or not within ``limit`` seconds"""
        view = memoryview(data)
        while view:
            if not self._moves(limit, sending=True):
                continue
            try:
                view = view[os.write(self._talk.sending, view[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._broken() from None

    def wait_for(self, word: bytes, limit: float) -> None:
        """:raises StorageError: it does not say this, or not within ``limit`` seconds without a dot"""
        while word + b"\n" not in self._said:
            self._moves(limit, sending=False)
        self._said = b""

    def _moves(self, limit: float, sending: bool) -> bool:
        """Wait until something can be sent, or was said; returns whether something can be sent.

        :raises StorageError: it has ended, or nothing moves
        """
        wanted = [self._talk.sending] if sending else []
        ready, free, _none = select.select([self._talk.hearing], wanted, [], limit or None)
        if ready:
            said = os.read(self._talk.hearing, _CHUNK)
            if not said:
                raise self._broken()
            self._said = (self._said + said)[-_SAID:]
        if not ready and not free:
            raise Stalled(
                f"Nothing has moved to {self._what} for {limit:.0f} seconds.",
                hint="See 'zpool status' there, its disks, and the connection. Run this again, with a longer "
                "'stall_timeout' if they are that slow.",
            )
        return bool(free)

    def _broken(self) -> StorageError:
        words = ending(self._far, self._own, self._talk.process)
        return StorageError(
            f"The device of {self._what} can't be written: {words}.",
            hint="See that the host can be reached, and its kernel log. Run this again.",
        )
