# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what has to happen to pools. Pure functions: wanted values and a state in, a plan out."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..blockdev.content import DiskContent
from ..blockdev.identity import DeviceTable
from ..blockdev.wipe import wipe_step
from ..command import Command, Runner
from ..errors import Refused
from ..plan import Action, Change, Plan, Step, Value, join
from . import keystore
from .key_option import WantedKey
from .keystore import KeyFile
from .pool_disks import check_disks, restore_blank
from .pool_options import WantedPool
from .properties import Property, PropertyType, filesystem_type, pool_type, same
from .state import Dataset, Pool, mount_tree, wrong_key
from .status import ImportablePool
from .topology import WantedVdev, argument_list, check_redundancy, check_unique, compare

# OpenZFS' own choice for "on"; spelled out, so that what was created does not depend on the version.
DEFAULT_CIPHER = "aes-256-gcm"


@dataclass(frozen=True)
class PoolHost:
    """What was read of a host for the pools of one task.

    ``contents``: by wanted disk, only for disks that are not yet in their pool. ``key_files``: by path.
    ``opens``: by pool, whether the key at hand is the current one, where that had to be tried.
    ``obstacles``: by mountpoint, what is in the way of a mount.
    """

    pools: t.Mapping[str, Pool]
    importable: tuple[ImportablePool, ...]
    devices: DeviceTable
    contents: t.Mapping[str, DiskContent] = field(default_factory=dict)
    key_files: t.Mapping[str, KeyFile] = field(default_factory=dict)
    opens: t.Mapping[str, bool] = field(default_factory=dict)
    obstacles: t.Mapping[str, str] = field(default_factory=dict)


def plan_pools(wanted: t.Sequence[WantedPool], host: PoolHost) -> Plan:
    """The plan for all pools of the task.

    :raises StorageError: something asked for can't or must not be done; then nothing at all is done
    """
    check_unique(((pool.name, vdev) for pool in wanted for vdev in pool.vdevs), host.devices)
    return join(_PLANNERS[pool.state](pool, host) for pool in wanted)


def _plan_absent(wanted: WantedPool, host: PoolHost) -> Plan:
    pool = host.pools.get(wanted.name)
    if pool is not None:
        _confirm(wanted, pool.guid)
        destroy = Step(
            f"Destroy pool '{pool.name}' ({pool.guid})",
            Command(("zpool", "destroy", pool.name)),
            (Change(("pools", pool.name, "state"), "present", "absent"),),
            hint="A pool in use can't be destroyed: 'zfs mount' and 'lsof' tell by what.",
        )
        return Plan((destroy,))
    dormant = _importable(wanted, host)
    if dormant is None:
        return Plan()
    _confirm(wanted, dormant.guid)
    return Plan(
        (
            Step(
                f"Import pool '{dormant.name}' ({dormant.guid}) without mounting, to destroy it",
                _import_command(wanted, dormant),
                (Change(("pools", dormant.name, "state"), "exported", "present"),),
            ),
            Step(
                f"Destroy pool '{dormant.name}' ({dormant.guid})",
                Command(("zpool", "destroy", dormant.name)),
                (Change(("pools", dormant.name, "state"), "present", "absent"),),
            ),
        )
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


def _plan_exported(wanted: WantedPool, host: PoolHost) -> Plan:
    pool = host.pools.get(wanted.name)
    if pool is None:
        return Plan()
    _refuse_suspended(pool)
    root = pool.dataset
    path = keystore.path_of(root.value("keylocation")) if root is not None and root.encrypted else None
    if path is not None:
        _refuse_own_dataset(wanted.name, host.key_files.get(path))
    export = Step(
        f"Export pool '{pool.name}'",
        Command(("zpool", "export", pool.name)),
        (Change(("pools", pool.name, "state"), "present", "exported"),),
        hint="Something still uses it: 'zfs mount', 'lsof' and 'swapon' tell what.",
    )
    return Plan((export,))


def _plan_present(wanted: WantedPool, host: PoolHost) -> Plan:
    if wanted.key is not None:
        _check_key_file(wanted.key, wanted.name, host)
    pool = host.pools.get(wanted.name)
    if pool is not None:
        return _plan_existing(wanted, pool, host)
    dormant = _importable(wanted, host)
    if dormant is not None:
        return _plan_import(wanted, dormant, host)
    return _plan_create(wanted, host)


def _importable(wanted: WantedPool, host: PoolHost) -> ImportablePool | None:
    named = [pool for pool in host.importable if pool.name == wanted.name]
    if wanted.confirm_guid:
        chosen = [pool for pool in named if pool.guid == wanted.confirm_guid]
        if named and not chosen:
            raise Refused(
                f"confirm_guid is {wanted.confirm_guid}, but the pool '{wanted.name}' on these disks has the GUID "
                f"{' or '.join(pool.guid for pool in named)}; it was not touched."
            )
        named = chosen
    if len(named) > 1:
        raise Refused(
            f"There are {len(named)} pools named '{wanted.name}' that could be imported: "
            f"{', '.join(pool.guid for pool in named)}.",
            hint="Tell with confirm_guid which one is meant.",
        )
    return named[0] if named else None


# --- a pool that does not exist yet -----------------------------------------------------------------------------


def _plan_create(wanted: WantedPool, host: PoolHost) -> Plan:
    name, cipher, key = wanted.name, wanted.cipher or DEFAULT_CIPHER, wanted.key
    if not any(vdev.role == "data" for vdev in wanted.vdevs):
        raise Refused(
            f"Pool '{name}' does not exist, is on no attached disk, and can't be created without a vdev for data.",
            hint="Name its vdevs; or attach its disks, or unlock them if they are self-encrypting.",
        )
    if cipher != "off" and key is None:
        raise Refused(
            f"Pool '{name}' is to be created encrypted with {cipher}, but there is no key.",
            hint="Add for example 'key: {format: hex, file: auto, generate: true}', or set 'cipher: \"off\"' for a "
            "pool whose root dataset is not encrypted.",
        )
    check_redundancy(name, {}, () if wanted.force else wanted.vdevs)
    wipes = check_disks(wanted, wanted.vdevs, host.pools, host.contents, host.devices)
    mountpoint = wanted.mountpoint()
    _refuse_obstacle(name, mountpoint, host)
    steps = [wipe_step(content) for content in wipes]
    if key is not None:
        _refuse_below_mountpoint(name, key, mountpoint)
        key_file = host.key_files.get(key.file) if key.file else None
        if key.file and not (key_file and key_file.exists):
            if key.value is None and not key.generate:
                raise Refused(
                    f"The key file {key.file} for the new pool '{name}' does not exist.",
                    hint="Put the key there, give it as key.value, or set 'generate: true' for a new random key.",
                )
            steps.append(_store_step(name, key))
    create = Step(
        f"Create pool '{name}'" + (f", encrypted with {cipher}" if cipher != "off" else ", not encrypted"),
        Command(_create_arguments(wanted, cipher), stdin=_key_on_stdin(key)),
        tuple(_creation_changes(wanted, cipher)),
        undo=_creation_undo(wanted),
        hint="The pool was taken back; its key file, if there is one, was kept.",
    )
    return Plan((*steps, create), _key_warnings(wanted, host))


def _key_on_stdin(key: WantedKey | None) -> bytes | None:
    """zpool reads the key from stdin exactly when the keylocation of the new pool is ``prompt``."""
    return key.value.stdin() if key is not None and key.file is None and key.value is not None else None


def _create_arguments(wanted: WantedPool, cipher: str) -> tuple[str, ...]:
    arguments = ["zpool", "create"]
    if wanted.force:
        arguments.append("-f")
    if wanted.ashift is not None:
        arguments += ["-o", f"ashift={wanted.ashift}"]
    for name, value in wanted.properties.items():
        if value is not None:
            arguments += ["-o", f"{name}={value}"]
    if cipher == "off":
        arguments += ["-O", "encryption=off"]
    elif wanted.key is not None:
        arguments += ["-O", f"encryption={cipher}", "-O", f"keyformat={wanted.key.format}"]
        arguments += ["-O", f"keylocation={wanted.key.location}"]
        if wanted.key.iterations is not None:
            arguments += ["-O", f"pbkdf2iters={wanted.key.iterations}"]
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
            if value is not None:
                yield Change((*path, branch, name), None, value)


def _creation_undo(wanted: WantedPool) -> tuple[Action, ...]:
    """What takes back a failed ``zpool create``: it may leave an unmounted pool, or only its partitions.

    Safe because the plan is made only when no such pool was imported and all disks were blank.
    """

    def destroy(runner: Runner) -> None:
        listed = runner.run(Command(("zpool", "list", "-H", "-o", "name")))
        if wanted.name in listed.stdout.split("\n"):
            runner.run(Command(("zpool", "destroy", wanted.name)))

    return (destroy, restore_blank(wanted.disks))


def _store_step(name: str, key: WantedKey) -> Step:
    path = key.file or ""
    return Step(
        f"Write the {'given' if key.value else 'new random'} {key.format} key of '{name}' to {path}",
        keystore.store_work(path, key.value, key.format),
        (Change(("key_files", path), None, f"{key.format} key of {name}, readable by root only"),),
    )


# --- a pool that is exported ------------------------------------------------------------------------------------


def _import_command(wanted: WantedPool, dormant: ImportablePool) -> Command:
    arguments = ["zpool", "import", "-N"]
    if dormant.foreign:
        if not wanted.import_foreign:
            raise Refused(
                f"Pool '{dormant.name}' ({dormant.guid}) was last used by another host and not exported there.",
                hint="Two hosts writing to one pool destroy it. If the other host is surely off or has lost the disks, "
                "set 'import_foreign: true'.",
            )
        arguments.append("-f")
    for name, value in wanted.properties.items():
        if value is not None and pool_type(name).when == "attach":
            arguments += ["-o", f"{name}={value}"]
    for folder in dormant.folders:
        arguments += ["-d", folder]
    return Command((*arguments, dormant.guid))


def _plan_import(wanted: WantedPool, dormant: ImportablePool, host: PoolHost) -> Plan:
    name, key = wanted.name, wanted.key
    if dormant.state not in ("ONLINE", "DEGRADED"):
        raise Refused(
            f"Pool '{name}' ({dormant.guid}) is there, but can't be imported: its state is {dormant.state}. "
            f"{dormant.message}".strip(),
            hint="Some disks are missing or still locked; 'zpool import' shows which.",
        )
    steps = [
        Step(
            f"Import pool '{name}' ({dormant.guid})",
            _import_command(wanted, dormant),
            (Change(("pools", name, "state"), "exported", "present"),),
        )
    ]
    if wanted.unlock and key is not None:
        # A wrong key shows only now; the pool is then put back as it was found.
        undo = (Command(("zpool", "export", name)),)
        steps.append(_unlock_step(name, key, host, undo))
    if wanted.mount:
        steps.append(_mount_step(name))
    reveals = "what differs inside an exported pool (vdevs, properties) shows only after its import"
    return Plan(tuple(steps), _key_warnings(wanted, host), reveals)


# --- a pool that is imported ------------------------------------------------------------------------------------


def _plan_existing(wanted: WantedPool, pool: Pool, host: PoolHost) -> Plan:
    _refuse_suspended(pool)
    root = pool.dataset
    if root is None:
        raise Refused(f"The root dataset of pool '{pool.name}' could not be read.")
    if wanted.confirm_guid and wanted.confirm_guid != pool.guid:
        raise Refused(
            f"confirm_guid is {wanted.confirm_guid}, but the imported pool '{pool.name}' has the GUID {pool.guid}."
        )
    warnings = list(_key_warnings(wanted, host))
    if pool.health not in ("ONLINE", "-"):
        warnings.append(f"Pool '{pool.name}' is {pool.health}; see 'zpool status {pool.name}'.")
    _check_encryption(wanted, root)
    steps: list[Step] = []
    steps += _extension(wanted, pool, host, warnings)
    steps += _pool_properties(wanted, pool)
    steps += _key_steps(wanted, root, host)
    steps += _filesystem_properties(wanted, root)
    steps += _unlock_and_mount(wanted, root, host)
    return Plan(tuple(steps), tuple(warnings))


def _refuse_suspended(pool: Pool) -> None:
    if pool.health in ("SUSPENDED", "UNAVAIL", "FAULTED"):
        raise Refused(
            f"Pool '{pool.name}' is {pool.health}: it can't be read or changed.",
            hint=f"Bring its devices back, then run 'zpool clear {pool.name}'.",
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
    wipes = check_disks(wanted, missing, host.pools, host.contents, host.devices)
    for content in wipes:
        yield wipe_step(content)
    arguments = ["zpool", "add"]
    if wanted.force:
        arguments.append("-f")
    if wanted.ashift is not None:
        arguments += ["-o", f"ashift={wanted.ashift}"]
    before = tuple(_present_vdevs(wanted.vdevs, missing))
    added = [vdev.describe() for vdev in missing]
    disks = tuple(disk for vdev in missing for disk in vdev.disks)
    yield Step(
        f"Add to pool '{pool.name}': {', '.join(added)}",
        Command((*arguments, pool.name, *argument_list(missing))),
        (Change(("pools", pool.name, "vdevs"), before, tuple(vdev.describe() for vdev in wanted.vdevs)),),
        undo=(restore_blank(disks),),
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
        yield Step(
            f"Set pool property {name}={value} on '{pool.name}'",
            Command(("zpool", "set", f"{name}={value}", pool.name)),
            (Change(("pools", pool.name, "properties", name), _shown(actual), value),),
        )


def _filesystem_properties(wanted: WantedPool, root: Dataset) -> t.Iterator[Step]:
    for name, value in wanted.filesystem_properties.items():
        kind = filesystem_type(name)
        actual = root.properties.get(name)
        path = ("pools", root.name, "filesystem_properties", name)
        if value is None:
            if actual is not None and actual.own:
                _refuse_fixed(root, name, "its default", actual, kind)
                yield Step(
                    f"Unset property {name} of '{root.name}'",
                    Command(("zfs", "inherit", name, root.name)),
                    (Change(path, actual.value, None),),
                )
            continue
        if actual is not None and same(_below_altroot(name, value, wanted), actual.value, kind):
            continue
        _refuse_fixed(root, name, f"'{value}'", actual, kind)
        yield Step(
            f"Set property {name}={value} on '{root.name}'",
            Command(("zfs", "set", f"{name}={value}", root.name)),
            (Change(path, _shown(actual), value),),
        )


def _below_altroot(name: str, value: str, wanted: WantedPool) -> str:
    """ZFS shows mountpoints with the altroot of the pool in front."""
    altroot = (wanted.properties.get("altroot") or "").rstrip("/")
    if name != "mountpoint" or not altroot or not value.startswith("/"):
        return value
    return (altroot + value).rstrip("/")


def _refuse_fixed(root: Dataset, name: str, value: str, actual: Property | None, kind: PropertyType) -> None:
    if kind.when == "create":
        raise Refused(
            f"Property '{name}' of '{root.name}' should be {value}, but is '{actual.value if actual else '-'}'; it is "
            "fixed when a dataset is created."
        )


def _shown(actual: Property | None) -> Value:
    return None if actual is None or actual.value == "-" else actual.value


# --- keys -------------------------------------------------------------------------------------------------------


def _check_key_file(key: WantedKey, name: str, host: PoolHost) -> None:
    """A key file has to hold a key of the right format, and the given one if one is given."""
    found = host.key_files.get(key.file) if key.file else None
    if found is None:
        return
    _refuse_own_dataset(name, found)
    if not found.exists:
        return
    if found.fault:
        raise Refused(
            f"The key file {found.path} of '{name}' can't be used: {found.fault}",
            hint="Correct or remove the file; it is never overwritten.",
        )
    if key.value is not None and found.key is not None and not key.value.same_as(found.key):
        raise Refused(
            f"The key file {found.path} holds another key than key.value for '{name}'.",
            hint="One of them is outdated. Find out which one opens the pool before you remove the other.",
        )


def _refuse_own_dataset(name: str, found: KeyFile | None) -> None:
    if found is not None and (found.source == name or found.source.startswith(name + "/")):
        raise Refused(
            f"The key file {found.path} lies on '{found.source}', inside the pool that it opens: once that is locked, "
            "nobody can open it again.",
            hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
        )


def _refuse_below_mountpoint(name: str, key: WantedKey, mountpoint: str) -> None:
    if key.file and mountpoint and (key.file + "/").startswith(mountpoint.rstrip("/") + "/"):
        raise Refused(
            f"The key file {key.file} would lie below {mountpoint}, where pool '{name}' itself will be mounted.",
            hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
        )


def _refuse_obstacle(name: str, mountpoint: str, host: PoolHost) -> None:
    obstacle = host.obstacles.get(mountpoint, "")
    if obstacle:
        raise Refused(
            f"The root filesystem of pool '{name}' can't be mounted: {obstacle}.",
            hint="Move away what is there, choose another mountpoint in filesystem_properties, or set 'mount: false'.",
        )


def _key_warnings(wanted: WantedPool, host: PoolHost) -> tuple[str, ...]:
    found = host.key_files.get(wanted.key.file) if wanted.key is not None and wanted.key.file else None
    if found is not None and found.exposed:
        return (f"The key file {found.path} can be read by others than root; set its mode to 0400.",)
    return ()


def _key_at_hand(key: WantedKey, host: PoolHost) -> tuple[bytes | None, str, str]:
    """Stdin, keylocation and a name for people of the key that can be used now; an empty location if there is none."""
    found = host.key_files.get(key.file) if key.file else None
    if found is not None and found.key is not None:
        return None, found.location, found.path
    if key.value is not None:
        return key.value.stdin(), "prompt", "key.value"
    return None, "", ""


def _key_steps(wanted: WantedPool, root: Dataset, host: PoolHost) -> t.Iterator[Step]:
    """Bring the key file and the keylocation of an existing pool in order, once its key is proven."""
    key = wanted.key
    if key is None or key.file is None:
        return
    found = host.key_files.get(key.file)
    lost = found is None or not found.exists
    actual = root.value("keylocation")
    if not lost and actual == key.location:
        return
    if lost and key.value is None:
        raise Refused(
            f"The key file {key.file} of pool '{root.name}' is missing, and the key is not given either.",
            hint="Restore it from a backup."
            if root.locked
            else "The pool is still unlocked: do not reboot or lock it. Restore the file from a backup, or give the "
            "pool a new key with 'zfs change-key' while you can.",
        )
    if not host.opens.get(root.name, False):
        raise wrong_key(root.name, "key.value" if lost else key.file)
    if lost:
        yield _store_step(root.name, key)
    if actual != key.location:
        yield Step(
            f"Set the keylocation of '{root.name}' to {key.location}",
            Command(("zfs", "set", f"keylocation={key.location}", root.name)),
            (Change(("pools", root.name, "keylocation"), keystore.describe_location(actual), key.location),),
        )


def _unlock_step(name: str, key: WantedKey, host: PoolHost, undo: tuple[Action, ...] = ()) -> Step:
    stdin, location, origin = _key_at_hand(key, host)
    if not location:
        raise Refused(
            f"Pool '{name}' is locked, and its key file {key.file} does not exist.",
            hint="Restore the file from a backup, or give the key as key.value.",
        )
    return Step(
        f"Unlock '{name}' with the key from {origin}",
        Command(("zfs", "load-key", "-L", location, name), stdin=stdin),
        (Change(("pools", name, "locked"), True, False),),
        undo=undo,
    )


def _mount_step(name: str) -> Step:
    def mount(runner: Runner) -> None:
        mount_tree(runner, name)

    return Step(
        f"Mount the filesystems of '{name}'",
        mount,
        (Change(("pools", name, "mounted"), False, True),),
    )


def _unlock_and_mount(wanted: WantedPool, root: Dataset, host: PoolHost) -> t.Iterator[Step]:
    locked = root.locked
    if locked and wanted.unlock:
        yield _unlock_existing(wanted, root, host)
        locked = False
    if wanted.mount and not locked and root.mountable() and not root.mounted:
        _refuse_obstacle(root.name, root.value("mountpoint"), host)
        yield _mount_step(root.name)


def _unlock_existing(wanted: WantedPool, root: Dataset, host: PoolHost) -> Step:
    location = root.value("keylocation")
    if wanted.key is None:
        if location == "prompt":
            raise Refused(
                f"Pool '{root.name}' is locked, and no key is given.",
                hint="Give the key, or set 'unlock: false' to leave the pool locked.",
            )
        return Step(
            f"Unlock '{root.name}' with the key from {keystore.describe_location(location)}",
            Command(("zfs", "load-key", root.name)),
            (Change(("pools", root.name, "locked"), True, False),),
        )
    step = _unlock_step(root.name, wanted.key, host)
    if not host.opens.get(root.name, False):
        raise wrong_key(root.name, _key_at_hand(wanted.key, host)[2])
    return step


_PLANNERS: t.Mapping[str, t.Callable[[WantedPool, PoolHost], Plan]] = {
    "present": _plan_present,
    "exported": _plan_exported,
    "absent": _plan_absent,
}
