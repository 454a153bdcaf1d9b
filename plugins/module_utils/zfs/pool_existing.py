# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans an imported pool: missing vdevs, properties, its key, unlocking and mounting."""

from __future__ import annotations

import typing as t

from ..blockdev.wipe import wipe_step
from ..command import Command
from ..errors import Refused
from ..plan import Change, Plan, Step
from .pool_disks import check_disks, confirm_blank, device_was_away, take_back, wait_for_names
from .pool_keys import key_steps, key_warnings, unlock_existing
from .pool_mount import mount_step, mountpoint_to_be, needs_mount, obstacle_warning, refuse_obstacle
from .pool_options import WantedPool
from .pool_property import pool_property_step
from .pool_state import PoolHost
from .properties import pool_type, same
from .property_steps import dataset_property_steps, shown
from .state import SILENT_HEALTH, Dataset, Pool, way_back
from .topology import WantedVdev, argument_list, check_redundancy, compare


def plan_existing(wanted: WantedPool, pool: Pool, host: PoolHost) -> Plan:
    refuse_suspended(pool)
    root = pool.dataset
    if root is None:
        raise Refused(f"The root dataset of pool '{pool.name}' could not be read.")
    check_guid(wanted, pool)
    warnings = list(key_warnings(wanted, host))
    if pool.health not in ("ONLINE", "-"):
        warnings.append(f"Pool '{pool.name}' is {pool.health}; see 'zpool status {pool.name}'.")
    _check_encryption(wanted, root)
    steps: list[Step] = []
    steps += _extension(wanted, pool, host, warnings)
    steps += _pool_properties(wanted, pool)
    steps += key_steps(wanted, root, host, mountpoint_to_be(wanted, pool, root))
    steps += dataset_property_steps(
        root, wanted.filesystem_properties, ("pools", root.name, "filesystem_properties"), pool.altroot
    )
    steps += _unlock_and_mount(wanted, pool, root, host)
    warnings += obstacle_warning(wanted, pool, root, host)
    return Plan(tuple(steps), tuple(warnings))


def check_guid(wanted: WantedPool, pool: Pool) -> None:
    """A GUID that is given has to be that of the pool."""
    if wanted.confirm_guid and wanted.confirm_guid != pool.guid:
        raise Refused(
            f"confirm_guid is {wanted.confirm_guid}, but the imported pool '{pool.name}' has the GUID {pool.guid}."
        )


def refuse_suspended(pool: Pool) -> None:
    if pool.health in SILENT_HEALTH:
        raise Refused(
            f"Pool '{pool.name}' is {pool.health}: it can't be read or changed.",
            hint=way_back(pool.name),
        )


def _check_encryption(wanted: WantedPool, root: Dataset) -> None:
    """Cipher, format and iterations are facts of an existing encryption root; this module does not change them."""
    actual = root.value("encryption")
    if wanted.cipher is not None and wanted.cipher != actual:
        raise Refused(
            f"Pool '{root.name}' should be encrypted with '{wanted.cipher}', but its root dataset has '{actual}'.",
            hint="A cipher is chosen once, when a dataset is created. To change it, replicate into a new pool or "
            "dataset.",
        )
    if wanted.key is None:
        return
    if not root.encrypted:
        raise Refused(
            f"A key is given for pool '{root.name}', but its root dataset is not encrypted.",
            hint="Encryption can't be added later: set 'cipher: \"off\"' and encrypt datasets below it, or create the "
            "pool anew.",
        )
    if wanted.key.format != root.value("keyformat"):
        raise Refused(
            f"The key of pool '{root.name}' should be of format '{wanted.key.format}', but it is "
            f"'{root.value('keyformat')}'.",
            hint="This module does not change the key of an existing pool. Correct key.format, or change the key with "
            f"'zfs change-key -o keyformat={wanted.key.format}' first.",
        )
    iterations = root.value("pbkdf2iters")
    if wanted.key.iterations is not None and str(wanted.key.iterations) != iterations:
        raise Refused(
            f"The passphrase of pool '{root.name}' should have {wanted.key.iterations} PBKDF2 iterations, but it has "
            f"{iterations}.",
            hint="This module does not change the key of an existing pool. Correct key.iterations, or run "
            f"'zfs change-key -o pbkdf2iters={wanted.key.iterations}' first.",
        )


def _extension(wanted: WantedPool, pool: Pool, host: PoolHost, warnings: list[str]) -> t.Iterator[Step]:
    if not wanted.vdevs:
        return
    comparison = compare(pool.name, wanted.vdevs, pool.tree, host.devices)
    if comparison.unmanaged:
        warnings.append(
            f"Pool '{pool.name}' has vdevs that are not described, which stay as they are: "
            f"{'; '.join(comparison.unmanaged)}."
        )
    missing = comparison.missing
    if not missing:
        return
    check_redundancy(pool.name, pool.tree, () if wanted.force else missing)
    wipes = check_disks(wanted, missing, host.pools, host.contents, host.devices, host.importable)
    for content in wipes:
        yield wipe_step(content)
    arguments = ["zpool", "add"]
    if wanted.force:
        arguments.append("-f")
    if wanted.ashift is not None:
        arguments += ["-o", f"ashift={wanted.ashift}"]
    before = tuple(_present_vdevs(wanted.vdevs, missing))
    added = [vdev.describe() for vdev in missing]
    contents = [host.contents[disk] for vdev in missing for disk in vdev.disks]
    yield Step(
        f"Add to pool '{pool.name}': {', '.join(added)}",
        Command((*arguments, pool.name, *argument_list(missing))),
        (Change(("pools", pool.name, "vdevs"), before, tuple(vdev.describe() for vdev in wanted.vdevs)),),
        undo=(take_back(contents, pool.name, pool.guid), wait_for_names),
        guard=confirm_blank(contents),
        passes=device_was_away,
    )


def _present_vdevs(wanted: t.Sequence[WantedVdev], missing: t.Sequence[WantedVdev]) -> t.Iterator[str]:
    for vdev in wanted:
        if vdev not in missing:
            yield vdev.describe()


def _pool_properties(wanted: WantedPool, pool: Pool) -> t.Iterator[Step]:
    for name, value in wanted.properties.items():
        kind = pool_type(name)
        actual = pool.properties.get(name)
        if value is None:
            if (
                actual is None
                or actual.source == "default"
                or (kind.default is not None and same(kind.default, actual.value, kind))
            ):
                continue
            if kind.default is None:
                raise Refused(
                    f"The pool property '{name}' can't be unset; pool '{pool.name}' has '{actual.value}'.",
                    hint="Give the value it should have instead.",
                )
            value = kind.default
        elif actual is not None and same(value, actual.value, kind):
            continue
        if kind.when == "attach":
            raise Refused(
                f"The pool property '{name}' of '{pool.name}' should be '{value}' and is "
                f"'{actual.value if actual else '-'}'; it can be chosen only when a pool is created or imported.",
                hint="Export the pool first, then run this again.",
            )
        yield pool_property_step(pool.name, name, shown(actual), value)


def _unlock_and_mount(wanted: WantedPool, pool: Pool, root: Dataset, host: PoolHost) -> t.Iterator[Step]:
    locked = root.locked
    moves = needs_mount(wanted, pool, root)
    if moves and (root.mounted or (wanted.mount and (wanted.unlock or not locked))):
        refuse_obstacle(root.name, mountpoint_to_be(wanted, pool, root), host)
    mounts = wanted.mount and moves and not root.mounted
    if locked and wanted.unlock:
        yield unlock_existing(wanted, root, host)
        if wanted.mount:
            # Its children may want to be mounted even if the root does not.
            yield mount_step(root.name, mounts)
    elif mounts and not locked:
        # One that is mounted already is moved by ZFS when its mountpoint is set.
        yield mount_step(root.name, mounts)
