# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two trees of files, compared entry by entry: names, contents, owners, modes, times, attributes, ACLs and links."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t
from dataclasses import dataclass, field

from ..errors import StorageError
from ..zfs.stream_digest import Counter

# Extended attributes that the host gives each file by rules of its own, and that nobody can take away there.
OF_THE_HOST = ("security.selinux",)
# Bytes that are read at a time.
_CHUNK = 1 << 20
# The folder of snapshots, in the root of a filesystem alone.
_CONTROL = b".zfs"
# What counts for an entry, so that one without data is seen to move, too.
_ENTRY = 512

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Unreadable(StorageError):
    """One of the ends could not be read to the end."""


@dataclass
class _Links:
    """The first name of each file that has several, by its number; at both ends in the same order."""

    source: dict[int, bytes] = field(default_factory=dict)
    target: dict[int, bytes] = field(default_factory=dict)


def differences(source: str, target: str, count: Counter, skip: t.Container[bytes] = ()) -> t.Iterator[str]:
    """What differs between two filesystems that are mounted on these folders, each in words with its path.

    :param count: is told of bytes as they are read
    :param skip: paths, from the root, that are left out with all below them
    :raises OSError: something can't be read
    """
    ends, links = (os.fsencode(source), os.fsencode(target)), _Links()
    yield from _attributes(ends, b"", os.lstat(ends[0]), os.lstat(ends[1]), links)
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        ours, theirs = (set(_names(end, below)) for end in ends)
        for name in sorted(ours | theirs):
            path = _join(below, name)
            count(_ENTRY)
            if path in skip:
                continue
            if name not in theirs:
                yield f"'{readable(path)}' is missing"
            elif name not in ours:
                yield f"'{readable(path)}' is not at the source"
            else:
                one, other = (os.lstat(os.path.join(end, path)) for end in ends)
                yield from _entry(ends, path, one, other, count, links)
                if stat.S_ISDIR(one.st_mode) and stat.S_ISDIR(other.st_mode):
                    waiting.append(path)


def first_entry(folder: str) -> str:
    """The path of something in a filesystem that is no folder, "" if there is nothing but folders.

    What is mounted below it is another filesystem.
    """
    top = os.fsencode(folder)
    device = os.lstat(top).st_dev
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        for name in _names(top, below):
            path = _join(below, name)
            about = os.lstat(os.path.join(top, path))
            if about.st_dev != device:
                continue
            if not stat.S_ISDIR(about.st_mode):
                return readable(path)
            waiting.append(path)
    return ""


def readable(path: bytes) -> str:
    """A path for a message, whatever bytes are in it."""
    return path.decode("utf-8", "backslashreplace")


def unreadable(error: OSError) -> Unreadable:
    """What the two above raise, with a way to go on."""
    name = error.filename if isinstance(error.filename, bytes) else os.fsencode(error.filename or "")
    return Unreadable(
        f"'{readable(name)}' can't be read: {error.strerror}.",
        hint="See 'zpool status -v' of both pools and the kernel log. Keep the source.",
    )


def _entry(
    ends: tuple[bytes, bytes], path: bytes, ours: os.stat_result, theirs: os.stat_result, count: Counter, links: _Links
) -> t.Iterator[str]:
    if stat.S_IFMT(ours.st_mode) != stat.S_IFMT(theirs.st_mode):
        yield f"'{readable(path)}' is a {_kind(theirs)}, not a {_kind(ours)}"
        return
    yield from _attributes(ends, path, ours, theirs, links)
    if stat.S_ISREG(ours.st_mode) and ours.st_size == theirs.st_size and not _same_data(ends, path, count):
        yield f"'{readable(path)}' has other contents"


def _attributes(
    ends: tuple[bytes, bytes], path: bytes, ours: os.stat_result, theirs: os.stat_result, links: _Links
) -> t.Iterator[str]:
    """What differs of an entry itself."""
    places = [os.path.join(end, path) if path else end for end in ends]
    shown = f"'{readable(path) or '/'}'"
    for what, one, other in _facts(ours, theirs):
        if one != other:
            yield f"{shown} has {what} {other}, not {one}"
    if stat.S_ISLNK(ours.st_mode) and os.readlink(places[0]) != os.readlink(places[1]):
        yield f"{shown} points somewhere else"
    if _extended(places[0]) != _extended(places[1]):
        yield f"{shown} has other extended attributes or another ACL"
    if not stat.S_ISDIR(ours.st_mode) and max(ours.st_nlink, theirs.st_nlink) > 1:
        first = (links.source.setdefault(ours.st_ino, path), links.target.setdefault(theirs.st_ino, path))
        if first[0] != first[1]:
            yield f"{shown} is linked to other names"


def _facts(ours: os.stat_result, theirs: os.stat_result) -> t.Iterator[tuple[str, str, str]]:
    yield "mode", f"{stat.S_IMODE(ours.st_mode):o}", f"{stat.S_IMODE(theirs.st_mode):o}"
    yield "owner", f"{ours.st_uid}:{ours.st_gid}", f"{theirs.st_uid}:{theirs.st_gid}"
    yield "time", str(ours.st_mtime_ns), str(theirs.st_mtime_ns)
    if stat.S_ISREG(ours.st_mode):
        yield "size", str(ours.st_size), str(theirs.st_size)
    if stat.S_ISCHR(ours.st_mode) or stat.S_ISBLK(ours.st_mode):
        yield "device number", str(ours.st_rdev), str(theirs.st_rdev)


def _kind(about: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(about.st_mode), "thing without a name")


def _extended(place: bytes) -> dict[str, bytes]:
    """The extended attributes with their values; Linux shows ACLs among them."""
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {name: os.getxattr(place, name, follow_symlinks=False) for name in names if name not in OF_THE_HOST}


def _same_data(ends: tuple[bytes, bytes], path: bytes, count: Counter) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME
    try:
        with contextlib.ExitStack() as held:
            ours, theirs = (
                held.enter_context(os.fdopen(os.open(os.path.join(end, path), flags), "rb")) for end in ends
            )
            while True:
                one, other = ours.read(_CHUNK), theirs.read(_CHUNK)
                count(len(one) + len(other))
                if one != other:
                    return False
                if not one:
                    return True
    except OSError as error:
        # What can't be read does not say which it is.
        raise OSError(error.errno, error.strerror, path) from None


def _names(end: bytes, below: bytes) -> list[bytes]:
    names = os.listdir(os.path.join(end, below) if below else end)
    return names if below else [name for name in names if name != _CONTROL]


def _join(below: bytes, name: bytes) -> bytes:
    return below + b"/" + name if below else name
