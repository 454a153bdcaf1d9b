# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the texts of keys from a KMIP server, by name, by unique identifier, or as a TrueNAS has stored them."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..errors import BadInput, StorageError
from .names import NEXT, PREVIOUS, check_name, check_uid
from .objects import ACTIVE, Held, Stored, listed
from .read import Source, is_doubtful, objects_named, objects_of_truenas

WAYS = ("name", "uid", "truenas")


@dataclass(frozen=True)
class Notice:
    """Which object was taken for a term that is not its name. ``doubtful``: it may be meant for another dataset."""

    term: str
    stored: Stored
    doubtful: bool

    def __str__(self) -> str:
        text = f"The key of '{self.term}' is that of uid '{self.stored.uid}', {listed(self.stored.names)}."
        if self.doubtful:
            text += " By its digits, that may as well be the key of a dataset of that very name: see that it opens."
        return text


def fetch(
    server: Source,
    terms: t.Sequence[str],
    by: str,
    allow_inactive: bool,
    skip_missing: bool = False,
    tell: t.Callable[[Notice], None] = lambda _notice: None,
) -> dict[str, str]:
    """The keys by term.

    :param skip_missing: leave out a term for which there is no key at all
    :param tell: called with what was found, if the way to it is a rule that may be wrong
    :raises BadInput: a term can't be one
    :raises StorageError: there is no such key, or more than one, or it is not active
    """
    found: dict[str, str] = {}
    for term, objects in _find(server, terms, by).items():
        if skip_missing and not objects:
            continue
        one = _usable(server, term, objects, allow_inactive)
        found[term] = server.fetch(one)
        if by == "truenas":
            tell(Notice(term, one, is_doubtful(term, one)))
    return found


def fetch_one(server: Source, term: str, by: str) -> Held:
    """One active key, with the object that holds it.

    :raises BadInput: the term can't be one
    :raises StorageError: there is no such key, or more than one, or it is not active
    """
    one = _usable(server, term, _find(server, [term], by)[term], False)
    return Held(one, server.fetch(one))


def _usable(server: Source, term: str, objects: t.Sequence[Stored], allow_inactive: bool) -> Stored:
    one = _only(server, term, objects)
    if one.state != ACTIVE and not allow_inactive:
        raise StorageError(
            f"The key '{term}' on the KMIP server {server.place} (uid '{one.uid}') is "
            f"{one.state.replace('_', '-')}, not active.",
            hint="It was revoked, or storing it was interrupted. The lookup reads it with allow_inactive=true.",
        )
    return one


def _find(server: Source, terms: t.Sequence[str], by: str) -> t.Mapping[str, tuple[Stored, ...]]:
    if by == "truenas":
        return objects_of_truenas(server, terms)
    if by == "uid":
        return {term: tuple(one for one in (server.describe(check_uid(term)),) if one is not None) for term in terms}
    if by == "name":
        return {term: objects_named(server, check_name(term)) for term in terms}
    raise BadInput(f"by is '{by}'; it is one of {', '.join(WAYS)}.")


def _only(server: Source, term: str, objects: t.Sequence[Stored]) -> Stored:
    if len(objects) == 1:
        return objects[0]
    if objects:
        raise StorageError(
            f"'{term}' stands for {len(objects)} objects on the KMIP server {server.place}, with the uids "
            f"{listed(one.uid for one in objects)}.",
            hint="Look each up by its uid (by='uid') and see which one opens what it is for.",
        )
    raise StorageError(
        f"There is no key '{term}' on the KMIP server {server.place} that this client may see.{_left(server, term)}",
        hint="Is it spelled right, and is this the certificate of the client that stored it?",
    )


def _left(server: Source, term: str) -> str:
    """What a rotation of the key that was interrupted has left, in words."""
    left = [name for name in (term + NEXT, term + PREVIOUS) if server.locate(name)]
    if not left:
        return ""
    return (
        f" A rotation of it was interrupted; there is {listed(left)}. One of them opens what it is for: look it up "
        "by that name, or finish the rotation with state: rotated."
    )
