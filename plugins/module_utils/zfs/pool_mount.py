# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounting the filesystems of a pool in a plan: where they are going to be, and what is in the way."""

from __future__ import annotations

import typing as t

from ..command import Runner
from ..errors import Refused
from ..plan import Change, Step
from .names import folders_above
from .pool_options import WantedPool
from .pool_state import PoolHost
from .property_steps import with_altroot
from .state import Dataset, Pool, mount_tree

# In a warning.
_MOST_NAMED = 10


def mountpoint_to_be(wanted: WantedPool, pool: Pool, root: Dataset) -> str:
    """The mountpoint once the wanted properties are set, "" if it will not be mounted by itself."""
    wishes = wanted.filesystem_properties
    # A root dataset has no parent: what is unset goes back to the default.
    canmount = (wishes["canmount"] or "on") if "canmount" in wishes else root.value("canmount")
    mountpoint = root.value("mountpoint")
    if "mountpoint" in wishes:
        mountpoint = with_altroot(pool.altroot, wishes["mountpoint"] or f"/{pool.name}")
    return mountpoint if canmount == "on" and mountpoint.startswith("/") else ""


def needs_mount(wanted: WantedPool, pool: Pool, root: Dataset) -> bool:
    """Whether it will be mounted somewhere where it is not mounted now."""
    mountpoint = mountpoint_to_be(wanted, pool, root)
    return bool(mountpoint) and not (root.mounted and root.value("mountpoint") == mountpoint)


def waiting(pool: Pool, unlocks: bool) -> tuple[Dataset, ...]:
    """The filesystems below the root that want to be mounted and are not, parents first.

    :param unlocks: whether the key of the root is going to be loaded, which opens all that inherit it
    """
    found = (
        one
        for one in pool.below
        if one.mountable() and not one.mounted and (not one.locked or (unlocks and one.root == pool.name))
    )
    return tuple(sorted(found, key=lambda one: (one.value("mountpoint"), one.name)))


def in_the_way(wanted: WantedPool, pool: Pool, root: Dataset) -> t.Iterator[Dataset]:
    """The filesystems below the root whose mountpoint can be looked at before the others are mounted."""
    mountpoint = mountpoint_to_be(wanted, pool, root)
    if "mountpoint" in wanted.filesystem_properties and mountpoint != root.value("mountpoint"):
        # Where theirs will be then follows from the new one.
        return
    hidden = {mountpoint} if needs_mount(wanted, pool, root) else set()
    for one in waiting(pool, root.locked and wanted.unlock):
        if not hidden.intersection((one.value("mountpoint"), *folders_above(one.value("mountpoint")))):
            yield one
        hidden.add(one.value("mountpoint"))


def unmounted_warning(pool: Pool, host: PoolHost) -> t.Iterator[str]:
    """Says which filesystems below the root should be mounted and are not, which nothing else would tell."""
    names = []
    for one in waiting(pool, unlocks=False):
        obstacle = host.obstacles.get(one.value("mountpoint"), "")
        names.append(f"'{one.name}' ({obstacle})" if obstacle else f"'{one.name}'")
    if names:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        yield (
            f"Filesystems of pool '{pool.name}' are not mounted, although their canmount and mountpoint ask for it: "
            f"{', '.join(names[:_MOST_NAMED])}{more}."
        )


def refuse_obstacle(what: str, mountpoint: str, host: PoolHost) -> None:
    """Whether something is in the way of a mount.

    :param what: the filesystem, in words
    """
    obstacle = host.obstacles.get(mountpoint, "")
    if obstacle:
        raise Refused(
            f"{what} can't be mounted: {obstacle}.",
            hint="Move away what is there, choose another mountpoint in filesystem_properties, or set 'mount: false'.",
        )


def mount_step(name: str, root: bool = True) -> Step:
    """Mount what wants to be mounted of a pool; ``root`` tells whether the root filesystem is among it."""

    def mount(runner: Runner) -> None:
        mount_tree(runner, name)

    changes = (Change(("pools", name, "mounted"), False, True),) if root else ()
    return Step(f"Mount the filesystems of '{name}'", mount, changes)
