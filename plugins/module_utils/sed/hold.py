# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One task at a time talks to a drive, and what it leaves open there is known to be its own."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ..lock import RUN_FOLDER, exclusive

# Seconds. What is done while a drive is held ends within this, but for a reset.
_PATIENCE = 300.0
_LONGEST = 256


class Hold:
    """The lock of one drive while it is held, and the note in it: the serial number of a drive with an open session.

    :param descriptor: the file of the lock; None keeps the note in this process
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._note = b""

    @property
    def opened(self) -> str:
        """The serial number of the drive on which a session was begun and not ended, "" for none."""
        if self._descriptor is not None:
            self._note = os.pread(self._descriptor, _LONGEST, 0)
        return self._note.decode("utf-8", "replace").strip()

    def note(self, serial: str) -> None:
        """A session is begun on the drive of this serial number; "": there is none any more."""
        self._note = serial.encode("utf-8")[:_LONGEST]
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, self._note, 0)


Holder = t.Callable[[str], t.ContextManager[Hold]]


@contextlib.contextmanager
def hold(node: str) -> t.Iterator[Hold]:
    """Wait until no other task of this collection talks to the drive behind a device node, whatever it talks with.

    Programs that take no lock, such as sedutil-cli started by hand, are not kept off by that.

    :raises StorageError: another task did not let go of it in time
    """
    path = os.path.join(RUN_FOLDER, f"nasops.encryption.{os.path.basename(node)}.lock")
    with exclusive(path, _PATIENCE) as descriptor:
        yield Hold(descriptor)
