# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do so that drives are as a task wants them.

Where no credential was tried (check mode), a drive is taken to be as this module leaves it and to have the password of
the task.
"""

from __future__ import annotations

import functools
import typing as t
from dataclasses import dataclass, replace

from ..errors import StorageError
from ..plan import Change, Failure, Plan, Step, Work, join
from . import uids
from .discovery import KIND_WORDS, WITHOUT_ENCRYPTION
from .drive import Drive
from .inquiry import is_blocked, secret_of
from .journal import JOURNAL_FILE, Journal
from .options import ABSENT, PRESENT, Wish
from .read import Row, Survey, may_ask
from .state import (
    CLOSED,
    FACTORY,
    FOREIGN,
    LAST_TRY,
    LOCKED,
    LOCKED_OUT,
    NEW,
    OURS,
    READONLY,
    UNLOCKED,
    WRITEONLY,
    Backend,
    DriveState,
    Fault,
    Range,
    Secret,
)

_TIRED = (
    "Too many wrong passwords were tried. Take the power from the drive (a restart is not enough), then use the "
    "right one."
)


@dataclass(frozen=True)
class Tools:
    """What the steps work with; planning asks them nothing.

    ``unused``: raises if something uses the drive by now. ``rescan``: reads its partition table again.
    """

    hand: Backend
    journal: Journal
    unused: t.Callable[[Drive], Work]
    rescan: t.Callable[[Drive], Work]


class _Refusal(Exception):
    """A drive with which nothing can be done."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def decide(tools: Tools, wishes: t.Sequence[Wish], survey: Survey) -> Plan:
    """The plan for all drives."""
    return join(_decide_one(tools, wish, row) for wish, row in zip(wishes, survey.rows))


def _decide_one(tools: Tools, wish: Wish, row: Row) -> Plan:
    label = row.drive.label
    if isinstance(row, Fault):
        return Plan(failures=(Failure(label, row.error.message, row.error.hint, details=row.error.details),))
    try:
        _check_kind(wish, row)
        plan = _Planner(tools, wish, row).plan()
    except _Refusal as refusal:
        return Plan(failures=(Failure(label, refusal.message, refusal.hint),))
    blind = not row.tried and may_ask(wish, row.found)
    warning = (
        f"No password was tried on '{label}', since a wrong one costs a try: the plan is for a drive that has the "
        "password of the task. With check_password: true it is tried."
    )
    warnings = plan.warnings + ((warning,) if blind else ())
    return Plan(tuple(replace(step, branch=label) for step in plan.steps), warnings)


def _check_kind(wish: Wish, state: DriveState) -> None:
    label, kind = state.drive.label, state.found.kind
    if not kind or not state.found.locking:
        hint = "The drive encrypts nothing, or its maker turned that off. Behind a USB bridge, connect it directly."
        if state.filtered:
            hint = (
                "The kernel keeps security commands from SATA drives, since libata.allow_tpm is 0. Put "
                "'libata.allow_tpm=1' on the kernel's command line and restart, if it is such a drive."
            )
        raise _Refusal(f"'{label}' ({state.identity.model}) does not show itself as a self-encrypting drive.", hint)
    if kind in WITHOUT_ENCRYPTION and wish.state == PRESENT:
        raise _Refusal(
            f"'{label}' is a {KIND_WORDS[kind]} drive: it can be locked, but does not encrypt.",
            "Encrypt what is on it by ZFS.",
        )
    if is_blocked(wish, state.found):
        raise _Refusal(
            f"The firmware of this host keeps everybody from taking ownership of '{label}' (Block SID).",
            "Turn that off in the setup of the firmware, or pull the drive and plug it in again while the host runs.",
        )
    if state.found.frozen and wish.state != ABSENT:
        raise _Refusal(
            f"The firmware of this host has frozen the locks of '{label}' (Locking SP Freeze Lock).",
            "Turn that off in the setup of the firmware, or pull the drive and plug it in again while the host runs.",
        )


class _Planner:
    """The steps for one drive."""

    def __init__(self, tools: Tools, wish: Wish, state: DriveState) -> None:
        self._tools = tools
        self._hand = tools.hand
        self._wish = wish
        self._state = state
        self._found = state.found
        self._label = state.drive.label
        self._steps: list[Step] = []
        self._warnings: list[str] = []

    def plan(self) -> Plan:
        if self._wish.psid is None:
            for authority, holder in self._state.holders.items():
                if holder in (LOCKED_OUT, LAST_TRY) and not (self._keeps and authority == uids.SID):
                    self._check_holder(authority, holder)
        plans = {PRESENT: self._present, ABSENT: self._absent, UNLOCKED: self._unlocked}
        plans.get(self._wish.state, self._closed)()
        return Plan(tuple(self._steps), tuple(self._warnings))

    # present

    @property
    def _keeps(self) -> bool:
        """Whether an Opal drive that is set up only has to stay so, for which nothing is needed of its owner."""
        present = self._wish.state == PRESENT and self._wish.new is None
        return present and self._found.enabled and not self._found.enterprise

    def _present(self) -> None:
        target = self._wish.new or self._wish.ours
        if target is None:
            raise _Refusal(f"No password is given for '{self._label}'.")
        if self._found.enterprise:
            self._own_enterprise(target)
        elif self._keeps:
            self._keep_opal(target)
        elif self._found.enabled:
            self._change_opal(target)
        else:
            self._own_opal(target)
        unread = self._found.enterprise and self._state.range is None and self._found.owned is False
        fresh = not self._found.enabled or unread
        self._arrange(Range(self._wish.range) if fresh else self._range(), target)
        if self._found.shadow and not self._wish.range:
            self._check_bootable()
            self._add(
                f"Turn off the shadow MBR of '{self._label}'",
                functools.partial(self._hand.shadow, self._state, False, True, target),
                Change((self._label, "shadow MBR"), "on", "off"),
            )

    def _own_opal(self, target: Secret) -> None:
        holder = self._holder(uids.SID, OURS if self._found.owned else FACTORY)
        self._take(uids.SID, holder, target)
        self._add(
            f"Turn on locking of '{self._label}'",
            functools.partial(self._hand.activate, self._state, target),
            Change((self._label, "locking"), "off", "on"),
        )

    def _keep_opal(self, target: Secret) -> None:
        """Admin1 has the password, which opens the drive. That SID has another one is told before SID is needed."""
        self._holder(uids.ADMIN1, OURS)
        holder = self._state.holders.get(uids.SID, FACTORY if self._found.owned is False else OURS)
        if self._state.apart:
            self._warnings.append(
                f"Admin1 of '{self._label}' takes the password that is given, but its owner, SID, does not. The drive "
                "is opened and closed by it all the same. A change of the password was cut off between the two, or "
                "another program changed one of them. Finish it: run the task with the former password as password, "
                "and this one as new_password. Without the former one, only psid resets the drive. To ask SID cost one "
                f"of the tries the drive allows, so this host notes that in {JOURNAL_FILE} and does not ask again."
            )
        elif holder in (LOCKED_OUT, LAST_TRY):
            words = "is locked out" if holder == LOCKED_OUT else "allows one more wrong password only"
            self._warnings.append(
                f"SID, the owner of '{self._label}', {words}, so it is not known whether it has the password that is "
                f"given. The drive is opened and closed by it all the same. {_TIRED}"
            )
        else:
            self._take(uids.SID, holder, target)

    def _change_opal(self, target: Secret) -> None:
        # Both are looked at before the first one is changed.
        authorities = [uids.ADMIN1, uids.SID]
        if self._is_done(uids.ADMIN1):
            authorities.remove(uids.SID)
        for authority, holder in [(one, self._holder(one, OURS)) for one in authorities]:
            self._take(authority, holder, target)

    def _is_done(self, authority: str) -> bool:
        """Whether a change of the password was done before, as far as SID was not asked again to tell."""
        holders = self._state.holders
        done = holders.get(authority) == NEW and holders.get(uids.SID) == FOREIGN and uids.SID in self._state.later
        if done:
            self._warnings.append(
                f"{authority} of '{self._label}' has new_password, and SID does not take the former password any more, "
                "so the change is taken to be done. SID was not offered a second one; the next run of this task does "
                "that."
            )
        return done

    def _own_enterprise(self, target: Secret) -> None:
        assumed = FACTORY if self._found.owned is False else OURS
        master = uids.band_master(self._wish.range)
        # What was tried first is told first; nothing else was, if that did not open.
        first = self._holder(master, assumed)
        # What tells whether it was finished comes last: see the module inquiry.
        order = [uids.ERASE_MASTER, uids.SID, master]
        if self._wish.new is not None and first != FACTORY:
            order = [uids.ERASE_MASTER, master, uids.SID]
            if self._is_done(master):
                order.remove(uids.SID)
        for authority, holder in [(one, self._holder(one, assumed)) for one in order]:
            if authority == master and holder == FACTORY:
                take = functools.partial(self._hand.own_bands, self._state, target, self._wish.range)
                self._add(
                    f"Take ownership of the ranges of '{self._label}'",
                    functools.partial(self._noted, authority, holder, take),
                    Change((self._label, authority), "password of the factory", "password of this task"),
                )
            else:
                self._take(authority, holder, target)

    def _take(self, authority: str, holder: str, target: Secret) -> None:
        """Give an authority the password it is to have, if it has not."""
        if holder == target.origin or (holder == OURS and self._wish.new is None):
            return
        old = secret_of(self._wish, holder)
        if old is None:
            raise _Refusal(f"No password is given for {authority} of '{self._label}'.")
        if holder == FACTORY:
            title, before = f"Take ownership of '{self._label}' ({authority})", "password of the factory"
        else:
            title, before = f"Change the password of {authority} of '{self._label}'", "former password"
        after = "password of this task" if holder == FACTORY else "new password"
        take = functools.partial(self._hand.set_pin, self._state, authority, old, target)
        self._add(
            title,
            functools.partial(self._noted, authority, holder, take),
            Change((self._label, authority), before, after),
        )

    def _noted(self, authority: str, former: str, take: t.Callable[[], None]) -> None:
        """Change a credential in a way that the next task knows of if this one is cut off."""
        journal, key = self._tools.journal, self._state.key
        journal.begin(key, authority, former)
        take()
        journal.end(key, authority, former)

    def _arrange(self, now: Range, target: Secret) -> None:
        """Place the range, and let it be locked."""
        wish, name = self._wish, f"range {self._wish.range}"
        if wish.start is not None and wish.length is not None and (now.start, now.length) != (wish.start, wish.length):
            self._check_place(now)
            now = replace(now, start=wish.start, length=wish.length, read_enabled=False, write_enabled=False)
            self._add(
                f"Place {name} of '{self._label}' at block {wish.start} for {wish.length} blocks",
                functools.partial(self._hand.place, self._state, now, target),
                Change((self._label, name, "blocks"), None, f"{wish.start}+{wish.length}"),
                guard=self._tools.unused(self._state.drive),
            )
        if wish.range and not now.length:
            raise _Refusal(
                f"{name.capitalize()} of '{self._label}' has no blocks.",
                "Say where it is to be: range_start and range_length.",
            )
        if not now.enabled:
            self._check_bootable()
            self._enable(now, target)

    def _check_place(self, now: Range) -> None:
        wish, step = self._wish, self._found.granularity
        if (wish.start or 0) % step or (wish.length or 0) % step:
            raise _Refusal(
                f"Range {wish.range} of '{self._label}' would begin at block {wish.start} and have {wish.length}; this "
                f"drive wants multiples of {step}."
            )
        self._check_confirmed(
            f"Placing range {wish.range} ({now.length} blocks now) makes what is in these blocks unreadable"
        )
        self._check_unused("Nothing was changed. Export or destroy the pool, unmount or stop what uses it first.")

    def _enable(self, now: Range, target: Secret) -> None:
        name = f"range {self._wish.range}"
        if (now.read_locked, now.write_locked) != CLOSED[now.mode]:
            # Flags without effect as long as locking is not enabled: they would close an open range then and there.
            self._add(
                f"Clear what would lock {name} of '{self._label}' at once",
                functools.partial(self._hand.lock, self._state, self._wish.range, now.mode, target),
            )
        self._add(
            f"Enable locking of {name} of '{self._label}'",
            functools.partial(self._hand.enable, self._state, self._wish.range, target),
            Change((self._label, name, "locks when the power was off"), "no", "yes"),
        )

    # unlocked, readonly, locked

    def _unlocked(self) -> None:
        if self._state.unread and not self._state.reset:
            # An earlier task unlocked it and was cut off, or something held a partition then.
            self._rescan(True)
        if not self._found.enabled or not (self._found.locked or self._found.shadowed):
            return
        secret = self._proven()
        now = self._range()
        if now.mode != UNLOCKED:
            self._set_mode(now, UNLOCKED, secret)
        if self._found.shadowed and not self._wish.range:
            self._add(
                f"Put away the shadow MBR of '{self._label}' until the power was off",
                functools.partial(self._hand.shadow, self._state, True, True, secret),
                Change((self._label, "shadow MBR"), "shown", "put away"),
            )
        self._rescan()

    def _closed(self) -> None:
        wanted = self._wish.state
        if not self._found.enabled:
            raise _Refusal(f"Locking of '{self._label}' is not turned on.", "Set the drive up first: state: present.")
        secret = self._proven()
        now = self._range()
        if now.mode == wanted and now.enabled:
            if wanted == READONLY and self._state.unread and not self._state.reset:
                self._rescan(True)
            return
        if wanted == LOCKED or now.mode == UNLOCKED:
            self._check_unused(
                "Export the pool, unmount or stop what uses it first; programs would hang on a drive that was locked."
            )
        if not now.enabled:
            self._enable(now, secret)
        if now.mode != wanted:
            guard = self._tools.unused(self._state.drive) if now.mode == UNLOCKED or wanted == LOCKED else None
            self._set_mode(now, wanted, secret, guard)
            if now.mode in (LOCKED, WRITEONLY) and wanted != LOCKED:
                self._rescan()

    def _set_mode(self, now: Range, wanted: str, secret: Secret, guard: Work | None = None) -> None:
        words = {UNLOCKED: "Unlock", READONLY: "Make read-only", LOCKED: "Lock"}
        name = f"range {self._wish.range}"
        change = Change((self._label, name, "state"), now.mode, wanted)
        action = functools.partial(self._hand.lock, self._state, self._wish.range, wanted, secret)
        self._add(f"{words[wanted]} {name} of '{self._label}'", action, change, guard=guard)

    def _rescan(self, alone: bool = False) -> None:
        if self._steps or alone:
            title = f"Read the partition table of '{self._label}' again"
            self._steps.append(Step(title, self._tools.rescan(self._state.drive)))

    # absent

    def _absent(self) -> None:
        found, wish = self._found, self._wish
        locking = found.enabled and not found.enterprise
        if found.owned is False:
            holder = FACTORY
        elif wish.psid is not None and (locking or not self._state.tried):
            holder = FOREIGN
        elif self._state.tried:
            holder = self._state.holders.get(uids.SID, FOREIGN)
        else:
            # Where it is not known whose the drive is, the plan is the one that erases: nobody is surprised by less.
            holder = OURS
        if holder == FACTORY and not locking and not (found.locked and wish.psid is not None):
            self._leave_as_made()
            return
        size = f"{self._state.drive.size // 10**9} GB"
        erases = found.encrypts and found.kind not in WITHOUT_ENCRYPTION
        words = "erases all its data" if erases else "takes its passwords away, and perhaps its data"
        self._check_confirmed(f"Resetting it {words} ({self._state.identity.model}, {size})")
        self._check_unused("Nothing was erased. Export or destroy the pool, unmount or stop what uses it first.")
        authority, secret = uids.PSID, wish.psid
        if secret is None:
            authority = uids.SID
            if wish.ours is not None:
                self._check_holder(authority, holder)
            secret = secret_of(wish, holder)
        if secret is None:
            raise _Refusal(f"No password is given for '{self._label}'.")
        if not erases:
            self._warnings.append(
                f"'{self._label}' is a {KIND_WORDS[found.kind]} drive that does not encrypt: a reset destroys no key. "
                "What was written to it may be there afterwards, for everybody to read, or be removed, as its maker "
                "has it. To be sure that it is gone, overwrite it."
            )
        effect = "which erases all its data" if erases else "which may leave its data readable"
        change = ("data", "there", "erased") if erases else ("owner", "somebody", "factory")
        self._add(
            f"Reset '{self._label}' to the factory's settings, {effect}",
            functools.partial(self._revert, authority, secret),
            Change((self._label, change[0]), change[1], change[2]),
            guard=self._tools.unused(self._state.drive),
        )
        self._rescan()

    def _revert(self, authority: str, secret: Secret) -> None:
        journal, key = self._tools.journal, self._state.key
        try:
            self._hand.revert(self._state, authority, secret)
        except StorageError:
            if self._was_reset():
                # Only the answer was lost.
                journal.forget(key)
            raise
        journal.forget(key, {uids.SID: OURS, uids.ERASE_MASTER: OURS})

    def _was_reset(self) -> bool:
        """Whether locking, which was on, is off by now: nothing but a reset turns it off."""
        try:
            identity, found = self._hand.look(self._state.drive)
        except StorageError:
            return False
        return identity.key == self._state.key and self._found.enabled and not found.enabled

    def _leave_as_made(self) -> None:
        """Nothing is to be reset, which does not mean that nothing is to be read."""
        if self._found.locked:
            raise _Refusal(
                f"'{self._label}' has the factory's password for its owner, but a range of it is locked by another "
                "one. Nothing was erased.",
                "Only the code on its label (PSID) resets it: state: absent with psid and confirm_serial, without a "
                "password.",
            )
        if not self._state.reset:
            self._warnings.append(
                f"'{self._label}' is at its factory settings: nothing was erased, and what was written to it can "
                "still be read. To erase that, set the drive up (state: present) and then reset it, or overwrite it."
            )

    # common

    def _add(self, title: str, action: t.Callable[[], None], *changes: Change, guard: Work | None = None) -> None:
        self._steps.append(Step(title, lambda _runner: action(), changes, guard=guard))

    def _holder(self, authority: str, assumed: str) -> str:
        """Which credential an authority has; one that is not known is refused."""
        if not self._state.tried:
            return self._state.holders.get(authority, assumed)
        holder = self._state.holders.get(authority)
        if holder is None:
            # It was not asked, since another one did not take what it was offered.
            authority = next((name for name, one in self._state.holders.items() if one == FOREIGN), authority)
            holder = FOREIGN
        self._check_holder(authority, holder)
        return holder

    def _check_holder(self, authority: str, holder: str) -> None:
        if holder == LOCKED_OUT:
            raise _Refusal(f"{authority} of '{self._label}' is locked out.", _TIRED)
        if holder == LAST_TRY:
            raise _Refusal(
                f"{authority} of '{self._label}' allows one more wrong password only, so none was tried.",
                _TIRED,
            )
        if holder == FOREIGN and authority in self._state.twice:
            raise _Refusal(
                f"{authority} of '{self._label}' takes neither the password that is given nor the one that it may have "
                "had before.",
                "That cost two of the tries the drive allows; a few more, and only taking its power helps. If a set-up "
                "or a change of the password was cut off, give the passwords of that task. Was it set up with another "
                "one? If the password is lost, psid erases the drive.",
            )
        if holder == FOREIGN and authority in self._state.later:
            raise _Refusal(
                f"{authority} of '{self._label}' does not take the password that it was offered.",
                "That cost one of the tries the drive allows, so no other was offered. An interrupted set-up or change "
                "of the password may have left another one: run the same task again, which offers that one. If that is "
                "refused, too, the drive is somebody else's.",
            )
        if holder == FOREIGN:
            raise _Refusal(
                f"{authority} of '{self._label}' does not take the password that is given.",
                "That cost one of the tries the drive allows; a few more, and only taking its power helps. Was it "
                "set up at all, or with another password, another 'hash', or on another host? If the password is lost, "
                "psid erases the drive.",
            )

    def _proven(self) -> Secret:
        """The password with which the range is opened and closed."""
        if self._wish.ours is None:
            raise _Refusal(f"No password is given for '{self._label}'.")
        # Nothing else is offered for that.
        self._holder(uids.band_master(self._wish.range) if self._found.enterprise else uids.ADMIN1, OURS)
        return self._wish.ours

    def _range(self) -> Range:
        if self._state.range is not None:
            return self._state.range
        wish, closed = self._wish, self._found.locked
        length = wish.length or int(bool(wish.range))
        return Range(wish.range, wish.start or 0, length, True, True, closed, closed)

    def _check_unused(self, hint: str) -> None:
        if self._state.uses:
            used = ", ".join(self._state.uses)
            raise _Refusal(f"'{self._label}' ({self._state.drive.node}) is in use: {used}.", hint)

    def _check_bootable(self) -> None:
        """Nothing unlocks a drive at boot but its shadow MBR, and the host may need the drive to get that far."""
        if self._state.system:
            used = ", ".join(self._state.system)
            self._check_confirmed(
                f"This host runs from '{self._label}' ({self._state.drive.node}): {used}. Once the power was off, the "
                "drive would be locked and the host not start, since nothing unlocks it at boot. Nothing was changed"
            )

    def _check_confirmed(self, what: str) -> None:
        key = self._state.key
        if key not in self._wish.confirm:
            raise _Refusal(f"{what}.", f"If that is meant, say so: confirm_serial: {key}.")
