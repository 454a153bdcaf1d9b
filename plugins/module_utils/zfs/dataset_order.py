# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which datasets are opened.

Parents come before children, since a child can't be opened below a locked parent. Beyond that, what is mounted above
comes before what is mounted below it, wherever in the pool the two lie: mounted the other way round, the upper one
would hide the lower one.
"""

from __future__ import annotations

import typing as t

from .dataset_draft import Draft
from .dataset_options import WantedDataset
from .names import ancestors, folders_above, within
from .state import Dataset


def opening_order(mountpoints: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """Names of datasets in the order in which they can be opened.

    Where a child is mounted above its own parent, no order is good for both. Then parents come before children.

    :param mountpoints: by dataset, where it and what is opened with it will be mounted
    """
    plain = sorted(mountpoints, key=lambda name: (name.count("/"), name))
    owner = {path: name for name in reversed(plain) for path in mountpoints[name]}
    mounted_above = {
        name: _others(name, (path for one in mountpoints[name] for path in folders_above(one)), owner) for name in plain
    }
    if not any(mounted_above.values()):
        return plain
    ordered: dict[str, None] = {}
    begun: set[str] = set()

    def place(name: str) -> None:
        if name in begun:
            return
        begun.add(name)
        for other in [above for above in ancestors(name) if above in mountpoints][::-1]:
            place(other)
        for other in mounted_above[name]:
            place(other)
        ordered[name] = None

    for name in plain:
        place(name)
    positions = {name: number for number, name in enumerate(ordered)}
    parents_first = all(
        positions[above] < positions[name] for name in plain for above in ancestors(name) if above in positions
    )
    return list(ordered) if parents_first else plain


def entries_in_order(entries: t.Sequence[WantedDataset], draft: Draft) -> list[WantedDataset]:
    """The described datasets that are to be there or to be opened, in the order to deal with them."""
    by_name = {one.name: one for one in entries}
    return [by_name[name] for name in opening_order({one.name: _places(one, draft) for one in entries})]


def roots_in_order(roots: t.Sequence[Dataset], draft: Draft) -> list[Dataset]:
    """Encryption roots in the order to unlock them."""
    by_name = {one.name: one for one in roots}
    places = {one.name: _opened_with(one.name, draft) for one in roots}
    return [by_name[name] for name in opening_order(places)]


def _places(wanted: WantedDataset, draft: Draft) -> tuple[str, ...]:
    """Where a described dataset will be mounted, and what is opened with it."""
    if not wanted.mount or wanted.state not in ("present", "unlocked"):
        return ()
    dataset = draft.model.get(wanted.name)
    place = draft.place_to_be(wanted.name)
    moves = dataset is None or dataset.value("mountpoint") != place
    own = (place,) if wanted.state == "present" and moves and place.startswith("/") else ()
    if dataset is None:
        return own
    if not wanted.recursive:
        return own + _opened_with(dataset.name, draft)
    return own + _waiting([dataset, *draft.model.below(dataset.name)], draft)


def _opened_with(root: str, draft: Draft) -> tuple[str, ...]:
    """The mountpoints of what the key of a root opens.

    Of clones elsewhere only those that do not lie in a folder of the root: these come after it in any case, and must
    not bring before it what they lie in, which may lie in the root itself.
    """
    if not draft.anything_waits:
        return ()
    members = list(draft.model.members(root))
    own = _waiting((one for one in members if within(one.name, (root,))), draft)
    clones = _waiting((one for one in members if not within(one.name, (root,))), draft)
    folders = set(own)
    return own + tuple(one for one in clones if folders.isdisjoint(folders_above(one)))


def _waiting(datasets: t.Iterable[Dataset], draft: Draft) -> tuple[str, ...]:
    """The mountpoints of those that want to be mounted and are not."""
    return tuple(one.value("mountpoint") for one in datasets if one.mountable() and not draft.model.mounted(one))


def _others(name: str, paths: t.Iterable[str], owner: t.Mapping[str, str]) -> list[str]:
    """Who mounts at these paths, in the order of the names, ``name`` itself left out."""
    return sorted({owner[path] for path in paths if path in owner} - {name})
