# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions with a drive: authenticate, read and set values, call methods (TCG Storage Core, Opal, Enterprise)."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from dataclasses import dataclass

from ..errors import StorageError
from . import packets, uids
from .discovery import Discovery, parse
from .hold import Hold
from .link import Link, Unsupported
from .tokens import CALL, END_OF_DATA, END_OF_SESSION, BadAnswer, Control, Named, decode, encode

_TCG, _MANAGEMENT = 0x01, 0x02
_LEVEL0 = 0x0001
_STACK_RESET = 2
_ROOM = 2048
# Seconds. A revert takes minutes on large drives.
_PATIENCE = 300.0
# Seconds in which other programs are to end their sessions, and in which what we left open ends by itself.
_BUSY_PATIENCE, _OWN_PATIENCE = 60.0, 0.5
_BUSY_PAUSE = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1


class MethodFailed(StorageError):
    """A drive answered a method with an error."""

    def __init__(self, what: str, status: int) -> None:
        words = uids.STATUS.get(status, "unknown status")
        super().__init__(f"The drive refused to {what}: {words} (status 0x{status:02x}).")
        self.status = status


class Rejected(MethodFailed):
    """The credential is wrong. It cost one of the tries that the drive allows."""


class LockedOut(MethodFailed):
    """Too many wrong credentials were tried."""

    def __init__(self, authority: str) -> None:
        super().__init__(f"authenticate {authority}", uids.LOCKED_OUT)
        self.hint = (
            "Too many wrong passwords were tried. Nothing more is tried now, since only taking the power from the "
            "drive (not a restart) clears that. Then use the right password."
        )


class NotStored(StorageError):
    """A drive says that it has set a credential, and does not take it: which one it has is not known."""

    def __init__(self, authority: str, more: str) -> None:
        super().__init__(f"The drive was to set the password of {authority}, said that it had, and {more}.")
        self.hint = "Do not take its power: what is open stays open until then. Copy what is on it first."


class Busy(StorageError):
    """Another program has a session with the drive."""


class NoAnswer(StorageError):
    """A drive took a command and answered nothing."""


def discover(link: Link) -> Discovery:
    """What the drive tells about itself.

    :raises Gone: it can't be reached
    """
    try:
        return parse(link.receive(_TCG, _LEVEL0, _ROOM))
    except Unsupported:
        return Discovery()


@contextlib.contextmanager
def open_session(line: Line, sp: bytes, authority: str = "", credential: bytes = b"") -> t.Iterator[Session]:
    """A session, as an authority or as anybody, until the end of the block.

    :raises Rejected: the credential is wrong
    :raises LockedOut: too many wrong ones were tried
    :raises Busy: another program has a session and does not end it
    :raises MethodFailed: the drive opens no session
    """
    session = Session(line.link, line.found)
    _begin(line, session, sp, authority, credential)
    try:
        if line.found.enterprise and authority:
            session.authenticate(authority, credential)
        yield session
    finally:
        # How it ends says nothing about what was done in it.
        with contextlib.suppress(StorageError):
            session.end()
            line.hold.note("")


def _begin(line: Line, session: Session, sp: bytes, authority: str, credential: bytes) -> None:
    """Start a session. While there is another one: if it is one that we left open it is dropped, else waited for."""
    ours = line.hold.opened == line.key
    begun = time.monotonic()
    while True:
        line.hold.note(line.key)
        try:
            session.start(sp, authority, credential)
            return
        except MethodFailed as error:
            # It opened none, so there is none of ours but what was there before.
            line.hold.note(line.key if ours else "")
            if error.status not in (uids.NO_SESSIONS, uids.SP_BUSY):
                raise
            waited = time.monotonic() - begun
            if waited >= _BUSY_PATIENCE:
                raise Busy(
                    f"The drive is busy: another program has a session with it, for {waited:.0f} seconds now "
                    f"(status 0x{error.status:02x}).",
                    hint="Wait until that program (sedutil-cli?) is done, and run the task again. If there is none, "
                    "one was killed in the middle: turn the power of the drive off and on.",
                ) from None
        if ours and waited >= _OWN_PATIENCE:
            with contextlib.suppress(StorageError):
                session.reset_stack()
                ours = False
        time.sleep(_BUSY_PAUSE)


def host_session() -> int:
    """The number that this process gives its sessions, so that two processes take no answer for theirs."""
    return os.getpid() & 0xFFFFFFFF


@dataclass(frozen=True)
class Line:
    """A drive that is held and can be talked to. ``key``: by what it is known again."""

    link: Link
    found: Discovery
    hold: Hold
    key: str


class Session:
    """An open session. ``aborted``: the drive ended it by itself, as after a revert."""

    def __init__(self, link: Link, found: Discovery) -> None:
        self._link = link
        self._found = found
        self._numbers = (0, 0)
        self.aborted = False

    def start(self, sp: bytes, authority: str, credential: bytes) -> None:
        arguments: list[t.Any] = [host_session(), sp, 1]
        if authority and not self._found.enterprise:
            arguments += [Named(0, credential), Named(3, uids.authority_uid(authority))]
        what = f"authenticate {authority}" if authority else "open a session"
        try:
            results = self.call(what, uids.SESSION_MANAGER, uids.START_SESSION, arguments)
        except MethodFailed as error:
            raise _verdict(error, authority) from None
        if len(results) < 2 or not all(isinstance(one, int) for one in results[:2]):
            raise BadAnswer("The drive opened a session and did not tell its number.")
        if results[0] != host_session():
            raise BadAnswer("The drive opened a session for another program.")
        self._numbers = (results[1], results[0])

    def authenticate(self, authority: str, credential: bytes) -> None:
        """Enterprise drives open a session first."""
        what = f"authenticate {authority}"
        arguments = [uids.authority_uid(authority), Named(b"Challenge", credential)]
        try:
            results = self.call(what, uids.THIS_SP, uids.ENTERPRISE_AUTHENTICATE, arguments)
        except MethodFailed as error:
            raise _verdict(error, authority) from None
        if results != [1]:
            raise Rejected(what, uids.NOT_AUTHORIZED)

    def knows(self, authority: str, credential: bytes) -> bool | None:
        """Whether a credential is that of an authority, asked in this session; None if the drive does not answer that.

        A wrong one costs a try, as everywhere.
        """
        enterprise = self._found.enterprise
        method = uids.ENTERPRISE_AUTHENTICATE if enterprise else uids.AUTHENTICATE
        proof = Named(b"Challenge" if enterprise else 0, credential)
        try:
            results = self.call("authenticate once more", uids.THIS_SP, method, [uids.authority_uid(authority), proof])
        except MethodFailed:
            # It has no such method, or no room for another authentication in one session.
            return None
        return {1: True, 0: False}.get(results[0]) if len(results) == 1 and isinstance(results[0], int) else None

    def get(self, uid: bytes, *columns: str) -> dict[str, t.Any]:
        """The values of neighbouring columns of an object, as far as the drive shows them."""
        first, last = columns[0], columns[-1]
        if self._found.enterprise:
            limits = [Named(b"startColumn", first.encode()), Named(b"endColumn", last.encode())]
            results = self.call("tell its settings", uid, uids.ENTERPRISE_GET, [limits])
            rows = results[0] if results and isinstance(results[0], list) else []
            pairs = rows[0] if rows and isinstance(rows[0], list) else rows
            return {_ascii(one.name): one.value for one in pairs if isinstance(one, Named)}
        limits = [Named(3, uids.COLUMNS[first]), Named(4, uids.COLUMNS[last])]
        results = self.call("tell its settings", uid, uids.GET, [limits])
        pairs = results[0] if results and isinstance(results[0], list) else []
        numbers = {uids.COLUMNS[name]: name for name in columns}
        return {numbers[one.name]: one.value for one in pairs if isinstance(one, Named) and one.name in numbers}

    def set(self, what: str, uid: bytes, **values: t.Any) -> None:
        """Set columns of an object, all or none."""
        if self._found.enterprise:
            row = [Named(name.encode(), value) for name, value in values.items()]
            self.call(what, uid, uids.ENTERPRISE_SET, [[], [row]])
        else:
            self.call(what, uid, uids.SET, [Named(1, [Named(uids.COLUMNS[name], one) for name, one in values.items()])])

    def call(self, what: str, uid: bytes, method: bytes, arguments: t.Sequence[t.Any] = ()) -> list[t.Any]:
        """The results of a method.

        :param what: for the message if it fails, to follow "refused to"
        :raises MethodFailed: with the status of the drive
        """
        parts = (Control(CALL), uid, method, list(arguments), Control(END_OF_DATA), [0, 0, 0])
        items = decode(self._exchange(what, b"".join(encode(one) for one in parts)))
        if len(items) < 2 or not isinstance(items[-1], list) or not items[-1] or not isinstance(items[-1][0], int):
            raise BadAnswer(f"The drive was to {what}, and its answer has no status.")
        if items[-1][0]:
            raise MethodFailed(what, items[-1][0])
        results = [one for one in items[:-1] if isinstance(one, list)]
        return results[-1] if results else []

    def end(self) -> None:
        if self._numbers != (0, 0) and not self.aborted:
            mark = encode(Control(END_OF_SESSION))
            if not self._exchange("end the session", mark).startswith(mark):
                raise BadAnswer("The drive was to end the session, and did not say that it has.")
        self._numbers = (0, 0)

    def reset_stack(self) -> None:
        """Drop every session of this ComID."""
        com_id = self._found.com_id
        request = com_id.to_bytes(2, "big") + bytes(2) + _STACK_RESET.to_bytes(4, "big")
        self._link.send(_MANAGEMENT, com_id, request.ljust(packets.BLOCK, b"\0"))
        self._link.receive(_MANAGEMENT, com_id, packets.BLOCK)

    def _exchange(self, what: str, tokens: bytes) -> bytes:
        com_id = self._found.com_id
        self._link.send(_TCG, com_id, packets.build(com_id, *self._numbers, tokens))
        room, pause, end = _ROOM, _FIRST_PAUSE, time.monotonic() + _PATIENCE
        while True:
            answer = packets.parse(self._link.receive(_TCG, com_id, room))
            if answer.tokens:
                return answer.tokens
            if answer.needs:
                room = answer.needs + -answer.needs % packets.BLOCK
            elif not answer.waiting:
                raise NoAnswer(
                    f"The drive was to {what} and answered nothing.",
                    hint="Does another program talk to it? Its state is read anew by the next run.",
                )
            elif time.monotonic() > end:
                raise NoAnswer(f"The drive was to {what} and did not answer within {_PATIENCE:.0f} seconds.")
            else:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)


def _verdict(error: MethodFailed, authority: str) -> MethodFailed:
    if authority and error.status == uids.NOT_AUTHORIZED:
        return Rejected(f"authenticate {authority}", error.status)
    if authority and error.status == uids.LOCKED_OUT:
        return LockedOut(authority)
    return error


def _ascii(name: int | bytes) -> str:
    return name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
