# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vdevs of a pool: what is wanted, whether it can be, and what is missing from a pool that exists.

Sources for the limits: zpoolconcepts(7), zpool-create(8).
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ..blockdev.identity import DeviceTable
from ..errors import BadInput, Refused
from .status import ROLES, Tree, Vdev

TYPES = ("stripe", "mirror", "raidz", "raidz1", "raidz2", "raidz3", "draid", "draid1", "draid2", "draid3")
_SYNONYMS = {"raidz": "raidz1", "draid": "draid1"}
_TYPES_OF_ROLE = {
    "data": TYPES,
    "special": ("stripe", "mirror"),
    "dedup": ("stripe", "mirror"),
    "log": ("stripe", "mirror"),
    "cache": ("stripe",),
    "spare": ("stripe",),
}
_ROLES_THAT_HOLD_DATA = ("data", "special", "dedup")
_DRAID_DEFAULT_DATA = 8
_DRAID_MAX_SPARES = 4
_DRAID_MAX_CHILDREN = 255
_DRAID_NAME = re.compile(r"draid(\d):(\d+)d:(\d+)c:(\d+)s")

# zpool calls disks of one vdev different in size when they differ by more than this many bytes.
SIZE_TOLERANCE = 16 * 1024 * 1024
MIN_DEVICE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class WantedVdev:
    """One top-level vdev. ``kind`` is what ``zpool status`` calls it, ``disk`` for a stripe member."""

    role: str
    kind: str
    disks: tuple[str, ...]

    def describe(self) -> str:
        kind = "disk" if self.kind == "disk" else self.kind
        prefix = "" if self.role == "data" else f"{self.role} "
        return f"{prefix}{kind}: {' '.join(self.disks)}"

    def arguments(self) -> tuple[str, ...]:
        return self.disks if self.kind == "disk" else (self.kind, *self.disks)


@dataclass(frozen=True)
class Comparison:
    """``missing`` is wanted but not in the pool; ``unmanaged`` is in the pool but was not named."""

    missing: tuple[WantedVdev, ...]
    unmanaged: tuple[str, ...]


def parse_vdev(option: t.Mapping[str, t.Any]) -> tuple[WantedVdev, ...]:
    """One entry of ``vdevs``; a stripe becomes one vdev per disk, as in the pool.

    :raises BadInput: a type that this role can't have, or the wrong number of disks for the type
    """
    role, kind, disks = option["role"], option["type"], tuple(option["disks"])
    if kind not in _TYPES_OF_ROLE[role]:
        raise BadInput(
            f"A vdev with role '{role}' can't be of type '{kind}'.",
            hint=f"Possible are: {', '.join(_TYPES_OF_ROLE[role])}.",
        )
    if not disks or not all(disk.strip() for disk in disks):
        raise BadInput(f"A vdev of type '{kind}' has no disks, or an empty name among them.")
    kind = _SYNONYMS.get(kind, kind)
    data, spares = option.get("draid_data"), option.get("draid_spares")
    if not kind.startswith("draid") and (data is not None or spares is not None):
        raise BadInput(f"draid_data and draid_spares are for draid vdevs, not for '{kind}'.")
    if kind == "stripe":
        return tuple(WantedVdev(role, "disk", (disk,)) for disk in disks)
    if kind == "mirror":
        _at_least(kind, disks, 2)
    elif kind.startswith("raidz"):
        _at_least(kind, disks, int(kind[-1]) + 1)
    else:
        kind = _draid(int(kind[-1]), data, spares or 0, disks)
    return (WantedVdev(role, kind, disks),)


def _at_least(kind: str, disks: t.Sequence[str], minimum: int) -> None:
    if len(disks) < minimum:
        raise BadInput(
            f"A {kind} needs at least {minimum} disks; {len(disks)} {'is' if len(disks) == 1 else 'are'} named: "
            f"{', '.join(disks)}."
        )


def _draid(parity: int, data: int | None, spares: int, disks: t.Sequence[str]) -> str:
    """The full name of a draid, with zpool's defaults filled in so that it can be compared."""
    children = len(disks)
    if not 0 <= spares <= _DRAID_MAX_SPARES:
        raise BadInput(f"draid_spares is {spares}; possible are 0 to {_DRAID_MAX_SPARES}.")
    if data is None:
        data = min(_DRAID_DEFAULT_DATA, children - spares - parity)
    if data < 1 or children < data + parity + spares or children < parity + 2 or children > _DRAID_MAX_CHILDREN:
        raise BadInput(
            f"A draid{parity} with {max(data, 1)} data disks and {spares} distributed spares needs at least "
            f"{max(max(data, 1) + parity + spares, parity + 2)} and at most {_DRAID_MAX_CHILDREN} disks; "
            f"{children} are named."
        )
    return f"draid{parity}:{data}d:{children}c:{spares}s"


def check_unique(wanted: t.Iterable[tuple[str, WantedVdev]], devices: DeviceTable) -> None:
    """No disk may be asked for twice, under whatever names, over all pools of the task.

    :param wanted: pool names with their vdevs
    :raises BadInput: telling both names
    """
    seen: list[tuple[str, str]] = []
    for pool, vdev in wanted:
        for disk in vdev.disks:
            for other_pool, other in seen:
                if devices.same_disk(disk, other) or devices.same_disk(other, disk):
                    names = f"'{disk}'" if disk == other else f"'{other}' and '{disk}'"
                    where = f"pool '{pool}'" if pool == other_pool else f"pools '{other_pool}' and '{pool}'"
                    raise BadInput(f"The same disk is asked for twice in {where}: {names}.")
            seen.append((pool, disk))


def compare(pool: str, wanted: t.Sequence[WantedVdev], tree: Tree, devices: DeviceTable) -> Comparison:
    """Match wanted vdevs with those of a pool, by the identity of their disks.

    :raises Refused: disks are in the pool, but in another vdev, role or number than wanted
    """
    present = [(role, vdev) for role in ROLES for vdev in tree.get(role, ()) if not _distributed_spare(vdev)]
    missing: list[WantedVdev] = []
    matched: set[int] = set()
    for vdev in wanted:
        places = [_place(disk, vdev.role, present, devices) for disk in vdev.disks]
        known = [place for place in places if place is not None]
        if not known:
            missing.append(vdev)
            continue
        index = known[0][0]
        role, actual = present[index]
        slots = {slot for found, slot in known if found == index}
        if len(known) == len(vdev.disks) == len(slots) == len(actual.slots()) and (role, actual.shape) == (
            vdev.role,
            vdev.kind,
        ):
            matched.add(index)
            continue
        raise Refused(
            f"Pool '{pool}' should have the vdev [{vdev.describe()}], but these disks are in it as "
            f"[{_describe(role, actual)}]" + ("" if len(known) == len(vdev.disks) else ", not all of them") + ".",
            hint="A vdev is never reshaped here. Correct the inventory, or use zpool attach, replace or remove by "
            "hand.",
        )
    unmanaged = tuple(_describe(role, vdev) for index, (role, vdev) in enumerate(present) if index not in matched)
    return Comparison(tuple(missing), unmanaged)


def check_redundancy(pool: str, tree: Tree, added: t.Sequence[WantedVdev]) -> None:
    """The rule of zpool that all vdevs with data survive the loss of the same number of disks.

    :raises Refused: it would only work with force
    """
    kinds = [(vdev.shape, len(vdev.slots())) for role in _ROLES_THAT_HOLD_DATA for vdev in tree.get(role, ())] + [
        (vdev.kind, len(vdev.disks)) for vdev in added if vdev.role in _ROLES_THAT_HOLD_DATA
    ]
    if not any(vdev.role in _ROLES_THAT_HOLD_DATA for vdev in added):
        return
    for kind, width in kinds[1:]:
        first_kind, first_width = kinds[0]
        different = _redundancy(kind, width) != _redundancy(first_kind, first_width)
        if different or (kind == first_kind and width != first_width):
            raise Refused(
                f"The vdevs of pool '{pool}' would differ in redundancy: {first_kind} of {first_width} and "
                f"{kind} of {width}; the pool is lost with its weakest vdev.",
                hint="If that is meant, set 'force: true'.",
            )


def _redundancy(kind: str, width: int) -> int:
    """How many disks a vdev can lose."""
    if kind == "disk":
        return 0
    if kind == "mirror":
        return width - 1
    draid = _DRAID_NAME.fullmatch(kind)
    return int(draid.group(1)) if draid else int(kind[-1])


def argument_list(vdevs: t.Sequence[WantedVdev]) -> tuple[str, ...]:
    """The vdevs as arguments of zpool create or add.

    Single disks come first in each role: behind a mirror they would be taken for its members.
    """
    arguments: list[str] = []
    for role in ROLES:
        members = sorted((vdev for vdev in vdevs if vdev.role == role), key=lambda vdev: vdev.kind != "disk")
        if members and role != "data":
            arguments.append(role)
        for vdev in members:
            arguments.extend(vdev.arguments())
    return tuple(arguments)


def _place(disk: str, role: str, present: t.Sequence[tuple[str, Vdev]], devices: DeviceTable) -> tuple[int, int] | None:
    """Index of vdev and slot that a disk has in a pool.

    A hot spare at work is in two places, of which that with the wanted role counts. An exact match goes before one of
    the partitions of a disk.
    """
    found: list[tuple[bool, bool, int, int]] = []
    for index, (actual_role, vdev) in enumerate(present):
        for slot, paths in enumerate(vdev.slots()):
            for path in paths:
                if devices.same_disk(disk, path):
                    exact = devices.identity(disk) == devices.identity(path)
                    found.append((actual_role != role, not exact, index, slot))
    return min(found)[2:] if found else None


def _describe(role: str, vdev: Vdev) -> str:
    return WantedVdev(role, vdev.shape, tuple(paths[0] for paths in vdev.slots())).describe()


def _distributed_spare(vdev: Vdev) -> bool:
    """Spares inside a draid are listed among the spares, but are no devices."""
    return re.fullmatch(r"draid\d-\d+-\d+", vdev.path) is not None
