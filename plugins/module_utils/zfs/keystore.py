# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key files on the host: found, read, and made durable before ZFS is told to use them."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
import typing as t
from dataclasses import dataclass, field, replace

from ..command import Runner
from ..durable import make_folder, sync_folder
from ..errors import BadInput, Refused, StorageError
from ..filesystem import df, df_source, memory_of
from ..secrets import PASSPHRASE_MAX_BYTES, Key, generate, parse_file
from .names import key_file_name

DEFAULT_FOLDER = "/etc/zfs/keys"
AUTO = "auto"
_VOLUMES = "/dev/zvol/"

_FILE_MODE = 0o400
# More than the longest passphrase with its newline: enough to tell "too long", little enough for a wrong path.
_READ_LIMIT = PASSPHRASE_MAX_BYTES * 4
_ENDING = ".key"
# What a key file is called while it is written, where a file needs a name for that: by its process.
_UNFINISHED = re.compile(r"\.nasops-([0-9]+)-[a-z0-9_]{8}")
_URL_WITH_CREDENTIALS = re.compile(r"(?P<scheme>https?://)[^/?#]*@")

# Two paths with anything in common here lead to one file.
Identity = frozenset[t.Union[str, tuple[int, int]]]


@dataclass(frozen=True)
class KeyFile:
    """What is known of one key file.

    ``fault`` tells in words why its content is not a key; ``source`` is the filesystem it lies on, for ZFS the name
    of the dataset, also for a filesystem on a volume; ``memory`` what of the host's memory that is, empty for what
    outlasts a restart or can't be told; ``exposed`` that others than its owner may read it; ``sealed`` that it has the
    mode and owner of the files that :func:`store` makes.
    """

    path: str
    exists: bool
    key: Key | None = field(default=None, repr=False)
    fault: str = ""
    source: str = ""
    memory: str = ""
    exposed: bool = False
    sealed: bool = False

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


def named_after(path: str, pool: str) -> bool:
    """Whether a key file, or its successor, has the name that ``auto`` gives to the key of a dataset of that pool."""
    name, own = os.path.basename(path), key_file_name(pool)
    name = name.removesuffix(NEXT)
    return name == own or name.startswith(own[: -len(_ENDING)] + "%2F")


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
    return read_many(runner, [(path, key_format, True)])[0]


def read_many(runner: Runner, wanted: t.Sequence[tuple[str, str, bool]]) -> list[KeyFile]:
    """Read many key files, each given as path, key format, and whether the key is to be set with it.

    A key that is only to be loaded may be a passphrase shorter than what ZFS now asks for. One process is started
    for each filesystem the files lie on.
    """
    places: dict[int, tuple[str, str]] = {}
    found: list[KeyFile] = []
    for path, key_format, strict in wanted:
        place = _existing(path)
        device = os.stat(place).st_dev
        if device not in places:
            source = _filesystem_of(runner, place)
            places[device] = (volume_of(source), memory_of(runner, place, source))
        source, memory = places[device]
        found.append(replace(read_content(path, key_format, strict), source=source, memory=memory))
    return found


def read_content(path: str, key_format: str, strict: bool = True) -> KeyFile:
    """Read a key file where it does not matter on which filesystem it lies: no process is started for that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return KeyFile(path, False)
    except OSError as error:
        return KeyFile(path, True, fault=f"it can't be read ({error.strerror})")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return KeyFile(path, True, fault="it is not a regular file")
        content = os.read(descriptor, _READ_LIMIT)
    except OSError as error:
        return KeyFile(path, True, fault=f"it can't be read ({error.strerror})")
    finally:
        os.close(descriptor)
    exposed = bool(status.st_mode & 0o077)
    sealed = stat.S_IMODE(status.st_mode) == _FILE_MODE and status.st_uid == os.geteuid()
    try:
        key = _parse(key_format, content, f"The key file {path}", strict)
    except BadInput as error:
        return KeyFile(path, True, fault=str(error), exposed=exposed, sealed=sealed)
    return KeyFile(path, True, key, exposed=exposed, sealed=sealed)


def _parse(key_format: str, content: bytes, where: str, strict: bool) -> Key:
    if strict or key_format == "raw":
        return parse_file(key_format, content, where)
    # Only the first line counts.
    first = content.split(b"\n", 1)[0]
    if key_format != "passphrase":
        return parse_file(key_format, first, where)
    # Lengths are checked by ZFS when a passphrase is set, not when it is loaded.
    passphrase = first
    if not passphrase or b"\0" in passphrase:
        raise BadInput(f"{where} holds no passphrase.")
    return Key("passphrase", passphrase)


def refuse_memory(name: str, file: KeyFile | None, where: str = "", what: str = "new random key") -> None:
    """A random key, which is nowhere else, must outlast a restart. One that was given is known to who gave it.

    :param where: the path in words, if it is not on this host
    :param what: what would be in the file
    :raises Refused: the file is, or would be, in memory
    """
    if file is not None and file.memory:
        raise Refused(
            f"The {what} of '{name}' would exist in {where or file.path} only. That is in memory "
            f"({file.memory}), which is empty after a restart, and then nobody could open '{name}' again.",
            hint="Name a file on a disk in key.file. TrueNAS CORE makes /etc anew at each start, and keeps what is "
            f"below /data: 'file: /data/keys/{key_file_name(name)}'. Or give the key as key.value, and keep it too.",
        )


def store(path: str, key: Key) -> None:
    """Write a new key file, durable before this returns: content, name and folder are all synced.

    :raises Refused: the file exists; a key file is never overwritten, since it may hold the only copy of a key
    :raises StorageError: the folder or file can't be written
    """
    folder = os.path.dirname(path)
    try:
        make_folder(folder)
        if not _store_unnamed(folder, path, key):
            _store_renamed(folder, path, key)
        sync_folder(folder)
    except OSError as error:
        raise StorageError(f"The key file {path} can't be written: {error.strerror}.") from error


def _store_unnamed(folder: str, path: str, key: Key) -> bool:
    """Write a file that has no name until it is finished, so that nothing is left of it if the run is killed.

    False where the system has no such files (FreeBSD, some filesystems).
    """
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag:
        return False
    try:
        descriptor = os.open(folder, flag | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE)
    except OSError:
        return False
    with os.fdopen(descriptor, "wb") as handle:
        _fill(handle, key)
        # With a folder to start from, Python follows the link to the file itself.
        start = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=start)
        except FileExistsError:
            raise _taken(path) from None
        except FileNotFoundError:
            return False
        finally:
            os.close(start)
    return True


def _store_renamed(folder: str, path: str, key: Key) -> None:
    _remove_unfinished(folder)
    descriptor, temporary = tempfile.mkstemp(prefix=f".nasops-{os.getpid()}-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            _fill(handle, key)
        # Unlike a rename, a link fails when the name is taken.
        os.link(temporary, path)
    except FileExistsError:
        raise _taken(path) from None
    finally:
        os.unlink(temporary)


def _remove_unfinished(folder: str) -> None:
    """Remove what runs that were killed left of files that were to get another name.

    A file that is being written has the number of a process that is there.
    """
    for name in os.listdir(folder):
        found = _UNFINISHED.fullmatch(name)
        if found is not None and not _runs(int(found[1])):
            # Another thread may be faster.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _fill(handle: t.BinaryIO, key: Key) -> None:
    os.fchmod(handle.fileno(), _FILE_MODE)
    handle.write(key.file_content())
    handle.flush()
    os.fsync(handle.fileno())


def _taken(path: str) -> Refused:
    return Refused(f"The key file {path} already exists and is never overwritten.")


def store_work(path: str, key: Key | None, key_format: str) -> t.Callable[[Runner], None]:
    """The action that makes a key file, with a new random key unless one is given."""

    def work(runner: Runner) -> None:
        store(path, generate(key_format) if key is None else key)

    return work


# A rotation writes the next key beside the one in use, and gives it that one's name once ZFS has taken it.
NEXT = ".new"
# A second name for the file of a key that goes out of use: the mark that it may be removed once the change is proven.
RETIRED = ".old"


def key_files_for(path: str) -> tuple[str, ...]:
    """Where the key may be for which ZFS looks at a path.

    A rotation that was interrupted left it in the successor of that file; or the path is a successor, which got its
    name already.
    """
    return tuple(dict.fromkeys((path, path + NEXT, path.removesuffix(NEXT))))


def names_in(folder: str) -> frozenset[str]:
    """The names of the files in the keystore; none if there is no keystore yet."""
    try:
        return frozenset(os.listdir(folder))
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise StorageError(f"The keystore {folder} can't be read: {error.strerror}.") from error


def promote(path: str) -> None:
    """Let the next key take the name of the one it follows, at once and durably.

    :raises StorageError: the folder can't be written
    """
    try:
        os.replace(path + NEXT, path)
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise StorageError(f"The key file {path + NEXT} can't be renamed to {path}: {error.strerror}.") from error


def identify(path: str) -> Identity:
    """What a file is whatever it is called: where it lies with all links followed, and which file that is."""
    place = os.path.realpath(path)
    try:
        status = os.stat(place)
    except OSError:
        return frozenset({place})
    return frozenset({place, (status.st_dev, status.st_ino)})


def mark_retired(path: str, mark: str) -> None:
    """Give the file of a key that goes out of use its second name, so that an interrupted run can be finished.

    :raises StorageError: the folder can't be written
    """
    try:
        if os.path.exists(mark):
            if os.path.samefile(path, mark):
                return
            os.unlink(mark)
        os.link(path, mark)
        sync_folder(os.path.dirname(mark))
    except OSError as error:
        raise StorageError(f"The key file {path} can't be marked as {mark}: {error.strerror}.") from error


def remove_retired(mark: str, paths: t.Sequence[str] = ()) -> None:
    """Remove a key file that was marked; the mark goes last.

    :param paths: the names of the file that are out of use; one that has become another file since is left alone
    :raises StorageError: the folder can't be written
    """
    folder = os.path.dirname(mark)
    try:
        status = os.lstat(mark)
        for path in paths:
            # Another branch of the same plan may remove its own files meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(path), status):
                    os.unlink(path)
        sync_folder(folder)
        os.unlink(mark)
        sync_folder(folder)
    except OSError as error:
        raise StorageError(f"The retired key file {mark} can't be removed: {error.strerror}.") from error


def remove(path: str) -> None:
    """Remove a file that holds no key in use.

    :raises StorageError: the folder can't be written
    """
    try:
        os.unlink(path)
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise StorageError(f"The file {path} can't be removed: {error.strerror}.") from error


def _existing(path: str) -> str:
    """The file itself, or the nearest folder above it that is there."""
    path = os.path.realpath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def volume_of(source: str) -> str:
    """The volume of ZFS behind a device node; for whatever else is mounted, that itself.

    FreeBSD mounts ``/dev/zvol/...``; what is a partition there can't be told by its name. Linux mounts ``/dev/zd0``, to
    which udev makes links of such names, and ``/dev/zd0p1`` for a partition.
    """
    if source.startswith(_VOLUMES):
        return source[len(_VOLUMES) :]
    if not re.fullmatch(r"/dev/zd[0-9]+(p[0-9]+)?", source):
        return source
    for folder, _folders, links in os.walk(_VOLUMES):
        for link in links:
            path = os.path.join(folder, link)
            if os.path.realpath(path) == source:
                name = os.path.relpath(path, _VOLUMES).replace("+", " ")
                return re.sub(r"-part[0-9]+$", "", name) if "p" in source[len("/dev/zd") :] else name
    return source


def _filesystem_of(runner: Runner, path: str) -> str:
    """What is mounted where a file lies; for ZFS that is the name of the dataset."""
    result = runner.run(df(path), ok=(0, 1))
    source = df_source(result.stdout)
    if not source:
        raise StorageError(
            f"On which filesystem {path} lies is not to be found out: 'df -P' printed {result.stdout!r}. A key file "
            "must not lie inside the pool that it opens, so nothing was done."
        )
    return source
