# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a migration from being begun, and what a person should know of it before."""

from __future__ import annotations

from ..zfs.replicate_checks import selected
from .copy_checks import copy_notes, copy_refusals, surely_needed
from .copy_state import copied_record
from .options import FINALIZED, VERIFIED, Migration
from .proof import key_of_proof
from .read import LEFT_OUT
from .room import estimate, lack_for_reservations, lack_of_room, too_much_reserved
from .state import SOURCE_RECORD, Found


def refusals(wanted: Migration, found: Found) -> list[str]:
    """Every reason not to go on that can be seen, each with what to do about it."""
    return [
        fault
        for fault in (
            _members(wanted, found),
            _other_source(found),
            _locked(found),
            _space(wanted, found) or too_much_reserved(wanted, found),
            _no_key(wanted, found),
            _copied_before(wanted, found),
            *copy_refusals(wanted, found),
        )
        if fault
    ]


def _members(wanted: Migration, found: Found) -> str:
    bad = [f"{one.path} ({one.state})" for one in found.members if one.state not in ("ONLINE", "AVAIL", "INUSE")]
    if not bad or wanted.allow_degraded:
        return ""
    return (
        f"Members of the source pool are not in order: {', '.join(bad)}. Attach the missing disks first, since any "
        "damage there would have nothing to be repaired from; 'was /dev/gptid/UUID.eli' in 'zpool status' tells the "
        "partuuid of a disk. If there is no more of it, set 'allow_degraded: true'."
    )


def _copied_before(wanted: Migration, found: Found) -> str:
    """What an earlier run has brought along and this one would not: its copy would be let be used as it was then."""
    if not wanted.reaches(FINALIZED):
        return ""
    ends = found.ends
    left: list[str] = []
    for name in sorted(ends.source.datasets):
        replica = ends.target.datasets.get(found.wanted.at_target(name))
        if replica is None or found.wanted.takes(name):
            continue
        ours = {one.guid for one in ends.source.of(name)} & {one.guid for one in ends.target.of(replica.name)}
        if ours or copied_record(replica) is not None:
            left.append(replica.name)
    if not left:
        return ""
    return (
        f"These were copied before, and would not be brought up to date: {', '.join(repr(name) for name in left)}. "
        "Name them in 'include', take them out of 'exclude', or destroy or rename these copies."
    )


def _other_source(found: Found) -> str:
    record = found.record(SOURCE_RECORD)
    if not record or record == found.source_id:
        return ""
    return (
        f"The target {found.wanted.where} was made by a migration of another source ({record}, by the GUID of its pool "
        f"and its name), and this one is {found.source_id}. Choose another target."
    )


def _locked(found: Found) -> str:
    if found.root is None or not found.root.locked:
        return ""
    return (
        f"The target {found.wanted.where} is encrypted with the key of '{found.root.name}', which is locked. Unlock "
        "that first, by zfs_dataset_key or 'zfs load-key'. If a run was ended amid its proof of that key, that is why."
    )


def _space(wanted: Migration, found: Found) -> str:
    needed = estimate(wanted, found) if found.wanted.streams else surely_needed(wanted, found)
    fault = lack_of_room(found, needed)
    return fault and f"{fault} Make room, name what is not needed in 'exclude', or choose a larger pool."


def _no_key(wanted: Migration, found: Found) -> str:
    if not wanted.reaches(VERIFIED) or key_of_proof(wanted, found) is not None:
        return ""
    name = found.root.name if found.root is not None else found.wanted.target
    return (
        f"To prove that the target can be opened again it is locked for a moment, and the key of '{name}' is in no "
        "file that its keylocation names. Give it as 'proof_key'."
    )


def notes(plan: Migration, found: Found) -> list[str]:
    """What a person should know before the start."""
    wanted, source = found.wanted, found.ends.source
    if found.source_gone:
        return [_source_gone(found)]
    names = selected(wanted, source)
    told: list[str] = []
    if found.members and not any(one.geli for one in found.members):
        told.append(f"No member of the pool of '{wanted.source}' is a device of GELI; it is migrated all the same.")
    if found.read_only:
        told.append(
            "The source is imported read-only. If it was not exported when it was last used, what was written with "
            "fsync in its last seconds is only in its log, and is not seen here: import it once where it was used, and "
            "export it there. Never start a scrub of it."
        )
    if wanted.streams:
        marks = sum(len(source.bookmarks.get(name, ())) for name in names)
        if marks:
            told.append(f"The source has {marks} bookmarks, which can't be sent.")
        told.append("Holds of snapshots are not sent.")
    else:
        told += copy_notes(plan, found)
        room = lack_of_room(found, estimate(plan, found))
        if room and not _space(plan, found):
            told.append(
                f"{room} It may fit all the same: not all of that is new, files are left out, or the target compresses "
                "otherwise."
            )
    reserved = "" if _space(plan, found) else lack_for_reservations(plan, found)
    if reserved:
        told.append(reserved)
    for one in ("mountpoint", *LEFT_OUT):
        own = [name for name in names if _own(found, name, one)]
        if own:
            shown = ", ".join(f"'{name}'" for name in own[:10]) + (" ..." if len(own) > 10 else "")
            told.append(f"Property {one} is not carried over. It is set on {shown}.")
    return told


def _source_gone(found: Found) -> str:
    return (
        f"The pool of '{found.wanted.source}' is not imported, and was not looked at. That the target "
        f"{found.wanted.where} has taken its place is recorded there, by the GUID {found.source_guid} of that pool. To "
        "migrate another pool of this name, choose another target."
    )


def _own(found: Found, name: str, one: str) -> bool:
    value = found.ends.source.datasets[name].properties.get(one)
    return value is not None and value.own and value.value != "-"
