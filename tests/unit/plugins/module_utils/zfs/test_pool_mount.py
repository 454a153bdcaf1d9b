# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems below the root of a pool: what is in their way is foreseen, what is not mounted is said each time."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Plan
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool import plan_pools
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_state import PoolHost
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import Dataset
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.hosts import (
    child,
    host,
    key_file,
    pool,
    root,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.options import parse

LOCKED = {"keystatus": "unavailable", "mounted": "no"}
FULL = "the mountpoint /srv/a is not empty"


def plan(on: PoolHost, **options: t.Any) -> Plan:
    return plan_pools(parse({"name": "tank", **options}), on)


def with_children(*below: Dataset, dataset: Dataset | None = None, full: t.Sequence[str] = ("/srv/a",)) -> PoolHost:
    """A host with the pool, on which some folders are not empty."""
    obstacles = {path: f"the mountpoint {path} is not empty" for path in full}
    return host(pool(dataset=dataset, below=below), files=[key_file()], opens={"tank": True}, obstacles=obstacles)


def test_what_should_be_mounted_and_is_not_is_said_each_time() -> None:
    below = [child("tank/a", mountpoint="/srv/a"), child("tank/b", mountpoint="/tank/b")]
    made = plan(with_children(*below))
    assert made.steps == ()
    assert made.warnings == (
        (
            "Filesystems of pool 'tank' are not mounted, although their canmount and mountpoint ask for it: "
            f"'tank/a' ({FULL}), 'tank/b'."
        ),
    )


def test_many_are_not_all_named() -> None:
    (warning,) = plan(with_children(*(child(f"tank/{n:03}", mountpoint=f"/tank/{n:03}") for n in range(99)))).warnings
    assert warning.endswith("'tank/009' and 89 more.")


@pytest.mark.parametrize(
    "facts",
    [
        {"mounted": "yes"},
        {"canmount": "noauto"},
        {"mountpoint": "none"},
        {"mountpoint": "legacy"},
        {"type": "volume", "mountpoint": "-", "canmount": "-", "mounted": "-"},
        {"encryptionroot": "tank/a", **LOCKED},
    ],
)
def test_what_does_not_want_to_be_mounted_or_can_not_be_is_not_named(facts: dict[str, str]) -> None:
    assert plan(with_children(child("tank/a", **facts))).warnings == ()


def test_who_does_not_want_a_pool_mounted_is_not_told() -> None:
    assert plan(with_children(child("tank/a")), mount=False).warnings == ()


def test_what_the_plan_will_mount_is_not_told() -> None:
    made = plan(with_children(child("tank/a"), dataset=root(mounted="no"), full=()))
    assert made.actions == ["Mount the filesystems of 'tank'"]
    assert made.warnings == ()


@pytest.mark.parametrize("dataset", [root(**LOCKED), root(mounted="no"), root(**{**LOCKED, "canmount": "off"})])
def test_what_is_in_the_way_of_a_child_is_seen_before_anything_is_done(dataset: Dataset) -> None:
    below = child("tank/a", mountpoint="/srv/a", keystatus=dataset.value("keystatus"))
    on = with_children(below, dataset=dataset)
    if not dataset.locked or dataset.value("canmount") == "on":
        assert "Mount the filesystems" in plan(with_children(below, dataset=dataset, full=())).actions[-1]
    with pytest.raises(Refused, match=f"'tank/a' can't be mounted: {FULL}"):
        plan(on, key={"file": "auto"})
    # Nothing is in the way of what is not mounted.
    plan(on, key={"file": "auto"}, mount=False)


@pytest.mark.parametrize(
    "below",
    [
        [child("tank/a", mountpoint="/tank/a", keystatus="unavailable")],
        [
            child("tank/a", mountpoint="/srv", keystatus="unavailable"),
            child("tank/a/b", mountpoint="/srv/a", keystatus="unavailable"),
        ],
    ],
    ids=["below the root", "below another one"],
)
def test_what_is_going_to_be_hidden_is_in_nobodys_way(below: list[Dataset]) -> None:
    made = plan(with_children(*below, dataset=root(**LOCKED), full=("/tank/a", "/srv/a")), key={"file": "auto"})
    assert made.actions[-1] == "Mount the filesystems of 'tank'"


def test_a_child_with_a_key_of_its_own_stays_locked_and_needs_no_mountpoint() -> None:
    own = child("tank/a", mountpoint="/srv/a", encryptionroot="tank/a", keystatus="unavailable")
    assert plan(with_children(own, dataset=root(**LOCKED)), key={"file": "auto"}).actions[-1].startswith("Mount")


def test_a_new_mountpoint_of_the_root_moves_those_of_its_children() -> None:
    below = child("tank/a", mountpoint="/srv/a", keystatus="unavailable")
    made = plan(
        with_children(below, dataset=root(**LOCKED)),
        key={"file": "auto"},
        filesystem_properties={"mountpoint": "/elsewhere"},
    )
    assert made.actions[-1] == "Mount the filesystems of 'tank'"
