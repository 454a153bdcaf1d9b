# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack of device-mapper targets, carried out by an interpreter of its tables on images in memory."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.geli import device_mapper
from ansible_collections.nasops.encryption.plugins.module_utils.geli.cipher import Libcrypto
from ansible_collections.nasops.encryption.plugins.module_utils.geli.device_mapper import Layer, stack, zones
from ansible_collections.nasops.encryption.plugins.module_utils.geli.keys import Credential, open_slots
from ansible_collections.nasops.encryption.plugins.module_utils.geli.metadata import (
    AES_XTS,
    Algorithm,
    Located,
    Reader,
    locate,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import (
    CBC,
    XTS,
    Secret,
    Shape,
    Volume,
)

FILE = bytes(range(64))
NUMBER = "8:18"
PLAIN = bytes(number * 7 % 251 for number in range(20000))
AES = Algorithm(AES_XTS, "AES-XTS", 16, (128, 256))


class Kernel:
    """Reads a sector of 512 bytes, or a larger one whole, through the tables of a stack as the kernel would."""

    def __init__(self, read: Reader, layers: t.Sequence[Layer]) -> None:
        self.read_provider = read
        self.tables: dict[str, list[list[str]]] = {}
        numbers: dict[str, str] = {}
        for layer in layers:
            command = layer.create(numbers)
            assert command.argv[:3] == ("dmsetup", "create", layer.name) and "--readonly" in command.argv
            assert command.stdin is not None
            number = f"253:{len(self.tables)}"
            self.tables[number] = [line.split() for line in command.stdin.decode().splitlines()]
            numbers[layer.name.rsplit("-", 1)[-1]] = number
        self.top = f"253:{len(layers) - 1}"
        self.asked = 0

    def size(self, device: str) -> int:
        return sum(int(row[1]) for row in self.tables[device])

    def read(self, device: str, sector: int, count: int) -> bytes:
        """Whole sectors of 512 bytes, none of which crosses a boundary of a target."""
        if device == NUMBER:
            return self.read_provider(sector * 512, count * 512)
        row = next(row for row in self.tables[device] if int(row[0]) <= sector < int(row[0]) + int(row[1]))
        offset, kind, words = sector - int(row[0]), row[2], row[3:]
        assert kind != "error", "something was read that is not there"
        if kind == "striped":
            stripes, chunk = int(words[0]), int(words[1])
            places = words[2:]
            assert len(places) == 2 * stripes and int(row[1]) % (stripes * chunk) == 0
            number, inside = divmod(offset, chunk)
            assert inside + count <= chunk
            line, stripe = divmod(number, stripes)
            return self.read(places[2 * stripe], int(places[2 * stripe + 1]) + line * chunk + inside, count)
        if kind == "unstriped":
            stripes, chunk, stripe = (int(word) for word in words[:3])
            number, inside = divmod(offset, chunk)
            return self.read(words[3], int(words[4]) + (number * stripes + stripe) * chunk + inside, count)
        assert kind == "crypt"
        return self.decrypt(offset, count, words)

    def decrypt(self, offset: int, count: int, words: t.Sequence[str]) -> bytes:
        cipher, key, vector, device, start = words[:5]
        size = int(words[6].partition("sector_size:")[2]) if len(words) > 5 else 512
        assert cipher == "aes-xts-plain64" and count * 512 == size
        data = self.read(device, int(start) + offset, count)
        # plain64: the number of the sector of 512 bytes, little-endian.
        tweak = (int(vector) + offset).to_bytes(16, "little")
        bits = len(key) * 4 // 2
        return Libcrypto().decryptor(AES, bits, bytes.fromhex(key)).decrypt(data, size, [tweak])


def opened(volume: Volume, read: Reader) -> tuple[Located, Kernel]:
    located = locate(read, volume.size)
    master = open_slots(located.metadata, Credential((FILE,)), Libcrypto())
    return located, Kernel(read, stack("x", NUMBER, located, master))


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("version,bits", [(5, 128), (6, 128), (7, 256)])
def test_it_reads_what_geli_wrote(version: int, bits: int, sector: int) -> None:
    volume = Volume(1 << 16, Shape(version, XTS, bits, sector), (Secret((FILE,)),))
    image = volume.image(PLAIN)
    located, kernel = opened(volume, lambda offset, length: image[offset : offset + length])
    chunk = sector // 512
    assert kernel.size(kernel.top) * 512 == located.size
    found = b"".join(kernel.read(kernel.top, at, chunk) for at in range(0, kernel.size(kernel.top), chunk))
    assert found == PLAIN.ljust(located.size, b"\0")


@pytest.mark.parametrize("sector", [512, 4096])
def test_each_zone_has_its_key(sector: int) -> None:
    zone, chunk = sector << 20, sector // 512
    volume = Volume(2 * zone + (1 << 20), Shape(7, XTS, 256, sector), (Secret((FILE,)),))
    pieces = dict.fromkeys((0, zone - sector, zone, 2 * zone - sector, 2 * zone), PLAIN[:sector])
    sealed = {at: volume.seal(at, plain) for at, plain in pieces.items()}

    def read(offset: int, length: int) -> bytes:
        # All that is asked for besides is the end of the disk.
        return sealed[offset] if offset in sealed else volume.last_sector().rjust(length, b"\0")

    located, kernel = opened(volume, read)
    assert zones(located) == 3
    for at, plain in pieces.items():
        assert kernel.read(kernel.top, at // 512, chunk) == plain


def test_keys_are_on_stdin_only() -> None:
    volume = Volume(1 << 16, Shape(), (Secret((FILE,)),))
    image = volume.image()
    located = locate(lambda offset, length: image[offset : offset + length], volume.size)
    master = open_slots(located.metadata, Credential((FILE,)), Libcrypto())
    layers = stack("x", NUMBER, located, master)
    assert [layer.name for layer in layers] == ["eli-x-err", "eli-x-wide", "eli-x-dec", "eli-x"]
    key = layers[2].table.split()[4]
    assert len(key) == 128
    for layer in layers:
        command = layer.create({"err": "253:0", "wide": "253:1", "dec": "253:2"})
        assert key not in repr(command) and key not in repr(layer)


def test_memory_grows_with_the_disk() -> None:
    volume = Volume(1 << 16, Shape(), (Secret((FILE,)),))
    image = volume.image()
    small = locate(lambda offset, length: image[offset : offset + length], volume.size)
    assert zones(small) == 1
    disk = Volume(4_000_000_000_000, Shape(), (Secret((FILE,)),)).last_sector()
    large = locate(lambda _offset, length: disk.rjust(length, b"\0"), 4_000_000_000_000)
    assert zones(large) == 932
    assert 1.2 < device_mapper.memory(large) / (1 << 30) < 1.6


SOUND = Volume(1 << 16, Shape(), (Secret((FILE,)),)).image()


def sound(offset: int, length: int) -> bytes:
    return SOUND[offset : offset + length]


@pytest.mark.parametrize(
    "shape,word",
    [
        (Shape(cipher=CBC), "AES-CBC"),
        (Shape(flags=0x10), "authenticated"),
        (Shape(version=4), "version 4"),
        (Shape(sector=8192), "8192"),
    ],
)
def test_what_it_can_not_do(shape: Shape, word: str) -> None:
    image = Volume(1 << 16, shape, (Secret((FILE,)),), aalgo=18).image()
    found = locate(lambda offset, length: image[offset : offset + length], len(image))
    assert word in device_mapper.suits(found.metadata)
    assert device_mapper.suits(locate(sound, len(SOUND)).metadata) == ""
