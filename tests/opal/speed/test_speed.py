# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many drives of a task do not wait for each other."""

from __future__ import annotations

import sys

from ansible_collections.nasops.encryption.tests.benchmarks import drives
from ansible_collections.nasops.encryption.tests.opal.player import Player


def test_24_drives_are_unlocked_in_the_time_of_4_one_after_another(player: Player) -> None:
    found = drives.measure(player, {"hash": "sha1"})
    told = f"24 in one task: {found.together:.2f} s; 4 in a task for each: {found.one_by_one:.2f} s"
    sys.stdout.write(f"{told}; ratio {found.ratio:.2f}\n")
    assert found.ratio <= 1, told
