# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose disks are files: everything but the system's own tools is the real thing."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import (
    BlockDevice,
    DeviceTable,
    Mount,
    number_of,
)
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.signatures import Signature, Span
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result, Runner
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused


class NoRunner:
    """No program may be started."""

    def has(self, program: str) -> bool:
        return False

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        raise LookupError(command.line())


class FakeHost:
    """Keeps what the system's tools would recognise in a dictionary by path; erasing empties it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.devices: list[BlockDevice] = []
        self.recognised: dict[str, tuple[Signature, ...] | str] = {}
        self.mounted: list[Mount] = []
        self.swapping: list[str] = []
        self.held: set[str] = set()
        self.pools: dict[str, str] = {}
        self.forgotten: list[str] = []
        self.erased: list[str] = []
        self.deaf = False
        self.probes = 0

    def add(self, name: str, size: int = 4 << 20, **facts: t.Any) -> BlockDevice:
        path = self.root / name
        with path.open("wb") as file:
            file.truncate(size)
        device = BlockDevice(name, str(path), size=size, **facts)
        self.devices.append(device)
        return device

    def path(self, name: str) -> str:
        return str(self.root / name)

    def read_table(self, runner: Runner) -> DeviceTable:
        return DeviceTable(tuple(self.devices))

    def mounts(self, runner: Runner) -> tuple[Mount, ...]:
        return tuple(self.mounted)

    def swaps(self, runner: Runner) -> tuple[str, ...]:
        return tuple(self.swapping)

    def imported_pools(self, runner: Runner) -> t.Mapping[str, str]:
        return self.pools

    def probe(self, runner: Runner, paths: t.Sequence[str]) -> dict[str, tuple[Signature, ...] | str]:
        self.probes += 1
        return {path: self.recognised.get(path, ()) for path in paths}

    def is_free(self, path: str) -> bool:
        return path not in self.held

    def erase(self, runner: Runner, path: str, number: str, spans: t.Sequence[Span], whole: bool) -> None:
        if number_of(os.stat(path)) != number:
            raise Refused(f"{path} is another disk now.")
        self.erased.append(path)
        if self.deaf:
            return
        self.recognised.pop(path, None)
        with open(path, "r+b") as file:
            for offset, length in spans:
                file.seek(offset)
                file.write(bytes(length))
        if whole:
            self.devices = [device for device in self.devices if device.path == path or device.kind != "partition"]

    def forget_partition(self, runner: Runner, path: str) -> None:
        self.forgotten.append(path)

    def settle(self, runner: Runner) -> None:
        self.erased.append("settle")
