# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on the controller: found, read, and written so that they are whole, private and on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets as random_source
import stat
from dataclasses import dataclass

from ..module_utils.durable import make_folder, sync_folder
from ..module_utils.errors import BadInput, StorageError

FILE_MODE = 0o600
# Bytes. More than any certificate, private key or backup of keys.
LIMIT = 32 << 20
# What a filesystem without hard links says, such as FAT and exFAT: the first on Linux, the others on FreeBSD and macOS.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP)


@dataclass(frozen=True)
class Content:
    """What is in a file, and who may read it."""

    data: bytes
    mode: int
    modified: float


def absolute(path: str) -> str:
    """The path as seen from the folder that the run was started in; a link leads to what it stands for."""
    return os.path.realpath(os.path.abspath(os.path.expanduser(path)))


def read(path: str, what: str) -> Content | None:
    """The content of a file, ``None`` if there is none.

    :param what: how to name it at the beginning of a message
    :raises StorageError: it is no file, too large, or can't be read
    """
    try:
        # Opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadInput(f"{what} {path} is no regular file.")
            data = file.read(LIMIT + 1)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise BadInput(f"{what} {path} is a folder; wanted is the path of a file.") from None
    except OSError as error:
        raise StorageError(f"{what} {path} can't be read: {error.strerror}.") from None
    if len(data) > LIMIT:
        raise BadInput(f"{what} {path} has more than {LIMIT >> 20} MiB.")
    return Content(data, stat.S_IMODE(status.st_mode), status.st_mtime)


def read_text(path: str, what: str) -> str:
    """The text of a file that has to be there.

    :raises StorageError: it can't be read, or is no text
    """
    found = read(path, what)
    if found is None:
        raise StorageError(
            f"{what} {path} does not exist on the controller.",
            hint="A relative path begins at the folder that the run was started in.",
        )
    try:
        return found.data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{what} {path} is no text.", hint="Certificates and keys are wanted in PEM.") from None


def check_place(path: str) -> None:
    """See that a file could be written, as far as that can be known.

    :raises StorageError: it could not
    """
    if os.path.isdir(path):
        raise BadInput(f"{path} is a folder; wanted is the path of a file.")
    folder = os.path.dirname(path)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise BadInput(f"{path} can't be written, since {folder} is no folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{path} can't be written: the folder {folder} does not let this user write to it.")


def write(path: str, data: bytes) -> None:
    """Put a file in its place in one step: whoever reads it sees the former content or the new one, whole.

    It is on the disk, with its name, when this returns.

    :raises StorageError: it can't be written; what was there is still there
    """
    try:
        make_folder(os.path.dirname(path))
        temporary = unnamed(path)
        try:
            _fill(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise _not_written(path, error) from error


def create(path: str, data: bytes) -> bool:
    """Make a new file; False if there is one of this name, which stays as it is.

    :raises StorageError: it can't be written
    """
    try:
        temporary = unnamed(path)
        try:
            _fill(temporary, data)
            if not _give_name(temporary, path):
                return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise _not_written(path, error) from error
    return True


def _give_name(temporary: str, path: str) -> bool:
    """Give a file its name; False if that is taken."""
    try:
        # Unlike a rename, a link fails when the name is taken.
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    # The name first, and then what it stands for. Whoever is interrupted in between leaves an empty file.
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except FileExistsError:
        return False
    try:
        os.replace(temporary, path)
    except OSError:
        os.unlink(path)
        raise
    return True


def unnamed(path: str) -> str:
    """A name beside a file, for it while it is being written."""
    return os.path.join(os.path.dirname(path), f".new-{random_source.token_hex(8)}")


def _fill(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with open(descriptor, "wb") as file:
        # Before there is anything in it.
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise StorageError(
                f"A file in {os.path.dirname(path)} is open to others than its owner (mode {mode:04o}), although it "
                "was made for that one alone; nothing was written.",
                hint="Its filesystem keeps no modes, as FAT and exFAT: mount it with umask=077, or name another place.",
            )
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _not_written(path: str, error: OSError) -> StorageError:
    return StorageError(f"{path} can't be written on the controller: {error.strerror}.", hint="What was there is kept.")
