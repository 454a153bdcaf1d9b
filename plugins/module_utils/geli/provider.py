# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which disks, partitions and images carry GELI."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import stat
import typing as t
from dataclasses import dataclass, replace

from ..blockdev.identity import BlockDevice, DeviceTable, number_of
from ..errors import StorageError
from .metadata import BadMetadata, Located, NotGeli, Reader, locate

# Where Linux and FreeBSD name a partition by the UUID in its partition table.
_GPTID = "/dev/gptid/"
_BY_UUID = ("/dev/disk/by-partuuid/", _GPTID)
_BY_ID = "/dev/disk/by-id/"
# What a name below /dev/mapper may be made of.
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


class NeedsRoot(StorageError):
    """Disks can't be read by this user."""


@dataclass(frozen=True)
class Provider:
    """What may be a GELI volume: a partition, a disk or an image."""

    # As it was asked for; the kernel's path if all were looked at.
    asked: str
    # The kernel's path, or that of the file.
    path: str
    # Persistent names that lead to it, best first.
    names: tuple[str, ...] = ()
    partuuid: str = ""
    # The whole disk, and the serial number of it; empty for a file.
    disk: str = ""
    serial: str = ""
    # Bytes.
    size: int = 0
    # Number of the device on Linux, as 8:18; empty for a file, and on FreeBSD.
    number: str = ""
    # Kernel names of what is built upon it.
    holders: tuple[str, ...] = ()
    # geli, damaged (there is metadata, but it can't be used), none (no metadata), or unreadable.
    state: str = "none"
    located: Located | None = None
    # Why it is not in order, in words. Metadata of another size than the provider is told here, too.
    problem: str = ""
    # Those of the names that can't be opened now.
    hidden: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """A name for it that stays the same when disks are added, good for a file name."""
        by_id = next((name for name in self.names if name.startswith(_BY_ID)), self.path)
        base = self.partuuid or posixpath.basename(by_id)
        return _ODD.sub("_", base).strip("_.") or "provider"

    @property
    def handle(self) -> str:
        """The name that FreeNAS attaches it by, so that its own programs find the device that comes of it.

        A FreeBSD with kern.geom.label.gptid.enable=0 has no such names, and attaches it by that of the partition.
        """
        names = (name for name in self.names if name.startswith(_GPTID) and name not in self.hidden)
        return next(names, self.path)


def require_root() -> None:
    """Disks can be read by root alone, so a missing privilege must not pass for "nothing there".

    :raises NeedsRoot: not root
    """
    if os.geteuid() != 0:
        raise NeedsRoot(
            f"This module runs as user {os.geteuid()}; pools, keys and disks need root.",
            hint="Set 'become: true' for the task.",
        )


@contextlib.contextmanager
def opened(path: str) -> t.Iterator[tuple[Reader, int]]:
    """A reader of a device or file, and its size in bytes. It is opened for reading only.

    :raises OSError: it can't be opened
    """
    # Opening a named pipe must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))
        size = os.lseek(descriptor, 0, os.SEEK_END)
        yield (lambda offset, length: read_fully(descriptor, offset, length)), size
    finally:
        os.close(descriptor)


def read_fully(descriptor: int, offset: int, length: int) -> bytes:
    """All bytes that were asked for, fewer only at the end: a single call may give less."""
    parts: list[bytes] = []
    while length > 0:
        part = os.pread(descriptor, length, offset)
        if not part:
            break
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def find_all(table: DeviceTable) -> tuple[Provider, ...]:
    """All devices of the host, each once, whatever its paths. Most have the state none."""
    found: dict[str, Provider] = {}
    for device in table.devices:
        whole = table.canonical(device)
        if whole.size and whole.path not in found:
            found[whole.path] = _look(_of_device(table, whole.path, whole))
    return tuple(found.values())


def find(table: DeviceTable, path: str) -> Provider:
    """What stands behind one path or name, GELI or not."""
    device = table.find(path)
    node = path if path.startswith("/") else f"/dev/{path}"
    if device is None:
        try:
            status = os.stat(node)
        except OSError as error:
            return Provider(path, node, state="unreadable", problem=f"{path} can't be examined: {error.strerror}.")
        if stat.S_ISREG(status.st_mode):
            return _look(Provider(path, node))
        # A link from outside /dev.
        device = table.numbered(number_of(status)) or table.find(os.path.realpath(node))
        if device is None:
            problem = f"{path} is neither a block device nor a regular file."
            return Provider(path, node, state="unreadable", problem=problem)
    return _look(_of_device(table, path, table.canonical(device)))


def _of_device(table: DeviceTable, asked: str, device: BlockDevice) -> Provider:
    uuids = [path for path in device.aliases if path.startswith(_BY_UUID)]
    others = [path for path in device.aliases if path.startswith(_BY_ID)]
    return Provider(
        asked=asked,
        path=device.path,
        names=tuple(dict.fromkeys((*uuids, *others, *device.aliases))),
        hidden=device.hidden,
        partuuid=posixpath.basename(uuids[0]).lower() if uuids else "",
        disk=table.whole(device.path),
        serial=device.serial,
        size=device.size,
        number=device.number,
        holders=device.holders,
    )


def _look(provider: Provider) -> Provider:
    """The same with its metadata."""
    size = provider.size
    try:
        with opened(provider.path) as (read, size):
            located = locate(read, size)
    except OSError as error:
        problem = f"{provider.path} can't be read: {error.strerror}."
        return replace(provider, size=size, state="unreadable", problem=problem)
    except NotGeli as error:
        return replace(provider, size=size, problem=str(error))
    except BadMetadata as error:
        return replace(provider, size=size, state="damaged", problem=str(error))
    return replace(provider, size=size, state="geli", located=located, problem=located.problem)
