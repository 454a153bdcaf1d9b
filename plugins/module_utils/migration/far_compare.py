# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a filesystem of this host with one of another host, by a listing that each makes of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import typing as t
from dataclasses import dataclass

from ..command import Command
from ..errors import StorageError
from ..remote import RemoteRunner
from ..zfs.replicate_run import ReplicaRunner, end_process, held_back
from . import listing
from .far import ending, python, source_of
from .listing import Counter, CutShort, Entry, Unlisted, entries, read_entries, readable
from .tree import differing, not_readable

# What is read of a listing at a time.
_BUFFER = 1 << 16


def differences_of(ours: t.Iterator[Entry], theirs: t.Iterator[Entry]) -> t.Iterator[str]:
    """What differs between two listings, each in words with its path. Of each no more than one entry is kept."""
    one, other = next(ours, None), next(theirs, None)
    # Whatever is below it is lacking at one end, too, which goes without saying.
    told = b""
    while one is not None or other is not None:
        if other is None or (one is not None and _place(one) < _place(other)):
            if one is not None and not _within(one.path, told):
                told = one.path
                yield f"'{readable(told)}' is missing"
            one = next(ours, None)
        elif one is None or _place(other) < _place(one):
            if not _within(other.path, told):
                told = other.path
                yield f"'{readable(told)}' is not at the source"
            other = next(theirs, None)
        else:
            if one.kind != other.kind:
                told = one.path
            yield from differing(one, other)
            one, other = next(ours, None), next(theirs, None)


def _place(one: Entry) -> list[bytes]:
    """What entries are in the order of: a folder comes before what is in it, and that before the next name."""
    return one.path.split(b"/")


def _within(path: bytes, told: bytes) -> bool:
    return bool(told) and path.startswith(told + b"/")


@dataclass(frozen=True)
class FarListing:
    """A listing that another host is making."""

    own: ReplicaRunner
    far: RemoteRunner
    what: str
    process: subprocess.Popen[bytes]
    stream: t.BinaryIO

    def differences(self, folder: str, skip: t.Container[bytes], count: Counter) -> t.Iterator[str]:
        """How it differs from a folder of this host.

        :param count: is told of bytes as they are read at either end
        :raises OSError: something can't be read here
        :raises Unreadable: something can't be read there, or the connection broke
        """
        # It is closed by who reads it, since that may go on for a while after others have given up.
        with self.stream:
            try:
                yield from differences_of(entries(os.fsencode(folder), skip, count), read_entries(self.stream, count))
            except Unlisted as error:
                raise not_readable(f"On '{self.far.host}': {error}.") from None
            except CutShort as error:
                raise not_readable(
                    f"The listing of {self.what} can't be read, {error}: {ending(self.far, self.own, self.process)}."
                ) from None


@contextlib.contextmanager
def far_listing(
    own: ReplicaRunner, far: RemoteRunner, what: str, enter: t.Sequence[str], folder: str, skip: t.Iterable[bytes]
) -> t.Iterator[FarListing]:
    """A listing of a folder at another host, for as long as it takes.

    :param what: what it is of, for messages
    :param enter: the words that let a program run where the folder is
    :param skip: paths that are left out
    """
    reading, writing = os.pipe()
    stream = os.fdopen(reading, "rb", _BUFFER)
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            command = Command((*enter, *python(listing, "list", folder)))
            with _given(source_of(listing) + b"\0".join(skip)) as given, held_back():
                process = far.start(command, given, writing)
        finally:
            os.close(writing)
        yield FarListing(own, far, what, process, stream)
    finally:
        if process is None:
            stream.close()
        else:
            end_process(process)


@contextlib.contextmanager
def _given(data: bytes) -> t.Iterator[int]:
    """What a program reads, as a file: nobody has to wait for it to be read. There is nothing secret in it.

    :raises StorageError: there is no room for it
    """
    with contextlib.ExitStack() as held:
        try:
            file = held.enter_context(tempfile.TemporaryFile())
            file.write(data)
            file.flush()
            file.seek(0)
        except OSError as error:
            raise StorageError(
                f"A temporary file can't be written on this host: {error.strerror}.",
                hint="Make room in its folder for temporary files, and run this again.",
            ) from None
        yield file.fileno()
