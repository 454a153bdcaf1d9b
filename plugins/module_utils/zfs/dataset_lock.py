# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the state ``locked``: unmount all at and below, then unload the keys, children first."""

from __future__ import annotations

import typing as t

from ..errors import Refused
from ..plan import Change, Step
from .dataset_actions import Mounted, Remount, UnloadKey, Unmount
from .dataset_draft import Draft
from .dataset_options import WantedDataset
from .dataset_policy import check_lock
from .mount_table import Place
from .names import lies_below
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
    below = [draft.existing(wanted.name), *draft.model.below(wanted.name)]
    mounted = [member for member in below if draft.model.mounted(member)]
    unmount = _in_order(mounted, draft)
    if mounted:
        what = (
            f"'{mounted[0].name}'" if len(mounted) == 1 else f"{len(mounted)} filesystems at and below '{wanted.name}'"
        )
        yield Step(
            f"Unmount {what}",
            Unmount(unmount, wanted.force_unmount),
            tuple(Change(("datasets", one.name, "mounted"), True, False) for one in mounted),
        )
    roots_of = {one.name: one.root for one in mounted}
    closed: set[str] = set()
    for root in sorted(roots, key=lambda one: (-one.name.count("/"), one.name)):
        volumes = tuple(one.name for one in draft.model.members(root.name) if one.value("type") == "volume")
        clones = tuple(member.name for member in outside if member.root == root.name)
        again = tuple(_again(unmount, {name for name, of in roots_of.items() if of in closed}))
        yield Step(
            f"Lock '{root.name}'",
            UnloadKey(root.name, volumes, clones),
            (Change(("datasets", root.name, "locked"), False, True),),
            undo=(Remount(again),) if again else (),
        )
        closed.add(root.name)
    for one in mounted:
        draft.model.unmount(one.name)
    for name in names:
        draft.model.lock(name)


def _in_order(mounted: list[Dataset], draft: Draft) -> tuple[Mounted, ...]:
    """What to unmount, the deepest first; a legacy mount whose place is not known goes before all others."""
    legacy = tuple(one.name for one in mounted if one.value("mountpoint") == "legacy")
    found = draft.host.places(legacy)
    mounts: list[Mounted] = []
    for one in mounted:
        mountpoint = one.value("mountpoint")
        if mountpoint == "legacy":
            # It may be mounted at several places; at one of them, what was mounted last is on top.
            places = reversed(found[one.name] or (Place(""),))
            mounts += [Mounted(one.name, place.path, True, place.options, place.folder) for place in places]
        else:
            mounts.append(Mounted(one.name, mountpoint if mountpoint.startswith("/") else ""))
    return tuple(sorted(mounts, key=lambda one: (bool(one.place), -_depth(one.place), not one.legacy, one.name)))


def _again(unmounted: tuple[Mounted, ...], closed: set[str]) -> t.Iterator[Mounted]:
    """What to mount again, in this order: not what is locked by then, nor what would lie in a bare folder of that."""
    bare = [one.place for one in unmounted if one.name in closed and one.place]
    for one in reversed(unmounted):
        if one.name not in closed and not any(lies_below(one.place, folder) for folder in bare):
            yield one


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
