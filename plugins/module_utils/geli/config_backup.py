# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup of the configuration of FreeNAS or TrueNAS CORE tells of GELI: the pool of each disk, and its key.

A backup with the pool encryption keys is a tar file with ``freenas-v1.db`` and ``geli/<uuid>.key``; on the NAS itself
both lie in ``/data``. SCALE drops the tables when it takes such a database over, so it has to be a backup of CORE.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import posixpath
import stat
import tarfile
import tempfile
import typing as t
from dataclasses import dataclass, field

from ..command import Runner
from ..errors import BadInput, StorageError
from ..filesystem import memory_folder

if t.TYPE_CHECKING:
    import sqlite3

DATABASE = "freenas-v1.db"
KEYS = "geli"
# Far more than any NAS has; bytes, bytes and files.
MOST_DATABASE = 64 << 20
MOST_KEY_FILE = 1 << 20
_MOST_MEMBERS = 10_000

_SQLITE = b"SQLite format 3\0"
_GPTID = "gptid/"
_QUERY = (
    "SELECT d.encrypted_provider, v.vol_name, v.vol_guid, v.vol_encrypt, v.vol_encryptkey "
    "FROM storage_encrypteddisk d JOIN storage_volume v ON v.id = d.encrypted_volume_id ORDER BY d.id"
)


@dataclass(frozen=True)
class BackedUpDisk:
    """A GELI disk as the configuration knows it."""

    # As on FreeBSD, without /dev/: gptid/<uuid>, or a name of a partition.
    provider: str
    pool: str
    pool_guid: str
    # Whether the pool had a passphrase besides the key file.
    passphrase: bool
    # Name of the key file without .key.
    key: str


@dataclass(frozen=True)
class ConfigBackup:
    """The GELI disks of a NAS, and the key files by name without .key."""

    disks: tuple[BackedUpDisk, ...] = ()
    keys: t.Mapping[str, bytes] = field(default_factory=dict, repr=False)
    # The folder with the key files, if they are not in a tar file.
    folder: str = ""

    def path_of(self, key: str) -> str:
        """The path of a key file on this host; empty if it has none."""
        return os.path.join(self.folder, f"{key}.key") if self.folder else ""

    def disk(self, partuuid: str, names: t.Iterable[str]) -> BackedUpDisk | None:
        """What is known of a disk with these names."""
        wanted = {f"{_GPTID}{partuuid}"} if partuuid else set()
        wanted.update(name[len("/dev/") :].lower() for name in names if name.startswith("/dev/"))
        return next((disk for disk in self.disks if disk.provider in wanted), None)


def load(path: str, runner: Runner) -> ConfigBackup:
    """The backup at a path on this host: the tar file, the database alone, or the folder that holds both.

    The database holds secrets of the NAS, such as the hashes of passwords. One that is a file is read where it lies.
    One in a tar file is unpacked in memory only, so that it gets onto no disk, from which nothing is ever sure to go
    away again.

    :raises BadInput: it is none of these, or of a system without GELI
    :raises StorageError: it can't be read
    """
    if not path.startswith("/"):
        raise BadInput(f"config_backup is '{path}'; wanted is an absolute path on the host.")
    try:
        if os.path.isdir(path):
            return _from_folder(path)
        with open(path, "rb", opener=_opener) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadInput(f"{path} is no regular file and no folder.")
            head = file.read(len(_SQLITE))
            file.seek(0)
            if head == _SQLITE:
                return ConfigBackup(_disks_of(file, path))
            return _from_tar(file, path, runner)
    except OSError as error:
        raise StorageError(f"The backup {path} can't be read: {error.strerror or error}.") from None


def _opener(path: str, flags: int) -> int:
    # Opening a named pipe must not wait for a writer.
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)


def _from_folder(path: str) -> ConfigBackup:
    place = os.path.join(path, DATABASE)
    try:
        with open(place, "rb", opener=_opener) as file:
            disks = _disks_of(file, place)
    except FileNotFoundError:
        raise _no_backup(path) from None
    keys: dict[str, bytes] = {}
    folder = os.path.join(path, KEYS)
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            if name.endswith(".key"):
                with open(os.path.join(folder, name), "rb", opener=_opener) as file:
                    keys[name[: -len(".key")]] = _limited(file, MOST_KEY_FILE, os.path.join(folder, name))
    return ConfigBackup(disks, keys, folder)


def _from_tar(file: t.BinaryIO, path: str, runner: Runner) -> ConfigBackup:
    database: bytes | None = None
    keys: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            for number, member in enumerate(archive):
                if number >= _MOST_MEMBERS:
                    raise BadInput(f"{path} holds more than {_MOST_MEMBERS} files; it is no backup of a configuration.")
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                name = posixpath.normpath(member.name)
                folder, base = posixpath.split(name)
                if base == DATABASE:
                    database = _limited(content, MOST_DATABASE, name)
                elif posixpath.basename(folder) == KEYS and base.endswith(".key"):
                    keys[base[: -len(".key")]] = _limited(content, MOST_KEY_FILE, name)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BadInput(f"{path} is no tar file, or a damaged one: {error}.") from None
    if database is None:
        raise _no_backup(path)
    if not database.startswith(_SQLITE):
        raise _no_database(path)
    return ConfigBackup(_disks(lambda: _unpacked(database, path, runner), path), keys)


def _limited(file: t.IO[bytes], most: int, name: str) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise _too_long(name, most)
    return content


def _too_long(name: str, most: int) -> BadInput:
    return BadInput(f"{name} has more than {most} bytes; it is no part of a backup of a configuration.")


def _no_backup(path: str) -> BadInput:
    return BadInput(
        f"There is no {DATABASE} in {path}.",
        hint="Wanted is the file that TrueNAS CORE saves under System, General, Save Config, best with 'Export Pool "
        "Encryption Keys', or the folder /data of the NAS.",
    )


def _no_database(name: str) -> BadInput:
    return BadInput(f"{DATABASE} in {name} is no database of SQLite.")


def _disks_of(file: t.BinaryIO, path: str) -> tuple[BackedUpDisk, ...]:
    """The disks in a database that is a file, which is open."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise BadInput(f"{path} is no regular file.")
    if status.st_size > MOST_DATABASE:
        raise _too_long(path, MOST_DATABASE)
    if file.read(len(_SQLITE)) != _SQLITE:
        raise _no_database(path)
    return _disks(lambda: _opened(path), path)


def _disks(connect: t.Callable[[], sqlite3.Connection], name: str) -> tuple[BackedUpDisk, ...]:
    import sqlite3

    try:
        with contextlib.closing(connect()) as database:
            rows = database.execute(_QUERY).fetchall()
    except sqlite3.Error as error:
        raise BadInput(
            f"The database in {name} has no table of GELI disks ({error}).",
            hint="SCALE drops it when it takes over a configuration: wanted is a backup of FreeNAS or TrueNAS CORE.",
        ) from None
    return tuple(_disk(*row) for row in rows)


def _opened(path: str) -> sqlite3.Connection:
    """A database that is a file. Nothing is written to it or beside it, and it is not locked.

    It may be the one of a NAS that runs.
    """
    import sqlite3

    database = sqlite3.connect(f"{pathlib.Path(path).as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        # Opens the file, which stays open when its name is gone.
        database.execute("PRAGMA schema_version")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _unpacked(content: bytes, name: str, runner: Runner) -> sqlite3.Connection:
    """A database in memory.

    :raises StorageError: this host can't do that
    """
    import sqlite3

    database = sqlite3.connect(":memory:")
    if hasattr(database, "deserialize"):
        database.deserialize(content)
        return database
    database.close()
    # Before Python 3.11 a database is read from a file only; one in memory is on no disk.
    place = memory_folder(runner)
    if not place:
        raise StorageError(
            f"This Python reads the database in {name} only as a file, and no filesystem in memory is there to hold "
            "one. It has secrets of the NAS in it, so it is unpacked onto no disk.",
            hint="On the NAS itself give its folder /data in 'config_backup'. Elsewhere take Python 3.11 or later, or "
            "unpack the backup yourself and give the folder: 'mkdir -m 700 DIR && tar -xf FILE -C DIR'.",
        )
    # Only root gets into the folder. It is gone before the first row is read, and what a kill may leave is in memory.
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = os.path.join(folder, DATABASE)
        with open(path, "wb") as file:
            file.write(content)
        return _opened(path)


def _disk(provider: t.Any, pool: t.Any, guid: t.Any, encrypt: t.Any, key: t.Any) -> BackedUpDisk:
    name = str(provider or "").lower()
    if name.startswith("/dev/"):
        name = name[len("/dev/") :]
    if name.endswith(".eli"):
        name = name[: -len(".eli")]
    return BackedUpDisk(name, str(pool or ""), str(guid or ""), encrypt == 2, str(key or ""))
