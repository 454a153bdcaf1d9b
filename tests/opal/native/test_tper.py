# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator without a program: what it refuses, byte by byte, and that a preloaded process sees its drives."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.opal import names, packets
from ansible_collections.nasops.encryption.tests.opal.drive import ENTERPRISE, KINDS, Drive, MethodError, Spec
from ansible_collections.nasops.encryption.tests.opal.host import Emulator
from ansible_collections.nasops.encryption.tests.opal.tokens import BadStream, Mark, Named, decode, encode
from ansible_collections.nasops.encryption.tests.opal.tper import TPer

METHODS = {name: uid for uid, name in reversed(names.METHODS.items())}
OPAL = {"Get": names.uid("0000000600000016"), "Set": names.uid("0000000600000017")}


class Wire:
    """Sends tokens and gets tokens."""

    def __init__(self, spec: Spec) -> None:
        self.drive = Drive(spec)
        self.tper = TPer(self.drive)
        self.numbers = (0, 0)

    def call(self, uid: bytes, method: str, *arguments: t.Any) -> tuple[int, list[t.Any]]:
        """The status and the results of a method; 256 for silence."""
        number = METHODS[method] if self.drive.spec.enterprise else OPAL.get(method, METHODS[method])
        payload = encode(Mark(0xF8), uid, number, list(arguments), Mark(0xF9), [0, 0, 0])
        return self.raw(packets.build(packets.Packet(self.drive.spec.com_id, *self.numbers, payload)))

    def raw(self, data: bytes) -> tuple[int, list[t.Any]]:
        self.tper.send(1, self.drive.spec.com_id, data)
        answer = self.tper.receive(1, self.drive.spec.com_id, 2048)
        if answer[16:20] == bytes(4):
            return 256, []
        items = decode(packets.parse(answer).payload)
        return items[-1][0], items[-3]

    def start(self, sp: bytes, authority: bytes = b"", pin: bytes = b"") -> int:
        proof = (Named(0, pin), Named(3, authority)) if authority else ()
        status, results = self.call(names.SESSION_MANAGER, "StartSession", 105, sp, 1, *proof)
        if not status:
            self.numbers = (results[1], results[0])
        return status

    def end(self) -> None:
        payload = encode(Mark(0xFA))
        self.raw_end(packets.build(packets.Packet(self.drive.spec.com_id, *self.numbers, payload)))

    def raw_end(self, data: bytes) -> None:
        self.tper.send(1, self.drive.spec.com_id, data)
        assert self.tper.receive(1, self.drive.spec.com_id, 2048)[56:57] == b"\xfa"
        self.numbers = (0, 0)


def test_only_who_may_can() -> None:
    wire = Wire(Spec("S1"))
    drive = wire.drive
    assert wire.start(names.LOCKING_SP) == names.INVALID_PARAMETER, "it is not active"
    assert wire.start(names.ADMIN_SP) == 0
    pin_column = [Named(3, 3), Named(4, 3)]
    assert wire.call(names.PIN_MSID, "Get", pin_column) == (0, [[Named(3, drive.spec.msid)]])
    for uid, method, arguments, status in (
        (names.PIN_SID, "Get", [pin_column], names.NOT_AUTHORIZED),
        (names.PIN_SID, "Set", [Named(1, [Named(3, b"mine")])], names.NOT_AUTHORIZED),
        (names.LOCKING_SP, "Activate", [], names.NOT_AUTHORIZED),
        (names.ADMIN_SP, "Revert", [], names.NOT_AUTHORIZED),
        (names.THIS_SP, "RevertSP", [], names.NOT_AUTHORIZED),
        (names.media_key(0, False), "GenKey", [], names.NOT_AUTHORIZED),
        (names.locking_range(0, False), "Erase", [], names.NOT_AUTHORIZED),
        (names.locking_range(0, False), "Get", [[]], names.NOT_AUTHORIZED),
    ):
        assert wire.call(uid, method, *arguments)[0] == status, method
    assert wire.call(names.THIS_SP, "Authenticate", names.SID, Named(0, b"wrong")) == (0, [0])
    assert wire.call(names.THIS_SP, "Authenticate", names.SID, Named(0, drive.spec.msid)) == (0, [1])
    assert wire.call(names.PIN_SID, "Set", Named(1, [Named(3, b"mine")]))[0] == 0
    assert wire.call(names.PIN_SID, "Set", Named(1, [Named(3, bytes(33))]))[0] == names.INVALID_PARAMETER
    assert wire.call(names.LOCKING_SP, "Activate")[0] == 0
    wire.end()
    assert wire.start(names.LOCKING_SP, names.admin(1), b"mine") == 0
    assert wire.start(names.ADMIN_SP) == names.NOT_AUTHORIZED, "a session manager's call under the numbers of a session"
    row = names.locking_range(1, False)
    for start, length, status in ((0, 4096, 0), (0, 4097, 12), (4, 4096, 12), (0, 1 << 40, 12)):
        values = Named(1, [Named(3, start), Named(4, length)])
        assert wire.call(row, "Set", values)[0] == status
    assert (drive.ranges[1].start, drive.ranges[1].length) == (0, 4096)
    second = names.locking_range(2, False)
    assert wire.call(second, "Set", Named(1, [Named(3, 4088), Named(4, 8)]))[0] == names.INVALID_PARAMETER
    assert wire.call(second, "Set", Named(1, [Named(3, 4096), Named(4, 8)]))[0] == 0
    assert wire.call(names.MBR, "Set", Named(0, 512), Named(1, b"boot"))[0] == 0
    assert wire.call(names.MBR, "Get", [Named(1, 510), Named(2, 517)]) == (0, [b"\0\0boot\0\0"])


def test_another_session_has_to_wait_until_the_stack_is_reset() -> None:
    wire = Wire(Spec("S1"))
    assert wire.start(names.ADMIN_SP) == 0
    wire.numbers = (0, 0)
    assert wire.start(names.ADMIN_SP) == names.NO_SESSIONS_AVAILABLE
    com_id = wire.drive.spec.com_id
    wire.tper.send(2, com_id, com_id.to_bytes(2, "big") + bytes(2) + (2).to_bytes(4, "big"))
    assert wire.tper.receive(2, com_id, 512)[12:16] == bytes(4)
    assert wire.start(names.ADMIN_SP) == 0


def test_the_power_locks_what_is_enabled_and_forgets_the_tries() -> None:
    wire = Wire(Spec("S1", kind=ENTERPRISE, transport="sas", ranges=3))
    drive = wire.drive
    assert wire.start(names.ENTERPRISE_LOCKING_SP) == 0
    master, band = names.band_master(1), names.locking_range(1, True)
    assert wire.call(names.THIS_SP, "Authenticate", master, Named(b"Challenge", drive.spec.msid)) == (0, [1])
    enabled = [Named(b"ReadLockEnabled", 1), Named(b"WriteLockEnabled", 1)]
    assert wire.call(band, "Set", [], [enabled])[0] == 0
    assert wire.call(names.locking_range(0, True), "Set", [], [enabled])[0] == names.NOT_AUTHORIZED
    for _attempt in range(drive.spec.try_limit):
        assert wire.call(names.THIS_SP, "Authenticate", master, Named(b"Challenge", b"no")) == (0, [0])
    right = wire.call(names.THIS_SP, "Authenticate", master, Named(b"Challenge", drive.spec.msid))
    assert right[0] == names.AUTHORITY_LOCKED_OUT
    assert not drive.locked()
    drive.power_cycle()
    assert drive.locked() and not drive.readable()
    assert drive.session is None
    assert drive.attempt(names.pin_of(master), drive.spec.msid)


@pytest.mark.parametrize("data", [b"\xf0", b"\xf1", b"\xf2\x01\xf3", b"\xa5abc", b"\x40"])
def test_a_broken_stream_is_no_stream(data: bytes) -> None:
    with pytest.raises(BadStream):
        decode(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_tells_what_it_is(kind: str) -> None:
    drive = Drive(Spec("S1", kind=kind))
    answer = TPer(drive).receive(1, 1, 2048)
    length = int.from_bytes(answer[:4], "big")
    codes, at = [], 48
    while at < length + 4:
        codes.append(int.from_bytes(answer[at : at + 2], "big"))
        at += 4 + answer[at + 3]
    assert at == length + 4
    assert codes[:2] == [1, 2] and len(codes) >= 3


def test_a_plain_drive_and_a_wrong_com_id_are_refused() -> None:
    tper = TPer(Drive(Spec("S1")))
    with pytest.raises(MethodError):
        tper.send(1, 0x0999, bytes(512))


LOOK = """
import errno, os
print(sorted(os.listdir("/sys/class/block")), open("/sys/class/block/nvme8n1/dev").read().strip())
print(os.path.realpath("/dev/disk/by-id/nvme-EMU_OPAL_1TB_S1").endswith("/dev/nvme8n1"))
os.close(os.open("/dev/nvme8", os.O_RDONLY))
for path in ("/dev/sdx", "/dev/nvme7"):
    try:
        os.open(path, os.O_RDONLY)
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def test_a_preloaded_process_sees_the_tree(host: Emulator, shim: Path) -> None:
    host.plug(Spec("S1"), "nvme8")
    environment = {**os.environ, **host.environment(shim)}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['nvme8n1'] 259:1", "True", "ENOENT", "ENOENT"]
