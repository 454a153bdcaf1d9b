# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a replication from being begun, and what every replica has to be afterwards."""

from __future__ import annotations

import typing as t

from ..errors import Refused, first_of
from .key_option import WantedKey
from .names import ancestors, within, within_each_other
from .replicate_options import PLAINTEXT, RAW, REENCRYPT, Replication
from .replicate_read import FEATURES
from .replicate_state import Ends, Side
from .state import Dataset


def selected(wanted: Replication, source: Side) -> list[str]:
    """The datasets to be replicated, parents first.

    :raises Refused: one is included or excluded that does not exist
    """
    for done, given in (("excluded", wanted.exclude), ("included", wanted.include)):
        for name in given:
            if name not in source.datasets:
                raise Refused(f"'{name}' is {done}, but does not exist.")
    names = [name for name in source.datasets if wanted.takes(name)]
    return sorted(names, key=lambda name: name.split("/"))


def in_order(wanted: Replication, source: Side) -> list[str]:
    """The same in the order to send them: parents first and, in a migration, clones behind what they were made of.

    :raises Refused: one is included or excluded that does not exist
    """
    names = selected(wanted, source)
    if not wanted.migration:
        return names
    done: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        ready = next((name for name in waiting if _ready(name, source, done, waiting)), waiting[0])
        # A parent may be the clone of its own child after 'zfs promote'. The parent has to come first then.
        done[ready] = None
        waiting.remove(ready)
    return list(done)


def _ready(name: str, source: Side, done: t.Mapping[str, None], waiting: t.Sequence[str]) -> bool:
    before = (name.rsplit("/", 1)[0], source.datasets[name].value("origin").partition("@")[0])
    return all(one in done or one not in waiting or one == name for one in before)


def check_source(wanted: Replication, source: Side, names: t.Sequence[str]) -> None:
    """:raises Refused: what is asked for can't be had of these datasets"""
    datasets = [source.datasets[name] for name in names]
    if wanted.mode == RAW:
        plain = [one.name for one in datasets if not one.encrypted]
        if plain:
            raise Refused(
                f"Mode 'raw' promises that nothing is readable at the target, but these are not encrypted: "
                f"{_list(plain)}.",
                hint="Set 'mode: reencrypt' to have them encrypted there, name them in 'exclude', or set "
                "'mode: plaintext' if they may lie in the clear.",
            )
        return
    locked = [one.name for one in datasets if one.encrypted and one.locked]
    if locked:
        raise Refused(
            f"Mode '{wanted.mode}' has to read the data of the source, but these are locked: {_list(locked)}.",
            hint="Unlock them first, or set 'mode: raw', which needs no key.",
        )


def check_pools(wanted: Replication, ends: Ends) -> None:
    """:raises Refused: the target's pool is missing, can't be written to, or lacks what the stream needs"""
    source, target = ends.source.pool, ends.target.pool
    name = wanted.target.split("/")[0]
    if not target:
        raise Refused(f"There is no pool '{name}' {_there(wanted)}.", hint="Import or create it first.")
    if target["readonly"].value == "on":
        raise Refused(f"The pool '{name}' {_there(wanted)} is imported read-only.")
    if source.get("guid") == target["guid"] and within_each_other(wanted.source, wanted.target):
        raise Refused(
            f"The target {wanted.where} is the source '{wanted.source}', or one lies in the other: it is the same pool."
        )
    needed = {"encryption", "bookmark_v2"} if wanted.mode != PLAINTEXT else set()
    for feature in FEATURES:
        used = feature in needed or (wanted.streams and source[f"feature@{feature}"].value == "active")
        # An unencrypted stream takes no notice of how the source is encrypted.
        if wanted.mode == PLAINTEXT and feature in ("encryption", "bookmark_v2"):
            used = False
        if used and target[f"feature@{feature}"].value not in ("enabled", "active"):
            raise Refused(
                f"The pool '{name}' {_there(wanted)} does not have the feature '{feature}', which is needed there.",
                hint=f"Enable it there: 'zpool set feature@{feature}=enabled {name}', or 'zpool upgrade'. That can't "
                "be taken back.",
            )


def check_new_target(wanted: Replication, ends: Ends) -> None:
    """:raises Refused: the replica can't be made where it is to be"""
    above = wanted.above
    parent = ends.target.datasets.get(above)
    if parent is None:
        raise Refused(
            f"The target {wanted.where} can't be made: there is no '{above}'.",
            hint="Create it first; it is not made here, since nobody has said how it is to be encrypted.",
        )
    if parent.value("type") != "filesystem":
        raise Refused(f"The target {wanted.where} can't be made: '{above}' is a volume.")
    if wanted.mode == PLAINTEXT and parent.encrypted:
        raise Refused(
            f"The target {wanted.where} would lie in the clear inside '{above}', which is encrypted.",
            hint="Set 'mode: reencrypt' to have it encrypted there, or choose a target elsewhere.",
        )
    if wanted.mode != REENCRYPT or wanted.key is not None:
        return
    if not parent.encrypted:
        raise Refused(
            f"Mode 'reencrypt' without a key uses that of '{above}', which is not encrypted.",
            hint="Give a key for the replica, or choose a target inside an encrypted dataset.",
        )
    if parent.locked:
        raise Refused(
            f"The target {wanted.where} is to be encrypted under the key of '{parent.root}', which is locked.",
            hint=f"Unlock '{parent.root}' {_there(wanted)} first, or set 'mode: raw', which needs no key.",
        )


def check_keys(wanted: Replication, ends: Ends, names: t.Sequence[str]) -> None:
    """Below what a passphrase opens there is no key that lies on the host: its dataset would be open in a closed one.

    :raises Refused: there would be, or what is to have a key is not replicated, or a clone
    """
    strangers = [name for name in wanted.keys if name not in names]
    if strangers:
        raise Refused(f"These are to have keys of their own, but are not among what is sent: {_list(strangers)}.")
    clones = [name for name in wanted.keys if wanted.streams and ends.source.datasets[name].value("origin") != "-"]
    if clones:
        raise Refused(f"A clone is opened by the key of what it was made of, and can't have its own: {_list(clones)}.")
    above = ends.target.datasets.get(wanted.above)
    for name, key in wanted.keys.items():
        if key.format == "passphrase":
            continue
        tops = [one for one in ancestors(name) if within(one, (wanted.source,))]
        fault = next((wanted.at_target(one) for one in tops if _passphrase(wanted.own_key(one))), "")
        if not fault and wanted.key is None and above is not None and above.value("keyformat") == "passphrase":
            fault = above.root
        if fault:
            raise Refused(
                f"'{wanted.at_target(name)}' would have a {key.format} key below '{fault}', which is opened by a "
                "passphrase.",
                hint="Give it a passphrase, too, or let it use the key above it.",
            )


def _passphrase(key: WantedKey | None) -> bool:
    return key is not None and key.format == "passphrase"


def check_promise(wanted: Replication, ends: Ends, names: t.Sequence[str]) -> None:
    """What is received has to be encrypted as the mode says, before something is added to it and after.

    :raises Refused: naming every dataset that is not
    """
    faults = []
    for name in names:
        replica = ends.target.datasets.get(wanted.at_target(name))
        if replica is not None:
            fault = _fault(wanted, ends, name, replica)
            if fault:
                faults.append(f"'{replica.name}' {fault}")
    if faults:
        raise Refused(
            f"At the target{' on ' + repr(wanted.ssh.host) if wanted.ssh else ''}, this is not as mode '{wanted.mode}' "
            f"promises: {'; '.join(faults)}.",
            hint="Nothing more is sent there. Destroy what lies in the clear, or choose another mode or target."
            if wanted.mode != PLAINTEXT
            else "Choose another mode or target.",
            not_as_promised=faults,
        )


def _fault(wanted: Replication, ends: Ends, name: str, replica: Dataset) -> str:
    if wanted.mode == PLAINTEXT:
        return "is encrypted" if replica.encrypted else ""
    if not replica.encrypted:
        return "is NOT ENCRYPTED"
    if wanted.mode == RAW:
        if not within(replica.root, (wanted.target,)):
            return (
                f"uses the key of '{replica.root}', so the next raw increment would make it impossible to open (its "
                "key is overwritten, see https://github.com/openzfs/zfs/issues/12614)"
            )
        return ""
    above = ends.target.datasets.get(wanted.above)
    origin = ends.source.datasets[name].value("origin").partition("@")[0]
    # A clone is opened by the key of what it was made of.
    homes = (name, origin) if origin in ends.source.datasets else (name,)
    allowed = {wanted.root_of(one, above.root if above is not None else "") for one in homes}
    if wanted.key is None and not wanted.root_of(name, ""):
        # It may have got a key since.
        allowed.add(wanted.target)
    if replica.root not in allowed:
        return f"has another encryption root, '{replica.root}'"
    return "is locked, so nothing can be encrypted for it" if replica.locked else ""


def _there(wanted: Replication) -> str:
    return f"on '{wanted.ssh.host}'" if wanted.ssh else "on this host"


def _list(names: t.Sequence[str], most: int = 10) -> str:
    return first_of([f"'{name}'" for name in names], most)
