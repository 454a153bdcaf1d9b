# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One task of this collection at a time changes a host: two that rotate one key would each replace the other's."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import typing as t

from .errors import StorageError

# What is in it is gone when the host restarts. The same folder by either name on Linux, unless /var is not mounted yet;
# FreeBSD has the second one only.
RUN_FOLDER = "/run" if os.path.isdir("/run") else "/var/run"
LOCK_FILE = f"{RUN_FOLDER}/nasops.encryption.lock"
# Seconds. A task with a thousand datasets takes minutes on a slow host.
PATIENCE = 900.0
_PAUSE = 0.1
_FLAGS = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


def lock_of(name: str) -> str:
    """The lock file of one thing, for what takes so long that other tasks have to go on."""
    return f"{LOCK_FILE}.{hashlib.sha256(name.encode('utf-8')).hexdigest()[:16]}"


@contextlib.contextmanager
def exclusive(path: str = LOCK_FILE, patience: float = PATIENCE) -> t.Iterator[int | None]:
    """Wait until no other task holds the lock, then hold it. It is let go when the process ends, however it ends.

    Who is not root, such as the user of a controller whose tasks change what is on a KMIP server, has locks of the same
    names at home. Without a home there is none: on a host such a task changes nothing, and is told so in better words.

    Gives the descriptor of the file, which may be read and written while it is held; None without one.

    :param patience: seconds to wait at the most
    :raises StorageError: another task did not end in that time, or the lock can't be made
    """
    descriptor: int | None = None
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except PermissionError:
        with contextlib.suppress(OSError):
            path = os.path.expanduser(f"~/.{os.path.basename(path)}")
            descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise StorageError(f"The lock file {path} can't be opened: {error.strerror}.") from error
    if descriptor is None:
        yield None
        return
    try:
        _wait(descriptor, path, patience)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: str, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise StorageError(
                    f"Another task of this collection has been at work on this host for {patience:.0f} seconds.",
                    hint=f"Wait for it and run this again; 'fuser {path}' shows its process.",
                ) from None
        time.sleep(_PAUSE)
