# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of a dataset that exists: compared by meaning, set or unset where they differ."""

from __future__ import annotations

import typing as t

from ..command import Command
from ..errors import Refused
from ..plan import Change, Path, Step, Value
from .properties import Property, PropertyType, filesystem_type, same
from .state import Dataset


def dataset_property_steps(
    dataset: Dataset,
    wishes: t.Mapping[str, str | None],
    path: Path,
    altroot: str = "",
) -> t.Iterator[Step]:
    """One step for each property that is not as wanted; a wish of ``None`` takes back a value of its own.

    :param path: where the properties are in the diff
    :raises Refused: a property that is fixed at creation differs
    """
    for name, value in wishes.items():
        kind = filesystem_type(name)
        actual = dataset.properties.get(name)
        if value is None and kind.default is None:
            if actual is not None and actual.own:
                _refuse_fixed(dataset, name, "its default", actual, kind)
                yield Step(
                    f"Unset property {name} of '{dataset.name}'",
                    Command(("zfs", "inherit", name, dataset.name)),
                    (Change((*path, name), actual.value, None),),
                )
            continue
        value = kind.default or "" if value is None else value
        if actual is not None and _as_wanted(dataset, name, value, actual, kind, altroot):
            continue
        _refuse_fixed(dataset, name, f"'{value}'", actual, kind)
        yield Step(
            f"Set property {name}={value} on '{dataset.name}'",
            Command(("zfs", "set", f"{name}={value}", dataset.name)),
            (Change((*path, name), shown(actual), value),),
        )


def _as_wanted(dataset: Dataset, name: str, value: str, actual: Property, kind: PropertyType, altroot: str) -> bool:
    if name == "refreservation" and value == "auto":
        # What ZFS works out for a volume is a little more than its size.
        size = dataset.value("volsize")
        return size.isdigit() and actual.value.isdigit() and int(actual.value) >= int(size)
    return same(with_altroot(altroot, value) if name == "mountpoint" else value, actual.value, kind)


def with_altroot(altroot: str, mountpoint: str) -> str:
    """A mountpoint as ZFS shows it: with the altroot of the pool in front."""
    altroot = altroot.rstrip("/")
    if not altroot or not mountpoint.startswith("/"):
        return mountpoint
    return (altroot + mountpoint).rstrip("/")


def shown(actual: Property | None) -> Value:
    """A property's value for the diff."""
    return None if actual is None or actual.value == "-" else actual.value


def _refuse_fixed(dataset: Dataset, name: str, value: str, actual: Property | None, kind: PropertyType) -> None:
    if kind.when == "create":
        raise Refused(
            f"Property '{name}' of '{dataset.name}' should be {value}, but is '{actual.value if actual else '-'}'; it "
            "is fixed when a dataset is created."
        )
