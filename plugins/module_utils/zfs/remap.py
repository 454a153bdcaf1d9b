# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other names for the datasets of a manifest, such as those they have on the system they were replicated to."""

from __future__ import annotations

import typing as t

from ..errors import BadInput
from .names import ancestors, check_dataset_name

Remap = t.Mapping[str, tuple[str, ...]]


def parse_remap(given: t.Mapping[t.Any, t.Any] | None) -> dict[str, tuple[str, ...]]:
    """New names by the names they take the place of: one, or several where a dataset has several replicas.

    :raises BadInput: one of them can't be the name of a dataset
    """
    found: dict[str, tuple[str, ...]] = {}
    for source, target in (given or {}).items():
        targets = target if isinstance(target, (list, tuple)) else [target]
        if not all(isinstance(name, str) for name in (source, *targets)):
            raise BadInput("remap holds something that is no text; wanted are names of datasets and their new names.")
        if not targets:
            raise BadInput(f"remap has no new name for '{source}'.", hint="Leave it out if it keeps its name.")
        found[check_dataset_name(source)] = tuple(dict.fromkeys(check_dataset_name(name) for name in targets))
    return found


def remap_name(name: str, remap: Remap) -> tuple[str, ...]:
    """The new names of a dataset: its own, or those of the nearest dataset above it with the rest behind."""
    for above in (name, *ancestors(name)):
        if above in remap:
            return tuple(check_dataset_name(target + name[len(above) :]) for target in remap[above])
    return (name,)


def remap_all(names: t.Sequence[str], remap: Remap) -> dict[str, tuple[str, ...]]:
    """The new names by the old ones.

    :raises BadInput: two datasets would get one name, or a name to replace does not occur
    """
    for source in remap:
        if not any(f"{name}/".startswith(f"{source}/") for name in names):
            raise BadInput(
                f"remap renames '{source}', but there is no key of a dataset at or below that name.",
                hint=f"There are keys of {', '.join(sorted(names)[:10]) or 'nothing'}.",
            )
    found: dict[str, tuple[str, ...]] = {}
    taken: dict[str, str] = {}
    for name in names:
        found[name] = remap_name(name, remap)
        for new in found[name]:
            if new in taken:
                raise BadInput(f"remap gives '{taken[new]}' and '{name}' the same name '{new}'.")
            taken[new] = name
    return found
