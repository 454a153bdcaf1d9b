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
import posixpath
import stat
import tarfile
import tempfile
import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput, StorageError

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
_SHARED_MEMORY = "/dev/shm"
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


def load(path: str) -> ConfigBackup:
    """The backup at a path on this host: the tar file, the database alone, or the folder that holds both.

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
                return ConfigBackup(_disks(_limited(file, MOST_DATABASE, path), path))
            return _from_tar(file, path)
    except OSError as error:
        raise StorageError(f"The backup {path} can't be read: {error.strerror or error}.") from None


def _opener(path: str, flags: int) -> int:
    # Opening a named pipe must not wait for a writer.
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)


def _from_folder(path: str) -> ConfigBackup:
    place = os.path.join(path, DATABASE)
    try:
        with open(place, "rb", opener=_opener) as file:
            disks = _disks(_limited(file, MOST_DATABASE, place), place)
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


def _from_tar(file: t.BinaryIO, path: str) -> ConfigBackup:
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
    return ConfigBackup(_disks(database, path), keys)


def _limited(file: t.IO[bytes], most: int, name: str) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise BadInput(f"{name} has more than {most} bytes; it is no part of a backup of a configuration.")
    return content


def _no_backup(path: str) -> BadInput:
    return BadInput(
        f"There is no {DATABASE} in {path}.",
        hint="Wanted is the file that TrueNAS CORE saves under System, General, Save Config, best with 'Export Pool "
        "Encryption Keys', or the folder /data of the NAS.",
    )


def _disks(content: bytes, name: str) -> tuple[BackedUpDisk, ...]:
    if not content.startswith(_SQLITE):
        raise BadInput(f"{DATABASE} in {name} is no database of SQLite.")
    import sqlite3

    try:
        with contextlib.closing(_connect(content)) as database:
            rows = database.execute(_QUERY).fetchall()
    except sqlite3.Error as error:
        raise BadInput(
            f"The database in {name} has no table of GELI disks ({error}).",
            hint="SCALE drops it when it takes over a configuration: wanted is a backup of FreeNAS or TrueNAS CORE.",
        ) from None
    return tuple(_disk(*row) for row in rows)


def _connect(content: bytes) -> sqlite3.Connection:
    """The database in memory: it holds secrets of the NAS, so no copy is made on a disk.

    :raises StorageError: this host can't do that
    """
    import sqlite3

    database = sqlite3.connect(":memory:")
    if hasattr(database, "deserialize"):
        database.deserialize(content)
        return database
    database.close()
    # Before Python 3.11 a database is read from a file only; one in shared memory is on no disk.
    if not os.path.ismount(_SHARED_MEMORY):
        raise StorageError(
            f"This Python reads a database only from a file, and {_SHARED_MEMORY} is not there to hold one.",
            hint="Take Python 3.11 or later, or unpack the backup and try its key files with 'keyfile'.",
        )
    with tempfile.TemporaryDirectory(dir=_SHARED_MEMORY) as folder:
        place = os.path.join(folder, DATABASE)
        with open(place, "wb") as file:
            file.write(content)
        database = sqlite3.connect(f"file:{place}?mode=ro&immutable=1", uri=True)
        try:
            # Opens the file, which stays open when its name is gone.
            database.execute("PRAGMA schema_version")
        except sqlite3.Error:
            database.close()
            raise
        return database


def _disk(provider: t.Any, pool: t.Any, guid: t.Any, encrypt: t.Any, key: t.Any) -> BackedUpDisk:
    name = str(provider or "").lower()
    if name.startswith("/dev/"):
        name = name[len("/dev/") :]
    if name.endswith(".eli"):
        name = name[: -len(".eli")]
    return BackedUpDisk(name, str(pool or ""), str(guid or ""), encrypt == 2, str(key or ""))
