# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network block device of Linux (nbd), driven by its ioctls; the server is a process that outlives the task."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import time
import typing as t

from ..errors import StorageError
from .nbd_server import Content, serve

# kernel include/uapi/linux/nbd.h
_SET_SOCK = 0xAB00
_SET_BLKSIZE = 0xAB01
_DO_IT = 0xAB03
_CLEAR_SOCK = 0xAB04
_SET_SIZE_BLOCKS = 0xAB07
_DISCONNECT = 0xAB08
_SET_FLAGS = 0xAB0A
_HAS_FLAGS, _READ_ONLY, _SEVERAL = 1, 2, 256

MODULE = "nbd"
_NAME = re.compile(r"nbd[0-9]+")
# Seconds in which a server has to be ready. It has only to start.
_PATIENCE = 30.0
# More would only wait for the disk.
_MOST_WORKERS = 4

# The kernel takes no larger blocks, bytes.
_PAGE = 4096

_SYS = "/sys/class/block"


def find_free(sys: str = _SYS) -> str:
    """The name of a device that serves nothing.

    :raises StorageError: there is none
    """
    names = [name for name in os.listdir(sys) if _NAME.fullmatch(name)]
    for name in sorted(names, key=lambda name: int(name[len("nbd") :])):
        if not is_connected(name, sys):
            return name
    raise StorageError(
        f"All {len(names)} devices of nbd are in use." if names else "There are no devices of nbd.",
        hint="Detach some, or load the module with more: modprobe nbd nbds_max=64.",
    )


def is_connected(name: str, sys: str = _SYS) -> bool:
    """Whether something serves this device."""
    return os.path.exists(f"{sys}/{name}/pid")


def start(name: str, open_content: t.Callable[[], Content], block: int, workers: int) -> None:
    """Serve a device until it is disconnected, by processes of their own.

    :param open_content: opens what is to be served, once in each of these processes
    :param block: bytes of a sector of what is served; the device has none larger than a page
    :raises StorageError: the kernel does not take it, or the server did not start
    """
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        # Never returns into the module: two of them would answer to Ansible.
        try:
            os.close(ready)
            os.setsid()
            if os.fork() == 0:
                _leave(tell)
                _run(name, open_content, min(block, _PAGE), max(1, min(workers, _MOST_WORKERS)), tell)
        finally:
            os._exit(1)
    os.close(tell)
    os.waitpid(child, 0)
    try:
        said = _wait(ready)
    finally:
        os.close(ready)
    if said != b"ready":
        raise StorageError(
            f"/dev/{name} could not be set up: {said.decode('utf-8', 'replace') or 'its server did not start'}.",
            hint="See the kernel log.",
        )
    _settle(name)


def _settle(name: str, sys: str = _SYS) -> None:
    """Wait until the kernel shows the device with its size: one that is opened too early is empty.

    :raises StorageError: it does not
    """
    end = time.monotonic() + _PATIENCE
    while not (is_connected(name, sys) and size(name, sys)):
        if time.monotonic() > end:
            raise StorageError(f"/dev/{name} has no size after {_PATIENCE:.0f} seconds.", hint="See the kernel log.")
        time.sleep(0.02)


def size(name: str, sys: str = _SYS) -> int:
    """Bytes that the kernel shows; 0 for a device that serves nothing."""
    try:
        with open(f"{sys}/{name}/size", encoding="ascii") as file:
            return int(file.read()) * 512
    except (OSError, ValueError):
        return 0


def stop(name: str) -> None:
    """Disconnect a device; its server ends then.

    :raises StorageError: it can't be opened, or it is served all the same
    """
    try:
        descriptor = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _DISCONNECT)
            fcntl.ioctl(descriptor, _CLEAR_SOCK)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"/dev/{name} could not be disconnected: {error.strerror}.") from None
    end = time.monotonic() + _PATIENCE
    while is_connected(name):
        if time.monotonic() > end:
            raise StorageError(
                f"/dev/{name} is still served after {_PATIENCE:.0f} seconds.", hint="See the kernel log."
            )
        time.sleep(0.02)


def _wait(ready: int) -> bytes:
    """What the server tells: that it is ready, or why not. Nothing if it died."""
    found = b""
    while select.select([ready], [], [], _PATIENCE)[0]:
        part = os.read(ready, 4096)
        if not part:
            break
        found += part
        if found == b"ready":
            break
    return found


def _leave(keep: int) -> None:
    """Let go of all that belongs to the task: its terminal, its pipes, and the lock that it holds by a descriptor."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for descriptor in (int(name) for name in os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    # Neither the end of the ssh session nor a lack of memory may take the disks of an imported pool away.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for path, text in (("/proc/self/oom_score_adj", "-1000"), ("/sys/fs/cgroup/cgroup.procs", str(os.getpid()))):
        with contextlib.suppress(OSError), open(path, "w", encoding="ascii") as file:
            file.write(text)


def _run(name: str, open_content: t.Callable[[], Content], block: int, workers: int, tell: int) -> None:
    """Set the device up, and serve it to the end. Runs in the process that lasts."""
    children: list[int] = []
    try:
        content = open_content()
        device = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        # A device that somebody else set up meanwhile refuses the socket (EBUSY).
        fcntl.ioctl(device, _SET_BLKSIZE, block)
        fcntl.ioctl(device, _SET_SIZE_BLOCKS, content.size // block)
        fcntl.ioctl(device, _SET_FLAGS, _HAS_FLAGS | _READ_ONLY | (_SEVERAL if workers > 1 else 0))
        for _worker in range(workers):
            kernel, ours = socket.socketpair()
            fcntl.ioctl(device, _SET_SOCK, kernel.fileno())
            pid = os.fork()
            if pid == 0:
                _work(ours, open_content, (device, kernel.fileno(), tell))
            children.append(pid)
            ours.close()
            # The kernel has its own reference.
            kernel.close()
        os.write(tell, b"ready")
        os.close(tell)
        # Returns when the device is disconnected.
        with contextlib.suppress(OSError):
            fcntl.ioctl(device, _DO_IT)
        fcntl.ioctl(device, _CLEAR_SOCK)
        for pid in children:
            os.waitpid(pid, 0)
        os._exit(0)
    except (OSError, StorageError) as error:
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(OSError):
            os.write(tell, str(error).encode("utf-8"))
        os._exit(1)


def _work(link: socket.socket, open_content: t.Callable[[], Content], unwanted: t.Sequence[int]) -> t.NoReturn:
    try:
        for descriptor in unwanted:
            os.close(descriptor)
        serve(link, open_content())
    except (OSError, StorageError):
        # The kernel notices that the socket is closed, and fails what it asked for.
        os._exit(1)
    finally:
        os._exit(0)
