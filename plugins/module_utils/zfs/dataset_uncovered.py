# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the mounts that an unlocked root makes possible beyond what its key opens below it.

These are filesystems in its folders that need no key, or one that is loaded: a lock unmounts them with it. And they are
clones elsewhere that use its key, if the task unlocks all below a dataset that they lie below. Each is a branch of its
own, so that none of them decides whether the root stays open.
"""

from __future__ import annotations

import typing as t

from ..plan import Step
from .dataset_draft import Draft
from .dataset_mount import mount_steps, plan_mounts, users_of
from .dataset_options import WantedDataset
from .names import ancestors, folders_above
from .state import Dataset


class Places:
    """Where filesystems lie that are mounted by themselves: which in a folder of which."""

    def __init__(self, datasets: t.Iterable[Dataset]) -> None:
        filesystems = [one for one in datasets if one.mountable()]
        self._at: dict[str, list[str]] = {}
        for one in filesystems:
            self._at.setdefault(one.value("mountpoint"), []).append(one.name)
        self._inside: dict[str, list[Dataset]] = {}
        for one in filesystems:
            for name in self.around(one):
                self._inside.setdefault(name, []).append(one)

    def around(self, dataset: Dataset) -> list[str]:
        """The filesystems of the nearest folder above a mountpoint that is one."""
        folders = folders_above(dataset.value("mountpoint"))
        return next((self._at[folder] for folder in folders if folder in self._at), [])

    def inside(self, name: str) -> list[Dataset]:
        """What lies in the folders of a filesystem, and not in those of another one in between."""
        return self._inside.get(name, [])


def plan_uncovered(root: str, top: str, wanted: WantedDataset, draft: Draft) -> None:
    """Mount what the users of the key of a root at and below ``top`` uncover, and clones."""
    draft.uncovering.append((root, top, wanted))
    _uncover(root, top, wanted, draft)


def plan_uncovered_at_last(draft: Draft) -> None:
    """Once more when all is planned, since what lies around such a filesystem may be opened later than its own root."""
    steps = -1
    while steps != len(draft.steps):
        steps = len(draft.steps)
        for root, top, wanted in draft.uncovering:
            _uncover(root, top, wanted, draft)


def _uncover(root: str, top: str, wanted: WantedDataset, draft: Draft) -> None:
    dataset = draft.model.get(root)
    if dataset is None or not wanted.mount or draft.model.locked(dataset):
        return
    if draft.places is None:
        draft.places = Places(draft.host.datasets.values())
    found = {one.name: one for one in _clones(root, draft)}
    seen = [one.name for one in users_of(root, top, draft)] + list(found)
    for name in seen:
        for one in draft.places.inside(name):
            if one.name not in found and one.name not in seen and _needs_no_other_key(one, draft):
                found[one.name] = one
                seen.append(one.name)
    for one in sorted(found.values(), key=lambda one: (one.value("mountpoint"), one.name)):
        if not draft.model.mounted(one) and _may_be_mounted(one, draft.places, draft):
            draft.branch(one.name, _mount(one, wanted, draft), after=(root,))


def _clones(root: str, draft: Draft) -> t.Iterator[Dataset]:
    """Clones that use the key of a root they do not lie below, where the task unlocks everything."""
    for one in draft.model.members(root):
        if not (one.name + "/").startswith(root + "/") and _is_included(one.name, draft):
            yield one


def _is_included(name: str, draft: Draft) -> bool:
    """Whether the nearest dataset above that the task unlocks or locks is to be unlocked with all below it."""
    for above in ancestors(name):
        entry = draft.entries.get(above)
        if entry is not None and entry.recursive and entry.state in ("unlocked", "locked"):
            return entry.state == "unlocked"
    return False


def _needs_no_other_key(dataset: Dataset, draft: Draft) -> bool:
    return not dataset.encrypted or (not dataset.is_root and not draft.model.locked(dataset))


def _may_be_mounted(dataset: Dataset, places: Places, draft: Draft) -> bool:
    """Whether it is the task's to mount, and would not lie in the bare folder of another filesystem."""
    if dataset.name in draft.entries or dataset.name in draft.failures or not dataset.mountable():
        return False
    around = [draft.model.get(name) for name in places.around(dataset)]
    return not around or any(one is not None and draft.model.mounted(one) for one in around)


def _mount(dataset: Dataset, wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    yield from mount_steps(dataset.name, plan_mounts([dataset], wanted, draft), draft)
