# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the state ``absent``: a dataset is destroyed, clones elsewhere never."""

from __future__ import annotations

import typing as t

from ..errors import Refused
from ..plan import Change, Step
from .dataset_actions import Destroy
from .dataset_draft import Draft
from .dataset_options import WantedDataset


def plan_absent(wanted: WantedDataset, draft: Draft) -> None:
    draft.branch(wanted.name, _destroy(wanted, draft), after=destroyed_before(wanted.name, draft))


def destroyed_before(name: str, draft: Draft) -> tuple[str, ...]:
    """What the task destroys before a dataset: what it names below it, and clones of what is destroyed with it."""
    prefix = name + "/"
    absent = [one for one, entry in draft.entries.items() if entry.state == "absent" and one != name]
    return tuple(one for one in absent if one.startswith(prefix) or (_origin(one, draft) + "/").startswith(prefix))


def _origin(name: str, draft: Draft) -> str:
    """The dataset whose snapshot a clone was made of, "" for none."""
    dataset = draft.host.datasets.get(name)
    return dataset.value("origin").split("@")[0] if dataset is not None else ""


def _destroy(wanted: WantedDataset, draft: Draft) -> t.Iterator[Step]:
    name = wanted.name
    draft.pool(name)
    dataset = draft.model.get(name)
    if dataset is None:
        return
    if "/" not in name:
        raise Refused(
            f"'{name}' is the root dataset of a pool and can't be destroyed alone.",
            hint="nasops.encryption.zfs_encrypted_pool destroys a whole pool, with 'confirm_guid'.",
        )
    draft.writable(name)
    children = [one.name for one in draft.model.below(name)]
    inside = {name, *children}
    clones = [
        one.name
        for one in draft.host.datasets.values()
        if one.value("origin").split("@")[0] in inside and one.name not in inside and draft.model.get(one.name)
    ]
    if clones:
        raise Refused(
            f"'{name}' can't be destroyed: these are clones of its snapshots, and would be lost with it: "
            f"{', '.join(sorted(clones))}.",
            hint="Promote them with 'zfs promote', or destroy them by name first.",
        )
    snapshots = len(draft.host.snapshots(name))
    if (children or snapshots) and not wanted.recursive:
        parts = [f"the datasets {', '.join(children)}"] if children else []
        parts += [f"{snapshots} snapshot{'s' if snapshots > 1 else ''}"] if snapshots else []
        raise Refused(
            f"'{name}' has {' and '.join(parts)}, which would be destroyed too.",
            hint="Set 'recursive: true' if that is meant.",
        )
    mountpoint = dataset.value("mountpoint") if draft.model.mounted(dataset) else ""
    also = f" with {len(children)} datasets below it" if children else ""
    yield Step(
        f"Destroy '{name}'{also}",
        Destroy(
            name, wanted.recursive and bool(children or snapshots), mountpoint if mountpoint.startswith("/") else ""
        ),
        tuple(Change(("datasets", one, "state"), "present", "absent") for one in (name, *children)),
    )
    draft.model.remove(name)
