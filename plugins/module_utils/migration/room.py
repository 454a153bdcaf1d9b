# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room that a migration takes at the target: for what is sent, and for what is only set aside in the end."""

from __future__ import annotations

import typing as t

from ..zfs.names import within
from ..zfs.replicate_checks import selected
from ..zfs.replicate_progress import human
from .copy_checks import still_to_copy, surely_needed
from .options import FINALIZED, Migration
from .read import RESERVATIONS, size
from .state import Found

_SHOWN = 10


def estimate(wanted: Migration, found: Found) -> int:
    """Bytes that are still to be sent, as they are counted at the source."""
    replication, ends = found.wanted, found.ends
    if not replication.streams:
        return sum(still_to_copy(wanted, found, name) for name in selected(replication, ends.source))
    rest = 0
    for name in selected(replication, ends.source):
        replica = ends.target.datasets.get(replication.at_target(name))
        there = 0 if replica is None else _taken(replica.properties)
        rest += max(0, _taken(ends.source.datasets[name].properties) - there)
    return rest


def available_bytes(found: Found) -> int | None:
    """Room at the target, None if it is not known."""
    place = found.target or found.ends.target.datasets.get(found.wanted.above)
    return None if place is None or "available" not in place.properties else size(place.properties, "available")


def lack_of_room(found: Found, needed: int) -> str:
    """In words, if the target can't take so many bytes of data."""
    available = available_bytes(found)
    if available is None or needed <= available:
        return ""
    return (
        f"The target {found.wanted.where} has room for {human(available)}, and what is still to be sent takes about "
        f"{human(needed)} at the source."
    )


def too_much_reserved(wanted: Migration, found: Found) -> str:
    """Why the last stage would surely fail for want of room, beside the data of datasets that are at the target."""
    if not wanted.reaches(FINALIZED):
        return ""
    return _lack(found, _never_sent(wanted, found))


def lack_for_reservations(wanted: Migration, found: Found) -> str:
    """In words, if all is sent but there may be no room left for what the last stage sets aside."""
    return _lack(found, estimate(wanted, found))


def _lack(found: Found, data: int) -> str:
    available, aside = available_bytes(found), still_to_reserve(found)
    if available is None or not aside or data + aside <= available:
        return ""
    sent = f", beside about {human(data)} that is still to be sent" if data else ""
    ways = ", ".join(f"{one}: null" for one in sorted({one for _name, one in _reservations(found)}))
    return (
        f"The target {found.wanted.where} has room for {human(available)}, and 'finalized' sets {human(aside)} aside "
        f"there, as it is at the source{sent}: {_shown(found)}. Make room, or leave that out by "
        f"'properties: {{{ways}}}'; a volume without it takes room as it is written to, and writes to it fail when "
        "there is none."
    )


def still_to_reserve(found: Found) -> int:
    """Bytes that are not data, and that the target will have no more for others once it is finalized.

    The data of a dataset of the target is in a snapshot when its refreservation is set. That is about what is written
    to it from then on, so it comes on top as a whole. A reservation has in it all that the dataset and what is below it
    take.
    """
    reservations = _reservations(found)
    if not reservations:
        return 0
    names = selected(found.wanted, found.ends.source)
    taken = {name: _data(found, name) for name in names}
    below = dict.fromkeys(names, 0)
    total = 0
    # The parents come last, and so does the source itself.
    for name in reversed(names):
        own = taken[name] + reservations.get((name, "refreservation"), 0) + below[name]
        total = max(own, reservations.get((name, "reservation"), 0))
        above = name.rpartition("/")[0]
        if above in below:
            below[above] += total
    return max(0, total - sum(taken.values()) - _set_aside(found))


def _set_aside(found: Found) -> int:
    """Bytes that are set aside at the target already, as by a run that came so far."""
    if found.target is None:
        return 0
    here = [one for one in found.ends.target.datasets.values() if within(one.name, (found.wanted.target,))]
    return max(0, size(found.target.properties, "used") - sum(_taken(one.properties) for one in here))


def _data(found: Found, name: str) -> int:
    """Bytes that a dataset takes at the target, or will take if it is not there."""
    replica = found.ends.target.datasets.get(found.wanted.at_target(name))
    if replica is not None:
        return _taken(replica.properties)
    here = found.ends.source.datasets[name].properties
    return _taken(here) if found.wanted.streams else size(here, "usedbydataset")


def _never_sent(wanted: Migration, found: Found) -> int:
    """Bytes of what is not at the target at all, as far as one can be sure of them."""
    if not found.wanted.streams:
        return surely_needed(wanted, found)
    there, at_target = found.ends.target.datasets, found.wanted.at_target
    return sum(_data(found, one) for one in selected(found.wanted, found.ends.source) if at_target(one) not in there)


def _reservations(found: Found) -> dict[tuple[str, str], int]:
    """What the target gets in the end: bytes by dataset of the source and property."""
    asked = [one for one in RESERVATIONS if one not in found.wanted.properties]
    datasets = found.ends.source.datasets
    return {
        (name, one): size(datasets[name].properties, one)
        for name in selected(found.wanted, found.ends.source)
        for one in asked
        if one in datasets[name].properties
        and datasets[name].properties[one].own
        and size(datasets[name].properties, one)
    }


def _shown(found: Found) -> str:
    ones = sorted(_reservations(found).items(), key=lambda one: -one[1])
    words = [f"{one} of '{name}' is {human(count)}" for (name, one), count in ones[:_SHOWN]]
    return ", ".join(words) + (" ..." if len(ones) > _SHOWN else "")


def _taken(properties: t.Mapping[str, t.Any]) -> int:
    return size(properties, "usedbydataset") + size(properties, "usedbysnapshots")
