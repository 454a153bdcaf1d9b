# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the state ``present``: a dataset is there as described, and open if its key is at hand."""

from __future__ import annotations

import typing as t

from ..command import Command
from ..errors import Refused
from ..plan import Change, Step
from .dataset_actions import MoveAside
from .dataset_change import key_steps
from .dataset_create import create_steps
from .dataset_draft import Draft
from .dataset_keys import refuse_below_locked
from .dataset_mount import Mounts, mount_steps, plan_mounts, unmountable, users_of
from .dataset_options import WantedDataset
from .dataset_uncovered import plan_all_mounts
from .property_steps import dataset_property_steps
from .state import Dataset


def plan_present(wanted: WantedDataset, draft: Draft) -> None:
    draft.branch(wanted.name, _present(wanted, draft))


def _present(wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    draft.pool(wanted.name)
    dataset = draft.model.get(wanted.name)
    if dataset is None:
        if not draft.wishes.create:
            raise Refused(
                f"There is no dataset '{wanted.name}', and this task creates none.",
                hint="See whether it has another name now ('zfs list -r'), or create it first.",
            )
        yield from create_steps(wanted, draft)
        return
    _check_fixed(wanted, dataset)
    was_locked = dataset.encrypted and draft.model.locked(dataset)
    clear = list(_clear_new_place(wanted, dataset, draft))
    if was_locked and wanted.key is not None and dataset.is_root:
        mounts = _plan_mounts(draft.as_described(dataset), wanted, draft)
        if mounts.hopeless:
            if mounts.because:
                # If it is for the same reason, that says more.
                refuse_below_locked(wanted.name, draft)
            raise unmountable(mounts, wanted.name)
    yield from key_steps(wanted, dataset, draft)
    changes = [*_volsize(wanted, dataset), *_properties(wanted, dataset, draft)]
    if changes:
        draft.writable(wanted.name)
        yield from clear
        yield from changes
    dataset = draft.as_described(dataset)
    if not (dataset.encrypted and draft.model.locked(dataset)):
        lock_again = wanted.name if was_locked and dataset.is_root else ""
        mounts = _plan_mounts(dataset, wanted, draft)
        yield from mount_steps(wanted.name, mounts, draft, lock_again)


def _check_fixed(wanted: WantedDataset, dataset: Dataset) -> None:
    kind, cipher = dataset.value("type"), dataset.value("encryption")
    if wanted.volsize is not None and kind != "volume":
        raise Refused(f"'{dataset.name}' is a {kind}, but has a volsize here, which makes a volume.")
    if wanted.cipher is not None and wanted.cipher != cipher:
        raise Refused(
            f"'{dataset.name}' should be encrypted with '{wanted.cipher}', but has '{cipher}'.",
            hint="A cipher is chosen once, when a dataset is created. To change it, create another dataset and copy "
            "the data into it.",
        )


def _volsize(wanted: WantedDataset, dataset: Dataset) -> t.Iterator[Step]:
    if wanted.volsize is None:
        return
    actual, block = int(dataset.value("volsize")), int(dataset.value("volblocksize"))
    # As ZFS does when it creates a volume; it refuses any other size for one that exists.
    size = -(-wanted.volsize // block) * block
    if size < actual:
        raise Refused(
            f"Volume '{dataset.name}' has {actual} bytes and should have {size}: what is behind the new end would be "
            "lost.",
            hint="A volume is only ever grown here. Use 'zfs set volsize=' if losing that is meant.",
        )
    if size > actual:
        yield Step(
            f"Grow volume '{dataset.name}' to {size} bytes",
            Command(("zfs", "set", f"volsize={size}", dataset.name)),
            (Change(("datasets", dataset.name, "volsize"), actual, size),),
        )


def _properties(wanted: WantedDataset, dataset: Dataset, draft: Draft) -> t.Iterator[Step]:
    altroot = draft.pool(wanted.name).altroot
    yield from dataset_property_steps(dataset, wanted.properties, ("datasets", dataset.name, "properties"), altroot)


def _clear_new_place(wanted: WantedDataset, dataset: Dataset, draft: Draft) -> t.Iterator[Step]:
    """ZFS itself mounts a filesystem at a new mountpoint as soon as that is set, over whatever is there.

    :raises Refused: something is there, and is not to be moved aside
    """
    place = draft.as_described(dataset)
    mountpoint = place.value("mountpoint")
    stays_locked = dataset.encrypted and draft.model.locked(dataset) and wanted.key is None
    if mountpoint == dataset.value("mountpoint") or not place.mountable() or stays_locked:
        return
    obstacle = draft.host.obstacle(mountpoint)
    if not obstacle.text:
        return
    if wanted.on_nonempty_mountpoint == "fail":
        raise unmountable(Mounts(refused=(f"'{dataset.name}' can't be mounted: {obstacle.text}",)))
    draft.clears(mountpoint)
    yield Step(
        f"Move {mountpoint} to {obstacle.aside}, to make room for '{dataset.name}'",
        MoveAside(mountpoint, obstacle.aside),
        (Change(("files", mountpoint), "in the way", f"moved to {obstacle.aside}"),),
    )


def _plan_mounts(dataset: Dataset, wanted: WantedDataset, draft: Draft) -> Mounts:
    """The mounts of the dataset, and if it is an encryption root, of what is opened or uncovered by the same key."""
    if not dataset.is_root:
        return plan_mounts([dataset], wanted, draft)
    own = [dataset] + [one for one in users_of(dataset.name, dataset.name, draft) if one.name != dataset.name]
    return plan_all_mounts(dataset.name, own, wanted, draft)
