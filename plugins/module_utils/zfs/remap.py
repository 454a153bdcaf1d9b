# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other names for the datasets of a manifest, such as those they have on the system they were replicated to."""

from __future__ import annotations

import typing as t

from ..errors import BadInput
from .names import ancestors, check_dataset_name


def parse_remap(given: t.Mapping[t.Any, t.Any] | None) -> dict[str, str]:
    """New names by the names they take the place of.

    :raises BadInput: one of them can't be the name of a dataset
    """
    found: dict[str, str] = {}
    for source, target in (given or {}).items():
        if not isinstance(source, str) or not isinstance(target, str):
            raise BadInput("remap holds something that is no text; wanted are names of datasets and their new names.")
        found[check_dataset_name(source)] = check_dataset_name(target)
    return found


def remap_name(name: str, remap: t.Mapping[str, str]) -> str:
    """The new name of a dataset: its own, or that of the nearest dataset above it with the rest behind."""
    for above in (name, *ancestors(name)):
        if above in remap:
            return check_dataset_name(remap[above] + name[len(above) :])
    return name


def remap_all(names: t.Sequence[str], remap: t.Mapping[str, str]) -> dict[str, str]:
    """The new names by the old ones.

    :raises BadInput: two datasets would get one name, or a name to replace does not occur
    """
    for source in remap:
        if not any(f"{name}/".startswith(f"{source}/") for name in names):
            raise BadInput(
                f"remap renames '{source}', but there is no key of a dataset at or below that name.",
                hint=f"There are keys of {', '.join(sorted(names)[:10]) or 'nothing'}.",
            )
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        new = found[name] = remap_name(name, remap)
        if new in taken:
            raise BadInput(f"remap gives '{taken[new]}' and '{name}' the same name '{new}'.")
        taken[new] = name
    return found
