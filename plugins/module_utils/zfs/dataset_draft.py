# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan for datasets while it is being made: steps in branches, branches that failed, questions that came up."""

from __future__ import annotations

import bisect
import functools
import itertools
import os
import typing as t
from dataclasses import replace

from ..errors import BadInput, Refused, StorageError
from ..plan import Failure, Step
from . import keystore
from .dataset_actions import LoadKey
from .dataset_model import Model
from .dataset_options import WantedDataset, Wishes
from .dataset_places import Places
from .dataset_state import DatasetHost, PoolFacts, Question, Unanswered
from .names import ancestors, folders_above, inherited_mountpoint
from .properties import Property
from .property_steps import with_altroot
from .state import Dataset, way_back


class Blocked(Refused):
    """A dataset that can't be dealt with because of another one."""

    def __init__(self, by: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.by = by


class MissingFile(Refused):
    """A key file that is not there. It may be once something is mounted above it."""

    def __init__(self, path: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class Draft:
    """Collects what the planners of the states decide."""

    def __init__(self, wishes: Wishes, host: DatasetHost, distrusted: frozenset[str] = frozenset()) -> None:
        self.wishes = wishes
        self.host = host
        # Datasets that are known not to become as described, and those of which something relies on that they do.
        self.distrusted = distrusted
        self.trusted: set[str] = set()
        self.model = Model(host.datasets)
        self.entries: t.Mapping[str, WantedDataset] = {one.name: one for one in wishes.datasets}
        # The pools that the task is about, and that were read.
        self.pools = frozenset(one.name.split("/")[0] for one in wishes.datasets)
        self.steps: list[Step] = []
        self.warnings: list[str] = []
        # Mountpoints with contents that show only when a planned step has mounted what is above, to be moved aside.
        self.unseen: list[str] = []
        self.failures: dict[str, Failure] = {}
        # By branch, the key file that failed it by not being there.
        self.missing_files: dict[str, str] = {}
        self.questions: dict[Question, None] = {}
        # Branches that create or unlock something, on which those below depend.
        self.opening: set[str] = set()
        # Mountpoints of filesystems that a planned step mounts, with the branch it belongs to.
        self.mounting: dict[str, str] = {}
        # The mountpoints of these and of what is mounted already.
        self._in_use: set[str] | None = None
        # The folders above them, each with a mountpoint below it.
        self._above_mounts: dict[str, str] = {}
        # Mountpoints at which nothing can be mounted, with the filesystem that should be. Nothing is mounted below.
        self.blocked: dict[str, str] = {}
        # What may uncover other filesystems: roots, each with users of its key, and the entry that they are mounted by.
        self.uncovering: list[tuple[str, tuple[str, ...], WantedDataset]] = []
        # Entries that are not planned yet, and roots that may have to wait for one, each with its entry.
        self.ahead: set[str] = set()
        self.deferred: list[tuple[Dataset, WantedDataset]] = []
        # Filesystems of which it is known that they can't be mounted.
        self.unmountable: set[str] = set()
        # Branches that can't mount everything, with the failed branch that is why, "" if there are other reasons.
        self.held_up: dict[str, str] = {}
        # Branches of which nothing is done.
        self.refused: set[str] = set()
        # Mountpoints that a planned step clears of what is there.
        self.cleared: set[str] = set()
        # Volumes that a planned step opens, by branch, as long as no later step waits for their device nodes.
        self.awaited: dict[str, tuple[str, ...]] = {}
        # By pool, the transaction groups in which datasets were created, and the latest time of creation until each.
        self._births: dict[str, tuple[list[int], list[int]]] = {}
        # Which encryption roots have their key in a file, by what keystore.identify() says of it.
        self._key_users: dict[t.Hashable, set[str]] | None = None
        # What has to be known for that, if it is not.
        self._key_users_need: Question | None = None
        self._identities: dict[str, keystore.Identity] = {}

    def foresee(self, ask: t.Callable[[], t.Any]) -> None:
        """Ask in this round what would come up in a later one: each takes planning of all datasets."""
        try:
            ask()
        except Unanswered as missing:
            self.questions[missing.question] = None

    def branch(self, name: str, steps: t.Iterator[Step], after: tuple[str, ...] = ()) -> bool:
        """Take over the steps of a branch, or the reason why there are none. Returns whether all is known of it."""
        depends = after + tuple(above for above in ancestors(name) if above in self.opening)
        self.model.begin()
        try:
            planned = list(steps)
        except Unanswered as missing:
            self.questions[missing.question] = None
            return False
        except StorageError as error:
            # None of its steps is carried out, not even those before the one that is refused.
            self.model.take_back()
            self._stays_unmounted(name)
            self.refused.add(name)
            if isinstance(error, BadInput) and f"'{name}'" not in error.message:
                error.message = f"Dataset '{name}': {error.message}"
            because = error.by if isinstance(error, Blocked) and error.by in self.failures else ""
            self.fail(name, error, because)
            if isinstance(error, MissingFile):
                self.missing_files[name] = error.path
            return True
        volumes = self.awaited.pop(name, ())
        if volumes:
            planned = [_waiting(step, volumes) for step in planned]
        self.steps += [replace(step, branch=name, after=(*step.after, *depends)) for step in planned]
        return True

    def newest_before(self, name: str, createtxg: int) -> int:
        """When the youngest of the datasets was created that were in a pool before a transaction group, in seconds."""
        pool = name.split("/")[0]
        if pool not in self._births:
            of_pool = (one for one in self.host.datasets.values() if one.name.split("/")[0] == pool)
            births = sorted((int(one.value("createtxg")), int(one.value("creation"))) for one in of_pool)
            groups = [group for group, _time in births]
            self._births[pool] = (groups, list(itertools.accumulate((time for _group, time in births), max)))
        groups, newest = self._births[pool]
        place = bisect.bisect_left(groups, createtxg)
        return newest[place - 1] if place else 0

    def sharers(self, path: str, name: str) -> list[str]:
        """The encryption roots, other than ``name``, whose key is in a file before or after the task.

        Whatever they call that file: a link leads to the same one. Those of exported pools are not known.
        """
        if self._key_users is None:
            if self._key_users_need is not None:
                raise Unanswered(self._key_users_need)
            try:
                self._key_users = self._find_key_users()
            except Unanswered as missing:
                # Every dataset would come to the same question, each time by way of all the others.
                self._key_users_need = missing.question
                raise
        sharing: set[str] = set()
        for mark in self.identity(path):
            sharing |= self._key_users.get(mark, set())
        return sorted(sharing - {name})

    def _find_key_users(self) -> dict[t.Hashable, set[str]]:
        own = {one.name: one.value("keylocation") for one in self.host.datasets.values() if one.is_root}
        found = [*self.host.key_locations_elsewhere().items(), *own.items()]
        # What the task makes a key file is one already, whichever of its datasets comes first.
        found += [
            (one.name, keystore.location_of(one.key.file))
            for one in self.wishes.datasets
            if one.state == "present" and one.key is not None and one.key.file is not None
        ]
        uses = [(root, file) for root, location in found for file in _files_at(location)]
        self._identities.update(self.host.identities(file for _root, file in uses))
        users: dict[t.Hashable, set[str]] = {}
        for root, file in uses:
            for mark in self._identities[file]:
                users.setdefault(mark, set()).add(root)
        return users

    def identity(self, path: str) -> keystore.Identity:
        """Which file a path leads to."""
        if path not in self._identities:
            self._identities.update(self.host.identities([path]))
        return self._identities[path]

    def names_of(self, path: str) -> list[str]:
        """The other names in the keystore of a file."""
        stored = [os.path.join(self.host.folder, one) for one in sorted(self.host.stored)]
        found = self.host.identities(stored)
        return [one for one in stored if one != path and found[one] & self.identity(path)]

    @functools.cached_property
    def on_top(self) -> frozenset[str]:
        """Datasets that others lie below, or that others use the key of, before the task."""
        found: set[str] = set()
        for one in self.host.datasets.values():
            found.update(ancestors(one.name))
            if one.encrypted and not one.is_root:
                found.add(one.root)
        return frozenset(found)

    @functools.cached_property
    def places(self) -> Places:
        """Where filesystems lie that are mounted by themselves, by what was read."""
        return Places(self.host.datasets.values())

    @functools.cached_property
    def anything_waits(self) -> bool:
        """Whether any filesystem was read that wants to be mounted and was not."""
        return any(not one.mounted and one.mountable() for one in self.host.datasets.values())

    def lies_open(self, dataset: Dataset, mounting: t.Collection[str]) -> bool:
        """Whether what a filesystem lies in is mounted, so that it would not be mounted in a bare folder.

        :param mounting: datasets that are mounted before it
        """
        around = [self.model.get(name) for name in self.places.around(self.host.datasets.get(dataset.name, dataset))]
        return not around or any(
            one is not None and (self.model.mounted(one) or one.name in mounting) for one in around
        )

    def moved(self, dataset: Dataset) -> Dataset:
        """A dataset with the mountpoint that it inherits by now, if an entry gave one above it another.

        What an entry gives that is still ahead is set after this dataset is mounted.
        """
        mover = next((one for one in (dataset.name, *ancestors(dataset.name)) if self._moves(one)), "")
        place = self.place_to_be(dataset.name) if mover and mover not in self.ahead else dataset.value("mountpoint")
        if place == dataset.value("mountpoint"):
            return dataset
        return replace(dataset, properties={**dataset.properties, "mountpoint": Property(place, "inherited")})

    def _moves(self, name: str) -> bool:
        """Whether an entry gives a dataset a mountpoint."""
        return name in self.entries and self.entries[name].properties.get("mountpoint") is not None

    def mounted_below(self, folder: str) -> str:
        """A mountpoint in use below a folder, "" if there is none."""
        self._mountpoints()
        return self._above_mounts.get(folder, "")

    def bare_above(self, mountpoint: str, name: str) -> str:
        """The folder of another filesystem that can't be mounted in which this one would be mounted, "" for none.

        What is mounted in between is what it would be mounted in; so is the system, whoever else wants to be at "/".
        """
        in_use = self._mountpoints()
        for folder in folders_above(mountpoint):
            if folder == "/" or folder in in_use:
                break
            if self.blocked.get(folder, name) != name:
                return folder
        return ""

    def opens(self, branch: str) -> None:
        """Note that a branch creates or unlocks something, on which those below depend."""
        if branch not in self.opening:
            self.opening.add(branch)
            self.model.on_take_back(lambda: self.opening.discard(branch))

    def awaits(self, branch: str, volumes: tuple[str, ...]) -> None:
        """Note that a step of a branch opens volumes, whose device nodes a later one has to wait for."""
        self.awaited[branch] = volumes
        self.model.on_take_back(lambda: self.awaited.pop(branch, None))

    def clears(self, mountpoint: str) -> None:
        """Note that a step moves away what is at a mountpoint."""
        self.cleared.add(mountpoint)
        self.model.on_take_back(lambda: self.cleared.discard(mountpoint))

    def blocks(self, mountpoint: str, name: str) -> None:
        """Note that a filesystem can't be mounted."""
        self.blocked.setdefault(mountpoint, name)

    def _stays_unmounted(self, branch: str) -> None:
        """Note what a branch that failed would have mounted, which it still will once what is wrong is mended."""
        dataset, entry = self.model.get(branch), self.entries.get(branch)
        if entry is not None and (entry.state in ("locked", "absent") or not entry.mount):
            return
        if dataset is None:
            comes = entry is not None and entry.state == "present" and self.wishes.create and _mounts_itself(entry)
            # Whose pool is away will not be mounted soon: nobody has to wait for it.
            if comes and self.host.reachable(branch):
                self.blocks(self.place_to_be(branch), branch)
            return
        for one in self.model.members(branch) if dataset.is_root else (dataset,):
            own, described = self.entries.get(one.name), self.as_described(one)
            # What is mounted elsewhere and was to move does not keep others locked.
            if described.mountable() and not self.model.mounted(one) and (own is None or own.mount):
                self.blocks(described.value("mountpoint"), one.name)

    def place_to_be(self, name: str) -> str:
        """The mountpoint of a dataset once the task is through, as ZFS shows it; "" if that is not known."""
        entry, dataset = self.entries.get(name), self.model.get(name)
        own = entry.properties.get("mountpoint") if entry is not None else None
        if own is not None:
            pool = self.host.pools.get(name.split("/")[0])
            return with_altroot(pool.altroot if pool else "", own)
        # One that is by default what it is is inherited from whatever above gets another.
        inherits = dataset is not None and dataset.properties["mountpoint"].source in ("inherited", "default")
        if dataset is not None and not (inherits and any(self._moves(above) for above in ancestors(name))):
            return dataset.value("mountpoint")
        if "/" not in name:
            return ""
        parent, last = name.rsplit("/", 1)
        return inherited_mountpoint(self.place_to_be(parent), last)

    def as_described(self, dataset: Dataset) -> Dataset:
        """A dataset with the wanted properties that decide where it is mounted, and the key it will have."""
        current, entry = self.model.get(dataset.name) or dataset, self.entries.get(dataset.name)
        values: dict[str, Property] = {}
        if entry is not None and entry.properties.get("mountpoint") is not None:
            values["mountpoint"] = Property(self.place_to_be(dataset.name), "local")
        if entry is not None and "canmount" in entry.properties:
            values["canmount"] = Property(entry.properties["canmount"] or "on", "local")
        return replace(current, properties={**current.properties, **values}) if values else current

    def mounts(self, mountpoint: str, branch: str) -> None:
        """Note that a step of a branch mounts something, which is the last that a branch does."""
        self.mounting[mountpoint] = branch
        if self._in_use is not None:
            self._note_mount(mountpoint, self._in_use)

    def _mountpoints(self) -> set[str]:
        if self._in_use is None:
            self._in_use = set()
            for dataset in self.model.all_mounted():
                self._note_mount(dataset.value("mountpoint"), self._in_use)
        return self._in_use

    def _note_mount(self, mountpoint: str, in_use: set[str]) -> None:
        in_use.add(mountpoint)
        for folder in folders_above(mountpoint):
            self._above_mounts.setdefault(folder, mountpoint)

    def fail(self, name: str, error: StorageError, because: str = "") -> None:
        """Note a branch that can't be carried out, or not wholly."""
        self.failures[name] = Failure(name, error.message, error.hint, because, error.details)

    def existing(self, name: str) -> Dataset:
        """A dataset that has to be there.

        :raises Refused: it is not
        """
        self.pool(name)
        dataset = self.model.get(name)
        if dataset is None:
            raise Refused(f"There is no dataset '{name}'.", hint="'zfs list -r' shows what there is.")
        return dataset

    def pool(self, name: str) -> PoolFacts:
        """The pool a dataset lies in.

        :raises Refused: it is not imported, or does not answer
        """
        pool = name.split("/")[0]
        facts = self.host.pools.get(pool)
        if facts is None:
            raise Refused(
                f"The pool '{pool}' of '{name}' is not imported.",
                hint="Import it first: nasops.encryption.zfs_encrypted_pool does so.",
            )
        if facts.silent:
            raise Refused(
                f"Pool '{pool}' is {facts.health}: '{name}' can't be read or changed.",
                hint=way_back(pool),
            )
        return facts

    def writable(self, name: str) -> None:
        """Refuse to change a dataset of a pool that was imported read-only."""
        if self.pool(name).read_only:
            pool = name.split("/")[0]
            raise Refused(
                f"Pool '{pool}' is imported read-only, so '{name}' can't be changed.",
                hint="Export it and import it again without readonly=on.",
            )


def _mounts_itself(wanted: WantedDataset) -> bool:
    """Whether ZFS mounts a dataset by itself that does not exist yet."""
    return wanted.volsize is None and (wanted.properties.get("canmount") or "on") == "on"


def _files_at(location: str) -> t.Iterator[str]:
    file = keystore.path_of(location)
    if file is not None:
        file = os.path.normpath(file)
        # A rotation that was interrupted may have left the keylocation at the successor of the file.
        yield from dict.fromkeys((file, file.removesuffix(keystore.NEXT)))


def _waiting(step: Step, volumes: tuple[str, ...]) -> Step:
    """A step that loads a key also waits for the volumes, if nothing is mounted after it."""
    return replace(step, action=replace(step.action, volumes=volumes)) if isinstance(step.action, LoadKey) else step
