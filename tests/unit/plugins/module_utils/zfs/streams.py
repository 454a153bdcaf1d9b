# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams as zfs send makes them, put together from records."""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.stream_digest import (
    BEGIN,
    END,
    FREE,
    FREEOBJECTS,
    MAGIC,
    OBJECT,
    RECORD,
    SPILL,
    WRITE,
)


@dataclass(frozen=True)
class Maker:
    """Makes records in one byte order. ``noise`` stands for what differs between two hosts."""

    order: str = "<"
    noise: int = 0

    def begin(self, features: int = 0, kind: int = 1, after: bytes = b"") -> bytes:
        version = features << 2 | kind
        numbers = (MAGIC, version, 1700000000 + self.noise, 2, self.noise, 77 + self.noise, 0)
        body = struct.pack(f"{self.order}QQQIIQQ", *numbers) + f"pool{self.noise}/docs@a".encode()
        return self.record(BEGIN, body, len(after)) + after

    def record(self, kind: int, body: bytes, length: int = 0) -> bytes:
        return (struct.pack(f"{self.order}II", kind, length) + body).ljust(RECORD - 32, b"\0") + bytes(
            [self.noise]
        ) * 32

    def object(self, number: int, bonus: bytes = b"attributes", kind: int = 19, raw: int = 0) -> bytes:
        numbers = (number, kind, 44, 4096, len(bonus), self.noise, self.noise, 1, 0, raw, 77 + self.noise)
        body = struct.pack(f"{self.order}QIIIIBBBBIQ", *numbers)
        return self.record(OBJECT, body) + bonus.ljust((len(bonus) + 7) // 8 * 8, b"\0")

    def write(self, number: int, offset: int, data: bytes, compressed: int = 0, length: int | None = None) -> bytes:
        size = len(data) if length is None else length
        numbers = (number, 19, 0, offset, size, 77 + self.noise, self.noise, 0, compressed)
        return self.record(WRITE, struct.pack(f"{self.order}QIIQQQBBB", *numbers)) + data

    def spill(self, number: int, data: bytes, compressed: int = 0) -> bytes:
        body = struct.pack(f"{self.order}QQQBB", number, len(data), 77 + self.noise, 0, compressed)
        return self.record(SPILL, body) + data

    def free(self, number: int, offset: int, length: int) -> bytes:
        return self.record(FREE, struct.pack(f"{self.order}QQQQ", number, offset, length, 77 + self.noise))

    def free_objects(self, first: int, count: int) -> bytes:
        return self.record(FREEOBJECTS, struct.pack(f"{self.order}QQQ", first, count, 77 + self.noise))

    def end(self) -> bytes:
        return self.record(END, bytes([self.noise]) * 40)

    def stream(self, *records: bytes, begin: bytes | None = None) -> bytes:
        return b"".join((self.begin() if begin is None else begin, *records, self.end()))


def file(maker: Maker, blocks: t.Mapping[int, bytes], number: int = 7) -> bytes:
    """A file of several blocks."""
    return maker.object(number) + b"".join(maker.write(number, offset, data) for offset, data in blocks.items())
