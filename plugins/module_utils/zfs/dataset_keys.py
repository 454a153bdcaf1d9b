# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the key that opens an encryption root among those that are offered and those that are on the host."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from ..command import Command
from ..errors import BadInput, Refused
from ..plan import Action, Change, Step
from ..secrets import Key
from . import keystore
from .dataset_actions import LoadKey, Promote, root_key
from .dataset_draft import Blocked, Draft, MissingFile
from .keystore import KeyFile
from .offers import Offer, doubt
from .state import Dataset, way_back, wrong_key


@dataclass(frozen=True)
class FoundKey:
    """The key of a root. ``key`` is ``None`` when ZFS has to fetch it itself, from a URL.

    ``unfinished``: the key file whose successor this is; an interrupted rotation did not give it its name.
    """

    key: Key | None = field(repr=False)
    origin: str
    unfinished: str = ""


def find_key(root: Dataset, draft: Draft) -> FoundKey:
    """The key that opens a root.

    An explicit key is the only one that is tried. Otherwise that of the nearest ancestor whose key is meant for all
    below it, then that of the root's own keylocation.

    :raises Refused: none is at hand, or none of them fits
    :raises StorageError: whether a key fits could not be found out
    """
    # By origin, what strikes the eye about a key.
    tried: dict[str, str] = {}
    for offer in draft.wishes.offers.of(root.name):
        try:
            key = _offered(offer, root, draft)
        except BadInput as error:
            if root.name in draft.wishes.offers.explicit:
                raise
            # What is meant for all below a dataset may not be of the format of each.
            tried[offer.origin] = error.message
            continue
        if draft.host.opens(root.name, key):
            return FoundKey(key, offer.origin)
        tried[offer.origin] = doubt(key, offer.origin)
    if root.name not in draft.wishes.offers.explicit:
        found = _at_location(root, draft, tried)
        if found is not None:
            return found
    if tried:
        raise wrong_key(root.name, " and ".join(tried), " ".join(filter(None, tried.values())))
    raise _no_key(root, draft)


def _offered(offer: Offer, root: Dataset, draft: Draft) -> Key:
    key_format = root.value("keyformat")
    if offer.file is None:
        return offer.key_for(key_format)
    found = draft.host.key_file(offer.file, key_format, strict=False)
    refuse_own_file(root.name, found, draft)
    if found.key is None:
        raise _unusable(root.name, found)
    return found.key


def _at_location(root: Dataset, draft: Draft, tried: dict[str, str]) -> FoundKey | None:
    """The key in the file of the keylocation, or in the successor of that file."""
    location = root.value("keylocation")
    if location.startswith(("http://", "https://")):
        return FoundKey(None, keystore.describe_location(location))
    path = keystore.path_of(location)
    if path is None:
        return None
    for candidate in keystore.key_files_for(path):
        if candidate != path and not is_there(candidate, root.value("keyformat"), draft):
            continue
        found = draft.host.key_file(candidate, root.value("keyformat"), strict=False)
        if found.key is None:
            continue
        if draft.host.opens(root.name, found.key):
            return FoundKey(found.key, candidate, path if candidate == path + keystore.NEXT else "")
        tried[candidate] = doubt(found.key, candidate)
    return None


def present_format(dataset: Dataset) -> str:
    """The format of the key of a dataset; "" if it uses that of another one."""
    return dataset.value("keyformat") if dataset.is_root else ""


def is_present(key: Key, dataset: Dataset, draft: Draft) -> bool:
    """Whether a key is the one that a dataset has, of its own."""
    return key.format == present_format(dataset) and draft.host.opens(dataset.name, key)


def is_there(path: str, key_format: str, draft: Draft) -> bool:
    """Whether there is such a key file; in the keystore that is known without looking at each."""
    if in_keystore(path, draft):
        return os.path.basename(path) in draft.host.stored
    return draft.host.key_file(path, key_format, strict=False).exists


def in_keystore(path: str, draft: Draft) -> bool:
    """Whether a path is that of a file in the keystore, where this collection may remove what it made."""
    return os.path.dirname(path) == draft.host.folder


def _no_key(root: Dataset, draft: Draft) -> Refused:
    path = keystore.path_of(root.value("keylocation"))
    if path is None:
        return Refused(
            f"No key is given for '{root.name}', and ZFS has none on this host (keylocation is "
            f"{keystore.describe_location(root.value('keylocation'))}).",
            hint="Give it in key, keys or a manifest.",
        )
    return _unusable(root.name, draft.host.key_file(path, root.value("keyformat"), strict=False))


def _unusable(root: str, found: KeyFile) -> Refused:
    if not found.exists:
        return MissingFile(
            found.path,
            f"The key file {found.path} of '{root}' does not exist.",
            hint="Restore it from a backup, or give the key in key, keys or a manifest.",
        )
    return Refused(f"The key file {found.path} of '{root}' can't be used: {found.fault}")


def refuse_own_file(name: str, found: KeyFile, draft: Draft) -> None:
    """A key file must not lie on a dataset that can only be read once that key is loaded."""
    source = draft.model.get(found.source)
    if source is None or not source.encrypted:
        return
    if source.name == name or source.name.startswith(name + "/") or source.root == name:
        raise Refused(
            f"The key file {found.path} lies on '{source.name}', which can be read only while '{name}' is unlocked: "
            "once that is locked, nobody can open it again.",
            hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
        )


def refuse_circle(name: str, found: KeyFile | None, draft: Draft) -> None:
    """A key file must not lie on a dataset whose own key lies, over whatever others, on what the first key opens.

    :raises Refused: once all of them are locked, none could be opened
    """
    if found is None:
        return
    source, seen = draft.model.get(found.source), {name}
    way: list[str] = []
    while source is not None and source.encrypted and source.root not in seen:
        seen.add(source.root)
        holder = draft.model.get(source.root)
        path = None if holder is None else keystore.path_of(holder.value("keylocation"))
        if holder is None or path is None:
            return
        way.append(f"that of '{holder.name}' is {path}")
        source = draft.model.get(draft.host.key_file(path, holder.value("keyformat"), strict=False).source)
    if way and source is not None and source.root == name:
        raise Refused(
            f"The key file {found.path} of '{name}' would lie where it can be read only while '{name}' is unlocked: "
            f"{', '.join(way)}.",
            hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
        )


def warn_exposed(found: KeyFile, draft: Draft) -> None:
    """Say that a key file is no secret; what others have read stays known to them, so nothing is changed."""
    if found.exposed:
        draft.warnings.append(f"The key file {found.path} can be read by others than root; set its mode to 0400.")


def is_own_file(path: str, name: str, draft: Draft) -> bool:
    """Whether a file was surely made by this collection, for a dataset of the same pool."""
    return in_keystore(path, draft) and keystore.named_after(path, name.split("/")[0])


def is_leftover(successor: KeyFile, name: str, draft: Draft) -> bool:
    """Whether what lies beside a key file was left there by a rotation, and not by somebody else."""
    return successor.sealed or is_own_file(successor.path, name, draft)


def refuse_foreign(successor: KeyFile, name: str, draft: Draft) -> None:
    """What lies beside a key file is only replaced if an interrupted rotation left it.

    :raises Refused: it may be somebody's
    """
    if not is_leftover(successor, name, draft):
        raise Refused(
            f"The next key of '{name}' has to be written to {successor.path} for a while, but there is such a file "
            "already.",
            hint="Move it away: it may be the only copy of a key.",
        )


def refuse_shared_file(path: str, name: str, draft: Draft) -> None:
    """A key file must not get another content while it is the only copy of the key of another dataset.

    :raises Refused: it is the key file of others too, or that can't be found out
    """
    others = draft.sharers(path, name)
    if others:
        raise Refused(
            f"The key file {path} of '{name}' is also that of {', '.join(repr(one) for one in others)}, which could "
            "not be opened any more if the key in it were replaced.",
            hint=f"Give '{name}' a key file of its own, for example with 'file: auto'; the key is moved there with its "
            "next change.",
        )
    silent = _silent_users(path, name, draft)
    if silent:
        raise Refused(
            f"The key file {path} of '{name}' may also be that of a dataset in {', '.join(silent)}, which does not "
            "answer, and which could not be opened any more if the key in it were replaced.",
            hint=f"{way_back(silent[0])} Or give '{name}' a key file of its own with 'file: auto'; the key is moved "
            "there with its next change.",
        )


def is_shared(path: str, name: str, draft: Draft) -> bool:
    """Whether a key file is, or may be, that of other datasets too."""
    return bool(draft.sharers(path, name) or _silent_users(path, name, draft))


def _silent_users(path: str, name: str, draft: Draft) -> list[str]:
    """The pools that do not answer, whose datasets may use a key file that is not surely of this dataset alone."""
    return [] if is_own_file(path, name, draft) else draft.host.silent_pools()


def load_steps(root: Dataset, found: FoundKey, draft: Draft) -> t.Iterator[Step]:
    """Load a key that was proven, and finish what an interrupted rotation left."""
    volumes = tuple(
        one.name
        for one in draft.model.members(root.name)
        if one.value("type") == "volume" and one.value("volmode") != "none"
    )
    action: Action = Command(("zfs", "load-key", root.name))
    if found.key is not None:
        action = LoadKey(root_key(root, found.key))
        draft.awaits(root.name, volumes)
    yield Step(
        f"Unlock '{root.name}' with the key from {found.origin}",
        action,
        (Change(("datasets", root.name, "locked"), True, False),),
    )
    both = (found.unfinished, found.unfinished + keystore.NEXT)
    if found.unfinished and not any(is_shared(one, root.name, draft) for one in both):
        yield promote_step(root.name, found.unfinished)


def promote_step(name: str, path: str) -> Step:
    """The next key takes the place of the one before."""
    return Step(
        f"Put the current key of '{name}' in its place, {path}",
        Promote(path),
        (Change(("key_files", path), f"former key of {name}", f"current key of {name}"),),
    )


def refuse_below_locked(name: str, draft: Draft) -> None:
    """Nothing can be opened below a locked encryption root."""
    above = draft.model.locked_root_above(name)
    if above:
        raise Blocked(
            above,
            f"'{name}' can't be unlocked while '{above}' above it is locked.",
            hint=f"Unlock '{above}' first, or in the same task.",
        )
