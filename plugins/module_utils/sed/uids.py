# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of objects, methods, columns and status codes (TCG Storage Core, Opal SSC 2, Enterprise SSC)."""

from __future__ import annotations


def _uid(digits: str) -> bytes:
    return bytes.fromhex(digits)


SESSION_MANAGER = _uid("00000000000000ff")
THIS_SP = _uid("0000000000000001")
ADMIN_SP = _uid("0000020500000001")
LOCKING_SP = _uid("0000020500000002")
ENTERPRISE_LOCKING_SP = _uid("0000020500010001")

START_SESSION = _uid("000000000000ff02")
ACTIVATE = _uid("0000000600000203")
REVERT = _uid("0000000600000202")
REVERT_SP = _uid("0000000600000011")
# Opal numbers the columns, Enterprise names them.
GET, SET = _uid("0000000600000016"), _uid("0000000600000017")
ENTERPRISE_GET, ENTERPRISE_SET = _uid("0000000600000006"), _uid("0000000600000007")
AUTHENTICATE, ENTERPRISE_AUTHENTICATE = _uid("000000060000001c"), _uid("000000060000000c")

PIN_MSID = _uid("0000000b00008402")
LOCKING_INFO = _uid("0000080100000001")
MBR_CONTROL = _uid("0000080300000001")

# Authorities, and the rows of the table C_PIN that hold their credentials.
SID, PSID, ADMIN1, ERASE_MASTER = "SID", "PSID", "Admin1", "EraseMaster"
_AUTHORITIES = {
    SID: _uid("0000000900000006"),
    PSID: _uid("000000090001ff01"),
    ADMIN1: _uid("0000000900010001"),
    ERASE_MASTER: _uid("0000000900008401"),
}
_BAND_MASTER = "BandMaster"

COLUMNS = {
    "PIN": 3,
    "TryLimit": 5,
    "Tries": 6,
    "LifeCycleState": 6,
    "RangeStart": 3,
    "RangeLength": 4,
    "ReadLockEnabled": 5,
    "WriteLockEnabled": 6,
    "ReadLocked": 7,
    "WriteLocked": 8,
    "LockOnReset": 9,
    "Enable": 1,
    "Done": 2,
    "DoneOnReset": 3,
    "MaxRanges": 4,
}

NOT_AUTHORIZED, LOCKED_OUT = 0x01, 0x12
SP_BUSY, NO_SESSIONS = 0x03, 0x07
STATUS = {
    0x01: "not authorized",
    0x02: "obsolete",
    0x03: "the security provider is busy",
    0x04: "the security provider has failed",
    0x05: "the security provider is disabled",
    0x06: "the security provider is frozen",
    0x07: "no session is available",
    0x08: "uniqueness conflict",
    0x09: "insufficient space",
    0x0A: "insufficient rows",
    0x0C: "invalid parameter",
    0x0F: "malfunction of the drive",
    0x10: "the transaction failed",
    0x11: "the answer is too long",
    0x12: "the authority is locked out",
    0x3F: "failed",
}


def band_master(number: int) -> str:
    """The authority that is for one range of an Enterprise drive."""
    return f"{_BAND_MASTER}{number}"


def is_band_master(name: str) -> bool:
    """Whether an authority is one of those for the ranges of an Enterprise drive."""
    return name.startswith(_BAND_MASTER)


def authority_uid(name: str) -> bytes:
    """The object of an authority."""
    if is_band_master(name):
        return _uid(f"00000009{0x8001 + int(name[len(_BAND_MASTER) :]):08x}")
    return _AUTHORITIES[name]


def pin_uid(name: str) -> bytes:
    """The row of C_PIN that holds the credential of an authority."""
    if name == SID:
        return _uid("0000000b00000001")
    uid = authority_uid(name)
    return uid[:3] + b"\x0b" + uid[4:]


def range_uid(number: int, enterprise: bool) -> bytes:
    """The row of the Locking table of a range; 0 is the global one."""
    if enterprise or not number:
        return _uid(f"00000802{number + 1:08x}")
    return _uid(f"00000802{0x30000 + number:08x}")
