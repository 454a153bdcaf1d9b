# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of a drive that is talked to: ComIDs, sessions and methods."""

from __future__ import annotations

import os
import struct
import typing as t
from dataclasses import replace

from . import names, packets, tables
from .discovery import level0
from .drive import Drive, MethodError, Session, new_key, pin_for
from .faults import Fault
from .tokens import CALL, END_OF_DATA, END_OF_SESSION, BadStream, Item, Mark, Named, decode, encode

_TPER_PROPERTIES = {
    "MaxComPacketSize": 66048,
    "MaxResponseComPacketSize": 66048,
    "MaxPacketSize": 66028,
    "MaxIndTokenSize": 65992,
    "MaxPackets": 1,
    "MaxSubpackets": 1,
    "MaxMethods": 1,
    "MaxSessions": 1,
    "MaxAuthentications": 2,
    "MaxTransactionLimit": 1,
    "DefSessionTimeout": 0,
}
_HOST_PROPERTIES = {"MaxComPacketSize": 2048, "MaxPacketSize": 2028, "MaxIndTokenSize": 1992}

_TCG, _COM_ID_MANAGEMENT = 0x01, 0x02
_DISCOVERY, _TPER_RESET = 0x0001, 0x0004
_STACK_RESET = 2

Arguments = t.Sequence[Item]


class Vanished(Exception):
    """The drive is not there any more."""


class TPer:
    """Security commands of one drive, as every transport carries them."""

    def __init__(self, drive: Drive) -> None:
        self.drive = drive
        # One buffer for the answer, whoever fetches it: two hosts at once spoil each other's sessions, as on hardware.
        self._answer: bytes | None = None
        self._reset: bytes = b""
        self._next_session = 0x1000

    def send(self, protocol: int, specific: int, data: bytes) -> None:
        """IF-SEND.

        :raises Vanished: the drive is gone
        """
        self.present()
        self._secures()
        if protocol == _TCG and specific == self.drive.spec.com_id:
            self._answer = self._exchange(data)
        elif protocol == _COM_ID_MANAGEMENT and specific == _TPER_RESET:
            self.drive.session = None
        elif protocol == _COM_ID_MANAGEMENT and specific == self.drive.spec.com_id:
            self._manage(data)
        else:
            raise MethodError(names.INVALID_PARAMETER)

    def receive(self, protocol: int, specific: int, room: int) -> bytes:
        """IF-RECV.

        :raises Vanished: the drive is gone
        """
        self.present()
        self._secures()
        if protocol == 0:
            return struct.pack(">6xH3B", 3, 0, _TCG, _COM_ID_MANAGEMENT).ljust(room, b"\0")[:room]
        if protocol == _TCG and specific == _DISCOVERY:
            return level0(self.drive).ljust(room, b"\0")[:room]
        if protocol == _TCG and specific == self.drive.spec.com_id:
            return self._fetch(room).ljust(room, b"\0")
        if protocol == _COM_ID_MANAGEMENT and specific == self.drive.spec.com_id:
            answer, self._reset = self._reset, b""
            return answer.ljust(room, b"\0")[:room]
        raise MethodError(names.INVALID_PARAMETER)

    def present(self) -> None:
        """
        :raises Vanished: the drive is gone
        """
        if self.drive.gone:
            raise Vanished

    def _secures(self) -> None:
        if not self.drive.spec.kind:
            raise MethodError(names.INVALID_PARAMETER)

    def _fetch(self, room: int) -> bytes:
        if self._answer is None:
            return packets.empty(self.drive.spec.com_id)
        if len(self._answer) > room:
            return struct.pack(">4xHHIII", self.drive.spec.com_id, 0, len(self._answer), len(self._answer), 0)
        answer, self._answer = self._answer, None
        return answer

    def _manage(self, data: bytes) -> None:
        com_id, request = struct.unpack_from(">4sI", data)
        if request == _STACK_RESET:
            self.drive.session = None
            self._answer = None
            self._reset = com_id + struct.pack(">I2xHI", request, 4, 0)

    # Packets

    def _exchange(self, data: bytes) -> bytes | None:
        try:
            packet = packets.parse(data)
            items = decode(packet.payload)
        except (packets.BadPacket, BadStream):
            return None
        session = self.drive.session
        if packet.tper_session == packet.host_session == 0:
            session = None
        elif session is None or (session.tper, session.host) != (packet.tper_session, packet.host_session):
            return None
        try:
            answer = self._items(session, items)
        except _Silent:
            return None
        except _Garbled:
            answer = b"\xf0\xd7\xff"
        return packets.build(replace(packet, payload=answer))

    def _items(self, session: Session | None, items: list[Item]) -> bytes:
        if session is not None and items[:1] == [Mark(END_OF_SESSION)]:
            return self._end()
        if items[:1] == [Mark(END_OF_SESSION)]:
            # of a session that was never opened
            raise _Silent
        if len(items) != 6 or items[0] != Mark(CALL) or items[4] != Mark(END_OF_DATA) or items[5] != [0, 0, 0]:
            return _result(names.INVALID_PARAMETER)
        _call, invoking, method, arguments, _end, _status = items
        name = names.METHODS.get(method, "")
        if session is None:
            return self._manager(name, invoking, arguments)
        return self._method(session, name, invoking, arguments)

    def _end(self) -> bytes:
        try:
            fault = self._gone_wrong("EndSession")
        except MethodError:
            # The end of a session has no status: the drive keeps it open and says nothing.
            raise _Silent from None
        self.drive.session = None
        self._after(fault)
        return encode(Mark(END_OF_SESSION))

    def _gone_wrong(self, name: str) -> Fault | None:
        """What is to go wrong with this call, if that comes before it is done."""
        fault = self.drive.faults.next(name)
        if fault is None:
            return None
        if fault.how == "refuse":
            raise MethodError(fault.status)
        if fault.how == "vanish":
            self.drive.gone = True
            raise Vanished
        if fault.how == "garble":
            raise _Garbled
        if fault.how == "empty":
            raise _Silent
        return fault

    def _after(self, fault: Fault | None) -> None:
        if fault is not None and fault.how == "vanish_after":
            self.drive.gone = True
            raise Vanished
        if fault is not None and fault.how != "other_value":
            raise _Silent

    # The session manager

    def _manager(self, name: str, invoking: bytes, arguments: Arguments) -> bytes:
        if invoking != names.SESSION_MANAGER or name not in ("Properties", "StartSession"):
            return _result(names.NOT_AUTHORIZED)
        self.drive.calls.append((name, invoking, frozenset()))
        try:
            fault = self._gone_wrong(name)
            answer = self._properties(arguments) if name == "Properties" else self._start(arguments)
        except MethodError as error:
            return encode(Mark(CALL), invoking, names.SYNC_SESSION) + _result(error.status)
        self._after(fault)
        return answer

    def _properties(self, arguments: Arguments) -> bytes:
        tper = [Named(name.encode(), value) for name, value in _TPER_PROPERTIES.items()]
        given: list[Named] = next((one.value for one in arguments if isinstance(one, Named)), [])
        host = {**_HOST_PROPERTIES}
        for one in given:
            text = one.name.decode("ascii") if isinstance(one.name, bytes) else ""
            host[text] = one.value
        shown = [Named(name.encode(), value) for name, value in host.items()]
        label: int | bytes = b"HostProperties" if self.drive.spec.enterprise else 0
        method = next(uid for uid, name in names.METHODS.items() if name == "Properties")
        return encode(Mark(CALL), names.SESSION_MANAGER, method) + _result(names.SUCCESS, tper, Named(label, shown))

    def _start(self, arguments: Arguments) -> bytes:
        drive = self.drive
        if len(arguments) < 3:
            raise MethodError(names.INVALID_PARAMETER)
        host, sp, write = arguments[:3]
        options = {one.name: one.value for one in arguments[3:] if isinstance(one, Named)}
        if sp not in (names.ADMIN_SP, drive.locking_sp) or (sp == drive.locking_sp and not drive.locking_enabled):
            raise MethodError(names.INVALID_PARAMETER)
        if sp == drive.locking_sp and drive.frozen:
            raise MethodError(names.NOT_AUTHORIZED)
        if drive.session is not None:
            raise MethodError(names.NO_SESSIONS_AVAILABLE)
        session = Session(sp, host, self._next_session, bool(write))
        authority = options.get(3)
        if authority is not None and not self._prove(session, authority, options.get(0, b"")):
            raise MethodError(names.NOT_AUTHORIZED)
        self._next_session += 1
        drive.session = session
        method = Mark(CALL), names.SESSION_MANAGER, names.SYNC_SESSION
        return encode(*method) + _result(names.SUCCESS, session.host, session.tper)

    def _prove(self, session: Session, authority: bytes, proof: bytes) -> bool:
        """Add an authority to a session, if the credential is right and belongs there."""
        drive = self.drive
        own = (names.SID, names.PSID) if session.sp == names.ADMIN_SP else tuple(drive.enabled)
        if authority == names.SID and drive.blocked:
            return False
        if authority not in own or not drive.enabled.get(authority, True):
            return False
        if not drive.attempt(pin_for(authority), proof):
            return False
        session.authorities.add(authority)
        return True

    # Methods in a session

    def _method(self, session: Session, name: str, invoking: bytes, arguments: Arguments) -> bytes:
        self.drive.calls.append((name, invoking, frozenset(session.authorities)))
        methods: dict[str, t.Callable[[Session, bytes, Arguments], list[Item]]] = {
            "Get": self._get,
            "Set": self._set,
            "Next": self._next,
            "Authenticate": self._authenticate,
            "GenKey": self._genkey,
            "Activate": self._activate,
            "Revert": self._revert,
            "RevertSP": self._revert_sp,
            "Erase": self._erase,
            "Random": self._random,
        }
        try:
            fault = self._gone_wrong(name)
            if name not in methods:
                raise MethodError(names.NOT_AUTHORIZED)
            answer = methods[name](session, invoking, arguments)
            if fault is not None and fault.how == "other_value" and name == "Set":
                self.drive.spoil(invoking)
        except MethodError as error:
            return _result(error.status)
        self._after(fault)
        return _result(names.SUCCESS, *answer)

    def _row(self, session: Session, uid: bytes) -> tables.Row:
        row = tables.find(self.drive, session.sp, uid)
        if row is None:
            raise MethodError(names.NOT_AUTHORIZED)
        return row

    def _get(self, session: Session, uid: bytes, arguments: Arguments) -> list[Item]:
        limits = {one.name: one.value for one in arguments[0] if isinstance(one, Named)} if arguments else {}
        if uid == names.MBR and session.sp == names.LOCKING_SP:
            first, last = limits.get(1, 0), limits.get(2, 0)
            return [bytes(self.drive.mbr_table[first : last + 1])]
        row = self._row(session, uid)
        if self.drive.spec.enterprise:
            wanted = self._between(row, limits.get(b"startColumn"), limits.get(b"endColumn"))
        else:
            first, last = limits.get(3, 0), limits.get(4, 255)
            wanted = [name for name in row.cells if first <= row.number(name) <= last]
        readable = [name for name in wanted if session.authorities & set(row.cells[name].readers)]
        if wanted and not readable:
            raise MethodError(names.NOT_AUTHORIZED)
        if self.drive.spec.enterprise:
            return [[[Named(name.encode(), row.cells[name].get()) for name in readable]]]
        return [[Named(row.number(name), row.cells[name].get()) for name in readable]]

    def _between(self, row: tables.Row, first: t.Any, last: t.Any) -> list[str]:
        columns = list(row.cells)
        try:
            begin = columns.index(first.decode("ascii")) if first else 0
            end = columns.index(last.decode("ascii")) if last else len(columns) - 1
        except (ValueError, AttributeError):
            raise MethodError(names.INVALID_PARAMETER) from None
        return columns[begin : end + 1]

    def _set(self, session: Session, uid: bytes, arguments: Arguments) -> list[Item]:
        if not session.write:
            raise MethodError(names.NOT_AUTHORIZED)
        if uid == names.MBR and session.sp == names.LOCKING_SP:
            return self._set_mbr(session, arguments)
        row = self._row(session, uid)
        values = self._values(row, arguments)
        for column in values:
            cell = row.cells.get(column)
            if cell is None:
                raise MethodError(names.INVALID_PARAMETER)
            if cell.put is None or not session.authorities & set(cell.writers):
                raise MethodError(names.NOT_AUTHORIZED)
        before, mbr = list(self.drive.ranges), self.drive.mbr
        try:
            for column, value in values.items():
                put = row.cells[column].put
                if put is not None:
                    put(value)
            tables.check_ranges(self.drive, before, values)
        except MethodError:
            self.drive.ranges, self.drive.mbr = before, mbr
            raise
        return [[]]

    def _values(self, row: tables.Row, arguments: Arguments) -> dict[str, Item]:
        """The columns a Set names; in Opal they are numbers behind a name, in Enterprise texts in two lists."""
        if self.drive.spec.enterprise:
            if len(arguments) != 2 or arguments[0] != [] or len(arguments[1]) != 1:
                raise MethodError(names.INVALID_PARAMETER)
            pairs = arguments[1][0]
            return {one.name.decode("ascii"): one.value for one in pairs}
        lists = [one.value for one in arguments if isinstance(one, Named) and one.name == 1]
        if len(lists) != 1 or not isinstance(lists[0], list):
            raise MethodError(names.INVALID_PARAMETER)
        texts = {number: name for name, number in names.COLUMNS[row.table].items()}
        return {texts.get(one.name, ""): one.value for one in lists[0]}

    def _set_mbr(self, session: Session, arguments: Arguments) -> list[Item]:
        if not any(names.admin(number + 1) in session.authorities for number in range(self.drive.spec.admins)):
            raise MethodError(names.NOT_AUTHORIZED)
        given = {one.name: one.value for one in arguments if isinstance(one, Named)}
        start, data = given.get(0, 0), given.get(1)
        table = self.drive.mbr_table
        if not isinstance(start, int) or not isinstance(data, bytes) or start + len(data) > len(table):
            raise MethodError(names.INVALID_PARAMETER)
        table[start : start + len(data)] = data
        return [[]]

    def _next(self, session: Session, uid: bytes, _arguments: Arguments) -> list[Item]:
        """The rows of the Locking table, which is the one that hosts walk through."""
        if session.sp != self.drive.locking_sp or uid != bytes.fromhex("0000080200000000"):
            raise MethodError(names.NOT_AUTHORIZED)
        enterprise = self.drive.spec.enterprise
        return [[names.locking_range(number, enterprise) for number in range(len(self.drive.ranges))]]

    def _authenticate(self, session: Session, uid: bytes, arguments: Arguments) -> list[Item]:
        if uid != names.THIS_SP or not arguments or not isinstance(arguments[0], bytes):
            raise MethodError(names.INVALID_PARAMETER)
        if arguments[0] in session.authorities and not self.drive.spec.reauthenticates:
            raise MethodError(names.INVALID_PARAMETER)
        proof = next((one.value for one in arguments[1:] if isinstance(one, Named)), b"")
        return [int(self._prove(session, arguments[0], proof))]

    def _genkey(self, session: Session, uid: bytes, _arguments: Arguments) -> list[Item]:
        drive = self.drive
        for number in range(len(drive.ranges)):
            if uid != names.media_key(number, drive.spec.enterprise):
                continue
            masters = [names.band_master(number)] if drive.spec.enterprise else [names.admin(1), names.admin(2)]
            if session.sp != drive.locking_sp or not session.authorities & set(masters):
                raise MethodError(names.NOT_AUTHORIZED)
            drive.ranges[number] = replace(drive.ranges[number], key=new_key())
            return [[]]
        raise MethodError(names.INVALID_PARAMETER)

    def _activate(self, session: Session, uid: bytes, _arguments: Arguments) -> list[Item]:
        if session.sp != names.ADMIN_SP or names.SID not in session.authorities or self.drive.spec.enterprise:
            raise MethodError(names.NOT_AUTHORIZED)
        if uid != names.LOCKING_SP:
            raise MethodError(names.INVALID_PARAMETER)
        self.drive.activate()
        return [[]]

    def _revert(self, session: Session, uid: bytes, _arguments: Arguments) -> list[Item]:
        if session.sp != names.ADMIN_SP or not session.authorities & {names.SID, names.PSID}:
            raise MethodError(names.NOT_AUTHORIZED)
        if uid == names.ADMIN_SP:
            self.drive.revert()
        elif uid == names.LOCKING_SP and not self.drive.spec.enterprise and names.SID in session.authorities:
            self.drive.revert_locking()
        else:
            raise MethodError(names.INVALID_PARAMETER)
        return [[]]

    def _revert_sp(self, session: Session, uid: bytes, arguments: Arguments) -> list[Item]:
        if uid != names.THIS_SP:
            raise MethodError(names.INVALID_PARAMETER)
        if session.sp == names.ADMIN_SP and session.authorities & {names.SID, names.PSID}:
            self.drive.revert()
        elif session.sp == names.LOCKING_SP and names.admin(1) in session.authorities:
            given = {one.name: one.value for one in arguments if isinstance(one, Named)}
            self.drive.revert_locking(bool(given.get(names.KEEP_GLOBAL_RANGE_KEY, 0)))
            self.drive.session = None
        else:
            raise MethodError(names.NOT_AUTHORIZED)
        return [[]]

    def _erase(self, session: Session, uid: bytes, _arguments: Arguments) -> list[Item]:
        drive = self.drive
        if not drive.spec.enterprise or names.ERASE_MASTER not in session.authorities:
            raise MethodError(names.NOT_AUTHORIZED)
        for number in range(len(drive.ranges)):
            if uid == names.locking_range(number, True):
                drive.erase(number)
                return [[]]
        raise MethodError(names.INVALID_PARAMETER)

    def _random(self, _session: Session, uid: bytes, arguments: Arguments) -> list[Item]:
        if uid != names.THIS_SP or not arguments or not isinstance(arguments[0], int) or arguments[0] > 32:
            raise MethodError(names.INVALID_PARAMETER)
        return [os.urandom(arguments[0])]


class _Silent(Exception):
    """There is no answer."""


class _Garbled(Exception):
    """The answer is nonsense."""


def _result(status: int, *answer: Item) -> bytes:
    """The answer to a method: a list of results, and its status."""
    return encode(list(answer), Mark(END_OF_DATA), [status, 0, 0])
