# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which credentials are offered to which authorities of a drive, so that at most one of each is wrong.

Every wrong credential costs one of a few tries, and a drive tells of most authorities neither whose they are nor how
many tries are left. So an authority is offered one credential in a task. It is offered a second one only where what
is known leaves no other: another authority of the drive took the one that is always changed after it, or this host has
noted that it was changing that very credential when it was cut off. Where several are possible and nothing tells which,
the one that was refused is noted, and the next task offers the next one.

There are two cases in which the second one may be wrong, too, so that an authority refuses two in one task:

* This host noted that it was changing the credential of that authority when it was cut off, and the task gives other
  passwords than the one that was cut off did. Either may be in the drive, and nothing but offering it tells which; to
  offer one in each task would need two runs after every second cut. What was noted is dropped then, but for what was
  refused, so the tasks that follow offer one again.
* An Enterprise drive that does not tell its owner has the factory's password for SID and EraseMaster, and an open
  BandMaster that has another one than the task's. A drive that is new looks the same until its BandMaster is offered
  the factory's. No program is known to leave that.

What is relied upon: a change of the password gives it to SID last, which opens no data, so that nothing but SID has to
tell whether it was finished. An Enterprise drive is set up in the order EraseMaster, SID, BandMaster.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from . import uids
from .discovery import Discovery
from .journal import Memory
from .options import ABSENT, PRESENT, Wish
from .state import FACTORY, FACTORY_SECRET, NEW, OURS, UNLOCKED, Secret


@dataclass(frozen=True)
class Question:
    """Credentials to be offered to an authority one after another until it takes one; mostly it is one.

    ``others``: there are more that it may have.
    """

    authority: str
    offers: tuple[Secret, ...]
    others: bool = False


# It is sent the origin of the credential that was taken, or what else became of a question.
Inquiry = t.Generator[Question, str, None]


def inquiry(wish: Wish, found: Discovery, memory: Memory) -> Inquiry:
    """The questions for one drive, each made of the answers to those before. None where discovery tells enough."""
    if is_blocked(wish, found):
        return _nothing()
    if wish.state == ABSENT:
        return _absent(wish, found, memory)
    if not found.enabled:
        return _unset(wish, found, memory)
    if wish.state == UNLOCKED and not found.locked and not found.shadowed:
        return _nothing()
    if wish.state != PRESENT:
        return _opening(wish, found)
    if found.enterprise:
        return _enterprise(wish, found, memory)
    return _opal(wish, found, memory) if wish.new is None else _opal_change(wish, memory)


def _ask(authority: str, *offers: Secret | None) -> Question:
    """All of these, in this order."""
    return Question(authority, tuple(one for one in offers if one is not None))


def _one(memory: Memory, authority: str, *offers: Secret | None) -> Question:
    """The one of these that is most likely: the first, or that after the one which was refused last."""
    there = [one for one in offers if one is not None]
    names = [one.origin for one in there]
    last = memory.refused(authority)
    at = (names.index(last) + 1) % len(there) if last in names else 0
    return Question(authority, tuple(there[at : at + 1]), len(there) > 1)


def _nothing() -> Inquiry:
    yield from ()


def _opening(wish: Wish, found: Discovery) -> Inquiry:
    """What opens and closes a range."""
    yield _ask(uids.band_master(wish.range) if found.enterprise else uids.ADMIN1, wish.ours or wish.new)


def _unset(wish: Wish, found: Discovery, memory: Memory) -> Inquiry:
    """An Opal drive whose locking is not on. Only SID is of use, and it is the factory's, or a set-up stopped."""
    if wish.state != PRESENT:
        return
    former, factory = memory.begun(uids.SID), None if found.owned else FACTORY_SECRET
    if found.owned is False:
        yield _ask(uids.SID, FACTORY_SECRET)
    elif former:
        yield _ask(uids.SID, wish.target, factory if former == FACTORY else secret_of(wish, former))
    else:
        yield _one(memory, uids.SID, factory, wish.target, wish.ours if wish.new is not None else None)


def _opal(wish: Wish, found: Discovery, memory: Memory) -> Inquiry:
    """Admin1 alone does not tell that a change of the password was finished: SID gets the new one after it.

    Where SID refused once what Admin1 takes, it is not asked again: that would cost a try in each run.
    """
    asked = found.owned is not False and not found.blocked and not memory.apart
    if _taken((yield _ask(uids.ADMIN1, wish.ours))) and asked:
        yield _ask(uids.SID, wish.ours)


def _opal_change(wish: Wish, memory: Memory) -> Inquiry:
    """Two authorities, of which Admin1 is changed first: while SID has the former password, either is possible."""
    if memory.begun(uids.SID) not in ("", FACTORY):
        if (yield _ask(uids.ADMIN1, wish.new)) == NEW:
            yield _ask(uids.SID, wish.new, wish.ours)
        return
    owner = _one(memory, uids.SID, wish.ours, wish.new)
    answer = yield owner
    if answer == NEW:
        yield _ask(uids.ADMIN1, wish.new)
    elif answer == OURS and memory.begun(uids.ADMIN1):
        yield _ask(uids.ADMIN1, wish.new, wish.ours)
    elif answer == OURS:
        yield _one(memory, uids.ADMIN1, wish.ours, wish.new)
    elif wish.ours in owner.offers:
        # The change may have been done before. Then the next task offers SID the new one first.
        yield _ask(uids.ADMIN1, wish.new)


def _enterprise(wish: Wish, found: Discovery, memory: Memory) -> Inquiry:
    master = uids.band_master(wish.range)
    for order, factory in (
        ((uids.ERASE_MASTER, uids.SID, master), True),
        ((uids.ERASE_MASTER, master, uids.SID), False),
    ):
        for one in order:
            if memory.begun(one) and (memory.begun(one) == FACTORY) is factory:
                return _cut_off(wish, order, one, secret_of(wish, memory.begun(one)))
    if found.owned is False:
        return _unowned(wish, found, memory)
    return _owned(wish, found, memory) if wish.new is None else _enterprise_change(wish, memory)


def _enterprise_change(wish: Wish, memory: Memory) -> Inquiry:
    """Three authorities, of which SID is changed last: while it has the former password, the others have either."""
    master = uids.band_master(wish.range)
    owner = _one(memory, uids.SID, wish.ours, wish.new)
    answer = yield owner
    if answer == OURS:
        for one in (uids.ERASE_MASTER, master):
            if not _taken((yield _one(memory, one, wish.ours, wish.new))):
                return
    elif answer == NEW or wish.ours in owner.offers:
        # If SID does not take the former one, the next task offers it the new one first.
        for one in (master, uids.ERASE_MASTER):
            if not _taken((yield _ask(one, wish.new))):
                return


def _cut_off(wish: Wish, order: t.Sequence[str], authority: str, former: Secret | None) -> Inquiry:
    """What comes before the one that was being changed was changed, what comes after it was not."""
    at = order.index(authority)
    for one in order[:at]:
        if not _taken((yield _ask(one, wish.target))):
            return
    if _taken((yield _ask(authority, wish.target, former))):
        for one in order[at + 1 :]:
            if not _taken((yield _ask(one, former))):
                return


def _unowned(wish: Wish, found: Discovery, memory: Memory) -> Inquiry:
    """SID has the factory's password, as the drive tells. The others need not, if another program was at it."""
    master, target = uids.band_master(wish.range), wish.target
    if _taken((yield _one(memory, uids.ERASE_MASTER, FACTORY_SECRET, target))):
        # The factory locks nothing.
        yield _ask(master, target) if found.locked else _one(memory, master, FACTORY_SECRET, target)
    else:
        # If that is ours, the next task offers EraseMaster the same.
        yield _ask(master, target)


def _owned(wish: Wish, found: Discovery, memory: Memory) -> Inquiry:
    """It does not tell whose it is, or that it is not the factory's any more."""
    master, target = uids.band_master(wish.range), wish.target
    if memory.refused(uids.ERASE_MASTER) == FACTORY:
        # A set-up by this host, which is done or stopped somewhere after EraseMaster. It sets all BandMasters at once.
        done = any(map(uids.is_band_master, memory.all_refused(FACTORY)))
        either = (target, FACTORY_SECRET) if done else (FACTORY_SECRET, target)
        last = _ask(master, target) if found.locked else _one(memory, master, *either)
        first = replace(_ask(uids.ERASE_MASTER, target), others=True)
        for question in (first, _one(memory, uids.SID, FACTORY_SECRET, target), last):
            if not _taken((yield question)):
                return
        return
    # The factory's is only possible where the others were found to be ours, and this one not.
    factory = FACTORY_SECRET if memory.refused(master) and not found.locked else None
    if _taken((yield replace(_one(memory, master, target, factory), others=True))):
        for one in (uids.SID, uids.ERASE_MASTER):
            if not _taken((yield _ask(one, target))):
                return
        return
    if found.locked:
        return
    if found.owned:
        yield _ask(uids.SID, target)
        return
    if (yield Question(uids.SID, (FACTORY_SECRET,), True)) != FACTORY:
        return
    if _taken((yield _one(memory, uids.ERASE_MASTER, FACTORY_SECRET, target))):
        yield _ask(master, FACTORY_SECRET)


def _absent(wish: Wish, found: Discovery, memory: Memory) -> Inquiry:
    """Its owner resets a drive. EraseMaster, which has a count of its own, tells whether the owner is the factory."""
    factory = None if found.owned else FACTORY_SECRET
    if found.owned is False:
        return
    if found.enabled and not found.enterprise:
        if wish.ours is not None:
            yield _ask(uids.SID, wish.ours)
    elif memory.begun(uids.SID) == FACTORY:
        yield _ask(uids.SID, wish.ours, factory)
    elif memory.begun(uids.ERASE_MASTER) == FACTORY:
        yield _ask(uids.SID, factory)
    elif not found.enterprise or wish.ours is None or memory.refused(uids.SID) == OURS:
        yield _one(memory, uids.SID, factory, wish.ours)
    elif found.owned or _taken((yield _ask(uids.ERASE_MASTER, wish.ours))):
        yield _one(memory, uids.SID, wish.ours, factory)
    else:
        yield Question(uids.SID, (FACTORY_SECRET,), True)


def is_blocked(wish: Wish, found: Discovery) -> bool:
    """Whether the firmware keeps everybody from the owner (SID), and what is wanted can't be without it."""
    needed = not found.enabled or found.enterprise or wish.new is not None or found.owned is False
    return found.blocked and wish.state == PRESENT and needed


def _taken(answer: str) -> bool:
    return answer in (OURS, NEW, FACTORY)


def secret_of(wish: Wish, holder: str) -> Secret | None:
    """The credential of this origin."""
    return {FACTORY: FACTORY_SECRET, OURS: wish.ours, NEW: wish.new}.get(holder)
