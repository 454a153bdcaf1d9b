# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key files on the host: found, read, and made durable before ZFS is told to use them."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import typing as t
from dataclasses import dataclass, field

from ..command import Command, Runner
from ..errors import BadInput, Refused, StorageError
from ..secrets import PASSPHRASE_MAX_BYTES, Key, generate, parse_file
from .names import key_file_name

DEFAULT_FOLDER = "/etc/zfs/keys"
AUTO = "auto"

_FOLDER_MODE = 0o700
_FILE_MODE = 0o400
# More than the longest passphrase with its newline: enough to tell "too long", little enough for a wrong path.
_READ_LIMIT = PASSPHRASE_MAX_BYTES * 4
_URL_WITH_CREDENTIALS = re.compile(r"(?P<scheme>https?://)[^/?#]*@")
_DF_LINE = re.compile(r"(?P<source>.+?)\s+\d+\s+-?\d+\s+-?\d+\s+\S+\s+(?P<mountpoint>/.*)")


@dataclass(frozen=True)
class KeyFile:
    """What is known of one key file.

    ``fault`` tells in words why its content is not a key; ``source`` is the filesystem it lies on, for ZFS the name
    of the dataset; ``exposed`` that others than its owner may read it.
    """

    path: str
    exists: bool
    key: Key | None = field(default=None, repr=False)
    fault: str = ""
    source: str = ""
    exposed: bool = False

    @property
    def location(self) -> str:
        return location_of(self.path)


def path_for(option: str, dataset: str, folder: str = DEFAULT_FOLDER) -> str:
    """The absolute path meant by ``key.file``.

    :raises BadInput: a relative path, or one that could not be written in a keylocation
    """
    if option == AUTO:
        return os.path.join(folder, key_file_name(dataset))
    if not option.startswith("/") or os.path.normpath(option) == "/":
        raise BadInput(f"key.file is '{option}'; wanted is an absolute path of a file, or 'auto'.")
    if any(ord(character) < 32 for character in option):
        raise BadInput("key.file holds a control character.")
    return os.path.normpath(option)


def location_of(path: str) -> str:
    """The keylocation for a path; ZFS takes it literally, without any escapes."""
    return "file://" + path


def path_of(location: str) -> str | None:
    """The path in a ``file://`` keylocation; ``None`` for every other location."""
    if not location.startswith("file:///"):
        return None
    return location[len("file://") :]


def describe_location(location: str) -> str:
    """A keylocation for people, without the credentials that a URL may hold."""
    match = _URL_WITH_CREDENTIALS.match(location)
    return match.group("scheme") + location[match.end() :] if match else location


def read(runner: Runner, path: str, key_format: str) -> KeyFile:
    """Read a key file as ZFS would; what is wrong with it is told in ``fault``, not raised."""
    source = _filesystem_of(runner, path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return KeyFile(path, False, source=source)
    except OSError as error:
        return KeyFile(path, True, fault=f"it can't be read ({error.strerror})", source=source)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return KeyFile(path, True, fault="it is not a regular file", source=source)
        content = os.read(descriptor, _READ_LIMIT)
    except OSError as error:
        return KeyFile(path, True, fault=f"it can't be read ({error.strerror})", source=source)
    finally:
        os.close(descriptor)
    exposed = bool(status.st_mode & 0o077)
    try:
        key = parse_file(key_format, content, f"The key file {path}")
    except BadInput as error:
        return KeyFile(path, True, fault=str(error), source=source, exposed=exposed)
    return KeyFile(path, True, key, source=source, exposed=exposed)


def store(path: str, key: Key) -> None:
    """Write a new key file, durable before this returns: content, name and folder are all synced.

    :raises Refused: the file exists; a key file is never overwritten, since it may hold the only copy of a key
    :raises StorageError: the folder or file can't be written
    """
    folder = os.path.dirname(path)
    try:
        _make_folder(folder)
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                os.fchmod(descriptor, _FILE_MODE)
                handle.write(key.file_content())
                handle.flush()
                os.fsync(descriptor)
            _link_new(temporary, path)
        finally:
            os.unlink(temporary)
        _sync_folder(folder)
    except OSError as error:
        raise StorageError(f"The key file {path} can't be written: {error.strerror}.") from error


def _link_new(temporary: str, path: str) -> None:
    """Give a finished file its name; unlike a rename, that fails when the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise Refused(f"The key file {path} already exists and is never overwritten.") from None


def store_work(path: str, key: Key | None, key_format: str) -> t.Callable[[Runner], None]:
    """The action that makes a key file, with a new random key unless one is given."""

    def work(runner: Runner) -> None:
        store(path, generate(key_format) if key is None else key)

    return work


def _make_folder(folder: str) -> None:
    missing: list[str] = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for name in reversed(missing):
        os.mkdir(name, _FOLDER_MODE)
        _sync_folder(os.path.dirname(name))


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _filesystem_of(runner: Runner, path: str) -> str:
    """What is mounted where a file lies or will lie; for ZFS that is the name of the dataset."""
    path = os.path.realpath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    # POSIX form, the same on Linux and FreeBSD; needed, since Linux' mount table is not in the standard library.
    result = runner.run(Command(("df", "-P", path), timeout=60), ok=(0, 1))
    match = _DF_LINE.fullmatch(result.stdout.strip().split("\n")[-1])
    if match is None:
        raise StorageError(
            f"On which filesystem {path} lies is not to be found out: 'df -P' printed {result.stdout!r}. A key file "
            "must not lie inside the pool that it opens, so nothing was done."
        )
    return match.group("source")
