# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security commands to a drive through the kernel: NVMe admin commands, and SCSI commands for SATA and SAS.

A device is opened for reading only: closing one that was open for writing makes udev remove and make its links anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import sys
import time
import typing as t
from dataclasses import dataclass

from ..errors import StorageError

# Seconds a drive may take for one command: some erase for minutes.
_COMMAND_TIME = 300
# Seconds until another program lets go of the drive.
_PATIENCE = 60.0
_PAUSE = 0.05

_NVME_ADMIN = 0xC0484E41
_NVME = struct.Struct("=BBHIIIQQIIIIIIIIII")
_NVME_IDENTIFY, _NVME_SEND, _NVME_RECEIVE = 0x06, 0x81, 0x82

_SG_IO = 0x2285
_SG_TO, _SG_FROM = -2, -3
_ATA_PASS_THROUGH = 0xA1
_ATA_IDENTIFY, _ATA_RECEIVE, _ATA_SEND = 0xEC, 0x5C, 0x5E
_INQUIRY, _SECURITY_IN, _SECURITY_OUT = 0x12, 0xA2, 0xB5
_BLOCK = 512
_CHECK_CONDITION = 2
# The sense of an ATA command that succeeded and was asked for its registers.
_RECOVERED = 1


class Unsupported(StorageError):
    """The drive, or something between it and the host, does not take such a command."""


class Gone(StorageError):
    """The drive can't be reached (any more)."""


@dataclass(frozen=True)
class Identity:
    """What a drive says it is.

    ``salt``: its field of the serial number as sedutil-cli reads it. ``wwn``: its World Wide Name in hexadecimal
    digits, on NVMe the name of its subsystem (NQN); "" if it tells none.
    """

    bus: str
    serial: str
    model: str
    firmware: str
    salt: bytes
    wwn: str = ""

    @property
    def key(self) -> str:
        """What tells it from every other drive; "" if nothing does."""
        return self.serial or self.wwn

    def is_same(self, other: Identity) -> bool:
        """Whether both are one drive."""
        return bool(self.key) and (self.serial, self.wwn, self.model) == (other.serial, other.wwn, other.model)


class Link(t.Protocol):
    """A way to one drive."""

    def identify(self) -> Identity: ...

    def send(self, protocol: int, specific: int, data: bytes) -> None: ...

    def receive(self, protocol: int, specific: int, length: int) -> bytes: ...


def require_linux() -> None:
    """
    :raises StorageError: this is another system, whose drives are reached in other ways
    """
    if not sys.platform.startswith("linux"):
        raise StorageError("Self-encrypting drives are reached by the interfaces of Linux, which this host has not.")


@contextlib.contextmanager
def open_link(node: str, exclusive: bool = True) -> t.Iterator[Link]:
    """A way to the drive behind a device node, until the end of the block.

    :param exclusive: wait until no other task talks to it; two sessions at once would spoil each other
    :raises Gone: it can't be opened, or others don't let go of it
    """
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        raise Gone(f"{node} can't be opened: permission denied.", hint="Run the task as root (become: true).") from None
    except OSError as error:
        raise Gone(
            f"{node} can't be opened: {error.strerror}.", hint="Is the drive there? See the kernel log."
        ) from None
    try:
        if exclusive:
            _wait(descriptor, node)
        yield _Nvme(descriptor, node) if os.path.basename(node).startswith("nvme") else _scsi(descriptor, node)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, node: str) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise Gone(
                    f"Another program has held the lock of {node} for {_PATIENCE:.0f} seconds.",
                    hint=f"'fuser {node}' shows which.",
                ) from None
        time.sleep(_PAUSE)


def _failed(node: str, error: OSError) -> StorageError:
    if error.errno in (errno.ENODEV, errno.ENXIO, errno.EIO, errno.ENOENT):
        return Gone(f"{node} does not answer any more: {error.strerror}.", hint="See the kernel log; was it pulled?")
    if error.errno in (errno.EPERM, errno.EACCES):
        return Gone(f"{node} refuses the command: {error.strerror}.", hint="Run the task as root (become: true).")
    return Unsupported(f"{node} does not take security commands: {error.strerror}.")


class _Nvme:
    """A drive behind the NVMe driver."""

    def __init__(self, descriptor: int, node: str) -> None:
        self._descriptor = descriptor
        self._node = node

    def identify(self) -> Identity:
        room = ctypes.create_string_buffer(4096)
        self._run(_NVME_IDENTIFY, room, 1, 0)
        data = room.raw
        return Identity(
            "nvme", _text(data[4:24]), _text(data[24:64]), _text(data[64:72]), data[4:24], _text(data[768:1024])
        )

    def send(self, protocol: int, specific: int, data: bytes) -> None:
        self._run(_NVME_SEND, ctypes.create_string_buffer(data, len(data)), protocol << 24 | specific << 8, len(data))

    def receive(self, protocol: int, specific: int, length: int) -> bytes:
        room = ctypes.create_string_buffer(length)
        self._run(_NVME_RECEIVE, room, protocol << 24 | specific << 8, length)
        return room.raw

    def _run(self, opcode: int, room: t.Any, first: int, second: int) -> None:
        address, size = ctypes.addressof(room), len(room)
        numbers = (opcode, 0, 0, 0, 0, 0, 0, address, 0, size, first, second, 0, 0, 0, 0, _COMMAND_TIME * 1000, 0)
        command = bytearray(_NVME.pack(*numbers))
        try:
            status = fcntl.ioctl(self._descriptor, _NVME_ADMIN, command)
        except OSError as error:
            raise _failed(self._node, error) from None
        if status:
            raise Unsupported(f"{self._node} refused a command with NVMe status 0x{status:x}.")


class _SgHeader(ctypes.Structure):
    """struct sg_io_hdr of the kernel."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("direction", ctypes.c_int),
        ("command_length", ctypes.c_ubyte),
        ("sense_room", ctypes.c_ubyte),
        ("vectors", ctypes.c_ushort),
        ("length", ctypes.c_uint),
        ("data", ctypes.c_void_p),
        ("command", ctypes.c_void_p),
        ("sense", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("message_status", ctypes.c_ubyte),
        ("sense_length", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("left", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class _Scsi:
    """What SATA and SAS have in common."""

    def __init__(self, descriptor: int, node: str) -> None:
        self._descriptor = descriptor
        self._node = node

    def inquire(self, page: int = 0) -> bytes:
        room = ctypes.create_string_buffer(252)
        self.run(bytes((_INQUIRY, int(bool(page)), page, 0, 252, 0)), room, _SG_FROM)
        return room.raw

    def run(self, cdb: bytes, room: t.Any, direction: int) -> None:
        command, sense = ctypes.create_string_buffer(cdb, len(cdb)), ctypes.create_string_buffer(32)
        header = _SgHeader()
        header.interface_id, header.direction = ord("S"), direction
        header.command_length, header.sense_room, header.length = len(cdb), len(sense), len(room)
        header.data, header.command = ctypes.addressof(room), ctypes.addressof(command)
        header.sense, header.timeout = ctypes.addressof(sense), _COMMAND_TIME * 1000
        try:
            fcntl.ioctl(self._descriptor, _SG_IO, header)
        except OSError as error:
            raise _failed(self._node, error) from None
        if header.host_status:
            raise Gone(
                f"{self._node} does not answer (host status {header.host_status}).",
                hint="See the kernel log for the state of the drive and its cable.",
            )
        if header.status not in (0, _CHECK_CONDITION) or (header.status and not _recovered(sense.raw)):
            raise Unsupported(f"{self._node} refused a command: {_sense_words(sense.raw)}.")


class _Sata(_Scsi):
    """A drive behind libata or a SAS controller that translates."""

    def identify(self) -> Identity:
        room = ctypes.create_string_buffer(_BLOCK)
        self._pass(_ATA_IDENTIFY, 0, 0, room, _SG_FROM)
        data = b"".join(room.raw[at + 1 : at + 2] + room.raw[at : at + 1] for at in range(0, _BLOCK, 2))
        serial = data[20:40]
        # Words 108 to 111, if word 87 says that they are there (ATA8-ACS).
        told = data[174] & 0xC1 == 0x41
        wwn = _digits(data[216:224]) if told else ""
        return Identity("sata", _text(serial), _text(data[54:94]), _text(data[46:54]), serial, wwn)

    def send(self, protocol: int, specific: int, data: bytes) -> None:
        self._pass(_ATA_SEND, protocol, specific, ctypes.create_string_buffer(data, len(data)), _SG_TO)

    def receive(self, protocol: int, specific: int, length: int) -> bytes:
        room = ctypes.create_string_buffer(length)
        self._pass(_ATA_RECEIVE, protocol, specific, room, _SG_FROM)
        return room.raw

    def _pass(self, command: int, feature: int, specific: int, room: t.Any, direction: int) -> None:
        """ATA PASS-THROUGH (12): PIO in or out, as many blocks as there is room for."""
        protocol, inward = (4, 0x08) if direction == _SG_FROM else (5, 0)
        count = len(room) // _BLOCK
        middle = (specific & 0xFF, specific >> 8)
        self.run(
            bytes((_ATA_PASS_THROUGH, protocol << 1, 0x06 | inward, feature, count, 0, *middle, 0, command, 0, 0)),
            room,
            direction,
        )


class _Sas(_Scsi):
    """A drive that speaks SCSI."""

    def identify(self) -> Identity:
        data = self.inquire()
        try:
            page = self.inquire(0x80)
            serial = _text(page[4 : 4 + page[3]])
        except Unsupported:
            serial = ""
        try:
            wwn = _naa(self.inquire(0x83))
        except Unsupported:
            wwn = ""
        # What sedutil-cli takes for the serial number is the vendor.
        return Identity("sas", serial, _text(data[16:32]), _text(data[32:36]), data[8:16] + bytes(12), wwn)

    def send(self, protocol: int, specific: int, data: bytes) -> None:
        room = ctypes.create_string_buffer(data, len(data))
        self.run(_security(_SECURITY_OUT, protocol, specific, len(data)), room, _SG_TO)

    def receive(self, protocol: int, specific: int, length: int) -> bytes:
        room = ctypes.create_string_buffer(length)
        self.run(_security(_SECURITY_IN, protocol, specific, length), room, _SG_FROM)
        return room.raw


def _scsi(descriptor: int, node: str) -> Link:
    """SATA if it knows ATA commands, else SAS."""
    sata = _Sata(descriptor, node)
    try:
        sata.identify()
    except Unsupported:
        return _Sas(descriptor, node)
    return sata


def _security(opcode: int, protocol: int, specific: int, length: int) -> bytes:
    """A CDB that counts in blocks of 512 bytes."""
    return struct.pack(">BBHBxIxx", opcode, protocol, specific, 0x80, length // _BLOCK)


def _naa(page: bytes) -> str:
    """The name of the logical unit in the page of identifiers (SPC-4, 7.8.5), in digits; "" if it has none."""
    end = min(len(page), 4 + int.from_bytes(page[2:4], "big"))
    at = 4
    while at + 4 <= end:
        size = page[at + 3]
        # Binary, of the logical unit itself, and an NAA.
        if page[at] & 0x0F == 1 and page[at + 1] & 0x3F == 3:
            return _digits(page[at + 4 : at + 4 + size])
        at += 4 + size
    return ""


def _digits(name: bytes) -> str:
    return name.hex() if any(name) else ""


def _recovered(sense: bytes) -> bool:
    code = sense[0] & 0x7F
    return (sense[2] if code in (0x70, 0x71) else sense[1]) & 0x0F == _RECOVERED


def _sense_words(sense: bytes) -> str:
    if sense[0] & 0x7F in (0x70, 0x71):
        return f"sense key {sense[2] & 0x0F}, code 0x{sense[12]:02x}{sense[13]:02x}"
    return f"sense key {sense[1] & 0x0F}, code 0x{sense[2]:02x}{sense[3]:02x}"


def _text(field: bytes) -> str:
    return field.decode("ascii", "replace").strip(" \0")


def libata_passes() -> bool | None:
    """Whether libata lets security commands through to SATA drives; None if it is not there."""
    try:
        with open("/sys/module/libata/parameters/allow_tpm", encoding="ascii") as parameter:
            return parameter.read().strip() in ("1", "Y")
    except OSError:
        return None


def reread_partitions(node: str) -> bool:
    """Make the kernel read the partition table again; False if something holds a partition, so that it can't."""
    blkrrpart = 0x125F
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(descriptor, blkrrpart)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
