# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata of GELI (FreeBSD's geom_eli), versions 0 to 7: found, parsed and checked, without any key.

There is one copy, in the last sector of what was encrypted ("the provider", on FreeNAS a partition). All numbers are
little-endian and packed; the rest of the sector is of no meaning. Layout and rules are those of FreeBSD's
``sys/geom/eli/g_eli.h``. Whatever the bytes are, nothing here needs more than the last 8 KiB of the provider.
"""

from __future__ import annotations

import hashlib
import struct
import typing as t
from dataclasses import dataclass, field

from ..errors import StorageError

# Gives ``length`` bytes at an offset, fewer only at the end.
Reader = t.Callable[[int, int], bytes]

MAGIC = b"GEOM::ELI"
NEWEST_VERSION = 7
KEY_BYTES = 64
SALT_BYTES = 64
# IV-key, data-key, and what proves that they were decrypted with the right key.
SLOT_BYTES = 3 * KEY_BYTES
SLOTS = 2

# The order in which sectors of disks are common; bytes.
PROVIDER_SECTORS = (512, 4096, 1024, 2048, 8192)
_SECTOR_SIZES = (512, 1024, 2048, 4096, 8192)

_HEAD = struct.Struct("<16sIIHH")
_AUTHENTICATION = struct.Struct("<H")
_BODY = struct.Struct(f"<QIBi{SALT_BYTES}s{SLOT_BYTES}s{SLOT_BYTES}s")
_DIGEST_BYTES = 16
# Bytes of all fields; version 0 lacks the authentication algorithm.
LENGTH = _HEAD.size + _AUTHENTICATION.size + _BODY.size + _DIGEST_BYTES
LENGTH_V0 = LENGTH - _AUTHENTICATION.size

FLAG_AUTH = 0x10
_FLAGS = {
    0x1: "onetime",
    0x2: "boot",
    0x4: "wo_detach",
    0x8: "rw_detach",
    FLAG_AUTH: "auth",
    0x20: "read_only",
    0x40: "nodelete",
    0x80: "geliboot",
    0x100: "display_pass",
    0x200: "autoresize",
}


@dataclass(frozen=True)
class Algorithm:
    """A cipher as the metadata numbers it. ``key_bits`` are the lengths it may have, of AES-XTS those of one half."""

    number: int
    name: str
    # Bytes of a block, which are those of an initialization vector too.
    block: int
    key_bits: tuple[int, ...]

    @property
    def halves(self) -> int:
        """Keys of that length that are needed: AES-XTS has one for the data and one for the tweak."""
        return 2 if self.number == AES_XTS else 1


AES_XTS = 22
AES_CBC = 11
CAMELLIA_CBC = 21
NULL = 16
BLOWFISH_CBC = 3
TRIPLE_DES_CBC = 2

_ALGORITHMS = {
    one.number: one
    for one in (
        Algorithm(AES_XTS, "AES-XTS", 16, (128, 256)),
        Algorithm(AES_CBC, "AES-CBC", 16, (128, 192, 256)),
        Algorithm(CAMELLIA_CBC, "Camellia-CBC", 16, (128, 192, 256)),
        Algorithm(NULL, "NULL", 16, tuple(range(513))),
        Algorithm(BLOWFISH_CBC, "Blowfish-CBC", 8, tuple(range(128, 449, 32))),
        Algorithm(TRIPLE_DES_CBC, "3DES-CBC", 8, (192,)),
    )
}
_AUTHENTICATIONS = {
    6: "HMAC/MD5",
    7: "HMAC/SHA1",
    8: "HMAC/RIPEMD160",
    18: "HMAC/SHA256",
    19: "HMAC/SHA384",
    20: "HMAC/SHA512",
}


class NotGeli(StorageError):
    """There is no GELI metadata where it would be."""


class BadMetadata(StorageError):
    """There is GELI metadata, but it is damaged, or nothing this collection understands."""


@dataclass(frozen=True)
class Metadata:
    """What the metadata of one provider says. It has been checked; key material is never shown."""

    version: int
    flags: int
    algorithm: Algorithm
    # Bits of a key, of AES-XTS those of one half.
    key_bits: int
    # Name of the authentication algorithm, empty unless sectors are authenticated.
    authentication: str
    # Bytes of the provider when it was made or last resized, the sector of the metadata included.
    provider_size: int
    # Bytes of a sector of the decrypted device.
    sector_size: int
    # Numbers of the slots in use, 0 and 1.
    slots: tuple[int, ...]
    # PBKDF2 rounds, 0 for a passphrase without PBKDF2, -1 if there never was a passphrase. One number for both slots.
    iterations: int
    salt: bytes = field(repr=False)
    # Both slots, encrypted; one that is not in use holds random bytes.
    master_keys: tuple[bytes, ...] = field(repr=False)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The flags in words; bits that no FreeBSD knew are left out, as FreeBSD does when it reads."""
        return tuple(name for bit, name in _FLAGS.items() if self.flags & bit)

    @property
    def authenticated(self) -> bool:
        """Whether each sector carries a checksum with a key, so that data is laid out in another way."""
        return bool(self.flags & FLAG_AUTH)


@dataclass(frozen=True)
class Located:
    """Metadata, and the sector of the provider it was found in.

    ``problem`` tells why it does not fit the provider, in words; empty when it does.
    """

    metadata: Metadata
    # Bytes.
    provider_sector: int
    problem: str = ""

    @property
    def size(self) -> int:
        """Bytes of the decrypted device: whole sectors of it before the one with the metadata."""
        return decrypted_size(self.metadata, self.provider_sector)


def decrypted_size(metadata: Metadata, provider_sector: int) -> int:
    """Bytes of the decrypted device of a provider with sectors of so many bytes; of authenticated ones 0."""
    if metadata.authenticated:
        return 0
    return (metadata.provider_size - provider_sector) // metadata.sector_size * metadata.sector_size


def locate(read: Reader, size: int) -> Located:
    """The metadata of a provider of ``size`` bytes.

    One that fits the provider is preferred; a disk that was encrypted with other sectors before may hold two.

    :raises NotGeli: there is none
    :raises BadMetadata: there is, but it can't be used
    :raises OSError: from ``read``
    """
    edge = min(size, max(PROVIDER_SECTORS))
    tail = read(size - edge, edge)
    problem: BadMetadata | None = None
    other: Located | None = None
    for sector in PROVIDER_SECTORS:
        content = tail[-sector:] if len(tail) >= sector else b""
        if not is_geli(content):
            continue
        try:
            found = Located(parse(content), sector)
        except BadMetadata as error:
            problem = problem or error
            continue
        if found.metadata.provider_size == size:
            return found
        other = other or Located(found.metadata, sector, _misfit(found.metadata.provider_size, size, sector))
    if other is not None:
        return other
    if problem is not None:
        raise problem
    raise NotGeli(
        "There is no GELI metadata in the last sector.",
        hint="Is it the partition that was encrypted (on FreeNAS the second one), and of its first size? That of one "
        "which was made larger is still where it ended before: give it back that size, and write nothing to it.",
    )


def is_geli(sector: bytes) -> bool:
    """Whether a sector begins as GELI's metadata does."""
    return sector.startswith(MAGIC + b"\0")


def parse(sector: bytes) -> Metadata:
    """The metadata at the start of ``sector``.

    :raises NotGeli: it does not begin as GELI's does
    :raises BadMetadata: truncated, damaged (its MD5 tells), of a version or cipher that is not known, or with numbers
        that FreeBSD would never write
    """
    if not is_geli(sector):
        raise NotGeli("The sector does not begin with GELI's magic.")
    if len(sector) < _HEAD.size:
        raise BadMetadata(f"GELI metadata is cut off after {len(sector)} bytes; wanted are {LENGTH_V0} or more.")
    _magic, version, flags, ealgo, key_bits = _HEAD.unpack_from(sector)
    if version > NEWEST_VERSION:
        raise BadMetadata(
            f"GELI metadata is of version {version}; FreeBSD knows versions up to {NEWEST_VERSION}.",
            hint="It is damaged, or of a FreeBSD that is newer than this collection.",
        )
    length = LENGTH if version else LENGTH_V0
    if len(sector) < length:
        raise BadMetadata(f"GELI metadata is cut off after {len(sector)} bytes; version {version} has {length}.")
    digest_at = length - _DIGEST_BYTES
    # What FreeBSD guards against is an accident; nothing relies on MD5 here.
    if _md5(sector[:digest_at]) != sector[digest_at:length]:
        raise BadMetadata(
            "GELI metadata is damaged: its checksum does not fit.",
            hint="If there is a copy from 'geli backup', write it back with 'geli restore' on FreeBSD.",
        )
    aalgo = _AUTHENTICATION.unpack_from(sector, _HEAD.size)[0] if version else 0
    body_at = _HEAD.size + (_AUTHENTICATION.size if version else 0)
    provider_size, sector_size, keys, iterations, salt, *master_keys = _BODY.unpack_from(sector, body_at)
    metadata = Metadata(
        version=version,
        flags=flags,
        algorithm=_algorithm(ealgo),
        key_bits=key_bits,
        authentication=_authentication(aalgo) if flags & FLAG_AUTH else "",
        provider_size=provider_size,
        sector_size=sector_size,
        slots=tuple(slot for slot in range(SLOTS) if keys & 1 << slot),
        iterations=iterations,
        salt=salt,
        master_keys=tuple(master_keys),
    )
    _check(metadata, keys)
    return metadata


def _algorithm(number: int) -> Algorithm:
    if number not in _ALGORITHMS:
        raise BadMetadata(f"GELI metadata names cipher {number}, which no FreeBSD has used for it.")
    return _ALGORITHMS[number]


def _authentication(number: int) -> str:
    if number not in _AUTHENTICATIONS:
        raise BadMetadata(f"GELI metadata names authentication {number}, which no FreeBSD has used for it.")
    return _AUTHENTICATIONS[number]


def _check(metadata: Metadata, keys: int) -> None:
    """Refuse numbers that FreeBSD would never write, since everything that follows relies on them."""
    algorithm = metadata.algorithm
    if metadata.key_bits not in algorithm.key_bits:
        raise BadMetadata(f"GELI metadata tells of a key of {metadata.key_bits} bits for {algorithm.name}.")
    if metadata.sector_size not in _SECTOR_SIZES:
        raise BadMetadata(
            f"GELI metadata tells of sectors of {metadata.sector_size} bytes; known are 512, 1024, 2048, 4096 and 8192."
        )
    if metadata.provider_size < metadata.sector_size + min(PROVIDER_SECTORS):
        raise BadMetadata(
            f"GELI metadata tells of a provider of {metadata.provider_size} bytes, too few for a single sector."
        )
    if keys >> SLOTS:
        raise BadMetadata(f"GELI metadata tells of key slots {keys:#x}; there are only two.")
    if metadata.iterations < -1:
        raise BadMetadata(f"GELI metadata tells of {metadata.iterations} PBKDF2 iterations.")


def _misfit(told: int, size: int, sector: int) -> str:
    """:param sector: how many bytes before the end of this one the metadata begins"""
    found = f"The metadata is for a provider of {told} bytes, this one has {size}"
    if told < size and told - (size - sector) in PROVIDER_SECTORS:
        return f"{found}: it was grown afterwards, by less than a sector can have."
    # One whose end was moved farther has no metadata at its new end, whether it has become larger or smaller.
    return f"{found}: that one ended here, too, but did not begin here, or the metadata was copied to this place."


def _md5(data: bytes) -> bytes:
    digest = hashlib.new("md5", usedforsecurity=False)
    digest.update(data)
    return digest.digest()
