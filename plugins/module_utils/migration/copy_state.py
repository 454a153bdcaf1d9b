# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a copy that rsync makes: which state of the source it holds, and whether it still does."""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass

from ..zfs.replicate_state import Snapshot, head_mark
from ..zfs.state import Dataset

# A user property of each dataset of the target. It holds no secret, and counts only together with the snapshot in it.
COPY_RECORD = "nasops.encryption:migration-copied"
# In place of the state, while a pass is under way, with what that needs to be told from what others do meanwhile.
_UNDER_WAY = "copying"
# In place of the state, when a pass has broken off by itself. Then a snapshot stands for how far it came.
PARTIAL = "partial"
PARTIAL_SNAPSHOT = "--partial--"
# In place of a snapshot, as long as there is none.
NONE = "-"

# Fixed when a filesystem is made, and taken from the source then.
FIXED = ("casesensitivity", "normalization", "utf8only")
# What is read of both ends.
SHAPE = (*FIXED, "guid", "volsize", "volblocksize", "acltype", "compression")


@dataclass(frozen=True)
class Copied:
    """That a snapshot of the target holds a state of the source.

    ``source`` is the GUID of the dataset that was copied, ``snapshot`` one at the target. It is made when a pass is
    done, so that whatever was written since shows.
    """

    source: str
    snapshot: str
    state: str

    @property
    def under_way(self) -> bool:
        """Whether a pass has begun, and nothing is known of its end: it runs, or was killed."""
        return self.state.startswith(_UNDER_WAY)

    @property
    def whole(self) -> bool:
        return not self.under_way and self.state != PARTIAL

    @property
    def goal(self) -> str:
        """What a pass that is under way calls its snapshot, "" for any other record."""
        return self.state.partition("@")[2] if self.under_way else ""

    @property
    def kept(self) -> dict[str, str]:
        """Properties of the dataset's own that a pass which is under way has set to something else."""
        words = self.state.partition("@")[0][len(_UNDER_WAY) + 1 :] if self.under_way else ""
        return dict(word.split("=", 1) for word in words.split(",") if "=" in word)

    def explains(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot of the target was made by a pass."""
        return snapshot.guid == self.snapshot or (self.under_way and snapshot.name == self.goal)

    def text(self) -> str:
        return f"{self.source} {self.snapshot} {self.state}"


def under_way(goal: str, kept: t.Mapping[str, str | None]) -> str:
    """In place of the state, while a pass is under way.

    :param goal: what its snapshot will be called
    :param kept: what the properties that it sets have to be afterwards, None for inherited
    """
    own = ",".join(f"{one}={value}" for one, value in sorted(kept.items()) if value is not None)
    return f"{_UNDER_WAY}{':' + own if own else ''}@{goal}"


def copied_record(dataset: Dataset) -> Copied | None:
    """The record of a dataset of the target, None if it has none of its own."""
    found = dataset.properties.get(COPY_RECORD)
    if found is None or found.source != "local":
        return None
    words = found.value.split(" ", 2)
    return Copied(*words) if len(words) == 3 and all(words) else None


def state_of_head(dataset: Dataset, imported: str) -> str:
    """A name for what is in no snapshot of a source that is imported read-only.

    Nothing can change until the pool is imported again. Then it counts as another state, and rsync looks at each file.
    """
    return f"head:{dataset.value('guid')}:{head_mark(dataset)}:{imported}"


def state_of(dataset: Dataset, goal: Snapshot, imported: str, skip: t.Sequence[str]) -> str:
    """A name for what is to be copied of a dataset of the source."""
    return named(state_of_head(dataset, imported) if goal.head else goal.guid, skip)


def named(state: str, skip: t.Sequence[str]) -> str:
    """The name of a state of which these paths are left out."""
    if not skip:
        return state
    digest = hashlib.sha256("\0".join(sorted(skip)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{state}/{digest}"


def is_current(replica: Dataset, snapshots: t.Sequence[Snapshot], state: str) -> bool:
    """Whether a dataset of the target holds just this state, by its record and by what can be seen of it."""
    record = copied_record(replica)
    if record is None or record.state != state or replica.written:
        return False
    return [one.guid for one in snapshots] == [record.snapshot]
