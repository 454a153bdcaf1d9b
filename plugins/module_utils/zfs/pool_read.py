# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the plan for pools needs: three processes of zfs and zpool when there is nothing to do."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import typing as t

from ..blockdev.content import DiskContent, probe_all
from ..blockdev.host import read_table
from ..blockdev.identity import DeviceTable
from ..command import Runner
from . import keystore
from .keystore import KeyFile
from .pool_disks import may_be_of_pool
from .pool_keys import key_at_hand
from .pool_mount import mountpoint_to_be, mounts_below, needs_mount, waiting
from .pool_options import WantedPool
from .pool_state import PoolHost
from .properties import Property
from .state import (
    MOUNT_PROPERTIES,
    SILENT_HEALTH,
    Dataset,
    Pool,
    key_opens,
    mount_obstacle,
    read_datasets,
    read_importable,
    read_pool_properties,
    read_trees,
    require_root,
)
from .status import ImportablePool, Tree


def read_host(runner: Runner, wanted: t.Sequence[WantedPool]) -> PoolHost:
    """Everything that plan_pools wants to know.

    :raises StorageError: ZFS can't be asked, or a disk can't be examined
    """
    require_root()
    names = (name for pool in wanted if pool.state == "present" for name in pool.properties)
    properties = read_pool_properties(runner, names)
    trees = read_trees(runner) if any(pool.state == "present" and pool.vdevs for pool in wanted) else {}
    pools = _pools(runner, wanted, properties, trees)
    devices = read_table(runner)
    key_files = _key_files(runner, wanted, pools)
    contents = _contents(runner, wanted, pools, devices)
    host = PoolHost(
        pools=pools,
        importable=_importable(runner, wanted, pools, devices, contents),
        devices=devices,
        contents=contents,
        key_files=key_files,
        obstacles=_obstacles(wanted, pools),
    )
    host = dataclasses.replace(host, opens=_try_keys(runner, wanted, host))
    return dataclasses.replace(host, successors=_successors(runner, wanted, host))


def _pools(
    runner: Runner,
    wanted: t.Sequence[WantedPool],
    properties: t.Mapping[str, t.Mapping[str, Property]],
    trees: t.Mapping[str, Tree],
) -> dict[str, Pool]:
    datasets: dict[str, Dataset] = {}
    asked = [
        pool
        for pool in wanted
        if pool.state != "absent"
        and pool.name in properties
        and properties[pool.name]["health"].value not in SILENT_HEALTH
    ]
    if asked:
        names = dict.fromkeys(name for pool in asked for name in pool.filesystem_properties)
        # What is below them is a part of the same answer, but takes its time where there are thousands.
        datasets = read_datasets(
            runner,
            [pool.name for pool in asked],
            (*MOUNT_PROPERTIES, *names),
            recursive=any(mounts_below(pool) for pool in asked),
            at_once=True,
        )
    below: dict[str, list[Dataset]] = {}
    for dataset in datasets.values():
        if "/" in dataset.name:
            below.setdefault(dataset.name.split("/")[0], []).append(dataset)
    return {
        name: Pool(
            name=name,
            guid=values["guid"].value,
            health=values["health"].value,
            properties=values,
            tree=trees.get(name, {}),
            dataset=datasets.get(name),
            below=tuple(below.get(name, ())),
        )
        for name, values in properties.items()
    }


def _importable(
    runner: Runner,
    wanted: t.Sequence[WantedPool],
    pools: t.Mapping[str, Pool],
    devices: DeviceTable,
    contents: t.Mapping[str, DiskContent],
) -> tuple[ImportablePool, ...]:
    """The pools that are not imported.

    Scanning all disks takes long, so it is done only when a pool is wanted that is not there, or when a disk may be
    wiped that has a label of a pool.
    """
    concerned = [
        pool
        for pool in wanted
        if pool.state != "exported" and (pool.name not in pools or (pool.wipe_disks and _labelled(pool, contents)))
    ]
    if not concerned:
        return ()
    folders = tuple(dict.fromkeys(folder for pool in concerned for folder in search_folders(pool, devices)))
    found = list(read_importable(runner))
    if folders:
        found += read_importable(runner, folders)
    # One that both scans see is imported the usual way.
    return tuple({pool.guid: pool for pool in reversed(found)}.values())


def _labelled(pool: WantedPool, contents: t.Mapping[str, DiskContent]) -> bool:
    return any(disk in contents and may_be_of_pool(contents[disk]) for disk in pool.disks)


def search_folders(pool: WantedPool, devices: DeviceTable) -> t.Iterator[str]:
    """Where zpool has to look for a pool, apart from the system's device folders."""
    yield from pool.search_paths
    for disk in pool.disks:
        if devices.find(disk) is None and posixpath.isabs(disk) and os.path.isfile(disk):
            yield posixpath.dirname(disk)


def _contents(
    runner: Runner,
    wanted: t.Sequence[WantedPool],
    pools: t.Mapping[str, Pool],
    devices: DeviceTable,
) -> dict[str, DiskContent]:
    """What is on the disks that are not yet in the pool they are wanted for."""
    new: dict[str, None] = {}
    for pool in wanted:
        if pool.state != "present":
            continue
        own = [path for path, _role in pools[pool.name].devices()] if pool.name in pools else []
        for disk in pool.disks:
            if not any(devices.same_disk(disk, path) for path in own):
                new[disk] = None
    return {found.path: found for found in probe_all(runner, devices, tuple(new))}


def _key_files(runner: Runner, wanted: t.Sequence[WantedPool], pools: t.Mapping[str, Pool]) -> dict[str, KeyFile]:
    found: dict[str, KeyFile] = {}
    for pool in wanted:
        if pool.state == "present" and pool.key is not None and pool.key.file:
            found[pool.key.file] = keystore.read(runner, pool.key.file, pool.key.format)
            successor = pool.key.file + keystore.NEXT
            if os.path.exists(successor):
                found[successor] = keystore.read(runner, successor, pool.key.format)
        elif pool.state == "exported" and pool.name in pools:
            root = pools[pool.name].dataset
            path = keystore.path_of(root.value("keylocation")) if root is not None else None
            if root is not None and path is not None:
                found[path] = keystore.read(runner, path, root.value("keyformat"))
    return found


def _obstacles(wanted: t.Sequence[WantedPool], pools: t.Mapping[str, Pool]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pool in wanted:
        if pool.state != "present":
            continue
        existing = pools.get(pool.name)
        mountpoints: list[str] = []
        if existing is None:
            mountpoints.append(pool.mountpoint())
        elif existing.dataset is not None:
            if needs_mount(pool, existing, existing.dataset):
                mountpoints.append(mountpoint_to_be(pool, existing, existing.dataset))
            if mounts_below(pool):
                mountpoints += [one.value("mountpoint") for one in waiting(existing, pool.unlock)]
        found.update({mountpoint: mount_obstacle(mountpoint) for mountpoint in mountpoints if mountpoint})
    return found


def _try_keys(runner: Runner, wanted: t.Sequence[WantedPool], host: PoolHost) -> dict[str, bool]:
    """Ask ZFS whether the key at hand is the right one, but only where the plan depends on it."""
    opens: dict[str, bool] = {}
    for pool in wanted:
        existing = host.pools.get(pool.name)
        root = existing.dataset if existing is not None else None
        key = pool.key
        if pool.state != "present" or key is None or root is None or not root.encrypted:
            continue
        found = host.key_files.get(key.file) if key.file else None
        lost = key.file is not None and (found is None or not found.exists)
        moved = key.file is not None and root.value("keylocation") != key.location
        if not (lost or moved or (root.locked and pool.unlock)) or key.format != root.value("keyformat"):
            continue
        stdin, location, _origin = key_at_hand(key, host)
        if location:
            opens[pool.name] = key_opens(runner, root.name, stdin, location)
    return opens


def _successors(runner: Runner, wanted: t.Sequence[WantedPool], host: PoolHost) -> dict[str, KeyFile]:
    """Key files that a rotation wrote and ZFS took, but that were not given their name yet.

    Such a file is rare, and only where there is one ZFS is asked about it.
    """
    found: dict[str, KeyFile] = {}
    for pool in wanted:
        existing = host.pools.get(pool.name)
        root = existing.dataset if existing is not None else None
        if pool.key is None or pool.key.file is None or root is None or not root.encrypted:
            continue
        file = host.key_files.get(pool.key.file + keystore.NEXT)
        if file is None or file.key is None or pool.key.format != root.value("keyformat"):
            continue
        if key_opens(runner, root.name, None, file.location):
            found[pool.name] = file
    return found
