# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An NVMe controller with one namespace: as much of one as the driver of Linux asks for (NVMe 1.4, Fabrics 1.1)."""

from __future__ import annotations

import hashlib
import struct
import threading
import typing as t
from dataclasses import dataclass

from . import transports
from .drive import Drive
from .media import Denied, Media, OutOfRange
from .tper import TPer

FABRICS = 0x7F
CONNECT, _SET_PROPERTY, _GET_PROPERTY = 0x01, 0x00, 0x04

# Status codes. What fails here would fail again: "do not retry".
_NEVER = 0x4000
_BAD_OPCODE, _BAD_FIELD, _BAD_NAMESPACE, _BAD_BLOCK = (_NEVER | one for one in (0x01, 0x02, 0x0B, 0x80))
_DENIED = _NEVER | 0x286
_BAD_CONNECT = _NEVER | 0x182

_GET_LOG, _IDENTIFY, _SET_FEATURES, _GET_FEATURES, _EVENT, _KEEP_ALIVE = 0x02, 0x06, 0x09, 0x0A, 0x0C, 0x18
_QUEUES = 0x07
_FLUSH, _WRITE, _READ = 0x00, 0x01, 0x02
_NAMESPACE, _CONTROLLER, _NAMESPACES, _DESCRIPTORS = 0x00, 0x01, 0x02, 0x03
_SMART = 0x02

_CAP, _VS, _CC, _CSTS = 0x00, 0x08, 0x14, 0x1C
_VERSION = 0x00010400
# Queues of 128, ready within 10 seconds, the command set of NVM.
_CAPABILITIES = 127 | 1 << 16 | 20 << 24 | 1 << 37
# Bytes of data that may come with a command, and what one command may move in all (2 to the power of that many pages).
INLINE = 8192
_PAGES = 5


@dataclass(frozen=True)
class Command:
    """A submission queue entry, 64 bytes."""

    raw: bytes

    @property
    def opcode(self) -> int:
        return self.raw[0]

    @property
    def number(self) -> int:
        return int.from_bytes(self.raw[2:4], "little")

    @property
    def kind(self) -> int:
        """What a command of Fabrics is."""
        return self.raw[4]

    @property
    def namespace(self) -> int:
        return self.word(1)

    @property
    def length(self) -> int:
        """Bytes of its data, in whichever direction."""
        return self.word(8)

    @property
    def sends(self) -> bool:
        """Whether its data goes to the controller."""
        return bool(self.length) and (self.kind if self.opcode == FABRICS else self.opcode) & 3 == 1

    def word(self, number: int) -> int:
        """One of its 16 words of 32 bits; 10 to 15 mean something else in each command."""
        return t.cast(int, struct.unpack_from("<I", self.raw, 4 * number)[0])


@dataclass(frozen=True)
class Completion:
    """How a command ended; ``silent``: it does not end."""

    status: int = 0
    result: int = 0
    data: bytes = b""
    silent: bool = False


class Controller:
    """What a host sees of a drive. One for each host that connects; the drive is the same."""

    def __init__(self, number: int, name: str, tper: TPer, media: Media, lock: threading.Lock) -> None:
        """
        :param name: the NVMe Qualified Name
        :param lock: held while a command is carried out: a drive does one after another
        """
        self.number = number
        self._name = name
        self._tper = tper
        self._media = media
        self._lock = lock
        self._configuration = 0

    def run(self, queue: int, command: Command, data: bytes) -> Completion:
        """Carry out a command of a queue; that of number 0 is for administration.

        :raises Vanished: the drive is gone
        """
        if command.opcode == FABRICS:
            return self._fabrics(command, data)
        with self._lock:
            return self._transfer(command, data) if queue else self._administer(command, data)

    # Fabrics

    def _fabrics(self, command: Command, data: bytes) -> Completion:
        if command.kind == CONNECT:
            wanted = int.from_bytes(data[16:18], "little")
            queue = command.word(10) >> 16
            # An administrative queue makes the controller, the others name it.
            known = wanted == (self.number if queue else 0xFFFF)
            return Completion(result=self.number) if known else Completion(_BAD_CONNECT)
        offset = command.word(11)
        if command.kind == _GET_PROPERTY:
            found = {_CAP: _CAPABILITIES, _VS: _VERSION, _CC: self._configuration, _CSTS: self._state()}
            return Completion(result=found.get(offset, 0))
        if command.kind == _SET_PROPERTY and offset == _CC:
            self._configuration = command.word(12)
            return Completion()
        return Completion(_BAD_FIELD)

    def _state(self) -> int:
        ready, shut = self._configuration & 1, self._configuration >> 14 & 3
        return ready | (0b10 << 2 if shut else 0)

    # Administration

    def _administer(self, command: Command, data: bytes) -> Completion:
        if command.opcode in (transports.NVME_SEND, transports.NVME_RECEIVE):
            return self._secure(command, data)
        if command.opcode == _IDENTIFY:
            return self._identify(command)
        if command.opcode == _GET_LOG:
            known = command.word(10) & 0xFF == _SMART
            return Completion(data=smart().ljust(command.length, b"\0")) if known else Completion(_BAD_FIELD)
        if command.opcode in (_SET_FEATURES, _GET_FEATURES):
            # One queue for reading and writing; "how many" is counted from 0.
            return Completion() if command.word(10) & 0xFF == _QUEUES else Completion(_BAD_FIELD)
        if command.opcode == _KEEP_ALIVE:
            return Completion()
        return Completion(silent=True) if command.opcode == _EVENT else Completion(_BAD_OPCODE)

    def _secure(self, command: Command, data: bytes) -> Completion:
        # The same words at the same places, but for the length of the data.
        passed = command.raw[:36] + struct.pack("<I", command.length) + command.raw[40:64] + bytes(8)
        answer = transports.nvme(self._tper, passed, data)
        return Completion(answer.status and _NEVER | answer.status, data=answer.data[: command.length])

    def _identify(self, command: Command) -> Completion:
        wanted = command.word(10) & 0xFF
        if wanted == _CONTROLLER:
            return Completion(data=identify_controller(self._tper, self.number, self._name))
        if wanted == _NAMESPACES:
            listed = struct.pack("<I", 1) if command.namespace < 1 else b""
            return Completion(data=listed.ljust(4096, b"\0"))
        if wanted not in (_NAMESPACE, _DESCRIPTORS):
            return Completion(_BAD_FIELD)
        if command.namespace != 1:
            return Completion(_BAD_NAMESPACE)
        drive = self._tper.drive
        found = identify_namespace(drive) if wanted == _NAMESPACE else bytes((1, 8, 0, 0)) + eui64(drive)
        return Completion(data=found.ljust(4096, b"\0"))

    # Reading and writing

    def _transfer(self, command: Command, data: bytes) -> Completion:
        if command.namespace != 1:
            return Completion(_BAD_NAMESPACE)
        self._tper.present()
        block, count = command.word(10) | command.word(11) << 32, (command.word(12) & 0xFFFF) + 1
        try:
            if command.opcode == _READ:
                return Completion(data=self._media.read(block, count))
            if command.opcode == _WRITE:
                self._media.write(block, data)
                return Completion()
        except Denied:
            return Completion(_DENIED)
        except OutOfRange:
            return Completion(_BAD_BLOCK)
        return Completion() if command.opcode == _FLUSH else Completion(_BAD_OPCODE)


def identify_controller(tper: TPer, number: int, name: str) -> bytes:
    """What a controller is."""
    data = bytearray(transports.nvme_identify(tper))
    data[77] = _PAGES
    struct.pack_into("<HI", data, 78, number, _VERSION)
    # For reading and writing.
    data[111] = 1
    # Keep-alive in units of 100 ms.
    struct.pack_into("<H", data, 320, 10)
    # Sizes of queue entries, commands at a time, one namespace.
    struct.pack_into("<BBHI", data, 512, 0x66, 0x44, 128, 1)
    # Data behind commands, by scatter-gather lists with an offset.
    struct.pack_into("<I", data, 536, 1 | 1 << 20)
    data[768:1024] = name.encode("ascii").ljust(256, b"\0")
    # In units of 16 bytes: a command with its data, a completion.
    struct.pack_into("<IIHBB", data, 1792, (64 + INLINE) // 16, 1, 0, 0, 1)
    return bytes(data)


def identify_namespace(drive: Drive) -> bytes:
    """What its namespace is."""
    blocks, size = drive.spec.blocks, drive.spec.block_size
    data = bytearray(4096)
    struct.pack_into("<QQQ", data, 0, blocks, blocks, blocks)
    data[120:128] = eui64(drive)
    data[130] = size.bit_length() - 1
    return bytes(data)


def eui64(drive: Drive) -> bytes:
    """The name of the namespace, which no other drive has."""
    spec = drive.spec
    return bytes.fromhex(spec.wwn) if spec.wwn else hashlib.sha256(spec.serial.encode("ascii")).digest()[:8]


def smart() -> bytes:
    """A page of health: 27 degrees, nothing wrong."""
    data = bytearray(512)
    struct.pack_into("<H", data, 1, 300)
    data[3] = 100
    return bytes(data)
