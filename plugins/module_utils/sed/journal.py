# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this host remembers of drives until it restarts: changes of credentials that were begun, and refusals.

A drive tells nobody which credential an authority has, and each wrong one costs a try. So before a credential is
changed it is noted which one was proven until then: if the change is cut off, the next task knows that it is one of
two. And where one of several was refused, the next task offers another one. No credential is in it, nor anything that
is made from one: only which of the task's own it was.
"""

from __future__ import annotations

import threading
import typing as t

from ..errors import StorageError
from ..lock import RUN_FOLDER
from . import notes_file
from .state import FACTORY

JOURNAL_FILE = f"{RUN_FOLDER}/nasops.encryption.drives"
_BEGUN, _REFUSED = "begun", "refused"
# In the place of an authority: what is noted of two of them.
_APART = "apart"

Notes = dict[str, list[str]]


class Memory:
    """The notes about one drive: by authority, a word and the origin of a credential."""

    def __init__(self, notes: t.Mapping[str, t.Sequence[str]] | None = None) -> None:
        self._notes = dict(notes or {})

    def begun(self, authority: str) -> str:
        """The origin of the credential that an authority had when a change of it was begun and not ended, or ""."""
        return self._origin(authority, _BEGUN)

    def refused(self, authority: str) -> str:
        """The origin of the credential that an authority did not take when it was asked last, or ""."""
        return self._origin(authority, _REFUSED)

    @property
    def all_begun(self) -> tuple[str, ...]:
        """The authorities of which a change was begun and not ended."""
        return tuple(authority for authority in self._notes if self.begun(authority))

    def all_refused(self, origin: str) -> tuple[str, ...]:
        """The authorities that did not take the credential of this origin when they were asked last."""
        return tuple(authority for authority in self._notes if self.refused(authority) == origin)

    @property
    def apart(self) -> bool:
        """Whether SID did not take what Admin1 took. That holds for any password, until one of the two is changed."""
        return _APART in self._notes

    def _origin(self, authority: str, word: str) -> str:
        note = self._notes.get(authority, ())
        return note[1] if len(note) == 2 and note[0] == word else ""


def _ended(former: str) -> list[str] | None:
    return [_REFUSED, former] if former == FACTORY else None


class Journal:
    """The notes about all drives, in a file that is gone when the host restarts.

    :param path: the file; "" keeps the notes in this process
    :param writes: False in check mode, which only reads them
    :param kept: the notes to begin with, where there is no file
    """

    def __init__(
        self, path: str = JOURNAL_FILE, writes: bool = True, kept: t.Mapping[str, Notes] | None = None
    ) -> None:
        self._path = path
        self._writes = writes
        self._lock = threading.Lock()
        # What is true for this task only: with other passwords the same word means another one.
        self._now: dict[str, Notes] = {}
        # Changes that this very task has begun and not ended.
        self._cut: dict[str, set[str]] = {}
        self.kept: dict[str, Notes] = dict(kept or {})

    def memory(self, drive: str) -> Memory:
        """What is known of a drive, by its serial number."""
        with self._lock:
            return Memory({**self._load().get(drive, {}), **self._now.get(drive, {})})

    def begin(self, drive: str, authority: str, former: str) -> None:
        """A credential is about to be changed; ``former`` was proven."""
        with self._lock:
            self._now.get(drive, {}).pop(authority, None)
            self._cut.setdefault(drive, set()).add(authority)
            self._store(drive, _APART, None)
            for other, note in list(self._load().get(drive, {}).items()):
                # One is changed after the other: that one was changed before.
                if other != authority and note[:1] == [_BEGUN]:
                    self._store(drive, other, _ended(note[1]))
            self._store(drive, authority, [_BEGUN, former])

    def end(self, drive: str, authority: str, former: str, last: bool = True) -> None:
        """It was changed, and the new one proven: the former one is refused from now on.

        Of the factory's that is true for every task, and a set-up that stops here goes on from there.

        :param last: False: others are to be changed, and until one is begun this one tells where the change is
        """
        with self._lock:
            self._cut.get(drive, set()).discard(authority)
            self._now.setdefault(drive, {})[authority] = [_REFUSED, former]
            if last:
                self._store(drive, authority, _ended(former))

    def cut(self, drive: str) -> frozenset[str]:
        """The authorities of which this very task has begun a change and not ended it."""
        with self._lock:
            return frozenset(self._cut.get(drive, ()))

    def refuse(self, drive: str, authority: str, origin: str) -> None:
        """A credential was refused, and another one is possible."""
        with self._lock:
            self._store(drive, authority, [_REFUSED, origin])

    def part(self, drive: str, apart: bool) -> None:
        """Whether SID refused what Admin1 took; while that is noted, SID need not be asked, which costs a try."""
        with self._lock:
            self._store(drive, _APART, [_APART] if apart else None)

    def settle(self, drive: str, authority: str) -> None:
        """Which credential an authority has is known."""
        with self._lock:
            self._store(drive, authority, None)

    def forget(self, drive: str, refused: t.Mapping[str, str] | None = None) -> None:
        """Nothing that was noted of a drive holds any more; ``refused`` holds until this task ends."""
        with self._lock:
            self._now[drive] = {authority: [_REFUSED, origin] for authority, origin in (refused or {}).items()}
            self._store(drive, "", None)

    def _store(self, drive: str, authority: str, note: list[str] | None) -> None:
        """Write one note, or take it away; without an authority, all of the drive."""
        if not self._writes:
            return
        before = self._load()
        notes = dict(before)
        own = dict(notes.pop(drive, {})) if authority else {}
        notes.pop(drive, None)
        own.pop(authority, None)
        if note is not None:
            own[authority] = note
        if own:
            notes[drive] = own
        if notes != before:
            self._save(notes)

    def _load(self) -> dict[str, Notes]:
        return notes_file.load(self._path) if self._path else self.kept

    def _save(self, notes: dict[str, Notes]) -> None:
        if not self._path:
            self.kept = notes
            return
        try:
            notes_file.save(self._path, notes)
        except PermissionError:
            # Not root: such a task can't change a drive either.
            return
        except OSError as error:
            raise StorageError(
                f"{self._path} can't be written: {error.strerror}. It keeps what a task that is cut off has begun.",
                hint="Make room there, then run the task again.",
            ) from error
