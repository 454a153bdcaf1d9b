# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an unlocked root makes it possible to mount beyond what its key opens below it.

These are filesystems in its folders that need no key, or one that is loaded: a lock unmounts them with it. And they are
clones elsewhere that use its key, if the task unlocks all below a dataset that they lie below. They are mounted with
the users of the key, in the order of their places, but do not decide whether the root stays open.
"""

from __future__ import annotations

import typing as t

from ..plan import Step
from .dataset_draft import Draft
from .dataset_mount import Mounts, mount_steps, plan_mounts
from .dataset_options import WantedDataset
from .names import ancestors, within
from .state import Dataset


def plan_all_mounts(root: str, users: t.Sequence[Dataset], wanted: WantedDataset, draft: Draft) -> Mounts:
    """The mounts of users of the key of a root, and of what they uncover. What is uncovered only later is noted.

    :param users: what uses the key at and below a dataset; with the root among them, its clones elsewhere belong to it
    """
    if not draft.anything_waits:
        return plan_mounts(users, wanted, draft)
    draft.uncovering.append((root, tuple(one.name for one in users), wanted))
    return plan_mounts(users, wanted, draft, _uncovered(root, users, draft))


def plan_uncovered(draft: Draft) -> None:
    """Once all is planned, mount what lies in folders that were opened later than its own root."""
    steps = -1
    while steps != len(draft.steps):
        steps = len(draft.steps)
        for root, names, wanted in draft.uncovering:
            dataset = draft.model.get(root)
            if dataset is None or draft.model.locked(dataset):
                continue
            users = [one for one in (draft.model.get(name) for name in names) if one is not None]
            for one in _uncovered(root, users, draft):
                if one.name not in draft.unmountable:
                    draft.branch(one.name, _mount(one, wanted, draft), after=(root,))


def _uncovered(root: str, users: t.Sequence[Dataset], draft: Draft) -> list[Dataset]:
    """The filesystems beside the users of a key that wait to be mounted."""
    found: dict[str, None] = {}
    if any(one.name == root for one in users):
        found.update(dict.fromkeys(_clones(root, draft)))
    queue = [one.name for one in users] + list(found)
    seen = set(queue)
    for name in queue:
        for other in draft.places.inside(name):
            one = draft.model.get(other)
            if one is not None and other not in seen and (one.root == root or _needs_no_other_key(one, draft)):
                found[other] = None
                seen.add(other)
                queue.append(other)
    waiting = (draft.model.get(name) for name in found)
    return [draft.moved(one) for one in waiting if one is not None and _is_ours(one, draft)]


def _clones(root: str, draft: Draft) -> t.Iterator[str]:
    """Clones that use the key of a root they do not lie below, where the task unlocks everything."""
    for one in draft.model.members(root):
        if not within(one.name, (root,)) and _is_included(one.name, draft):
            yield one.name


def _is_included(name: str, draft: Draft) -> bool:
    """Whether the nearest dataset above that the task unlocks or locks with all below is to be unlocked."""
    for above in ancestors(name):
        entry = draft.entries.get(above)
        if entry is not None and entry.recursive and entry.state in ("unlocked", "locked"):
            return entry.state == "unlocked"
    return False


def _needs_no_other_key(dataset: Dataset, draft: Draft) -> bool:
    return not dataset.encrypted or (not dataset.is_root and not draft.model.locked(dataset))


def _is_ours(dataset: Dataset, draft: Draft) -> bool:
    """Whether it waits, and has no entry that says what becomes of it."""
    entry = draft.entries.get(dataset.name)
    if entry is not None and not (entry.mount and entry.state == "unlocked" and not dataset.encrypted):
        return False
    return dataset.mountable() and not draft.model.mounted(dataset)


def _mount(dataset: Dataset, wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    yield from mount_steps(dataset.name, plan_mounts((), wanted, draft, (dataset,)), draft)
