# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose GELI disks are files: its table of devices is made up, all else is the real thing."""

from __future__ import annotations

import typing as t
import uuid
from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import Shape, Volume


def partuuid(number: int) -> str:
    """The UUID of the partition of a disk."""
    return str(uuid.UUID(int=(0x5C3B0D8E << 96) + number))


def label(pool: str, guid: int, state: int = 1) -> bytes:
    """The start of a disk with the first ZFS label of a pool; 1 is the state of one that was exported."""
    pairs = _pair("version", _number(5000)) + _pair("state", _number(state)) + _pair("name", _text(pool))
    pairs += _pair("pool_guid", _number(guid)) + bytes(8)
    return bytes(16384) + b"\1\1\0\0" + bytes(8) + pairs


def _text(value: str) -> tuple[int, bytes]:
    return 9, _string(value)


def _number(value: int) -> tuple[int, bytes]:
    return 8, value.to_bytes(8, "big")


def _string(value: str) -> bytes:
    content = value.encode()
    return len(content).to_bytes(4, "big") + content + bytes(-len(content) % 4)


def _pair(name: str, value: tuple[int, bytes]) -> bytes:
    kind, content = value
    body = _string(name) + kind.to_bytes(4, "big") + (1).to_bytes(4, "big") + content
    size = (8 + len(body)).to_bytes(4, "big")
    return size + size + body


class Nas:
    """Disks with a swap partition and one for ZFS, by number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.devices: list[BlockDevice] = []

    def table(self, _runner: t.Any = None) -> DeviceTable:
        return DeviceTable(tuple(self.devices))

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def add(self, number: int, image: bytes, holders: tuple[str, ...] = ()) -> str:
        """A disk, the second partition of which holds an image; returns the path of the partition."""
        disk = f"sd{'abcdefgh'[number]}"
        self._device(BlockDevice(disk, self.path(disk), size=1 << 21, serial=f"SERIAL-{number}"), bytes(1 << 21))
        for index, content in ((1, bytes(65536)), (2, image)):
            name = f"{disk}{index}"
            aliases = (f"/dev/disk/by-partuuid/{partuuid(number)}",) if index == 2 else ()
            device = BlockDevice(
                name,
                self.path(name),
                aliases,
                "partition",
                disk,
                index,
                len(content),
                f"SERIAL-{number}",
                holders=holders if index == 2 else (),
            )
            self._device(device, content)
        return self.path(f"{disk}2")

    def geli(self, number: int, volume: Volume, pool: str = "tank") -> str:
        """A disk of a pool that was exported."""
        return self.add(number, volume.image(label(pool, 17)))

    def _device(self, device: BlockDevice, content: bytes) -> None:
        Path(device.path).write_bytes(content)
        self.devices.append(device)


# Room for the four ZFS labels, and for the metadata.
SIZE = (1 << 20) + 8192
QUICK = Shape(sector=512, iterations=5)
