# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file of this host lies on, and whether that is memory, which is empty after a restart."""

from __future__ import annotations

import os
import re
import sys
import typing as t

from . import mountinfo
from .command import Command, Runner

_MOUNTS = mountinfo.TABLE
# The root of an initramfs is called rootfs.
_MEMORY = ("tmpfs", "ramfs", "rootfs")
_MEMORY_DEVICE = re.compile(r"/dev/z?ram\d+(?:p\d+)?")
_UPPER = re.compile(r"(?:^|,)upperdir=(?P<path>[^,]+)")

# A memory disk of FreeBSD, or a partition of one. Only mdconfig tells one in memory from one that is a file.
_MD = re.compile(r"/dev/md(?P<unit>\d+)(?:[ps]\d+)?[a-h]?")
_MD_IN_MEMORY = ("malloc", "swap", "preload")

# Where there is memory on some system, in the order of how sure that is; what each of them is gets looked up.
_PLACES = ("/dev/shm", "/run", "/var/run", "/tmp", "/var/tmp")

_DF_LINE = re.compile(r"(?P<source>.+?)\s+\d+\s+-?\d+\s+-?\d+\s+\S+\s+(?P<mountpoint>/.*)")


def df(path: str) -> Command:
    """The command that tells what a file or folder lies on; POSIX form, the same on Linux and FreeBSD."""
    return Command(("df", "-P", path), timeout=60)


def df_source(text: str) -> str:
    """The filesystem in the output of :func:`df`, for ZFS the name of the dataset; empty if it can't be understood."""
    match = _DF_LINE.fullmatch(text.strip().split("\n")[-1])
    return "" if match is None else match.group("source")


def memory_of(runner: Runner, path: str, source: str = "") -> str:
    """In what memory a file or folder lies, in a word or two; empty if it is none, or can't be told.

    Linux tells it in a file, and FreeBSD by ``source``. So no program is started, except for a memory disk of FreeBSD.

    :param path: it is there
    :param source: what :func:`df_source` said of it, if it was asked already
    """
    if not _on_freebsd():
        return _memory_on_linux(path)
    return memory_on_freebsd(runner, source or df_source(runner.run(df(os.path.realpath(path)), ok=(0, 1)).stdout))


def _on_freebsd() -> bool:
    return sys.platform.startswith("freebsd")


def memory_on_freebsd(runner: Runner, source: str) -> str:
    """The same, by what ``df`` says on FreeBSD. There the kernel itself names the source of a tmpfs."""
    if source == "tmpfs":
        return source
    disk = _MD.fullmatch(source)
    if disk is None or not runner.has("mdconfig"):
        return ""
    name = f"md{disk.group('unit')}"
    words = runner.run(Command(("mdconfig", "-l", "-v", "-u", name), timeout=60), ok=(0, 1)).stdout.split()
    return f"the memory disk {name}" if words[:1] == [name] and words[1:2] and words[1] in _MD_IN_MEMORY else ""


# The nearest folder that is there, and what it lies on. One line, since the login shell of the other host may be csh.
_THERE = (
    'd=$1; until test -e "$d"; do d=$(dirname "$d"); done; uname -s; '
    'if test "$(uname -s)" = Linux; then stat -f -c %T "$d"; else df -P "$d"; fi'
)


def memory_there(runner: Runner, path: str) -> str:
    """The same for a file on another host, which need not be there. A live system's overlay is not told there.

    :param runner: runs programs on that host
    """
    result = runner.run(Command(("sh", "-c", _THERE, "sh", path), timeout=60), ok=(0, 1, 127))
    system, _newline, text = result.stdout.partition("\n")
    if system == "Linux":
        return text.strip() if text.strip() in _MEMORY else ""
    return memory_on_freebsd(runner, df_source(text)) if text.strip() else ""


def _memory_on_linux(path: str) -> str:
    try:
        mounts = {one.number: one for one in mountinfo.read(_MOUNTS)}
        found = mounts.get(_number(path))
        if found is not None and found.kind == "overlay":
            # What is written goes to a folder of another filesystem; live systems have that one in memory.
            upper = _UPPER.search(found.of_filesystem)
            below = mounts.get(_number(mountinfo.plain(upper.group("path")))) if upper else None
            memory = _memory(below)
            return f"an overlay on {memory}" if memory else ""
    except OSError:
        return ""
    return _memory(found)


def _memory(mount: mountinfo.MountLine | None) -> str:
    if mount is None:
        return ""
    if mount.kind in _MEMORY:
        return mount.kind
    return mount.source if _MEMORY_DEVICE.fullmatch(mount.source) else ""


def _number(path: str) -> str:
    device = os.stat(path).st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def memory_folder(runner: Runner, places: t.Sequence[str] = _PLACES) -> str:
    """A folder that is known to be in memory, for what must not get onto a disk; empty if there is none."""
    return next((place for place in places if os.path.isdir(place) and memory_of(runner, place)), "")
