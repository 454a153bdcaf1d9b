# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors this collection raises on purpose: what was found, what was wanted, what to do next."""

from __future__ import annotations

import typing as t


class StorageError(Exception):
    """A condition the caller can act on; a module turns it into ``fail_json`` without a traceback.

    ``details`` becomes part of the module's result, so it holds plain JSON values and never a secret.
    """

    def __init__(self, message: str, *, hint: str = "", **details: t.Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, t.Any] = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInput(StorageError):
    """What was asked for can't be right, whatever the host looks like."""


class Refused(StorageError):
    """What was asked for is possible, but would destroy or strand something."""


def in_a_sentence(said: str) -> str:
    """What a program said, as a part of a sentence: in one line, and without a full stop."""
    return " ".join(said.split()).rstrip(".")


def first_of(words: t.Sequence[str], most: int) -> str:
    """Not more than so many of these, and how many others there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return f"{', '.join(words[:most])}{more}"
