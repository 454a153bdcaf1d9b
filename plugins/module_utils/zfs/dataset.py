# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what has to happen to datasets. A pure function: wishes and what is known of a host in, a plan out.

What is to be locked or destroyed goes first, children before parents. Then the rest, parents before children. A dataset
that can't be dealt with does not hold up others, apart from those that depend on it.
"""

from __future__ import annotations

import typing as t

from ..errors import first_of
from ..plan import Plan
from .dataset_absent import destroyed_before, plan_absent
from .dataset_draft import Draft
from .dataset_inherit import plan_inherited
from .dataset_lock import plan_locked
from .dataset_options import WantedDataset, Wishes
from .dataset_order import entries_in_order
from .dataset_present import plan_present
from .dataset_state import DatasetHost, Question
from .dataset_uncovered import plan_uncovered
from .dataset_unlock import plan_deferred, plan_unlocked, refuse_stray_keys
from .names import folders_above

# In a warning.
_MOST_NAMED = 10


def plan_datasets(wishes: Wishes, host: DatasetHost) -> tuple[Plan, tuple[Question, ...]]:
    """The plan for all datasets of the task, and what has to be found out before it is good.

    As long as there are questions, the plan is none to carry out.
    """
    draft = _drafted(wishes, host, frozenset())
    while not draft.questions and _unmet(draft):
        # What was allowed since another dataset will be as described, which it will not be, is decided once more.
        draft = _drafted(wishes, host, draft.distrusted | _unmet(draft))
    postponed = _postponed(draft)
    files = sorted({draft.missing_files[name] for name in postponed if name in draft.missing_files})
    plan = Plan(
        tuple(draft.steps),
        tuple(dict.fromkeys(draft.warnings)),
        reveals=f"whether there are these key files shows once what is above them is mounted: {', '.join(files)}"
        if files
        else "",
        failures=tuple(failure for name, failure in draft.failures.items() if name not in postponed),
        postponed=tuple(draft.failures[name] for name in postponed),
        unseen=tuple(_unseen(draft)),
    )
    return plan, tuple(draft.questions)


def _unmet(draft: Draft) -> set[str]:
    """The datasets of which something relies on a change, and nothing of it is done."""
    return draft.trusted & draft.refused


def _postponed(draft: Draft) -> t.Collection[str]:
    """The branches that fail for want of a key file which may show when something is mounted, and what they hold up.

    One of these may in turn be to mount what another file lies on.
    """
    found: dict[str, None] = {}
    while True:
        places = draft.mounting.keys() | {
            place for place, name in draft.blocked.items() if _root_of(name, draft) in found
        }
        more = [
            name
            for name, failure in draft.failures.items()
            if name not in found
            and (
                failure.because in found
                or draft.held_up.get(name, "") in found
                or any(folder in places for folder in folders_above(draft.missing_files.get(name, "")))
            )
        ]
        if not more:
            return found
        found.update(dict.fromkeys(more))


def _root_of(name: str, draft: Draft) -> str:
    dataset = draft.model.get(name)
    return name if dataset is None or not dataset.encrypted else dataset.root


def _drafted(wishes: Wishes, host: DatasetHost, distrusted: frozenset[str]) -> Draft:
    """All that is decided.

    :param distrusted: datasets that will not be as described
    """
    draft = Draft(wishes, host, distrusted)
    for name, error in wishes.misnamed.items():
        draft.fail(name, error)
    refuse_stray_keys(draft)
    closing = [one for one in wishes.datasets if one.state in ("locked", "absent")]
    opening = [one for one in wishes.datasets if one.state not in ("locked", "absent")]
    for wanted in _closing_order(closing, draft):
        _PLANNERS[wanted.state](wanted, draft)
    draft.ahead = {one.name for one in opening}
    for wanted in entries_in_order(opening, draft):
        draft.ahead.discard(wanted.name)
        _PLANNERS[wanted.state](wanted, draft)
        plan_deferred(draft)
    plan_deferred(draft, whatever=True)
    plan_uncovered(draft)
    return draft


def _unseen(draft: Draft) -> t.Iterator[str]:
    """What check mode has to add, where data may be moved aside that shows only when something is mounted."""
    if draft.unseen:
        yield (
            "Check mode can't see what lies at mountpoints below filesystems that are not mounted yet; what is there "
            f"will be moved aside, and told then: {first_of(draft.unseen, _MOST_NAMED)}."
        )


def _closing_order(entries: t.Sequence[WantedDataset], draft: Draft) -> list[WantedDataset]:
    """Children before parents, and clones before what they were made of."""
    by_name = {one.name: one for one in entries}
    ordered: dict[str, None] = {}
    begun: set[str] = set()

    def place(name: str) -> None:
        if name in begun:
            return
        begun.add(name)
        if by_name[name].state == "absent":
            for other in destroyed_before(name, draft):
                place(other)
        ordered[name] = None

    for name in sorted(by_name, key=lambda name: (-name.count("/"), name)):
        place(name)
    return [by_name[name] for name in ordered]


_PLANNERS: t.Mapping[str, t.Callable[[WantedDataset, Draft], None]] = {
    "present": plan_present,
    "unlocked": plan_unlocked,
    "locked": plan_locked,
    "inherited": plan_inherited,
    "absent": plan_absent,
}
