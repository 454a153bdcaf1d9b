# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both ends of a replication as they were read."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .keystore import KeyFile
from .properties import Property
from .state import Dataset

# What a dataset that was sent without a snapshot is called at the target. Its GUID is that of the dataset.
HEAD = "--head--"
# A user property of a replica that was brought up to a head: what the sizes of that were. The GUID stays the same
# whatever is written to a dataset.
HEAD_MARK = "nasops.encryption:head"
# Of these it is made.
HEAD_SIZES = ("written", "referenced", "logicalreferenced")
# The transaction group of what is newer than all snapshots.
FUTURE = 1 << 62


@dataclass(frozen=True)
class Snapshot:
    """A snapshot, or a bookmark. ``name`` is what stands behind the @ or #.

    ``ivset`` is the same in a raw copy and another one in a copy that was decrypted on the way; "" if not encrypted.
    ``volsize`` is the size that a volume had then, "" if it was not asked for, or is no volume.
    """

    name: str
    guid: str
    createtxg: int = 0
    ivset: str = ""
    volsize: str = ""

    @property
    def head(self) -> bool:
        """Whether this is no snapshot, but what was written since the last one."""
        return self.name == HEAD


def head_mark(dataset: Dataset) -> str:
    """What tells a head from what is written to the dataset later."""
    return "-".join(dataset.value(one) for one in HEAD_SIZES)


@dataclass(frozen=True)
class Token:
    """What is kept of a stream that broke off. ``stale`` tells why it can't be gone on with, "" if it can."""

    value: str
    guid: str = ""
    raw: bool = False
    stale: str = ""


@dataclass(frozen=True)
class Side:
    """One end. Snapshots and bookmarks are by dataset, oldest first; ``pool`` holds properties of its pool.

    ``datasets`` holds the dataset with what lies below it and, at the target, the one above it.
    """

    datasets: t.Mapping[str, Dataset] = field(default_factory=dict)
    snapshots: t.Mapping[str, tuple[Snapshot, ...]] = field(default_factory=dict)
    bookmarks: t.Mapping[str, tuple[Snapshot, ...]] = field(default_factory=dict)
    tokens: t.Mapping[str, Token] = field(default_factory=dict)
    pool: t.Mapping[str, Property] = field(default_factory=dict)
    can_exclude: bool = True
    """Whether its zfs can leave datasets out of a stream of a tree."""
    key_files: t.Mapping[str, KeyFile] = field(default_factory=dict)
    """Those of replicas that are still to be made, by the names of their datasets at the source."""

    def of(self, dataset: str) -> tuple[Snapshot, ...]:
        """The snapshots of a dataset, oldest first."""
        return self.snapshots.get(dataset, ())


@dataclass(frozen=True)
class Ends:
    """Both ends, and the name of the snapshot that this run has taken, "" if none yet."""

    source: Side
    target: Side
    taken: str = ""
