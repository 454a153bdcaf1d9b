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
from .discovery import Discovery
from .drive import Drive, drives, find
from .inquiry import Inquiry, Question, inquiry, secret_of
from .journal import Journal, Memory
from .link import libata_passes
from .options import ABSENT, PRESENT, Wish
from .state import (
    FACTORY,
    FOREIGN,
    LAST_TRY,
    LOCKED,
    LOCKED_OUT,
    NEW,
    OURS,
    READONLY,
    UNLOCKED,
    Backend,
    DriveState,
    Fault,
)
from .usage import Usage

# Drives answer slowly, and do not wait for each other.
MOST_AT_ONCE = 32

Row = t.Union[DriveState, Fault]


@dataclass(frozen=True)
class Survey:
    """The drives of a task, in its order."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Eyes:
    """What a survey works with.

    ``uses``: what uses a drive. ``unread``: whether there is a partition table on it that the kernel has not read.
    ``trying``: whether credentials may be tried; a wrong one costs one of the tries that the drive allows.
    """

    backend: Backend
    journal: Journal
    uses: t.Callable[[Drive], Usage]
    unread: t.Callable[[Drive], bool]
    trying: bool


def survey(eyes: Eyes, table: DeviceTable, wishes: t.Sequence[Wish]) -> Survey:
    """Look at every drive of the task. What is wrong with one of them does not hold up the others.

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
        return one if isinstance(one, Fault) else _look_safely(eyes, wish, one)

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


def _look_safely(eyes: Eyes, wish: Wish, drive: Drive) -> Row:
    try:
        return _look(eyes, wish, drive)
    except StorageError as error:
        return Fault(drive, error)


def _look(eyes: Eyes, wish: Wish, drive: Drive) -> DriveState:
    identity, found = eyes.backend.look(drive)
    if drive.serial and identity.serial and drive.serial != identity.serial:
        raise Refused(
            f"{drive.node} says that its serial number is '{identity.serial}', the kernel that it is '{drive.serial}'.",
            hint="Drives were added or removed meanwhile; run the task again.",
        )
    if found.kind and not identity.key:
        raise Refused(
            f"{drive.node} ({identity.model}) tells neither a serial number nor a WWN, so nothing keeps another drive "
            "from being taken for it. Nothing was done to it.",
            hint="Is it behind a USB bridge or a RAID controller? Connect it directly.",
        )
    used = eyes.uses(drive) if wish.state in (PRESENT, LOCKED, READONLY, ABSENT) else Usage()
    filtered = identity.bus == "sata" and not found.kind and libata_passes() is False
    state = DriveState(drive, identity, found, uses=used.uses, system=used.system, tried=eyes.trying, filtered=filtered)
    if not found.kind or not found.locking:
        return state
    if wish.state in (UNLOCKED, READONLY) and not found.locked and not found.shadowed:
        state = replace(state, unread=eyes.unread(drive))
    return _ask(eyes, wish, state) if eyes.trying else state


def _ask(eyes: Eyes, wish: Wish, state: DriveState) -> DriveState:
    """The same, with what the authorities answered to the credentials they were offered."""
    memory = _remembered(eyes.journal, state)
    questions = inquiry(wish, state.found, memory)
    asked: list[tuple[Question, str]] = []
    if state.found.owned is False:
        state = replace(state, holders={uids.SID: FACTORY})
    question = next(questions, None)
    while question is not None:
        answer = _answer(eyes.backend, state, question, asked)
        if answer is None:
            return replace(state, tried=False)
        if question.offers:
            state = replace(state, holders={**state.holders, question.authority: answer})
        if answer in (LOCKED_OUT, LAST_TRY):
            break
        if question.authority in (uids.ADMIN1, uids.band_master(wish.range)):
            secret = secret_of(wish, answer)
            if secret is not None:
                state = replace(state, range=eyes.backend.read_range(state, wish.range, secret))
        question = _next(questions, answer)
    twice = _refused_two(asked)
    state = replace(state, apart=_is_apart(eyes.journal, wish, state, memory))
    return replace(state, later=_note(eyes.journal, wish, state, memory, asked, twice), twice=twice)


def _answer(backend: Backend, state: DriveState, question: Question, asked: list[tuple[Question, str]]) -> str | None:
    """What an authority answered; None if it can't be asked, and nothing is known that tells it."""
    if not question.offers:
        return FOREIGN
    if not backend.can_try(state, question.authority):
        # To try it would write. It is taken to have what the one before it has.
        return asked[-1][1] if asked else None
    answer = backend.holder(state, question.authority, question.offers)
    asked.append((question, answer))
    return answer


def _is_apart(journal: Journal, wish: Wish, state: DriveState, memory: Memory) -> bool:
    """Whether SID does not take what Admin1 takes; what was found out is noted, since to ask costs a try."""
    admin, owner = state.holders.get(uids.ADMIN1), state.holders.get(uids.SID)
    if state.found.owned is False or (admin in (OURS, NEW) and owner == admin):
        journal.part(state.key, False)
        return False
    if wish.state != PRESENT or wish.new is not None or admin != OURS:
        return False
    if owner == FOREIGN:
        journal.part(state.key, True)
    return owner == FOREIGN or memory.apart


def _next(questions: Inquiry, answer: str) -> Question | None:
    try:
        return questions.send(answer)
    except StopIteration:
        return None


def _remembered(journal: Journal, state: DriveState) -> Memory:
    """What is known of a drive, without what the drive itself contradicts."""
    memory, found = journal.memory(state.key), state.found
    begun, refused = memory.begun(uids.SID), memory.refused(uids.SID)
    if found.owned is False and (begun not in ("", FACTORY) or refused == FACTORY):
        # It was reset since.
        journal.forget(state.key)
        return Memory()
    if memory.apart and not found.enabled:
        journal.part(state.key, False)
        memory = journal.memory(state.key)
    if found.enabled and not found.enterprise and FACTORY in (begun, refused):
        # Its set-up is over. Where locking is off one day, it was reset, and what is noted here would mislead.
        journal.settle(state.key, uids.SID)
        return journal.memory(state.key)
    return memory


def _refused_two(asked: t.Sequence[tuple[Question, str]]) -> tuple[str, ...]:
    """The authorities that were offered two different credentials, at once or one after the other, and took none."""
    offers: dict[str, set[str]] = {}
    for question, answer in asked:
        if answer == FOREIGN:
            offers.setdefault(question.authority, set()).update(one.origin for one in question.offers)
    taken = {question.authority for question, answer in asked if answer != FOREIGN}
    return tuple(authority for authority, origins in offers.items() if len(origins) > 1 and authority not in taken)


def _is_void(wish: Wish, found: Discovery, memory: Memory, answers: t.Mapping[str, str]) -> bool:
    """Whether what was noted of a drive does not hold: somebody else was at it since."""
    if answers.get(uids.SID) == FACTORY == memory.refused(uids.SID):
        # It was reset.
        return True
    if FOREIGN not in answers.values() or wish.psid is not None:
        # With the code of its label, no password was offered.
        return False
    if wish.state == PRESENT and wish.new is None and found.enabled and not found.enterprise:
        # A change that was noted is one between two passwords, of which this task has one at most.
        return False
    # What only opens or closes a range asks without regard to the notes.
    relied = wish.state in (PRESENT, ABSENT)
    return any(answers.get(one, FOREIGN if relied else "") == FOREIGN for one in memory.all_begun)


def _note(
    journal: Journal,
    wish: Wish,
    state: DriveState,
    memory: Memory,
    asked: t.Sequence[tuple[Question, str]],
    twice: t.Collection[str],
) -> tuple[str, ...]:
    """Note what was refused where another credential is possible; these are the authorities.

    :param twice: those that refused two, to which there is no other to offer
    """
    key = state.key
    answers = {question.authority: answer for question, answer in asked}
    taken = {authority: answer for authority, answer in answers.items() if answer in (OURS, NEW, FACTORY)}
    later: list[str] = []
    if any(answers.get(one, FOREIGN) == FOREIGN for one in journal.cut(key)):
        # This task could not change it, and offers nothing again that it did not see taken: no news for the notes.
        return ()
    if _is_void(wish, state.found, memory, answers):
        journal.forget(key)
        memory = Memory()
    for question, answer in asked:
        authority, offered = question.authority, question.offers[0].origin
        if authority in taken:
            _settle(journal, key, authority, memory, answers, wish)
        if authority in twice:
            # With the right password, the next task is to offer that, not what was offered last.
            journal.refuse(key, authority, question.offers[-1].origin)
            continue
        # Without any sign that it is ours, a password that was mistyped would be put off for a worse one.
        signs = bool(taken or memory.refused(authority) or offered == FACTORY)
        if authority not in taken and answer == FOREIGN and question.others and signs:
            journal.refuse(key, authority, offered)
            later.append(authority)
    if taken.get(uids.SID) == FACTORY and len(answers) > 1:
        # The next one asks it first, which costs nothing.
        journal.refuse(key, uids.SID, OURS)
    return tuple(later)


def _settle(
    journal: Journal, key: str, authority: str, memory: Memory, answers: t.Mapping[str, str], wish: Wish
) -> None:
    """Which credential an authority has is known: what was noted of it may be so no longer."""
    answer, former = answers[authority], memory.begun(authority)
    if former and answer != former:
        # The change of it was done. While others have the former one, that is what the next task has to know.
        journal.end(key, authority, former, last=former not in answers.values())
        return
    if former == OURS and wish.new is None and set(answers.values()) == {OURS} and len(answers) > 1:
        # All have this one password, so no change is under way any more, whichever of the two it is.
        journal.settle(key, authority)
        return
    if memory.refused(authority) == FACTORY:
        # That stays true, unless it is the factory's again.
        stale = answer == FACTORY
    else:
        # Which of the task's own is refused depends on the task, and is of use until all is known.
        stale = all(one in (OURS, NEW, FACTORY) for one in answers.values())
    if memory.refused(authority) and stale:
        journal.settle(key, authority)


def may_ask(wish: Wish, found: Discovery) -> bool:
    """Whether a credential would be tried, if that was allowed."""
    return next(inquiry(wish, found, Memory()), None) is not None
