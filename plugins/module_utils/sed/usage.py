# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What uses a drive now, and whether the host would start without it."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..blockdev.content import Finding, uses_of
from ..blockdev.host import Host, this_host
from ..blockdev.identity import BlockDevice, DeviceTable, Mount
from ..command import Runner
from .drive import Drive

_NEEDED = ("/", "/usr", "/var", "/efi")


@dataclass(frozen=True)
class Usage:
    """What uses a drive, in words. ``system``: those without which the host does not start."""

    uses: tuple[str, ...] = ()
    system: tuple[str, ...] = ()


def users(runner: Runner, table: DeviceTable, drive: Drive, host: Host | None = None) -> tuple[Finding, ...]:
    """What uses a drive now, by any of its namespaces or paths."""
    found = (uses_of(runner, table, member, host) for member in _members(table, drive))
    return tuple(dict.fromkeys(one for group in found for one in group))


def usage(runner: Runner, table: DeviceTable, drive: Drive, host: Host | None = None) -> Usage:
    """What uses a drive, and what of that the host needs to start."""
    host = this_host() if host is None else host
    needed = [mount for mount in host.mounts(runner) if mount.target in _NEEDED or _is_boot(mount.target)]
    # The root filesystem may be on a volume on an array on the drive.
    above = [one for device in _stack(table, _members(table, drive)) for one in uses_of(runner, table, device, host)]
    system = (one for one in dict.fromkeys(above) if _is_system(table, one, needed))
    return Usage(
        tuple(in_words(one) for one in users(runner, table, drive, host)), tuple(in_words(one) for one in system)
    )


def in_words(finding: Finding) -> str:
    """A use in words, with the place."""
    return f"{finding.what} ({finding.where})"


def _is_boot(target: str) -> bool:
    return target.startswith("/boot")


def _is_system(table: DeviceTable, finding: Finding, needed: t.Sequence[Mount]) -> bool:
    if finding.type == "swapping":
        return True
    if finding.type == "mount":
        places = (_device_of(table, mount) for mount in needed)
        return finding.where in [table.identity(place) for place in places if place]
    if finding.pool:
        # The source of a ZFS mount is the name of its dataset.
        return finding.pool in [mount.source.partition("/")[0] for mount in needed]
    # A filesystem of several disks names one of them as its source, and has no number of a device.
    several = any(mount.number.startswith("0:") and mount.source.startswith("/") for mount in needed)
    return finding.type == "busy" and several


def _device_of(table: DeviceTable, mount: Mount) -> str:
    device = table.numbered(mount.number)
    if device is not None:
        return device.path
    return mount.source if mount.source.startswith("/") else ""


def _members(table: DeviceTable, drive: Drive) -> list[BlockDevice]:
    return [device for device in map(table.named, drive.members) if device is not None]


def _stack(table: DeviceTable, bottom: t.Sequence[BlockDevice]) -> list[BlockDevice]:
    """The devices, and those that are built on them or on a partition of them, however high."""
    found: dict[str, BlockDevice] = {}
    waiting = list(bottom)
    while waiting:
        device = table.canonical(waiting.pop())
        if device.path not in found:
            found[device.path] = device
            for part in (device, *table.partitions(device)):
                waiting += [one for one in map(table.named, part.holders) if one is not None]
    return list(found.values())
