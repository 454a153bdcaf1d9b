# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what has to happen to pools. Pure functions: wanted values and a state in, a plan out."""

from __future__ import annotations

import typing as t

from ..command import Command
from ..errors import Refused
from ..plan import Change, Plan, Step, join
from . import keystore
from .pool_create import plan_create
from .pool_existing import check_guid, plan_existing, refuse_suspended
from .pool_import import find_importable, import_command, plan_import
from .pool_keys import check_key_file, refuse_own_dataset
from .pool_options import WantedPool
from .pool_state import PoolHost
from .state import Pool
from .topology import check_unique


def plan_pools(wanted: t.Sequence[WantedPool], host: PoolHost) -> Plan:
    """The plan for all pools of the task.

    :raises StorageError: something asked for can't or must not be done; then nothing at all is done
    """
    check_unique(((pool.name, vdev) for pool in wanted for vdev in pool.vdevs), host.devices)
    return join(_PLANNERS[pool.state](pool, host) for pool in wanted)


def _plan_present(wanted: WantedPool, host: PoolHost) -> Plan:
    if wanted.key is not None:
        check_key_file(wanted.key, wanted.name, host)
    pool = host.pools.get(wanted.name)
    if pool is not None:
        return plan_existing(wanted, pool, host)
    dormant = find_importable(wanted, host)
    if dormant is not None:
        return plan_import(wanted, dormant, host)
    return plan_create(wanted, host)


def _plan_exported(wanted: WantedPool, host: PoolHost) -> Plan:
    pool = host.pools.get(wanted.name)
    if pool is None:
        return Plan()
    refuse_suspended(pool)
    check_guid(wanted, pool)
    root = pool.dataset
    path = keystore.path_of(root.value("keylocation")) if root is not None and root.encrypted else None
    if path is not None:
        refuse_own_dataset(wanted.name, host.key_files.get(path))
    export = Step(
        f"Export pool '{pool.name}'",
        Command(("zpool", "export", pool.name)),
        (Change(("pools", pool.name, "state"), "present", "exported"),),
        hint="Something still uses it: 'zfs mount', 'lsof' and 'swapon' tell what.",
    )
    return Plan((export,))


def _plan_absent(wanted: WantedPool, host: PoolHost) -> Plan:
    pool = host.pools.get(wanted.name)
    if pool is not None:
        _confirm(wanted, pool.guid)
        _refuse_to_hang(pool)
        destroy = Step(
            f"Destroy pool '{pool.name}' ({pool.guid})",
            Command(("zpool", "destroy", pool.name)),
            (Change(("pools", pool.name, "state"), "present", "absent"),),
            hint="A pool in use can't be destroyed: 'zfs mount' and 'lsof' tell by what.",
        )
        return Plan((destroy,))
    dormant = find_importable(wanted, host)
    if dormant is None:
        return Plan()
    _confirm(wanted, dormant.guid)
    return Plan(
        (
            Step(
                f"Import pool '{dormant.name}' ({dormant.guid}) without mounting, to destroy it",
                import_command(wanted, dormant),
                (Change(("pools", dormant.name, "state"), "exported", "present"),),
            ),
            Step(
                f"Destroy pool '{dormant.name}' ({dormant.guid})",
                Command(("zpool", "destroy", dormant.name)),
                (Change(("pools", dormant.name, "state"), "present", "absent"),),
            ),
        )
    )


def _refuse_to_hang(pool: Pool) -> None:
    """What zpool never comes back from. In any other state it answers by itself."""
    if pool.health == "SUSPENDED":
        raise Refused(
            f"Pool '{pool.name}' is SUSPENDED: 'zpool destroy' would wait for its devices without an end.",
            hint=f"Bring its devices back, then run 'zpool clear {pool.name}' and this task again. If they are gone "
            "for good, restart the host, which can't import the pool without them.",
        )


def _confirm(wanted: WantedPool, guid: str) -> None:
    if not wanted.confirm_guid:
        raise Refused(
            f"Pool '{wanted.name}' exists and would be destroyed with all its data, but confirm_guid is not set.",
            hint=f"If this very pool is meant, set 'confirm_guid: \"{guid}\"'.",
        )
    if wanted.confirm_guid != guid:
        raise Refused(
            f"confirm_guid is {wanted.confirm_guid}, but pool '{wanted.name}' has the GUID {guid}; it was not touched.",
            hint="This is another pool than the one that was meant to be destroyed.",
        )


_PLANNERS: t.Mapping[str, t.Callable[[WantedPool, PoolHost], Plan]] = {
    "present": _plan_present,
    "exported": _plan_exported,
    "absent": _plan_absent,
}
