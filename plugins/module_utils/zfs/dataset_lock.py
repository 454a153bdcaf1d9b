# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the state ``locked``: unmount what the keys open, then unload them, children first."""

from __future__ import annotations

import typing as t

from ..errors import Refused
from ..plan import Change, Step
from .dataset_actions import Mounted, Remount, UnloadKey, Unmount
from .dataset_draft import Draft
from .dataset_options import WantedDataset
from .dataset_policy import check_lock
from .mount_table import Place
from .names import folders_from
from .state import Dataset


def plan_locked(wanted: WantedDataset, draft: Draft) -> None:
    draft.branch(wanted.name, _lock(wanted, draft), after=_named_below(wanted, draft))


def _named_below(wanted: WantedDataset, draft: Draft) -> tuple[str, ...]:
    """Those below that the task locks on its own, and therefore before."""
    prefix = wanted.name + "/"
    return tuple(name for name, entry in draft.entries.items() if name.startswith(prefix) and entry.state == "locked")


def _lock(wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    roots = _roots(wanted, draft)
    if not roots:
        return
    names = {root.name for root in roots}
    outside = [
        member
        for root in roots
        for member in draft.model.members(root.name)
        if not (member.name + "/").startswith(wanted.name + "/")
    ]
    used = [member.name for member in outside if draft.model.mounted(member)]
    if used:
        raise Refused(
            f"'{wanted.name}' can't be locked: clones elsewhere use its key and are mounted: {', '.join(used)}.",
            hint="Unmount them first.",
        )
    unmount, mounted = _to_unmount(wanted.name, names, draft)
    if unmount:
        what = f"'{mounted[0]}'" if len(mounted) == 1 else f"{len(mounted)} filesystems at and below '{wanted.name}'"
        yield Step(
            f"Unmount {what}",
            Unmount(unmount, wanted.force_unmount),
            tuple(Change(("datasets", name, "mounted"), True, False) for name in mounted),
        )
    ordered = sorted(roots, key=lambda one: (-one.name.count("/"), one.name))
    users = [list(draft.model.members(root.name)) for root in ordered]
    lasting = _lasting(unmount, users)
    for number, (root, members) in enumerate(zip(ordered, users)):
        volumes = tuple(one.name for one in members if one.value("type") == "volume")
        filesystems = tuple(one.name for one in members if one.value("type") == "filesystem")
        clones = tuple(member.name for member in outside if member.root == root.name)
        again = tuple(one for one, last in lasting if last >= number)
        yield Step(
            f"Lock '{root.name}'",
            UnloadKey(root.name, volumes, clones, filesystems),
            (Change(("datasets", root.name, "locked"), False, True),),
            undo=(Remount(again),) if again else (),
        )
    for name in mounted:
        draft.model.unmount(name)
    for name in names:
        draft.model.lock(name)


Places = t.Mapping[str, tuple[Place, ...]]


def _to_unmount(top: str, roots: set[str], draft: Draft) -> tuple[tuple[Mounted, ...], list[str]]:
    """What the keys of these roots open, and what is mounted in a folder of that. Plain filesystems beside it stay.

    With the mounts come the names of the filesystems that are mounted nowhere without them.
    """
    mounted = [one for one in (draft.existing(top), *draft.model.below(top)) if draft.model.mounted(one)]
    legacy = draft.host.places(tuple(one.name for one in mounted if one.value("mountpoint") == "legacy"))
    folders = {mount.place for one in mounted if one.root in roots for mount in _mounts(one, legacy) if mount.place}
    found: list[Mounted] = []
    names: list[str] = []
    for one in mounted:
        mounts = list(_mounts(one, legacy))
        going = [
            mount
            for mount in mounts
            if one.root in roots or any(folder in folders for folder in folders_from(mount.place))
        ]
        found += going
        if mounts == going:
            names.append(one.name)
    return _in_order(found), names


def _mounts(dataset: Dataset, legacy: Places) -> t.Iterator[Mounted]:
    """The mounts of a filesystem; the place of one is "" where that is not known."""
    mountpoint = dataset.value("mountpoint")
    if mountpoint != "legacy":
        yield Mounted(dataset.name, mountpoint if mountpoint.startswith("/") else "")
        return
    # It may be mounted at several places; at one of them, what was mounted last is on top.
    for place in reversed(legacy[dataset.name] or (Place(""),)):
        yield Mounted(dataset.name, place.path, True, place.options, place.folder)


def _in_order(mounts: t.Iterable[Mounted]) -> tuple[Mounted, ...]:
    """What to unmount, the deepest first; a legacy mount whose place is not known goes before all others."""
    return tuple(sorted(mounts, key=lambda one: (bool(one.place), -_depth(one.place), not one.legacy, one.name)))


def _lasting(unmounted: tuple[Mounted, ...], users: list[list[Dataset]]) -> list[tuple[Mounted, int]]:
    """What can be mounted again, in this order, each with the number of the last root whose lock may fail for that.

    What is locked by then can't be, nor what would lie in a bare folder of that.

    :param users: what uses the keys of the roots, in the order in which they are locked
    """
    locked_by = {one.name: number for number, members in enumerate(users) for one in members}
    bare_by: dict[str, int] = {}
    for one in unmounted:
        if one.place and one.name in locked_by:
            bare_by[one.place] = min(locked_by[one.name], bare_by.get(one.place, len(users)))
    found: list[tuple[Mounted, int]] = []
    for one in reversed(unmounted):
        numbers = [bare_by[place] for place in folders_from(one.place) if place in bare_by]
        found.append((one, min([locked_by.get(one.name, len(users)), *numbers])))
    return found


def _depth(place: str) -> int:
    return place.rstrip("/").count("/")


def _roots(wanted: WantedDataset, draft: Draft) -> list[Dataset]:
    """The unlocked encryption roots to lock.

    :raises Refused: the dataset has no key of its own, or others below would have to be locked too
    """
    dataset = draft.existing(wanted.name)
    below = [root for root in draft.model.roots_below(wanted.name) if not draft.model.locked(root)]
    if not dataset.encrypted:
        if not wanted.recursive:
            raise Refused(
                f"'{wanted.name}' is not encrypted.",
                hint="With 'recursive: true' the encryption roots below it are locked.",
            )
        check_lock(wanted.name, below, draft)
        return below
    if not dataset.is_root:
        raise Refused(
            f"'{wanted.name}' has no key of its own, so it can't be locked alone: it uses that of '{dataset.root}'.",
            hint=f"Lock '{dataset.root}'.",
        )
    if below and not wanted.recursive:
        raise Refused(
            f"Below '{wanted.name}' these are unlocked and would be unmounted: "
            f"{', '.join(root.name for root in below)}.",
            hint="Set 'recursive: true' to lock them too.",
        )
    roots = ([] if draft.model.locked(dataset) else [dataset]) + below
    check_lock(wanted.name, roots, draft)
    return roots
