# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrapping keys through libzfs_core, the stable C interface of OpenZFS: no process, no argument, no pipe.

A thousand keys take a thousand system calls here, and a thousand processes through the program zfs. Signatures and
error numbers are those of ``libzfs_core.h``; what the properties of a new key are is read off ``zfs change-key``.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets as random_source
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..errors import Refused, StorageError
from ..secrets import KEY_BYTES, Key
from .keys import Busy, RootKey, WrongKey

# Of OpenZFS 2.x on Linux, and in the base system of FreeBSD.
_CORE_NAMES = ("libzfs_core.so.3", "libzfs_core.so.2", "libzfs_core.so")
_NVPAIR_NAMES = ("libnvpair.so.3", "libnvpair.so.2", "libnvpair.so")

_UNIQUE_NAMES = 1
_NEW_KEY, _INHERIT = 2, 3
_KEY_FORMATS = {"raw": 1, "hex": 2, "passphrase": 3}
DEFAULT_ITERATIONS = 350000
_SALT_BYTES = 8


class CoreLibrary(t.Protocol):
    """The calls that are needed, each with the error number it returns, 0 for success."""

    def load_key(self, name: str, dry_run: bool, wrapping_key: bytes) -> int:
        """Load a wrapping key, or only see whether it fits."""

    def unload_key(self, name: str) -> int:
        """Forget a wrapping key."""

    def change_key(
        self, name: str, command: int, properties: t.Mapping[str, int | str], wrapping_key: bytes | None
    ) -> int:
        """Wrap the master key anew."""


class NativeLibrary:
    """libzfs_core of this host.

    :raises OSError: it is not there, or /dev/zfs can't be opened
    :raises AttributeError: it is older than encryption
    """

    def __init__(self) -> None:
        core, pairs = _load(_CORE_NAMES), _load(_NVPAIR_NAMES)
        text, number, handle = ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p
        self._load_key = _function(core.lzc_load_key, text, ctypes.c_int, handle, ctypes.c_uint)
        self._unload_key = _function(core.lzc_unload_key, text)
        self._change_key = _function(core.lzc_change_key, text, number, handle, handle, ctypes.c_uint)
        self._alloc = _function(pairs.nvlist_alloc, ctypes.POINTER(handle), ctypes.c_uint, ctypes.c_int)
        self._add_number = _function(pairs.nvlist_add_uint64, handle, text, number)
        self._add_text = _function(pairs.nvlist_add_string, handle, text, text)
        self._free = _function(pairs.nvlist_free, handle)
        self._free.restype = None
        status = _function(core.libzfs_core_init)()
        if status:
            raise OSError(status, os.strerror(status))

    def load_key(self, name: str, dry_run: bool, wrapping_key: bytes) -> int:
        buffer = (ctypes.c_uint8 * len(wrapping_key)).from_buffer_copy(wrapping_key)
        try:
            return int(self._load_key(name.encode("utf-8"), int(dry_run), buffer, len(wrapping_key)))
        finally:
            ctypes.memset(buffer, 0, len(wrapping_key))

    def unload_key(self, name: str) -> int:
        return int(self._unload_key(name.encode("utf-8")))

    def change_key(
        self, name: str, command: int, properties: t.Mapping[str, int | str], wrapping_key: bytes | None
    ) -> int:
        pairs = ctypes.c_void_p()
        size = len(wrapping_key) if wrapping_key is not None else 0
        buffer = (ctypes.c_uint8 * size).from_buffer_copy(wrapping_key) if wrapping_key is not None else None
        status = int(self._alloc(ctypes.byref(pairs), _UNIQUE_NAMES, 0))
        try:
            for word, value in properties.items():
                if isinstance(value, int):
                    status = status or int(self._add_number(pairs, word.encode("ascii"), value))
                else:
                    status = status or int(self._add_text(pairs, word.encode("ascii"), value.encode("utf-8")))
            return status or int(self._change_key(name.encode("utf-8"), command, pairs, buffer, size))
        finally:
            self._free(pairs)
            if buffer is not None:
                ctypes.memset(buffer, 0, size)


def _load(names: t.Sequence[str]) -> ctypes.CDLL:
    problem = OSError(errno.ENOENT, f"none of these libraries: {', '.join(names)}")
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            problem = error
    raise problem


def _function(function: t.Any, *arguments: t.Any) -> t.Any:
    function.argtypes = list(arguments)
    function.restype = ctypes.c_int
    return function


class LibraryKeys:
    """Keys through libzfs_core. A wrapping key that was derived from a passphrase is not derived again."""

    name = "libzfs_core"

    def __init__(self, library: CoreLibrary) -> None:
        self._library = library
        self._derived: dict[RootKey, bytes] = {}

    def try_all(self, candidates: t.Sequence[RootKey]) -> list[bool | StorageError]:
        self._derive([one for one in candidates if one.key.format == "passphrase"])
        return [self._try(one) for one in candidates]

    def _try(self, candidate: RootKey) -> bool | StorageError:
        try:
            status = self._library.load_key(candidate.root, True, self._wrapping_key(candidate))
        except StorageError as error:
            return error
        if status == 0:
            return True
        return False if status == errno.EACCES else _error("try a key of", candidate.root, status)

    def load(self, candidate: RootKey) -> None:
        status = self._library.load_key(candidate.root, False, self._wrapping_key(candidate))
        if status == errno.EACCES:
            raise WrongKey(f"The key is not the one that opens '{candidate.root}'.")
        if status not in (0, errno.EEXIST):
            raise _error("load the key of", candidate.root, status)

    def unload(self, root: str) -> None:
        status = self._library.unload_key(root)
        if status == errno.EBUSY:
            raise Busy(f"'{root}' is busy.")
        # What is not loaded is told by EACCES.
        if status not in (0, errno.EACCES):
            raise _error("unload the key of", root, status)

    def change(self, root: str, key: Key, location: str, iterations: int | None) -> None:
        properties: dict[str, int | str] = {"keyformat": _KEY_FORMATS[key.format], "keylocation": location}
        if key.format == "passphrase":
            rounds, salt = iterations or DEFAULT_ITERATIONS, random_source.randbits(8 * _SALT_BYTES)
            properties.update(pbkdf2iters=rounds, pbkdf2salt=salt)
            candidate = RootKey(root, key, rounds, salt)
        else:
            candidate = RootKey(root, key)
        status = self._library.change_key(root, _NEW_KEY, properties, self._wrapping_key(candidate))
        if status:
            raise _error("change the key of", root, status)

    def inherit(self, root: str) -> None:
        status = self._library.change_key(root, _INHERIT, {}, None)
        if status:
            raise _error("let a parent's key open", root, status)

    def _wrapping_key(self, candidate: RootKey) -> bytes:
        key = candidate.key
        if key.format == "raw":
            return key.material
        if key.format == "hex":
            return bytes.fromhex(key.material.decode("ascii"))
        if candidate not in self._derived:
            self._derived[candidate] = derive(candidate)
        return self._derived[candidate]

    def _derive(self, candidates: t.Sequence[RootKey]) -> None:
        """All at once: PBKDF2 is what takes time, and Python lets other threads run meanwhile."""
        new = [one for one in dict.fromkeys(candidates) if one not in self._derived and _derivable(one)]
        if not new:
            return
        with ThreadPoolExecutor(min(len(new), os.cpu_count() or 1)) as pool:
            self._derived.update(zip(new, pool.map(derive, new)))


def _derivable(candidate: RootKey) -> bool:
    return candidate.iterations is not None and candidate.salt is not None


def derive(candidate: RootKey) -> bytes:
    """The wrapping key of a passphrase: PBKDF2 with HMAC-SHA1, as libzfs does it.

    :raises StorageError: the salt of the encryption root is not known
    """
    if candidate.iterations is None or candidate.salt is None:
        raise StorageError(f"The salt of '{candidate.root}' could not be read, so no passphrase can be tried on it.")
    salt = candidate.salt.to_bytes(_SALT_BYTES, "little")
    return hashlib.pbkdf2_hmac("sha1", candidate.key.material, salt, candidate.iterations, KEY_BYTES)


_REASONS: t.Mapping[int, tuple[str, str]] = {
    errno.EACCES: ("its key is not loaded", "Unlock it first."),
    errno.EBUSY: ("it is in use", ""),
    errno.EINVAL: ("it is no encryption root, or the key does not suit it", ""),
    errno.EIO: ("ZFS can't read its key from the disks (I/O error)", "See 'zpool status -v'."),
    errno.ENOENT: ("it does not exist", ""),
    errno.ENOTSUP: ("its encryption is not supported by this version of ZFS", ""),
    errno.EPERM: ("permission denied", "Set 'become: true' for the task."),
    errno.EROFS: ("its pool is read-only", ""),
    errno.ENXIO: ("its pool is not available", "See 'zpool status'."),
}


def _error(what: str, name: str, status: int) -> StorageError:
    reason, hint = _REASONS.get(status, (os.strerror(status), ""))
    kind = Refused if status in (errno.EBUSY, errno.EACCES) else StorageError
    return kind(f"Can't {what} '{name}': {reason}.", hint=hint, errno=status)
