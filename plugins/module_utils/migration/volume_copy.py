# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the data of a volume to the device of another one, only where it differs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
import typing as t

from ..errors import StorageError

# Linux: include/os/linux/zfs/sys/zvol_os.h and lib: BLKZNAME, which tells the name of the volume behind a device.
_NAME = 0x8100127D
_MOST_NAME = 256
_DEVICE = re.compile(r"zd\d+")
# Seconds until the device of a volume is there after it was asked for.
_PATIENCE, _PAUSE = 60.0, 0.2
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)


def write_blocks(device: int, size: int, blocks: t.Iterable[tuple[int, bytes]], fresh: bool) -> None:
    """Make the data of a device this.

    :param device: a descriptor that can be read and written
    :param blocks: in ascending order; what lies between them is zeros
    :param fresh: whether nothing was ever written to it, so that there are zeros everywhere
    """
    end = 0
    for offset, data in blocks:
        if not fresh:
            _clear(device, end, offset)
        _write(device, offset, data)
        end = offset + len(data)
    if not fresh:
        _clear(device, end, size)
    os.fsync(device)


def _write(device: int, offset: int, data: bytes) -> None:
    """A block that is what it shall be is left alone, so that it takes no room once more."""
    if _read(device, offset, len(data)) == data:
        return
    view = memoryview(data)
    while view:
        done = os.pwrite(device, view, offset)
        view, offset = view[done:], offset + done


def _clear(device: int, start: int, end: int) -> None:
    while start < end:
        size = min(_CHUNK, end - start)
        _write(device, start, _ZEROS[:size])
        start += size


def _read(device: int, offset: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = os.pread(device, size - len(found), offset + len(found))
        if not part:
            break
        found += part
    return found


@contextlib.contextmanager
def opened(volume: str) -> t.Iterator[int]:
    """The device of a volume of this host, for reading and writing.

    Its link in /dev/zvol is udev's, which changes blanks in names; the kernel tells which device is whose.

    :raises StorageError: there is none, or it can't be opened
    """
    end = time.monotonic() + _PATIENCE
    descriptor = _open(volume, end)
    while descriptor is None:
        time.sleep(_PAUSE)
        descriptor = _open(volume, end)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(volume: str, end: float) -> int | None:
    """A descriptor of its device, None if it is worth trying again.

    :param end: until when that is
    :raises StorageError: it is too late for that, or of no use
    """
    path = device_of(volume)
    if path:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            # It is made read-only until its properties have arrived, and busy while udev looks at it.
            if error.errno not in (errno.EROFS, errno.EBUSY, errno.ENXIO, errno.ENOENT) or time.monotonic() > end:
                raise StorageError(f"The device {path} of '{volume}' can't be opened: {error.strerror}.") from None
    elif time.monotonic() > end:
        raise StorageError(
            f"The volume '{volume}' has no device after {_PATIENCE:.0f} seconds.", hint="See the kernel log."
        )
    return None


def device_of(volume: str, folder: str = "/dev") -> str:
    """The path of the device of a volume, "" if it has none."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if _DEVICE.fullmatch(name) and _volume_of(path) == volume:
            return path
    return ""


def _volume_of(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        answer = fcntl.ioctl(descriptor, _NAME, bytes(_MOST_NAME))
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return answer.split(b"\0", 1)[0].decode("utf-8", "replace")
