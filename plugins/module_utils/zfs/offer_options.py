# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options in which a task offers keys for encryption roots, the same in every module that has them."""

from __future__ import annotations

import typing as t

from .manifest import parse_manifest, parse_manifests, read_manifest_file
from .names import within
from .offers import Offer, Offers, parse_offers


def arguments() -> dict[str, t.Any]:
    """A new argument specification of these options."""
    return {
        "keys": {"type": "dict", "no_log": True},
        "manifest": {"type": "raw", "no_log": True},
        "manifest_file": {"type": "path", "no_log": False},
    }


def offered(params: t.Mapping[str, t.Any], entries: t.Iterable[tuple[str, Offer]] = ()) -> Offers:
    """The keys of a task.

    :param entries: keys that stand in other options, which count before all others
    :raises StorageError: options that can't be understood, or a manifest that can't be read
    """
    manifest: dict[str, str] = {}
    path = params.get("manifest_file")
    if path is not None:
        manifest.update(parse_manifest(read_manifest_file(path), f"the manifest {path}"))
    manifest.update(parse_manifests(params.get("manifest"), "the manifest"))
    return parse_offers(params.get("keys"), manifest, entries)


def was_asked_for(params: t.Mapping[str, t.Any]) -> t.Callable[[str], bool]:
    """Tells of a dataset whether it would have been read if it existed, by the options ``name`` and ``recursive``."""
    name, recursive = params["name"], bool(params["recursive"])
    return lambda dataset: recursive and (name is None or within(dataset, (name,)))
