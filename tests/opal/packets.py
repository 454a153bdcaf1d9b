# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ComPackets with one packet of one data subpacket each, which is all that hosts send (TCG Storage Core, 3.2.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_COM = struct.Struct(">4xHHIII")
_PACKET = struct.Struct(">IIIHHII")
_SUB = struct.Struct(">6xHI")
HEADERS = _COM.size + _PACKET.size + _SUB.size


class BadPacket(Exception):
    """What the host sent is no ComPacket."""


@dataclass(frozen=True)
class Packet:
    """Tokens on their way, with the numbers of their session; both are 0 for the session manager."""

    com_id: int
    tper_session: int
    host_session: int
    payload: bytes


def build(packet: Packet) -> bytes:
    """The bytes of a ComPacket."""
    payload = packet.payload
    sub = _SUB.pack(0, len(payload)) + payload + bytes(-len(payload) % 4)
    inner = _PACKET.pack(packet.tper_session, packet.host_session, 0, 0, 0, 0, len(sub)) + sub
    return _COM.pack(packet.com_id, 0, 0, 0, len(inner)) + inner


def empty(com_id: int, outstanding: int = 0) -> bytes:
    """A ComPacket without content: there is nothing to fetch, or not yet."""
    return _COM.pack(com_id, 0, outstanding, 0, 0)


def parse(data: bytes) -> Packet:
    """The packet in a ComPacket.

    :raises BadPacket: lengths that contradict each other, or something other than one data subpacket
    """
    if len(data) < HEADERS:
        raise BadPacket(f"{len(data)} bytes are less than the headers")
    com_id, _extension, _outstanding, _minimum, com_length = _COM.unpack_from(data)
    tper, host, _sequence, _reserved, _kind, _ack, length = _PACKET.unpack_from(data, _COM.size)
    sub_kind, sub_length = _SUB.unpack_from(data, _COM.size + _PACKET.size)
    if com_length != _PACKET.size + length or length != _SUB.size + sub_length + -sub_length % 4 or sub_kind:
        raise BadPacket(f"lengths {com_length}, {length} and {sub_length} do not fit together")
    payload = data[HEADERS : HEADERS + sub_length]
    if len(payload) != sub_length:
        raise BadPacket("the content is cut off")
    return Packet(com_id, tper, host, payload)
