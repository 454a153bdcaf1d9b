# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A made /sys, /dev and /proc: what the kernel shows for the disks of a small NAS."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev import linux


class Tree:
    """Builds the folders and links of sysfs and devtmpfs below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sys, self.dev, self.proc = root / "sys", root / "dev", root / "proc"
        for folder in (self.sys / "class/block", self.dev, self.proc / "self"):
            folder.mkdir(parents=True)
        self.write("proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
        self.write("proc/self/mountinfo", "")

    @property
    def roots(self) -> linux.Roots:
        return linux.Roots(str(self.sys), str(self.dev), str(self.proc))

    def write(self, path: str, content: str | bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def device(self, name: str, number: str, sectors: int, **attributes: str | bytes) -> str:
        """A whole device; attributes are files, with __ for a slash in their name."""
        return self._add(f"devices/virtual/block/{name.replace('/', '!')}", name, number, sectors, attributes)

    def partition(self, disk: str, name: str, number: str, sectors: int, index: int) -> None:
        folder = f"devices/virtual/block/{disk.replace('/', '!')}/{name.replace('/', '!')}"
        self._add(folder, name, number, sectors, {"partition": f"{index}\n"})

    def stack(self, upper: str, *lower: str) -> None:
        """``upper`` is built on ``lower``."""
        for name in lower:
            for owner, kind, other in ((upper, "slaves", name), (name, "holders", upper)):
                folder = (self.sys / "class/block" / owner).resolve() / kind
                folder.mkdir(exist_ok=True)
                (folder / other).mkdir(exist_ok=True)

    def link(self, path: str, target: str) -> None:
        place = self.dev / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def _add(self, folder: str, name: str, number: str, sectors: int, attributes: t.Mapping[str, str | bytes]) -> str:
        base = f"sys/{folder}"
        self.write(f"{base}/dev", f"{number}\n")
        self.write(f"{base}/size", f"{sectors}\n")
        self.write(f"{base}/ro", "0\n")
        for attribute, content in attributes.items():
            self.write(f"{base}/{attribute.replace('__', '/')}", content)
        node = self.dev / name
        node.parent.mkdir(parents=True, exist_ok=True)
        node.write_bytes(b"")
        (self.sys / "class/block" / name.replace("/", "!")).symlink_to(self.root / base)
        return base
