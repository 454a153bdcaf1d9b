# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes to unlock many drives, against a few of them one after another: a ratio within one run."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

from ansible_collections.nasops.encryption.tests.opal.drive import Spec
from ansible_collections.nasops.encryption.tests.opal.player import Player

MANY, FEW = 24, 4
# Seconds that a drive takes for one command. SATA drives of hardware take about that much, others less.
DELAY = 0.03
_PASSWORD = "the-password-of-all"


@dataclass(frozen=True)
class Measured:
    """Seconds."""

    together: float
    one_by_one: float

    @property
    def ratio(self) -> float:
        """Has to be 1 at most."""
        return self.together / self.one_by_one


def measure(player: Player, options: dict[str, t.Any]) -> Measured:
    """Unlock many drives in one task, and then a few in a task for each.

    :param options: of both, such as the backend
    """
    serials = [f"S{number}" for number in range(MANY)]
    drives = [player.host.plug(Spec(serial), f"nvme{number}") for number, serial in enumerate(serials)]
    assert not player.run(devices=serials, password=_PASSWORD, **options).get("failed")
    player.host.power_cycle()
    player.host.delay = DELAY
    try:
        begun = time.monotonic()
        done = player.run(devices=serials, password=_PASSWORD, state="unlocked", **options)
        together = time.monotonic() - begun
        assert not done.get("failed") and all(drive.readable() for drive in drives)
        for drive in drives[:FEW]:
            drive.power_cycle()
        begun = time.monotonic()
        for serial in serials[:FEW]:
            assert player.run(serial=serial, password=_PASSWORD, state="unlocked", **options)["changed"]
        return Measured(together, time.monotonic() - begun)
    finally:
        player.host.delay = 0.0
