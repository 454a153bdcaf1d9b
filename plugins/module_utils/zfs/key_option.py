# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``key`` option that every module of this collection shares; documented in the fragment ``key``."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput
from ..secrets import FORMATS, Key, check_iterations, parse_option
from . import keystore

KEY_SPEC: t.Mapping[str, t.Any] = {
    "type": "dict",
    "no_log": False,
    "options": {
        "format": {"type": "str", "choices": list(FORMATS), "default": "hex"},
        "value": {"type": "str", "no_log": True},
        "file": {"type": "path", "no_log": False},
        "generate": {"type": "bool", "default": False, "no_log": False},
        "iterations": {"type": "int", "no_log": False},
    },
}


@dataclass(frozen=True)
class WantedKey:
    """The key of one encryption root as the caller described it. ``file`` is an absolute path."""

    format: str
    value: Key | None = field(default=None, repr=False)
    file: str | None = None
    generate: bool = False
    iterations: int | None = None

    @property
    def location(self) -> str:
        """The keylocation that a new encryption root gets."""
        return keystore.location_of(self.file) if self.file else "prompt"

    @property
    def by_hand(self) -> Key | None:
        """The value where there is no file: ZFS has to be handed it. None where it reads the file."""
        return self.value if self.file is None else None

    def properties(self, cipher: str) -> dict[str, str]:
        """The properties with which a new dataset becomes an encryption root that this key opens."""
        found = {"encryption": cipher, "keyformat": self.format, "keylocation": self.location}
        if self.iterations is not None:
            found["pbkdf2iters"] = str(self.iterations)
        return found


def parse_key_option(option: t.Mapping[str, t.Any], dataset: str) -> WantedKey:
    """Check one ``key`` option without looking at the host.

    :raises BadInput: a value that is no key of this format, too few iterations, or a key that would exist nowhere
    """
    key_format = option["format"]
    check_iterations(option.get("iterations"), key_format)
    value, file, generate = option.get("value"), option.get("file"), bool(option.get("generate"))
    if generate and file is None:
        raise BadInput(
            f"The key of '{dataset}' is to be generated, but key.file is missing, so it would exist nowhere.",
            hint="Add 'file: auto' to keep it on the host, or generate it on the controller and give it as key.value.",
        )
    if generate and value is not None:
        raise BadInput(f"The key of '{dataset}' has a value and is to be generated; it can only be one of both.")
    if value is None and file is None:
        raise BadInput(
            f"The key of '{dataset}' has neither a value nor a file.",
            hint="Give key.value (from Ansible Vault, say), or key.file with 'generate: true' for a new key.",
        )
    return WantedKey(
        format=key_format,
        value=None if value is None else parse_option(key_format, value),
        file=None if file is None else keystore.path_for(file, dataset),
        generate=generate,
        iterations=option.get("iterations"),
    )
