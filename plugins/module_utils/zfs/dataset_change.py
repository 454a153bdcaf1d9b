# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the key of an existing dataset in line with what is described.

What is described is a key, a file, or both. A given key is the truth; without one, the content of the file is; without
a file, a new random key is made, or that of the present keylocation is taken over. Whether it is the current key of the
encryption root is asked of ZFS. A key that comes new into a file that holds another one is written beside it, and takes
its name after ZFS opened the dataset with it, so that a crash at any moment leaves the current key in one of the two.
"""

from __future__ import annotations

import functools
import typing as t
from dataclasses import dataclass, field, replace

from ..command import Command
from ..errors import Refused
from ..plan import Change, Step
from ..secrets import Key, check_iterations
from . import keystore
from .dataset_actions import ChangeKey, RemoveFile, StoreKey
from .dataset_adopt import adoptable, may_open_another, opens_another
from .dataset_draft import Draft, MissingFile
from .dataset_interrupted import Interrupted, find_interrupted, present_beside
from .dataset_keys import (
    FoundKey,
    find_key,
    is_leftover,
    is_present,
    is_shared,
    is_there,
    load_steps,
    present_format,
    promote_step,
    refuse_below_locked,
    refuse_circle,
    refuse_foreign,
    refuse_own_file,
    refuse_shared_file,
    warn_exposed,
)
from .dataset_options import KeyWish, WantedDataset
from .dataset_policy import check_new_root
from .dataset_replica import is_replica, refuse_replica
from .dataset_retire import finish_retiring, mark_steps, retire_steps
from .keystore import KeyFile
from .names import lies_below
from .offers import doubt
from .state import Dataset, wrong_key


@dataclass(frozen=True)
class Findings:
    """What the key that is described has to do with the one the dataset has.

    ``key`` is ``None`` if a new random one is to be made, ``current`` tells whether it is the present one. ``file`` is
    the described key file, ``holds`` whether the present key is in it. ``next`` is its successor from an interrupted
    rotation, ``promote`` whether the present key is in that one, and it takes the place of the file. Where the formats
    of the two differ, ``file`` is what is in the file by then.
    """

    key_format: str
    key: Key | None = field(repr=False)
    origin: str
    current: bool
    file: KeyFile | None = None
    holds: bool = False
    next: KeyFile | None = None
    promote: bool = False


def key_steps(wanted: WantedDataset, dataset: Dataset, draft: Draft) -> t.Iterator[Step]:
    """Steps that unlock with the described key, change to it, and keep its file in order.

    :raises Refused: a change that can't or must not be made
    """
    wish = wanted.key
    if wish is None:
        return
    if not dataset.encrypted:
        raise Refused(
            f"A key is given for '{dataset.name}', which is not encrypted.",
            hint="Encryption can't be added later: create another dataset and copy the data into it.",
        )
    rotates = _rotates(wanted, wish)
    if rotates:
        if not wanted.detach_replica:
            draft.foresee(functools.partial(is_replica, dataset, draft))
        if wish.file:
            draft.foresee(functools.partial(is_shared, wish.file, dataset.name, draft))
    found = _examine(wish, rotates, dataset, draft)
    reason = _reason_to_change(wanted, wish, found, dataset)
    if reason:
        yield from _change(wanted, wish, found, dataset, draft, reason)
    else:
        yield from _keep(wish, found, dataset, draft)


def _rotates(wanted: WantedDataset, wish: KeyWish) -> bool:
    """Whether a new random key is wanted at each run."""
    return wanted.rotate == "always" and wish.generate


def _examine(wish: KeyWish, rotates: bool, dataset: Dataset, draft: Draft) -> Findings:
    now = present_format(dataset)
    key_format = wish.format or now or "hex"
    check_iterations(wish.iterations, key_format)
    value = wish.value(key_format)

    def current(key: Key | None) -> bool:
        return key is not None and is_present(key, dataset, draft)

    interrupted = find_interrupted(wish.file, key_format, dataset, draft)
    if interrupted is not None:
        return _go_on(interrupted, value, current(value), wish, rotates, key_format, dataset)
    file = _read(wish.file, key_format, now, dataset, draft)
    successor = None
    if wish.file and is_there(wish.file + keystore.NEXT, key_format, draft):
        successor = draft.host.key_file(wish.file + keystore.NEXT, key_format)
    if value is not None and current(value):
        holds = _same(file, value)
        return Findings(
            key_format, value, "key.value", True, file, holds, successor, not holds and _same(successor, value)
        )
    holds = file is not None and current(file.key)
    unfinished = not holds and successor is not None and current(successor.key)
    if value is not None:
        return Findings(key_format, value, "key.value", False, file, holds, successor, unfinished)
    if unfinished and successor is not None:
        return Findings(key_format, successor.key, successor.path, True, file, False, successor, True)
    if file is not None and file.key is not None and file.key.format == key_format:
        return Findings(key_format, file.key, file.path, holds, file, holds, successor)
    if not holds:
        moved = _elsewhere(dataset, now, draft) if now == key_format else None
        if moved is not None and current(moved.key):
            return Findings(key_format, moved.key, moved.path, True, file, False, successor)
    if wish.generate:
        return Findings(key_format, None, "", False, file, holds, successor)
    if holds:
        raise _of_another_format(wish.file or "", dataset, key_format)
    raise MissingFile(
        wish.file or "",
        f"The key file {wish.file} of '{dataset.name}' does not exist.",
        hint="Restore it from a backup, give the key as key.value, or set 'generate: true' for a new key."
        if draft.model.locked(dataset)
        else f"'{dataset.name}' is still unlocked: do not reboot or lock it. Restore the file from a backup, or set "
        "'generate: true' to give it a new key while you can.",
    )


def _go_on(
    interrupted: Interrupted,
    value: Key | None,
    current: bool,
    wish: KeyWish,
    rotates: bool,
    key_format: str,
    dataset: Dataset,
) -> Findings:
    """What becomes of it: the file takes the present key, and then what is described, or the former key is back."""
    successor, former = interrupted.next, interrupted.former
    file = replace(successor, path=wish.file or "")
    if value is not None:
        return Findings(key_format, value, "key.value", current, file, False, successor, True)
    if successor.key is not None and successor.key.format == key_format:
        return Findings(key_format, successor.key, successor.path, True, file, False, successor, True)
    if former is not None and former.key is not None and former.key.format == key_format and not rotates:
        # The content of the file is what is described.
        return Findings(key_format, former.key, former.path, False, former, False, successor)
    if wish.generate:
        return Findings(key_format, None, "", False, file, False, successor, True)
    raise _of_another_format(successor.path, dataset, key_format)


def _of_another_format(path: str, dataset: Dataset, key_format: str) -> Refused:
    return Refused(
        f"The key file {path} holds the present key of '{dataset.name}', which is of format "
        f"{dataset.value('keyformat')}; it should be {key_format}.",
        hint="Give the new key as key.value, or set 'generate: true' for a new random one.",
    )


def _read(path: str | None, key_format: str, now: str, dataset: Dataset, draft: Draft) -> KeyFile | None:
    """The described key file; when the format of the key is to be another one, it may still hold the present key."""
    if path is None:
        return None
    if now and now != key_format:
        found = draft.host.key_file(path, now, strict=False)
        if found.key is not None and draft.host.opens(dataset.name, found.key):
            refuse_own_file(dataset.name, found, draft)
            warn_exposed(found, draft)
            return found
    found = draft.host.key_file(path, key_format)
    refuse_own_file(dataset.name, found, draft)
    if found.fault:
        raise Refused(
            f"The key file {path} of '{dataset.name}' can't be used: {found.fault.rstrip('.')}.",
            hint=f"Correct it, or move it away: it may be the only copy of a key.{_left_beside(path, dataset, draft)}",
        )
    warn_exposed(found, draft)
    return found


def _left_beside(path: str, dataset: Dataset, draft: Draft) -> str:
    """Where an interrupted change has left the present key, as a hint; "" if it has not."""
    found = present_beside(path, dataset, draft, strict=False)
    if found is None:
        return ""
    return (
        f" The present key of '{dataset.name}' is in {found.path}, where a change was interrupted: once {path} is "
        "somewhere else, run this again."
    )


def _elsewhere(dataset: Dataset, key_format: str, draft: Draft) -> KeyFile | None:
    """The key file that ZFS uses now, such as that of the name the dataset had before it was renamed."""
    path = keystore.path_of(dataset.value("keylocation"))
    return None if path is None else draft.host.key_file(path, key_format)


def _same(file: KeyFile | None, key: Key) -> bool:
    return file is not None and file.key is not None and file.key.same_as(key)


def _reason_to_change(wanted: WantedDataset, wish: KeyWish, found: Findings, dataset: Dataset) -> str:
    """Why the key has to be changed, in words; "" if it has not.

    :raises Refused: it is not to be changed, but does not fit
    """
    reason = ""
    if not dataset.is_root:
        reason = f"it uses that of '{dataset.root}'"
    elif dataset.value("keyformat") != found.key_format:
        reason = f"its format is {dataset.value('keyformat')}"
    elif not found.current:
        reason = "it is another one"
    elif wish.iterations is not None and str(wish.iterations) != dataset.value("pbkdf2iters"):
        reason = f"it has {dataset.value('pbkdf2iters')} iterations"
    if wanted.rotate == "never" and reason:
        if reason == "it is another one" and found.origin:
            raise wrong_key(dataset.name, found.origin, doubt(found.key, found.origin) if found.key else "")
        raise Refused(
            f"The key of '{dataset.name}' is not as described: {reason}.",
            hint="With 'rotate: never' it is not changed; leave that out to change it.",
        )
    if wanted.rotate == "always":
        return reason or "it is to be rotated"
    return reason


def _change(
    wanted: WantedDataset, wish: KeyWish, found: Findings, dataset: Dataset, draft: Draft, reason: str
) -> t.Iterator[Step]:
    name = dataset.name
    draft.writable(name)
    if dataset.value("origin") != "-":
        raise Refused(f"'{name}' is a clone; ZFS does not change the keys of clones.", hint="'zfs promote' it first.")
    if not dataset.is_root or dataset.value("keyformat") != found.key_format:
        check_new_root(name, found.key_format, draft)
    refuse_replica(dataset, wanted, draft, "be given another key")
    if wish.file:
        _refuse_below_mountpoint(wish.file, dataset, draft)
    refuse_circle(name, found.file, draft)
    rotates = _rotates(wanted, wish)
    if rotates:
        # Whether it is made now, or was by a run that was interrupted.
        keystore.refuse_memory(name, found.file)
    new = None if rotates else found.key
    adopted = new is None and not (found.holds or found.promote) and adoptable(found.file, dataset, draft)
    if adopted and found.next is not None and found.next.key is not None:
        # That one is removed after it.
        adopted = not opens_another(found.next.key, name, draft)
    if adopted:
        new = found.key
    same = new is not None and _same(found.file, new) and not found.promote
    beside = found.file is not None and (found.file.exists or found.promote) and not same
    if wish.file and beside:
        if not (found.holds or found.promote):
            also = _BY_HAND if new is None else ""
            raise _other_key(wish.file, name, also + _left_beside(wish.file, dataset, draft))
        refuse_shared_file(wish.file, name, draft)
        if found.promote or found.next is not None:
            # It is replaced, or becomes the key file.
            refuse_shared_file(wish.file + keystore.NEXT, name, draft)
    yield from _unlock_to_change(found, dataset, draft)
    if found.promote:
        yield promote_step(name, wish.file or "")
    before = dataset.value("keylocation")
    location = keystore.location_of(wish.file) if wish.file else "prompt"
    yield from mark_steps(name, before, wish.file or "", draft)
    source = ""
    if wish.file:
        source = wish.file + keystore.NEXT if beside else wish.file
        # After promotion its successor is gone.
        successor = found.next if beside and not found.promote else None
        if not same and not _usable(successor, new, dataset, found, draft):
            if successor is not None:
                refuse_foreign(successor, name, draft)
            if new is None:
                keystore.refuse_memory(name, found.file)
            yield _store(name, source, found.key_format, new, replaces=successor is not None)
    yield Step(
        f"Change the key of '{name}' to {'the one in ' + source if source else 'key.value'}, since {reason}",
        ChangeKey(name, found.key_format, location, None if source else new, source, _iterations(wish, found, dataset)),
        tuple(_key_changes(dataset, found.key_format, location, wish)),
    )
    if beside:
        yield promote_step(name, wish.file or "")
    else:
        yield from _remove_unused(found, name, draft)
    marked = any(mark_steps(name, before, wish.file or "", draft))
    yield from retire_steps(name, before, wish.file or "", draft)
    if not marked:
        yield from finish_retiring(name, draft, wish.file or "")
    if adopted:
        draft.warnings.append(
            f"The key file {wish.file} is there already, with a key that opens nothing, so that one becomes the key of "
            f"'{name}'. If no interrupted run left it there, it is an old one. The next rotation replaces it: if an "
            "exported pool, a replica elsewhere or a backup may need it, copy the file before you rotate once more."
        )
    draft.model.change_key(name, found.key_format, location)


def _iterations(wish: KeyWish, found: Findings, dataset: Dataset) -> int | None:
    """A passphrase that follows a passphrase keeps its iterations, unless others are described."""
    if wish.iterations is not None or found.key_format != "passphrase":
        return wish.iterations
    return int(dataset.value("pbkdf2iters")) if dataset.is_root and dataset.value("keyformat") == "passphrase" else None


def _unlock_to_change(found: Findings, dataset: Dataset, draft: Draft) -> t.Iterator[Step]:
    """A key can only be changed while it is loaded."""
    if not draft.model.locked(dataset):
        return
    refuse_below_locked(dataset.name, draft)
    if not dataset.is_root:
        raise Refused(
            f"'{dataset.name}' can't get a key of its own while it is locked.", hint=f"Unlock '{dataset.root}'."
        )
    if found.current and found.key is not None:
        at_hand = FoundKey(found.key, found.origin)
    elif found.holds and found.file is not None and found.file.key is not None:
        at_hand = FoundKey(found.file.key, found.file.path)
    elif found.next is not None and found.next.key is not None and is_present(found.next.key, dataset, draft):
        at_hand = FoundKey(found.next.key, found.next.path)
    else:
        try:
            at_hand = find_key(dataset, draft)
        except Refused as error:
            described = f"The described key does not open '{dataset.name}', which is locked. " if found.key else ""
            error.message = f"{described}{error.message}"
            error.hint = "To change its key, give its present one in keys or a manifest."
            raise
        if found.file is not None and at_hand.unfinished == found.file.path:
            # The rest of the plan is made for that file as it is.
            at_hand = replace(at_hand, unfinished="")
    yield from load_steps(dataset, at_hand, draft)
    draft.model.unlock(dataset.name)
    draft.opens(dataset.name)


def _usable(successor: KeyFile | None, new: Key | None, dataset: Dataset, found: Findings, draft: Draft) -> bool:
    """Whether what an interrupted rotation wrote can be the new key: the same one, or a random one never used."""
    if successor is None or successor.key is None:
        return False
    if new is not None:
        return successor.key.same_as(new)
    if not is_leftover(successor, dataset.name, draft):
        return False
    if not dataset.is_root or dataset.value("keyformat") != found.key_format:
        return True
    return not draft.host.opens(dataset.name, successor.key)


def _store(name: str, path: str, key_format: str, key: Key | None, replaces: bool = False) -> Step:
    return Step(
        f"Write the {'new random' if key is None else 'given'} {key_format} key of '{name}' to {path}",
        StoreKey(path, key_format, key, replaces),
        (Change(("key_files", path), None, f"{key_format} key of {name}, readable by root only"),),
    )


def _key_changes(dataset: Dataset, key_format: str, location: str, wish: KeyWish) -> t.Iterator[Change]:
    path = ("datasets", dataset.name)
    yield Change((*path, "key"), "former key", "new key")
    if not dataset.is_root:
        yield Change((*path, "encryption_root"), dataset.root, dataset.name)
    if dataset.value("keyformat") != key_format:
        yield Change((*path, "keyformat"), dataset.value("keyformat"), key_format)
    before = keystore.describe_location(dataset.value("keylocation"))
    if before != location:
        yield Change((*path, "keylocation"), before, location)
    if wish.iterations is not None and dataset.value("pbkdf2iters") != str(wish.iterations):
        yield Change((*path, "pbkdf2iters"), int(dataset.value("pbkdf2iters")), wish.iterations)


def _keep(wish: KeyWish, found: Findings, dataset: Dataset, draft: Draft) -> t.Iterator[Step]:
    """The described key is the current one: unlock with it, and bring its file in order."""
    name = dataset.name
    if found.key is None:
        raise AssertionError("a key that is current is known")
    if draft.model.locked(dataset):
        refuse_below_locked(name, draft)
        yield from load_steps(dataset, FoundKey(found.key, found.origin), draft)
        draft.model.unlock(name)
        draft.opens(name)
    location = dataset.value("keylocation")
    if wish.file is None:
        yield from _leftovers(name, wish, location, draft)
        return
    if found.promote:
        for one in (wish.file, wish.file + keystore.NEXT):
            refuse_shared_file(one, name, draft)
        yield promote_step(name, wish.file)
    elif found.file is not None and found.file.exists:
        if not _same(found.file, found.key):
            raise _other_key(wish.file, name)
    else:
        _refuse_below_mountpoint(wish.file, dataset, draft)
        refuse_circle(name, found.file, draft)
        if wish.text is None:
            # It comes from the former key file, which is removed.
            keystore.refuse_memory(name, found.file, what="key")
        yield _store(name, wish.file, found.key_format, found.key)
    wanted_location = keystore.location_of(wish.file)
    if location != wanted_location:
        draft.writable(name)
        yield from mark_steps(name, location, wish.file, draft)
        yield Step(
            f"Set the keylocation of '{name}' to {wanted_location}",
            Command(("zfs", "set", f"keylocation={wanted_location}", name)),
            (Change(("datasets", name, "keylocation"), keystore.describe_location(location), wanted_location),),
        )
        yield from retire_steps(name, location, wish.file, draft)
        draft.model.change_key(name, found.key_format, wanted_location)
    if not found.promote:
        yield from _remove_unused(found, name, draft)
    yield from _leftovers(name, wish, location, draft)


def _remove_unused(found: Findings, name: str, draft: Draft) -> t.Iterator[Step]:
    """Remove what a rotation left beside the key file before ZFS took it, unless it may be the key of another one."""
    unused = found.next
    if unused is None or not is_leftover(unused, name, draft) or is_shared(unused.path, name, draft):
        return
    if unused.key is not None and may_open_another(unused.key, name, draft):
        return
    yield Step(
        f"Remove {unused.path}, a key of '{name}' that is not in use",
        RemoveFile(unused.path),
        (Change(("key_files", unused.path), f"unused key of {name}", None),),
    )


def _leftovers(name: str, wish: KeyWish, before: str, draft: Draft) -> t.Iterator[Step]:
    """Finish the removal of a key file that an interrupted run had marked, unless this run marks one itself."""
    if before != _location_to_be(wish, before) and any(mark_steps(name, before, wish.file or "", draft)):
        return
    yield from finish_retiring(name, draft, keystore.path_of(_location_to_be(wish, before)) or "")


def _location_to_be(wish: KeyWish, before: str) -> str:
    return keystore.location_of(wish.file) if wish.file else before


_BY_HAND = (
    " If that key may become the one of this dataset, run this once without 'rotate: always' and 'generate': that "
    "makes it so."
)


def _other_key(path: str, name: str, also: str = "") -> Refused:
    return Refused(
        f"The key file {path} holds another key than the one that opens '{name}'.",
        hint="Find out what it is the key of before you remove it; a file is never overwritten unless its own key is "
        f"rotated.{also}",
    )


def _refuse_below_mountpoint(path: str, dataset: Dataset, draft: Draft) -> None:
    """A key file must not be hidden, or have gone, by the time it is needed to open what is mounted above it."""
    for one in (dataset, *(one for one in draft.model.members(dataset.name) if one.name != dataset.name)):
        mountpoint = one.value("mountpoint")
        if mountpoint.startswith("/") and lies_below(path, mountpoint):
            raise Refused(
                f"The key file {path} would lie below {mountpoint}, where '{one.name}' itself is mounted, which that "
                "key opens.",
                hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
            )
