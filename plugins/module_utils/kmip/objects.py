# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KMIP server has of a key: its attributes, and the text of the key, each as plain values."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..errors import StorageError
from ..secrets import KEY_BYTES, Key

SECRET_DATA = "secret_data"
SYMMETRIC_KEY = "symmetric_key"

PRE_ACTIVE = "pre_active"
ACTIVE = "active"
# A server may keep a tombstone of what was destroyed.
GONE = ("destroyed", "destroyed_compromised")


@dataclass(frozen=True)
class Stored:
    """An object on the server, without what it keeps secret. Names are as :mod:`.names` shows them.

    ``indexes`` are the numbers by which the server knows the names. They need not be 0, 1, 2: a name that was deleted
    leaves its number unused.
    """

    uid: str
    kind: str
    names: tuple[str, ...]
    state: str
    algorithm: str | None = None
    length: int | None = None
    indexes: tuple[int, ...] = ()

    def index_of(self, name: str) -> int:
        """The number of a name that the object has."""
        place = self.names.index(name)
        return self.indexes[place] if self.indexes else place


@dataclass(frozen=True)
class Held:
    """An object with the text of its key, as far as that was asked for."""

    stored: Stored
    text: str | None = field(default=None, repr=False)

    @property
    def uid(self) -> str:
        return self.stored.uid

    @property
    def state(self) -> str:
        return self.stored.state


def key_text(stored: Stored, value: bytes) -> str:
    """The key as the options of this collection take it.

    Secret data is text, as TrueNAS and this collection store it. A symmetric key is bytes, and becomes hexadecimal
    digits; so does secret data of 32 bytes that is no text.

    :raises StorageError: it is neither, or nothing
    """
    if stored.kind == SYMMETRIC_KEY:
        if not value:
            raise StorageError(f"The symmetric key {stored.uid} on the KMIP server is empty.")
        return value.hex()
    if stored.kind != SECRET_DATA:
        raise StorageError(
            f"The object {stored.uid} on the KMIP server is a {stored.kind.replace('_', ' ')}, not a key.",
            hint="Keys are secret data or symmetric keys.",
        )
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        if len(value) == KEY_BYTES:
            return value.hex()
        raise StorageError(
            f"The secret data {stored.uid} on the KMIP server is neither text in UTF-8 nor a key of {KEY_BYTES} bytes."
        ) from None
    if not text:
        raise StorageError(f"The secret data {stored.uid} on the KMIP server is empty.")
    return text


def as_key(text: str) -> Key:
    """The text as what can be hidden in every encoding."""
    return Key("passphrase", text.encode("utf-8", "surrogateescape"))


def listed(uids: t.Iterable[str]) -> str:
    """Unique identifiers in a message."""
    return ", ".join(f"'{uid}'" for uid in uids)
