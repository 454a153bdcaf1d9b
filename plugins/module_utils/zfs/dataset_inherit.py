# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the state ``inherited``: an encryption root takes the key of its parent."""

from __future__ import annotations

import typing as t

from ..errors import Refused
from ..plan import Change, Step
from .dataset_actions import InheritKey
from .dataset_draft import Draft
from .dataset_keys import find_key, load_steps, refuse_below_locked
from .dataset_mount import mount_steps, users_of
from .dataset_options import WantedDataset
from .dataset_policy import refuse_key_children
from .dataset_replica import refuse_replica, refuse_shared_replica
from .dataset_retire import finish_retiring, mark_steps, retire_steps
from .dataset_uncovered import plan_all_mounts


def plan_inherited(wanted: WantedDataset, draft: Draft) -> None:
    draft.branch(wanted.name, _inherit(wanted, draft))


def _inherit(wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    name = wanted.name
    dataset = draft.existing(name)
    if not dataset.encrypted:
        raise Refused(f"'{name}' is not encrypted, so it has no key to inherit.")
    if not dataset.is_root:
        yield from finish_retiring(name, draft)
        if not draft.model.locked(dataset):
            yield from _mounts(name, dataset.root, wanted, draft)
        return
    draft.writable(name)
    parent = draft.model.parent(name)
    if parent is None:
        raise Refused(f"'{name}' is the root dataset of a pool: there is no parent whose key it could use.")
    if not parent.encrypted:
        raise Refused(f"'{name}' can't use the key of its parent: '{parent.name}' is not encrypted.")
    if dataset.value("origin") != "-":
        raise Refused(f"'{name}' is a clone; ZFS does not change the keys of clones.", hint="'zfs promote' it first.")
    if draft.model.key_format(parent) == "passphrase":
        refuse_key_children(name, draft)
    refuse_replica(dataset, wanted, draft, "take its parent's key")
    root = draft.model.get(parent.root)
    if root is not None:
        refuse_shared_replica(name, root, wanted, draft)
    refuse_below_locked(name, draft)
    if draft.model.locked(parent):
        raise Refused(
            f"The key of '{parent.root}', which '{name}' is to use, is not loaded.", hint=f"Unlock '{parent.root}'."
        )
    if draft.model.locked(dataset):
        yield from load_steps(dataset, find_key(dataset, draft), draft)
        draft.model.unlock(name)
        draft.opens(name)
    before = dataset.value("keylocation")
    yield from mark_steps(name, before, "", draft)
    yield Step(
        f"Let '{name}' use the key of '{parent.root}'",
        InheritKey(name),
        (Change(("datasets", name, "encryption_root"), name, parent.root),),
    )
    yield from retire_steps(name, before, "", draft)
    draft.model.inherit(name, parent.root)
    yield from _mounts(name, parent.root, wanted, draft)


def _mounts(name: str, root: str, wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    """Mount what uses the parent's key from now on, at and below the dataset."""
    yield from mount_steps(name, plan_all_mounts(root, users_of(root, name, draft), wanted, draft), draft)
