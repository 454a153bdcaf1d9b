# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decryption with the ciphers of GELI, by OpenSSL's libcrypto or by the Python package cryptography.

Neither is loaded before a cipher is needed. libcrypto comes first: each host that has ssh or Python's ssl has it, it
needs no package, and is three times as fast, since a disk has millions of sectors with a vector of their own.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import typing as t

from ..errors import StorageError
from .metadata import AES_CBC, AES_XTS, CAMELLIA_CBC, NULL, TRIPLE_DES_CBC, Algorithm

# OpenSSL 3 and 1.1 on Linux; the base system of FreeBSD 14, 12 and 13.
_LIBRARIES = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so.30", "libcrypto.so.111", "libcrypto.so")

# OpenSSL's names of the ciphers, by number and bits of a key.
_FUNCTIONS = {
    (AES_XTS, 128): "EVP_aes_128_xts",
    (AES_XTS, 256): "EVP_aes_256_xts",
    (AES_CBC, 128): "EVP_aes_128_cbc",
    (AES_CBC, 192): "EVP_aes_192_cbc",
    (AES_CBC, 256): "EVP_aes_256_cbc",
    (CAMELLIA_CBC, 128): "EVP_camellia_128_cbc",
    (CAMELLIA_CBC, 192): "EVP_camellia_192_cbc",
    (CAMELLIA_CBC, 256): "EVP_camellia_256_cbc",
    (TRIPLE_DES_CBC, 192): "EVP_des_ede3_cbc",
}


_NULL = ctypes.c_void_p()


class NoCipher(StorageError):
    """Nothing on this host can decrypt that cipher."""


class Decryptor(t.Protocol):
    """A cipher with its key."""

    def decrypt(self, data: bytes, unit: int, vectors: t.Iterable[bytes]) -> bytes:
        """``data`` decrypted in whole units of so many bytes, each with the next of the initialization vectors."""


class Engine(t.Protocol):
    """What provides ciphers."""

    name: str

    def decryptor(self, algorithm: Algorithm, bits: int, key: bytes) -> Decryptor:
        """A cipher; ``key`` holds both halves of an XTS key.

        :raises NoCipher: it has no such cipher
        """


def find_engine() -> Engine:
    """The fastest engine of this host.

    :raises NoCipher: there is none
    """
    for make in (Libcrypto, PythonPackage):
        try:
            return make()
        except (OSError, AttributeError, ImportError):
            continue
    raise NoCipher(
        "Neither OpenSSL's libcrypto nor the Python package cryptography was found on this host.",
        hint="Install one of them, for example the Debian package libssl3 or python3-cryptography.",
    )


class Plain:
    """The NULL cipher, which leaves everything as it is."""

    def decrypt(self, data: bytes, unit: int, vectors: t.Iterable[bytes]) -> bytes:
        return data


class Libcrypto:
    """OpenSSL's libcrypto in this process.

    :raises OSError: it is not there
    :raises AttributeError: it is older than OpenSSL 1.1
    """

    name = "libcrypto"

    def __init__(self) -> None:
        self._library = _load()
        pointer, number = ctypes.c_void_p, ctypes.c_int
        self._new = _function(self._library.EVP_CIPHER_CTX_new, pointer)
        self._free = _function(self._library.EVP_CIPHER_CTX_free, None, pointer)
        # What these get are objects of ctypes, or bytes, which need no conversion as long as no types are declared.
        self._init, self._update = self._library.EVP_DecryptInit_ex, self._library.EVP_DecryptUpdate
        self._padding = _function(self._library.EVP_CIPHER_CTX_set_padding, number, pointer, number)

    def decryptor(self, algorithm: Algorithm, bits: int, key: bytes) -> Decryptor:
        if algorithm.number == NULL:
            return Plain()
        name = _FUNCTIONS.get((algorithm.number, bits), "")
        make = getattr(self._library, name, None) if name else None
        cipher = ctypes.c_void_p(_function(make, ctypes.c_void_p)() if make is not None else None)
        if not cipher.value:
            raise _no_cipher(algorithm, "OpenSSL on this host")
        context = ctypes.c_void_p(self._new())
        if not context.value:
            raise _no_cipher(algorithm, "OpenSSL on this host")
        found = _LibcryptoDecryptor(context, self._init, self._update, self._free)
        if self._init(context, cipher, _NULL, key, _NULL) != 1 or self._padding(context, 0) != 1:
            raise _no_cipher(algorithm, "OpenSSL on this host")
        return found


class _LibcryptoDecryptor:
    """A context of libcrypto. The key is expanded once; each unit sets only its vector. Not for several threads."""

    def __init__(self, context: ctypes.c_void_p, init: t.Any, update: t.Any, free: t.Any) -> None:
        self._context = context
        self._init = init
        self._update = update
        self._free = free
        self._piece = _Piece(0, 0, 0)

    def __del__(self) -> None:
        # Overwrites the expanded key, too.
        self._free(self._context)

    def decrypt(self, data: bytes, unit: int, vectors: t.Iterable[bytes]) -> bytes:
        one_each = _one_each(data, unit, vectors)
        size, count, starts = len(data), len(one_each), b"".join(one_each)
        piece = self._piece
        if not piece.holds(unit, count, len(starts)):
            piece = self._piece = _Piece(unit, count, len(starts))
        piece.data[:size] = data
        piece.vectors[: len(starts)] = starts
        context, init, update, length, written = self._context, self._init, self._update, piece.unit, piece.written
        wrote = ctypes.byref(written)
        for vector, place in piece.units[:count]:
            if init(context, _NULL, _NULL, _NULL, vector) != 1 or (
                update(context, place, wrote, place, length) != 1 or written.value != unit
            ):
                raise StorageError("OpenSSL failed to decrypt a sector.", hint="See whether the host is out of memory.")
        return bytes(piece.data[:size])


class _Piece:
    """Memory in which some units are decrypted, kept from call to call: page faults of fresh memory take as long as the
    cipher. It begins at a page; at another address decryption takes half as long again.

    Kept are also the arguments that tell where each unit and its vector are: to convert them at each call takes longer
    than to decrypt a sector.
    """

    def __init__(self, unit: int, count: int, vectors: int) -> None:
        self.data, here = _aligned(unit * count)
        self.vectors, start = _aligned(vectors)
        self.unit = ctypes.c_int(unit)
        self.written = ctypes.c_int()
        self._step = vectors // count if count else 0
        self.units = [
            (ctypes.c_void_p(start + number * self._step), ctypes.c_void_p(here + number * unit))
            for number in range(count)
        ]

    def holds(self, unit: int, count: int, vectors: int) -> bool:
        """Whether there is room for so many units, with vectors of so many bytes in all."""
        return self.unit.value == unit and count <= len(self.units) and vectors == count * self._step


def _aligned(size: int) -> tuple[memoryview, int]:
    """Memory that begins at a page, and its address. That of ``mmap`` would be shared memory, which is slower."""
    memory = bytearray(size + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    unused = -address % mmap.PAGESIZE
    return memoryview(memory)[unused : unused + size], address + unused


class PythonPackage:
    """The Python package cryptography.

    :raises ImportError: it is not there
    """

    name = "cryptography"

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._cipher: t.Any = Cipher
        self._algorithms: t.Any = algorithms
        self._modes: t.Any = modes

    def decryptor(self, algorithm: Algorithm, bits: int, key: bytes) -> Decryptor:
        if algorithm.number == NULL:
            return Plain()
        if algorithm.number not in (AES_XTS, AES_CBC):
            raise _no_cipher(algorithm, "the Python package cryptography")
        mode = self._modes.XTS if algorithm.number == AES_XTS else self._modes.CBC
        cipher = self._cipher
        aes = self._algorithms.AES(key)
        return _PackageDecryptor(lambda vector: cipher(aes, mode(vector)).decryptor())


class _PackageDecryptor:
    """A new context for each unit: the package has no way to change the vector of one."""

    def __init__(self, begin: t.Callable[[bytes], t.Any]) -> None:
        self._begin = begin

    def decrypt(self, data: bytes, unit: int, vectors: t.Iterable[bytes]) -> bytes:
        view, starts = memoryview(data), _one_each(data, unit, vectors)
        return b"".join(
            self._begin(start).update(view[at : at + unit]) for at, start in zip(range(0, len(data), unit), starts)
        )


def _one_each(data: bytes, unit: int, vectors: t.Iterable[bytes]) -> list[bytes]:
    """The vectors of all units.

    :raises ValueError: there are no whole units, or not each has a vector of the same size
    """
    count = len(data) // unit
    found = list(itertools.islice(vectors, count))
    if len(data) != count * unit or len(found) != count or len({len(one) for one in found}) > 1:
        raise ValueError(f"{len(data)} bytes are no whole units of {unit}, or not each has a vector like the others")
    return found


def _load() -> ctypes.CDLL:
    problem = OSError("libcrypto was not found")
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            problem = error
    raise problem


def _function(function: t.Any, answer: t.Any, *arguments: t.Any) -> t.Any:
    function.argtypes = list(arguments)
    function.restype = answer
    return function


def _no_cipher(algorithm: Algorithm, where: str) -> NoCipher:
    return NoCipher(
        f"{where[:1].upper() + where[1:]} has no {algorithm.name}.",
        hint="Attach the disk on a FreeBSD that still knows this cipher, and copy the data there.",
    )
