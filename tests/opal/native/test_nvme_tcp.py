# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives on a TCP port, as a host sees them that speaks NVMe/TCP. What a kernel makes of them is for the VM suite."""

from __future__ import annotations

import itertools
import socket
import struct
import typing as t
from dataclasses import replace

import pytest

from ansible_collections.nasops.encryption.tests.opal.drive import PYRITE1, Drive, Range, Spec
from ansible_collections.nasops.encryption.tests.opal.media import extents, lost, touched
from ansible_collections.nasops.encryption.tests.opal.nvme_tcp import Target, name_of, target

SMALL = Spec("S1", blocks=4096)
WRITE, READ = 1, 2
DENIED, BAD_BLOCK = 0x4286, 0x4080


class Queue:
    """A queue of a host."""

    def __init__(self, where: Target, serial: str, number: int = 0, controller: int = 0xFFFF) -> None:
        self._socket = socket.create_connection(("127.0.0.1", where.port), 20)
        self._numbers = itertools.count(1)
        self._send(0, 128, bytes(120))
        kind, _place, _payload = self._receive()
        assert kind == 1
        about = bytes(16) + struct.pack("<H", controller)
        about = about.ljust(256, b"\0") + name_of(serial).encode().ljust(256, b"\0") + bytes(512)
        self.controller = self.run(0x7F, (number << 16, 127), about, inline=True, kind=1)[1]

    def run(
        self,
        opcode: int,
        words: t.Sequence[int],
        data: bytes = b"",
        room: int = 0,
        inline: bool = False,
        kind: int = 1,
        namespace: int = 1,
    ) -> tuple[int, int, bytes]:
        """Status, result and data of a command; ``words``: those from 10 on."""
        number = next(self._numbers)
        head = struct.pack("<BBH", opcode, 0, number) + struct.pack("<I", kind if opcode == 0x7F else namespace)
        command = head + bytes(24) + struct.pack("<I4x", len(data) or room)
        command += struct.pack(f"<{len(words)}I", *words)
        self._send(4, 72, command.ljust(64, b"\0"), data if inline else b"")
        while True:
            answer, place, payload = self._receive()
            if answer == 9:
                same, tag, offset, length = struct.unpack_from("<HHII", payload)
                assert (same, length) == (number, len(data) - offset)
                for at in range(offset, len(data), 5000):
                    piece = data[at : at + 5000]
                    self._send(6, 24, struct.pack("<HHII4x", number, tag, at, len(piece)), piece)
            elif answer == 7:
                return 0, 0, payload[place - 8 :]
            else:
                result, same, status = struct.unpack("<Q4xHH", payload)
                assert same == number
                return status >> 1, result, b""

    def read(self, block: int, count: int) -> tuple[int, bytes]:
        status, _result, data = self.run(READ, (block, 0, count - 1), room=count * 512)
        return status, data

    def write(self, block: int, data: bytes, inline: bool = False) -> int:
        return self.run(WRITE, (block, 0, len(data) // 512 - 1), data, inline=inline)[0]

    def close(self) -> None:
        self._socket.close()

    def _send(self, kind: int, length: int, head: bytes, data: bytes = b"") -> None:
        place = length if data else 0
        self._socket.sendall(struct.pack("<BBBBI", kind, 0, length, place, length + len(data)) + head + data)

    def _receive(self) -> tuple[int, int, bytes]:
        kind, _flags, _length, place, size = struct.unpack("<BBBBI", self._read(8))
        return kind, place, self._read(size - 8)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self._socket.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data


@pytest.fixture
def shelf() -> t.Iterator[Target]:
    with target() as one:
        yield one


def queues(where: Target, serial: str = "S1") -> tuple[Queue, Queue]:
    """The two queues of a drive: for administration, for reading and writing."""
    first = Queue(where, serial)
    return first, Queue(where, serial, 1, first.controller)


def lock(drive: Drive, number: int = 0, **flags: t.Any) -> None:
    drive.ranges[number] = replace(drive.ranges[number], **flags)


def test_a_host_finds_a_drive_and_its_security(shelf: Target) -> None:
    shelf.plug(SMALL)
    admin, _io = queues(shelf)
    assert admin.run(0x7F, (1, 0x00), kind=4)[1] & 0xFFFF == 127
    admin.run(0x7F, (0, 0x14, 1), kind=0)
    assert admin.run(0x7F, (0, 0x1C), kind=4)[1] == 1, "it is ready when it was enabled"
    found = admin.run(0x06, (1,), room=4096)[2]
    assert found[4:24].rstrip() == b"S1" and found[78:80] == struct.pack("<H", admin.controller)
    assert found[256] & 1, "it takes security commands"
    assert struct.unpack_from("<Q", admin.run(0x06, (0,), room=4096)[2])[0] == 4096
    assert admin.run(0x06, (2,), room=4096, namespace=0)[2][:8] == struct.pack("<II", 1, 0)
    shown = admin.run(0x82, (1 << 24 | 1 << 8, 2048), room=2048)[2]
    assert len(shown) == 2048 and shown[48:50] == b"\x00\x01", "Level 0 discovery begins with the TPer"
    assert admin.run(0x82, (7 << 24, 512), room=512)[0] == 0x4002
    assert admin.run(0x99, ())[0] == 0x4001


def test_what_is_locked_can_neither_be_read_nor_written(shelf: Target) -> None:
    drive = shelf.plug(SMALL)
    _admin, io = queues(shelf)
    text = bytes(range(256)) * 80
    assert io.write(8, text) == 0 and io.write(100, text[:512], inline=True) == 0
    assert io.read(8, 40) == (0, text) and io.read(100, 1) == (0, text[:512])
    assert io.read(4090, 7)[0] == BAD_BLOCK == io.write(4096, bytes(512))
    lock(drive, read_enabled=True, read_locked=True)
    assert io.read(8, 1)[0] == DENIED and io.write(8, bytes(512)) == 0
    lock(drive, read_locked=False, write_enabled=True, write_locked=True)
    assert io.read(8, 1) == (0, bytes(512)) and io.write(8, text[:512]) == DENIED


def test_a_power_cycle_ends_connections_and_locks(shelf: Target) -> None:
    drive, other = shelf.plug(SMALL), shelf.plug(replace(SMALL, serial="S2"))
    _admin, io = queues(shelf)
    _admin_2, io_2 = queues(shelf, "S2")
    for one in (drive, other):
        lock(one, read_enabled=True, write_enabled=True)
    io.write(0, b"kept" * 128)
    shelf.power_cycle(drive)
    with pytest.raises((EOFError, OSError)):
        io.read(0, 1)
    assert io_2.read(0, 1)[0] == 0, "the other one kept its power"
    _admin, io = queues(shelf)
    assert io.read(0, 1)[0] == DENIED
    lock(drive, read_locked=False)
    assert io.read(0, 1) == (0, b"kept" * 128)


@pytest.mark.parametrize("kind, kept", [(SMALL.kind, False), (PYRITE1, True)])
def test_data_is_gone_with_its_key(shelf: Target, kind: str, kept: bool) -> None:
    drive = shelf.plug(replace(SMALL, kind=kind))
    _admin, io = queues(shelf)
    text = b"data" * 128
    io.write(0, text)
    drive.revert()
    assert io.read(0, 1) == (0, text if kept else bytes(512))


def test_a_range_has_a_key_of_its_own(shelf: Target) -> None:
    drive = shelf.plug(SMALL)
    _admin, io = queues(shelf)
    drive.ranges[1] = replace(drive.ranges[1], start=8, length=8)
    for block in (0, 8, 16):
        io.write(block, b"data" * 128)
    drive.ranges[1] = replace(drive.ranges[1], key=-1)
    assert [io.read(block, 1)[1][:4] for block in (0, 8, 16)] == [b"data", bytes(4), b"data"]
    io.write(8, b"data" * 128)
    drive.ranges[0] = replace(drive.ranges[0], key=-2)
    assert [io.read(block, 1)[1][:4] for block in (0, 8, 16)] == [bytes(4), b"data", bytes(4)]


def revert_but_the_global_range(drive: Drive) -> None:
    drive.revert_locking(keep=True)


def move_with_a_new_key(drive: Drive) -> None:
    drive.ranges[1] = replace(drive.ranges[1], key=-1)
    drive.ranges[1] = replace(drive.ranges[1], start=24)


def move_and_then_a_new_key(drive: Drive) -> None:
    drive.ranges[1] = replace(drive.ranges[1], start=24)
    drive.ranges[1] = replace(drive.ranges[1], key=-1)


@pytest.mark.parametrize(
    "change, kept",
    [
        (revert_but_the_global_range, [True, False, True, True]),
        (move_with_a_new_key, [True, False, True, False]),
        (move_and_then_a_new_key, [True, False, True, False]),
    ],
)
def test_data_of_a_range_is_gone_wherever_the_range_is_by_then(
    shelf: Target, change: t.Callable[[Drive], None], kept: list[bool]
) -> None:
    drive = shelf.plug(SMALL)
    _admin, io = queues(shelf)
    drive.ranges[1] = replace(drive.ranges[1], start=8, length=8)
    places = (0, 8, 16, 24)
    for block in places:
        io.write(block, b"data" * 128)
    change(drive)
    assert [io.read(block, 1)[1][:4] == b"data" for block in places] == kept


def test_a_shadow_hides_what_is_there(shelf: Target) -> None:
    drive = shelf.plug(SMALL)
    _admin, io = queues(shelf)
    io.write(0, b"data" * 128)
    drive.mbr_table[:4] = b"boot"
    drive.mbr = replace(drive.mbr, enabled=True)
    assert io.read(0, 1)[1][:4] == b"boot" and io.write(0, bytes(512)) == DENIED
    drive.mbr = replace(drive.mbr, done=True)
    assert io.read(0, 1)[1][:4] == b"data"


def test_what_is_not_there_is_refused(shelf: Target) -> None:
    shelf.plug(SMALL)
    with pytest.raises((EOFError, OSError)):
        Queue(shelf, "S9")
    with pytest.raises((EOFError, OSError)):
        Queue(shelf, "S1", 1, 77)
    admin, io = queues(shelf)
    assert io.run(READ, (0, 0, 0), room=512, namespace=2)[0] == 0x400B
    assert admin.run(0x06, (0,), room=4096, namespace=2)[0] == 0x400B


def test_blocks_are_in_the_ranges_they_are_in() -> None:
    ranges = [Range(key=0), Range(16, 8, key=1), Range(8, 4, key=2)]
    assert touched(ranges, 0, 8) == [ranges[0]]
    assert touched(ranges, 16, 8) == [ranges[1]]
    assert touched(ranges, 8, 16) == [ranges[1], ranges[2], ranges[0]]
    assert extents(ranges, 0, 100) == [(0, 8), (12, 16), (24, 100)]
    assert [extents(ranges, number, 100) for number in (1, 2)] == [[(16, 24)], [(8, 12)]]


def test_blocks_lose_their_data_with_their_key() -> None:
    former = [Range(key=0), Range(16, 8, key=1)]
    assert lost(former, former, 100) == []
    assert lost(former, [Range(key=0, read_locked=True), Range(16, 8, key=1)], 100) == []
    assert lost(former, [Range(key=0), Range(16, 8, key=2)], 100) == [(16, 24)]
    assert lost(former, [Range(key=2), Range(16, 8, key=1)], 100) == [(0, 16), (24, 100)]
    assert lost(former, [Range(key=2), Range(key=3)], 100) == [(0, 100)]
    assert lost(former, [Range(key=0), Range(20, 8, key=1)], 100) == [(16, 20), (24, 28)]
