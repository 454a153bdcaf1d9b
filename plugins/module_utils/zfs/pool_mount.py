# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounting of the root filesystem in a plan: where it is going to be, and what is in the way."""

from __future__ import annotations

from ..command import Runner
from ..errors import Refused
from ..plan import Change, Step
from .pool_options import WantedPool
from .pool_state import PoolHost
from .property_steps import with_altroot
from .state import Dataset, Pool, mount_tree


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


def refuse_obstacle(name: str, mountpoint: str, host: PoolHost) -> None:
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
