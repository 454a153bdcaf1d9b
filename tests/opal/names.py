# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of things in a drive: objects, methods, columns and status codes (TCG Storage Core, Opal, Enterprise)."""

from __future__ import annotations


def uid(text: str) -> bytes:
    """Eight bytes, written as hexadecimal digits."""
    return bytes.fromhex(text)


SESSION_MANAGER = uid("00000000000000ff")
THIS_SP = uid("0000000000000001")
ADMIN_SP = uid("0000020500000001")
LOCKING_SP = uid("0000020500000002")
ENTERPRISE_LOCKING_SP = uid("0000020500010001")

ANYBODY = uid("0000000900000001")
ADMINS = uid("0000000900000002")
SID = uid("0000000900000006")
PSID = uid("000000090001ff01")
ERASE_MASTER = uid("0000000900008401")

PIN_SID = uid("0000000b00000001")
PIN_MSID = uid("0000000b00008402")
PIN_ERASE_MASTER = uid("0000000b00008401")

LOCKING_INFO = uid("0000080100000001")
LOCKING_INFO_ENTERPRISE = uid("0000080100000000")
MBR_CONTROL = uid("0000080300000001")
MBR = uid("0000080400000000")


def admin(number: int) -> bytes:
    """The authority AdminN of an Opal Locking SP."""
    return uid(f"0000000900010{number:03x}")


def user(number: int) -> bytes:
    """The authority UserN of an Opal Locking SP."""
    return uid(f"0000000900030{number:03x}")


def band_master(number: int) -> bytes:
    """The authority BandMasterN of an Enterprise Locking SP."""
    return uid(f"0000000900008{number + 1:03x}")


def pin_of(authority: bytes) -> bytes:
    """The C_PIN object of an authority of the Locking SP."""
    return authority[:3] + b"\x0b" + authority[4:]


def locking_range(number: int, enterprise: bool) -> bytes:
    """A row of the Locking table; 0 is the global range."""
    if enterprise or not number:
        return uid(f"000008020000{number + 1:04x}")
    return uid(f"000008020003{number:04x}")


def media_key(number: int, enterprise: bool) -> bytes:
    """The key of a range (K_AES_256)."""
    if enterprise or not number:
        return uid(f"000008060000{number + 1:04x}")
    return uid(f"000008060003{number:04x}")


METHODS = {
    uid("000000000000ff01"): "Properties",
    uid("000000000000ff02"): "StartSession",
    uid("0000000600000006"): "Get",
    uid("0000000600000007"): "Set",
    uid("0000000600000016"): "Get",
    uid("0000000600000017"): "Set",
    uid("0000000600000008"): "Next",
    uid("000000060000000c"): "Authenticate",
    uid("000000060000001c"): "Authenticate",
    uid("0000000600000010"): "GenKey",
    uid("0000000600000011"): "RevertSP",
    uid("0000000600000202"): "Revert",
    uid("0000000600000203"): "Activate",
    uid("0000000600000601"): "Random",
    uid("0000000600000803"): "Erase",
}
SYNC_SESSION = uid("000000000000ff03")
CLOSE_SESSION = uid("000000000000ff06")

SUCCESS = 0x00
NOT_AUTHORIZED = 0x01
SP_BUSY = 0x03
SP_FAILED = 0x04
SP_DISABLED = 0x05
NO_SESSIONS_AVAILABLE = 0x07
INVALID_PARAMETER = 0x0C
TPER_MALFUNCTION = 0x0F
TRANSACTION_FAILURE = 0x10
RESPONSE_OVERFLOW = 0x11
AUTHORITY_LOCKED_OUT = 0x12
FAIL = 0x3F

# Columns by number (Opal) and by name (Enterprise).
COLUMNS = {
    "C_PIN": {
        "UID": 0,
        "Name": 1,
        "CommonName": 2,
        "PIN": 3,
        "CharSet": 4,
        "TryLimit": 5,
        "Tries": 6,
        "Persistence": 7,
    },
    "Authority": {"UID": 0, "Name": 1, "CommonName": 2, "IsClass": 3, "Class": 4, "Enabled": 5},
    "SP": {"UID": 0, "Name": 1, "LifeCycleState": 6},
    "Locking": {
        "UID": 0,
        "Name": 1,
        "CommonName": 2,
        "RangeStart": 3,
        "RangeLength": 4,
        "ReadLockEnabled": 5,
        "WriteLockEnabled": 6,
        "ReadLocked": 7,
        "WriteLocked": 8,
        "LockOnReset": 9,
        "ActiveKey": 10,
    },
    "LockingInfo": {
        "UID": 0,
        "Name": 1,
        "Version": 2,
        "EncryptSupport": 3,
        "MaxRanges": 4,
        "MaxReEncryptions": 5,
        "KeysAvailableCfg": 6,
        "AlignmentRequired": 7,
        "LogicalBlockSize": 8,
        "AlignmentGranularity": 9,
        "LowestAlignedLBA": 10,
    },
    "MBRControl": {"UID": 0, "Enable": 1, "Done": 2, "DoneOnReset": 3},
}

INACTIVE, MANUFACTURED = 8, 9
POWER_CYCLE = 0
KEEP_GLOBAL_RANGE_KEY = 0x060000
