# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ComPackets: how tokens travel to a drive and back (TCG Storage Core, 3.2.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .tokens import BadAnswer

_COM = struct.Struct(">4xHHIII")
_PACKET = struct.Struct(">IIIHHII")
_DATA = struct.Struct(">6xHI")
_HEADERS = _COM.size + _PACKET.size + _DATA.size
# Drives take whole blocks.
BLOCK = 512


@dataclass(frozen=True)
class Answer:
    """What came back. ``waiting``: not ready as yet; ``needs``: bytes of room that it needs; otherwise ``tokens``."""

    tokens: bytes = b""
    waiting: bool = False
    needs: int = 0


def build(com_id: int, tper_session: int, host_session: int, tokens: bytes) -> bytes:
    """A ComPacket with one packet of one subpacket."""
    data = _DATA.pack(0, len(tokens)) + tokens + bytes(-len(tokens) % 4)
    packet = _PACKET.pack(tper_session, host_session, 0, 0, 0, 0, len(data)) + data
    whole = _COM.pack(com_id, 0, 0, 0, len(packet)) + packet
    return whole + bytes(-len(whole) % BLOCK)


def parse(data: bytes) -> Answer:
    """What a ComPacket of a drive holds.

    :raises BadAnswer: its lengths contradict each other
    """
    if len(data) < _COM.size:
        raise BadAnswer("The drive's answer is shorter than its header.")
    _com_id, _extension, outstanding, minimum, length = _COM.unpack_from(data)
    if not length:
        if minimum > len(data):
            return Answer(needs=minimum)
        return Answer(waiting=outstanding > 0)
    if len(data) < _HEADERS:
        raise BadAnswer("The drive's answer is shorter than its headers.")
    size = _DATA.unpack_from(data, _COM.size + _PACKET.size)[1]
    if size > length or _HEADERS + size > len(data):
        raise BadAnswer("The lengths in the drive's answer contradict each other.")
    return Answer(data[_HEADERS : _HEADERS + size])
