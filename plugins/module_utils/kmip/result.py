# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a task about keys on a KMIP server; it never holds a key, nor anything that is made from one."""

from __future__ import annotations

import typing as t

from .options import Wish
from .read import Survey

Row = dict[str, t.Any]


def describe(wishes: t.Sequence[Wish], found: Survey) -> dict[str, t.Any]:
    """A row for each key, and the values of the row beside them if there is only one."""
    rows = [_row(wish, found) for wish in wishes]
    return {"objects": rows, **(rows[0] if len(rows) == 1 else {})}


def _row(wish: Wish, survey: Survey) -> Row:
    found = survey.keys[wish.label]
    row: Row = {"name": wish.name or None, "uid": None, "kind": None, "algorithm": None, "length": None}
    if found.fault is not None:
        return {**row, "state": "unknown"}
    if len(found.current) != 1:
        return {**row, "state": "ambiguous" if found.current else "absent"}
    one = found.current[0].stored
    name = wish.name or next(iter(one.names), None)
    return {
        "name": name,
        "uid": one.uid,
        "kind": one.kind,
        "algorithm": one.algorithm,
        "length": one.length,
        "state": one.state,
    }
