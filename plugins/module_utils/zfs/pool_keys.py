# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key of a pool in a plan: the file it is in, whether it fits, and unlocking with it."""

from __future__ import annotations

import functools
import typing as t

from ..command import Command, Runner
from ..errors import Refused
from ..plan import Action, Change, Step
from . import keystore
from .key_option import WantedKey
from .keystore import KeyFile
from .names import lies_below
from .pool_options import WantedPool
from .pool_state import PoolHost
from .state import Dataset, wrong_key


def check_key_file(key: WantedKey, name: str, host: PoolHost) -> None:
    """A key file has to hold a key of the right format, and the given one if one is given."""
    found = host.key_files.get(key.file) if key.file else None
    if found is None:
        return
    refuse_own_dataset(name, found)
    if not found.exists:
        return
    if found.fault:
        raise Refused(
            f"The key file {found.path} of '{name}' can't be used: {found.fault}",
            hint="Correct or remove the file; it is never overwritten.",
        )
    if key.value is not None:
        found = _unfinished(key, name, host) or found
    if key.value is not None and found.key is not None and not key.value.same_as(found.key):
        raise Refused(
            f"The key file {found.path} holds another key than key.value for '{name}'.",
            hint="One of them is outdated. Find out which one opens the pool before you remove the other.",
        )


def _unfinished(key: WantedKey, name: str, host: PoolHost) -> KeyFile | None:
    """What an interrupted rotation left beside the key file, if it is or may be the current key of the pool."""
    if name not in host.pools and any(pool.name == name for pool in host.importable):
        return host.key_files.get((key.file or "") + keystore.NEXT)
    return host.successors.get(name)


def refuse_own_dataset(name: str, found: KeyFile | None) -> None:
    if found is not None and (found.source == name or found.source.startswith(name + "/")):
        raise Refused(
            f"The key file {found.path} lies on '{found.source}', inside the pool that it opens: once that is locked, "
            "nobody can open it again.",
            hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
        )


def refuse_below_mountpoint(name: str, key: WantedKey, mountpoint: str) -> None:
    if key.file and mountpoint and lies_below(key.file, mountpoint):
        raise Refused(
            f"The key file {key.file} would lie below {mountpoint}, where pool '{name}' itself will be mounted.",
            hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
        )


def key_warnings(wanted: WantedPool, host: PoolHost) -> tuple[str, ...]:
    found = host.key_files.get(wanted.key.file) if wanted.key is not None and wanted.key.file else None
    if found is not None and found.exposed:
        return (f"The key file {found.path} can be read by others than root; set its mode to 0400.",)
    return ()


def store_step(name: str, key: WantedKey) -> Step:
    path = key.file or ""
    return Step(
        f"Write the {'given' if key.value else 'new random'} {key.format} key of '{name}' to {path}",
        keystore.store_work(path, key.value, key.format),
        (Change(("key_files", path), None, f"{key.format} key of {name}, readable by root only"),),
    )


def key_steps(wanted: WantedPool, root: Dataset, host: PoolHost, mountpoint: str) -> t.Iterator[Step]:
    """Bring the key file and the keylocation of an existing pool in order, once its key is proven."""
    key = wanted.key
    if key is None or key.file is None:
        return
    found = host.key_files.get(key.file)
    successor = host.successors.get(root.name)
    if successor is not None:
        yield Step(
            f"Put the current key of '{root.name}' in its place, {key.file}",
            functools.partial(_promote, key.file),
            (Change(("key_files", key.file), f"former key of {root.name}", f"current key of {root.name}"),),
        )
        found = successor
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
    if successor is None and not host.opens.get(root.name, False):
        raise wrong_key(root.name, "key.value" if lost else key.file)
    if lost:
        refuse_below_mountpoint(root.name, key, mountpoint)
        yield store_step(root.name, key)
    if actual != key.location:
        yield Step(
            f"Set the keylocation of '{root.name}' to {key.location}",
            Command(("zfs", "set", f"keylocation={key.location}", root.name)),
            (Change(("pools", root.name, "keylocation"), keystore.describe_location(actual), key.location),),
        )


def unlock_existing(wanted: WantedPool, root: Dataset, host: PoolHost) -> Step:
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
    if root.name in host.successors:
        # It has been given the name of the key file by an earlier step.
        return _load_step(root.name, None, wanted.key.location, wanted.key.file or "")
    step = unlock_step(root.name, wanted.key, host)
    if not host.opens.get(root.name, False):
        raise wrong_key(root.name, key_at_hand(wanted.key, host)[2])
    return step


def unlock_step(name: str, key: WantedKey, host: PoolHost, undo: tuple[Action, ...] = ()) -> Step:
    stdin, location, origin = key_at_hand(key, host)
    if not location:
        raise Refused(
            f"Pool '{name}' is locked, and its key file {key.file} does not exist.",
            hint="Restore the file from a backup, or give the key as key.value.",
        )
    return _load_step(name, stdin, location, origin, undo)


def _load_step(name: str, stdin: bytes | None, location: str, origin: str, undo: tuple[Action, ...] = ()) -> Step:
    return Step(
        f"Unlock '{name}' with the key from {origin}",
        Command(("zfs", "load-key", "-L", location, name), stdin=stdin),
        (Change(("pools", name, "locked"), True, False),),
        undo=undo,
    )


def _promote(path: str, runner: Runner) -> None:
    keystore.promote(path)


def key_at_hand(key: WantedKey, host: PoolHost) -> tuple[bytes | None, str, str]:
    """Stdin, keylocation and a name for people of the key that can be used now; an empty location if there is none."""
    found = host.key_files.get(key.file) if key.file else None
    if found is not None and found.key is not None:
        return None, found.location, found.path
    if key.value is not None:
        return key.value.stdin(), "prompt", "key.value"
    return None, "", ""
