# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what ``zpool status -P`` and ``zpool import`` print, on every OpenZFS since 2.1.

The indented text is used because JSON output exists from 2.3 on only, and ``zpool list -v`` loses the depth of a
vdev in its scripted form.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ..errors import StorageError

# Section headings inside "config:", and the role this collection gives them. The pool's own tree is "data".
ROLE_OF_SECTION = {"special": "special", "dedup": "dedup", "logs": "log", "cache": "cache", "spares": "spare"}
ROLES = ("data", "special", "dedup", "log", "cache", "spare")

_INTERIOR = re.compile(r"(mirror|raidz[123]|draid[123]:\d+d:\d+c:\d+s|replacing|spare|indirect|hole|missing|root)-\d+")
# A disk with its replacement, or with the hot spare that stands in for it.
_AT_WORK = ("replacing", "spare")
_WAS = re.compile(r"\bwas (/.*?)(?:  .*)?$")


@dataclass(frozen=True)
class Vdev:
    """A node of a pool's tree.

    ``kind`` is disk for a leaf (a file too), else mirror, raidz1-3, ``draid2:4d:11c:1s``, replacing or spare.
    ``path`` of a leaf is what the pool has recorded, even if that device is gone.
    """

    kind: str
    path: str
    state: str
    children: tuple[Vdev, ...] = ()

    @property
    def shape(self) -> str:
        """The kind it has when no replacement or hot spare is at work in it."""
        return "disk" if self.kind in _AT_WORK else self.kind

    def leaves(self) -> t.Iterator[Vdev]:
        """All devices below, or the node itself."""
        if self.kind == "disk":
            yield self
        for child in self.children:
            yield from child.leaves()

    def slots(self) -> tuple[tuple[str, ...], ...]:
        """The members of a top-level vdev; one with a replacement or a hot spare at work is known by several paths."""
        if self.kind in ("disk", *_AT_WORK):
            return (tuple(leaf.path for leaf in self.leaves()),)
        return tuple(tuple(leaf.path for leaf in child.leaves()) for child in self.children)


Tree = t.Mapping[str, tuple[Vdev, ...]]


@dataclass(frozen=True)
class ImportablePool:
    """A pool that is not imported, but whose disks were seen. ``guid`` is its decimal identifier.

    ``folders`` are those it was found in, none if these are the system's device folders.
    """

    name: str
    guid: str
    state: str
    message: str
    folders: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether enough of its disks are there to import it."""
        return self.state in ("ONLINE", "DEGRADED")

    @property
    def foreign(self) -> bool:
        """Whether another host had it last, which is when two hosts might use it at once."""
        return "another system" in self.message or "in use from other system" in self.message


def parse_status(text: str) -> dict[str, Tree]:
    """The vdev trees of all pools, by name of pool and role.

    :raises StorageError: the text has not the known shape
    """
    trees: dict[str, Tree] = {}
    pool = ""
    block: list[str] | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if re.match(r"\s*pool: ", line) and not line.startswith("\t"):
            pool, block = line.split("pool: ", 1)[1].rstrip("\n"), None
        elif stripped == "config:" and not line.startswith("\t"):
            block = []
        elif block is not None and line.startswith("\t"):
            block.append(line[1:])
        elif block and stripped and not line.startswith("\t"):
            trees[pool], block = _parse_config(pool, block), None
    if block:
        trees[pool] = _parse_config(pool, block)
    return trees


def parse_importable(text: str, folders: tuple[str, ...] = ()) -> tuple[ImportablePool, ...]:
    """The pools that ``zpool import`` without a name lists, when it searches these folders."""
    found: list[ImportablePool] = []
    fields: dict[str, str] = {}
    last = ""

    def finish() -> None:
        if fields.get("id"):
            message = " ".join(part for part in (fields.get("status", ""), fields.get("action", "")) if part)
            found.append(ImportablePool(fields["pool"], fields["id"], fields.get("state", ""), message, folders))

    for line in text.splitlines():
        match = re.match(r"\s*(pool|id|state|status|action|comment|see|config): ?(.*)$", line)
        if match and not line.startswith("\t"):
            last, value = match.groups()
            if last == "pool":
                finish()
                fields = {}
            fields[last] = value
        elif line.startswith("\t") and last in ("status", "action"):
            fields[last] += " " + line.strip()
    finish()
    return tuple(found)


def _parse_config(pool: str, lines: t.Sequence[str]) -> Tree:
    """One "config:" block. The header line gives the columns, since names may contain blanks."""
    header = next((line for line in lines if line.startswith("NAME")), None)
    if header is None:
        raise StorageError(
            f"'zpool status' shows no vdevs for pool '{pool}' in the expected form.",
            hint="Run 'zpool status -P' on the host; this version of OpenZFS may print it differently.",
        )
    # zpool pads by bytes, not by letters.
    column = header.encode("utf-8").index(b"STATE")
    tree: dict[str, list[_Node]] = {}
    stack: list[tuple[int, _Node]] = []
    role = ""
    for line in lines[lines.index(header) + 1 :]:
        raw = line.encode("utf-8")
        name, rest = raw[:column].decode("utf-8", "replace").rstrip(), raw[column:].decode("utf-8", "replace").split()
        depth = (len(name) - len(name.lstrip(" "))) // 2
        name = name.strip()
        if not name:
            continue
        if depth == 0:
            # The first line is the pool; later ones open a section.
            role = "data" if not tree else ROLE_OF_SECTION.get(name, name)
            tree[role] = []
            stack = []
            continue
        node = _node(name, rest, line)
        while stack and stack[-1][0] >= depth:
            stack.pop()
        (stack[-1][1].children if stack else tree[role]).append(node)
        stack.append((depth, node))
    return {section: tuple(node.frozen() for node in nodes) for section, nodes in tree.items()}


@dataclass
class _Node:
    """A vdev while its children are still being collected."""

    kind: str
    path: str
    state: str
    children: list[_Node]

    def frozen(self) -> Vdev:
        return Vdev(self.kind, self.path, self.state, tuple(child.frozen() for child in self.children))


def _node(name: str, rest: t.Sequence[str], line: str) -> _Node:
    interior = _INTERIOR.fullmatch(name)
    state = rest[0] if rest else ""
    if interior:
        return _Node(interior.group(1), name, state, [])
    # A device that could not be opened is shown by its GUID, with its last path behind it.
    was = _WAS.search(line)
    path = was.group(1).rstrip() if was else name
    # A device under replacement by another one with the same path.
    return _Node("disk", path[: -len("/old")] if path.endswith("/old") else path, state, [])
