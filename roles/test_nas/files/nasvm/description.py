# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one test NAS consists of: the values that its user chooses."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import TestNasError

BUSES = ("scsi", "sata", "virtio")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}\Z")
# virtio-blk carries 20 characters; a blank or a slash would be rewritten in /dev/disk/by-id.
_SERIAL = re.compile(r"[A-Za-z0-9_-]{1,20}\Z")
_SIZE = re.compile(r"([1-9][0-9]*)([KMGT]?)\Z")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def check_name(name: str) -> str:
    """The name itself. Raises TestNasError for one that can't be a host name or a directory."""
    if not _NAME.match(name):
        raise TestNasError("%r is no name for a VM: 1 to 31 lower case letters, digits and dashes are" % name)
    return name


def size_in_bytes(text: str) -> int:
    """Bytes of ``512M``, ``1G`` or a plain number of bytes; at least 64 MiB, which is ZFS's smallest disk."""
    match = _SIZE.match(text)
    if not match:
        raise TestNasError("%r is no size: a whole number with K, M, G or T is (512M)" % text)
    size = int(match.group(1)) * _UNITS[match.group(2)]
    if size < 64 << 20 or size % 512:
        raise TestNasError("a disk of %s is too small or not made of sectors: at least 64M, in multiples of 512" % text)
    return size


@dataclasses.dataclass(frozen=True)
class Disk:
    """A data disk: ``size`` in bytes, ``bus`` one of BUSES."""

    serial: str
    size: int
    bus: str

    @staticmethod
    def make(serial: str, size: str, bus: str) -> Disk:
        """A checked disk. Raises TestNasError."""
        if not _SERIAL.match(serial):
            raise TestNasError("%r is no serial: 1 to 20 letters, digits, '-' and '_' are" % serial)
        if bus not in BUSES:
            raise TestNasError("disk %s: unknown bus %r, known are %s" % (serial, bus, ", ".join(BUSES)))
        return Disk(serial, size_in_bytes(size), bus)


@dataclasses.dataclass(frozen=True)
class Description:
    """One VM. ``memory`` in MiB; ``accel`` is auto, kvm or tcg; the paths are absolute."""

    name: str
    image: str
    qemu: str
    qemu_img: str
    memory: int
    cpus: int
    accel: str
    disks: tuple[Disk, ...]
    qemu_args: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        serials = [disk.serial for disk in self.disks]
        twice = sorted({serial for serial in serials if serials.count(serial) > 1})
        if twice:
            raise TestNasError("these serials are given to more than one disk: %s" % ", ".join(twice))
        if self.memory < 512:
            raise TestNasError("%d MiB of memory are too little for ZFS: at least 512" % self.memory)
        if self.cpus < 1:
            raise TestNasError("%d CPUs: at least 1" % self.cpus)
        if self.accel not in ("auto", "kvm", "tcg"):
            raise TestNasError("unknown accelerator %r: auto, kvm and tcg are known" % self.accel)

    def to_json(self) -> str:
        """The text kept in the VM's directory."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @staticmethod
    def from_values(values: Mapping[str, Any]) -> Description:
        """What a JSON object says. Raises KeyError, TypeError or ValueError for one of another kind."""
        return Description(
            name=values["name"],
            image=values["image"],
            qemu=values["qemu"],
            qemu_img=values["qemu_img"],
            memory=values["memory"],
            cpus=values["cpus"],
            accel=values["accel"],
            disks=tuple(Disk.make(disk["serial"], str(disk["size"]), disk["bus"]) for disk in values["disks"]),
            qemu_args=tuple(values["qemu_args"]),
        )

    @staticmethod
    def read(path: Path) -> Description | None:
        """What a VM's directory says, None where there is none. Raises TestNasError for a file of another kind."""
        try:
            return Description.from_values(json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, TestNasError) as error:
            raise TestNasError("%s does not describe a test NAS (%s): remove its directory" % (path, error)) from error


@dataclasses.dataclass(frozen=True)
class Difference:
    """How a VM that exists differs from the one that is wanted.

    ``at_start`` can change whenever the VM is off, ``fixed`` only by making it anew. Both hold sentences.
    """

    at_start: tuple[str, ...]
    fixed: tuple[str, ...]


SAME = Difference((), ())


def compare(present: Description, wanted: Description) -> Difference:
    """What of the present VM is not as wanted."""
    at_start: list[str] = []
    fixed: list[str] = []
    for field in ("memory", "cpus", "accel", "qemu", "qemu_img", "qemu_args"):
        before, after = getattr(present, field), getattr(wanted, field)
        if before != after:
            at_start.append("%s is %s, wanted is %s" % (field, before, after))
    if present.image != wanted.image:
        fixed.append("it was made from %s, wanted is %s" % (present.image, wanted.image))
    before_disks: dict[str, Disk] = {disk.serial: disk for disk in present.disks}
    after_disks: dict[str, Disk] = {disk.serial: disk for disk in wanted.disks}
    for serial in sorted(before_disks.keys() | after_disks.keys()):
        if serial not in before_disks:
            at_start.append("disk %s is missing" % serial)
        elif serial not in after_disks:
            fixed.append("disk %s is not wanted" % serial)
        elif before_disks[serial].size != after_disks[serial].size:
            fixed.append(
                "disk %s has %d bytes, wanted are %d" % (serial, before_disks[serial].size, after_disks[serial].size)
            )
        elif before_disks[serial].bus != after_disks[serial].bus:
            at_start.append("disk %s is not on the bus %s" % (serial, after_disks[serial].bus))
    if not at_start and not fixed and present.disks != wanted.disks:
        at_start.append("the order of the disks differs")
    return Difference(tuple(at_start), tuple(fixed))
