# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a KMIP server has of the keys a task is about."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, replace

from ..errors import StorageError
from ..plan import Failure
from .link import LinkFailed
from .names import NEXT, PREVIOUS
from .objects import SECRET_DATA, SYMMETRIC_KEY, Held, Stored
from .options import Wish


class Source(t.Protocol):
    """What is asked of a server that keys are only read from."""

    @property
    def place(self) -> str: ...

    def locate(self, name: str) -> tuple[str, ...]: ...

    def locate_secrets(self) -> tuple[str, ...]: ...

    def describe(self, uid: str) -> Stored | None: ...

    def fetch(self, stored: Stored) -> str: ...


class Server(Source, t.Protocol):
    """What is asked of a server and done on it; :class:`.session.Session` does, and tests have a model."""

    def mend(self) -> None: ...

    def register(self, name: str, text: str) -> str: ...

    def activate(self, uid: str) -> None: ...

    def rename(self, stored: Stored, old: str, new: str) -> None: ...

    def revoke(self, uid: str) -> None: ...

    def destroy(self, uid: str) -> None: ...


@dataclass(frozen=True)
class Found:
    """What the server has of one key: under its name, and what a rotation calls the new one and the former one.

    ``fault``: it could not be read.
    """

    current: tuple[Held, ...] = ()
    next: tuple[Held, ...] = ()
    previous: tuple[Held, ...] = ()
    fault: Failure | None = None


@dataclass(frozen=True)
class Survey:
    """What was found of each key. ``settled``: it was looked at after the plan had been carried out."""

    keys: t.Mapping[str, Found]
    settled: bool = False


def survey(server: Server, wishes: t.Iterable[Wish]) -> Survey:
    """Look at all keys. What is wrong with one of them does not hold up the others.

    :raises LinkFailed: the connection broke
    """
    return Survey({wish.label: _find_safely(server, wish) for wish in wishes})


def survey_again(server: Server, wishes: t.Sequence[Wish]) -> Survey:
    """Look again after the plan was carried out.

    The connection may have been lost on the way; it is made anew once. If that fails, the result says that nothing is
    known, and what went wrong before stays the first thing that is told.
    """
    try:
        server.mend()
        return replace(survey(server, wishes), settled=True)
    except StorageError as error:
        message = f"What the KMIP server has now could not be looked at: {error.message}"
        unknown = {wish.label: Found(fault=Failure(wish.label, message, error.hint)) for wish in wishes}
        return Survey(unknown, settled=True)


def _find_safely(server: Server, wish: Wish) -> Found:
    try:
        return _find(server, wish)
    except LinkFailed:
        raise
    except StorageError as error:
        return Found(fault=Failure(wish.label, error.message, error.hint))


def _find(server: Server, wish: Wish) -> Found:
    # What a task is to make use of has to be readable: before it is activated, and before its former key is destroyed.
    compared = wish.value is not None or wish.state == "rotated" or bool(wish.generate)
    if wish.uid:
        one = server.describe(wish.uid)
        return Found(() if one is None else (_hold(server, one, compared),))
    current = _named(server, wish.name, compared)
    if (current and wish.state == "present") or wish.name.endswith((NEXT, PREVIOUS)):
        return Found(current)
    coming = _named(server, wish.name + NEXT, compared)
    return Found(current, coming, _named(server, wish.name + PREVIOUS, False))


def _named(server: Server, name: str, fetch: bool) -> tuple[Held, ...]:
    return tuple(_hold(server, one, fetch) for one in objects_named(server, name))


def _hold(server: Server, stored: Stored, fetch: bool) -> Held:
    is_key = stored.kind in (SECRET_DATA, SYMMETRIC_KEY)
    return Held(stored, server.fetch(stored) if fetch and is_key else None)


def objects_named(server: Source, name: str) -> tuple[Stored, ...]:
    """The objects of that very name that exist."""
    found = (server.describe(uid) for uid in server.locate(name))
    # A server may take a condition it does not know for one that holds.
    return tuple(one for one in found if one is not None and name in one.names)


_OF_TRUENAS = re.compile(r"(.+)-([0-9a-f]{7})")


def objects_of_truenas(server: Source, datasets: t.Iterable[str]) -> dict[str, tuple[Stored, ...]]:
    """By dataset, the secret data that a TrueNAS has stored for it: the name goes on with 7 digits of a random UUID.

    What is asked for by its whole name belongs to no other dataset. An object that can't be read is somebody else's
    affair.
    """
    found: dict[str, list[Stored]] = {dataset: [] for dataset in datasets}
    for uid in server.locate_secrets():
        one = _describe_if_readable(server, uid)
        for name in () if one is None else one.names:
            match = _OF_TRUENAS.fullmatch(name)
            if one is not None and match and match.group(1) in found and name not in found:
                found[match.group(1)].append(one)
    return {dataset: tuple(rows) for dataset, rows in found.items()}


def is_doubtful(dataset: str, stored: Stored) -> bool:
    """Whether what was found for a dataset of a TrueNAS may as well be the key of another one, named by a number."""
    matches = [_OF_TRUENAS.fullmatch(name) for name in stored.names]
    return any(one and one.group(1) == dataset and one.group(2).isdecimal() for one in matches)


def _describe_if_readable(server: Source, uid: str) -> Stored | None:
    try:
        return server.describe(uid)
    except LinkFailed:
        raise
    except StorageError:
        return None
