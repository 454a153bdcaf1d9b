# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a host when datasets are planned, and what the planner may still ask.

Most of what could be asked costs too much to read it always: a passphrase takes a second to try. So the planner asks
where a decision depends on it, the reader answers all questions of a round at once, and planning begins anew.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..errors import StorageError
from ..secrets import Key
from .keystore import Identity, KeyFile
from .mount_table import Place
from .state import SILENT_HEALTH, Dataset


@dataclass(frozen=True)
class PoolFacts:
    """What matters of an imported pool."""

    health: str
    read_only: bool = False
    altroot: str = ""

    @property
    def silent(self) -> bool:
        """Whether it would hang instead of answering."""
        return self.health in SILENT_HEALTH


@dataclass(frozen=True)
class TryKey:
    """Is this the current key of that encryption root? Answered with a bool, or the error that kept from knowing."""

    root: str
    key: Key


@dataclass(frozen=True)
class ReadKeyFile:
    """What is in this key file, if it is there? ``strict``: by the rules for a key that is to be set."""

    path: str
    key_format: str
    strict: bool = True


@dataclass(frozen=True)
class LookAt:
    """What is in the way of a mount there?"""

    mountpoint: str


@dataclass(frozen=True)
class FindPlaces:
    """Where are these filesystems mounted? By name, what the mount table of the host says."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class ListSnapshots:
    """The snapshots of a dataset: creation time in seconds, and transaction group."""

    dataset: str


@dataclass(frozen=True)
class HasReceivedValues:
    """Does a dataset have properties that came with a stream?"""

    dataset: str


@dataclass(frozen=True)
class ReadKeyLocations:
    """The keylocations of the encryption roots in these pools, which the task is not about: by root."""

    pools: tuple[str, ...]


@dataclass(frozen=True)
class Identify:
    """Which files are these, whatever they are called? By path."""

    paths: tuple[str, ...]


Question = t.Union[
    TryKey, ReadKeyFile, LookAt, FindPlaces, ListSnapshots, HasReceivedValues, ReadKeyLocations, Identify
]


@dataclass(frozen=True)
class Obstacle:
    """What is in the way of a mount, "" for nothing; ``aside`` is the free name it can be moved to."""

    text: str
    aside: str = ""


@dataclass(frozen=True)
class Snapshot:
    """When a snapshot was taken (seconds), and in which transaction group of this pool it appeared."""

    creation: int
    createtxg: int


class Unanswered(Exception):
    """A decision depends on something that has to be read first."""

    def __init__(self, question: Question) -> None:
        # No text: a question may hold the paths of a thousand files, and be raised for each of them.
        super().__init__()
        self.question = question


@dataclass(frozen=True)
class DatasetHost:
    """What was read of a host for the datasets of one task.

    ``datasets``: all of the pools concerned. ``folder``: the keystore, ``stored`` the names of the files in it.
    """

    pools: t.Mapping[str, PoolFacts]
    datasets: t.Mapping[str, Dataset]
    folder: str
    stored: frozenset[str] = frozenset()
    answers: t.Mapping[Question, t.Any] = field(default_factory=dict)

    def opens(self, root: str, key: Key) -> bool:
        """Whether a key is the current one of an encryption root.

        :raises StorageError: that could not be found out
        """
        answer = self._answer(TryKey(root, key))
        if isinstance(answer, StorageError):
            raise answer
        return bool(answer)

    def key_file(self, path: str, key_format: str, strict: bool = True) -> KeyFile:
        found: KeyFile = self._answer(ReadKeyFile(path, key_format, strict))
        return found

    def obstacle(self, mountpoint: str) -> Obstacle:
        found: Obstacle = self._answer(LookAt(mountpoint))
        return found

    def places(self, names: tuple[str, ...]) -> t.Mapping[str, tuple[Place, ...]]:
        """Where filesystems are mounted, of which ZFS does not tell."""
        if not names:
            return {}
        found: t.Mapping[str, tuple[Place, ...]] = self._answer(FindPlaces(names))
        return found

    def snapshots(self, dataset: str) -> tuple[Snapshot, ...]:
        found: tuple[Snapshot, ...] = self._answer(ListSnapshots(dataset))
        return found

    def has_received_values(self, dataset: str) -> bool:
        """Whether a dataset has properties that came with a stream."""
        return bool(self._answer(HasReceivedValues(dataset)))

    def reachable(self, name: str) -> bool:
        """Whether the pool of a dataset is imported and answers."""
        facts = self.pools.get(name.split("/")[0])
        return facts is not None and not facts.silent

    def silent_pools(self) -> list[str]:
        """The pools of which nothing is known but that they are there."""
        return sorted(name for name, facts in self.pools.items() if facts.silent)

    def key_locations_elsewhere(self) -> t.Mapping[str, str]:
        """The keylocations of the encryption roots in the other pools of the host, as far as these answer."""
        others = tuple(name for name, facts in self.pools.items() if name not in self.datasets and not facts.silent)
        if not others:
            return {}
        found: t.Mapping[str, str] = self._answer(ReadKeyLocations(others))
        return found

    def identities(self, paths: t.Iterable[str]) -> t.Mapping[str, Identity]:
        """Which files these are, by path."""
        found: t.Mapping[str, Identity] = self._answer(Identify(tuple(dict.fromkeys(paths))))
        return found

    def _answer(self, question: Question) -> t.Any:
        if question not in self.answers:
            raise Unanswered(question)
        return self.answers[question]
