# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells replicas that were received as raw streams: their keys are not this host's to change.

The next raw increment brings the sender's wrapped key along, and puts it over the one that is there. If the replica
was given another key meanwhile, it keeps pointing to that one, and can't be opened with either of them.
(https://github.com/openzfs/zfs/issues/12614)
"""

from __future__ import annotations

from ..errors import Refused
from .dataset_draft import Draft
from .dataset_options import WantedDataset
from .state import Dataset


def refuse_replica(dataset: Dataset, wanted: WantedDataset, draft: Draft, what: str) -> None:
    """Refuse to touch the key of a dataset that was received as a raw stream.

    :param what: what was to be done to it, in words
    """
    if wanted.detach_replica or not is_replica(dataset, draft):
        return
    raise Refused(
        f"'{dataset.name}' can't {what}: it seems to have been received as a raw stream. The next raw increment would "
        "overwrite its wrapped key with the sender's, and then no key would open it any more.",
        hint="Unlock it with the sender's key instead, for example from the sender's manifest. If no raw increments "
        "will ever come again, or it was encrypted anew when it was received, set 'detach_replica: true'.",
    )


def shares_with_replica(name: str, root: Dataset, draft: Draft) -> str:
    """What is wrong with a dataset of this host that uses the key of a replica, as a sentence; "" if that is none.

    An increment changes the wrapped keys of what it brings only: that of ``name`` would stay wrapped with the former
    key of the replica, which is gone by then.
    """
    made_now = root.name not in draft.host.datasets
    if made_now or not is_replica(root, draft):
        return ""
    return (
        f"'{root.name}' seems to have been received as a raw stream: once its key is changed at the sender, the next "
        f"raw increment brings the new one along, and then no key would open '{name}' any more."
    )


def refuse_shared_replica(name: str, root: Dataset, wanted: WantedDataset, draft: Draft) -> None:
    """Refuse to let a dataset of this host take the key of a replica."""
    danger = "" if wanted.detach_replica else shares_with_replica(name, root, draft)
    if danger:
        raise Refused(
            f"'{name}' can't take the key of '{root.name}'. {danger}",
            hint=f"Leave '{name}' a key of its own. If no raw increments will ever come again, or '{root.name}' was "
            "encrypted anew when it was received, set 'detach_replica: true'.",
        )


def is_replica(dataset: Dataset, draft: Draft) -> bool:
    """Whether a dataset was received, and its encryption root as well.

    A dataset that was received and decrypted is below a root that was made here. One that was received raw is a root
    itself, or lies below one that came in the same stream.
    """
    root = draft.model.get(dataset.root)
    return received(dataset, draft) and root is not None and (root.name == dataset.name or received(root, draft))


def received(dataset: Dataset, draft: Draft) -> bool:
    """Whether a dataset has properties that came with a stream, or a snapshot that was taken elsewhere.

    A snapshot that is received keeps the time at which the sender took it. So it is older than something that was in
    this pool before it: than the dataset itself in a first stream, in an increment than whatever else was created
    between its time and its arrival. (One that came by ``zfs promote`` was in this pool all the time.)

    An increment comes on top of a snapshot. A dataset without one gets none, unless something below it may have one: it
    need not be asked for properties then, which takes ZFS a while. Until its first stream has come whole, a dataset is
    inconsistent.
    """
    if dataset.value("inconsistent") == "1":
        return True
    born = int(dataset.value("createtxg"))
    snapshots = draft.host.snapshots(dataset.name)
    if not snapshots and dataset.name not in draft.on_top:
        return False
    for snapshot in snapshots:
        if snapshot.createtxg >= born and draft.newest_before(dataset.name, snapshot.createtxg) > snapshot.creation:
            return True
    return draft.host.has_received_values(dataset.name)
