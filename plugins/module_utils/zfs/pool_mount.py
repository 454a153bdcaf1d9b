# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounting the filesystems of a pool in a plan: where they are going to be, and what is in the way."""

from __future__ import annotations

import typing as t

from ..command import Runner
from ..errors import Refused, first_of
from ..plan import Change, Step
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
    mountpoint = _mountpoint_property(wanted, pool, root)
    return mountpoint if canmount == "on" and mountpoint.startswith("/") else ""


def _mountpoint_property(wanted: WantedPool, pool: Pool, root: Dataset) -> str:
    wishes = wanted.filesystem_properties
    if "mountpoint" not in wishes:
        return root.value("mountpoint")
    return with_altroot(pool.altroot, wishes["mountpoint"] or f"/{pool.name}")


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


def mounts_below(wanted: WantedPool) -> bool:
    """Whether it matters what is mounted below the root."""
    return wanted.state == "present" and wanted.mount


def obstacle_warning(wanted: WantedPool, pool: Pool, root: Dataset, host: PoolHost) -> t.Iterator[str]:
    """Says which filesystems below the root can't be mounted, which nothing else would tell once it is unlocked.

    What is merely not mounted may be left so on purpose, as a replica is.
    """
    moves = _mountpoint_property(wanted, pool, root) != root.value("mountpoint")
    held_up = []
    for one in waiting(pool, wanted.unlock) if mounts_below(wanted) else ():
        obstacle = host.obstacles.get(one.value("mountpoint"), "")
        # Where one will be that follows the root shows only when that has moved.
        if obstacle and not (moves and one.properties["mountpoint"].source not in ("local", "received")):
            held_up.append(f"'{one.name}' ({obstacle})")
    if held_up:
        yield (
            f"Filesystems of pool '{pool.name}' can't be mounted: {first_of(held_up, _MOST_NAMED)}. Move away "
            "what is there, then run 'zfs mount NAME' for each."
        )


def refuse_obstacle(name: str, mountpoint: str, host: PoolHost) -> None:
    """Whether something is in the way of the root filesystem of a pool."""
    obstacle = host.obstacles.get(mountpoint, "")
    if obstacle:
        raise Refused(
            f"The root filesystem of pool '{name}' can't be mounted: {obstacle}.",
            hint="Move away what is there, choose another mountpoint in filesystem_properties, or set 'mount: false'.",
        )


def mount_step(name: str, root: bool = True) -> Step:
    """Mount what wants to be mounted of a pool; ``root`` tells whether the root filesystem is among it."""

    def mount(runner: Runner) -> None:
        mount_tree(runner, name)

    changes = (Change(("pools", name, "mounted"), False, True),) if root else ()
    return Step(f"Mount the filesystems of '{name}'", mount, changes)
