# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A KMIP server that is a dictionary, by the rules of a strict one: no name twice, nothing active is destroyed."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.link import LinkFailed
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.objects import SECRET_DATA, Stored


@dataclass
class Entry:
    """An object with its secret."""

    stored: Stored
    text: str


class ModelServer:
    """Remembers objects, and can lose the connection before or after one of the requests that change something."""

    place = "kmip.test:5696"

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.requests: list[str] = []
        self.lose_at: int | None = None
        self.lose_after = False
        self.stays_down = False
        self.corrupt = False
        self.unreadable = False
        self.down = False
        # A server that counts names otherwise than it tells.
        self.shift = 0
        # An object with a name that the library can't read.
        self.foreign = ""
        self._count = 0

    def mend(self) -> None:
        if self.down:
            raise LinkFailed("nothing listens there")

    def put(
        self,
        name: str,
        text: str,
        state: str = "active",
        kind: str = SECRET_DATA,
        more: t.Mapping[int, str] | None = None,
    ) -> str:
        """An object that was there before."""
        self._count += 1
        uid = str(self._count)
        named = {7: name, **(more or {})}
        stored = Stored(uid, kind, tuple(named[at] for at in sorted(named)), state, indexes=tuple(sorted(named)))
        self.entries[uid] = Entry(stored, text)
        return uid

    def by_name(self) -> dict[str, tuple[str, str]]:
        """Text and state of all objects by name; no two may share one."""
        names = [entry.stored.names[0] for entry in self.entries.values()]
        assert len(names) == len(set(names))
        return {entry.stored.names[0]: (entry.text, entry.stored.state) for entry in self.entries.values()}

    def locate(self, name: str) -> tuple[str, ...]:
        return tuple(uid for uid, entry in self.entries.items() if name in entry.stored.names)

    def locate_secrets(self) -> tuple[str, ...]:
        return tuple(uid for uid, entry in self.entries.items() if entry.stored.kind == SECRET_DATA)

    def describe(self, uid: str) -> Stored | None:
        if uid == self.foreign:
            raise StorageError(f"the answer about {uid} can't be understood")
        entry = self.entries.get(uid)
        return None if entry is None else entry.stored

    def fetch(self, stored: Stored) -> str:
        if self.unreadable:
            raise StorageError(f"{stored.uid} can't be read")
        text = self.entries[stored.uid].text
        return text[::-1] if self.corrupt else text

    def register(self, name: str, text: str) -> str:
        with self._request(f"register {name}"):
            if self.locate(name):
                raise StorageError(f"the name '{name}' exists")
            return self.put(name, text, "pre_active")

    def activate(self, uid: str) -> None:
        with self._request(f"activate {uid}"):
            self._move(uid, "pre_active", "active")

    def rename(self, stored: Stored, old: str, new: str) -> None:
        with self._request(f"rename {stored.uid} {new}"):
            entry = self.entries[stored.uid]
            index = stored.index_of(old)
            if self.locate(new) or index not in entry.stored.indexes:
                raise StorageError(f"'{old}' can't become '{new}'")
            names = zip(entry.stored.names, entry.stored.indexes)
            entry.stored = replace(
                entry.stored, names=tuple(new if at == index + self.shift else name for name, at in names)
            )

    def revoke(self, uid: str) -> None:
        with self._request(f"revoke {uid}"):
            self._move(uid, "active", "deactivated")

    def destroy(self, uid: str) -> None:
        with self._request(f"destroy {uid}"):
            if self.entries[uid].stored.state == "active":
                raise StorageError(f"{uid} is active")
            del self.entries[uid]

    def _move(self, uid: str, before: str, after: str) -> None:
        entry = self.entries[uid]
        if entry.stored.state != before:
            raise StorageError(f"{uid} is {entry.stored.state}")
        entry.stored = replace(entry.stored, state=after)

    def _request(self, words: str) -> t.ContextManager[None]:
        return _Request(self, words)


class _Request:
    """Loses the connection before or after what it surrounds."""

    def __init__(self, server: ModelServer, words: str) -> None:
        self._server = server
        self._words = words
        self._hit = False

    def __enter__(self) -> None:
        self._hit = len(self._server.requests) == self._server.lose_at
        self._server.requests.append(self._words)
        self._server.down = self._hit and self._server.stays_down
        if self._hit and not self._server.lose_after:
            raise LinkFailed("the line was cut")

    def __exit__(self, kind: type[BaseException] | None, *_more: object) -> None:
        if self._hit and kind is None:
            raise LinkFailed("the line was cut")
