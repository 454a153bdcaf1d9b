# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two trees of files, compared entry by entry: names, contents, owners, modes, times, attributes, ACLs and links."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from ..errors import StorageError
from .listing import (
    CHUNK,
    ENTRY_COUNTS,
    Counter,
    Entry,
    described,
    joined,
    names_in,
    opened_to_read,
    readable,
    words_of_error,
)

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


def differences(source: str, target: str, count: Counter, skip: t.Container[bytes] = ()) -> t.Iterator[str]:
    """What differs between two filesystems that are mounted on these folders, each in words with its path.

    :param count: is told of bytes as they are read
    :param skip: paths, from the root, that are left out with all below them
    :raises OSError: something can't be read
    """
    ends = (os.fsencode(source), os.fsencode(target))
    # The first names of files with several come in the same order at both ends.
    firsts: tuple[dict[int, bytes], dict[int, bytes]] = ({}, {})
    yield from differing(*(described(end, b"", os.lstat(end), names) for end, names in zip(ends, firsts)))
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        ours, theirs = (set(names_in(end, below)) for end in ends)
        for name in sorted(ours | theirs):
            path = joined(below, name)
            count(ENTRY_COUNTS)
            if path in skip:
                continue
            if name not in theirs:
                yield f"'{readable(path)}' is missing"
            elif name not in ours:
                yield f"'{readable(path)}' is not at the source"
            else:
                one, other = (
                    described(end, path, os.lstat(os.path.join(end, path)), names) for end, names in zip(ends, firsts)
                )
                yield from differing(one, other)
                files = stat.S_ISREG(one.mode) and stat.S_ISREG(other.mode)
                if files and one.size == other.size and not _same_data(ends, path, count):
                    yield _other_contents(path)
                if stat.S_ISDIR(one.mode) and stat.S_ISDIR(other.mode):
                    waiting.append(path)


def differing(ours: Entry, theirs: Entry) -> t.Iterator[str]:
    """What differs between an entry and the one of the same path at the target, in words.

    Contents count where both were read, and have the same size.
    """
    shown = f"'{readable(ours.path) or '/'}'"
    if ours.kind != theirs.kind:
        yield f"{shown} is a {_kind(theirs)}, not a {_kind(ours)}"
        return
    for what, one, other in _facts(ours, theirs):
        if one != other:
            yield f"{shown} has {what} {other}, not {one}"
    if ours.points != theirs.points:
        yield f"{shown} points somewhere else"
    if ours.attributes != theirs.attributes:
        yield f"{shown} has other extended attributes or another ACL"
    if ours.first != theirs.first:
        yield f"{shown} is linked to other names"
    if ours.size == theirs.size and ours.contents != theirs.contents:
        yield _other_contents(ours.path)


def unreadable(error: OSError) -> Unreadable:
    """What a look at files raises, with a way to go on."""
    return not_readable(f"{words_of_error(error)}.")


def not_readable(words: str) -> Unreadable:
    """The same, of what is known in words alone."""
    return Unreadable(words, hint="See 'zpool status -v' of both pools and the kernel log. Keep the source.")


def _other_contents(path: bytes) -> str:
    return f"'{readable(path)}' has other contents"


def _facts(ours: Entry, theirs: Entry) -> t.Iterator[tuple[str, str, str]]:
    yield "mode", f"{stat.S_IMODE(ours.mode):o}", f"{stat.S_IMODE(theirs.mode):o}"
    yield "owner", ours.owner, theirs.owner
    yield "time", str(ours.time), str(theirs.time)
    yield "size", str(ours.size), str(theirs.size)
    yield "device number", str(ours.device), str(theirs.device)


def _kind(one: Entry) -> str:
    return _KINDS.get(one.kind, "thing without a name")


def _same_data(ends: tuple[bytes, bytes], path: bytes, count: Counter) -> bool:
    try:
        with contextlib.ExitStack() as held:
            ours, theirs = (held.enter_context(opened_to_read(os.path.join(end, path))) for end in ends)
            while True:
                one, other = ours.read(CHUNK), theirs.read(CHUNK)
                count(len(one) + len(other))
                if one != other:
                    return False
                if not one:
                    return True
    except OSError as error:
        # What can't be read does not say which it is.
        raise OSError(error.errno, error.strerror, path) from None
