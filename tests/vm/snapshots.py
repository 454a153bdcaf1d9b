# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NAS that goes back to a snapshot: what came after it is gone, and all names of its disks are there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from .nas import Nas, NasError
from .over_ssh import Check

_TAG = "before"
# Tables that were written just before a snapshot: udev is still at it when that is taken.
_PARTITIONED = 8


def checks(log: Path) -> Iterator[Check]:
    """Each check in turn, on a NAS of its own."""
    log.mkdir(parents=True, exist_ok=True)
    nas = Nas(f"suite-{os.getpid()}-snapshot")
    try:
        start = time.monotonic()
        nas.start()
        disks = _disks(nas)
        names = [names[0] for names in disks]
        # udev is still at it when the snapshot is taken.
        nas.shell("; ".join(f"sgdisk --clear --new=1:0:+64M {name} >/dev/null" for name in names[:_PARTITIONED]))
        nas.snapshot(_TAG)
        yield "a snapshot right after partitions were made", time.monotonic() - start, []
        start = time.monotonic()
        nas.shell(f"zpool create -f tank {names[0]} {names[-1]} && sgdisk --zap-all {names[1]} >/dev/null")
        complaints = [] if _pools(nas) == ["tank"] else ["no pool was created"]
        nas.restore(_TAG)
        complaints += [f"there is a pool '{pool}'" for pool in _pools(nas)]
        # Without waiting for udev: the names are a part of what was saved.
        there = set(nas.shell("ls -d /dev/disk/by-id/*").split())
        wanted = {name for names in disks for name in names}
        wanted |= {f"{name}-part1" for names in disks[:_PARTITIONED] for name in names}
        complaints += [f"the restored NAS has no {name}" for name in sorted(wanted - there)]
        yield "back to it: no pool, and every name of disks and partitions", time.monotonic() - start, complaints
    finally:
        nas.destroy()


def _disks(nas: Nas) -> list[list[str]]:
    """All names in by-id of each data disk; the first one holds its serial number."""
    script = "udevadm settle; for one in /dev/disk/by-id/*; do echo $one $(readlink -f $one); done"
    links = dict(line.split() for line in nas.shell(script).splitlines())
    found = []
    for serial in nas.serials:
        first = next((name for name in links if name.endswith(f"_{serial}")), None)
        if first is None:
            raise NasError(f"the NAS has no name with the serial number {serial} in /dev/disk/by-id")
        found.append([first, *(name for name in links if links[name] == links[first] and name != first)])
    return found


def _pools(nas: Nas) -> list[str]:
    return nas.shell("zpool list -H -o name").split()
