# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds after something has gone wrong with a drive, whichever program was at it."""

from __future__ import annotations

import os
import typing as t

from . import names
from .drive import Drive
from .player import Player, Result

OLD, NEW, SERIAL = "old-password", "new-password", "SER1"
# Whether all that can go wrong is to go wrong, which takes long (`make sed-faults`).
ALL = bool(os.environ.get("NASOPS_ALL_FAULTS"))

Options = dict[str, t.Any]
BASE: Options = {"serial": SERIAL, "hash": "raw", "password": OLD}
RESET: Options = {"state": "absent", "confirm_serial": [SERIAL]}


def opens(drive: Drive) -> bool:
    """Whether its owner is the factory, or somebody with the old or the new password; and so whoever unlocks it."""
    known = {OLD.encode(), NEW.encode(), drive.spec.msid}
    if drive.pins[names.PIN_SID].value not in known:
        return False
    master = names.band_master(0) if drive.spec.enterprise else names.admin(1)
    return not drive.locking_enabled or drive.pins[names.pin_of(master)].value in known


def see_finished(
    player: Player, drive: Drive, done: Result, wanted: Options, silent: Options, where: tuple[t.Any, ...]
) -> None:
    """The drive opens, the run told the truth, the next one finishes, and then nothing is left to do.

    :param done: what the run told in which something went wrong
    :param silent: a task that finds out whether something is left to do
    :param where: what went wrong, for who reads that it was too much
    """
    assert not drive.faults.pending(), (*where, "there were fewer calls than before")
    assert opens(drive), where
    drive.faults.clear()
    if drive.gone:
        player.host.attach(drive, "nvme8")
    if not done.get("failed"):
        # The end of a session says nothing, and what was done before it counts.
        assert done["changed"], where
        assert player.run(**silent)["changed"] is False, where
    again = player.run(**wanted)
    assert not again.get("failed"), (*where, done.get("msg"), again.get("msg"))
    assert player.run(**silent)["changed"] is False, where
    assert not any(pin.locked_out for pin in drive.pins.values())
    player.host.unplug("nvme8")
