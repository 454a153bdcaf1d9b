# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an emulated drive is and what it remembers; not how it is talked to."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from . import names
from .faults import Faults
from .names import POWER_CYCLE

OPAL2, ENTERPRISE, PYRITE1, PYRITE2, OPALITE, RUBY = "opal2", "enterprise", "pyrite1", "pyrite2", "opalite", "ruby"
KINDS = (OPAL2, ENTERPRISE, PYRITE1, PYRITE2, OPALITE, RUBY)
TRANSPORTS = ("nvme", "sata", "sas")

_KEYS = itertools.count(1)


class MethodError(Exception):
    """A method does not succeed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status 0x{status:02x}")
        self.status = status


@dataclass(frozen=True)
class Spec:
    """What leaves the factory. ``kind`` "" is a drive that encrypts nothing."""

    serial: str
    kind: str = OPAL2
    transport: str = "nvme"
    model: str = "EMU OPAL 1TB"
    firmware: str = "1.0EMU"
    vendor: str = "EMULATED"
    msid: bytes = b"MSID0123456789ABCDEF"
    psid: bytes = b"PSID0123456789ABCDEFGHIJKLMNOPQR"
    # Ranges besides the global one.
    ranges: int = 8
    admins: int = 4
    users: int = 9
    try_limit: int = 5
    # Bytes, and blocks.
    block_size: int = 512
    granularity: int = 8
    blocks: int = 1953525168
    # Whether discovery tells if the SID PIN is still the MSID (feature Block SID).
    tells_owner: bool = False
    com_id: int = 0x1004
    # Whether everybody may read how many wrong credentials an authority has counted.
    shows_tries: bool = False
    # World Wide Name, 16 hexadecimal digits; what has none there is shown one made of the serial number by its host.
    wwn: str = ""
    # Seagate's Enterprise drives take both lock flags at once or none.
    both_locks: bool = False
    # Whether an authority of a session can authenticate once more in it.
    reauthenticates: bool = True

    @property
    def enterprise(self) -> bool:
        return self.kind == ENTERPRISE

    @property
    def encrypts(self) -> bool:
        return self.kind not in ("", PYRITE1, PYRITE2)


@dataclass
class Pin:
    """A credential. ``tries`` counts wrong ones since the last right one or power cycle."""

    value: bytes
    limit: int
    tries: int = 0

    @property
    def locked_out(self) -> bool:
        return 0 < self.limit <= self.tries


@dataclass(frozen=True)
class Range:
    """A row of the Locking table. ``key`` is a number that changes when the data is gone."""

    start: int = 0
    length: int = 0
    read_enabled: bool = False
    write_enabled: bool = False
    read_locked: bool = False
    write_locked: bool = False
    lock_on_reset: tuple[int, ...] = (POWER_CYCLE,)
    key: int = 0

    @property
    def reads(self) -> bool:
        return not (self.read_enabled and self.read_locked)

    @property
    def writes(self) -> bool:
        return not (self.write_enabled and self.write_locked)


@dataclass(frozen=True)
class Mbr:
    """MBR shadowing."""

    enabled: bool = False
    done: bool = False
    done_on_reset: tuple[int, ...] = (POWER_CYCLE,)


@dataclass
class Session:
    """An open session."""

    sp: bytes
    host: int
    tper: int
    write: bool
    authorities: set[bytes] = field(default_factory=lambda: {names.ANYBODY})


def new_key() -> int:
    return next(_KEYS)


class Drive:
    """The state of one drive, and what changes more than one value of it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.faults = Faults()
        # The methods that were called, as (name, object, authorities), for tests to look at.
        self.calls: list[tuple[str, bytes, frozenset[bytes]]] = []
        self.pins: dict[bytes, Pin] = {}
        # The credentials that were wrong, one after another, by whose they are.
        self.wrong: list[bytes] = []
        self.enabled: dict[bytes, bool] = {}
        self.ranges: list[Range] = []
        self.mbr = Mbr()
        self.mbr_table = bytearray(128 * 1024)
        self.active = False
        self.session: Session | None = None
        # Shut off: every command fails as for a drive that was pulled.
        self.gone = False
        # The firmware of the host had its say (Block SID Authentication), if the drive knows that.
        self.blocked = self.frozen = False
        # What is in its first blocks, where nobody else has written.
        self.media = b""
        # Something on the host holds it.
        self.busy = False
        # Filtered by libata without allow_tpm.
        self.filtered = False
        self.revert()

    @property
    def locking_sp(self) -> bytes:
        return names.ENTERPRISE_LOCKING_SP if self.spec.enterprise else names.LOCKING_SP

    @property
    def locking_enabled(self) -> bool:
        return self.spec.enterprise or self.active

    def locked(self) -> bool:
        return any(not (one.reads and one.writes) for one in self.ranges)

    def owned(self) -> bool:
        return self.pins[names.PIN_SID].value != self.spec.msid

    def readable(self) -> bool:
        """Whether a host gets its data: all ranges open, and no shadow MBR in the way."""
        return all(one.reads for one in self.ranges) and not (self.mbr.enabled and not self.mbr.done)

    @property
    def keys(self) -> tuple[int, ...]:
        return tuple(one.key for one in self.ranges)

    def _pin(self, value: bytes) -> Pin:
        return Pin(value, self.spec.try_limit)

    # What it does

    def revert(self) -> None:
        """Back to what left the factory, all data gone."""
        self.pins = {names.PIN_SID: self._pin(self.spec.msid), names.PSID: self._pin(self.spec.psid)}
        self.enabled = {}
        self.session = None
        self.blocked = self.frozen = False
        self._factory_locking()

    def _factory_locking(self, keep_key: int | None = None) -> None:
        spec = self.spec
        self.active = False
        self.mbr = Mbr()
        self.mbr_table = bytearray(len(self.mbr_table))
        self.ranges = [Range(key=new_key()) for _number in range(spec.ranges + 1)]
        if keep_key is not None:
            self.ranges[0] = replace(self.ranges[0], key=keep_key)
        own: list[bytes]
        if spec.enterprise:
            own = [names.band_master(number) for number in range(spec.ranges + 1)] + [names.ERASE_MASTER]
            self.enabled.update({one: one in (own[0], own[1], names.ERASE_MASTER) for one in own})
            self.pins.update({names.pin_of(one): self._pin(spec.msid) for one in own})
        else:
            own = [names.admin(number + 1) for number in range(spec.admins)]
            self.enabled.update({one: one == own[0] for one in own})
            self.enabled.update({names.user(number + 1): False for number in range(spec.users)})
            self.pins.update({names.pin_of(one): self._pin(b"") for one in self.enabled})

    def activate(self) -> None:
        """Manufactured-Inactive to Manufactured: Admin1 gets the PIN of SID. A second time it does nothing."""
        if self.active:
            return
        self.active = True
        self.pins[names.pin_of(names.admin(1))] = self._pin(self.pins[names.PIN_SID].value)

    def revert_locking(self, keep: bool = False) -> None:
        """The Locking SP back to what left the factory; with ``keep`` the data of the global range stays."""
        first = self.ranges[0]
        if keep and not first.reads and not first.writes:
            raise MethodError(names.FAIL)
        self._factory_locking(first.key if keep else None)

    def erase(self, number: int) -> None:
        """Enterprise: the data of a band gone, and the band as new."""
        self.ranges[number] = replace(self.ranges[number], key=new_key(), read_locked=False, write_locked=False)
        self.pins[names.pin_of(names.band_master(number))] = self._pin(self.spec.msid)

    def power_cycle(self) -> None:
        """Power off and on."""
        self.session = None
        self.gone = self.blocked = self.frozen = False
        for pin in self.pins.values():
            pin.tries = 0
        self.ranges = [
            replace(
                one,
                read_locked=one.read_locked or (one.read_enabled and POWER_CYCLE in one.lock_on_reset),
                write_locked=one.write_locked or (one.write_enabled and POWER_CYCLE in one.lock_on_reset),
            )
            for one in self.ranges
        ]
        if POWER_CYCLE in self.mbr.done_on_reset:
            self.mbr = replace(self.mbr, done=False)

    def attempt(self, pin_uid: bytes, value: bytes) -> bool:
        """Compare a credential; a wrong one costs a try.

        :raises MethodError: there were too many wrong ones
        """
        pin = self.pins[pin_uid]
        if pin.locked_out:
            raise MethodError(names.AUTHORITY_LOCKED_OUT)
        if value != pin.value:
            pin.tries += 1
            self.wrong.append(pin_uid)
            return False
        pin.tries = 0
        return True

    def spoil(self, pin_uid: bytes) -> None:
        """Another value in the place of a credential, if it is one."""
        if pin_uid in self.pins:
            self.pins[pin_uid].value = bytes(byte ^ 0x55 for byte in self.pins[pin_uid].value)

    def overlaps(self) -> bool:
        """Whether two ranges share blocks."""
        used = sorted((one.start, one.start + one.length) for one in self.ranges[1:] if one.length)
        return any(first[1] > second[0] for first, second in zip(used, used[1:]))


def pin_for(authority: bytes) -> bytes:
    """The credential of an authority; PSID has one that no table shows."""
    if authority == names.PSID:
        return names.PSID
    if authority == names.SID:
        return names.PIN_SID
    return names.pin_of(authority)
