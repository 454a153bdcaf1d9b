# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the decrypted content of a provider."""

from __future__ import annotations

import typing as t

from ..errors import StorageError
from .cipher import Decryptor, Engine
from .keys import ZONE_SHIFT, MasterKey, single_key, vectors, zone_key, zone_of
from .metadata import Located, Reader

# What is decrypted in one go, in bytes; a multiple of every sector. It fits into a processor's cache, and malloc serves
# it from memory that is mapped already; from 256 KiB on page faults take longer than the cipher.
CHUNK = 128 << 10
# Zones whose expanded keys are kept: a reader goes along one, and now and then looks at the labels at both ends.
_KEPT = 4


class Unsupported(StorageError):
    """A kind of volume whose content this collection does not read."""


class Plaintext:
    """The decrypted content of a provider, read piece by piece. Nothing is ever written.

    :raises Unsupported: sectors are authenticated
    :raises NoCipher: the engine does not know the cipher
    """

    def __init__(self, read: Reader, located: Located, master: MasterKey, engine: Engine) -> None:
        metadata = located.metadata
        if metadata.authenticated:
            raise Unsupported(
                f"The disk was encrypted with authentication ({metadata.authentication}), which is not read here.",
                hint="FreeNAS never made such disks. Attach it on FreeBSD with geli(8).",
            )
        self.size = located.size
        self._read = read
        self._metadata = metadata
        self._master = master
        self._engine = engine
        self._decryptors: dict[int, Decryptor] = {}
        self._decryptor(0)

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` decrypted bytes at an offset, fewer only at the end.

        :raises OSError: from the reader
        :raises StorageError: the disk gave fewer bytes than its size promises
        """
        end = min(offset + length, self.size)
        if offset < 0 or offset >= end:
            return b""
        step = self._metadata.sector_size
        first = offset // step * step
        parts = [self._piece(at, stop) for at, stop in self._pieces(first, -(-end // step) * step)]
        return b"".join(parts)[offset - first : end - first]

    def _pieces(self, start: int, stop: int) -> t.Iterator[tuple[int, int]]:
        """The range cut into what has one key, and is small enough to be decrypted in one go."""
        zone = self._metadata.sector_size << ZONE_SHIFT
        while start < stop:
            until = min(stop, start + CHUNK)
            if not single_key(self._metadata):
                until = min(until, (start // zone + 1) * zone)
            yield start, until
            start = until

    def _piece(self, start: int, stop: int) -> bytes:
        data = self._read(start, stop - start)
        if len(data) != stop - start:
            raise StorageError(f"The disk ended at byte {start + len(data)}, {stop} were expected.")
        step = self._metadata.sector_size
        decryptor = self._decryptor(zone_of(self._metadata, start // step))
        return decryptor.decrypt(data, step, vectors(self._metadata, self._master, start, len(data) // step))

    def _decryptor(self, zone: int) -> Decryptor:
        found = self._decryptors.pop(zone, None)
        if found is None:
            key = zone_key(self._metadata, self._master, zone)
            found = self._engine.decryptor(self._metadata.algorithm, self._metadata.key_bits, key)
        # The one that was used last is kept longest.
        self._decryptors[zone] = found
        while len(self._decryptors) > _KEPT:
            del self._decryptors[next(iter(self._decryptors))]
        return found
