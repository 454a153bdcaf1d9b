# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans a filesystem or volume that does not exist yet."""

from __future__ import annotations

import typing as t

from ..command import Command
from ..errors import Refused
from ..plan import Change, Step
from ..secrets import Key, check_iterations
from . import keystore
from .dataset_actions import CreateVolume, StoreKey
from .dataset_draft import Blocked, Draft, MissingFile
from .dataset_keys import refuse_own_file, warn_exposed
from .dataset_mount import mount_steps, plan_mounts, unmountable
from .dataset_options import KeyWish, WantedDataset
from .dataset_policy import check_gap, check_new_root, check_plain
from .dataset_replica import shares_with_replica
from .names import lies_below
from .pool_create import DEFAULT_CIPHER
from .properties import Property
from .state import Dataset


def create_steps(wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    """Create a dataset with its own key or that of its parent, and mount it.

    :raises Refused: its parent is missing or locked, the policy forbids it, or its key can't be used
    """
    name, key = wanted.name, wanted.key
    draft.writable(name)
    parent = _parent(wanted, draft)
    key_format = (key.format or "hex") if key is not None else ""
    cipher = _cipher(wanted, parent)
    if cipher == "off":
        check_plain(name, draft)
    elif key is not None:
        check_new_root(name, key_format, draft)
        check_gap(name, draft)
    future = _future(wanted, parent, key_format, cipher, draft)
    mounts = plan_mounts([future], wanted, draft)
    if mounts.refused:
        raise unmountable(mounts)
    given = None
    if key is not None:
        check_iterations(key.iterations, key_format)
        given = key.value(key_format)
        yield from _store(name, key, key_format, given, future, draft)
    stdin = given.stdin() if given is not None and key is not None and key.file is None else None
    command = Command(tuple(_arguments(wanted, key_format, parent)), stdin=stdin)
    has_node = wanted.volsize is not None and future.value("volmode") != "none"
    yield Step(
        f"Create {wanted.kind} '{name}', {_how(cipher, future)}",
        CreateVolume(name, command) if has_node else command,
        tuple(_changes(wanted, cipher, key_format, future)),
    )
    root = draft.model.get(future.root)
    if root is not None and key is None and not wanted.detach_replica:
        danger = shares_with_replica(name, root, draft)
        if danger:
            draft.warnings.append(
                f"'{name}' is created with the key of '{root.name}'. {danger} Give it a key of its own."
            )
    draft.model.add(future)
    draft.opens(name)
    yield from mount_steps(name, mounts, draft)


def _parent(wanted: WantedDataset, draft: Draft) -> Dataset:
    name = wanted.name
    parent = draft.model.parent(name)
    if parent is None:
        above = name.rsplit("/", 1)[0]
        if above in draft.failures:
            raise Blocked(above, f"'{name}' can't be created, since '{above}' was not.")
        raise Refused(
            f"'{name}' can't be created: there is no '{above}'.",
            hint=f"Describe '{above}' in the same task, or create it first.",
        )
    if parent.value("type") != "filesystem":
        raise Refused(f"'{name}' can't be created below '{parent.name}', which is a volume.")
    if parent.encrypted and draft.model.locked(parent):
        raise Blocked(
            parent.root,
            f"'{name}' can't be created while '{parent.root}' is locked.",
            hint=f"Unlock '{parent.root}' first.",
        )
    return parent


def _cipher(wanted: WantedDataset, parent: Dataset) -> str:
    """The encryption it will have.

    :raises Refused: it would be in plain text without having been asked for
    """
    if wanted.cipher is not None:
        if wanted.cipher != "off" and wanted.key is None and not parent.encrypted:
            raise Refused(
                f"'{wanted.name}' is to be encrypted, but has no key, and '{parent.name}' none to inherit.",
                hint="Add for example 'key: {file: auto, generate: true}'.",
            )
        return wanted.cipher
    if parent.encrypted:
        return parent.value("encryption")
    if wanted.key is None:
        raise Refused(
            f"'{wanted.name}' would be stored in plain text: it has no key, and '{parent.name}' is not encrypted.",
            hint="Give it a key, or set 'cipher: \"off\"' if that is meant.",
        )
    return DEFAULT_CIPHER


def _store(
    name: str, key: KeyWish, key_format: str, given: Key | None, future: Dataset, draft: Draft
) -> t.Iterator[Step]:
    """Write the key file of a new dataset, unless it is there."""
    if key.file is None:
        return
    found = draft.host.key_file(key.file, key_format)
    refuse_own_file(name, found, draft)
    mountpoint = future.value("mountpoint")
    if mountpoint.startswith("/") and lies_below(key.file, mountpoint):
        raise Refused(
            f"The key file {key.file} would lie below {mountpoint}, where '{name}' itself will be mounted.",
            hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
        )
    if not found.exists:
        if given is None and not key.generate:
            raise MissingFile(
                key.file,
                f"The key file {key.file} for the new dataset '{name}' does not exist.",
                hint="Put the key there, give it as key.value, or set 'generate: true' for a new random key.",
            )
        if given is None:
            keystore.refuse_memory(name, found)
        yield Step(
            f"Write the {'given' if given else 'new random'} {key_format} key of '{name}' to {key.file}",
            StoreKey(key.file, key_format, given),
            (Change(("key_files", key.file), None, f"{key_format} key of {name}, readable by root only"),),
        )
        return
    if found.fault:
        raise Refused(f"The key file {key.file} of '{name}' can't be used: {found.fault}", hint="Correct or remove it.")
    if given is not None and found.key is not None and not given.same_as(found.key):
        raise Refused(
            f"The key file {key.file} holds another key than key.value for '{name}'.",
            hint="It may be the only copy of the key of something else, so it is not overwritten. Move it away.",
        )
    warn_exposed(found, draft)


def _arguments(wanted: WantedDataset, key_format: str, parent: Dataset) -> t.Iterator[str]:
    yield from ("zfs", "create")
    if wanted.volsize is None:
        yield "-u"
    else:
        yield from ("-V", str(wanted.volsize))
    key = wanted.key
    if wanted.cipher is not None:
        yield from ("-o", f"encryption={wanted.cipher}")
    elif key is not None and not parent.encrypted:
        yield from ("-o", f"encryption={DEFAULT_CIPHER}")
    if key is not None:
        location = keystore.location_of(key.file) if key.file else "prompt"
        yield from ("-o", f"keyformat={key_format}", "-o", f"keylocation={location}")
        if key.iterations is not None:
            yield from ("-o", f"pbkdf2iters={key.iterations}")
    for name, value in wanted.properties.items():
        if value is not None:
            yield from ("-o", f"{name}={value}")
        elif name == "refreservation" and wanted.volsize is not None:
            # ZFS would reserve the whole volume unless told otherwise.
            yield from ("-o", "refreservation=none")
    yield wanted.name


def _future(wanted: WantedDataset, parent: Dataset, key_format: str, cipher: str, draft: Draft) -> Dataset:
    """The dataset as it will be, as far as later decisions depend on it."""
    key = wanted.key
    root = "-" if cipher == "off" else wanted.name if key is not None else parent.root
    values = {
        "type": wanted.kind,
        "encryption": cipher,
        "encryptionroot": root,
        "keystatus": "none" if cipher == "off" else "available",
        "keyformat": "none" if cipher == "off" else key_format or parent.value("keyformat"),
        "keylocation": (keystore.location_of(key.file) if key.file else "prompt") if key is not None else "none",
        "pbkdf2iters": str(key.iterations or 0) if key is not None else parent.value("pbkdf2iters"),
        "mountpoint": draft.place_to_be(wanted.name) if wanted.volsize is None else "-",
        "canmount": (wanted.properties.get("canmount") or "on") if wanted.volsize is None else "-",
        "mounted": "no" if wanted.volsize is None else "-",
        "origin": "-",
        "volmode": wanted.properties.get("volmode") or parent.value("volmode"),
    }
    return Dataset(wanted.name, {word: Property(value, "local") for word, value in values.items()})


def _how(cipher: str, future: Dataset) -> str:
    if cipher == "off":
        return "not encrypted"
    if future.is_root:
        return f"encrypted with {cipher} and a key of its own"
    return f"encrypted with {cipher} and the key of '{future.root}'"


def _changes(wanted: WantedDataset, cipher: str, key_format: str, future: Dataset) -> t.Iterator[Change]:
    path = ("datasets", wanted.name)
    yield Change((*path, "state"), "absent", "present")
    yield Change((*path, "type"), None, wanted.kind)
    yield Change((*path, "encryption"), None, cipher)
    if cipher != "off":
        yield Change((*path, "encryption_root"), None, future.root)
    if wanted.key is not None:
        yield Change((*path, "keyformat"), None, key_format)
        yield Change((*path, "keylocation"), None, future.value("keylocation"))
        if wanted.key.iterations is not None:
            yield Change((*path, "pbkdf2iters"), None, wanted.key.iterations)
    if wanted.volsize is not None:
        yield Change((*path, "volsize"), None, wanted.volsize)
    for name, value in wanted.properties.items():
        if value is not None:
            yield Change((*path, "properties", name), None, value)
