# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sedutil-cli prints, of Debian's version, upstream's and the forks that TrueNAS and others use.

An exit status of 0 alone means nothing: some actions do nothing and end with it.
"""

from __future__ import annotations

import re
import typing as t

from .discovery import KINDS, Discovery
from .state import Range

_FUNCTION = re.compile(r"function \(0x([0-9a-fA-F]{4})\)")
_FLAG = re.compile(r"(\w+) = ([YN])\b")
_GRANULARITY = re.compile(r"Align = Y, Alignment Granularity = (\d+)")
_OWNER = re.compile(r"SID equals MSID = ([YN])")
# No line begins or ends in it: one fork prints all ranges in one line.
_OPAL_RANGE = re.compile(
    r"LR(?P<number>\d+) Begin (?P<start>\d+) for (?P<length>\d+)\s+"
    r"RLKEna = (?P<re>[YN])\s+WLKEna = (?P<we>[YN])\s+RLocked = (?P<rl>[YN])\s+WLocked = (?P<wl>[YN])"
)
_BAND = re.compile(r"Band\[(\d+)\]:")
_BAND_VALUE = re.compile(r"(\w+):\s*(\d+)\s*$", re.M)
_MOST = re.compile(r"Maximum ranges supported:? (\d+)")
# One fork tells the status of a session only.
_BUSY = re.compile(r"(?:NO_SESSIONS_AVAILABLE|SP_BUSY|Session start failed rc = [37])\s*$", re.M)
_NOT_ENDED = "EndSession Failed"
# That the drive itself refused, which a fork does not tell. Where its answer was lost, it may have begun one.
_NOT_BEGUN = re.compile(
    r"method status code \w+\s*\nSession start failed rc = \d+|Session start failed rc = (?:1|3|7|12|18)\b"
)
_MSID = re.compile(r"^MSID: (\S+)\s*$", re.M)

NOT_AUTHORIZED, LOCKED_OUT, IS_ON, WRONG_ENTERPRISE = 1, 18, 133, 135
_STATUS = {
    3: "the drive is busy",
    7: "no session is available",
    12: "invalid parameter",
    15: "malfunction of the drive",
    16: "the transaction failed",
    17: "the answer is too long",
    63: "failed",
    129: "the global range can't be placed",
    131: "the drive or this sedutil-cli does not know that",
    133: "locking is turned on already",
    136: "no such device, no self-encrypting drive, or no answer",
    137: "an answer without a status",
    138: "no information about locking",
}


def discovery(text: str) -> Discovery:
    """The answer of ``--query``; a drive that is none of the kinds it knows is no drive to it."""
    codes = {int(code, 16) for code in _FUNCTION.findall(text)}
    kinds = tuple(kind for code, kind in KINDS.items() if code in codes)
    line = next((line for line in text.splitlines() if "Locked = " in line), "")
    if not kinds or not line:
        return Discovery()
    flags = {name: value == "Y" for name, value in _FLAG.findall(line)}
    granularity, owner = _GRANULARITY.search(text), _OWNER.search(text)
    return Discovery(
        kind=kinds[0],
        # The fork that leaves it out shows the line for drives that support it only.
        locking=flags.get("LockingSupported", True),
        enabled=flags.get("LockingEnabled", False),
        locked=flags.get("Locked", False),
        encrypts=flags.get("MediaEncrypt", False),
        shadow=flags.get("MBREnabled", False),
        shadow_done=flags.get("MBRDone", False),
        owned=None if owner is None else owner.group(1) == "N",
        granularity=int(granularity.group(1)) if granularity else 1,
        also=kinds[1:],
    )


def opal_ranges(text: str) -> dict[int, Range]:
    """The ranges of ``--listLockingRanges``. It does not show what happens when the power comes back."""
    found = {}
    for match in _OPAL_RANGE.finditer(text):
        number = int(match.group("number"))
        found[number] = Range(
            number,
            int(match.group("start")),
            int(match.group("length")),
            read_enabled=match.group("re") == "Y",
            write_enabled=match.group("we") == "Y",
            read_locked=match.group("rl") == "Y",
            write_locked=match.group("wl") == "Y",
        )
    return found


def bands(text: str) -> dict[int, Range]:
    """The ranges of an Enterprise drive that opened to the password."""
    parts = _BAND.split(text)
    found = {}
    for number, block in zip(map(int, parts[1::2]), parts[2::2]):
        values = {name: int(value) for name, value in _BAND_VALUE.findall(block)}
        if "ReadLocked" not in values:
            continue
        found[number] = Range(
            number,
            values.get("RangeStart", 0),
            values.get("RangeLength", 0),
            read_enabled=bool(values.get("ReadLockEnabled")),
            write_enabled=bool(values.get("WriteLockEnabled")),
            read_locked=bool(values["ReadLocked"]),
            write_locked=bool(values.get("WriteLocked")),
            on_reset=bool(values.get("LockOnReset", 1)),
        )
    return found


def most_ranges(text: str) -> int | None:
    """The number of the last range of an Enterprise drive."""
    match = _MOST.search(text)
    return None if match is None else int(match.group(1))


def factory_password(text: str) -> str | None:
    """The answer of ``--printDefaultPassword``."""
    match = _MSID.search(text)
    return None if match is None else match.group(1)


def is_wrong_password(status: int, errors: str) -> bool:
    """Whether it was the password: the same status stands for other things, too."""
    if status == WRONG_ENTERPRISE:
        return True
    # One fork tells the status of a session only.
    return status == NOT_AUTHORIZED and ("NOT_AUTHORIZED" in errors or "Session start failed rc = 1" in errors)


def is_taken(status: int, errors: str) -> bool:
    """Whether the password was right: it succeeded, or the owner has turned locking on before."""
    return status == 0 or (status == IS_ON and "is not Manufactured-Inactive" in errors)


def is_busy(errors: str) -> bool:
    """Whether the drive opened no session, since there is one. The exit status is one of several then."""
    return _BUSY.search(errors) is not None


def leaves_no_session(status: int, errors: str) -> bool:
    """Whether no session of the program is open now. That one could not be ended is also said where none was begun."""
    if is_taken(status, errors):
        return _NOT_ENDED not in errors
    if is_busy(errors):
        # Some actions take several sessions: the one in the way may be the program's own.
        return _NOT_ENDED not in _BUSY.split(errors, maxsplit=1)[0]
    if _NOT_BEGUN.search(errors):
        # Whatever the reason was; another one may have been open before, and does not end by that.
        return _NOT_ENDED not in _NOT_BEGUN.split(errors, maxsplit=1)[0]
    # The password is asked for in a session on Enterprise drives, which the program ends then.
    return status in (WRONG_ENTERPRISE, LOCKED_OUT) and _NOT_ENDED not in errors


def words(status: int) -> str:
    """What an exit status means."""
    return _STATUS.get(status, "no known reason")


def says(printed: str, wanted: t.Sequence[str]) -> bool:
    """Whether a program printed one of the lines that tell of success; it need not, if none is wanted."""
    return not wanted or any(line in printed for line in wanted)
