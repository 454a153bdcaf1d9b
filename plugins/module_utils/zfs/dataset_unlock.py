# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the state ``unlocked``: parents first, one branch for each encryption root."""

from __future__ import annotations

import typing as t

from ..errors import Refused
from ..plan import Step
from .dataset_draft import Blocked, Draft
from .dataset_keys import find_key, load_steps, refuse_below_locked
from .dataset_mount import mount_steps, plan_mounts, unmountable, users_of
from .dataset_options import WantedDataset
from .dataset_order import roots_in_order
from .dataset_uncovered import plan_all_mounts
from .names import ancestors
from .state import Dataset


def plan_unlocked(wanted: WantedDataset, draft: Draft) -> None:
    if wanted.name in draft.failures:
        # A key that is given for it and can't be its own says nothing about the roots below.
        if draft.model.get(wanted.name) is None:
            return
    else:
        draft.branch(wanted.name, _top(wanted, draft))
        if wanted.name in draft.failures:
            return
    draft.deferred += [(root, wanted) for root in roots_in_order(list(_roots(wanted, draft)), draft)]
    plan_deferred(draft)


def plan_deferred(draft: Draft, whatever: bool = False) -> None:
    """Plan the roots that do not have to wait for others of the task, as long as there are such.

    :param whatever: nothing comes any more that they could wait for, so all of them, in their order
    """
    number = -1
    while number != len(draft.deferred):
        number = len(draft.deferred)
        waiting = {root.name for root, _wanted in draft.deferred}
        left: list[tuple[Dataset, WantedDataset]] = []
        for root, wanted in draft.deferred:
            waiting.discard(root.name)
            if not whatever and any(one in draft.ahead or one in waiting for one in _lies_in(root, draft)):
                waiting.add(root.name)
                left.append((root, wanted))
            else:
                _plan_root(root, wanted, draft)
        draft.deferred = left


def _lies_in(root: Dataset, draft: Draft) -> set[str]:
    """The locked roots that a root lies in, by its name or by its folder."""
    around = [draft.model.get(name) for name in draft.places.around(root)] if draft.anything_waits else []
    closed = {one.root for one in around if one is not None and one.encrypted and draft.model.locked(one)}
    return (closed | {draft.model.locked_root_above(root.name)}) - {root.name}


def _plan_root(root: Dataset, wanted: WantedDataset, draft: Draft) -> None:
    if not draft.branch(root.name, unlock_root(root, wanted, draft)):
        # It is not known yet; what lies below is asked about in the same round.
        draft.model.unlock(root.name)


def _roots(wanted: WantedDataset, draft: Draft) -> t.Iterator[Dataset]:
    dataset = draft.model.get(wanted.name)
    if dataset is None:
        return
    if dataset.is_root:
        yield dataset
    if wanted.recursive:
        for root in draft.model.roots_below(wanted.name):
            if not _has_own_entry(root.name, draft) and not _kept_locked(root.name, wanted, draft):
                yield root


def _has_own_entry(name: str, draft: Draft) -> bool:
    """Whether the task describes how this root is to be opened; that entry comes later, and is the one that counts."""
    entry = draft.entries.get(name)
    return entry is not None and (entry.state == "unlocked" or (entry.state == "present" and entry.key is not None))


def _kept_locked(name: str, wanted: WantedDataset, draft: Draft) -> bool:
    """Whether the task itself wants a dataset below the described one to be locked."""
    for one in (name, *ancestors(name)):
        if one == wanted.name:
            return False
        entry = draft.entries.get(one)
        if entry is not None and entry.state == "locked":
            return True
    return False


def _top(wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    """What is said of the described dataset itself, when it is no encryption root."""
    dataset = draft.existing(wanted.name)
    if dataset.is_root:
        return
    if not dataset.encrypted:
        if not wanted.recursive:
            raise Refused(
                f"'{wanted.name}' is not encrypted.",
                hint="With 'recursive: true' the encryption roots below it are unlocked.",
            )
        return
    if draft.model.locked(dataset):
        raise Blocked(
            dataset.root,
            f"'{wanted.name}' uses the key of '{dataset.root}', which is locked.",
            hint=f"Unlock '{dataset.root}'.",
        )
    own = users_of(dataset.root, wanted.name, draft) if wanted.recursive else [dataset]
    yield from mount_steps(wanted.name, plan_mounts(own, wanted, draft), draft)


def refuse_stray_keys(draft: Draft) -> None:
    """A key that is given for a dataset by name has to be that of an encryption root, or it would be of no use."""
    for name, offers in draft.wishes.offers.explicit.items():
        if all(offer.origin.startswith("the manifest") for offer in offers):
            # A manifest may hold the keys of a whole pool, and of replicas that are elsewhere.
            continue
        if name.split("/")[0] not in draft.pools:
            # An inventory may hold the keys of all pools of a host, and a task be about one of them.
            continue
        dataset = draft.model.get(name)
        entry = draft.entries.get(name)
        if dataset is not None and (dataset.is_root or all(offer.recursive for offer in offers)):
            continue
        if entry is not None and entry.state in ("present", "inherited"):
            continue
        try:
            draft.existing(name)
        except Refused as error:
            draft.fail(name, error)
            continue
        draft.fail(name, _stray(name, dataset.root if dataset else ""))


def _stray(name: str, root: str) -> Refused:
    if not root:
        return Refused(f"A key is given for '{name}', which is not encrypted.")
    return Refused(
        f"A key is given for '{name}', which has none of its own: it uses that of '{root}'.",
        hint=f"Give the key for '{root}'.",
    )


def unlock_root(root: Dataset, wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    """Load the key of one encryption root and mount what uses it."""
    own = users_of(root.name, root.name, draft)
    if not draft.model.locked(root):
        yield from mount_steps(root.name, plan_all_mounts(root.name, own, wanted, draft), draft)
        return
    refuse_below_locked(root.name, draft)
    found = find_key(root, draft)
    mounts = plan_all_mounts(root.name, own, wanted, draft)
    if mounts.hopeless:
        raise unmountable(mounts, root.name)
    yield from load_steps(root, found, draft)
    draft.model.unlock(root.name)
    draft.opens(root.name)
    yield from mount_steps(root.name, mounts, draft, lock_again=root.name)
