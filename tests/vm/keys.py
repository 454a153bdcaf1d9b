# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of one run of the suite. All are made so that a trace of any of them is found by few search words.

Each key and passphrase begins with the same random text (a raw key with the same random bytes), which is different in
every run. Whoever writes a key somewhere, whole and in whatever encoding, writes its beginning too.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from string import ascii_letters

# Bytes. Six of them are eight characters of base64 with nothing left over, and 48 bits don't turn up by chance.
_PREFIX = 6
# Bytes of a generated key that are searched for; the same reasons.
_PIECE = 12


@dataclass
class KeyRing:
    """Makes keys by name; the same name gives the same key until :meth:`forget`."""

    prefix: str = field(default_factory=lambda: secrets.token_hex(_PREFIX))
    found: set[bytes] = field(default_factory=set)
    """Contents of key files that a module made itself, and of other secrets without the prefix."""
    _keys: dict[str, str] = field(default_factory=dict)

    def forget(self) -> None:
        """The next case gets other keys."""
        self._keys.clear()

    def hex(self, name: str) -> str:
        """64 lower-case hexadecimal digits."""
        return self._get(f"hex {name}", lambda: self.prefix + secrets.token_hex(32 - _PREFIX))

    def raw(self, name: str) -> bytes:
        """32 bytes."""
        return bytes.fromhex(self._get(f"raw {name}", lambda: self.prefix + secrets.token_hex(32 - _PREFIX)))

    def passphrase(self, name: str, length: int) -> str:
        """Letters and digits of this length."""
        if length > len(self.prefix):
            return self._get(f"passphrase {name} {length}", lambda: (self.prefix + secrets.token_hex(length))[:length])
        # too short for the prefix, so it is searched for by itself
        text = self._get(f"passphrase {name} {length}", lambda: letters(length))
        self.found.add(text.encode())
        return text

    def _get(self, name: str, make: Callable[[], str]) -> str:
        if name not in self._keys:
            self._keys[name] = make()
        return self._keys[name]

    def note(self, content: bytes) -> None:
        """Something that was in a key file: a key that was not made here is searched for by itself."""
        made_here = content.lower().startswith(self.prefix.encode()) or content.startswith(bytes.fromhex(self.prefix))
        if content and not made_here:
            self.found.add(content)

    def needles(self) -> dict[bytes, str]:
        """What to search for, with a name that does not give it away."""
        words: dict[bytes, str] = {}
        for start, name in (
            (self.prefix.encode(), "the keys of the suite"),
            (bytes.fromhex(self.prefix), "the raw keys of the suite"),
        ):
            words.update({**rare(start, name), **beginnings(start, name)})
        for content in self.found:
            words.update(whole(content.rstrip(b"\n"), "a generated key"))
        return words


def letters(length: int) -> str:
    """Random letters."""
    return "".join(secrets.choice(ascii_letters) for _unused in range(length))


def beginnings(start: bytes, name: str) -> dict[bytes, str]:
    """How any text that begins with ``start`` (of 6 or 12 bytes) begins in each common encoding."""
    return {
        start: f"{name}, as they are",
        start.upper(): f"{name}, in upper case",
        start.hex().encode(): f"{name}, in hex",
        start.hex().upper().encode(): f"{name}, in upper-case hex",
        base64.b64encode(start): f"{name}, in base64",
        base64.urlsafe_b64encode(start): f"{name}, in URL-safe base64",
        repr(start)[2:-1].encode(): f"{name}, as Python shows bytes",
        json.dumps(start.decode("latin-1"))[1:-1].encode(): f"{name}, in JSON",
    }


def rare(start: bytes, name: str) -> dict[bytes, str]:
    """The same in encodings that are unlikely, for the beginning that most keys share."""
    text, digits = start.decode("latin-1"), start.hex()
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    words = {
        text.encode("utf-8"): f"{name}, in UTF-8",
        text.encode("utf-16-le"): f"{name}, in UTF-16",
        text.encode("utf-16-be"): f"{name}, in big-endian UTF-16",
        json.dumps(start.decode("utf-8", "surrogateescape"))[1:-1].encode(): f"{name}, in JSON with surrogates",
        "".join(f"\\{byte:03o}" for byte in start).encode(): f"{name}, in octal",
        "".join(f"\\x{pair}" for pair in pairs).encode(): f"{name}, in escaped hex",
        ", ".join(str(byte) for byte in start).encode(): f"{name}, as a list of numbers",
    }
    for mark in ":- ":
        words[mark.join(pairs).encode()] = f"{name}, in hex with '{mark}' between bytes"
        words[mark.join(pairs).upper().encode()] = f"{name}, in upper-case hex with '{mark}' between bytes"
    for before in (1, 2):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The first characters depend on what stands before, the last one on what follows.
            whole_characters = (before + len(start)) * 8 // 6
            word = encode(bytes(before) + start)[before + 1 : whole_characters]
            words[word] = f"{name}, in base64 after {before} other bytes"
    return words


def whole(content: bytes, name: str) -> dict[bytes, str]:
    """A secret in each encoding; of a long one its first bytes, as long as they are the same in every encoding."""
    words = beginnings(content[:_PIECE] if len(content) > _PIECE else content, name)
    if len(content) == 64:
        with contextlib.suppress(ValueError):
            words.update(beginnings(bytes.fromhex(content.decode("ascii"))[:_PIECE], name))
    return {word: meaning for word, meaning in words.items() if len(word) >= 6}
