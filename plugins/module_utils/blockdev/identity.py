# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names are the same disk: by-id, by-path, by-partuuid, gptid, GPT label, multipath and kernel names.

Nothing here touches the host; :mod:`.linux` and :mod:`.freebsd` read the devices.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import typing as t
from dataclasses import dataclass, field

# Where zpool looks for a name without a slash, in its order (ZPOOL_IMPORT_PATH of OpenZFS), then FreeBSD's folders.
_SEARCH = (
    "/dev",
    "/dev/disk/by-vdev",
    "/dev/mapper",
    "/dev/disk/by-partlabel",
    "/dev/disk/by-partuuid",
    "/dev/disk/by-label",
    "/dev/disk/by-uuid",
    "/dev/disk/by-id",
    "/dev/disk/by-path",
    "/dev/gptid",
    "/dev/gpt",
    "/dev/label",
    "/dev/diskid",
    "/dev/multipath",
)

# FreeBSD and Linux name a partition by the same GPT UUID; a pool that moved between them still shows the other name.
_GPTID = "/dev/gptid/"
_PARTUUID = "/dev/disk/by-partuuid/"

# Folders whose names end in -partN for a partition of the disk with the name before it.
_PART_FOLDERS = ("/dev/disk/by-id/", "/dev/disk/by-path/", "/dev/disk/by-vdev/", "/dev/mapper/")

_PART_SUFFIX = re.compile(r"(?P<disk>.+)-part[0-9]+")
# Disks whose name ends in a letter: sda1, vdb2, xvdc1, hda4 and dasda1.
_LETTER_DISK = re.compile(r"(?P<disk>(?:s|v|xv|h|das)d[a-z]+)[0-9]+")
# Disks whose name ends in a digit put a "p" between: nvme0n1p1, mmcblk0p2, and on FreeBSD ada0p2, nda0p1.
_DIGIT_DISK = re.compile(
    r"(?P<disk>(?:nvme[0-9]+n|mmcblk|loop|md|nbd|zd|pmem|rbd"
    r"|ada|da|ad|nda|nvd|vtbd|mmcsd|mfid|mfisyspd|aacd|xbd)[0-9]+)p[0-9]+"
)
# FreeBSD's MBR slices and the BSD partitions in them: ada0s1, da0s1a.
_SLICE = re.compile(r"(?P<disk>(?:ada|da|ad|nda|nvd|vtbd|mmcsd|mfid|md)[0-9]+)s[0-9]+[a-h]?")
# Names multipath-tools gives by itself; in any other name of a map the last digits may well belong to the name.
_MULTIPATH_MAP = re.compile(r"(?P<disk>mpath[a-z]+)p?[0-9]+|(?P<disk_p>mpath[0-9]+)p[0-9]+")
# FreeBSD's names by serial number: diskid/DISK-SERIALp1.
_DISKID = re.compile(r"(?P<disk>DISK-.+)p[0-9]+")


@dataclass(frozen=True)
class BlockDevice:
    """A block device (on FreeBSD: a GEOM provider) of the host.

    ``kind`` is disk, partition, multipath, crypt, lvm, md (software RAID of any sort), loop or other.
    ``parent`` is the kernel name of what it is a part of: the whole disk of a partition, the map of one path of a
    multipath disk, otherwise empty. ``wwn`` is written as the kernel does (``naa.5000c500…``, ``eui.…``).
    """

    name: str
    path: str
    # Every other path that leads to it. FreeBSD hides labels of open devices; they are listed all the same.
    aliases: tuple[str, ...] = ()
    kind: str = "disk"
    parent: str = ""
    # Number in the partition table, 0 for what is no partition.
    partition: int = 0
    # Bytes.
    size: int = 0
    serial: str = ""
    wwn: str = ""
    # Kernel names of the devices built on top of it (md, LVM, crypt, multipath).
    holders: tuple[str, ...] = ()
    read_only: bool = False
    # "8:17", Linux only.
    number: str = ""
    # The file behind a loop device (Linux) or vnode memory disk (FreeBSD).
    backing: str = ""
    # Those of the aliases that can't be opened now, since FreeBSD hides them or was told to make none of their sort.
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A mounted filesystem: number of its device (Linux), the source as it was given to mount, and where it is."""

    number: str
    source: str
    target: str


@dataclass(frozen=True)
class DeviceTable:
    """All block devices of a host, to be asked which paths mean the same thing."""

    devices: tuple[BlockDevice, ...] = ()
    _names: dict[str, BlockDevice] = field(init=False, repr=False, compare=False)
    _paths: dict[str, BlockDevice] = field(init=False, repr=False, compare=False)
    _numbers: dict[str, BlockDevice] = field(init=False, repr=False, compare=False)
    _parts: dict[str, list[BlockDevice]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names: dict[str, BlockDevice] = {}
        paths: dict[str, BlockDevice] = {}
        parts: dict[str, list[BlockDevice]] = {}
        for device in self.devices:
            names[device.name] = device
            for path in device.aliases:
                paths.setdefault(path, device)
            if device.kind == "partition" and device.parent:
                parts.setdefault(device.parent, []).append(device)
        # A device's own path wins over an alias of another one that happens to be spelled the same.
        for device in self.devices:
            paths[device.path] = device
        for found in parts.values():
            found.sort(key=lambda device: (device.partition, device.name))
        numbers = {device.number: device for device in self.devices if device.number}
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_numbers", numbers)
        object.__setattr__(self, "_paths", paths)
        object.__setattr__(self, "_parts", parts)

    def named(self, name: str) -> BlockDevice | None:
        """The device with this kernel name."""
        return self._names.get(name)

    def numbered(self, number: str) -> BlockDevice | None:
        """The device with this number (``8:17``)."""
        return self._numbers.get(number)

    def find(self, path: str) -> BlockDevice | None:
        """The device a path, or a name as zpool accepts it, leads to; None for a file or what is not there."""
        if not path:
            return None
        if path.startswith("/"):
            return self._at(clean_path(path))
        for folder in _SEARCH:
            found = self._at(clean_path(f"{folder}/{path}"))
            if found is not None:
                return found
        return None

    def partitions(self, device: BlockDevice) -> tuple[BlockDevice, ...]:
        """The partitions of a disk in the order of their numbers; those of a multipath map for one of its paths."""
        return tuple(self._parts.get(self.canonical(device).name, ()))

    def canonical(self, device: BlockDevice) -> BlockDevice:
        """The device itself, but the multipath map (or its partition) for one path of it."""
        parent = self._names.get(device.parent)
        if parent is None:
            return device
        if device.kind != "partition":
            return self.canonical(parent)
        whole = self.canonical(parent)
        if whole is parent:
            return device
        same = (other for other in self._parts.get(whole.name, ()) if other.partition == device.partition)
        return next(same, device)

    def identity(self, path: str) -> str:
        """A key that is equal for all names of one thing.

        That is the kernel's path for a device of this host. A file, and a device that is not there (any more), are
        known by their absolute, normalised path alone.
        """
        device = self.find(path)
        return _absolute(path) if device is None else self.canonical(device).path

    def whole(self, path: str) -> str:
        """The identity of the whole disk that a partition is on; for anything else, its own identity."""
        device = self.find(path)
        if device is None:
            stripped = strip_partition(path)
            return self.identity(path if stripped is None else stripped)
        device = self.canonical(device)
        parent = self._names.get(device.parent) if device.kind == "partition" else None
        return device.path if parent is None else self.canonical(parent).path

    def same_disk(self, wanted: str, actual: str) -> bool:
        """Whether a pool that uses ``actual`` uses the disk that was asked for as ``wanted``.

        ZFS on Linux partitions a whole disk, and names the first partition in its status from then on.
        """
        identity = self.identity(wanted)
        return identity in (self.identity(actual), self.whole(actual))

    def overlap(self, one: str, other: str) -> bool:
        """Whether writing to one of them would also write to the other: same thing, or a disk and its partition."""
        return self.same_disk(one, other) or self.same_disk(other, one)

    def _at(self, path: str) -> BlockDevice | None:
        found = self._paths.get(path)
        if found is None and path.startswith(_GPTID):
            found = self._paths.get(_PARTUUID + path[len(_GPTID) :].lower())
        elif found is None and path.startswith(_PARTUUID):
            found = self._paths.get(_GPTID + path[len(_PARTUUID) :].lower())
        return found


def strip_partition(path: str) -> str | None:
    """The path of the whole disk, judged by the text of a partition's path; None when it does not look like one.

    Names are cut only where the folder or the driver's naming scheme says that the end is a partition number.
    """
    path = _absolute(path)
    folder, name = posixpath.split(path)
    found: t.Match[str] | None = None
    if path.startswith(_PART_FOLDERS):
        found = _PART_SUFFIX.fullmatch(name)
    if found is None and folder == "/dev":
        found = _LETTER_DISK.fullmatch(name) or _DIGIT_DISK.fullmatch(name) or _SLICE.fullmatch(name)
    elif found is None and folder == "/dev/mapper":
        found = _MULTIPATH_MAP.fullmatch(name)
    elif found is None and folder == "/dev/diskid":
        found = _DISKID.fullmatch(name)
    if found is None:
        return None
    disk = found.group("disk") or found.group("disk_p")
    return posixpath.join(folder, disk)


def number_of(status: os.stat_result) -> str:
    """What tells one device from another while it is open: ``8:17``; for a file, its file system and inode."""
    if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return f"{status.st_dev}/{status.st_ino}"


def _absolute(path: str) -> str:
    """A path, or a name as zpool accepts it, as one normalised absolute path."""
    return clean_path(path if path.startswith("/") else f"/dev/{path}")


def clean_path(path: str) -> str:
    """An absolute path as the kernel understands it, without looking at links."""
    # normpath keeps two leading slashes, which POSIX lets mean something else; no NAS does.
    return posixpath.normpath("/" + path.lstrip("/"))
