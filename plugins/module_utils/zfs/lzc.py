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

from ..errors import StorageError
from ..parallel import side_by_side
from ..secrets import KEY_BYTES, Key
from .key_errors import CHANGE, INHERIT, LOAD, TRY, UNLOAD, from_number
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
        # Passphrases first: they take a thousand times as long, and should not be left to one thread at the end.
        different = sorted(dict.fromkeys(candidates), key=lambda one: one.key.format != "passphrase")
        answers = dict(zip(different, side_by_side(self._try, different)))
        return [answers[one] for one in candidates]

    def _try(self, candidate: RootKey) -> bool | StorageError:
        try:
            status = self._library.load_key(candidate.root, True, self._wrapping_key(candidate))
        except StorageError as error:
            return error
        if status == 0:
            return True
        return False if status == errno.EACCES else from_number(TRY, candidate.root, status)

    def load(self, candidate: RootKey) -> None:
        status = self._library.load_key(candidate.root, False, self._wrapping_key(candidate))
        if status == errno.EACCES:
            raise WrongKey(f"The key is not the one that opens '{candidate.root}'.", errno=status)
        if status not in (0, errno.EEXIST):
            raise from_number(LOAD, candidate.root, status)

    def unload(self, root: str) -> None:
        status = self._library.unload_key(root)
        if status == errno.EACCES:
            # That no key is loaded, or that it is no encryption root: no key at all fits an encryption root just as
            # well, but only one of those can be asked for it.
            status = self._library.load_key(root, True, bytes(KEY_BYTES))
            status = 0 if status == errno.EACCES else status
        if status == errno.EBUSY:
            raise Busy(f"'{root}' is busy.", errno=status)
        if status:
            raise from_number(UNLOAD, root, status)

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
            raise from_number(CHANGE, root, status)

    def inherit(self, root: str) -> None:
        status = self._library.change_key(root, _INHERIT, {}, None)
        if status:
            raise from_number(INHERIT, root, status)

    def _wrapping_key(self, candidate: RootKey) -> bytes:
        key = candidate.key
        if key.format == "raw":
            return key.material
        if key.format == "hex":
            return bytes.fromhex(key.material.decode("ascii"))
        found = self._derived.get(candidate)
        if found is None:
            found = self._derived[candidate] = derive(candidate)
        return found


def derive(candidate: RootKey) -> bytes:
    """The wrapping key of a passphrase: PBKDF2 with HMAC-SHA1, as libzfs does it. Other threads run meanwhile.

    :raises StorageError: the salt of the encryption root is not known
    """
    if candidate.iterations is None or candidate.salt is None:
        raise StorageError(f"The salt of '{candidate.root}' could not be read, so no passphrase can be tried on it.")
    salt = candidate.salt.to_bytes(_SALT_BYTES, "little")
    return hashlib.pbkdf2_hmac("sha1", candidate.key.material, salt, candidate.iterations, KEY_BYTES)
