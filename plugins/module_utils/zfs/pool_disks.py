# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether disks may become part of a pool. A disk that holds anything is not a blank disk."""

from __future__ import annotations

import posixpath
import typing as t

from ..blockdev.content import DiskContent, probe_all
from ..blockdev.host import read_table
from ..blockdev.identity import DeviceTable
from ..blockdev.wipe import wipe_step
from ..command import Runner
from ..errors import BadInput, Refused
from ..plan import Work, act
from .pool_options import WantedPool
from .state import Pool
from .topology import MIN_DEVICE_BYTES, SIZE_TOLERANCE, WantedVdev

# Folders whose names change when a disk is added or moved; no name for something that will be erased.
_UNSTABLE = ("/dev/disk/by-path/",)
_STABLE = ("/dev/disk/by-", "/dev/gptid/", "/dev/gpt/", "/dev/diskid/", "/dev/mapper/", "/dev/multipath/")


def check_disks(
    wanted: WantedPool,
    vdevs: t.Sequence[WantedVdev],
    pools: t.Mapping[str, Pool],
    contents: t.Mapping[str, DiskContent],
    devices: DeviceTable,
) -> tuple[DiskContent, ...]:
    """Check every new disk, and return those to wipe first because the caller named them in ``wipe_disks``.

    :raises Refused: listing every disk that can't be used, with what was found on it
    """
    _check_wipe_names(wanted.wipe_disks)
    problems: list[str] = []
    wipes: list[DiskContent] = []
    for disk in (disk for vdev in vdevs for disk in vdev.disks):
        owner = _owner(disk, pools, devices)
        if owner:
            problems.append(f"{disk} is in use by the imported pool '{owner}'")
            continue
        found = contents[disk]
        problem = found.problem.rstrip(".") or _too_small(found)
        if problem:
            problems.append(problem)
        elif found.used:
            problems.append(f"{disk} is in use: {found.words()}")
        elif found.dead and not _named(found, wanted.wipe_disks, devices):
            problems.append(f"{disk} is not blank: {found.words()}")
        elif found.dead:
            wipes.append(found)
    if problems:
        raise Refused(
            f"Pool '{wanted.name}' can't get these disks, so nothing was changed: {'; '.join(problems)}.",
            hint="Check that these are the right disks. What is left on one by an earlier use is erased only if "
            "wipe_disks names it, by its serial number or a persistent path; a disk in use never.",
            refused_disks=problems,
        )
    if not wanted.force:
        for vdev in vdevs:
            _check_alike(vdev, contents)
    return tuple(wipes)


def restore_blank(disks: t.Sequence[str]) -> Work:
    """An action that takes away what a failed zpool create or add left on disks that were blank before it."""

    def work(runner: Runner) -> None:
        # A disk that got into the pool before the failure is in use, and stays as it is.
        for found in probe_all(runner, read_table(runner), disks):
            if found.dead and not found.used:
                act(wipe_step(found).action, runner)

    return work


def _check_wipe_names(names: t.Sequence[str]) -> None:
    for name in names:
        kernel = name.startswith("/dev/") and (not name.startswith(_STABLE) or name.startswith(_UNSTABLE))
        if kernel:
            raise BadInput(
                f"wipe_disks names {name}, and such a name can mean another disk after the next start.",
                hint="Name the disk by its serial number or by its path in /dev/disk/by-id.",
            )


def _owner(disk: str, pools: t.Mapping[str, Pool], devices: DeviceTable) -> str:
    for pool in pools.values():
        for path, _role in pool.devices():
            if devices.overlap(disk, path):
                return pool.name
    return ""


def _named(found: DiskContent, names: t.Sequence[str], devices: DeviceTable) -> bool:
    """Whether the caller named this disk as one to erase: by its serial number, or by a path that leads to it."""
    return any(
        name == found.serial or (posixpath.isabs(name) and devices.identity(name) == found.identity)
        for name in names
        if name
    )


def _too_small(found: DiskContent) -> str:
    if found.size < MIN_DEVICE_BYTES:
        return f"{found.path} has {found.size} bytes; ZFS needs at least {MIN_DEVICE_BYTES}"
    return ""


def _check_alike(vdev: WantedVdev, contents: t.Mapping[str, DiskContent]) -> None:
    """What zpool itself refuses without force."""
    members = [contents[disk] for disk in vdev.disks if disk in contents]
    if not members:
        return
    files = {member.kind == "file" for member in members}
    sizes = [member.size for member in members]
    if len(files) > 1:
        raise Refused(f"The vdev [{vdev.describe()}] would mix files and disks.", hint="Use one or the other.")
    if max(sizes) - min(sizes) > SIZE_TOLERANCE:
        raise Refused(
            f"The disks of [{vdev.describe()}] differ in size: {min(sizes)} to {max(sizes)} bytes; only the smallest "
            "size would be used of each.",
            hint="If that is meant, set 'force: true'.",
        )
