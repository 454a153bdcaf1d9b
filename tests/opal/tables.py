# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of a drive: what each column holds, who may read it and who may set it."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from . import names
from .drive import Drive, MethodError, Range
from .names import ANYBODY

Who = t.Collection[bytes]
_NOBODY: Who = ()


@dataclass(frozen=True)
class Cell:
    """One value of a row."""

    get: t.Callable[[], t.Any]
    readers: Who
    put: t.Callable[[t.Any], None] | None = None
    writers: Who = _NOBODY


@dataclass(frozen=True)
class Row:
    """One object: its cells by column name."""

    table: str
    cells: t.Mapping[str, Cell]

    def number(self, column: str) -> int:
        return names.COLUMNS[self.table][column]


def find(drive: Drive, sp: bytes, uid: bytes) -> Row | None:
    """The object of this name in a security provider."""
    if sp == names.ADMIN_SP:
        return _admin_row(drive, uid)
    return _locking_row(drive, uid)


def _admin_row(drive: Drive, uid: bytes) -> Row | None:
    sid = (names.SID,)
    if uid == names.PIN_MSID:
        return Row("C_PIN", {"PIN": _shown(drive.spec.msid)})
    if uid == names.PIN_SID:
        return Row("C_PIN", _pin_cells(drive, uid, sid))
    if uid == names.ADMIN_SP:
        return Row("SP", {"UID": _shown(uid), "LifeCycleState": _shown(names.MANUFACTURED)})
    if uid == drive.locking_sp:
        state = names.MANUFACTURED if drive.locking_enabled else names.INACTIVE
        return Row("SP", {"UID": _shown(uid), "LifeCycleState": _shown(state)})
    if uid in (names.SID, names.PSID):
        return Row("Authority", {"UID": _shown(uid), "Enabled": _shown(1)})
    return None


def _locking_row(drive: Drive, uid: bytes) -> Row | None:
    spec = drive.spec
    masters = _admins(drive)
    for number in range(len(drive.ranges)):
        if uid == names.locking_range(number, spec.enterprise):
            return Row("Locking", _range_cells(drive, number, masters))
    for authority in drive.enabled:
        if uid == names.pin_of(authority):
            # A BandMaster changes its own PIN only; the Admins of Opal change that of everybody.
            owners: Who = (authority,) if spec.enterprise else (authority, *masters)
            return Row("C_PIN", _pin_cells(drive, uid, owners))
        if uid == authority:
            chiefs: Who = (names.ERASE_MASTER,) if spec.enterprise else masters
            return Row("Authority", _authority_cells(drive, authority, chiefs))
    if uid == names.LOCKING_INFO or (spec.enterprise and uid == names.LOCKING_INFO_ENTERPRISE):
        return Row(
            "LockingInfo",
            {
                "MaxRanges": _shown(spec.ranges),
                "AlignmentRequired": _shown(1),
                "LogicalBlockSize": _shown(spec.block_size),
                "AlignmentGranularity": _shown(spec.granularity),
                "LowestAlignedLBA": _shown(0),
            },
        )
    if uid == names.MBR_CONTROL and not spec.enterprise:
        return Row("MBRControl", _mbr_cells(drive, masters))
    return None


def _admins(drive: Drive) -> Who:
    return tuple(names.admin(number + 1) for number in range(drive.spec.admins))


def _shown(value: t.Any) -> Cell:
    return Cell(lambda: value, (ANYBODY,))


def _pin_cells(drive: Drive, uid: bytes, who: Who) -> dict[str, Cell]:
    pin = drive.pins[uid]
    seers = (ANYBODY,) if drive.spec.shows_tries else who

    def put(value: t.Any) -> None:
        if not isinstance(value, bytes) or len(value) > 32:
            raise MethodError(names.INVALID_PARAMETER)
        pin.value = value
        pin.tries = 0

    return {
        "PIN": Cell(lambda: pin.value, _NOBODY, put, who),
        "TryLimit": Cell(lambda: pin.limit, seers),
        "Tries": Cell(lambda: pin.tries, seers),
        "Persistence": Cell(lambda: 0, who),
    }


def _authority_cells(drive: Drive, authority: bytes, who: Who) -> dict[str, Cell]:
    def put(value: t.Any) -> None:
        drive.enabled[authority] = _flag(value)

    return {"UID": _shown(authority), "Enabled": Cell(lambda: int(drive.enabled[authority]), who, put, who)}


def _range_cells(drive: Drive, number: int, masters: Who) -> dict[str, Cell]:
    spec = drive.spec
    who = (names.band_master(number),) if spec.enterprise else masters
    uid = names.locking_range(number, spec.enterprise)

    def get(field: str) -> t.Callable[[], t.Any]:
        def read() -> t.Any:
            value = getattr(drive.ranges[number], field)
            return list(value) if isinstance(value, tuple) else int(value)

        return read

    def change(field: str, convert: t.Callable[[t.Any], t.Any]) -> t.Callable[[t.Any], None]:
        def put(value: t.Any) -> None:
            drive.ranges[number] = replace(drive.ranges[number], **{field: convert(value)})

        return put

    def cell(field: str, convert: t.Callable[[t.Any], t.Any]) -> Cell:
        return Cell(get(field), who, change(field, convert), who)

    name = "Global_Range" if not number else f"Band{number}" if spec.enterprise else f"Range{number}"
    common = "Locking" if spec.enterprise else ""
    return {
        "UID": _shown(uid),
        "Name": _shown(name.encode()),
        "CommonName": _shown(common.encode()),
        "RangeStart": cell("start", _count) if number else Cell(lambda: 0, who),
        "RangeLength": cell("length", _count) if number else Cell(lambda: 0, who),
        "ReadLockEnabled": cell("read_enabled", _flag),
        "WriteLockEnabled": cell("write_enabled", _flag),
        "ReadLocked": cell("read_locked", _flag),
        "WriteLocked": cell("write_locked", _flag),
        "LockOnReset": cell("lock_on_reset", _resets),
        "ActiveKey": Cell(lambda: names.media_key(number, spec.enterprise), who),
    }


def _mbr_cells(drive: Drive, who: Who) -> dict[str, Cell]:
    def change(field: str, convert: t.Callable[[t.Any], t.Any]) -> t.Callable[[t.Any], None]:
        def put(value: t.Any) -> None:
            drive.mbr = replace(drive.mbr, **{field: convert(value)})

        return put

    return {
        "Enable": Cell(lambda: int(drive.mbr.enabled), (ANYBODY,), change("enabled", _flag), who),
        "Done": Cell(lambda: int(drive.mbr.done), (ANYBODY,), change("done", _flag), who),
        "DoneOnReset": Cell(lambda: list(drive.mbr.done_on_reset), (ANYBODY,), change("done_on_reset", _resets), who),
    }


def _flag(value: t.Any) -> bool:
    if value not in (0, 1):
        raise MethodError(names.INVALID_PARAMETER)
    return bool(value)


def _count(value: t.Any) -> int:
    if not isinstance(value, int):
        raise MethodError(names.INVALID_PARAMETER)
    return value


def _resets(value: t.Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(one, int) for one in value):
        raise MethodError(names.INVALID_PARAMETER)
    return tuple(value)


def check_ranges(drive: Drive, before: t.Sequence[Range], columns: t.Collection[str]) -> None:
    """What a drive checks of its ranges as a whole after a Set.

    :raises MethodError: a range that is not aligned, too long, or overlaps another one
    """
    spec = drive.spec
    if spec.both_locks and len({"ReadLockEnabled", "WriteLockEnabled"} & set(columns)) == 1:
        raise MethodError(names.INVALID_PARAMETER)
    for one, old in zip(drive.ranges, before):
        if (one.start, one.length) == (old.start, old.length):
            continue
        if one.start % spec.granularity or one.length % spec.granularity or one.start + one.length > spec.blocks:
            raise MethodError(names.INVALID_PARAMETER)
    if drive.overlaps():
        raise MethodError(names.INVALID_PARAMETER)
