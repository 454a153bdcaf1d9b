# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Datasets as plain values for the result of a module, and what became of the branches of the plan."""

from __future__ import annotations

import typing as t

from ..plan import Failure, Plan
from . import keystore
from .dataset_options import Wishes
from .dataset_state import DatasetHost


def describe(wishes: Wishes, host: DatasetHost) -> list[dict[str, t.Any]]:
    """One row for each described dataset."""
    return [_row(wanted.name, host) for wanted in wishes.datasets]


def _row(name: str, host: DatasetHost) -> dict[str, t.Any]:
    dataset = host.datasets.get(name)
    if dataset is None:
        return {"name": name, "state": "unknown" if name.split("/")[0] in host.silent_pools() else "absent"}
    encrypted, kind = dataset.encrypted, dataset.value("type")
    mountpoint = dataset.value("mountpoint")
    return {
        "name": name,
        "state": "present",
        "type": kind,
        "encryption": dataset.value("encryption"),
        "encryption_root": dataset.root or None,
        "key_format": dataset.value("keyformat") if encrypted else None,
        "key_location": keystore.describe_location(dataset.value("keylocation")) if dataset.is_root else None,
        "locked": dataset.locked,
        "mounted": dataset.mounted if kind == "filesystem" else None,
        "mountpoint": mountpoint if mountpoint.startswith("/") else None,
    }


def outcome(plan: Plan, host: DatasetHost, check_mode: bool) -> dict[str, t.Any]:
    """The encryption roots that were opened and closed, and the datasets with which something went wrong.

    :param host: as it is now; a root that was opened and locked again, since nothing could be mounted, is not open
    """
    changes = [change for step in plan.steps for change in step.changes]
    locks = [change for change in changes if change.path[0] == "datasets" and change.path[-1] == "locked"]
    return {
        "unlocked": [one.path[1] for one in locks if one.after is False and (check_mode or _open(one.path[1], host))],
        "locked": [one.path[1] for one in locks if one.after is True],
        "failed_datasets": {one.branch: _failure(one, plan) for one in plan.failures if not one.because},
        "skipped_datasets": [one.branch for one in plan.failures if one.because],
    }


def _open(name: str, host: DatasetHost) -> bool:
    dataset = host.datasets.get(name)
    return dataset is not None and not dataset.locked


def _failure(failure: Failure, plan: Plan) -> dict[str, t.Any]:
    held_up = [one.branch for one in plan.failures if one.because and _cause(one, plan) == failure.branch]
    return {"error": str(failure), "skipped": held_up}


def _cause(failure: Failure, plan: Plan) -> str:
    """The branch whose own fault it is in the end."""
    by_name = {one.branch: one for one in plan.failures}
    seen: set[str] = set()
    while failure.because in by_name and failure.branch not in seen:
        seen.add(failure.branch)
        failure = by_name[failure.because]
    return failure.branch
