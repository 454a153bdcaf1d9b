# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of notes for root alone, which is replaced as a whole. Who changes it holds the lock of the host."""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

_LONGEST = 1 << 20


def load(path: str) -> dict[str, t.Any]:
    """What is noted, nothing if there is no such file, or if it is not one of this collection.

    :raises OSError: it is there, and can't be read
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return {}
    try:
        found = json.loads(os.read(descriptor, _LONGEST) or b"{}")
    except ValueError:
        return {}
    finally:
        os.close(descriptor)
    return found if isinstance(found, dict) else {}


def save(path: str, notes: t.Mapping[str, t.Any]) -> None:
    """Note this in place of all there is. A program that ends in between leaves what was noted before.

    :raises OSError: it can't be written
    """
    part = f"{path}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(part, flags, 0o600), "wb") as file:
            file.write(json.dumps(notes, sort_keys=True).encode("ascii"))
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
