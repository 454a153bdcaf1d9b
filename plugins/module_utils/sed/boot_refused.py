# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which passwords drives did not take since the host started, so that starting the program again costs no more tries.

A password is noted before it is offered, and the note taken away when the drive took it: what ends the program in
between leaves the note. What is noted is no password but what scrypt makes of it with a salt of its own, in a file for
root alone that is gone when the host restarts. So it does not matter where a password came from, or how that is
spelled.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import typing as t

from ..lock import RUN_FOLDER
from . import notes_file

REFUSED_FILE = f"{RUN_FOLDER}/nasops.encryption.refused"
_SALT, _DRIVES = "salt", "drives"
# 16 MB and a twentieth of a second for each password.
_COST, _BLOCK = 1 << 14, 8
# Where the library of the system has no scrypt, as one that keeps to FIPS 140.
_ROUNDS = 200_000

Notes = t.Mapping[str, t.Sequence[str]]


class Refusals:
    """The notes, by the serial number of a drive. Who changes them holds the lock of the host."""

    def __init__(self, path: str = REFUSED_FILE) -> None:
        self.path = path
        # Drives are opened side by side.
        self._lock = threading.Lock()
        self._made: dict[tuple[str, bytes], str] = {}

    def has(self, drive: str, password: bytes) -> bool:
        """Whether the drive was offered this password, and did not take it as far as is known."""
        with self._lock:
            salt, notes = self._load()
            return drive in notes and self._digest(salt, password) in notes[drive]

    def begin(self, drive: str, password: bytes) -> None:
        """It is about to be offered this one. Where the note can't be written, that is no reason not to."""
        with self._lock:
            salt, notes = self._load()
            digest = self._digest(salt, password)
            self._save(salt, {**notes, drive: sorted({*notes.get(drive, ()), digest})})

    def end(self, drive: str, password: bytes) -> None:
        """It took it, or did not judge it."""
        with self._lock:
            salt, notes = self._load()
            if drive in notes:
                digest = self._digest(salt, password)
                self._save(salt, {**notes, drive: [one for one in notes[drive] if one != digest]})

    def forget(self, drives: t.Iterable[str]) -> None:
        """Nothing that was noted of these drives counts any more: somebody has opened them meanwhile."""
        with self._lock:
            salt, notes = self._load()
            gone = set(drives) & set(notes)
            if gone:
                self._save(salt, {drive: one for drive, one in notes.items() if drive not in gone})

    def _digest(self, salt: str, password: bytes) -> str:
        # One after the other: many at once would take memory that a host which starts may not have.
        key = (salt, password)
        if key not in self._made:
            raw = bytes.fromhex(salt)
            try:
                made = hashlib.scrypt(password, salt=raw, n=_COST, r=_BLOCK, p=1, dklen=32)
            except (AttributeError, ValueError):
                made = hashlib.pbkdf2_hmac("sha256", password, raw, _ROUNDS)
            self._made[key] = made.hex()
        return self._made[key]

    def _load(self) -> tuple[str, Notes]:
        """The salt, which is a new one where there are no notes, and the notes."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found = notes_file.load(self.path)
            notes = {str(drive): [str(one) for one in digests] for drive, digests in found[_DRIVES].items()}
            return bytes.fromhex(found[_SALT]).hex(), notes
        return os.urandom(16).hex(), {}

    def _save(self, salt: str, notes: Notes) -> None:
        kept = {drive: list(digests) for drive, digests in notes.items() if digests}
        with contextlib.suppress(OSError):
            notes_file.save(self.path, {_SALT: salt, _DRIVES: kept})
