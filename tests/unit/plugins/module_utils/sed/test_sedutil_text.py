# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The texts of sedutil-cli, in the form of Debian's version and of the forks."""

from __future__ import annotations

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.sed import sedutil_text as text
from ansible_collections.nasops.encryption.plugins.module_utils.sed.discovery import Discovery
from ansible_collections.nasops.encryption.plugins.module_utils.sed.state import Range

QUERY = """
/dev/sdx ATA EMU SATA OPAL SSD 500GB                  EMT01B6Q         SATASERIAL01
TPer function (0x0001)
    ACKNAK = N, ASYNC = N. BufferManagement = N, comIDManagement  = N, Streaming = Y, SYNC = Y
Locking function (0x0002)
    {locking}
Geometry function (0x0003)
    Align = Y, Alignment Granularity = 8 (4096), Logical Block size = 512, Lowest Aligned LBA = 0
{kind}
"""
OPAL = "OPAL 2.0 function (0x0203)\n    Base comID = 0x1004, Initial PIN = 0x00"
PLAIN = "Locked = Y, LockingEnabled = Y, LockingSupported = Y, MBRDone = N, MBREnabled = Y, MediaEncrypt = Y"
ABSENT = PLAIN.replace("MediaEncrypt", "MBRAbsent = N, MediaEncrypt")
SPACED = (
    "Locked = Y, LockingEnabled = Y, MBR shadowing Not Supported = N, MBRDone = N, MBREnabled = Y, MediaEncrypt = Y"
)


@pytest.mark.parametrize("locking", [PLAIN, ABSENT, SPACED])
def test_a_query_of_every_version(locking: str) -> None:
    found = text.discovery(QUERY.format(locking=locking, kind=OPAL))
    assert found == Discovery("opal2", 0, True, True, True, True, True, False, None, 8)


def test_a_query_that_tells_more_or_nothing() -> None:
    ours = text.discovery(
        QUERY.format(locking=PLAIN, kind=OPAL + "\nBlock SID function (0x0402)\n  SID equals MSID = N")
    )
    assert ours.owned is True
    enterprise = "Enterprise function (0x0100)\n    Range crossing = N, Base comID = 0x07fe, comIDs = 1"
    assert text.discovery(QUERY.format(locking=PLAIN, kind=enterprise)).kind == "enterprise"
    assert text.discovery(QUERY.format(locking=PLAIN, kind="**** 1 **** Unknown function codes IGNORED")).kind == ""
    assert text.discovery("") == Discovery()


LINES = """Locking Range Configuration for /dev/nvme8
LR0 Begin 0 for 0
            RLKEna = N  WLKEna = N  RLocked = N  WLocked = N
LR1 Begin 8 for 2048
            RLKEna = Y  WLKEna = Y  RLocked = Y  WLocked = N
"""


@pytest.mark.parametrize("shown", [LINES, " ".join(LINES.split())])
def test_ranges_in_two_lines_each_or_all_in_one(shown: str) -> None:
    assert text.opal_ranges(shown) == {0: Range(0), 1: Range(1, 8, 2048, True, True, True, False)}


BANDS = """Maximum ranges supported: 3
Band[0]:
    Name:            Global_Range
    CommonName:      Locking
    RangeStart:      0
    RangeLength:     0
    ReadLockEnabled: 1
    WriteLockEnabled:1
    ReadLocked:      1
    WriteLocked:     0
    LockOnReset:     0
Band[2]:
    could not establish session for row[2]
"""


def test_bands_that_opened() -> None:
    assert text.bands(BANDS) == {0: Range(0, 0, 0, True, True, True, False, False)}
    assert text.most_ranges(BANDS) == 3
    assert text.most_ranges("Maximum ranges supported 3") == 3
    assert text.most_ranges("") is None


def test_what_a_wrong_password_is_and_what_is_not() -> None:
    assert text.is_wrong_password(1, "method status code NOT_AUTHORIZED\nSession start failed rc = 1\n")
    assert text.is_wrong_password(1, "Session start failed rc = 1\n"), "one fork is silent about the status"
    assert text.is_wrong_password(135, "")
    assert not text.is_wrong_password(1, "Invalid response\n"), "two programs at once end with the same status"
    assert not text.is_wrong_password(18, "method status code AUTHORITY_LOCKED_OUT\nSession start failed rc = 18\n")
    assert text.factory_password("MSID: ABC123\n") == "ABC123"


NO_START = (
    "method status code {}\nSession start failed rc = {}\nOne or more header fields have 0 length\nEndSession Failed\n"
)
BUSY = NO_START.format("NO_SESSIONS_AVAILABLE", 7)


@pytest.mark.parametrize(
    "status,errors,busy,ended",
    [
        (0, "", False, True),
        # Upstream says that it could not end a session, and that all is well.
        (0, "One or more header fields have 0 length\nEndSession Failed\n", False, False),
        (133, "Locking SP lifecycle is not Manufactured-Inactive\n", False, True),
        (133, "something else\n", False, False),
        (1, NO_START.format("NOT_AUTHORIZED", 1), False, True),
        (15, "method status code TPER_MALFUNCTION\n", False, False),
        # No session was begun, whatever the reason.
        (12, NO_START.format("INVALID_PARAMETER", 12), False, True),
        (18, NO_START.format("AUTHORITY_LOCKED_OUT", 18), False, True),
        (15, NO_START.format("TPER_MALFUNCTION", 15), False, True),
        (12, "EndSession Failed\n" + NO_START.format("INVALID_PARAMETER", 12), False, False),
        # The drive went off: what it did is not known.
        (19, NO_START.partition("\n")[2].format(19), False, False),
        # One in which an Enterprise drive did not take the password.
        (135, "Session Authenticate failed (response = false)\n", False, True),
        (135, "Session Authenticate failed (response = false)\nEndSession Failed\n", False, False),
        (18, "method status code AUTHORITY_LOCKED_OUT\nSession Authenticate failed\n", False, True),
        (18, "method status code AUTHORITY_LOCKED_OUT\nEndSession Failed\n", False, False),
        (7, BUSY, True, True),
        # A fork that does not tell the status of methods.
        (7, BUSY.partition("\n")[2], True, True),
        (3, NO_START.format("SP_BUSY", 3), True, True),
        # Its own one, that of an action which takes two, is in the way.
        (7, "One or more header fields have 0 length\nEndSession Failed\n" + BUSY, True, False),
    ],
)
def test_whether_a_session_is_left_open(status: int, errors: str, busy: bool, ended: bool) -> None:
    assert text.is_busy(errors) is busy
    assert text.leaves_no_session(status, errors) is ended
