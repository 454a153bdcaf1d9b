# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metadata of all versions, and what is no metadata: damaged, cut off, foreign, forged."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.geli.cipher import find_engine
from ansible_collections.nasops.encryption.plugins.module_utils.geli.keys import Credential, open_slots
from ansible_collections.nasops.encryption.plugins.module_utils.geli.metadata import (
    BadMetadata,
    Located,
    NotGeli,
    Reader,
    locate,
    parse,
)
from ansible_collections.nasops.encryption.plugins.module_utils.geli.sectors import Plaintext
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import (
    CAMELLIA,
    CBC,
    SHAPES,
    XTS,
    Secret,
    Shape,
    Volume,
    usable,
)

SIZE = 1 << 16
KEY_FILE = bytes(range(64))
MOST_MEMORY = 64 << 20
ENGINE = find_engine()


def reader(image: bytes) -> Reader:
    return lambda offset, length: image[offset : offset + length]


def sector(shape: Shape, size: int = SIZE, slots: t.Sequence[Secret | None] = (Secret((KEY_FILE,)),)) -> bytes:
    return Volume(size, shape, slots).last_sector()


def changed(content: bytes, at: int, value: bytes) -> bytes:
    """Metadata of version 1 or later with other bytes in it, its checksum made right again."""
    fields = (content[:at] + value + content[at + len(value) :])[:495]
    return fields + hashlib.md5(fields).digest() + content[511:]


@pytest.mark.parametrize("version", range(8))
def test_every_version(version: int) -> None:
    shape = Shape(version=version, cipher=CBC, bits=192, sector=2048, iterations=17, flags=0x102)
    found = parse(sector(shape, slots=(Secret((KEY_FILE,)), Secret(passphrase=b"x"))))
    assert (found.version, found.algorithm.name, found.key_bits) == (version, "AES-CBC", 192)
    assert (found.provider_size, found.sector_size, found.slots) == (SIZE, 2048, (0, 1))
    assert (found.iterations, found.flag_names) == (17, ("boot", "display_pass"))
    assert not found.authenticated and found.authentication == ""


def test_the_shapes_of_freenas() -> None:
    found = {year: parse(sector(shape)) for year, shape in SHAPES.items()}
    assert {year: (one.version, one.key_bits, one.sector_size) for year, one in found.items()} == {
        "2012": (5, 128, 512),
        "2013": (6, 128, 4096),
        "2014": (7, 128, 4096),
        "2017": (7, 256, 4096),
    }
    assert {one.iterations for one in found.values()} == {-1}
    assert {one.slots for one in found.values()} == {(0,)}


def test_key_material_is_never_shown() -> None:
    volume = Volume(SIZE, Shape(), (Secret((KEY_FILE,)),))
    found = parse(volume.last_sector())
    assert repr(found.salt) not in repr(found) and repr(found.master_keys[0]) not in repr(found)


@pytest.mark.parametrize("provider_sector", [512, 1024, 2048, 4096, 8192])
def test_it_is_found_whatever_the_sectors_of_the_disk(provider_sector: int) -> None:
    image = Volume(SIZE, Shape(provider_sector=provider_sector), (Secret((KEY_FILE,)),)).image()
    found = locate(reader(image), len(image))
    assert (found.provider_sector, found.problem) == (provider_sector, "")
    assert found.size == usable(SIZE, Shape(provider_sector=provider_sector))


def test_what_fits_the_provider_is_preferred() -> None:
    older = sector(Shape(provider_sector=512), size=SIZE // 2)
    newer = sector(Shape(provider_sector=4096))
    image = bytes(SIZE - 4096) + newer[:3584] + older
    assert locate(reader(image), SIZE).provider_sector == 4096


@pytest.mark.parametrize("more", [1024, 4096, SIZE, -512, -4096])
def test_a_partition_whose_end_was_moved(more: int) -> None:
    image = bytes(SIZE - 512) + sector(Shape())
    image = image + bytes(more) if more > 0 else image[:more]
    # The metadata stays where it was.
    with pytest.raises(NotGeli, match="is still where it ended before") as caught:
        locate(reader(image), len(image))
    assert "give it back that size" in caught.value.hint


@pytest.mark.parametrize("more", [512, 1536, 3584, 7680])
def test_a_partition_that_has_grown_by_less_than_a_sector(more: int) -> None:
    image = bytes(SIZE - 512) + sector(Shape()) + bytes(more)
    # It looks like a disk with larger sectors.
    found = locate(reader(image), len(image))
    assert f"for a provider of {SIZE} bytes, this one has {SIZE + more}: it was grown afterwards" in found.problem


@pytest.mark.parametrize("size", [SIZE * 2, SIZE - 4096])
def test_a_partition_whose_beginning_was_moved(size: int) -> None:
    image = bytes(size - 512) + sector(Shape())
    found = locate(reader(image), size)
    assert f"for a provider of {SIZE} bytes, this one has {size}: that one ended here, too" in found.problem


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4096, SIZE])
def test_no_metadata(size: int) -> None:
    with pytest.raises(NotGeli, match="no GELI metadata in the last sector"):
        locate(reader(bytes(size)), size)


def test_other_metadata_of_geom_is_none() -> None:
    with pytest.raises(NotGeli):
        parse(b"GEOM::ELIZA\0".ljust(512, b"\0"))


@pytest.mark.parametrize(
    "at,value,message",
    [
        (16, struct.pack("<I", 8), "of version 8; FreeBSD knows versions up to 7"),
        (24, struct.pack("<H", 99), "names cipher 99"),
        (26, struct.pack("<H", 192), "a key of 192 bits for AES-XTS"),
        (38, struct.pack("<I", 0), "sectors of 0 bytes"),
        (38, struct.pack("<I", 513), "sectors of 513 bytes"),
        (38, struct.pack("<I", 1 << 31), "sectors of 2147483648 bytes"),
        (30, struct.pack("<Q", 4096), "a provider of 4096 bytes, too few"),
        (42, b"\x04", "key slots 0x4; there are only two"),
        (43, struct.pack("<i", -2), "-2 PBKDF2 iterations"),
    ],
)
def test_numbers_that_can_not_be(at: int, value: bytes, message: str) -> None:
    with pytest.raises(BadMetadata, match=message):
        parse(changed(sector(Shape()), at, value))


def test_unknown_authentication() -> None:
    content = changed(changed(sector(Shape()), 20, struct.pack("<I", 0x10)), 28, struct.pack("<H", 77))
    with pytest.raises(BadMetadata, match="names authentication 77"):
        parse(content)


def test_authentication_is_recognised() -> None:
    volume = Volume(SIZE, Shape(flags=0x10), (Secret((KEY_FILE,)),), aalgo=18)
    found = locate(reader(volume.image()), SIZE)
    assert (found.metadata.authentication, found.size) == ("HMAC/SHA256", 0)


def test_a_flipped_bit_is_noticed() -> None:
    content = bytearray(sector(Shape()))
    content[200] ^= 4
    with pytest.raises(BadMetadata, match="its checksum does not fit"):
        parse(bytes(content))
    image = bytes(SIZE - 512) + bytes(content)
    with pytest.raises(BadMetadata, match="its checksum does not fit"):
        locate(reader(image), SIZE)


@pytest.mark.parametrize("length", [10, 27, 28, 200, 510])
def test_cut_off(length: int) -> None:
    with pytest.raises(BadMetadata, match=f"cut off after {length} bytes"):
        parse(sector(Shape())[:length])


def try_all(image: bytes) -> None:
    """All that is done with metadata nobody vouches for; only errors that are meant for people may come of it."""
    try:
        found: Located = locate(reader(image), len(image))
        if found.metadata.iterations < 1000:
            master = open_slots(found.metadata, Credential((KEY_FILE,), b"x"), ENGINE)
            Plaintext(reader(image), found, master, ENGINE).read(0, 4096)
    except StorageError as error:
        assert error.message


SECTORS = [sector(Shape(version=version)) for version in range(8)]
FUZZED = st.tuples(st.integers(0, 510), st.binary(min_size=1, max_size=8))


@given(st.lists(FUZZED, min_size=1, max_size=4), st.booleans(), st.integers(0, 7), st.integers(0, 4096))
def test_forged_metadata_is_an_error_and_costs_little(
    changes: list[tuple[int, bytes]], right_checksum: bool, version: int, cut: int
) -> None:
    content = SECTORS[version]
    for at, value in changes:
        content = (content[:at] + value + content[at + len(value) :])[:512]
    if right_checksum:
        length = 511 if struct.unpack_from("<I", content, 16)[0] else 509
        content = content[: length - 16] + hashlib.md5(content[: length - 16]).digest() + content[length:]
    image = bytes(SIZE - 512) + content
    tracemalloc.start()
    try:
        try_all(image[: len(image) - cut])
        try_all(image)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=9000))
def test_any_bytes_are_no_traceback(content: bytes) -> None:
    try_all(content)
    try_all(content + b"GEOM::ELI\0".ljust(512, b"\0"))


@pytest.mark.parametrize("cipher,bits", [(XTS, 128), (CBC, 256), (CAMELLIA, 192)])
def test_a_huge_provider_is_not_read(cipher: int, bits: int) -> None:
    size = 1 << 60
    content = sector(Shape(cipher=cipher, bits=bits), size=size)
    asked: list[int] = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return content.rjust(length, b"\0")

    assert locate(read, size).metadata.provider_size == size
    assert sum(asked) <= 8192
