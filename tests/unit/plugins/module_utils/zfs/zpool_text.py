# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints pools the way zpool does: names padded to the widest, then the columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of the table of vdevs. At depth 0 it is the heading of a section."""

    depth: int
    name: str
    state: str = "ONLINE"
    note: str = ""


def status_text(pool: str, rows: Sequence[Row], state: str = "ONLINE") -> str:
    """One pool as ``zpool status -P`` prints it."""
    width = max(10, len(pool), *(2 * row.depth + len(row.name) for row in rows))
    lines = [f"  pool: {pool}", f" state: {state}", "config:", "", f"\t{'NAME':{width}}  STATE     READ WRITE CKSUM"]
    lines.append(f"\t{pool:{width}}  {state:8} {'0':>5} {'0':>5} {'0':>5}")
    for row in rows:
        if row.depth == 0:
            lines.append(f"\t{row.name}")
            continue
        name = "  " * row.depth + row.name
        note = f"  {row.note}" if row.note else ""
        lines.append(f"\t{name:{width}}  {row.state:8} {'0':>5} {'0':>5} {'0':>5}{note}")
    return "\n".join([*lines, "", "errors: No known data errors", ""])


def tabbed(text: str) -> str:
    """Recorded output, in which a bar at the beginning of a line stands for the tab that zpool prints."""
    return text.replace("\n|", "\n\t")
