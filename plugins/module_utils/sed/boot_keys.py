# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords of drives from a KMIP server, for a host that starts and whose network may come up late."""

from __future__ import annotations

import collections
import contextlib
import os
import stat
import time
import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput, Refused, StorageError
from ..kmip.connection import Connection
from ..kmip.fetch import fetch_one
from ..kmip.link import LinkFailed, NotTrusted, tls_context
from ..kmip.reader import Reader
from ..secrets import Mask
from . import pin
from .boot_options import Kmip

_PAUSE = 2.0

Say = t.Callable[[str], None]


@dataclass(frozen=True)
class Password:
    """A password as the server has it. ``origin``: which object that is, for messages and notes."""

    text: str = field(repr=False)
    origin: str


@dataclass(frozen=True)
class Fetched:
    """By drive, its password, or why there is none."""

    passwords: t.Mapping[str, Password]
    faults: t.Mapping[str, StorageError]


def collect(kmip: Kmip, devices: t.Collection[str], kind: str, say: Say, patient: bool = True) -> Fetched:
    """Fetch the passwords of these drives. What is wrong with one of them does not hold up the others.

    It ends within the limit of the server, whatever that does.

    :param kind: how a password becomes a credential
    :param patient: a server that does not answer is asked again as long as it is to be waited for
    """
    wanted = {device: term for device, term in kmip.objects.items() if device in devices}
    asking = _Asking(kmip, dict.fromkeys(wanted.values()), say, patient)
    try:
        check_files(kmip.connection)
        asking.run()
    except StorageError as error:
        for term in asking.terms:
            asking.found.setdefault(term, error)
    passwords: dict[str, Password] = {}
    faults: dict[str, StorageError] = {}
    for device, term in wanted.items():
        one = asking.found[term]
        if isinstance(one, Password):
            try:
                pin.check(one.text, kind, f"The password that is {one.origin}")
                passwords[device] = one
            except BadInput as error:
                faults[device] = error
        else:
            faults[device] = one
    return Fetched(passwords, faults)


class _Asking:
    """What is still to be asked, and what was found."""

    def __init__(self, kmip: Kmip, terms: t.Iterable[str], say: Say, patient: bool) -> None:
        now = time.monotonic()
        self.terms = tuple(terms)
        self.found: dict[str, Password | StorageError] = {}
        self._kmip = kmip
        # Those at which the server hung or broke off are asked for behind all others.
        self._queue = collections.deque(self.terms)
        self._say = say
        # Nothing else is masked by it: a short password would be a part of nearly every line.
        self._mask = Mask()
        self._until = now + (kmip.wait if patient else 0.0)
        self._deadline = now + kmip.limit
        self._told = False

    def run(self) -> None:
        """Ask until the server has answered to all of it.

        :raises StorageError: it did not in time, or waiting would not help
        """
        while self._queue:
            failures: dict[str, LinkFailed] = {}
            try:
                self._ask_each_once(failures)
            except NotTrusted:
                raise
            except LinkFailed as error:
                # There is no connection at all.
                if not self._goes_on(error):
                    self.found.update(failures)
                    raise
            else:
                if failures and not self._goes_on(next(iter(failures.values()))):
                    self.found.update(failures)
                    return

    def _ask_each_once(self, failures: dict[str, LinkFailed]) -> None:
        """One request after the other; what breaks a connection costs that alone.

        :raises LinkFailed: there is no (new) one
        """
        while set(self._queue) - set(failures):
            with contextlib.closing(Reader(self._kmip.connection, self._mask, self._deadline)) as server:
                while self._queue and self._queue[0] not in failures:
                    term = self._queue[0]
                    try:
                        self.found[term] = _ask(server, term, self._kmip.by)
                    except NotTrusted:
                        raise
                    except LinkFailed as error:
                        failures[term] = error
                        self._queue.rotate(-1)
                        break
                    self._queue.popleft()

    def _goes_on(self, error: LinkFailed) -> bool:
        """Whether there is time for another round; waits a little then."""
        if time.monotonic() + _PAUSE >= min(self._until, self._deadline):
            return False
        if not self._told:
            self._say(f"asking the KMIP server again for {self._kmip.wait} seconds at the most: {error.message}")
            self._told = True
        time.sleep(_PAUSE)
        return True


def _ask(server: Reader, term: str, by: str) -> Password | StorageError:
    try:
        held = fetch_one(server, term, by)
    except LinkFailed:
        raise
    except StorageError as error:
        return error
    name = f"'{held.uid}'" if by == "uid" else f"'{term}' (uid '{held.uid}')"
    return Password(held.text or "", f"the object {name} on the KMIP server {server.place}")


def check_files(connection: Connection) -> None:
    """What the connection needs of the host, found out before the host depends on it.

    :raises Refused: others than root may read the private key, or replace a certificate
    :raises BadInput: a file can't be read, or does not hold what it is given for
    """
    tls_context(connection)
    check_private(connection)
    for path in (connection.certificate, connection.ca_certificate):
        if path is not None:
            _check(path, 0o022, "may be changed by others than root")


def check_private(connection: Connection) -> None:
    """Refuses a private key that others than root may read: it opens what the drives' passwords are locked up in.

    :raises Refused: they may
    :raises BadInput: there is no such file
    """
    _check(
        connection.private_key or connection.certificate, 0o077, "holds a private key that others than root may read"
    )


def _check(path: str, forbidden: int, words: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & forbidden:
        raise Refused(
            f"{path} {words}.",
            hint=f"chown root {path}; chmod {stat.S_IMODE(status.st_mode) & ~forbidden:o} {path}. A key that somebody "
            "may have read is to be replaced.",
        )
