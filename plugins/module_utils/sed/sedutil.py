# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives through sedutil-cli, for what the kernel's own interfaces can't reach.

The program takes passwords as arguments only, where every user of the host can read them while it runs.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t
from dataclasses import replace

from ..command import Command, CommandTimeout, Result, Runner
from ..errors import Refused, StorageError
from ..secrets import Mask
from . import pin, uids
from . import sedutil_text as text
from .discovery import Discovery
from .drive import Drive
from .hold import Hold, Holder, hold
from .link import Identity, Link, open_link
from .session import Line, LockedOut, NotStored, Rejected, Session, discover, open_session
from .state import (
    FACTORY,
    FOREIGN,
    LOCKED,
    LOCKED_OUT,
    READONLY,
    UNLOCKED,
    WRITEONLY,
    DriveState,
    Range,
    Secret,
)

_PROGRAM = "sedutil-cli"
_ANY = range(-64, 256)

Opener = t.Callable[[str, bool], t.ContextManager[Link]]


class Sedutil:
    """sedutil-cli, one process for each thing that is asked or done.

    :param runner: starts programs whatever is in their arguments
    :param mask: hides the secrets in what it prints
    :param raw: passwords are not stretched
    :param writes: False in check mode: what can be tried by writing alone is not tried
    :param warn: told what is not known, which is no failure
    """

    name = "sedutil"

    def __init__(
        self,
        runner: Runner,
        mask: Mask,
        raw: bool,
        writes: bool = True,
        warn: t.Callable[[str], None] = lambda _text: None,
        opener: Opener = open_link,
        holder: Holder = hold,
    ) -> None:
        self._runner = runner
        self._mask = mask
        self._options = ("-n",) if raw else ()
        self._writes = writes
        self._warn = warn
        self._open = opener
        self._hold = holder
        self._lock = threading.Lock()
        self._refused: set[tuple[str, str, bytes]] = set()

    def look(self, drive: Drive) -> tuple[Identity, Discovery]:
        with self._hold(drive.node), self._open(drive.node, False) as link:
            identity = link.identify()
            shown = self._run("ask the drive", drive.node, "--query", (), options=())
            found = text.discovery(shown.stdout)
            if found.kind:
                # Most versions do not show what the firmware of the host keeps the drive from.
                with contextlib.suppress(StorageError):
                    told = discover(link)
                    found = replace(found, blocked=told.blocked, frozen=told.frozen)
        return identity, found

    def can_try(self, state: DriveState, authority: str) -> bool:
        # The program has no other way to try the others than to set the password that is there once more.
        return self._writes or authority not in (uids.SID, uids.ERASE_MASTER) or _is_on(state, authority)

    def holder(self, state: DriveState, authority: str, offers: t.Sequence[Secret]) -> str:
        if state.found.enterprise and authority == uids.SID:
            return self._enterprise_owner(state, offers)
        return self._first(state, authority, offers)

    def _enterprise_owner(self, state: DriveState, offers: t.Sequence[Secret]) -> str:
        """Version 1.20 never stretches the former password of the owner, so that can't be tried; others tell it."""
        answer = self._first(state, uids.SID, [one for one in offers if one.origin == FACTORY])
        if answer != FOREIGN:
            return answer
        told = [holder for name, holder in state.holders.items() if name != uids.SID]
        if not told and not any(one.origin == FACTORY for one in offers):
            raise StorageError(
                "sedutil-cli 1.20 can neither try nor change the owner's password of an Enterprise drive.",
                hint="Use backend: native.",
            )
        return next((one.origin for one in offers if one.origin != FACTORY and one.origin in told), FOREIGN)

    def _first(self, state: DriveState, authority: str, offers: t.Sequence[Secret]) -> str:
        """The origin of the first one that is taken."""
        for secret in offers:
            mark = (state.drive.label, authority, secret.value)
            if mark in self._refused:
                continue
            done = self._try(state, authority, secret)
            if text.is_taken(done.rc, done.stderr):
                return secret.origin
            if done.rc == text.LOCKED_OUT:
                return LOCKED_OUT
            if not text.is_wrong_password(done.rc, done.stderr):
                raise self._failed(f"try a password of {authority}", done)
            with self._lock:
                self._refused.add(mark)
        return FOREIGN

    def _try(self, state: DriveState, authority: str, secret: Secret) -> Result:
        word = f"try a password of {authority}"
        if authority == uids.ADMIN1:
            return self._on(state, word, "--listLockingRanges", secret)
        if uids.is_band_master(authority):
            return self._on(state, word, "--listLockingRange", authority[len("BandMaster") :], secret)
        if authority == uids.ERASE_MASTER:
            return self._on(state, word, "--setPassword", secret, authority, secret)
        options = ("-n",) if secret.origin == FACTORY else None
        offer = self._factory(state) if secret.origin == FACTORY else secret
        if _is_on(state, authority):
            # It begins a session of the owner, sees that there is nothing to turn on, and ends it.
            return self._on(state, word, "--activateLockingSP", offer, options=options)
        # To set the password that is there is the only way to try it.
        return self._on(state, word, "--setSIDPassword", offer, offer, options=options)

    def read_range(self, state: DriveState, number: int, secret: Secret) -> Range:
        word = f"tell of range {number}"
        if state.found.enterprise:
            found = text.bands(self._good(state, word, (), "--listLockingRange", str(number), secret))
        else:
            found = text.opal_ranges(self._good(state, word, (), "--listLockingRanges", secret))
        if number not in found:
            raise StorageError(f"sedutil-cli does not tell of range {number} of {state.drive.node}.")
        return found[number]

    def set_pin(self, state: DriveState, authority: str, old: Secret, new: Secret) -> None:
        word = f"set the password of {authority}"
        enterprise = state.found.enterprise
        if authority == uids.SID and enterprise and old.origin != FACTORY:
            raise StorageError(
                "sedutil-cli 1.20 can neither try nor change the owner's password of an Enterprise drive.",
                hint="Use backend: native.",
            )
        if authority == uids.SID and old.origin == FACTORY and not enterprise:
            self._good(state, word, ("takeOwnership complete",), "--takeOwnership", new)
        elif authority == uids.SID:
            self._good(state, word, (), "--setSIDPassword", old, new)
        elif authority == uids.ADMIN1:
            self._good(state, word, ("Admin1 password changed",), "--setAdmin1Pwd", old, new)
        else:
            self._good(state, word, (f"{authority} password changed",), "--setPassword", old, authority, new)
        self._prove(state, authority, new)

    def own_bands(self, state: DriveState, new: Secret, last: int) -> None:
        factory = Secret(FACTORY)
        listed = self._on(state, "tell of its ranges", "--listLockingRanges", factory)
        most = text.most_ranges(listed.stdout)
        if most is None:
            raise self._failed("tell of its ranges", listed)
        # Those that are disabled or somebody's do not open.
        numbers = sorted(text.bands(listed.stdout), key=lambda one: one == last)
        if last not in numbers:
            raise Rejected(f"authenticate {uids.band_master(last)}", uids.NOT_AUTHORIZED)
        for number in numbers:
            self.set_pin(state, uids.band_master(number), factory, new)

    def activate(self, state: DriveState, secret: Secret) -> None:
        self._good(state, "turn locking on", ("Locking SP Activate Complete",), "--activateLockingSP", secret)

    def place(self, state: DriveState, wanted: Range, secret: Secret) -> None:
        place = (str(wanted.number), str(wanted.start), str(wanted.length))
        line = f"LockingRange{wanted.number} starting block {wanted.start} for {wanted.length} blocks"
        self._good(state, f"place range {wanted.number}", (line,), "--setupLockingRange", *place, secret)

    def enable(self, state: DriveState, number: int, secret: Secret) -> None:
        lines = (f"LockingRange{number} enabled ReadLocking,WriteLocking", "Locking range configured 3")
        self._good(state, f"enable locking of range {number}", lines, "--enableLockingRange", str(number), secret)

    def lock(self, state: DriveState, number: int, mode: str, secret: Secret) -> None:
        if mode == WRITEONLY:
            raise StorageError("sedutil-cli can't keep a range from being read alone.", hint="Use backend: native.")
        short = {UNLOCKED: "RW", READONLY: "RO", LOCKED: "LK"}[mode]
        if mode == READONLY and state.found.enterprise:
            raise StorageError(
                "sedutil-cli can't make an Enterprise drive read-only.", hint="Use backend: native, or state: locked."
            )
        lines = (f"LockingRange{number} set to {short}", f"Locking range Read/Write set {int(mode == LOCKED)}")
        self._good(state, f"set range {number} to {short}", lines, "--setLockingRange", str(number), short, secret)

    def shadow(self, state: DriveState, enabled: bool, done: bool, secret: Secret) -> None:
        if enabled:
            self._good(state, "put the shadow MBR away", ("MBRDone set on",), "--setMBRDone", "on", secret)
        else:
            self._good(state, "turn off the shadow MBR", ("MBREnable set off",), "--setMBREnable", "off", secret)

    def revert(self, state: DriveState, authority: str, secret: Secret) -> None:
        word, line = "go back to the factory's settings", ("revertTper completed successfully",)
        if authority == uids.PSID:
            self._good(state, word, line, "--PSIDrevert", secret)
        else:
            self._good(state, word, line, "--revertTPer", secret)
        with self._lock:
            self._refused = {mark for mark in self._refused if mark[0] != state.drive.label}

    # Starting it

    def _good(self, state: DriveState, word: str, lines: t.Sequence[str], action: str, *rest: str | Secret) -> str:
        """What it prints when it does what it is told: by its exit status, and by its words."""
        done = self._on(state, word, action, *rest)
        if done.rc == text.LOCKED_OUT:
            raise LockedOut("the authority")
        if text.is_wrong_password(done.rc, done.stderr):
            raise Rejected(word, uids.NOT_AUTHORIZED)
        if done.rc or not text.says(done.stdout, lines):
            raise self._failed(word, done)
        return done.stdout

    def _on(
        self, state: DriveState, word: str, action: str, *rest: str | Secret, options: t.Sequence[str] | None = None
    ) -> Result:
        """Run an action on the drive of a state, if it is still that one. While it is open it keeps its name."""
        chosen = self._options if options is None else options
        with self._still(state) as (held, link):
            ours = held.opened == state.key
            held.note(state.key)
            done = self._run(word, state.drive.node, action, rest, chosen)
            if ours and text.is_busy(done.stderr):
                # With a session that a task of this collection began and could not end; the program never drops one.
                with contextlib.suppress(StorageError):
                    Session(link, discover(link)).reset_stack()
                    ours = False
                done = self._run(word, state.drive.node, action, rest, chosen)
            # Where that one is still in the way, the next task has to know whose it is.
            if text.leaves_no_session(done.rc, done.stderr) and not (ours and text.is_busy(done.stderr)):
                held.note("")
            return done

    @contextlib.contextmanager
    def _still(self, state: DriveState) -> t.Iterator[tuple[Hold, Link]]:
        with self._hold(state.drive.node) as held, self._open(state.drive.node, False) as link:
            there = link.identify()
            if not there.is_same(state.identity):
                raise Refused(
                    f"{state.drive.node} is now {there.model} with serial number '{there.serial}'; meant was "
                    f"'{state.key}'. Nothing was done to it.",
                    hint="Drives were added or removed meanwhile; run the task again.",
                )
            yield held, link

    def _run(
        self, word: str, node: str, action: str, rest: t.Sequence[str | Secret], options: t.Sequence[str]
    ) -> Result:
        plain = tuple(one.value.decode("utf-8") if isinstance(one, Secret) else one for one in rest)
        try:
            return self._runner.run(Command((_PROGRAM, *options, action, *plain, node)), ok=_ANY)
        except CommandTimeout:
            # Its own words repeat the arguments.
            raise StorageError(
                f"sedutil-cli was to {word}, and did not end in time.", hint=f"See the kernel log for {node}."
            ) from None

    def _failed(self, word: str, done: Result) -> StorageError:
        said = self._mask.text((done.stderr.strip() or done.stdout.strip() or "nothing").encode("utf-8"))
        return StorageError(
            f"sedutil-cli was to {word}, and ended with exit status {done.rc} ({text.words(done.rc)}); it said: {said}",
            rc=done.rc,
        )

    def _factory(self, state: DriveState) -> str:
        done = self._on(state, "tell the factory's password", "--printDefaultPassword", options=())
        found = text.factory_password(done.stdout)
        if found is None:
            raise self._failed("tell the factory's password", done)
        return found

    def _prove(self, state: DriveState, authority: str, secret: Secret) -> None:
        with self._lock:
            self._refused.discard((state.drive.label, authority, secret.value))
        if authority == uids.SID and state.found.enterprise:
            self._prove_owner(state, secret)
            return
        done = self._try(state, authority, secret)
        if text.is_wrong_password(done.rc, done.stderr):
            # The program knows no way to set another one but by the one that is there.
            raise NotStored(authority, "does not take it; sedutil-cli can't set the former one again")
        if not text.is_taken(done.rc, done.stderr):
            raise self._failed(f"take the new password of {authority}", done)

    def _prove_owner(self, state: DriveState, secret: Secret) -> None:
        """Ask an Enterprise drive in a session of our own, since the program can't try the password of its owner.

        What credential the program makes of a password is not known of every fork. EraseMaster, to which it has given
        the same password before, tells whether it is the one that is made here.
        """
        kind = "raw" if self._options else "sha1"
        credential = pin.derive(secret.value, state.identity.salt, kind)
        provider = {uids.ERASE_MASTER: uids.ENTERPRISE_LOCKING_SP, uids.SID: uids.ADMIN_SP}
        asked = uids.SID
        try:
            with self._still(state) as (held, link):
                line = Line(link, discover(link), held, state.key)
                for asked in (uids.SID,) if self._options else (uids.ERASE_MASTER, uids.SID):
                    with open_session(line, provider[asked], asked, credential):
                        pass
        except Rejected:
            if asked == uids.SID:
                raise NotStored(asked, "does not take it; sedutil-cli can't set the former one again") from None
            self._warn_of_owner(state, "this sedutil-cli makes another credential of it than the one that is known")
        except StorageError as error:
            self._warn_of_owner(state, error.message)

    def _warn_of_owner(self, state: DriveState, why: str) -> None:
        self._warn(
            f"sedutil-cli has set the password of SID, the owner of '{state.drive.label}', and it could not be proven "
            f"that the drive takes it: {why}"
        )


def _is_on(state: DriveState, authority: str) -> bool:
    """Whether an authority is the owner of an Opal drive whose locking is on: it can be tried without writing."""
    return authority == uids.SID and state.found.enabled and not state.found.enterprise
