# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The initial RAM disk of a test NAS: busybox, the drivers of the root disk, and an init script.

``python3 -m nasvm.initrd --root TREE --init SCRIPT --output FILE``
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path

from .cpio import Archive

# What a VM needs to reach its root disk; a kernel that has one of them built in lists it in modules.builtin.
WANTED = ("virtio_pci", "virtio_blk", "ext4")


def _module_name(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def load_order(wanted: list[str], dependencies: str, built_in: str) -> list[str]:
    """Paths of the modules to load, in order, from the texts of modules.dep and modules.builtin.

    Raises ValueError for a module that the kernel has neither as a file nor built in.
    """
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in dependencies.splitlines():
        path, _colon, rest = line.partition(":")
        needs[path] = rest.split()
        by_name[_module_name(path)] = path
    present = {_module_name(line) for line in built_in.splitlines()}
    order: list[str] = []

    def add(path: str) -> None:
        # modules.dep lists what a module needs with the nearest first, so the last one has to be loaded first
        for need in reversed(needs[path]):
            if need not in order:
                add(need)
        if path not in order:
            order.append(path)

    for name in wanted:
        if name in by_name:
            add(by_name[name])
        elif name not in present:
            raise ValueError("the kernel has no module %s, and it is not built in either" % name)
    return order


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def build(root: Path, init: bytes) -> bytes:
    """The archive for the one kernel whose modules are in ``root``."""
    versions = sorted((root / "usr/lib/modules").iterdir())
    if len(versions) != 1:
        raise ValueError(
            "one kernel is wanted in %s, found: %s" % (root, ", ".join(path.name for path in versions) or "none")
        )
    modules = versions[0]
    order = load_order(
        list(WANTED), (modules / "modules.dep").read_text("utf-8"), (modules / "modules.builtin").read_text("utf-8")
    )
    archive = Archive()
    archive.directory("bin")
    archive.directory("modules")
    archive.file("bin/busybox", (root / "usr/bin/busybox").read_bytes(), 0o755)
    archive.link("bin/sh", "busybox")
    archive.file("init", init, 0o755)
    names = []
    for path in order:
        name = _module_name(path) + ".ko"
        archive.file("modules/" + name, _content(modules / path))
        names.append(name)
    archive.file("modules/order", "".join(name + "\n" for name in names).encode("ascii"))
    return archive.to_bytes()


def main() -> None:
    """Writes the file that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.write_bytes(build(arguments.root, arguments.init.read_bytes()))


if __name__ == "__main__":
    main()
