# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the drives of a task, all at once, and try no more credentials than the question needs."""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ..blockdev.identity import DeviceTable
from ..errors import BadInput, Refused, StorageError
from ..plan import Plan
from . import uids
from .drive import Drive, drives, find
from .link import libata_passes
from .options import ABSENT, PRESENT, Wish
from .state import (
    FACTORY,
    FACTORY_SECRET,
    FOREIGN,
    LOCKED,
    LOCKED_OUT,
    NEW,
    OURS,
    READONLY,
    Backend,
    DriveState,
    Fault,
    Secret,
)
from .usage import Usage

# Drives answer slowly, and do not wait for each other.
MOST_AT_ONCE = 32

Row = t.Union[DriveState, Fault]
Uses = t.Callable[[Drive], Usage]


@dataclass(frozen=True)
class Survey:
    """The drives of a task, in its order, and every other one of the host."""

    rows: tuple[Row, ...]


def survey(backend: Backend, table: DeviceTable, uses: Uses, wishes: t.Sequence[Wish], trying: bool) -> Survey:
    """Look at every drive of the task. What is wrong with one of them does not hold up the others.

    :param trying: whether credentials may be tried; a wrong one costs one of the tries that the drive allows
    :raises BadInput: two wishes are for the same drive, or for two that can't be told apart
    """
    known = drives(table)
    meant = [_meant(table, known, wish) for wish in wishes]
    labels: dict[str, str] = {}
    for wish, one in zip(wishes, meant):
        label = one.drive.label if isinstance(one, Fault) else one.label
        if label in labels:
            raise BadInput(
                f"'{labels[label]}' and '{wish.address}' are the same drive, or both call themselves '{label}'."
            )
        labels[label] = wish.address

    def look(wish: Wish, one: Drive | Fault) -> Row:
        return one if isinstance(one, Fault) else _look_safely(backend, uses, wish, one, trying)

    with ThreadPoolExecutor(min(len(meant), MOST_AT_ONCE)) as pool:
        return Survey(tuple(pool.map(look, wishes, meant)))


def after(found: Survey, plan: Plan) -> Survey:
    """What was found when a plan had been carried out, so that a drive that was reset is not taken for untouched."""
    done = {step.branch for step in plan.steps}
    return Survey(
        tuple(
            replace(row, reset=True) if isinstance(row, DriveState) and row.drive.label in done else row
            for row in found.rows
        )
    )


def _meant(table: DeviceTable, known: t.Sequence[Drive], wish: Wish) -> Drive | Fault:
    """The drive of a wish. One that is not there, of many, does not keep the others locked."""
    try:
        return find(table, known, wish.address)
    except BadInput as error:
        return Fault(Drive(wish.address, ""), error)


def _look_safely(backend: Backend, uses: Uses, wish: Wish, drive: Drive, trying: bool) -> Row:
    try:
        return _look(backend, uses, wish, drive, trying)
    except StorageError as error:
        return Fault(drive, error)


def _look(backend: Backend, uses: Uses, wish: Wish, drive: Drive, trying: bool) -> DriveState:
    identity, found = backend.look(drive)
    if drive.serial and identity.serial and drive.serial != identity.serial:
        raise Refused(
            f"{drive.node} says that its serial number is '{identity.serial}', the kernel that it is '{drive.serial}'.",
            hint="Drives were added or removed meanwhile; run the task again.",
        )
    used = uses(drive) if wish.state in (PRESENT, LOCKED, READONLY, ABSENT) else Usage()
    filtered = identity.bus == "sata" and not found.kind and libata_passes() is False
    state = DriveState(drive, identity, found, uses=used.uses, system=used.system, tried=trying, filtered=filtered)
    if not found.kind or not found.locking or not trying:
        return state
    holders: dict[str, str] = {}
    for authority, offers in attempts(wish, state):
        holders[authority] = backend.holder(state, authority, offers)
        state = replace(state, holders=holders)
        if authority in (uids.ADMIN1, uids.band_master(wish.range)):
            secret = secret_of(wish, holders[authority])
            if secret is not None:
                state = replace(state, range=backend.read_range(state, wish.range, secret))
        if holders[authority] in (FOREIGN, LOCKED_OUT):
            # The drive is somebody else's, so the others would cost tries for nothing.
            break
    return state


def attempts(wish: Wish, state: DriveState) -> t.Iterator[tuple[str, list[Secret]]]:
    """Which authorities are to be tried with which credentials.

    A credential that is surely wrong is not offered, and none is where discovery tells enough.
    """
    found, ours = state.found, wish.offers()
    maybe_factory = [] if found.owned else [FACTORY_SECRET]
    if wish.state == ABSENT:
        if found.owned is False:
            return
        if not found.enabled or found.enterprise:
            yield uids.SID, maybe_factory + ours
        elif ours:
            yield uids.SID, ours
        return
    if not found.enabled:
        if wish.state == PRESENT:
            yield uids.SID, maybe_factory + ours
        return
    if wish.state == "unlocked" and not found.locked and not found.shadowed:
        return
    if not found.enterprise:
        yield uids.ADMIN1, ours
        if wish.state == PRESENT and wish.new is not None:
            yield uids.SID, ours
        return
    if found.owned is False:
        ours = [FACTORY_SECRET]
    elif wish.state == PRESENT or not found.locked:
        # The factory's credential clears the try that ours cost on a drive that was never set up.
        ours = ours + maybe_factory
    master = uids.band_master(wish.range)
    yield master, ours
    if wish.state == PRESENT:
        yield uids.SID, ours
        yield uids.ERASE_MASTER, ours


def secret_of(wish: Wish, holder: str) -> Secret | None:
    """The credential of this origin."""
    return {FACTORY: FACTORY_SECRET, OURS: wish.ours, NEW: wish.new}.get(holder)
