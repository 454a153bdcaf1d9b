# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys a caller offers for encryption roots, and which of them is meant for a root."""

from __future__ import annotations

import base64
import binascii
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.parsing.convert_bool import boolean

from ..errors import BadInput
from ..secrets import KEY_BYTES, PASSPHRASE_MIN_BYTES, Key, parse_offered
from . import keystore
from .manifest import check_entry_name, check_key_text
from .names import ancestors

_SHAPE = "An entry is the text of a key, or has 'value' or 'file', and may have 'recursive'."


@dataclass(frozen=True)
class Offer:
    """A key that the caller offers for a root; its text is understood once the format of the root is known.

    ``origin`` names it in messages, ``file`` is an absolute path. Either ``text`` or ``file`` is set.
    """

    origin: str
    text: str | None = field(default=None, repr=False)
    file: str | None = None
    recursive: bool = False

    def key_for(self, key_format: str) -> Key:
        """The key that ``text`` stands for. A file is read by the caller, as ZFS would read it.

        :raises BadInput: it is none of this format
        """
        if self.text is None:
            raise BadInput(f"The key from {self.origin} is in {self.file}, which was not read.")
        return parse_offered(key_format, self.text, f"The key from {self.origin}")


def doubt(key: Key, origin: str) -> str:
    """What may be wrong with a passphrase that does not fit, as a hint; "" if nothing strikes the eye."""
    if key.format != "passphrase":
        return ""
    text = key.material.decode("utf-8", "replace")
    if text.endswith("\r"):
        return f"The passphrase from {origin} ends with a carriage return: was its file saved on Windows?"
    if text != text.strip(" \t\xa0"):
        return f"The passphrase from {origin} begins or ends with a blank: was it copied by hand?"
    return ""


@dataclass(frozen=True)
class Offers:
    """All keys of a task. ``explicit`` holds those given for a dataset by its name, the one that counts first."""

    explicit: t.Mapping[str, tuple[Offer, ...]] = field(default_factory=dict)

    def of(self, root: str) -> tuple[Offer, ...]:
        """What is offered for a root: the key given for it alone, or that of the nearest dataset above it whose key
        is meant for all below. The key file of the root's own keylocation is not among them.
        """
        own = self.explicit.get(root, ())
        if own:
            return own[:1]
        for above in ancestors(root):
            for offer in self.explicit.get(above, ()):
                if offer.recursive:
                    return (offer,)
        return ()

    def alone(self, root: str) -> bool:
        """Whether a key is given for a root by its name, so that no other may be tried."""
        return bool(self.explicit.get(root))

    def secrets(self) -> t.Iterator[Key]:
        """Every text as what has to be hidden, whatever format it turns out to be of.

        Shorter texts than a passphrase are left out: they would hide unrelated words everywhere.
        """
        for offers in self.explicit.values():
            for offer in offers:
                if offer.text is not None:
                    yield from spellings(offer.text)


def parse_offers(
    keys: t.Mapping[t.Any, t.Any] | None,
    manifest: t.Mapping[str, str],
    entries: t.Iterable[tuple[str, Offer]] = (),
) -> Offers:
    """The keys of entries, of the option ``keys`` and of a manifest; for one dataset they count in this order.

    :param manifest: as ``parse_manifest`` returned it
    :raises BadInput: naming the dataset, never the key
    """
    found: dict[str, list[Offer]] = {}
    for name, offer in entries:
        found.setdefault(name, []).append(offer)
    for position, (name, content) in enumerate((keys or {}).items(), 1):
        found.setdefault(check_entry_name(name, content, position, "keys"), []).append(_parse_entry(name, content))
    for name, text in manifest.items():
        found.setdefault(name, []).append(Offer(f"the manifest's entry '{name}'", text))
    return Offers({name: tuple(offers) for name, offers in found.items()})


def plain_words(keys: t.Mapping[t.Any, t.Any] | None) -> set[str]:
    """The texts in the option ``keys`` that are no secrets, although the option is one: paths, and words for a flag.

    Ansible would blank them out wherever they occur, "auto" in "autotrim" as well.
    """
    entries = [one for one in (keys or {}).values() if isinstance(one, t.Mapping)]
    words = {entry.get(name) for entry in entries for name in ("file", "recursive")}
    secret = {one for one in (keys or {}).values() if isinstance(one, str)} | {str(one.get("value")) for one in entries}
    return {word for word in words if isinstance(word, str)} - secret


def _parse_entry(name: str, content: t.Any) -> Offer:
    origin = f"keys['{name}']"
    if not isinstance(content, t.Mapping):
        return Offer(origin, check_key_text(content, origin))
    value, file, recursive = content.get("value"), content.get("file"), content.get("recursive")
    if set(content) - {"value", "file", "recursive"}:
        # Unknown words are not told: where words and keys are mixed up, they are keys.
        raise BadInput(f"{origin} has words that mean nothing.", hint=_SHAPE)
    if (value is None) == (file is None):
        raise BadInput(
            f"{origin} has {'neither a value nor a file' if file is None else 'a value and a file'}.", hint=_SHAPE
        )
    if file is None:
        return Offer(origin, check_key_text(value, f"{origin}.value"), None, _flag(recursive, origin))
    return Offer(f"{origin}.file", None, _path(file, name, origin), _flag(recursive, origin))


def _path(file: t.Any, name: str, origin: str) -> str:
    if not isinstance(file, str):
        raise BadInput(f"{origin}.file is no text; wanted is an absolute path on the host, or 'auto'.")
    try:
        return keystore.path_for(file, name)
    except BadInput as error:
        raise BadInput(f"{origin}: {error.message}", hint=error.hint) from None


def _flag(value: t.Any, origin: str) -> bool:
    try:
        return value is not None and bool(boolean(value))
    except TypeError:
        raise BadInput(f"{origin}.recursive is neither true nor false.") from None


def spellings(text: str) -> t.Iterator[Key]:
    material = text.encode("utf-8", "surrogatepass")
    if len(material) >= PASSPHRASE_MIN_BYTES:
        yield Key("passphrase", material)
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return
    if len(raw) == KEY_BYTES:
        yield Key("raw", raw)
