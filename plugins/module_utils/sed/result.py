# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows about drives in results; they hold nothing secret, nor anything that is made from a secret."""

from __future__ import annotations

import typing as t

from . import uids
from .discovery import Discovery
from .drive import Drive
from .link import Identity
from .read import Row
from .state import FACTORY, NEW, OURS, DriveState, Fault, Range

Result = dict[str, t.Any]


def describe(row: Row, errors: t.Mapping[str, str]) -> Result:
    """One drive of a task.

    :param errors: what went wrong, by the label of the drive
    """
    error = errors.get(row.drive.label)
    if isinstance(row, Fault):
        return {**plain(row.drive, None, None), "range": None, "proven": False, "error": error}
    shown = None if row.range is None else _range(row.range)
    return {**plain(row.drive, row.identity, _owner(row)), "range": shown, "proven": _is_proven(row), "error": error}


def plain(drive: Drive, identity: Identity | None, found: Discovery | None) -> Result:
    """What is known of a drive without a password; None where nothing is."""
    known = found if found is not None and found.kind else None
    return {
        "serial": drive.serial or (identity.serial if identity else "") or None,
        "device": drive.node or None,
        "model": identity.model if identity else None,
        "firmware": identity.firmware if identity else None,
        "bus": identity.bus if identity else None,
        "wwn": drive.wwn or None,
        "size": drive.size,
        "type": known.kind if known else None,
        "encrypts": known.encrypts if known else None,
        "owned": known.owned if known else None,
        "locking_enabled": known.enabled if known else None,
        "locked": known.locked if known else None,
        "shadow_mbr": known.shadow if known else None,
        "shadow_mbr_done": known.shadow_done if known and known.shadow else None,
    }


def _owner(row: DriveState) -> Discovery:
    """Discovery, with what was found out about the owner by a password."""
    holder = row.holders.get("SID")
    if row.found.owned is not None or holder is None:
        return row.found
    values = {**vars(row.found), "owned": holder != FACTORY}
    return Discovery(**values)


def _is_proven(row: DriveState) -> bool:
    """Whether what opens the range of the task was seen to have a password of the task."""
    if row.range is None:
        return False
    opener = uids.band_master(row.range.number) if row.found.enterprise else uids.ADMIN1
    return row.holders.get(opener) in (OURS, NEW)


def _range(one: Range) -> Result:
    return {
        "number": one.number,
        "start": one.start,
        "length": one.length,
        "enabled": one.enabled,
        "state": one.mode,
    }
