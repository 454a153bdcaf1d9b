# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup of keys holds, and how its content is recognized without the keys."""

from __future__ import annotations

import hashlib
import hmac
import json
import typing as t
from dataclasses import dataclass, field

from ..secrets import Key

# What a fingerprint is made for, so that it is of no use for anything else.
_PURPOSE = b"nasops.encryption key fingerprint 1"
# Hexadecimal digits of a fingerprint: enough that no two keys have the same.
_DIGITS = 32


@dataclass(frozen=True)
class Entry:
    """A key that was seen to open its encryption root.

    ``name`` is that in the backup, ``dataset`` the one of the root, ``guid`` that of its pool.
    """

    name: str
    dataset: str
    guid: str
    origin: str
    key: Key = field(repr=False)

    @property
    def text(self) -> str:
        """The key as TrueNAS writes it: raw ones in hex, too."""
        return key_text(self.key)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.guid, self.dataset, self.text)

    def row(self) -> dict[str, str]:
        """What may be told of it."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "origin": self.origin,
        }


def key_text(key: Key) -> str:
    """The 64 hexadecimal digits of a key that is no passphrase."""
    return key.material.hex() if key.format == "raw" else key.material.decode("ascii").lower()


def fingerprint(guid: str, dataset: str, text: str) -> str:
    """Tells whether a key is still the same, and nothing else of it.

    It is made of the key with the pool and the dataset: the same key has another fingerprint elsewhere, so that nobody
    sees which datasets share one, and a table that was made beforehand is of no use. It need not be slow, since there
    are none of passphrases: a key has 256 random bits, which can't be guessed however fast.
    """
    message = b"\0".join((guid.encode("ascii"), dataset.encode("utf-8"), text.lower().encode("ascii")))
    return hmac.new(_PURPOSE, message, hashlib.sha256).hexdigest()[:_DIGITS]


def digest(fingerprints: t.Mapping[str, str]) -> str:
    """One value for names and fingerprints together."""
    text = json.dumps(sorted(fingerprints.items()), separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def write_manifest(keys: t.Mapping[str, str]) -> bytes:
    """The manifest as TrueNAS reads and writes it: one JSON object, here with one key in a line."""
    return (json.dumps(dict(sorted(keys.items())), indent=2) + "\n").encode("utf-8")
