# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ciphers of both engines, by published vectors and against each other."""

from __future__ import annotations

import builtins
import ctypes
import hashlib
import importlib.util
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.geli import cipher, metadata
from ansible_collections.nasops.encryption.plugins.module_utils.geli.cipher import Engine, Libcrypto, NoCipher
from ansible_collections.nasops.encryption.plugins.module_utils.geli.metadata import Algorithm

XTS = Algorithm(metadata.AES_XTS, "AES-XTS", 16, (128, 256))
CBC = Algorithm(metadata.AES_CBC, "AES-CBC", 16, (128, 192, 256))
CAMELLIA = Algorithm(metadata.CAMELLIA_CBC, "Camellia-CBC", 16, (128, 192, 256))
BLOWFISH = Algorithm(metadata.BLOWFISH_CBC, "Blowfish-CBC", 8, (128,))
NULL = Algorithm(metadata.NULL, "NULL", 16, (0,))

ENGINES: list[t.Callable[[], Engine]] = [Libcrypto]
# Debian's Pythons of the hosts have it where it is installed; the environments of the oldest ones have it not.
if importlib.util.find_spec("cryptography"):
    ENGINES.append(cipher.PythonPackage)

# IEEE 1619-2007, annex B: vectors 2 and 10.
XTS_128 = (
    "1111111111111111111111111111111122222222222222222222222222222222",
    "33333333330000000000000000000000",
    "44" * 32,
    "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
)
XTS_256 = (
    (
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592"
    ),
    "ff000000000000000000000000000000",
    "000102030405060708090a0b0c0d0e0f",
    "1c3b3a102f770386e4836c99e370cf9b",
)
# NIST SP 800-38A, F.2.1 and F.2.5.
CBC_128 = (
    "2b7e151628aed2a6abf7158809cf4f3c",
    "000102030405060708090a0b0c0d0e0f",
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
    "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
)
CBC_256 = (
    "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
    "000102030405060708090a0b0c0d0e0f",
    "6bc1bee22e409f96e93d7e117393172a",
    "f58c4c04d6e5f1ba779eabfb5f7bfbd6",
)
# RFC 3713, A: a single block, so that the vector of zeros changes nothing.
CAMELLIA_128 = (
    "0123456789abcdeffedcba9876543210",
    "00" * 16,
    "0123456789abcdeffedcba9876543210",
    "67673138549669730857065648eabe43",
)


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize(
    "algorithm,bits,vector",
    [(XTS, 128, XTS_128), (CBC, 128, CBC_128), (CBC, 256, CBC_256)],
)
def test_published_vectors(
    make: t.Callable[[], Engine], algorithm: Algorithm, bits: int, vector: tuple[str, str, str, str]
) -> None:
    key, start, plain, sealed = (bytes.fromhex(text) for text in vector)
    found = make().decryptor(algorithm, bits, key).decrypt(sealed * 3, len(sealed), [start] * 3)
    assert found == plain * 3


@pytest.mark.parametrize("make", ENGINES)
def test_the_first_block_of_a_published_unit(make: t.Callable[[], Engine]) -> None:
    key, start, plain, sealed = (bytes.fromhex(text) for text in XTS_256)
    assert make().decryptor(XTS, 256, key).decrypt(sealed, 16, [start]) == plain


@pytest.mark.parametrize("algorithm", [XTS, CBC])
def test_one_decryptor_for_pieces_of_every_size(algorithm: Algorithm) -> None:
    key = bytes(range(64 if algorithm is XTS else 32))
    engine = Libcrypto()
    found = engine.decryptor(algorithm, 256, key)
    for unit, count in ((512, 3), (512, 1), (4096, 5), (512, 40), (4096, 32), (4096, 7), (8192, 2)):
        data = hashlib.shake_128(b"%d %d" % (unit, count)).digest(unit * count)
        vectors = [number.to_bytes(16, "little") for number in range(unit, unit + count)]
        wanted = [
            engine.decryptor(algorithm, 256, key).decrypt(data[number * unit :][:unit], unit, [vector])
            for number, vector in enumerate(vectors)
        ]
        assert found.decrypt(data, unit, vectors) == b"".join(wanted)


@pytest.mark.parametrize("make", ENGINES)
def test_no_unit_is_left_out(make: t.Callable[[], Engine]) -> None:
    found = make().decryptor(CBC, 256, bytes(32))
    one = bytes(16)
    for data, vectors in ((bytes(1023), [one, one]), (bytes(1024), [one]), (bytes(1024), [bytes(8), bytes(24)])):
        with pytest.raises(ValueError, match="no whole units of 512, or not each has a vector like the others"):
            found.decrypt(data, 512, vectors)


def test_camellia() -> None:
    key, start, plain, sealed = (bytes.fromhex(text) for text in CAMELLIA_128)
    assert Libcrypto().decryptor(CAMELLIA, 128, key).decrypt(sealed, 16, [start]) == plain


@pytest.mark.parametrize("make", ENGINES)
def test_null_changes_nothing(make: t.Callable[[], Engine]) -> None:
    assert make().decryptor(NULL, 0, b"").decrypt(b"abc", 3, [bytes(16)]) == b"abc"


@pytest.mark.parametrize("make", ENGINES)
def test_a_cipher_that_is_gone(make: t.Callable[[], Engine]) -> None:
    with pytest.raises(NoCipher, match=r"has no Blowfish-CBC\. Attach the disk on a FreeBSD"):
        make().decryptor(BLOWFISH, 128, bytes(16))


def test_the_library_comes_first() -> None:
    assert cipher.find_engine().name == "libcrypto"


def test_a_host_with_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *more: t.Any) -> t.Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *more)

    def absent(_name: str) -> t.NoReturn:
        raise OSError("not found")

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(NoCipher, match="Neither OpenSSL's libcrypto nor the Python package cryptography") as caught:
        cipher.find_engine()
    assert "Install one of them" in caught.value.hint
