# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that the Linux kernel unpacks as its initial RAM disk (cpio, format "newc")."""

from __future__ import annotations

import stat

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"


def _padding(length: int) -> bytes:
    return b"\0" * (-length % 4)


def _member(number: int, name: str, mode: int, data: bytes) -> bytes:
    encoded = name.encode("utf-8") + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device major/minor, raw device major/minor, name size, checksum
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = (_MAGIC + "".join("%08X" % field for field in fields)).encode("ascii") + encoded
    return header + _padding(len(header)) + data + _padding(len(data))


class Archive:
    """A tree of directories, files and symbolic links, all owned by root."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Adds a directory; its parents must have been added before."""
        self._entries[name] = (stat.S_IFDIR | mode, b"")

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a file; its parents must have been added before."""
        self._entries[name] = (stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """Adds a symbolic link."""
        self._entries[name] = (stat.S_IFLNK | 0o777, target.encode("utf-8"))

    def to_bytes(self) -> bytes:
        """The archive, ready to stand alone or behind another one (the kernel unpacks one after the other)."""
        parts: list[bytes] = []
        for number, (name, (mode, data)) in enumerate(self._entries.items(), start=1):
            parts.append(_member(number, name, mode, data))
        parts.append(_member(0, _TRAILER, 0, b""))
        archive = b"".join(parts)
        return archive + b"\0" * (-len(archive) % 512)
