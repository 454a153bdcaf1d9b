# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drives a host has, and which of them is meant. Names change between boots; serial numbers do not."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ..blockdev.identity import BlockDevice, DeviceTable
from ..errors import BadInput

_DISK = re.compile(r"nvme[0-9]+n[0-9]+|sd[a-z]+")
_WWN = re.compile(r"(?:wwn-)?(?:0x|naa\.|eui\.|nvme\.)(?P<digits>.+)")


@dataclass(frozen=True)
class Drive:
    """One drive of the host; ``members`` are its namespaces, or the paths that lead to it."""

    name: str
    node: str
    serial: str = ""
    wwn: str = ""
    size: int = 0
    members: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What it is called in results and messages."""
        return self.serial or self.name


def drives(table: DeviceTable) -> tuple[Drive, ...]:
    """The drives that could encrypt, in the order of their names."""
    found: dict[str, list[BlockDevice]] = {}
    for device in table.devices:
        if device.kind == "disk" and _DISK.fullmatch(device.name):
            found.setdefault(_key(device), []).append(device)
    rows = [
        Drive(
            name=devices[0].name,
            node=devices[0].path,
            serial=devices[0].serial,
            wwn=devices[0].wwn,
            size=devices[0].size,
            members=tuple(device.name for device in devices),
        )
        for devices in found.values()
    ]
    return tuple(sorted(rows, key=lambda drive: _natural(drive.name)))


def _key(device: BlockDevice) -> str:
    """What two devices of one drive have in common, and those of two drives have not."""
    if device.name.startswith("nvme"):
        # Namespaces are of one controller; another controller with the same serial number may be another drive.
        return f"{device.name.rpartition('n')[0]} {device.serial}"
    # Cheap drives share a WWN, or have one of zeros, which names nobody; without a serial number they may be two.
    if device.serial and _wwn(device.wwn).strip("0"):
        return f"{device.wwn} {device.serial}"
    return device.name


def _natural(name: str) -> tuple[int, str]:
    return len(name), name


def find(table: DeviceTable, known: t.Sequence[Drive], address: str) -> Drive:
    """The drive that is meant by a serial number, a path, a WWN or a kernel name.

    :raises BadInput: there is none, or more than one
    """
    wanted = _wwn(address)
    by_serial = [drive for drive in known if drive.serial and drive.serial == address]
    matches = by_serial or [drive for drive in known if wanted and _wwn(drive.wwn) == wanted]
    if not matches:
        device = table.find(address)
        whole = None if device is None else table.named(device.parent) if device.kind == "partition" else device
        # nvme0 is the controller of nvme0n1.
        names = {f"{address.rpartition('/')[2]}n1"} | ({whole.name} if whole is not None else set())
        if whole is not None and whole.kind == "multipath":
            names |= {one.name for one in table.devices if one.parent == whole.name}
        matches = [drive for drive in known if names & set(drive.members)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise BadInput(
            f"'{address}' fits {len(matches)} drives: {', '.join(drive.node for drive in matches)}.",
            hint="Name the drive by its path in /dev/disk/by-id or its WWN, or if that is shared too, by-path.",
        )
    there = ", ".join(f"{drive.label} ({drive.name})" for drive in known) or "none"
    raise BadInput(f"There is no drive '{address}' on this host. The drives are: {there}.", hint="Is it plugged in?")


def _wwn(text: str) -> str:
    match = _WWN.fullmatch(text.rpartition("/")[2].lower())
    return match.group("digits") if match else ""
