# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What opens a slot, and what does not; decrypted sectors of every cipher, version and size."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.geli import keys
from ansible_collections.nasops.encryption.plugins.module_utils.geli.cipher import Libcrypto
from ansible_collections.nasops.encryption.plugins.module_utils.geli.keys import (
    Credential,
    MasterKey,
    WrongKey,
    check_passphrase,
    open_slots,
)
from ansible_collections.nasops.encryption.plugins.module_utils.geli.metadata import Reader, locate
from ansible_collections.nasops.encryption.plugins.module_utils.geli.sectors import CHUNK, Plaintext, Unsupported
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import (
    CAMELLIA,
    CBC,
    NULL,
    SHAPES,
    TRIPLE_DES,
    XTS,
    Secret,
    Shape,
    Volume,
)

SIZE = 1 << 16
FILE, OTHER, RECOVERY = bytes(range(64)), bytes(64), bytes(range(64, 128))
PASS = b"geheimes wort"


def opened(volume: Volume, credential: Credential, slot: int | None = None) -> MasterKey:
    located = locate(reader(volume.image()), volume.size)
    found = open_slots(located.metadata, credential, Libcrypto(), slot)
    assert (found.iv_key, found.data_key) == (volume.iv_key, volume.data_key)
    return found


def reader(image: bytes) -> Reader:
    return lambda offset, length: image[offset : offset + length]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("iterations", [-1, 0, 5])
def test_a_freenas_disk(shape: Shape, iterations: int) -> None:
    shape = dataclasses.replace(shape, iterations=iterations)
    passphrase = PASS if iterations >= 0 else None
    volume = Volume(SIZE, shape, (Secret((FILE,), passphrase), Secret((RECOVERY,))))
    user = opened(volume, Credential((FILE,), PASS))
    assert (user.slot, user.with_passphrase) == (0, iterations >= 0)
    recovery = opened(volume, Credential((RECOVERY,)))
    assert (recovery.slot, recovery.with_passphrase) == (1, False)
    # A passphrase does no harm to a recovery key.
    assert opened(volume, Credential((RECOVERY,), PASS)).with_passphrase is False
    for wrong in (Credential((OTHER,)), Credential((OTHER,), PASS), Credential((FILE + b"\n",), PASS)):
        with pytest.raises(WrongKey):
            opened(volume, wrong)


def test_a_key_file_without_its_passphrase() -> None:
    volume = Volume(SIZE, Shape(iterations=5), (Secret((FILE,), PASS),))
    with pytest.raises(WrongKey, match="The key file does not open it alone") as caught:
        opened(volume, Credential((FILE,)))
    assert "A passphrase was set once on this disk" in caught.value.hint


def test_a_mistyped_passphrase() -> None:
    volume = Volume(SIZE, Shape(iterations=5), (Secret((FILE,), PASS),))
    with pytest.raises(WrongKey, match="alone or together with the passphrase") as caught:
        opened(volume, Credential((FILE,), b"geheimes wart"))
    assert caught.value.hint.startswith("Is the passphrase right? Is it the key file of this pool")


def test_a_passphrase_without_its_key_file() -> None:
    volume = Volume(SIZE, Shape(iterations=5), (Secret((FILE,), PASS),))
    with pytest.raises(WrongKey, match="The passphrase does not open it by itself") as caught:
        opened(volume, Credential((), PASS))
    assert "geli/<uuid>.key" in caught.value.hint


def test_several_key_files_in_their_order() -> None:
    volume = Volume(SIZE, Shape(), (Secret((FILE, RECOVERY)),))
    opened(volume, Credential((FILE, RECOVERY)))
    with pytest.raises(WrongKey):
        opened(volume, Credential((RECOVERY, FILE)))


def test_a_passphrase_alone() -> None:
    volume = Volume(SIZE, Shape(iterations=5), (Secret(passphrase=PASS),))
    assert opened(volume, Credential((), PASS)).with_passphrase
    with pytest.raises(WrongKey):
        opened(volume, Credential((), PASS + b"."))


def test_a_slot_that_was_asked_for() -> None:
    volume = Volume(SIZE, Shape(), (Secret((FILE,)), Secret((RECOVERY,))))
    assert opened(volume, Credential((FILE,)), slot=0).slot == 0
    with pytest.raises(WrongKey):
        opened(volume, Credential((FILE,)), slot=1)


def test_a_slot_that_is_not_in_use() -> None:
    volume = Volume(SIZE, Shape(), (None, Secret((RECOVERY,))))
    with pytest.raises(WrongKey, match="key slot 0 not in use"):
        opened(volume, Credential((RECOVERY,)), slot=0)
    with pytest.raises(WrongKey, match="no key slot in use"):
        opened(Volume(SIZE, Shape(), ()), Credential((RECOVERY,)))


def test_nothing_to_try() -> None:
    with pytest.raises(BadInput, match="Neither a key file nor a passphrase"):
        opened(Volume(SIZE, Shape(), (Secret((FILE,)),)), Credential())


def test_iterations_that_would_take_hours() -> None:
    volume = Volume(SIZE, Shape(), (Secret((FILE,)),))
    metadata = dataclasses.replace(locate(reader(volume.image()), SIZE).metadata, iterations=(1 << 31) - 1)
    with pytest.raises(StorageError, match="would take hours"):
        open_slots(metadata, Credential((OTHER,), PASS), Libcrypto())


@pytest.mark.parametrize(
    "text,message", [(b"", "is empty"), (b"a" * 1024, "1024 bytes"), (b"a\n", "line break"), (b"a\0b", "null")]
)
def test_a_passphrase_that_geli_would_not_read(text: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_passphrase(text)


def test_a_carriage_return_belongs_to_the_passphrase() -> None:
    assert check_passphrase(b"a\r") == b"a\r"


def test_secrets_are_never_shown() -> None:
    credential = Credential((FILE,), PASS)
    master = MasterKey(0, True, FILE, OTHER)
    assert repr(FILE) not in repr(credential) + repr(master) and repr(PASS) not in repr(credential)


CIPHERS = [(XTS, 128), (XTS, 256), (CBC, 128), (CBC, 192), (CBC, 256), (CAMELLIA, 256), (TRIPLE_DES, 192), (NULL, 0)]
PLAIN = bytes(number * 7 % 251 for number in range(20000))


def plaintext(volume: Volume, plain: bytes) -> Plaintext:
    image = volume.image(plain)
    located = locate(reader(image), len(image))
    master = open_slots(located.metadata, Credential((FILE,)), Libcrypto())
    return Plaintext(reader(image), located, master, Libcrypto())


@pytest.mark.parametrize("cipher,bits", CIPHERS)
@pytest.mark.parametrize("version", [0, 3, 4, 5, 6, 7])
def test_every_cipher_in_every_version(cipher: int, bits: int, version: int) -> None:
    found = plaintext(Volume(SIZE, Shape(version, cipher, bits, 512), (Secret((FILE,)),)), PLAIN)
    assert found.read(0, len(PLAIN)) == PLAIN


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096, 8192])
@pytest.mark.parametrize("cipher,bits", [(XTS, 256), (CBC, 256)])
def test_every_sector_size(sector: int, cipher: int, bits: int) -> None:
    found = plaintext(Volume(SIZE, Shape(7, cipher, bits, sector), (Secret((FILE,)),)), PLAIN)
    assert found.size == (SIZE - 512) // sector * sector
    assert found.read(0, found.size) == PLAIN.ljust(found.size, b"\0")


ANY = plaintext(Volume(SIZE, Shape(sector=1024), (Secret((FILE,)),)), PLAIN)


@given(st.integers(-5, SIZE + 10), st.integers(0, SIZE))
def test_any_part_is_what_is_there(offset: int, length: int) -> None:
    found = ANY
    whole = PLAIN.ljust(found.size, b"\0")
    assert found.read(offset, length) == (whole[offset : offset + length] if offset >= 0 else b"")


class Sparse:
    """A provider of which only a few places are there; what is asked for in between is zeros."""

    def __init__(self, volume: Volume, pieces: dict[int, bytes]) -> None:
        self.size = volume.size
        self.pieces = {offset: volume.seal(offset, plain) for offset, plain in pieces.items()}
        self.pieces[volume.size - 512] = volume.last_sector()
        self.longest = 0

    def read(self, offset: int, length: int) -> bytes:
        self.longest = max(self.longest, length)
        result = bytearray(length)
        for at, data in self.pieces.items():
            start, stop = max(at, offset), min(at + len(data), offset + length)
            if start < stop:
                result[start - offset : stop - offset] = data[start - at : stop - at]
        return bytes(result)


@pytest.mark.parametrize("version", [4, 5, 6, 7])
@pytest.mark.parametrize("sector", [512, 4096])
def test_where_the_key_changes(version: int, sector: int) -> None:
    zone = sector << 20
    cipher = XTS if version >= 5 else CBC
    volume = Volume(3 * zone, Shape(version, cipher, 128, sector), (Secret((FILE,)),))
    plain = (PLAIN * 2)[: 8 * sector]
    sparse = Sparse(volume, {zone - 4 * sector: plain, 2 * zone - 4 * sector: plain})
    located = locate(sparse.read, volume.size)
    master = open_slots(located.metadata, Credential((FILE,)), Libcrypto())
    found = Plaintext(sparse.read, located, master, Libcrypto())
    for at in (zone, 2 * zone):
        assert found.read(at - 4 * sector, 8 * sector) == plain
        assert found.read(at - 1, 2) == plain[4 * sector - 1 : 4 * sector + 1]
    assert keys.zone_of(located.metadata, 1 << 20) == (0 if version < 5 else 1)


def test_a_long_read_is_done_in_pieces() -> None:
    volume = Volume(64 * CHUNK, Shape(), (Secret((FILE,)),))
    sparse = Sparse(volume, {})
    located = locate(sparse.read, volume.size)
    master = open_slots(located.metadata, Credential((FILE,)), Libcrypto())
    assert len(Plaintext(sparse.read, located, master, Libcrypto()).read(512, 3 * CHUNK)) == 3 * CHUNK
    assert sparse.longest == CHUNK


def test_a_disk_that_ends_early() -> None:
    volume = Volume(SIZE, Shape(), (Secret((FILE,)),))
    image = volume.image(PLAIN)
    located = locate(reader(image), SIZE)
    master = open_slots(located.metadata, Credential((FILE,)), Libcrypto())
    found = Plaintext(reader(image[:10000]), located, master, Libcrypto())
    assert found.read(0, 8192) == PLAIN[:8192]
    with pytest.raises(StorageError, match="ended at byte 10000, 12288 were expected"):
        found.read(0, 9000)


def test_authenticated_sectors_are_refused() -> None:
    volume = Volume(SIZE, Shape(flags=0x10), (Secret((FILE,)),), aalgo=18)
    image = volume.image()
    located = locate(reader(image), SIZE)
    master = open_slots(located.metadata, Credential((FILE,)), Libcrypto())
    with pytest.raises(Unsupported, match=r"with authentication \(HMAC/SHA256\)"):
        Plaintext(reader(image), located, master, Libcrypto())
