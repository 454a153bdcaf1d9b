# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a migration: both ends, the members of the source, the key of the target, and what was recorded."""

from __future__ import annotations

import hashlib
import typing as t
from dataclasses import dataclass, field

from ..zfs.replicate_options import Replication
from ..zfs.replicate_state import HEAD_MARK, Ends, Snapshot
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
    """The encryption root of the target.

    ``users`` are all datasets that its key opens, ``others`` those below it that it does not.
    """

    name: str
    location: str = "none"
    locked: bool = False
    users: tuple[Dataset, ...] = ()
    others: tuple[Dataset, ...] = ()


@dataclass(frozen=True)
class Found:
    """All that is decided on. ``wanted`` is what is asked for, with what the source pool allows.

    ``root`` is the encryption root of the target, ``roots`` are those below it that are there, by their names.
    ``imported`` is another one whenever the source pool is imported (``load_guid`` of zpoolprops(7)). For rsync alone,
    ``lacking`` is what this host lacks for it, or that of the target, and ``entries`` has something that is in each
    filesystem of the target which was not made by it.
    """

    wanted: Replication
    ends: Ends
    read_only: bool = False
    members: tuple[Member, ...] = ()
    root: KeyRoot | None = None
    imported: str = ""
    roots: t.Mapping[str, KeyRoot] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    entries: t.Mapping[str, str] = field(default_factory=dict)

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
    def source_guid(self) -> str:
        """The GUID of the pool that the target is recorded to be a migration of, "" if nothing is recorded."""
        return self.record(SOURCE_RECORD).partition(":")[0]

    @property
    def source_gone(self) -> bool:
        """Whether the pool of the source is not imported, so that nothing is known of it but what was recorded."""
        return not self.ends.source.datasets

    @property
    def finalized(self) -> bool:
        """Whether the target has taken the place of the source. Said is not enough: it has to fit what was verified.

        Without the source its name has to do, since nobody can tell the GUID of its pool.
        """
        final, verified = self.record(FINAL_RECORD), verified_record(self.record(VERIFIED_RECORD))
        return verified is not None and final == verified.fingerprint and self._is_of_source(self.record(SOURCE_RECORD))

    def _is_of_source(self, record: str) -> bool:
        if self.source_gone:
            guid, _colon, name = record.partition(":")
            return guid.isdigit() and name == self.wanted.source
        return record == self.source_id


@dataclass(frozen=True)
class Verified:
    """That a state of the target was verified, and how. ``run`` is the one that did it, "" where that was not asked."""

    level: str
    fingerprint: str
    run: str = ""

    def covers(self, level: str, fingerprint: str, run: str = "") -> bool:
        """Whether this says as much of just that state, and was made by this run if one is given."""
        return (
            self.fingerprint == fingerprint
            and LEVELS.index(self.level) >= LEVELS.index(level)
            and (not run or self.run == run)
        )

    def text(self) -> str:
        return ":".join((self.level, self.fingerprint, *filter(None, (self.run,))))


def verified_record(text: str) -> Verified | None:
    """Such a record, None for a text that is none."""
    level, _colon, rest = text.partition(":")
    fingerprint, _colon, run = rest.partition(":")
    return Verified(level, fingerprint, run) if level in LEVELS and fingerprint else None


def fingerprint(
    names: t.Iterable[str],
    datasets: t.Mapping[str, Dataset],
    snapshots: t.Mapping[str, t.Sequence[Snapshot]],
    source_id: str,
    imported: str,
) -> str:
    """Stands for all snapshots of these datasets at the target, by their GUIDs, and for the heads among them.

    A head keeps its GUID when it is written to. So what was noted of it when it was sent counts, and that the source
    pool is still imported as it was: it may have been written to between two imports, and no size tells.

    :param names: of the datasets at the target
    :param datasets: those of the target, with HEAD_MARK
    :param snapshots: by dataset, oldest first
    :param imported: what is another one at each import of the source pool
    """
    digest = hashlib.sha256(source_id.encode("utf-8"))
    for name in sorted(names):
        ones = snapshots.get(name, ())
        mark = datasets[name].properties.get(HEAD_MARK) if name in datasets else None
        noted = mark.value if mark is not None and mark.own else "-"
        head = imported if any(one.head for one in ones) else "-"
        digest.update("\t".join((f"\n{name}", noted, head, *(one.guid for one in ones))).encode())
    return digest.hexdigest()[:32]
