# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan for datasets while it is being made: steps in branches, branches that failed, questions that came up."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from ..errors import Refused, StorageError
from ..plan import Failure, Step
from . import keystore
from .dataset_model import Model
from .dataset_options import WantedDataset, Wishes
from .dataset_state import DatasetHost, PoolFacts, Question, Unanswered
from .names import ancestors, folders_above
from .state import Dataset


class Blocked(Refused):
    """A dataset that can't be dealt with because of another one."""

    def __init__(self, by: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.by = by


class Draft:
    """Collects what the planners of the states decide."""

    def __init__(self, wishes: Wishes, host: DatasetHost) -> None:
        self.wishes = wishes
        self.host = host
        self.model = Model(host.datasets)
        self.entries: t.Mapping[str, WantedDataset] = {one.name: one for one in wishes.datasets}
        self.steps: list[Step] = []
        self.warnings: list[str] = []
        self.failures: dict[str, Failure] = {}
        self.questions: dict[Question, None] = {}
        # Branches that create or unlock something, on which those below depend.
        self.opening: set[str] = set()
        # Mountpoints of filesystems that a planned step mounts, with the branch it belongs to.
        self.mounting: dict[str, str] = {}
        # The folders above them and above what is mounted already, each with a mountpoint below it.
        self._above_mounts: dict[str, str] | None = None
        # Mountpoints that a planned step clears of what is there.
        self.cleared: set[str] = set()
        self._key_users: dict[str, list[str]] | None = None

    def branch(self, name: str, steps: t.Iterator[Step], after: tuple[str, ...] = ()) -> bool:
        """Take over the steps of a branch, or the reason why there are none. Returns whether all is known of it."""
        depends = after + tuple(above for above in ancestors(name) if above in self.opening)
        try:
            planned = list(steps)
        except Unanswered as missing:
            self.questions[missing.question] = None
            return False
        except Blocked as error:
            because = error.by if error.by in self.failures else ""
            self.fail(name, error, because)
            return True
        except StorageError as error:
            self.fail(name, error)
            return True
        self.steps += [replace(step, branch=name, after=(*step.after, *depends)) for step in planned]
        return True

    def sharers(self, path: str, name: str) -> list[str]:
        """The encryption roots, other than ``name``, whose key is in a file, as the host was before the task.

        Those of exported pools are not known.
        """
        if self._key_users is None:
            own = {one.name: one.value("keylocation") for one in self.host.datasets.values() if one.is_root}
            users: dict[str, list[str]] = {}
            for root, location in {**self.host.key_locations_elsewhere(), **own}.items():
                file = keystore.path_of(location)
                if file is not None:
                    users.setdefault(file, []).append(root)
                    # A rotation that was interrupted may have left the keylocation at the successor of the file.
                    if file.endswith(keystore.NEXT):
                        users.setdefault(file[: -len(keystore.NEXT)], []).append(root)
            self._key_users = users
        return sorted(set(self._key_users.get(path, ())) - {name})

    def mounted_below(self, folder: str) -> str:
        """A mountpoint in use below a folder, "" if there is none."""
        if self._above_mounts is None:
            self._above_mounts = {}
            for dataset in self.model.all_mounted():
                self._note_mount(dataset.value("mountpoint"), self._above_mounts)
        return self._above_mounts.get(folder, "")

    def mounts(self, mountpoint: str, branch: str) -> None:
        """Note that a step of a branch mounts something."""
        self.mounting[mountpoint] = branch
        if self._above_mounts is not None:
            self._note_mount(mountpoint, self._above_mounts)

    @staticmethod
    def _note_mount(mountpoint: str, above: dict[str, str]) -> None:
        for folder in folders_above(mountpoint):
            above.setdefault(folder, mountpoint)

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
                hint=f"Bring its devices back, then run 'zpool clear {pool}'.",
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
