# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Datasets grouped by their encryption root."""

from __future__ import annotations

import typing as t

from . import keystore
from .names import ancestors
from .state import Dataset

# What TrueNAS asks for since release 26.
MINIMUM_ITERATIONS = 1_300_000


def summarize(
    datasets: t.Mapping[str, Dataset],
    above: t.Mapping[str, Dataset] | None = None,
    minimum_iterations: int = MINIMUM_ITERATIONS,
) -> list[dict[str, t.Any]]:
    """One row per encryption root, in the order of names, with the datasets that use its key.

    A root outside of the datasets that were asked for has a row too: what its children show of it is enough for that,
    but for its keylocation and type.

    :param above: roots outside that were read all the same
    :param minimum_iterations: how many PBKDF2 iterations a passphrase should have
    """
    members: dict[str, list[Dataset]] = {}
    for dataset in datasets.values():
        if dataset.encrypted:
            members.setdefault(dataset.root, []).append(dataset)
    own = {**(above or {}), **datasets}
    return [_row(root, members[root], own.get(root), minimum_iterations) for root in sorted(members)]


def unencrypted(datasets: t.Mapping[str, Dataset]) -> list[dict[str, t.Any]]:
    """The datasets that are not encrypted; ``below_encrypted`` marks those that look protected, but are not."""
    rows: list[dict[str, t.Any]] = []
    for name in sorted(datasets):
        dataset = datasets[name]
        if not dataset.encrypted:
            above = (datasets[parent] for parent in ancestors(name) if parent in datasets)
            rows.append({**_member(dataset), "below_encrypted": any(parent.encrypted for parent in above)})
    return rows


def _row(root: str, members: t.Sequence[Dataset], own: Dataset | None, minimum_iterations: int) -> dict[str, t.Any]:
    shown = own or members[0]
    key_format = shown.value("keyformat")
    iterations = int(shown.value("pbkdf2iters")) if key_format == "passphrase" else None
    children = sorted((member for member in members if member.name != root), key=lambda member: member.name)
    return {
        "name": root,
        "pool": root.split("/")[0],
        "type": own.value("type") if own else None,
        "cipher": own.value("encryption") if own else None,
        "key_format": key_format,
        "key_location": keystore.describe_location(own.value("keylocation")) if own else None,
        "iterations": iterations,
        "iterations_below_policy": iterations is not None and iterations < minimum_iterations,
        "key_loaded": not shown.locked,
        "locked": shown.locked,
        "mounted": _mounted(own) if own else None,
        "mountpoint": _mountpoint(own) if own else None,
        "children": [_member(child) for child in children],
    }


def _member(dataset: Dataset) -> dict[str, t.Any]:
    return {
        "name": dataset.name,
        "type": dataset.value("type"),
        "cipher": dataset.value("encryption") if dataset.encrypted else "off",
        "locked": dataset.locked,
        "mounted": _mounted(dataset),
        "mountpoint": _mountpoint(dataset),
    }


def _mounted(dataset: Dataset) -> bool | None:
    return dataset.mounted if dataset.value("type") == "filesystem" else None


def _mountpoint(dataset: Dataset) -> str | None:
    mountpoint = dataset.value("mountpoint")
    return mountpoint if mountpoint.startswith("/") else None
