# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filters for manifests share: input in types of Python itself, and errors that Ansible shows as they are."""

from __future__ import annotations

import functools
import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import StorageError
from ..module_utils.zfs.manifest import parse_manifest

Filter = t.Callable[..., t.Any]


def told(work: Filter) -> Filter:
    """A filter whose errors are told to people; they never hold a key."""

    @functools.wraps(work)
    def filtered(*arguments: t.Any, **options: t.Any) -> t.Any:
        try:
            return work(*arguments, **options)
        except StorageError as error:
            # Without the cause, whose text may be a part of the input.
            raise AnsibleFilterError(str(error)) from None

    return filtered


def manifest_of(given: t.Any) -> dict[str, str]:
    """The keys by name, from a JSON text or a dictionary.

    :raises AnsibleFilterError: it is neither of them
    """
    if isinstance(given, str):
        return parse_manifest(str(given), "the manifest")
    if isinstance(given, t.Mapping):
        return parse_manifest({_text(name): _text(key) for name, key in given.items()}, "the manifest")
    raise AnsibleFilterError("The input is no manifest: wanted is a JSON object of dataset names and keys.")


def text_of(given: t.Any, what: str) -> str:
    """A text.

    :raises AnsibleFilterError: it is none, or empty
    """
    if not isinstance(given, str) or not given.strip():
        raise AnsibleFilterError(f"{what} is no text, or empty.")
    return str(given)


def _text(value: t.Any) -> t.Any:
    """Ansible's own kind of text as one of Python."""
    return str(value) if isinstance(value, str) else value
