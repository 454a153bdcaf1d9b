# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Level 0 discovery: what a drive tells to everybody (TCG Storage Core, 3.3.6)."""

from __future__ import annotations

import struct

from .drive import ENTERPRISE, OPAL2, OPALITE, PYRITE1, PYRITE2, RUBY, Drive

_CODES = {OPAL2: 0x0203, OPALITE: 0x0301, PYRITE1: 0x0302, PYRITE2: 0x0303, RUBY: 0x0304}


def level0(drive: Drive) -> bytes:
    """The answer to Level 0 discovery."""
    spec = drive.spec
    features = [_feature(0x0001, bytes([0x11]) + bytes(11)), _feature(0x0002, bytes([_locking(drive)]) + bytes(11))]
    if spec.kind != PYRITE1:
        geometry = struct.pack(">B7xIQQ", 1, spec.block_size, spec.granularity, 0)
        features.append(_feature(0x0003, geometry))
    if spec.kind == ENTERPRISE:
        features.append(_feature(0x0100, struct.pack(">HHB11x", spec.com_id, 1, 0)))
    elif spec.kind == OPAL2:
        features.append(_feature(0x0201, struct.pack(">IB7x", spec.ranges + 1, 0x04)))
        features.append(_feature(0x0202, struct.pack(">2xHII", 9, 10485760, 1)))
        numbers = struct.pack(">HHBHHBB5x", spec.com_id, 1, 0, spec.admins, spec.users, 0, 0)
        features.append(_feature(_CODES[spec.kind], numbers))
    else:
        features.append(_feature(_CODES[spec.kind], struct.pack(">HH5xBB5x", spec.com_id, 1, 0, 0)))
    if spec.tells_owner:
        features.append(
            _feature(0x0402, bytes([int(drive.owned()) | drive.blocked << 1 | drive.frozen << 3]) + bytes(11))
        )
    body = struct.pack(">I8x32x", 1) + b"".join(features)
    return struct.pack(">I", len(body)) + body


def _feature(code: int, data: bytes) -> bytes:
    return struct.pack(">HBB", code, 0x10, len(data)) + data


def _locking(drive: Drive) -> int:
    shadow = drive.mbr.enabled
    bits = (
        True,
        drive.locking_enabled,
        drive.locked(),
        drive.spec.encrypts,
        shadow,
        # Hardware shows the flag only while there is a shadow.
        shadow and drive.mbr.done,
        drive.spec.enterprise,
    )
    return sum(bit << place for place, bit in enumerate(bits))
