# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of keys that TrueNAS writes and reads: one JSON object, the text of a key by the name of its dataset."""

from __future__ import annotations

import json
import os
import re
import stat
import typing as t

from ..errors import BadInput, StorageError
from .names import check_dataset_name

# Bytes. TrueNAS takes no larger key file either.
LIMIT = 10 << 20

_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")


class _Object(list[tuple[str, t.Any]]):
    """A JSON object as it is written: with names that come twice, which a dict would hide."""


def parse_manifest(given: str | t.Mapping[t.Any, t.Any] | None, origin: str) -> dict[str, str]:
    """The texts of the keys by dataset; what they mean is known once the format of the dataset's key is.

    :param given: the JSON text, or what it stands for; ``None`` for no manifest
    :param origin: how to name the manifest in a message
    :raises BadInput: it is no manifest; no message holds a key
    """
    if given is None:
        return {}
    pairs = _pairs_of_text(given, origin) if isinstance(given, str) else _pairs_of_mapping(given, origin)
    found: dict[str, str] = {}
    for position, (name, text) in enumerate(pairs, 1):
        check_entry_name(name, text, position, origin)
        if name in found:
            raise BadInput(
                f"{_begin(origin)} holds '{name}' twice, so it is not clear which key is meant.",
                hint="Two manifests were joined by hand, perhaps. Leave in the current key only.",
            )
        found[name] = check_key_text(text, f"The entry '{name}' of {origin}")
    return found


def parse_manifests(given: t.Any, origin: str) -> dict[str, str]:
    """The same for one manifest, or a list of them: the first that has a key for a dataset counts.

    :raises BadInput: one of them is no manifest; no message holds a key
    """
    if not isinstance(given, (list, tuple)):
        return parse_manifest(given, origin)
    found: dict[str, str] = {}
    for position, one in reversed(list(enumerate(given, 1))):
        found.update(parse_manifest(one, origin if len(given) == 1 else f"{origin} {position} of {len(given)}"))
    return found


def check_entry_name(name: t.Any, content: t.Any, position: int, origin: str) -> str:
    """Returns the name of a dataset that a key is given for.

    When name and key are swapped, the name is a secret; so it is told only where the key clearly is in its place.

    :param position: of the entry, from 1
    :raises BadInput: no dataset can have this name
    """
    key_in_place = isinstance(content, str) and _HEX_KEY.fullmatch(content) is not None
    if isinstance(name, str) and (key_in_place or not _HEX_KEY.fullmatch(name)):
        try:
            return check_dataset_name(name)
        except BadInput as error:
            if key_in_place:
                raise BadInput(
                    f"{_begin(origin)} holds a key for '{name}', which is no dataset: {error.message}"
                ) from None
    raise BadInput(
        f"Entry {position} of {origin} does not begin with the name of a dataset.",
        hint="Each entry is the name of a filesystem or volume, and then its key.",
    ) from None


def check_key_text(text: t.Any, where: str) -> str:
    """Returns the text of a key.

    :param where: how to name it at the beginning of a message
    :raises BadInput: it is no text, or empty
    """
    if not isinstance(text, str):
        raise BadInput(
            f"{where} is {_kind(text)}; the text of a key is wanted.",
            hint="In YAML put quotes around a key: one of digits only would be taken for a number.",
        )
    if not text:
        raise BadInput(f"{where} is empty; the text of a key is wanted.")
    return text


def read_manifest_file(path: str) -> str:
    """The text of a manifest that lies on this host.

    :raises BadInput: no absolute path, too large, or no text
    :raises StorageError: it is not there, is no file, or can't be read
    """
    if not path.startswith("/"):
        raise BadInput(f"The path of the manifest is '{path}'; wanted is an absolute path on the host.")
    content = _read(path)
    if len(content) > LIMIT:
        raise _too_large(f"the manifest {path}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(
            f"The manifest {path} is no text in UTF-8.", hint="A sealed backup has to be opened first."
        ) from None


def _read(path: str) -> bytes:
    try:
        # Opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StorageError(f"The manifest {path} is no regular file.")
            with open(descriptor, "rb", closefd=False) as handle:
                return handle.read(LIMIT + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise StorageError(
            f"The manifest {path} does not exist on this host.",
            hint="manifest_file is a path on the host; one on the controller is given as "
            "manifest: \"{{ lookup('ansible.builtin.file', 'path') }}\".",
        ) from None
    except OSError as error:
        raise StorageError(f"The manifest {path} can't be read: {error.strerror}.") from None


def _pairs_of_text(text: str, origin: str) -> t.Iterable[tuple[t.Any, t.Any]]:
    if len(text) > LIMIT or len(text.encode("utf-8", "surrogatepass")) > LIMIT:
        raise _too_large(origin)
    try:
        # Windows programs put a byte order mark in front, which is not JSON.
        found = json.loads(text[1:] if text.startswith("\ufeff") else text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{_begin(origin)} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.", hint=_SHAPE
        ) from None
    except (ValueError, RecursionError):
        raise BadInput(f"{_begin(origin)} is no JSON that can be read.", hint=_SHAPE) from None
    if not isinstance(found, _Object):
        raise BadInput(f"{_begin(origin)} is {_kind(found)}; wanted is an object.", hint=_SHAPE)
    return found


def _pairs_of_mapping(given: t.Any, origin: str) -> t.Iterable[tuple[t.Any, t.Any]]:
    if not isinstance(given, t.Mapping):
        raise BadInput(f"{_begin(origin)} is {_kind(given)}; wanted is an object.", hint=_SHAPE)
    texts = (part for pair in given.items() for part in pair if isinstance(part, str))
    if sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) > LIMIT:
        raise _too_large(origin)
    return given.items()


_SHAPE = 'A manifest looks like {"tank/a": "the key of tank/a", "tank/b": "the key of tank/b"}.'


def _too_large(origin: str) -> BadInput:
    return BadInput(f"{_begin(origin)} has more than {LIMIT >> 20} MiB.", hint="TrueNAS takes no larger one either.")


def _kind(value: t.Any) -> str:
    """What a value is, without telling it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "an object" if isinstance(value, (t.Mapping, _Object)) else "a list"


def _begin(origin: str) -> str:
    return origin[:1].upper() + origin[1:]
