# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the keys of encryption roots, and sees of each that it opens its root."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..command import Runner
from ..errors import StorageError
from ..secrets import Key
from . import keystore
from .key_manifest import Entry
from .offers import Offers
from .remap import Remap, remap_all
from .state import Dataset
from .unlock_preview import Answer, Candidate, judge
from .unlock_preview_read import TryAll, read_candidates, try_in_turn


@dataclass(frozen=True)
class Found:
    """What came of the search: keys that were proven, roots that a manifest has no keys of, and those that failed.

    The last two are reasons by name.
    """

    entries: tuple[Entry, ...]
    not_exportable: t.Mapping[str, str]
    failures: t.Mapping[str, str]


def find_keys(
    runner: Runner,
    roots: t.Sequence[Dataset],
    offers: Offers,
    try_all: TryAll,
    hide: t.Callable[[t.Iterable[Key]], None],
    guids: t.Mapping[str, str],
    remap: Remap,
) -> Found:
    """Look in the key files of the roots first, then among the keys that are offered; the first that fits counts.

    :param hide: is told all keys before the first of them is used
    :param guids: of the pools, by name
    :raises StorageError: the names in ``remap`` make no sense
    """
    wanted = [root for root in roots if root.value("keyformat") in ("hex", "raw")]
    own = read_candidates(runner, wanted, Offers(), True)
    given = read_candidates(runner, wanted, offers, False)
    candidates = {root.name: _with_a_key((*own[root.name], *given[root.name])) for root in wanted}
    hide(one.key for tries in candidates.values() for one in tries if one.key is not None)
    answers = try_in_turn(runner, try_all, wanted, candidates)
    proven: dict[str, tuple[str, Key]] = {}
    failures: dict[str, str] = {}
    for root in wanted:
        fits = _fitting(answers[root.name])
        if fits is None:
            failures[root.name] = _fault(root, answers[root.name])
        else:
            proven[root.name] = fits
    # All of them, so that a name of a root whose key is not found is no typing error.
    names = remap_all([root.name for root in wanted], remap)
    entries = tuple(
        Entry(new, name, guids[name.split("/")[0]], origin, key)
        for name, (origin, key) in proven.items()
        for new in names[name]
    )
    return Found(entries, {root.name: _reason(root) for root in roots if root not in wanted}, failures)


def _with_a_key(candidates: t.Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Without those that ZFS itself would fetch from the web: it does not hand them out."""
    return tuple(one for one in candidates if not one.by_zfs)


def _fitting(tries: t.Iterable[tuple[Candidate, Answer | None]]) -> tuple[str, Key] | None:
    for candidate, answer in tries:
        if answer is True and candidate.key is not None:
            return candidate.origin, candidate.key
    return None


def _fault(root: Dataset, tries: t.Sequence[tuple[Candidate, Answer | None]]) -> str:
    """Why there is no key to back up, in words."""
    error = judge(root.name, True, tries).error or "No key fits."
    location = root.value("keylocation")
    if not tries and location.startswith(("http://", "https://")):
        return (
            f"ZFS fetches the key of '{root.name}' from {keystore.describe_location(location)}, and does not hand it "
            "out. Give it in 'keys'."
        )
    if isinstance(next((answer for _one, answer in tries if isinstance(answer, StorageError)), None), StorageError):
        return error
    return f"{error} Give the key in 'keys' or 'manifest', or put it back into its key file."


def _reason(root: Dataset) -> str:
    path = keystore.path_of(root.value("keylocation"))
    where = f" Keep a copy of the file {path}." if path else ""
    return f"'{root.name}' is opened by a passphrase, which is in no manifest.{where}"
