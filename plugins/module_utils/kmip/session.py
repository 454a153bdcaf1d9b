# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection to a KMIP server: each method is one request, and its errors are words a person can act on."""

from __future__ import annotations

import os
import threading
import typing as t

from ..errors import StorageError
from ..secrets import Mask
from . import names
from .connection import Connection
from .library import Library, load
from .link import LinkFailed, Wire, connect
from .objects import GONE, Stored, as_key, key_text
from .refusal import HINTS, UNKNOWN, RequestRefused, words_of

_ATTRIBUTES = ["Object Type", "Name", "State", "Cryptographic Algorithm", "Cryptographic Length"]


class Session:
    """A connection. Requests of several threads go one after another; after a failure of the connection none goes."""

    def __init__(self, connection: Connection, mask: Mask) -> None:
        """Connect.

        :raises LibraryMissing: PyKMIP is not installed
        :raises BadInput: a file of the connection can't be used
        :raises LinkFailed: the server can't be reached, or does not take this client
        """
        self._library: Library = load()
        self._connection = connection
        self._mask = mask
        self._lock = threading.Lock()
        self._broken = ""
        self._open()

    def _open(self) -> None:
        connection = self._connection
        self._wire = Wire(connect(connection), connection, self._library.streams)
        # A file of settings for all clients of this machine must not add to what the task says.
        self._client = self._library.client(
            hostname=connection.server, port=connection.port, config_file=os.devnull, kmip_version=self._version()
        )
        self._client.proxy.open = self._attach
        self._client.open()

    def _version(self) -> t.Any:
        return self._library.enums.KMIPVersion.KMIP_1_2

    def _attach(self) -> None:
        """In place of the library's own way to connect, which checks no host name and knows no bounds."""
        self._client.proxy.protocol = self._wire

    @property
    def place(self) -> str:
        return self._connection.place

    def close(self) -> None:
        self._wire.close()

    def mend(self) -> None:
        """Connect anew if the connection was lost.

        :raises LinkFailed: the server can't be reached (any more)
        """
        with self._lock:
            if self._broken:
                self._open()
                self._broken = ""

    def locate(self, name: str) -> tuple[str, ...]:
        """The unique identifiers of the objects with this name that this client may see."""
        enums = self._library.enums
        condition = self._attribute(enums.AttributeType.NAME, names.stored(name))
        found = self._call(f"look for '{name}'", self._client.locate, attributes=[condition])
        return tuple(str(uid) for uid in found)

    def locate_secrets(self) -> tuple[str, ...]:
        """The unique identifiers of all secret data that this client may see."""
        enums = self._library.enums
        condition = self._attribute(enums.AttributeType.OBJECT_TYPE, enums.ObjectType.SECRET_DATA)
        found = self._call("list its secret data", self._client.locate, attributes=[condition])
        return tuple(str(uid) for uid in found)

    def describe(self, uid: str) -> Stored | None:
        """What there is to know of an object, without its key; None if there is no such object (any more)."""
        try:
            _uid, attributes = self._call(f"describe '{uid}'", self._client.get_attributes, uid, list(_ATTRIBUTES))
        except RequestRefused as error:
            if error.reason in UNKNOWN:
                return None
            raise
        found: dict[str, list[t.Any]] = {}
        indexes: list[int] = []
        for attribute in attributes:
            kind = attribute.attribute_name.value
            found.setdefault(kind, []).append(attribute.attribute_value)
            if kind == "Name":
                # What is not told is the first one.
                indexes.append(int(getattr(attribute.attribute_index, "value", None) or 0))
        state = _word(found, "State")
        if state in GONE:
            return None
        length = next((int(one.value) for one in found.get("Cryptographic Length", ())), None)
        return Stored(
            uid=uid,
            kind=_word(found, "Object Type") or "object of unknown type",
            names=tuple(names.shown(str(one.name_value.value)) for one in found.get("Name", ())),
            state=state or "stateless",
            algorithm=(_word(found, "Cryptographic Algorithm") or "").upper() or None,
            length=length or None,
            indexes=tuple(indexes),
        )

    def fetch(self, stored: Stored) -> str:
        """The text of a key."""
        found = self._call(f"hand out '{stored.uid}'", self._client.get, stored.uid)
        text = key_text(stored, bytes(getattr(found, "value", b"")))
        self._mask.add(as_key(text))
        return text

    def register(self, name: str, text: str) -> str:
        """Store a key as secret data, not yet active; returns its unique identifier."""
        enums = self._library.enums
        secret = self._library.objects.SecretData(
            text.encode("utf-8"),
            enums.SecretDataType.PASSWORD,
            masks=[enums.CryptographicUsageMask.EXPORT],
            name=names.stored(name),
        )
        return str(self._call(f"store '{name}'", self._client.register, secret))

    def activate(self, uid: str) -> None:
        self._call(f"activate '{uid}'", self._client.activate, uid)

    def rename(self, stored: Stored, old: str, new: str) -> None:
        """Put another name in the place of one that the object has."""
        attribute = self._attribute(self._library.enums.AttributeType.NAME, names.stored(new), stored.index_of(old))
        self._call(f"rename '{stored.uid}' to '{new}'", self._client.modify_attribute, stored.uid, attribute=attribute)

    def revoke(self, uid: str) -> None:
        """Take a key out of service, for no other reason than that it is not needed any more."""
        reason = self._library.enums.RevocationReasonCode.CESSATION_OF_OPERATION
        self._call(f"revoke '{uid}'", self._client.revoke, reason, uid)

    def destroy(self, uid: str) -> None:
        self._call(f"destroy '{uid}'", self._client.destroy, uid)

    def _attribute(self, kind: t.Any, value: t.Any, index: int | None = None) -> t.Any:
        return self._library.attributes.create_attribute(kind, value, index)

    def _call(self, task: str, request: t.Callable[..., t.Any], *arguments: t.Any, **more: t.Any) -> t.Any:
        """Make one request.

        :raises LinkFailed: there was no answer
        :raises StorageError: there was one that can't be understood; the connection is still good
        :raises RequestRefused: the server said no
        """
        with self._lock:
            if self._broken:
                raise LinkFailed(f"Not attempted, since the connection is lost: {self._broken}")
            try:
                return request(*arguments, **more)
            except StorageError as error:
                self._broken = error.message
                self.close()
                raise LinkFailed(f"{_capital(self._asked(task))} failed: {error.message}", hint=error.hint) from None
            except self._library.failure as error:
                raise self._refusal(task, error) from None
            except Exception as error:  # noqa: BLE001  (what the library raises has no one base)
                refusal = getattr(error, "reason", None)
                if hasattr(refusal, "name"):
                    raise self._refusal(task, error) from None
                # The library has no one kind of error for an answer that it can't read. The message came as a whole, so
                # the next request is none the worse for it.
                raise StorageError(
                    f"{_capital(self._asked(task))} failed: its answer can't be understood ({type(error).__name__}).",
                    hint="PyKMIP reads text in ASCII only, and no refusal without words. Whether the request was "
                    "carried out is not known.",
                ) from None

    def _asked(self, task: str) -> str:
        return f"the request to the KMIP server {self.place} to {task}"

    def _refusal(self, task: str, error: t.Any) -> RequestRefused:
        reason = str(getattr(error.reason, "name", error.reason))
        words = words_of(str(getattr(error, "message", "") or error), self._mask)
        return RequestRefused(
            f"The KMIP server {self.place} refused to {task}: {words} ({reason.replace('_', ' ').lower()}).",
            reason,
            hint=HINTS.get(reason, ""),
        )


def _word(found: t.Mapping[str, t.Sequence[t.Any]], name: str) -> str:
    """The name of an enumerated value, in lower case."""
    return next((str(one.value.name).lower() for one in found.get(name, ())), "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
