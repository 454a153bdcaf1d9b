# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a migration: both ends, the members of the source, the key of the target, and what was recorded."""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass

from ..zfs.replicate_options import Replication
from ..zfs.replicate_state import Ends, Snapshot
from ..zfs.state import Dataset
from .options import LEVELS

# User properties of the target. They hold no secret, and nothing that they say is believed unless it is seen, too.
SOURCE_RECORD = "nasops.encryption:migration-source"
VERIFIED_RECORD = "nasops.encryption:migration-verified"
FINAL_RECORD = "nasops.encryption:migration-finalized"
RECORDS = (SOURCE_RECORD, VERIFIED_RECORD, FINAL_RECORD)


@dataclass(frozen=True)
class Member:
    """A device of the source pool. ``geli``: whether it is a decrypted device of GELI."""

    path: str
    state: str
    geli: bool


@dataclass(frozen=True)
class KeyRoot:
    """The encryption root of the target. ``users`` are all datasets that its key opens."""

    name: str
    location: str = "none"
    locked: bool = False
    users: tuple[Dataset, ...] = ()


@dataclass(frozen=True)
class Found:
    """All that is decided on. ``wanted`` is what is asked for, with what the source pool allows."""

    wanted: Replication
    ends: Ends
    read_only: bool = False
    members: tuple[Member, ...] = ()
    root: KeyRoot | None = None

    @property
    def target(self) -> Dataset | None:
        """The top of the target, None if there is none yet."""
        return self.ends.target.datasets.get(self.wanted.target)

    def record(self, name: str) -> str:
        """What was recorded on the target itself, "" if nothing."""
        found = None if self.target is None else self.target.properties.get(name)
        return found.value if found is not None and found.source == "local" else ""

    @property
    def source_id(self) -> str:
        """How the source is called in the record: the GUID of its pool, and its name."""
        guid = self.ends.source.pool.get("guid")
        return f"{guid.value if guid else ''}:{self.wanted.source}"

    @property
    def finalized(self) -> bool:
        """Whether the target has taken the place of the source. Said is not enough: it has to fit what was verified."""
        final, verified = self.record(FINAL_RECORD), verified_record(self.record(VERIFIED_RECORD))
        return verified is not None and final == verified.fingerprint and self.record(SOURCE_RECORD) == self.source_id


@dataclass(frozen=True)
class Verified:
    """That a state of the target was verified, and how."""

    level: str
    fingerprint: str

    def covers(self, level: str, fingerprint: str) -> bool:
        """Whether this says as much of just that state."""
        return self.fingerprint == fingerprint and LEVELS.index(self.level) >= LEVELS.index(level)

    def text(self) -> str:
        return f"{self.level}:{self.fingerprint}"


def verified_record(text: str) -> Verified | None:
    """Such a record, None for a text that is none."""
    level, colon, fingerprint = text.partition(":")
    return Verified(level, fingerprint) if colon and level in LEVELS and fingerprint else None


def fingerprint(names: t.Iterable[str], snapshots: t.Mapping[str, t.Sequence[Snapshot]], source_id: str) -> str:
    """Stands for the newest snapshots of these datasets at the target, by their GUIDs.

    :param names: of the datasets at the target
    :param snapshots: by dataset, oldest first
    """
    digest = hashlib.sha256(source_id.encode("utf-8"))
    for name in sorted(names):
        newest = snapshots.get(name, ())[-1:]
        digest.update(f"\n{name}\t{newest[0].guid if newest else '-'}".encode())
    return digest.hexdigest()[:32]
