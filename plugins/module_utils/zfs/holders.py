# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who keeps a filesystem or volume busy, for the message of an error."""

from __future__ import annotations

import glob
import os
import typing as t

from .. import mountinfo
from ..command import Command, Runner
from ..errors import StorageError, first_of

_MOST = 5


def describe_holders(runner: Runner, mountpoint: str, node: str) -> str:
    """In words, to follow "is in use"; "" if nothing is found out.

    :param mountpoint: of a filesystem, "" for none
    :param node: the device node of a volume, "" for none
    """
    try:
        found = list(_holders(runner, mountpoint, node))
    except (OSError, StorageError):
        return ""
    return f" by {first_of(found, _MOST)}" if found else ""


def describe_mounts(names: t.Collection[str]) -> str:
    """Where filesystems of ZFS are still mounted, in words, to follow a clause; "" if that is nowhere.

    An unmount reaches neither a folder of one that is mounted elsewhere (``mount --bind``), nor the mount namespace of
    a service or container.
    """
    try:
        found = list(_mounts_of(frozenset(names)))
    except OSError:
        return ""
    return f"; still mounted: {first_of(found, _MOST)}" if found else ""


def _mounts_of(names: frozenset[str]) -> t.Iterator[str]:
    seen = {os.stat("/proc/self/ns/mnt").st_ino}
    # Most services have a namespace of their own to which these are passed on, and from which they are taken with them.
    here = _places_of(names, mountinfo.TABLE)
    for source, place in here:
        yield f"'{source}' at {place}"
    for number in _processes():
        try:
            namespace = os.stat(f"/proc/{number}/ns/mnt").st_ino
            there = [] if namespace in seen else _places_of(names, f"/proc/{number}/mountinfo")
        except OSError:
            # It has ended meanwhile.
            continue
        seen.add(namespace)
        for source, place in there:
            if (source, place) not in here:
                yield f"'{source}' at {place} for process {number} ({_name(number)})"


def _places_of(names: frozenset[str], table: str) -> list[tuple[str, str]]:
    """Where these filesystems are mounted by a mount table, each with its name."""
    return [(one.source, one.place) for one in mountinfo.read(table) if one.kind == "zfs" and one.source in names]


def _processes() -> list[str]:
    return sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int)


def _holders(runner: Runner, mountpoint: str, node: str) -> t.Iterator[str]:
    if not os.path.isdir("/proc/self/fd"):
        yield from _fuser(runner, mountpoint or node)
        return
    if mountpoint:
        yield from _mounts_inside(mountpoint)
    device = os.stat(mountpoint).st_dev if mountpoint else None
    block = os.stat(node).st_rdev if node and os.path.exists(node) else None
    if block is not None:
        yield from _stacked(block)
        yield from _built_on(node, block)
    for number in _processes():
        if _uses(f"/proc/{number}", device, block):
            yield f"process {number} ({_name(number)})"


def _mounts_inside(mountpoint: str) -> t.Iterator[str]:
    for one in mountinfo.read():
        if one.place.startswith(mountpoint.rstrip("/") + "/"):
            yield f"what is mounted at {one.place}"


def _stacked(block: int) -> t.Iterator[str]:
    """What is built on a block device, such as LVM."""
    folder = f"/sys/dev/block/{os.major(block)}:{os.minor(block)}/holders"
    if os.path.isdir(folder):
        for name in sorted(os.listdir(folder)):
            yield f"the device {name}"


def _built_on(node: str, block: int) -> t.Iterator[str]:
    """A filesystem or swap on a volume, and loop devices, which the kernel does not count among its holders."""
    for one in mountinfo.read():
        if _is_device(one.source, block):
            yield f"what is mounted at {one.place}"
    for file in sorted(glob.glob("/sys/block/loop*/loop/backing_file")):
        with open(file, encoding="utf-8", errors="surrogateescape") as backing:
            if _is_device(backing.read().rstrip("\n"), block):
                yield f"the device {file.split('/')[3]}"
    with open("/proc/swaps", encoding="utf-8", errors="surrogateescape") as table:
        if any(_is_device(path, block) for path in mountinfo.swaps(table)):
            yield f"swap on {node}"


def _is_device(path: str, block: int) -> bool:
    try:
        return path.startswith("/dev/") and os.stat(path).st_rdev == block
    except OSError:
        return False


def _uses(process: str, device: int | None, block: int | None) -> bool:
    """Whether a process has its folder, root, program or an open file there."""
    links = [f"{process}/{name}" for name in ("cwd", "root", "exe")]
    try:
        links += [f"{process}/fd/{name}" for name in os.listdir(f"{process}/fd")]
    except OSError:
        return False
    for link in links:
        try:
            status = os.stat(link)
        except OSError:
            continue
        if device is not None and status.st_dev == device or block is not None and status.st_rdev == block:
            return True
    return False


def _name(number: str) -> str:
    try:
        with open(f"/proc/{number}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "it has ended meanwhile"


def _fuser(runner: Runner, path: str) -> t.Iterator[str]:
    """Where there is no /proc, as on FreeBSD."""
    result = runner.run(Command(("fuser", "-c", path), timeout=30), ok=(0, 1))
    for number in result.stdout.split():
        yield f"process {number}"
