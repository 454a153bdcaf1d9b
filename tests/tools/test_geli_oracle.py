# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB reads GELI too, by code of its own: it has to read the same from the disks that the tests make and we read.

It knows passphrases only, no key files, and no disk with sectors of 4096 bytes. Of two slots in use it opens the
first. Its exit status is 0 even when it could not open a disk, so what counts is whether the bytes that were asked for
are there.
"""

from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.geli.cipher import find_engine
from ansible_collections.nasops.encryption.plugins.module_utils.geli.keys import Credential, open_slots
from ansible_collections.nasops.encryption.plugins.module_utils.geli.metadata import Reader, locate
from ansible_collections.nasops.encryption.plugins.module_utils.geli.sectors import Plaintext
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import (
    CAMELLIA,
    CBC,
    SHAPES,
    TRIPLE_DES,
    XTS,
    Secret,
    Shape,
    Volume,
    partition,
    write_disk,
)

PASS = b"geheimes wort"
FILE = bytes(range(64))
SIZE = 1 << 18
PLAIN = bytes(number * 7 % 251 for number in range(100_000))


def grub(image: Path, start: int, count: int, passphrase: bytes, device: str = "crypto0") -> bytes | None:
    """What GRUB decrypts, from one offset in bytes on, or None if it does not open the disk."""
    out = image.with_suffix(".out")
    place = f"({device}){start // 512}+{count // 512}"
    command = ["grub-fstest", "-C", str(image), "cp", place, str(out)]
    subprocess.run(command, input=passphrase + b"\n", capture_output=True, check=False, timeout=120)
    # It makes the file before it tries to open the disk.
    return out.read_bytes() or None


def ours(image: Path, at: int, size: int, start: int, count: int, passphrase: bytes) -> bytes:
    """What this collection decrypts of the provider at a place in an image."""
    descriptor = os.open(image, os.O_RDONLY)
    try:
        read: Reader = lambda offset, length: os.pread(descriptor, length, at + offset)  # noqa: E731
        located = locate(read, size)
        master = open_slots(located.metadata, Credential((), passphrase), find_engine())
        return Plaintext(read, located, master, find_engine()).read(start, count)
    finally:
        os.close(descriptor)


CIPHERS = [(XTS, 128), (XTS, 256), (CBC, 128), (CBC, 256), (CAMELLIA, 128), (CAMELLIA, 256), (TRIPLE_DES, 192)]
MATRIX = [
    (version, cipher, bits, sector)
    for version in range(1, 8)
    for cipher, bits in CIPHERS
    for sector in (512, 4096)
    # XTS came with version 5.
    if version >= 5 or cipher != XTS
    # Each sector size with each cipher once, and each version with one of them.
    if version in (5, 6, 7) or sector == 512
]


@pytest.mark.parametrize("version,cipher,bits,sector", MATRIX)
def test_both_read_the_same(tmp_path: Path, version: int, cipher: int, bits: int, sector: int) -> None:
    image = tmp_path / "provider"
    shape = Shape(version, cipher, bits, sector, iterations=17)
    # As on FreeNAS, the second slot is one for a recovery key.
    image.write_bytes(Volume(SIZE, shape, (Secret(passphrase=PASS), Secret((FILE,)))).image(PLAIN))
    theirs = grub(image, sector, 65536, PASS)
    assert theirs == PLAIN[sector : sector + 65536]
    assert ours(image, 0, SIZE, sector, 65536, PASS) == theirs


def test_the_second_slot_alone(tmp_path: Path) -> None:
    image = tmp_path / "provider"
    image.write_bytes(Volume(SIZE, Shape(iterations=0), (None, Secret(passphrase=PASS))).image(PLAIN))
    theirs = grub(image, 0, 4096, PASS)
    assert theirs == PLAIN[:4096]
    assert ours(image, 0, SIZE, 0, 4096, PASS) == theirs


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_whole_disk_as_freenas_partitioned_it(tmp_path: Path, shape: Shape) -> None:
    disk = partition(4 << 20, 1 << 20, "5c3b0d8e-0000-11e3-a1b2-d43d7e000001")
    shape = Shape(shape.version, shape.cipher, shape.bits, shape.sector, iterations=17)
    image = tmp_path / "disk"
    write_disk(str(image), disk, Volume(disk.data[1], shape, (Secret(passphrase=PASS),)), PLAIN)
    assert disk.swap == (65536, 1 << 20) and disk.data[0] == 65536 + (1 << 20)
    theirs = grub(image, 0, 65536, PASS)
    assert theirs == PLAIN[:65536]
    assert ours(image, *disk.data, 0, 65536, PASS) == theirs


@pytest.mark.parametrize("version,cipher", [(4, CBC), (5, XTS), (6, XTS), (7, XTS), (7, CBC)])
def test_the_key_changes_at_the_same_place(tmp_path: Path, version: int, cipher: int) -> None:
    zone = 512 << 20
    volume = Volume(zone + (1 << 20), Shape(version, cipher, 128, 512, 17), (Secret(passphrase=PASS),))
    image = tmp_path / "provider"
    with image.open("wb") as file:
        # A file with holes: only what is read is there.
        file.truncate(volume.size)
        for offset in (0, zone - 4096):
            file.seek(offset)
            file.write(volume.seal(offset, PLAIN[:8192]))
        file.seek(volume.size - 512)
        file.write(volume.last_sector())
    theirs = grub(image, zone - 4096, 8192, PASS)
    assert theirs == PLAIN[:8192]
    assert ours(image, 0, volume.size, zone - 4096, 8192, PASS) == theirs


def test_a_wrong_passphrase_is_told_by_what_is_not_there(tmp_path: Path) -> None:
    image = tmp_path / "provider"
    image.write_bytes(Volume(SIZE, Shape(iterations=17), (Secret(passphrase=PASS),)).image(PLAIN))
    assert grub(image, 0, 4096, PASS + b".") is None


def test_the_tables_of_a_disk_are_a_gpt(tmp_path: Path) -> None:
    """GRUB finds the second partition by itself; what it reads there in clear is what is in the file."""
    disk = partition(4 << 20, 1 << 20, "5c3b0d8e-0000-11e3-a1b2-d43d7e000001")
    image = tmp_path / "disk"
    write_disk(str(image), disk, Volume(disk.data[1], Shape(iterations=17), (Secret(passphrase=PASS),)), PLAIN)
    start, _length = disk.data
    assert grub(image, 0, 4096, b"", "loop0,gpt2") == image.read_bytes()[start : start + 4096]


def names(found: t.Iterable[tuple[int, ...]]) -> set[int]:
    return {one[0] for one in found}


def test_the_matrix_has_every_version_that_grub_knows() -> None:
    assert names(MATRIX) == set(range(1, 8)) and len(MATRIX) == 4 * 5 + 3 * 7 * 2
