# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulated drives on a TCP port: the NVMe driver of Linux makes real devices of them, on a virtual machine as well.

To the kernel that connects, such a drive is as one on its bus: /dev/nvme0 takes security commands, /dev/nvme0n1 is a
block device, and reading or writing what is locked fails there (NVMe/TCP Transport 1.0).
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import typing as t
from dataclasses import dataclass, field

from .drive import Drive, Spec
from .listening import Closed, Listening, receive
from .media import Media
from .nvme_controller import CONNECT, FABRICS, Command, Completion, Controller
from .tper import TPer, Vanished

_HEADER = struct.Struct("<BBBBI")
_TRANSFER = struct.Struct("<HHII4x")
_INIT, _INIT_ANSWER, _COMMAND, _COMPLETION, _FROM_HOST, _TO_HOST, _READY = 0, 1, 4, 5, 6, 7, 9
_INIT_SIZE, _COMMAND_SIZE, _COMPLETION_SIZE, _TRANSFER_SIZE = 128, 72, 24, 24
# The last piece of data, and that stands for success.
_LAST, _SUCCESS = 0x04, 0x08
# Bytes of data in one piece; no host sends more with one command.
_PIECE = 1 << 20
_LONGEST = _COMMAND_SIZE + _PIECE
_NAME = "nqn.2014-08.org.nvmexpress:opal-emulator:"


class ProtocolError(Exception):
    """The host says something that can't be understood."""


@dataclass
class _Bay:
    """A drive, and the connections to it."""

    tper: TPer
    media: Media
    lock: threading.Lock = field(default_factory=threading.Lock)
    connections: list[socket.socket] = field(default_factory=list)
    controllers: dict[int, Controller] = field(default_factory=dict)


class Target:
    """Emulated drives on a port of this machine, until :meth:`close`."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self._bays: dict[str, _Bay] = {}
        self._numbers = itertools.count(1)
        listener = socket.create_server((address, port))
        self.port: int = listener.getsockname()[1]
        self._listening = Listening(listener, self._serve)

    def close(self) -> None:
        self._listening.close()
        for name, bay in self._bays.items():
            self._hang_up(name)
            with bay.lock:
                bay.media.close()

    def plug(self, spec: Spec) -> Drive:
        """A new drive; only its serial number tells it from the others."""
        drive = Drive(spec)
        self._bays[name_of(spec.serial)] = _Bay(TPer(drive), Media(drive))
        return drive

    def power_cycle(self, *drives: Drive) -> None:
        """Off and on. Who is connected loses the connection, and may make another one."""
        for name, bay in self._bays.items():
            if bay.tper.drive in drives:
                with bay.lock:
                    bay.tper.drive.power_cycle()
                self._hang_up(name)

    def _hang_up(self, name: str) -> None:
        bay = self._bays[name]
        bay.controllers.clear()
        for connection in list(bay.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # Connections

    def _serve(self, connection: socket.socket) -> None:
        bay: _Bay | None = None
        with connection, contextlib.suppress(ProtocolError, Closed, Vanished, OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = _Line(connection)
            line.begin()
            command, data = line.command()
            if command.opcode != FABRICS or command.kind != CONNECT or len(data) != 1024:
                raise ProtocolError("a queue begins with Connect")
            bay = self._bays.get(data[256:512].split(b"\0")[0].decode("utf-8", "replace"))
            if bay is None:
                raise ProtocolError("there is no such drive")
            bay.connections.append(connection)
            queue = command.word(10) >> 16
            controller = self._controller(bay, queue, int.from_bytes(data[16:18], "little"))
            while True:
                line.complete(command, controller.run(queue, command, data))
                command, data = line.command()
        if bay is not None:
            bay.connections.remove(connection)

    def _controller(self, bay: _Bay, queue: int, wanted: int) -> Controller:
        if queue:
            if wanted not in bay.controllers:
                raise ProtocolError("there is no such controller")
            return bay.controllers[wanted]
        number = next(self._numbers)
        name = name_of(bay.tper.drive.spec.serial)
        bay.controllers[number] = Controller(number, name, bay.tper, bay.media, bay.lock)
        return bay.controllers[number]


def name_of(serial: str) -> str:
    """The NVMe Qualified Name by which a host connects to a drive."""
    return _NAME + serial


class _Line:
    """One connection, which is one queue."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # What hosts were told to send, by the number of the command.
        self._waiting: dict[int, tuple[Command, bytearray]] = {}

    def begin(self) -> None:
        """Agree on what there is to agree on: no padding, no digests."""
        kind, _head, payload = self._receive()
        if kind != _INIT or len(payload) != _INIT_SIZE - _HEADER.size:
            raise ProtocolError("a connection begins with an initialisation")
        version, padding, digests = struct.unpack_from("<HBB", payload)
        if version or padding or digests:
            raise ProtocolError("neither padding nor digests are known here")
        self._send(_INIT_ANSWER, 0, _INIT_SIZE, struct.pack("<HBBI", 0, 0, 0, _PIECE).ljust(120, b"\0"))

    def command(self) -> tuple[Command, bytes]:
        """The next command whose data is here."""
        while True:
            kind, place, payload = self._receive()
            if kind == _COMMAND:
                command = Command(payload[:64])
                data = payload[place - _HEADER.size :] if place else b""
                if not command.sends or len(data) >= command.length:
                    return command, data
                self._waiting[command.number] = command, bytearray(data)
                self._send(_READY, 0, _TRANSFER_SIZE, self._about(command, len(data), command.length - len(data)))
            elif kind == _FROM_HOST:
                number = struct.unpack_from("<H", payload)[0]
                if number not in self._waiting:
                    raise ProtocolError("data of no command")
                command, gathered = self._waiting[number]
                gathered += payload[place - _HEADER.size :]
                if len(gathered) >= command.length:
                    del self._waiting[number]
                    return command, bytes(gathered)
            else:
                raise ProtocolError(f"a unit of kind {kind}")

    def complete(self, command: Command, completion: Completion) -> None:
        """Send what a command gives."""
        if completion.silent:
            return
        data = completion.data[: command.length]
        if data:
            head = self._about(command, 0, len(data))
            self._send(_TO_HOST, _LAST | _SUCCESS, _TRANSFER_SIZE, head, data)
            return
        entry = struct.pack("<QHHHH", completion.result, 0, 0, command.number, completion.status << 1)
        self._send(_COMPLETION, 0, _COMPLETION_SIZE, entry)

    def _about(self, command: Command, offset: int, length: int) -> bytes:
        """What a piece of data belongs to, and where. The number of the command also tags what is asked for."""
        return _TRANSFER.pack(command.number, command.number, offset, length)

    def _receive(self) -> tuple[int, int, bytes]:
        """Kind of a unit, where its data begins, and all behind its common header."""
        kind, _flags, _length, place, size = _HEADER.unpack(receive(self._connection, _HEADER.size))
        if not _HEADER.size <= size <= _LONGEST or place > size or 0 < place < _HEADER.size:
            raise ProtocolError(f"a unit of {size} bytes with data at {place}")
        return kind, place, receive(self._connection, size - _HEADER.size)

    def _send(self, kind: int, flags: int, length: int, head: bytes, data: bytes = b"") -> None:
        common = _HEADER.pack(kind, flags, length, length if data else 0, length + len(data))
        self._connection.sendall(common + head + data)


@contextlib.contextmanager
def target() -> t.Iterator[Target]:
    """Drives that are gone afterwards."""
    one = Target()
    try:
        yield one
    finally:
        one.close()
