# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the three transports, which carry the security commands: NVMe, ATA pass-through and SCSI."""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass

from .drive import MethodError
from .tper import TPer

NVME_IDENTIFY, NVME_SEND, NVME_RECEIVE = 0x06, 0x81, 0x82
# Status codes of NVMe: generic invalid opcode, invalid field.
_NVME_OPCODE, _NVME_FIELD = 0x01, 0x02

_ATA_PASS_THROUGH_12, _ATA_PASS_THROUGH_16 = 0xA1, 0x85
_ATA_IDENTIFY, _ATA_RECEIVE, _ATA_SEND = 0xEC, 0x5C, 0x5E
_INQUIRY, _SECURITY_IN, _SECURITY_OUT = 0x12, 0xA2, 0xB5
_CHECK_CONDITION = 0x02


@dataclass(frozen=True)
class Answer:
    """How a command ended. ``status`` is that of NVMe or of SCSI."""

    status: int = 0
    data: bytes = b""
    sense: bytes = b""


def nvme(tper: TPer, command: bytes, data: bytes) -> Answer:
    """An NVMe admin command, as the 72 bytes of Linux's ``struct nvme_passthru_cmd``."""
    opcode = command[0]
    length, cdw10, cdw11 = struct.unpack_from("<36xI2I", command)
    if opcode == NVME_IDENTIFY and cdw10 & 0xFF == 1:
        return Answer(data=nvme_identify(tper)[:length])
    return _secured(
        tper,
        opcode == NVME_SEND,
        opcode == NVME_RECEIVE,
        (cdw10 >> 24, cdw10 >> 8 & 0xFFFF, cdw11),
        data,
        Answer(_NVME_FIELD),
        Answer(_NVME_OPCODE),
    )


def scsi(tper: TPer, cdb: bytes, data: bytes) -> Answer:
    """A SCSI command; a SATA drive answers as libata makes it."""
    opcode = cdb[0]
    invalid = Answer(_CHECK_CONDITION, sense=_sense(0x05, 0x2000))
    field = Answer(_CHECK_CONDITION, sense=_sense(0x05, 0x2400))
    if opcode == _INQUIRY:
        return Answer(data=_inquiry(tper, bool(cdb[1] & 1), cdb[2])[: cdb[4] | cdb[3] << 8])
    if tper.drive.spec.transport == "sata":
        if opcode not in (_ATA_PASS_THROUGH_12, _ATA_PASS_THROUGH_16):
            return invalid
        return _ata(tper, _taskfile(cdb), data, invalid, field)
    if opcode in (_SECURITY_IN, _SECURITY_OUT):
        length = int.from_bytes(cdb[6:10], "big") * (512 if cdb[4] & 0x80 else 1)
        where = (cdb[1], int.from_bytes(cdb[2:4], "big"), length)
        return _secured(tper, opcode == _SECURITY_OUT, opcode == _SECURITY_IN, where, data, field, invalid)
    return invalid


@dataclass(frozen=True)
class _Taskfile:
    feature: int
    count: int
    lba: tuple[int, int, int]
    command: int


def _taskfile(cdb: bytes) -> _Taskfile:
    if cdb[0] == _ATA_PASS_THROUGH_12:
        return _Taskfile(cdb[3], cdb[4], (cdb[5], cdb[6], cdb[7]), cdb[9])
    return _Taskfile(cdb[4], cdb[6], (cdb[8], cdb[10], cdb[12]), cdb[14])


def _ata(tper: TPer, task: _Taskfile, data: bytes, invalid: Answer, field: Answer) -> Answer:
    if task.command == _ATA_IDENTIFY:
        return Answer(data=_ata_identify(tper))
    if tper.drive.filtered:
        return field
    where = (task.feature, task.lba[2] << 8 | task.lba[1], (task.lba[0] << 8 | task.count) * 512)
    return _secured(tper, task.command == _ATA_SEND, task.command == _ATA_RECEIVE, where, data, field, invalid)


def _secured(
    tper: TPer,
    send: bool,
    receive: bool,
    where: tuple[int, int, int],
    data: bytes,
    refused: Answer,
    unknown: Answer,
) -> Answer:
    protocol, specific, length = where
    if not tper.drive.spec.kind or not (send or receive):
        return unknown
    try:
        if receive:
            return Answer(data=tper.receive(protocol, specific, length))
        tper.send(protocol, specific, data)
    except MethodError:
        return refused
    return Answer()


def nvme_identify(tper: TPer) -> bytes:
    """What programs look for in the data of an NVMe controller."""
    spec = tper.drive.spec
    head = struct.pack("<HH20s40s8s", 0x1234, 0x1234, *(_pad(one, n) for one, n in _texts(tper, 20, 40, 8)))
    return head.ljust(256, b"\0") + struct.pack("<H", int(bool(spec.kind))) + bytes(4096 - 258)


def _texts(tper: TPer, *lengths: int) -> t.Iterator[tuple[str, int]]:
    spec = tper.drive.spec
    return zip((spec.serial, spec.model, spec.firmware), lengths)


def _pad(text: str, length: int) -> bytes:
    return text.encode("ascii").ljust(length)[:length]


def _ata_identify(tper: TPer) -> bytes:
    spec = tper.drive.spec
    words = bytearray(512)
    # The serial number stands at the right, as most makers write it.
    words[20:40] = _swapped(spec.serial.encode("ascii").rjust(20)[:20])
    words[46:54] = _swapped(_pad(spec.firmware, 8))
    words[54:94] = _swapped(_pad(spec.model, 40))
    if spec.wwn:
        words[174:176], words[216:224] = _swapped(b"\x41\x00"), _swapped(bytes.fromhex(spec.wwn))
    words[96:98] = struct.pack("<H", 0x4000 | bool(spec.kind))
    return bytes(words)


def _swapped(text: bytes) -> bytes:
    return b"".join(text[at + 1 : at + 2] + text[at : at + 1] for at in range(0, len(text), 2))


def _inquiry(tper: TPer, page: bool, number: int) -> bytes:
    spec = tper.drive.spec
    if page and number == 0x80:
        serial = spec.serial.encode("ascii")
        return bytes([0, 0x80, 0, len(serial)]) + serial
    if page and number == 0x83 and spec.wwn:
        name = bytes.fromhex(spec.wwn)
        return bytes([0, 0x83, 0, 4 + len(name), 0x01, 0x03, 0, len(name)]) + name
    if page:
        return bytes([0, number, 0, 2, 0x00, 0x80])
    vendor = "ATA" if spec.transport == "sata" else spec.vendor
    texts = _pad(vendor, 8) + _pad(spec.model, 16) + _pad(spec.firmware, 4)
    return (bytes([0, 0, 6, 2, 91, 0, 0, 2]) + texts).ljust(96, b"\0")


def _sense(key: int, code: int) -> bytes:
    return bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code >> 8, code & 0xFF, 0, 0, 0, 0])
