# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the data of a volume to its device, only where it differs.

This file is also run by itself at another host, which needs no more than Python 3.9 for it. So it imports nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
import sys
import time
import typing as t

# Linux: include/os/linux/zfs/sys/zvol_os.h and lib: BLKZNAME, which tells the name of the volume behind a device.
_NAME = 0x8100127D
_MOST_NAME = 256
_DEVICE = re.compile(r"zd\d+")
# Seconds until the device of a volume is there after it was asked for.
_PATIENCE, _PAUSE = 60.0, 0.2
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
# Bytes that are written until they are brought to the disks: all of them in the end would take long without a word.
_SYNC = 1 << 28

# From one host to the other: where a block begins, and its length. The last one says that these were all.
FRAME = struct.Struct(">QI")
END = FRAME.pack((1 << 64) - 1, 0)
READY, DONE = b"ready", b"done"
_MOST = 1 << 26
# Seconds that it gets to end by itself when nothing more comes.
LEAVE = 30.0
# Seconds between two dots, which tell that something moves.
_TELL = 1.0


class NoDevice(Exception):
    """A volume has no device, or none that can be opened."""


class CutShort(Exception):
    """The blocks do not come to their end."""


def write_blocks(
    device: int,
    size: int,
    blocks: t.Iterable[tuple[int, bytes]],
    fresh: bool,
    moved: t.Callable[[], None] = lambda: None,
) -> None:
    """Make the data of a device this.

    :param device: a descriptor that can be read and written
    :param blocks: in ascending order; what lies between them is zeros
    :param fresh: whether nothing was ever written to it, so that there are zeros everywhere
    :param moved: is called whenever something is done
    """
    since = 0
    for offset, data in _filled(size, blocks, fresh):
        since += _write(device, offset, data)
        moved()
        if since >= _SYNC:
            os.fsync(device)
            moved()
            since = 0
    os.fsync(device)


def _filled(size: int, blocks: t.Iterable[tuple[int, bytes]], fresh: bool) -> t.Iterator[tuple[int, bytes]]:
    """The blocks, with zeros between and behind them where it matters."""
    end = 0
    for offset, data in blocks:
        if not fresh:
            yield from _zeros(end, offset)
        yield offset, data
        end = offset + len(data)
    if not fresh:
        yield from _zeros(end, size)


def _zeros(start: int, end: int) -> t.Iterator[tuple[int, bytes]]:
    while start < end:
        size = min(_CHUNK, end - start)
        yield start, _ZEROS[:size]
        start += size


def _write(device: int, offset: int, data: bytes) -> int:
    """A block that is what it shall be is left alone, so that it takes no room once more. Returns the bytes written."""
    if _read(device, offset, len(data)) == data:
        return 0
    view = memoryview(data)
    while view:
        done = os.pwrite(device, view, offset)
        view, offset = view[done:], offset + done
    return len(data)


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

    :raises NoDevice: there is none, or it can't be opened
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
    :raises NoDevice: it is too late for that, or of no use
    """
    path = device_of(volume)
    if path:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            # It is made read-only until its properties have arrived, and busy while udev looks at it.
            if error.errno not in (errno.EROFS, errno.EBUSY, errno.ENXIO, errno.ENOENT) or time.monotonic() > end:
                raise NoDevice(f"The device {path} of '{volume}' can't be opened: {error.strerror}.") from None
    elif time.monotonic() > end:
        raise NoDevice(f"The volume '{volume}' has no device after {_PATIENCE:.0f} seconds; see the kernel log.")
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


# --- from one host to the other -------------------------------------------------------------------------------------


def framed(offset: int, data: bytes) -> bytes:
    """A block on its way to another host."""
    return FRAME.pack(offset, len(data)) + data


def blocks_in(stream: t.BinaryIO) -> t.Iterator[tuple[int, bytes]]:
    """The blocks of such frames.

    :raises CutShort: nobody has said that these were all
    """
    while True:
        head = stream.read(FRAME.size)
        if head == END:
            return
        if len(head) != FRAME.size:
            raise CutShort("The blocks end early.")
        offset, size = FRAME.unpack(head)
        data = stream.read(size) if size <= _MOST else b""
        if not data or len(data) != size:
            raise CutShort("The blocks end early.")
        yield offset, data


class _Dots:
    """Tells now and then that something moves."""

    def __init__(self, out: t.BinaryIO) -> None:
        self._out = out
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last >= _TELL:
            self._last = time.monotonic()
            self.say(b".")

    def say(self, text: bytes) -> None:
        self._out.write(text)
        self._out.flush()


def main(argv: t.Sequence[str]) -> int:
    """What is run at another host: the name of a volume, and whether it is ``fresh`` or ``used``.

    Frames come on standard input. That all of them are on the disks is told in the end, and nothing else counts.
    """
    volume, state = argv
    dots = _Dots(sys.stdout.buffer)
    try:
        with opened(volume) as device:
            dots.say(READY + b"\n")
            size = os.lseek(device, 0, os.SEEK_END)
            write_blocks(device, size, blocks_in(sys.stdin.buffer), state == "fresh", dots)
        dots.say(DONE + b"\n")
    except (NoDevice, CutShort) as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except OSError as error:
        sys.stderr.write(f"{error.strerror}\n")
        return 4
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[3:]))
