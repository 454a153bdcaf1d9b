# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes GELI disks as FreeNAS made them. It shares no code with the reader, so that they can't agree on a mistake.

On a NAS it is a program: ``writer.py DEVICE`` encrypts a device in place, as the JSON on its standard input describes.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import json
import os
import random
import struct
import sys
import typing as t
import uuid
import zlib
from dataclasses import dataclass

XTS, CBC, CAMELLIA, NULL, TRIPLE_DES = 22, 11, 21, 16, 2

MIB = 1 << 20
LBA = 512
SWAP = uuid.UUID("516e7cb5-6ecf-11d6-8ff8-00022d09712b")
ZFS = uuid.UUID("516e7cba-6ecf-11d6-8ff8-00022d09712b")
# Where gpart puts the first partition with "-b 128", and what it aligns the others to; sectors.
FIRST_LBA, ALIGN_LBA = 128, 8


@dataclass(frozen=True)
class Secret:
    """What opens a slot."""

    key_files: tuple[bytes, ...] = ()
    passphrase: bytes | None = None


@dataclass(frozen=True)
class Shape:
    """How a provider is encrypted."""

    version: int = 7
    cipher: int = XTS
    bits: int = 256
    sector: int = 4096
    iterations: int = -1
    flags: int = 0
    provider_sector: int = 512


# 2012-08 to 2013-02; until FreeNAS 11.0; since 2017-05. The first two with FreeBSD 8 or 9 below, or later.
SHAPES = {
    "2012": Shape(version=5, bits=128, sector=512),
    "2013": Shape(version=6, bits=128, sector=4096),
    "2014": Shape(version=7, bits=128, sector=4096),
    "2017": Shape(version=7, bits=256, sector=4096),
}


def usable(size: int, shape: Shape) -> int:
    """Bytes of the decrypted device of a provider of ``size`` bytes."""
    return (size - shape.provider_sector) // shape.sector * shape.sector


class Volume:
    """A provider of ``size`` bytes with its keys."""

    def __init__(
        self, size: int, shape: Shape, slots: t.Sequence[Secret | None], seed: int = 1, aalgo: int = 0
    ) -> None:
        source = random.Random(seed)
        self.size, self.shape = size, shape
        self.salt = source.randbytes(64)
        self.iv_key, self.data_key = source.randbytes(64), source.randbytes(64)
        self.metadata = self._metadata(slots, source, aalgo)

    def _metadata(self, slots: t.Sequence[Secret | None], source: random.Random, aalgo: int) -> bytes:
        shape = self.shape
        used = sum(1 << number for number, secret in enumerate(slots) if secret is not None)
        fields = struct.pack("<16sIIHH", b"GEOM::ELI", shape.version, shape.flags, shape.cipher, shape.bits)
        if shape.version:
            fields += struct.pack("<H", aalgo)
        fields += struct.pack("<QIBi", self.size, shape.sector, used, shape.iterations) + self.salt
        for number in range(2):
            secret = slots[number] if number < len(slots) else None
            fields += source.randbytes(192) if secret is None else self._slot(secret)
        return fields + hashlib.md5(fields).digest()

    def _slot(self, secret: Secret) -> bytes:
        shape = self.shape
        text = b"".join(secret.key_files)
        if secret.passphrase is not None and shape.iterations > 0:
            text += hashlib.pbkdf2_hmac("sha512", secret.passphrase, self.salt, shape.iterations)
        elif secret.passphrase is not None:
            text += self.salt + secret.passphrase
        user = sha512_hmac(b"", text)
        plain = self.iv_key + self.data_key
        plain += sha512_hmac(sha512_hmac(user, b"\0"), plain)
        cipher = CBC if shape.cipher == XTS else shape.cipher
        block = 8 if cipher == TRIPLE_DES else 16
        return encrypt(cipher, shape.bits, sha512_hmac(user, b"\1")[: shape.bits // 8], [(bytes(block), plain)])

    def seal(self, offset: int, plain: bytes) -> bytes:
        """Whole sectors, encrypted for their place."""
        shape, result = self.shape, b""
        at = 0
        while at < len(plain):
            number = (offset + at) // shape.sector
            last = (number // (1 << 20) + 1) * (1 << 20)
            until = min(len(plain), at + (last - number) * shape.sector)
            units = [
                (self._vector(offset + here), plain[here : here + shape.sector])
                for here in range(at, until, shape.sector)
            ]
            halves = 2 if shape.cipher == XTS else 1
            key = self._zone_key(number // (1 << 20))[: halves * shape.bits // 8]
            result += encrypt(shape.cipher, shape.bits, key, units)
            at = until
        return result

    def _zone_key(self, zone: int) -> bytes:
        if self.shape.version < 5:
            return self.data_key
        base = self.iv_key if self.shape.version < 7 else self.data_key
        return sha512_hmac(base, b"ekey" + zone.to_bytes(8, "little"))

    def _vector(self, offset: int) -> bytes:
        place = struct.pack("<Q", offset)
        if self.shape.cipher == XTS:
            return place + bytes(8)
        return hashlib.sha256(self.iv_key + place).digest()[: 8 if self.shape.cipher == TRIPLE_DES else 16]

    def image(self, plain: bytes = b"") -> bytes:
        """The whole provider; what ``plain`` does not reach decrypts to zeros."""
        content = plain.ljust(usable(self.size, self.shape), b"\0")
        return self.seal(0, content).ljust(self.size - self.shape.provider_sector, b"\0") + self.last_sector()

    def last_sector(self) -> bytes:
        return self.metadata.ljust(self.shape.provider_sector, b"\0")


def encrypt_in_place(path: str, volume: Volume, start: int = 0) -> None:
    """Encrypt what is on a device or file from byte ``start`` on, and write the metadata behind it."""
    with open(path, "r+b", buffering=0) as file:
        for at in range(0, usable(volume.size, volume.shape), MIB):
            length = min(MIB, usable(volume.size, volume.shape) - at)
            plain = os.pread(file.fileno(), length, start + at)
            os.pwrite(file.fileno(), volume.seal(at, plain), start + at)
        os.pwrite(file.fileno(), volume.last_sector(), start + volume.size - volume.shape.provider_sector)
        os.fsync(file.fileno())


# GPT


@dataclass(frozen=True)
class Disk:
    """A disk as FreeNAS partitioned it; offsets and lengths in bytes."""

    size: int
    swap: tuple[int, int]
    data: tuple[int, int]
    partuuid: str
    head: bytes
    tail: bytes


def partition(size: int, swap: int, partuuid: str) -> Disk:
    """The partition table of a disk: swap of so many bytes first, the rest for ZFS; both aligned to 4 KiB."""
    sectors = size // LBA
    first = FIRST_LBA + -(-swap // LBA // ALIGN_LBA) * ALIGN_LBA
    # The backup table: 32 sectors of entries and the header.
    last = (sectors - 34 - first + 1) // ALIGN_LBA * ALIGN_LBA + first - 1
    entries = _entry(SWAP, uuid.uuid5(ZFS, partuuid), FIRST_LBA, first - 1) + _entry(
        ZFS, uuid.UUID(partuuid), first, last
    )
    entries = entries.ljust(128 * 128, b"\0")
    protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    mbr = bytes(446) + protective + bytes(48) + b"\x55\xaa"
    disk_id = uuid.uuid5(SWAP, partuuid)
    head = mbr + _header(1, sectors - 1, 2, sectors, disk_id, entries) + entries
    tail = entries + _header(sectors - 1, 1, sectors - 33, sectors, disk_id, entries)
    return Disk(
        size,
        (FIRST_LBA * LBA, (first - FIRST_LBA) * LBA),
        (first * LBA, (last - first + 1) * LBA),
        partuuid,
        head,
        tail,
    )


def _entry(kind: uuid.UUID, own: uuid.UUID, first: int, last: int) -> bytes:
    return struct.pack("<16s16sQQQ72s", kind.bytes_le, own.bytes_le, first, last, 0, b"")


def _header(here: int, other: int, entries_at: int, sectors: int, disk: uuid.UUID, entries: bytes) -> bytes:
    def packed(checksum: int) -> bytes:
        return struct.pack(
            "<8s4sIIIQQQQ16sQIII",
            b"EFI PART",
            b"\0\0\1\0",
            92,
            checksum,
            0,
            here,
            other,
            34,
            sectors - 34,
            disk.bytes_le,
            entries_at,
            128,
            128,
            zlib.crc32(entries),
        )

    return packed(zlib.crc32(packed(0))).ljust(LBA, b"\0")


def write_disk(path: str, disk: Disk, volume: Volume, plain: bytes = b"") -> None:
    """A disk image with a GELI volume in its second partition, which holds ``plain`` and then zeros."""
    with open(path, "wb") as file:
        file.truncate(disk.size)
        file.write(disk.head)
        file.seek(disk.size - len(disk.tail))
        file.write(disk.tail)
        file.seek(disk.data[0])
        file.write(volume.image(plain))


# libcrypto, for encryption


def encrypt(cipher: int, bits: int, key: bytes, units: t.Iterable[tuple[bytes, bytes]]) -> bytes:
    """The units encrypted with one key, each with its initialization vector."""
    if cipher == NULL:
        return b"".join(plain for _vector, plain in units)
    names = {
        XTS: f"EVP_aes_{bits}_xts",
        CBC: f"EVP_aes_{bits}_cbc",
        CAMELLIA: f"EVP_camellia_{bits}_cbc",
        TRIPLE_DES: "EVP_des_ede3_cbc",
    }
    library = _libcrypto()
    library.EVP_CIPHER_CTX_new.restype = ctypes.c_void_p
    make = getattr(library, names[cipher])
    make.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.EVP_CIPHER_CTX_new())
    length, result = ctypes.c_int(), []
    try:
        assert library.EVP_EncryptInit_ex(context, ctypes.c_void_p(make()), None, key, None) == 1
        library.EVP_CIPHER_CTX_set_padding(context, 0)
        for vector, plain in units:
            out = ctypes.create_string_buffer(len(plain))
            assert library.EVP_EncryptInit_ex(context, None, None, None, vector) == 1
            assert library.EVP_EncryptUpdate(context, out, ctypes.byref(length), plain, len(plain)) == 1
            assert length.value == len(plain)
            result.append(out.raw)
    finally:
        library.EVP_CIPHER_CTX_free(context)
    return b"".join(result)


def _libcrypto() -> ctypes.CDLL:
    for name in ("libcrypto.so.3", "libcrypto.so.1.1"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError("no libcrypto on this machine")


def sha512_hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, "sha512").digest()


def main() -> None:
    wanted = json.load(sys.stdin)
    with open(sys.argv[1], "rb") as file:
        size = file.seek(0, os.SEEK_END)
    slots = [
        Secret(
            tuple(bytes.fromhex(one) for one in slot.get("key_files", ())),
            slot["passphrase"].encode() if "passphrase" in slot else None,
        )
        for slot in wanted["slots"]
    ]
    shape = Shape(**wanted.get("shape", {}))
    encrypt_in_place(sys.argv[1], Volume(size, shape, slots, wanted.get("seed", 1)))


if __name__ == "__main__":
    main()
