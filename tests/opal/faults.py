# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults to be injected into an emulated drive: any status on any method, lost answers, a drive that vanishes."""

from __future__ import annotations

from dataclasses import dataclass

HOW = ("refuse", "lose", "vanish", "vanish_after", "garble", "empty", "other_value")


@dataclass
class Fault:
    """What goes wrong with the next calls of a method.

    ``how``: ``refuse`` answers with ``status`` and does nothing; ``lose`` does it and loses the answer; ``vanish``
    pulls the drive before, ``vanish_after`` after it was done; ``garble`` answers with nonsense, ``empty`` with
    nothing, both without doing anything; ``other_value`` stores another credential than the one that is set and says
    that all is well, and is nothing to any other call. ``skip``: so many calls go well first.
    """

    method: str
    how: str = "refuse"
    status: int = 0x0F
    skip: int = 0
    times: int = 1


class Faults:
    """The faults a drive still has before it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        # Every call that could have gone wrong, the ends of sessions too: by this, ``skip`` counts for "*".
        self.seen: list[str] = []

    def inject(self, method: str, how: str = "refuse", status: int = 0x0F, skip: int = 0, times: int = 1) -> None:
        """Add one; method "*" stands for every method, "EndSession" for the end of a session."""
        if how not in HOW:
            raise ValueError(f"{how} is none of {', '.join(HOW)}")
        self._faults.append(Fault(method, how, status, skip, times))

    def clear(self) -> None:
        self._faults = []

    def pending(self) -> bool:
        """Whether any was not used up."""
        return bool(self._faults)

    def next(self, method: str) -> Fault | None:
        """What goes wrong with this call."""
        self.seen.append(method)
        for fault in self._faults:
            if fault.method not in (method, "*"):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            if not fault.times:
                self._faults.remove(fault)
            return fault
        return None
