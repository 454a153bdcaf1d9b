# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a drive, and what is done to it, whatever program or interface does it."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..errors import StorageError
from .discovery import Discovery
from .drive import Drive
from .link import Identity

UNLOCKED, READONLY, LOCKED = "unlocked", "readonly", "locked"
# What no task asks for, and other programs leave: it can be written and not read.
WRITEONLY = "writeonly"
# How a range is -> whether it is closed to reading and to writing.
CLOSED = {UNLOCKED: (False, False), READONLY: (False, True), LOCKED: (True, True), WRITEONLY: (True, False)}

# Which credential an authority was found to have. FACTORY is the one that every reader of the drive can see.
OURS, NEW, FACTORY, FOREIGN, LOCKED_OUT = "ours", "new", "factory", "foreign", "locked_out"
# The drive tells that one more wrong credential would lock the authority out, so none was offered.
LAST_TRY = "last_try"


@dataclass(frozen=True)
class Secret:
    """A credential to be offered: a password, the PSID from the label, or the factory's own."""

    origin: str
    value: bytes = field(default=b"", repr=False)


FACTORY_SECRET = Secret(FACTORY)


@dataclass(frozen=True)
class Range:
    """A range of a drive, the global one if its number is 0. ``on_reset``: it locks when the power comes back."""

    number: int
    start: int = 0
    length: int = 0
    read_enabled: bool = False
    write_enabled: bool = False
    read_locked: bool = False
    write_locked: bool = False
    on_reset: bool = True

    @property
    def enabled(self) -> bool:
        """Whether it can be locked, and is whenever the power was off."""
        return self.read_enabled and self.write_enabled and self.on_reset

    @property
    def mode(self) -> str:
        """How it is now; a flag that says locked counts only where locking is enabled."""
        closed = (self.read_enabled and self.read_locked, self.write_enabled and self.write_locked)
        return next(mode for mode, flags in CLOSED.items() if flags == closed)


@dataclass(frozen=True)
class DriveState:
    """One drive as it was found.

    ``holders``: by authority, which credential it has, as far as that was tried. ``range``: None if it was not read.
    ``uses``: what uses the drive now, in words; ``system``: what of that the host needs to start. ``tried``: False if
    no credential was to be tried. ``filtered``: the kernel keeps security commands from it. ``reset``: this very task
    has just reset it. ``later``: authorities to which the next task offers another credential than this one did.
    ``twice``: authorities that were offered two credentials and took neither.
    ``unread``: there is a partition table on it that the kernel has not read. ``apart``: SID has another password than
    Admin1, as it was seen now or before.
    """

    drive: Drive
    identity: Identity
    found: Discovery
    holders: t.Mapping[str, str] = field(default_factory=dict)
    range: Range | None = None
    uses: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    tried: bool = True
    filtered: bool = False
    reset: bool = False
    later: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    unread: bool = False
    apart: bool = False

    @property
    def key(self) -> str:
        """By what it is known again, whatever its name."""
        return self.identity.key


@dataclass(frozen=True)
class Fault:
    """A drive that could not be looked at, and why."""

    drive: Drive
    error: StorageError


class Backend(t.Protocol):
    """What can be asked of drives and done to them.

    Everything that writes first makes sure that the drive is still the one of the state it is given.
    """

    name: str

    def look(self, drive: Drive) -> tuple[Identity, Discovery]:
        """What the drive tells without a password."""

    def can_try(self, state: DriveState, authority: str) -> bool:
        """Whether a credential can be tried by this task; False where that writes and the task must not."""

    def holder(self, state: DriveState, authority: str, offers: t.Sequence[Secret]) -> str:
        """The origin of the first credential that the authority takes, FOREIGN, LOCKED_OUT or LAST_TRY if none."""

    def read_range(self, state: DriveState, number: int, secret: Secret) -> Range:
        """A range."""

    def set_pin(self, state: DriveState, authority: str, old: Secret, new: Secret) -> None:
        """Give an authority another credential, and prove it."""

    def own_bands(self, state: DriveState, new: Secret, last: int) -> None:
        """Give all BandMasters of an Enterprise drive that have the factory's credential another one, one last."""

    def activate(self, state: DriveState, secret: Secret) -> None:
        """Turn locking on (Opal)."""

    def place(self, state: DriveState, wanted: Range, secret: Secret) -> None:
        """Where a range begins and how long it is."""

    def enable(self, state: DriveState, number: int, secret: Secret) -> None:
        """Let a range be locked, now by request and whenever the power was off."""

    def lock(self, state: DriveState, number: int, mode: str, secret: Secret) -> None:
        """Open or close a range."""

    def shadow(self, state: DriveState, enabled: bool, done: bool, secret: Secret) -> None:
        """Set MBR shadowing."""

    def revert(self, state: DriveState, authority: str, secret: Secret) -> None:
        """Back to the factory's settings, all data gone."""
