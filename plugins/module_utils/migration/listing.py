# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree of files, entry by entry in an order that two hosts agree on.

This file is also run by itself at another host, which needs no more than Python 3.9 for it. So it imports nothing else.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import sys
import time
import typing as t

Counter = t.Callable[[int], None]

# Extended attributes that the host gives each file by rules of its own, and that nobody can take away there.
OF_THE_HOST = ("security.selinux",)
# Bytes that are read at a time.
CHUNK = 1 << 20
# What counts for an entry, so that one without data is seen to move, too.
ENTRY_COUNTS = 512

# The folder of snapshots, in the root of a filesystem alone.
_CONTROL = b".zfs"

# What a record is, and the bytes behind its head.
_HEAD = struct.Struct(">cI")
_ENTRY, _MOVED, _FAULT, _END = b"E", b"M", b"F", b"Z"
# Three paths of 4096 bytes each at most, and some numbers.
_MOST = 1 << 16
# Seconds between two records that tell that something moves.
_TELL = 1.0


class Entry(t.NamedTuple):
    """All that counts of an entry. Two of the same are equal.

    ``mode`` has the kind in it, ``time`` is in nanoseconds. ``size`` and ``contents`` are those of a regular file, and
    ``device`` of a device. ``first`` is the first name of the same file, ``points`` where a symbolic link points to.
    """

    path: bytes
    mode: int
    owner: str
    time: int
    size: int
    device: int
    attributes: str
    first: bytes
    points: bytes
    contents: str = ""

    @property
    def kind(self) -> int:
        """File, folder or such."""
        return stat.S_IFMT(self.mode)

    def packed(self) -> bytes:
        """As bytes. No part of it can hold a NUL."""
        words = (self.mode, self.owner, self.time, self.size, self.device, self.attributes, self.contents)
        return b"\0".join((self.path, self.first, self.points, *(str(word).encode("ascii") for word in words)))


class CutShort(Exception):
    """A listing that does not come to its end, or is none."""


class Unlisted(Exception):
    """Something could not be read where the listing is made."""


def unpacked(data: bytes) -> Entry:
    """An entry as ``packed`` has made it.

    :raises CutShort: it is none
    """
    try:
        path, first, points, *rest = data.split(b"\0")
        mode, owner, when, size, device, attributes, contents = (word.decode("ascii") for word in rest)
        return Entry(path, int(mode), owner, int(when), int(size), int(device), attributes, first, points, contents)
    except ValueError:
        raise CutShort("it holds something that is not understood") from None


def entries(top: bytes, skip: t.Container[bytes], count: Counter) -> t.Iterator[Entry]:
    """Everything in the filesystem that is mounted on a folder, each folder before what is in it, by their bytes.

    Nothing is kept of what was passed but the numbers of files with several names.

    :param skip: paths, from the root, that are left out with all below them
    :param count: is told of bytes as they are read
    :raises OSError: something can't be read
    """
    firsts: dict[int, bytes] = {}
    yield described(top, b"", os.lstat(top), firsts)
    waiting = [(b"", iter(sorted(names_in(top, b""))))]
    while waiting:
        below, rest = waiting[-1]
        name = next(rest, None)
        if name is None:
            waiting.pop()
            continue
        path = joined(below, name)
        count(ENTRY_COUNTS)
        if path in skip:
            continue
        about = os.lstat(os.path.join(top, path))
        one = described(top, path, about, firsts)
        yield one._replace(contents=_digest(top, path, count)) if stat.S_ISREG(about.st_mode) else one
        if stat.S_ISDIR(about.st_mode):
            waiting.append((path, iter(sorted(names_in(top, path)))))


def described(top: bytes, path: bytes, about: os.stat_result, firsts: dict[int, bytes]) -> Entry:
    """An entry without its contents.

    :param firsts: the first name of each file that has several, by its number; it is added to
    """
    place, mode = os.path.join(top, path) if path else top, about.st_mode
    several = about.st_nlink > 1 and not stat.S_ISDIR(mode)
    return Entry(
        path,
        mode,
        f"{about.st_uid}:{about.st_gid}",
        about.st_mtime_ns,
        about.st_size if stat.S_ISREG(mode) else 0,
        about.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        _attributes(place),
        firsts.setdefault(about.st_ino, path) if several else path,
        os.readlink(place) if stat.S_ISLNK(mode) else b"",
    )


def _attributes(place: bytes) -> str:
    """Stands for the extended attributes with their values; Linux shows ACLs among them. "" for none."""
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ""
        raise
    digest = hashlib.sha256()
    wanted = sorted(name for name in names if name not in OF_THE_HOST)
    for name in wanted:
        for part in (os.fsencode(name), os.getxattr(place, name, follow_symlinks=False)):
            digest.update(struct.pack(">Q", len(part)) + part)
    return digest.hexdigest() if wanted else ""


def opened_to_read(place: bytes) -> t.BinaryIO:
    """A file whose time of access stays as it is."""
    return os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME), "rb")


def _digest(top: bytes, path: bytes, count: Counter) -> str:
    digest = hashlib.sha256()
    try:
        with opened_to_read(os.path.join(top, path)) as file:
            while True:
                data = file.read(CHUNK)
                if not data:
                    return digest.hexdigest()
                digest.update(data)
                count(len(data))
    except OSError as error:
        # What can't be read does not say which it is.
        raise OSError(error.errno, error.strerror, path) from None


def first_entry(folder: str) -> str:
    """The path of something in a filesystem that is no folder, "" if there is nothing but folders.

    What is mounted below it is another filesystem.
    """
    top = os.fsencode(folder)
    device = os.lstat(top).st_dev
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        for name in names_in(top, below):
            path = joined(below, name)
            about = os.lstat(os.path.join(top, path))
            if about.st_dev != device:
                continue
            if not stat.S_ISDIR(about.st_mode):
                return readable(path)
            waiting.append(path)
    return ""


def names_in(top: bytes, below: bytes) -> list[bytes]:
    """The names in a folder."""
    names = os.listdir(os.path.join(top, below) if below else top)
    return names if below else [name for name in names if name != _CONTROL]


def joined(below: bytes, name: bytes) -> bytes:
    """The path of a name in a folder."""
    return below + b"/" + name if below else name


def readable(path: bytes) -> str:
    """A path for a message, whatever bytes are in it."""
    return path.decode("utf-8", "backslashreplace")


def words_of_error(error: OSError) -> str:
    """What can't be read, and why."""
    name = error.filename if isinstance(error.filename, bytes) else os.fsencode(error.filename or "")
    return f"'{readable(name)}' can't be read: {error.strerror}"


# --- from one host to the other -------------------------------------------------------------------------------------


class _Told:
    """Writes records, and tells now and then that something moves, be it within one file."""

    def __init__(self, out: t.BinaryIO) -> None:
        self._out = out
        self._count = 0
        self._last = time.monotonic()

    def record(self, kind: bytes, data: bytes = b"") -> None:
        self._out.write(_HEAD.pack(kind, len(data)) + data)

    def add(self, count: int) -> None:
        self._count += count
        if time.monotonic() - self._last >= _TELL:
            self.moved()

    def moved(self) -> None:
        self.record(_MOVED, str(self._count).encode("ascii"))
        self._out.flush()
        self._count, self._last = 0, time.monotonic()


def write_entries(top: bytes, skip: t.Container[bytes], out: t.BinaryIO) -> None:
    """Write the entries as records, with an end that says that they are all."""
    told = _Told(out)
    listed = entries(top, skip, told.add)
    while True:
        try:
            one = next(listed, None)
        except BrokenPipeError:
            raise
        except OSError as error:
            told.record(_FAULT, words_of_error(error).encode("utf-8")[:_MOST])
            break
        if one is None:
            told.moved()
            told.record(_END)
            break
        told.record(_ENTRY, one.packed())
    out.flush()


def read_entries(stream: t.BinaryIO, count: Counter) -> t.Iterator[Entry]:
    """The entries of such records.

    :param count: is told of the bytes that are read there
    :raises CutShort: they do not come to their end
    :raises Unlisted: something can't be read there
    """
    while True:
        kind, size = _HEAD.unpack(_exactly(stream, _HEAD.size))
        if size > _MOST:
            raise CutShort("it holds something that is not understood")
        data = _exactly(stream, size)
        if kind == _ENTRY:
            yield unpacked(data)
        elif kind == _MOVED and data.isdigit():
            count(int(data))
        elif kind == _FAULT:
            raise Unlisted(data.decode("utf-8", "backslashreplace"))
        elif kind == _END:
            return
        else:
            raise CutShort("it holds something that is not understood")


def _exactly(stream: t.BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise CutShort("it ends early")
    return data


def main(argv: t.Sequence[str]) -> int:
    """What is run at another host: ``list`` or ``first``, and a folder. What is left out comes on standard input."""
    what, folder = argv
    out = sys.stdout.buffer
    try:
        if what == "first":
            out.write(first_entry(folder).encode("utf-8", "backslashreplace"))
            out.flush()
        else:
            skip = frozenset(path for path in sys.stdin.buffer.read().split(b"\0") if path)
            write_entries(os.fsencode(folder), skip, out)
    except BrokenPipeError:
        # Nobody listens any more. Python would try once more when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        sys.stderr.write(words_of_error(error) + "\n")
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[3:]))
