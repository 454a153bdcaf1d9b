# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The VM that a caller asks for: what was left out is filled in, and everything is checked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .description import Description, Disk
from .errors import TestNasError

MEMORY = 1536
CPUS = 2
DISK_COUNT = 16
DISK_SIZE = "512M"
DISK_BUS = "scsi"


@dataclasses.dataclass(frozen=True)
class Words:
    """What a command line says; None where it says nothing. ``disk`` has the form SERIAL[:SIZE[:BUS]]."""

    memory: int | None = None
    cpus: int | None = None
    accel: str | None = None
    disks: int | None = None
    disk_size: str | None = None
    disk: Sequence[str] | None = None
    qemu_arg: Sequence[str] | None = None


def parse_disk(text: str) -> Disk:
    """A disk from ``SERIAL``, ``SERIAL:SIZE`` or ``SERIAL:SIZE:BUS``."""
    words = text.split(":")
    if len(words) > 3:
        raise TestNasError("%r is no disk: SERIAL:SIZE:BUS is" % text)
    return Disk.make(words[0], words[1] if len(words) > 1 else DISK_SIZE, words[2] if len(words) > 2 else DISK_BUS)


def numbered_disks(count: int, size: str) -> tuple[Disk, ...]:
    """``count`` disks of one size, NAS0001 and so on."""
    return tuple(Disk.make("NAS%04d" % number, size, DISK_BUS) for number in range(1, count + 1))


def new(name: str, image: Mapping[str, str]) -> Description:
    """A VM of which only the name is given; ``image`` has the paths of image, qemu and qemu_img."""
    return Description(
        name=name,
        image=image["image"],
        qemu=image["qemu"],
        qemu_img=image["qemu_img"],
        memory=MEMORY,
        cpus=CPUS,
        accel="auto",
        disks=numbered_disks(DISK_COUNT, DISK_SIZE),
        qemu_args=(),
    )


def from_words(base: Description, words: Words) -> Description:
    """The VM that a command line describes; what it leaves out stays as it is in ``base``."""
    given = {"memory": words.memory, "cpus": words.cpus, "accel": words.accel}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if words.qemu_arg is not None:
        changes["qemu_args"] = tuple(words.qemu_arg)
    if words.disk is not None:
        changes["disks"] = tuple(parse_disk(text) for text in words.disk)
    elif words.disks is not None or words.disk_size is not None:
        count = DISK_COUNT if words.disks is None else words.disks
        changes["disks"] = numbered_disks(count, words.disk_size or DISK_SIZE)
    return dataclasses.replace(base, **changes)


def from_json(name: str, text: str) -> Description:
    """The VM that a JSON object describes wholly, as the Ansible role gives it.

    It has the entries of a description but the name; a disk may leave out its size (``disk_size``) and bus, and without
    any disk there are ``disk_count``.
    """
    try:
        values = json.loads(text)
        disks: list[dict[str, Any]] = [
            {
                "serial": disk["serial"],
                "size": disk.get("size") or values["disk_size"],
                "bus": disk.get("bus") or DISK_BUS,
            }
            for disk in values["disks"]
        ]
        if not disks:
            disks = [dataclasses.asdict(disk) for disk in numbered_disks(values["disk_count"], values["disk_size"])]
        return Description.from_values({**values, "name": name, "disks": disks})
    except (KeyError, TypeError, ValueError) as error:
        raise TestNasError("%s is not described: %s: %s" % (name, type(error).__name__, error)) from error
