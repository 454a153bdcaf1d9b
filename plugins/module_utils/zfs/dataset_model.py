# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The datasets as they will be after the steps planned so far.

One task may create a parent and its child, or unlock both. What is planned for the child depends on what the steps for
the parent will have done, so the planner keeps a ledger of that beside the state that was read. What a branch wrote
there is taken back if it fails: its steps are not carried out.
"""

from __future__ import annotations

import bisect
import functools
import typing as t
from dataclasses import replace

from .names import ancestors
from .properties import Property
from .state import Dataset

KEY_FORMATS = ("hex", "raw")


class Model:
    """A ledger of what planned steps change; made anew for every planning."""

    def __init__(self, datasets: t.Mapping[str, Dataset]) -> None:
        self._datasets = dict(datasets)
        self._names = sorted(self._datasets)
        self._members: dict[str, dict[str, None]] = {}
        for name, dataset in self._datasets.items():
            if dataset.encrypted:
                self._members.setdefault(dataset.root, {})[name] = None
        # The root itself says so, where it was read; what its children show is as good.
        shown = {root: self._datasets.get(root, self._datasets[next(iter(one))]) for root, one in self._members.items()}
        self._locked = {root for root, dataset in shown.items() if dataset.locked}
        self._mounted = {name for name, dataset in self._datasets.items() if dataset.mounted}
        # How to take back what was written since the last call of begin().
        self._back: list[t.Callable[[], t.Any]] = []

    def begin(self) -> None:
        """What is written from here on may be taken back together."""
        self._back.clear()

    def take_back(self) -> None:
        """The ledger as it was when begin() was called last."""
        while self._back:
            self._back.pop()()

    def on_take_back(self, undo: t.Callable[[], t.Any]) -> None:
        """What else is to be undone with that."""
        self._back.append(undo)

    def get(self, name: str) -> Dataset | None:
        return self._datasets.get(name)

    def below(self, name: str) -> t.Iterator[Dataset]:
        """The datasets below one, in the order of their names, parents before children."""
        # "0" is the character behind "/", so these two enclose all that begins with the name and a slash.
        first = bisect.bisect_left(self._names, name + "/")
        last = bisect.bisect_left(self._names, name + "0")
        for index in range(first, last):
            yield self._datasets[self._names[index]]

    def parent(self, name: str) -> Dataset | None:
        return self._datasets.get(name.rsplit("/", 1)[0]) if "/" in name else None

    def roots_below(self, name: str) -> list[Dataset]:
        """The encryption roots below a dataset, parents first."""
        found = [one for one in self.below(name) if one.name in self._members and one.is_root]
        return sorted(found, key=lambda one: (one.name.count("/"), one.name))

    def members(self, root: str) -> t.Iterator[Dataset]:
        """The datasets that use the key of an encryption root, the root among them."""
        for name in self._members.get(root, ()):
            yield self._datasets[name]

    def locked(self, dataset: Dataset) -> bool:
        return dataset.root in self._locked

    def mounted(self, dataset: Dataset) -> bool:
        return dataset.name in self._mounted

    def all_mounted(self) -> t.Iterator[Dataset]:
        return (self._datasets[name] for name in sorted(self._mounted))

    def key_format(self, dataset: Dataset) -> str:
        """The format of the key that opens a dataset."""
        root = self._datasets.get(dataset.root, dataset)
        return root.value("keyformat")

    def locked_root_above(self, name: str) -> str:
        """The nearest locked encryption root that a dataset lies below, "" if there is none."""
        for above in ancestors(name):
            dataset = self._datasets.get(above)
            if dataset is not None and dataset.root in self._locked:
                return dataset.root
        return ""

    # What steps do.

    def unlock(self, root: str) -> None:
        if root in self._locked:
            self._locked.discard(root)
            self._back.append(lambda: self._locked.add(root))

    def lock(self, root: str) -> None:
        if root not in self._locked:
            self._locked.add(root)
            self._back.append(lambda: self._locked.discard(root))

    def mount(self, name: str) -> None:
        if name not in self._mounted:
            self._mounted.add(name)
            self._back.append(lambda: self._mounted.discard(name))

    def unmount(self, name: str) -> None:
        if name in self._mounted:
            self._mounted.discard(name)
            self._back.append(lambda: self._mounted.add(name))

    def add(self, dataset: Dataset) -> None:
        """A dataset that is created."""
        self._insert(dataset)
        self._back.append(lambda: self._drop(dataset.name))

    def remove(self, name: str) -> None:
        """A dataset that is destroyed with all below it."""
        for gone in [name, *(one.name for one in self.below(name))]:
            self.unmount(gone)
            self._back.append(functools.partial(self._insert, self._drop(gone)))

    def _insert(self, dataset: Dataset) -> None:
        bisect.insort(self._names, dataset.name)
        self._datasets[dataset.name] = dataset
        if dataset.encrypted:
            self._members.setdefault(dataset.root, {})[dataset.name] = None

    def _drop(self, name: str) -> Dataset:
        dataset = self._datasets.pop(name)
        self._names.remove(name)
        self._members.get(dataset.root, {}).pop(name, None)
        return dataset

    def change_key(self, name: str, key_format: str, location: str) -> None:
        """A dataset gets a key of its own, or its own key is changed."""
        dataset = self._datasets[name]
        if not dataset.is_root:
            self._move(name, dataset.root, name)
        self._set(name, keyformat=key_format, keylocation=location)

    def inherit(self, name: str, root: str) -> None:
        """An encryption root takes the key of its parent."""
        self._move(name, name, root)
        self._set(name, keylocation="none")

    def _move(self, top: str, old: str, new: str) -> None:
        """What lies at and below ``top`` and used the key of one root now uses that of another."""
        for name in [name for name in self._members.get(old, {}) if name == top or name.startswith(top + "/")]:
            self._hand_over(name, old, new)
            self._back.append(functools.partial(self._hand_over, name, new, old))
            self._set(name, encryptionroot=new)

    def _hand_over(self, name: str, old: str, new: str) -> None:
        del self._members[old][name]
        self._members.setdefault(new, {})[name] = None

    def _set(self, name: str, **values: str) -> None:
        dataset = self._datasets[name]
        changed = {word: Property(value, "local") for word, value in values.items()}
        self._datasets[name] = replace(dataset, properties={**dataset.properties, **changed})
        self._back.append(functools.partial(self._datasets.__setitem__, name, dataset))
