# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which filesystems are mounted once a key is loaded, and what is in the way."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..errors import Refused
from ..plan import Change, Step
from .dataset_actions import Mount, MountAll
from .dataset_draft import Blocked, Draft
from .dataset_options import WantedDataset
from .names import ancestors, folders_from
from .state import Dataset


@dataclass(frozen=True)
class Mounts:
    """What can be mounted, in this order, and what can't, with the reason.

    ``because``: the branch that failed with what should be mounted above all of these, "" if some have other reasons.
    ``unseen`` are mountpoints of which it shows only then what has to be moved aside there. ``hopeless``: nothing of
    what the key opens can be mounted, though something should be.
    """

    possible: tuple[Mount, ...] = ()
    refused: tuple[str, ...] = ()
    because: str = ""
    unseen: tuple[str, ...] = ()
    hopeless: bool = False


def users_of(root: str, top: str, draft: Draft) -> list[Dataset]:
    """What uses the key of a root at and below a dataset."""
    if top == root:
        below = top + "/"
        return [one for one in draft.model.members(root) if one.name == top or one.name.startswith(below)]
    first = draft.model.get(top)
    return [one for one in (first, *draft.model.below(top)) if one is not None and one.root == root]


def plan_mounts(
    datasets: t.Iterable[Dataset], wanted: WantedDataset, draft: Draft, beside: t.Sequence[Dataset] = ()
) -> Mounts:
    """Sort out what of these datasets is to be mounted: those that ask for it by canmount and mountpoint.

    Nothing is mounted in the bare folder of a filesystem that can't be mounted: it would be in the way of that later.

    :param beside: what is mounted with them as far as it lies in what is mounted, and decides nothing
    """
    if not wanted.mount:
        return Mounts()
    waiting = [
        draft.moved(one)
        for one in datasets
        if one.mountable() and not draft.model.mounted(one) and draft.entries.get(one.name, wanted).mount
    ]
    others = {one.name for one in beside}
    waiting += beside
    possible: list[Mount] = []
    together: set[str] = set()
    refused: dict[str, str] = {}
    causes: set[str] = set()
    unseen: list[str] = []
    # By mountpoint, the branch or dataset that is mounted there.
    mounting = dict(draft.mounting)

    def refuse(dataset: Dataset, reason: str, cause: str = "") -> None:
        draft.blocks(dataset.value("mountpoint"), dataset.name)
        causes.add(cause)
        refused[dataset.name] = f"'{dataset.name}' can't be mounted{reason}"

    for dataset in sorted(waiting, key=lambda one: (one.value("mountpoint"), one.name)):
        mountpoint = dataset.value("mountpoint")
        if dataset.name in others and not draft.lies_open(dataset, together):
            continue
        below = draft.mounted_below(mountpoint)
        if below:
            reason = (
                f": at {mountpoint} it would hide what is mounted before it at {below}, so unmount that first, or give "
                "one of the two another mountpoint"
            )
            refuse(dataset, reason)
            continue
        # Who shares its own mountpoint does not matter: what is there is looked at below.
        over = draft.bare_above(mountpoint, dataset.name)
        if over:
            refuse(dataset, f", because nothing could be mounted at {over}", _failed_with(draft.blocked[over], draft))
            continue
        # What is in a mountpoint below another one shows only when that one is mounted.
        above = next((mounting[path] for path in folders_from(mountpoint) if path in mounting), "")
        obstacle = None if above or mountpoint in draft.cleared else draft.host.obstacle(mountpoint)
        move_aside = draft.entries.get(dataset.name, wanted).on_nonempty_mountpoint == "move_aside"
        if obstacle is not None and obstacle.text and not move_aside:
            refuse(dataset, f": {obstacle.text}")
            continue
        aside = obstacle.aside if obstacle and obstacle.text else ""
        possible.append(Mount(dataset.name, mountpoint, move_aside, aside, dataset.name in others))
        # In one that is only now created, nothing is.
        if above in draft.host.datasets and move_aside:
            unseen.append(mountpoint)
        mounting[mountpoint] = dataset.name
        together.add(dataset.name)
        draft.blocked.pop(mountpoint, None)
    draft.unmountable |= refused.keys()
    hopeless = not refused.keys() <= others and all(one.beside for one in possible)
    because = causes.pop() if len(causes) == 1 else ""
    return Mounts(tuple(possible), tuple(refused.values()), because, tuple(unseen), hopeless)


def _failed_with(name: str, draft: Draft) -> str:
    """The branch that failed since a filesystem can't be mounted, "" if there is none yet."""
    dataset = draft.model.get(name)
    branches = (name, dataset.root if dataset else "", *ancestors(name))
    return next((one for one in branches if one in draft.failures), "")


def mount_steps(branch: str, mounts: Mounts, draft: Draft, lock_again: str = "") -> t.Iterator[Step]:
    """The step that mounts, and the failure of what can't be mounted.

    :param lock_again: the encryption root to lock again if none of its filesystems can be mounted
    """
    if mounts.possible:
        asides = [f"{one.mountpoint} to {one.aside}" for one in mounts.possible if one.aside]
        names = [f"'{one.name}'" for one in mounts.possible]
        what = names[0] if len(names) == 1 else f"{len(names)} filesystems of '{branch}'"
        yield Step(
            f"Mount {what}" + (f", after moving {', '.join(asides)}" if asides else ""),
            MountAll(
                mounts.possible,
                lock_again,
                draft.awaited.pop(branch, ()),
            ),
            tuple(Change(("datasets", one.name, "mounted"), False, True) for one in mounts.possible),
            after=tuple(dict.fromkeys(one for one in _branches_above(mounts, draft) if one != branch)),
        )
        for one in mounts.possible:
            draft.model.mount(one.name)
            draft.mounts(one.mountpoint, branch)
        draft.unseen += mounts.unseen
    if mounts.refused:
        draft.fail(branch, unmountable(mounts), "" if mounts.possible else mounts.because)
        draft.held_up[branch] = mounts.because


def _branches_above(mounts: Mounts, draft: Draft) -> t.Iterator[str]:
    """The branches that mount something above these mountpoints, which has to be there first."""
    for one in mounts.possible:
        for path in folders_from(one.mountpoint):
            if path in draft.mounting:
                yield draft.mounting[path]


def unmountable(mounts: Mounts, still_locked: str = "") -> Refused:
    """The error for filesystems that can't be mounted."""
    stays = f" '{still_locked}' stays locked." if still_locked else ""
    message = f"{'; '.join(mounts.refused)}.{stays}"
    if mounts.because:
        return Blocked(mounts.because, message, hint=f"See what is said of '{mounts.because}'.")
    return Refused(
        message,
        hint="Move away what is there, or let the task do it: 'on_nonempty_mountpoint: move_aside'.",
        not_mounted=list(mounts.refused),
    )
