# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether disks may become part of a pool. A disk that holds anything is not a blank disk."""

from __future__ import annotations

import posixpath
import re
import typing as t

from ..blockdev.content import DiskContent, Finding, probe_all
from ..blockdev.host import read_table, this_host
from ..blockdev.identity import DeviceTable, clean_path
from ..blockdev.wipe import check_same, wipe_step
from ..command import Runner
from ..errors import BadInput, Refused, StorageError
from ..plan import Work, act
from .pool_options import WantedPool
from .state import Pool
from .status import ImportablePool
from .topology import MIN_DEVICE_BYTES, SIZE_TOLERANCE, WantedVdev

# Folders whose names stay with a disk, whatever is added, removed or started first.
_PERSISTENT = (
    "/dev/disk/by-id/",
    "/dev/disk/by-partuuid/",
    "/dev/disk/by-uuid/",
    "/dev/disk/by-vdev/",
    "/dev/gptid/",
    "/dev/diskid/",
    "/dev/mapper/",
    "/dev/multipath/",
)


def check_disks(
    wanted: WantedPool,
    vdevs: t.Sequence[WantedVdev],
    pools: t.Mapping[str, Pool],
    contents: t.Mapping[str, DiskContent],
    devices: DeviceTable,
    importable: t.Sequence[ImportablePool] = (),
) -> tuple[DiskContent, ...]:
    """Check every new disk, and return those to wipe first because the caller named them in ``wipe_disks``.

    :param importable: the pools on attached disks that are not imported; what is left of one of them is no leftover
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
            problems.extend(_still_pools(found, wanted.wipe_disks, importable))
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


def look_again(runner: Runner, contents: t.Sequence[DiskContent]) -> tuple[DiskContent, ...]:
    """What the same paths hold now."""
    return probe_all(runner, read_table(runner), [content.path for content in contents])


def confirm_blank(contents: t.Sequence[DiskContent]) -> Work:
    """A guard for zpool create and add, which with ``-f`` would overwrite anything.

    :raises Refused: a path leads to another disk than when the plan was made, or the disk is not blank any more
    """

    def work(runner: Runner) -> None:
        for before, now in zip(contents, look_again(runner, contents)):
            check_same(before, now)
            if not now.blank:
                raise Refused(
                    f"{now.path} is not blank any more: {now.words() or now.problem}. Nothing was written to it.",
                    hint="Somebody else is using this disk; find out who before the task is run again.",
                )

    return work


def take_back(contents: t.Sequence[DiskContent], pool: str, guid: str = "") -> Work:
    """An action that takes away what a failed zpool create or add left on disks that were blank right before it.

    Only partition tables and labels of this very pool are erased; a disk with anything else on it stays as it is. So
    does one that got into the pool before the failure, since it is in use.
    """

    def work(runner: Runner) -> None:
        for before, now in zip(contents, look_again(runner, contents)):
            check_same(before, now)
            if now.dead and not now.used and all(_is_ours(finding, pool, guid) for finding in now.dead):
                act(wipe_step(now).action, runner)

    return work


_AWAY = re.compile(
    r"one or more devices is currently unavailable|cannot (?:create|add to) '[^']*': no such pool or dataset"
)


def device_was_away(error: StorageError) -> bool:
    """Whether zpool create or add failed because a device had no name or did not answer for a moment.

    ZFS waits a second for the name of a partition that it has just made. udev removes and makes such names again
    whenever somebody closes the disk after writing to it, which takes longer than that on a busy host. When such a name
    goes away a moment later, the kernel does not find it, and the words for that are about a pool; that of a pool which
    is not there are others (``cannot open ...: no such pool``).
    """
    return _AWAY.search(said_by(error)) is not None


def said_by(error: StorageError) -> str:
    """What the program itself said; the message of the error holds its arguments too, which may say anything."""
    return str(error.details.get("stderr", ""))


def wait_for_names(runner: Runner) -> None:
    """An action to end the undoing with: what follows finds the names of the disks as they are."""
    this_host().settle(runner)


def _is_ours(finding: Finding, pool: str, guid: str) -> bool:
    if finding.type != "zfs_member":
        return finding.type in ("gpt", "PMBR")
    # Labels of spares and cache devices carry no name.
    return finding.pool in ("", pool) and (not guid or finding.pool_guid in ("", guid))


def _check_wipe_names(names: t.Sequence[str]) -> None:
    for name in names:
        path = clean_path(name) if name.startswith("/") else name
        if path.startswith("/dev/") and not path.startswith(_PERSISTENT):
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


def may_be_of_pool(found: DiskContent) -> bool:
    """Whether a disk that may be wiped could belong to a pool that is not imported now."""
    return not found.used and any(finding.pool or finding.pool_guid for finding in found.dead)


def _still_pools(found: DiskContent, names: t.Sequence[str], importable: t.Sequence[ImportablePool]) -> t.Iterator[str]:
    """The pools that are only exported and would lose this disk, unless their GUID is named too.

    A disk that is named by mistake is one thing; that its pool would be lost has to be said in words that fit no other.
    Labels of spares and cache devices tell nothing of their pool, so such a disk needs no GUID.
    """
    for pool in importable:
        hit = any(
            finding.pool_guid == pool.guid if finding.pool_guid else finding.pool == pool.name
            for finding in found.dead
            if finding.type == "zfs_member"
        )
        if hit and pool.guid not in names:
            could = " but could be imported" if pool.complete else ""
            yield (
                f"{found.path} is not blank: it belongs to the pool '{pool.name}' ({pool.guid}), which is not "
                f"imported{could}: its state is {pool.state} (if that pool is to be lost, add its GUID to wipe_disks: "
                f'"{pool.guid}")'
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
