# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads keys from a KMIP server with Python's own library alone, for a host that has nothing else when it starts."""

from __future__ import annotations

import typing as t

from ..errors import BadInput, StorageError
from ..secrets import Mask
from . import names
from .connection import Connection
from .link import FOREVER, Wire, connect
from .objects import GONE, SECRET_DATA, SYMMETRIC_KEY, Stored, as_key, key_text
from .refusal import HINTS, UNKNOWN, RequestRefused, words_of
from .ttlv import BYTES, ENUMERATION, INTEGER, TEXT, BadMessage, Item, decode, encode, structure

# Tags (KMIP 1.2, 9.1.3.1).
_ATTRIBUTE, _ATTRIBUTE_INDEX, _ATTRIBUTE_NAME, _ATTRIBUTE_VALUE = 0x420008, 0x420009, 0x42000A, 0x42000B
_BATCH_COUNT, _BATCH_ITEM = 0x42000D, 0x42000F
_KEY_BLOCK, _KEY_MATERIAL, _KEY_VALUE, _WRAPPING = 0x420040, 0x420043, 0x420045, 0x420046
_NAME_TYPE, _NAME_VALUE = 0x420054, 0x420055
_OBJECT_TYPE, _OPERATION = 0x420057, 0x42005C
_VERSION, _MAJOR, _MINOR = 0x420069, 0x42006A, 0x42006B
_REQUEST, _REQUEST_HEADER, _REQUEST_PAYLOAD = 0x420078, 0x420077, 0x420079
_RESPONSE, _RESPONSE_PAYLOAD = 0x42007B, 0x42007C
_RESULT_MESSAGE, _RESULT_REASON, _RESULT_STATUS = 0x42007D, 0x42007E, 0x42007F
_UID = 0x420094
# Where the key is in an answer, by the kind of the object.
_HOLDERS = {SECRET_DATA: 0x420085, SYMMETRIC_KEY: 0x42008F}

_LOCATE, _GET, _GET_ATTRIBUTES = 0x08, 0x0A, 0x0B
_UNINTERPRETED_TEXT = 1
_MOST_OF_A_NAME = 64
_LONGEST_UID = 256
_SECRET_DATA = 7
_KINDS = {
    1: "certificate",
    2: SYMMETRIC_KEY,
    3: "public_key",
    4: "private_key",
    5: "split_key",
    6: "template",
    _SECRET_DATA: SECRET_DATA,
    8: "opaque_data",
    9: "pgp_key",
}
_STATES = {1: "pre_active", 2: "active", 3: "deactivated", 4: "compromised", 5: GONE[0], 6: GONE[1]}
_REASONS = {
    0x01: "ITEM_NOT_FOUND",
    0x02: "RESPONSE_TOO_LARGE",
    0x03: "AUTHENTICATION_NOT_SUCCESSFUL",
    0x04: "INVALID_MESSAGE",
    0x05: "OPERATION_NOT_SUPPORTED",
    0x06: "MISSING_DATA",
    0x07: "INVALID_FIELD",
    0x08: "FEATURE_NOT_SUPPORTED",
    0x0A: "CRYPTOGRAPHIC_FAILURE",
    0x0B: "ILLEGAL_OPERATION",
    0x0C: "PERMISSION_DENIED",
    0x0D: "OBJECT_ARCHIVED",
    0x0E: "INDEX_OUT_OF_BOUNDS",
    0x10: "KEY_FORMAT_TYPE_NOT_SUPPORTED",
    0x13: "KEY_VALUE_NOT_PRESENT",
    0x100: "GENERAL_FAILURE",
}


class Reader:
    """A connection on which nothing is changed: each method is one request."""

    def __init__(self, connection: Connection, mask: Mask, deadline: float = FOREVER) -> None:
        """Connect.

        :param deadline: when all of it is to be over, by the clock that nobody sets
        :raises BadInput: a file of the connection can't be used
        :raises LinkFailed: the server can't be reached, or does not take this client
        """
        self._connection = connection
        self._mask = mask
        self._wire = Wire(connect(connection, deadline), connection, decode, deadline)

    @property
    def place(self) -> str:
        return self._connection.place

    def close(self) -> None:
        self._wire.close()

    def locate(self, name: str) -> tuple[str, ...]:
        """The unique identifiers of the objects with this name that this client may see."""
        value = structure(
            _ATTRIBUTE_VALUE,
            Item(_NAME_VALUE, TEXT, names.stored(name)),
            Item(_NAME_TYPE, ENUMERATION, _UNINTERPRETED_TEXT),
        )
        found = self._located(f"look for '{name}'", "Name", value)
        if len(found) > _MOST_OF_A_NAME:
            # Each costs a request, and what it stands for is one.
            raise StorageError(f"'{name}' stands for {len(found)} objects on the KMIP server {self.place}.")
        return found

    def locate_secrets(self) -> tuple[str, ...]:
        """The unique identifiers of all secret data that this client may see."""
        return self._located("list its secret data", "Object Type", Item(_ATTRIBUTE_VALUE, ENUMERATION, _SECRET_DATA))

    def describe(self, uid: str) -> Stored | None:
        """What there is to know of an object, without its key; None if there is no such object (any more)."""
        wanted = (Item(_ATTRIBUTE_NAME, TEXT, name) for name in ("Object Type", "Name", "State"))
        try:
            answer = self._ask(f"describe '{uid}'", _GET_ATTRIBUTES, Item(_UID, TEXT, uid), *wanted)
        except RequestRefused as error:
            if error.reason in UNKNOWN:
                return None
            raise
        kind = state = 0
        found: list[tuple[str, int]] = []
        for one in answer.all(_ATTRIBUTE):
            name = one.text(_ATTRIBUTE_NAME)
            if name == "Object Type":
                kind = one.number(_ATTRIBUTE_VALUE) or 0
            elif name == "State":
                state = one.number(_ATTRIBUTE_VALUE) or 0
            elif name == "Name":
                text = one.text(_ATTRIBUTE_VALUE, _NAME_VALUE) or ""
                # What is not told is the first one.
                found.append((names.shown(text), one.number(_ATTRIBUTE_INDEX) or 0))
        if _STATES.get(state) in GONE:
            return None
        return Stored(
            uid=uid,
            kind=_KINDS.get(kind, "object of unknown type"),
            names=tuple(name for name, _index in found),
            state=_STATES.get(state, "stateless"),
            indexes=tuple(index for _name, index in found),
        )

    def fetch(self, stored: Stored) -> str:
        """The text of a key.

        :raises StorageError: the object is no key, or its key is not handed out as it is
        """
        if stored.kind not in _HOLDERS:
            # Told without asking for it: a certificate is not to be handed out for a key.
            return key_text(stored, b"")
        answer = self._ask(f"hand out '{stored.uid}'", _GET, Item(_UID, TEXT, stored.uid))
        block = answer.first(_HOLDERS[stored.kind], _KEY_BLOCK)
        material = None if block is None else block.first(_KEY_VALUE, _KEY_MATERIAL)
        wrapped = block is not None and block.first(_WRAPPING) is not None
        if wrapped or material is None or material.kind != BYTES or not isinstance(material.value, bytes):
            raise StorageError(
                f"The KMIP server {self.place} hands out '{stored.uid}' wrapped, or in a form that is not understood.",
                hint="Wanted is secret data, or a symmetric key in raw form.",
            )
        text = key_text(stored, material.value)
        self._mask.add(as_key(text))
        return text

    def _located(self, task: str, attribute: str, value: Item) -> tuple[str, ...]:
        condition = structure(_ATTRIBUTE, Item(_ATTRIBUTE_NAME, TEXT, attribute), value)
        answer = self._ask(task, _LOCATE, condition)
        return tuple(self._checked(task, one.value) for one in answer.all(_UID) if isinstance(one.value, str))

    def _checked(self, task: str, uid: str) -> str:
        """A unique identifier of the server, which goes into messages."""
        try:
            if len(uid) <= _LONGEST_UID:
                return names.check_uid(uid)
        except BadInput:
            pass
        raise StorageError(
            f"The answer of the KMIP server {self.place} to the request to {task} can't be understood: it names an "
            "object by what is no uid."
        )

    def _ask(self, task: str, operation: int, *payload: Item) -> Item:
        """Make one request; returns what the answer is about.

        :raises LinkFailed: there was no answer
        :raises StorageError: there was one that can't be understood
        :raises RequestRefused: the server said no
        """
        self._wire.write(encode(_request(operation, payload)))
        try:
            answer: Item = self._wire.read()
            batch = answer.first(_BATCH_ITEM) if answer.tag == _RESPONSE else None
            status = None if batch is None else batch.number(_RESULT_STATUS)
            if batch is None or status is None:
                raise BadMessage("It tells no result.")
        except BadMessage as error:
            raise StorageError(
                f"The answer of the KMIP server {self.place} to the request to {task} can't be understood: "
                f"{error.message}"
            ) from None
        if status:
            raise self._refusal(task, batch)
        return batch.first(_RESPONSE_PAYLOAD) or structure(_RESPONSE_PAYLOAD)

    def _refusal(self, task: str, batch: Item) -> RequestRefused:
        reason = _REASONS.get(batch.number(_RESULT_REASON) or 0, "OTHER_REASON")
        words = words_of(batch.text(_RESULT_MESSAGE) or "", self._mask)
        return RequestRefused(
            f"The KMIP server {self.place} refused to {task}: {words} ({reason.replace('_', ' ').lower()}).",
            reason,
            hint=HINTS.get(reason, ""),
        )


def _request(operation: int, payload: t.Sequence[Item]) -> Item:
    version = structure(_VERSION, Item(_MAJOR, INTEGER, 1), Item(_MINOR, INTEGER, 2))
    return structure(
        _REQUEST,
        structure(_REQUEST_HEADER, version, Item(_BATCH_COUNT, INTEGER, 1)),
        structure(_BATCH_ITEM, Item(_OPERATION, ENUMERATION, operation), structure(_REQUEST_PAYLOAD, *payload)),
    )
