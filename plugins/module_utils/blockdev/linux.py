# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The block devices of a Linux host, read from sysfs, /dev and /proc without starting a program.

:class:`Linux` is the :class:`.host.Host` of Linux.
"""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import re
import stat
import typing as t
from dataclasses import dataclass, field, replace

from .. import mountinfo
from ..command import Command, Runner
from ..errors import Refused, StorageError
from . import blkid
from .identity import BlockDevice, DeviceTable, Mount, number_of
from .signatures import Signature, Span

# sysfs counts in these whatever the disk's own sectors are; bytes.
_SECTOR = 512
_DM_PARTITION = re.compile(r"part(?P<number>[0-9]+)-")
_DM_KINDS = (("mpath-", "multipath"), ("CRYPT-", "crypt"), ("LVM-", "lvm"), ("DMRAID-", "md"))
_BLKRRPART = 0x125F
_NO_DISKS = re.compile(r"(?:ram|zram|sr|fd|zd)[0-9]+")


@dataclass(frozen=True)
class Roots:
    """Where the kernel shows itself; a made tree stands in for it in tests."""

    sys: str = "/sys"
    dev: str = "/dev"
    proc: str = "/proc"


@dataclass(frozen=True)
class Linux:
    """Linux, with libblkid's knowledge of signatures through wipefs (util-linux)."""

    roots: Roots = field(default_factory=Roots)

    def read_table(self, runner: Runner) -> DeviceTable:
        return read(self.roots)

    def mounts(self, runner: Runner) -> tuple[Mount, ...]:
        return mounts(self.roots)

    def swaps(self, runner: Runner) -> tuple[str, ...]:
        return swaps(self.roots)

    def imported_pools(self, runner: Runner) -> t.Mapping[str, str]:
        return imported_pools(self.roots)

    def probe(self, runner: Runner, paths: t.Sequence[str]) -> dict[str, tuple[Signature, ...] | str]:
        return blkid.probe(runner, paths)

    def is_free(self, path: str) -> bool:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            return error.errno != errno.EBUSY
        return True

    def erase(self, runner: Runner, path: str, number: str, spans: t.Sequence[Span], whole: bool) -> None:
        # Held exclusively from the check to the last write: nothing can be mounted or imported from it meanwhile, and
        # the kernel can't give the name to another disk. That is also why wipefs gets --force: it would ask for the
        # same exclusive access. (With it, wipefs erases partition tables inside partitions too.)
        descriptor = _open_exclusively(path)
        try:
            mode = os.fstat(descriptor)
            if number_of(mode) != number:
                raise Refused(
                    f"{path} is now device {number_of(mode)}; {number} was examined. Nothing was written.",
                    hint="Disks were added or removed meanwhile; run the task again.",
                )
            for offset, length in spans:
                os.pwrite(descriptor, bytes(length), offset)
            os.fsync(descriptor)
            runner.run(Command(("wipefs", "--all", "--force", "--quiet", "--", path)))
            os.fsync(descriptor)
            if whole and stat.S_ISBLK(mode.st_mode):
                _forget_partitions(descriptor)
        except OSError as error:
            raise StorageError(
                f"Writing to {path} failed: {error.strerror}.", hint="See the kernel log for the state of the disk."
            ) from None
        finally:
            os.close(descriptor)

    def forget_partition(self, runner: Runner, path: str) -> None:
        # Partitions of a multipath disk are maps upon the map, which keeps that from being opened exclusively.
        name = _text(os.path.join(self.roots.sys, "class/block", posixpath.basename(path)), "dm/name")
        if name:
            runner.run(Command(("dmsetup", "remove", "--retry", name)))

    def settle(self, runner: Runner) -> None:
        if runner.has("udevadm"):
            # 1: the queue was not empty in time, which the next look at the disk will tell better.
            runner.run(Command(("udevadm", "settle", "--timeout=60")), ok=(0, 1))


def read(roots: Roots = Roots()) -> DeviceTable:
    """All block devices, with the partitions, stacked devices and names the kernel and udev know."""
    top = os.path.join(roots.sys, "class", "block")
    try:
        names = sorted(os.listdir(top))
    except OSError:
        return DeviceTable()
    found: dict[str, BlockDevice] = {}
    slaves: dict[str, list[str]] = {}
    for entry in names:
        folder = os.path.join(top, entry)
        # One path of an NVMe disk with native multipath; it has no node in /dev.
        if _text(folder, "hidden") == "1":
            continue
        device = _device(folder, entry)
        found[device.name] = device
        slaves[device.name] = _names(folder, "slaves")
    _relate(found, slaves)
    aliases = _links(roots.dev, {device.path for device in found.values()})
    return DeviceTable(
        tuple(
            replace(device, aliases=tuple(dict.fromkeys(device.aliases + tuple(aliases.get(device.path, ())))))
            for device in found.values()
        )
    )


def mounts(roots: Roots = Roots()) -> tuple[Mount, ...]:
    """The mounted filesystems, in this mount namespace."""
    lines = mountinfo.parse(_lines(roots.proc, "self/mountinfo"))
    return tuple(Mount(one.number, one.source, one.place) for one in lines)


def swaps(roots: Roots = Roots()) -> tuple[str, ...]:
    """The devices and files that are swapped to."""
    return tuple(mountinfo.swaps(_lines(roots.proc, "swaps")))


def imported_pools(roots: Roots = Roots()) -> dict[str, str]:
    """The GUIDs of the imported pools by name, from their folders of statistics; empty before OpenZFS 2.2."""
    top = os.path.join(roots.proc, "spl/kstat/zfs")
    # Every pool has a state there, and nothing else does.
    return {name: _text(top, f"{name}/guid") for name in _names(top, "") if _text(top, f"{name}/state")}


def _device(folder: str, entry: str) -> BlockDevice:
    """What one folder of /sys/class/block tells by itself."""
    # The kernel writes a slash in a name (cciss/c0d0) as an exclamation mark.
    name = entry.replace("!", "/")
    kind, parent, partition = "disk", "", 0
    aliases: tuple[str, ...] = ()
    number = _text(folder, "partition")
    mapping, uuid = _text(folder, "dm/name"), _text(folder, "dm/uuid")
    if number.isdigit():
        kind, partition = "partition", int(number)
        parent = os.path.basename(os.path.dirname(os.path.realpath(folder))).replace("!", "/")
    elif mapping or uuid:
        kind = next((kind for prefix, kind in _DM_KINDS if uuid.startswith(prefix)), "other")
        part = _DM_PARTITION.match(uuid)
        if part is not None:
            kind, partition = "partition", int(part.group("number"))
        if mapping:
            aliases = (f"/dev/mapper/{mapping}",)
    elif os.path.isdir(os.path.join(folder, "md")):
        kind = "md"
    elif os.path.isdir(os.path.join(folder, "loop")) or entry.startswith("loop"):
        kind = "loop"
    elif _NO_DISKS.fullmatch(entry):
        kind = "other"
    sectors = _text(folder, "size")
    return BlockDevice(
        name=name,
        path=f"/dev/{name}",
        aliases=aliases,
        kind=kind,
        parent=parent,
        partition=partition,
        size=int(sectors) * _SECTOR if sectors.isdigit() else 0,
        serial="" if partition else _serial(folder),
        wwn="" if partition else _text(folder, "wwid") or _text(folder, "device/wwid"),
        holders=tuple(_names(folder, "holders")),
        read_only=_text(folder, "ro") == "1",
        number=_text(folder, "dev"),
        backing=_text(folder, "loop/backing_file"),
    )


def _relate(found: dict[str, BlockDevice], slaves: t.Mapping[str, t.Sequence[str]]) -> None:
    """Fill in what only shows from two devices together: maps, their paths and partitions, the serial number."""
    for device in list(found.values()):
        below = [name for name in slaves[device.name] if name in found]
        if device.kind == "multipath":
            for name in below:
                found[name] = replace(found[name], parent=device.name)
            if below:
                path = found[below[0]]
                found[device.name] = replace(device, serial=path.serial, wwn=path.wwn)
        elif device.kind == "partition" and not device.parent and len(below) == 1:
            found[device.name] = replace(device, parent=below[0])
    for device in list(found.values()):
        if device.kind == "partition" and device.parent in found:
            whole = found[device.parent]
            found[device.name] = replace(device, serial=whole.serial, wwn=whole.wwn)


def _serial(folder: str) -> str:
    """NVMe and MMC: device/serial; virtio: serial; SCSI and ATA: page 0x80, behind four bytes of header."""
    page = _bytes(folder, "device/vpd_pg80")
    if len(page) > 4:
        length = int.from_bytes(page[2:4], "big")
        text = page[4 : 4 + length].decode("ascii", "replace").strip(" \0")
        if text:
            return text
    return _text(folder, "device/serial") or _text(folder, "serial")


def _links(dev: str, nodes: t.Container[str]) -> dict[str, list[str]]:
    """Every symbolic link below /dev that leads to one of the device nodes, by node."""
    found: dict[str, list[str]] = {}
    real = os.path.realpath(dev)
    for folder, folders, files in os.walk(dev):
        if folder == dev:
            # Other filesystems (shm, pts, hugepages) hold no device names; char has one for every terminal.
            folders[:] = [name for name in folders if name != "char" and not os.path.ismount(os.path.join(dev, name))]
        folders.sort()
        shown = posixpath.join("/dev", os.path.relpath(folder, dev))
        # os.walk lists a link to a folder among the folders, and does not enter it.
        for name in sorted(files + folders):
            path = os.path.join(folder, name)
            try:
                target = os.readlink(path)
            except OSError:
                continue
            node = posixpath.normpath(posixpath.join(shown, target))
            if node not in nodes:
                # A link to a link.
                node = posixpath.join("/dev", os.path.relpath(os.path.realpath(path), real))
            if node in nodes:
                found.setdefault(node, []).append(posixpath.normpath(posixpath.join(shown, name)))
    return found


def _open_exclusively(path: str) -> int:
    try:
        # O_EXCL without O_CREAT means something for block devices only, so it must not be given for a file.
        exclusive = os.O_EXCL if stat.S_ISBLK(os.stat(path).st_mode) else 0
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusive)
    except OSError as error:
        reason = "it is in use" if error.errno == errno.EBUSY else error.strerror
        raise Refused(
            f"{path} was not opened for writing: {reason}. Nothing was written to it.",
            hint="Unmount, export or stop what uses it, if it is the right disk.",
        ) from None


def _forget_partitions(descriptor: int) -> None:
    """Make the kernel read the partition table again, which is gone now."""
    try:
        fcntl.ioctl(descriptor, _BLKRRPART)
    except OSError as error:
        # A device that can't have partitions: a map, a loop device without them.
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise


def _names(folder: str, name: str) -> list[str]:
    try:
        return sorted(entry.replace("!", "/") for entry in os.listdir(os.path.join(folder, name)))
    except OSError:
        return []


def _bytes(folder: str, name: str) -> bytes:
    """The content of a sysfs attribute; empty when the device does not have it."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()
    except OSError:
        return b""


def _text(folder: str, name: str) -> str:
    return _bytes(folder, name).decode("utf-8", "replace").strip(" \n\0")


def _lines(folder: str, name: str) -> list[str]:
    # What else ends a line for Python may be in a name, and the kernel leaves it as it is.
    return os.fsdecode(_bytes(folder, name)).split("\n")
