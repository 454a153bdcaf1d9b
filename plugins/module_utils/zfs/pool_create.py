# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans a pool that does not exist yet."""

from __future__ import annotations

import typing as t

from ..blockdev.host import read_table
from ..blockdev.wipe import wipe_step
from ..command import Command, Runner
from ..errors import Refused, StorageError
from ..plan import Change, Plan, Step, Work
from .key_option import WantedKey
from .keystore import refuse_memory
from .pool_disks import check_disks, confirm_blank, device_was_away, said_by, take_back, wait_for_names
from .pool_keys import key_warnings, refuse_below_mountpoint, store_step
from .pool_mount import refuse_obstacle
from .pool_options import WantedPool
from .pool_property import pool_property_step
from .pool_state import PoolHost
from .state import read_trees
from .topology import argument_list, check_redundancy

# OpenZFS' own choice for "on"; spelled out, so that what was created does not depend on the version.
DEFAULT_CIPHER = "aes-256-gcm"


def plan_create(wanted: WantedPool, host: PoolHost) -> Plan:
    name, cipher, key = wanted.name, wanted.cipher or DEFAULT_CIPHER, wanted.key
    if not any(vdev.role == "data" for vdev in wanted.vdevs):
        raise Refused(
            f"Pool '{name}' does not exist, is on no attached disk, and can't be created without a vdev for data.",
            hint="Name its vdevs; or attach its disks, or unlock them if they are self-encrypting.",
        )
    if wanted.confirm_guid:
        raise Refused(
            f"No pool '{name}' with the GUID {wanted.confirm_guid} is imported or on attached disks.",
            hint="Leave out confirm_guid to create a new pool.",
        )
    if cipher != "off" and key is None:
        raise Refused(
            f"Pool '{name}' is to be created encrypted with {cipher}, but there is no key.",
            hint="Add for example 'key: {format: hex, file: auto, generate: true}', or set 'cipher: \"off\"' for a "
            "pool whose root dataset is not encrypted.",
        )
    check_redundancy(name, {}, () if wanted.force else wanted.vdevs)
    wipes = check_disks(wanted, wanted.vdevs, host.pools, host.contents, host.devices, host.importable)
    mountpoint = wanted.mountpoint()
    refuse_obstacle(name, mountpoint, host)
    steps = [wipe_step(content) for content in wipes]
    if key is not None:
        refuse_below_mountpoint(name, key, mountpoint)
        key_file = host.key_files.get(key.file) if key.file else None
        if key.file and not (key_file and key_file.exists):
            if key.value is None and not key.generate:
                raise Refused(
                    f"The key file {key.file} for the new pool '{name}' does not exist.",
                    hint="Put the key there, give it as key.value, or set 'generate: true' for a new random key.",
                )
            if key.value is None:
                refuse_memory(name, key_file)
            steps.append(store_step(name, key))
    contents = [host.contents[disk] for disk in wanted.disks]
    create = Step(
        f"Create pool '{name}'" + (f", encrypted with {cipher}" if cipher != "off" else ", not encrypted"),
        Command(_create_arguments(wanted, cipher), stdin=_key_on_stdin(key)),
        tuple(_creation_changes(wanted, cipher)),
        undo=(_destroy_own(wanted), take_back(contents, name), wait_for_names),
        hint="What the command left behind is taken back as far as it is its own; a key file is kept.",
        guard=confirm_blank(contents),
        left_nothing=_left_nothing,
        passes=device_was_away,
    )
    return Plan((*steps, create, *_user_properties(wanted)), key_warnings(wanted, host))


def _user_properties(wanted: WantedPool) -> t.Iterator[Step]:
    """OpenZFS knows user properties of pools since 2.2, but takes none of them when a pool is created."""
    for name, value in wanted.properties.items():
        if value is not None and ":" in name:
            yield pool_property_step(wanted.name, name, None, value)


def _key_on_stdin(key: WantedKey | None) -> bytes | None:
    """zpool reads the key from stdin exactly when the keylocation of the new pool is ``prompt``."""
    return key.by_hand.stdin() if key is not None and key.by_hand is not None else None


def _create_arguments(wanted: WantedPool, cipher: str) -> tuple[str, ...]:
    arguments = ["zpool", "create"]
    if wanted.force:
        arguments.append("-f")
    if wanted.ashift is not None:
        arguments += ["-o", f"ashift={wanted.ashift}"]
    for name, value in wanted.properties.items():
        if value is not None and ":" not in name:
            arguments += ["-o", f"{name}={value}"]
    if cipher == "off":
        arguments += ["-O", "encryption=off"]
    elif wanted.key is not None:
        for name, value in wanted.key.properties(cipher).items():
            arguments += ["-O", f"{name}={value}"]
    for name, value in wanted.filesystem_properties.items():
        if value is not None:
            arguments += ["-O", f"{name}={value}"]
    return (*arguments, wanted.name, *argument_list(wanted.vdevs))


def _creation_changes(wanted: WantedPool, cipher: str) -> t.Iterator[Change]:
    path = ("pools", wanted.name)
    yield Change((*path, "state"), "absent", "present")
    yield Change((*path, "vdevs"), None, tuple(vdev.describe() for vdev in wanted.vdevs))
    yield Change((*path, "encryption"), None, cipher)
    if wanted.key is not None:
        yield Change((*path, "keyformat"), None, wanted.key.format)
        yield Change((*path, "keylocation"), None, wanted.key.location)
        if wanted.key.iterations is not None:
            yield Change((*path, "pbkdf2iters"), None, wanted.key.iterations)
    if wanted.ashift is not None:
        yield Change((*path, "ashift"), None, wanted.ashift)
    for branch, wishes in (("properties", wanted.properties), ("filesystem_properties", wanted.filesystem_properties)):
        for name, value in wishes.items():
            if value is not None and not (branch == "properties" and ":" in name):
                yield Change((*path, branch, name), None, value)


def _left_nothing(error: StorageError) -> bool:
    """Whether zpool create refused before it wrote anything; what is there then is somebody else's."""
    return any(words in said_by(error) for words in ("pool already exists", "is part of", "is in use"))


def _destroy_own(wanted: WantedPool) -> Work:
    """Takes back a pool that a failed ``zpool create`` left, such as one whose root can't be mounted.

    It is that pool only if all its devices are those that were blank right before the command.
    """

    def destroy(runner: Runner) -> None:
        tree = read_trees(runner).get(wanted.name)
        leaves = [leaf.path for vdevs in (tree or {}).values() for vdev in vdevs for leaf in vdev.leaves()]
        devices = read_table(runner)
        own = [path for path in leaves if any(devices.same_disk(disk, path) for disk in wanted.disks)]
        # Spares inside a draid are listed too, but are no devices.
        if leaves and own == [path for path in leaves if path.startswith("/")]:
            runner.run(Command(("zpool", "destroy", wanted.name)))

    return destroy
