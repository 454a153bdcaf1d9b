# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives that are offered no password which they did not take before, whoever starts the program again."""

from __future__ import annotations

import contextlib
import typing as t

from .boot_refused import Refusals
from .native import Native
from .session import Busy, Line, LockedOut, Rejected, Session
from .state import DriveState, Secret
from .uids import NOT_AUTHORIZED


class Careful(Native):
    """Drives through the kernel's own interfaces, which are offered no password that they did not take before.

    ``withheld``: the drives to which one was not offered for that reason.
    """

    def __init__(self, kind: str, refusals: Refusals) -> None:
        super().__init__(kind)
        self._refusals = refusals
        # What was found out by this process: nothing is noted of it any more.
        self._judged: set[tuple[str, bytes]] = set()
        self.withheld: set[str] = set()

    @contextlib.contextmanager
    def _as(self, line: Line, state: DriveState, authority: str, secret: Secret) -> t.Iterator[Session]:
        # The same text is another credential by another hash.
        offer = (state.key, f"{self._kind}:".encode("ascii") + secret.value)
        if offer in self._judged:
            with super()._as(line, state, authority, secret) as session:
                yield session
            return
        if self._refusals.has(*offer):
            self.withheld.add(state.drive.label)
            raise Rejected(f"authenticate {authority}", NOT_AUTHORIZED)
        self._refusals.begin(*offer)
        try:
            with super()._as(line, state, authority, secret) as session:
                self._judged.add(offer)
                self._refusals.end(*offer)
                yield session
        except (Busy, LockedOut):
            if offer not in self._judged:
                self._refusals.end(*offer)
            raise
        except Rejected:
            # This very run tells of it, and does not offer it again by itself.
            self._judged.add(offer)
            raise
