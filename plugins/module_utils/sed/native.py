# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives through the kernel's own interfaces: no program is started, so no password can be seen in a process list."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from ..errors import Refused, StorageError
from . import pin, uids
from .discovery import Discovery
from .drive import Drive
from .hold import Holder, hold
from .link import Identity, Link, open_link
from .session import Line, LockedOut, MethodFailed, NotStored, Rejected, Session, discover, open_session
from .state import (
    CLOSED,
    FACTORY,
    FOREIGN,
    LAST_TRY,
    LOCKED,
    LOCKED_OUT,
    READONLY,
    UNLOCKED,
    WRITEONLY,
    DriveState,
    Range,
    Secret,
)
from .tokens import BadAnswer

_POWER_CYCLE = [0]
_READ = ("RangeStart", "RangeLength", "ReadLockEnabled", "WriteLockEnabled", "ReadLocked", "WriteLocked", "LockOnReset")

Opener = t.Callable[[str, bool], t.ContextManager[Link]]


class Native:
    """The TCG protocol, spoken by this process.

    :param kind: how a password becomes a credential
    """

    name = "native"

    def __init__(self, kind: str, opener: Opener = open_link, holder: Holder = hold) -> None:
        self._kind = kind
        self._open = opener
        self._hold = holder
        self._lock = threading.Lock()
        self._derived: dict[tuple[bytes, bytes], bytes] = {}
        # By the drive, what it left the factory with: it never changes.
        self._made: dict[str, bytes] = {}
        # Credentials that a drive did not take: they are not offered again.
        self._refused: set[tuple[str, str, bytes]] = set()

    def look(self, drive: Drive) -> tuple[Identity, Discovery]:
        with self._open(drive.node, False) as link:
            return link.identify(), discover(link)

    def can_try(self, state: DriveState, authority: str) -> bool:
        return True

    def holder(self, state: DriveState, authority: str, offers: t.Sequence[Secret]) -> str:
        with self._reach(state) as line:
            for secret in offers:
                try:
                    if self._tries_left(line, authority) == 1:
                        return LAST_TRY
                    with self._as(line, state, authority, secret):
                        return secret.origin
                except Rejected:
                    continue
                except LockedOut:
                    return LOCKED_OUT
        return FOREIGN

    def read_range(self, state: DriveState, number: int, secret: Secret) -> Range:
        with self._reach(state) as line, self._as(line, state, self._master(state, number), secret) as session:
            row = session.get(uids.range_uid(number, state.found.enterprise), *_READ)
        if not set(_READ[2:6]) <= set(row):
            raise BadAnswer(f"The drive does not show range {number} to its owner.")
        return Range(
            number=number,
            start=row.get("RangeStart", 0),
            length=row.get("RangeLength", 0),
            read_enabled=bool(row["ReadLockEnabled"]),
            write_enabled=bool(row["WriteLockEnabled"]),
            read_locked=bool(row["ReadLocked"]),
            write_locked=bool(row["WriteLocked"]),
            on_reset=0 in row.get("LockOnReset", _POWER_CYCLE),
        )

    def set_pin(self, state: DriveState, authority: str, old: Secret, new: Secret) -> None:
        with self._reach(state) as line:
            seen = self._replace(line, state, authority, old, new)
            self._prove(line, state, authority, new, seen)

    def own_bands(self, state: DriveState, new: Secret, last: int) -> None:
        factory = Secret(FACTORY)
        with self._reach(state) as line:
            with open_session(line, uids.ENTERPRISE_LOCKING_SP) as session:
                most = session.get(uids.LOCKING_INFO, "MaxRanges").get("MaxRanges", 0)
            if not isinstance(most, int) or not 0 <= most < 1024:
                raise BadAnswer(f"The drive says that it has {most} ranges.")
            for number in sorted(range(most + 1), key=lambda one: one == last):
                master = uids.band_master(number)
                try:
                    seen = self._replace(line, state, master, factory, new)
                except Rejected:
                    # Disabled, as drives leave the factory, or somebody's. Only the range that is meant has to be ours.
                    if number == last:
                        raise
                else:
                    self._prove(line, state, master, new, seen)

    def activate(self, state: DriveState, secret: Secret) -> None:
        with self._reach(state) as line, self._as(line, state, uids.SID, secret) as session:
            session.call("turn locking on", uids.LOCKING_SP, uids.ACTIVATE)

    def place(self, state: DriveState, wanted: Range, secret: Secret) -> None:
        with self._master_session(state, wanted.number, secret) as session:
            session.set(
                f"place range {wanted.number}",
                uids.range_uid(wanted.number, state.found.enterprise),
                RangeStart=wanted.start,
                RangeLength=wanted.length,
            )

    def enable(self, state: DriveState, number: int, secret: Secret) -> None:
        with self._master_session(state, number, secret) as session:
            session.set(
                f"enable locking of range {number}",
                uids.range_uid(number, state.found.enterprise),
                ReadLockEnabled=1,
                WriteLockEnabled=1,
                LockOnReset=_POWER_CYCLE,
            )

    def lock(self, state: DriveState, number: int, mode: str, secret: Secret) -> None:
        words = {UNLOCKED: "unlock", READONLY: "write-protect", LOCKED: "lock", WRITEONLY: "read-protect"}
        no_reading, no_writing = CLOSED[mode]
        with self._master_session(state, number, secret) as session:
            session.set(
                f"{words[mode]} range {number}",
                uids.range_uid(number, state.found.enterprise),
                ReadLocked=int(no_reading),
                WriteLocked=int(no_writing),
            )

    def shadow(self, state: DriveState, enabled: bool, done: bool, secret: Secret) -> None:
        with self._master_session(state, 0, secret) as session:
            session.set("set the shadow MBR", uids.MBR_CONTROL, Enable=int(enabled), Done=int(done))

    def revert(self, state: DriveState, authority: str, secret: Secret) -> None:
        ways = [(uids.ADMIN_SP, uids.REVERT), (uids.THIS_SP, uids.REVERT_SP)]
        if state.found.enterprise:
            ways.reverse()
        with self._reach(state) as line, self._as(line, state, authority, secret) as session:
            try:
                session.call("go back to the factory's settings", *ways[0])
            except MethodFailed:
                # Makers of Enterprise drives differ in which of the two they have.
                session.call("go back to the factory's settings", *ways[1])
            session.aborted = True
        with self._lock:
            # Its credentials are other ones from now on.
            self._refused = {mark for mark in self._refused if mark[0] != state.drive.label}

    @contextlib.contextmanager
    def _reach(self, state: DriveState) -> t.Iterator[Line]:
        """The drive of a state, if it is still that one, and nobody else's meanwhile."""
        with self._hold(state.drive.node) as held, self._open(state.drive.node, True) as link:
            there = link.identify()
            if not there.is_same(state.identity):
                raise Refused(
                    f"{state.drive.node} is now {there.model} with serial number '{there.serial}'; meant was "
                    f"'{state.key}'. Nothing was done to it.",
                    hint="Drives were added or removed meanwhile; run the task again.",
                )
            yield Line(link, state.found, held, state.key)

    @contextlib.contextmanager
    def _master_session(self, state: DriveState, number: int, secret: Secret) -> t.Iterator[Session]:
        with self._reach(state) as line, self._as(line, state, self._master(state, number), secret) as session:
            yield session

    @contextlib.contextmanager
    def _as(self, line: Line, state: DriveState, authority: str, secret: Secret) -> t.Iterator[Session]:
        """A session of an authority. A credential that was wrong once is not offered to it again."""
        credential = self._credential(line, state, secret)
        mark = (state.drive.label, authority, credential)
        if mark in self._refused:
            raise Rejected(f"authenticate {authority}", uids.NOT_AUTHORIZED)
        sp = _provider(state.found, authority)
        begun = False
        try:
            with open_session(line, sp, authority, credential) as session:
                begun = True
                yield session
        except Rejected:
            if not begun:
                self._note_refused(state, authority, credential)
            raise

    def _replace(self, line: Line, state: DriveState, authority: str, old: Secret, new: Secret) -> bool:
        """Give an authority another credential, and the former one again if the drive does not know the new one.

        That is only possible in the session of the former one, which is open until it is known whether the drive has
        stored what it was given. So it is asked in this session, where the drive can tell: if it takes the one of which
        that is certain. Returns whether it took the new one.
        """
        former, wanted = self._credential(line, state, old), self._credential(line, state, new)
        what, pin_uid = f"set the password of {authority}", uids.pin_uid(authority)
        with self._as(line, state, authority, old) as session:
            if _knows(session, authority, former):
                session.set(what, pin_uid, PIN=wanted)
                takes = self._takes(session, authority, wanted)
                if takes is not False:
                    return takes is True
                self._go_back(session, state, authority, former, wanted)
        # Whatever became of the session by a question that the drive does not answer, another one is as good.
        with self._as(line, state, authority, old) as session:
            session.set(what, pin_uid, PIN=wanted)
        return False

    @staticmethod
    def _takes(session: Session, authority: str, credential: bytes) -> bool | None:
        """Whether it takes one that was just set; None if it answers no second question in a session."""
        try:
            return session.knows(authority, credential)
        except StorageError:
            # The session may be the last way back.
            return False

    def _go_back(self, session: Session, state: DriveState, authority: str, former: bytes, wanted: bytes) -> t.NoReturn:
        """Set the former credential again, once, while its session is still open."""
        self._note_refused(state, authority, wanted)
        with contextlib.suppress(StorageError):
            session.set(f"set the password of {authority} back", uids.pin_uid(authority), PIN=former)
        if _knows(session, authority, former):
            raise StorageError(
                f"The drive was to set the password of {authority}, said that it had, and could not be seen to take "
                "the new one. So the former one was set again, and the drive takes that.",
                hint=f"{authority} has the former password. What was changed before it has the new one. The drive may "
                "be about to fail; if it is not, run the same task again.",
            )
        self._note_refused(state, authority, former)
        raise NotStored(authority, "could be seen to take neither that nor the former one, which it was to set again")

    def _note_refused(self, state: DriveState, authority: str, credential: bytes) -> None:
        with self._lock:
            self._refused.add((state.drive.label, authority, credential))

    def _prove(self, line: Line, state: DriveState, authority: str, secret: Secret, seen: bool = False) -> None:
        """Open a session with a credential that was just set; what was refused before may be right by now.

        :param seen: the drive took it before, in the session in which it was set
        """
        mark = (state.drive.label, authority, self._credential(line, state, secret))
        with self._lock:
            self._refused.discard(mark)
        try:
            with self._as(line, state, authority, secret):
                return
        except Rejected:
            raise NotStored(authority, "does not take it") from None
        except StorageError as error:
            if seen:
                raise
            raise NotStored(authority, f"could not be asked whether it takes it: {error.message}") from error

    def _tries_left(self, line: Line, authority: str) -> int | None:
        """How many wrong credentials the authority still takes; None if it does not tell everybody, as most."""
        try:
            with open_session(line, _provider(line.found, authority)) as session:
                row = session.get(uids.pin_uid(authority), "TryLimit", "Tries")
        except (MethodFailed, BadAnswer):
            return None
        limit, tries = row.get("TryLimit"), row.get("Tries")
        if not isinstance(limit, int) or not isinstance(tries, int) or not limit:
            return None
        return max(0, limit - tries)

    def _master(self, state: DriveState, number: int) -> str:
        return uids.band_master(number) if state.found.enterprise else uids.ADMIN1

    def _credential(self, line: Line, state: DriveState, secret: Secret) -> bytes:
        if secret.origin == FACTORY:
            return self._factory(line)
        if secret.origin == uids.PSID:
            return secret.value
        key = (secret.value, state.identity.salt)
        if key not in self._derived:
            self._derived[key] = pin.derive(secret.value, state.identity.salt, self._kind)
        return self._derived[key]

    def _factory(self, line: Line) -> bytes:
        if line.key in self._made:
            return self._made[line.key]
        with open_session(line, uids.ADMIN_SP) as session:
            value = session.get(uids.PIN_MSID, "PIN").get("PIN")
        if not isinstance(value, bytes) or not value:
            raise StorageError("The drive does not show the credential that it left the factory with (MSID).")
        self._made[line.key] = value
        return value


def _knows(session: Session, authority: str, credential: bytes) -> bool:
    """Whether a drive says that it takes a credential, in an open session; what goes wrong with that counts as a no."""
    try:
        return session.knows(authority, credential) is True
    except StorageError:
        return False


def _provider(found: Discovery, authority: str) -> bytes:
    """The part of the drive that an authority belongs to."""
    if authority in (uids.SID, uids.PSID):
        return uids.ADMIN_SP
    return uids.ENTERPRISE_LOCKING_SP if found.enterprise else uids.LOCKING_SP
