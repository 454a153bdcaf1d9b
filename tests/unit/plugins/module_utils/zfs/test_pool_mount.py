# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems below the root of a pool: what is in their way is said each time, and keeps nothing locked."""

from __future__ import annotations

import typing as t

import pytest

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
    with_own,
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


SAID = (
    f"Filesystems of pool 'tank' can't be mounted: 'tank/a' ({FULL}). Move away what is there, then run "
    "'zfs mount NAME' for each."
)


def test_what_is_in_the_way_of_a_child_is_said_each_time() -> None:
    below = [child("tank/a", mountpoint="/srv/a"), child("tank/b", mountpoint="/tank/b")]
    made = plan(with_children(*below))
    assert made.steps == ()
    assert made.warnings == (SAID,)


def test_what_is_merely_not_mounted_is_not_named() -> None:
    assert plan(with_children(child("tank/a", mountpoint="/srv/a"), full=("/srv",))).warnings == ()


def test_many_are_not_all_named() -> None:
    names = [f"tank/{n:03}" for n in range(99)]
    on = with_children(*(child(name, mountpoint=f"/{name}") for name in names), full=[f"/{name}" for name in names])
    (warning,) = plan(on).warnings
    assert "'tank/009' (the mountpoint /tank/009 is not empty) and 89 more. Move away" in warning
    assert "tank/010" not in warning


@pytest.mark.parametrize(
    "facts",
    [
        {"mounted": "yes"},
        {"canmount": "noauto"},
        {"mountpoint": "none"},
        {"mountpoint": "legacy"},
        {"type": "volume", "mountpoint": "-", "canmount": "-", "mounted": "-"},
        {"encryptionroot": "tank/a", **LOCKED},
        {"zoned": "on"},
        {"jailed": "on"},
    ],
)
def test_what_does_not_want_to_be_mounted_or_can_not_be_is_not_named(facts: dict[str, str]) -> None:
    full = ("/srv/a", "none", "legacy", "-")
    assert plan(with_children(child("tank/a", mountpoint="/srv/a"), full=full)).warnings != ()
    assert plan(with_children(child("tank/a", **{"mountpoint": "/srv/a", **facts}), full=full)).warnings == ()


def test_who_does_not_want_a_pool_mounted_is_not_told() -> None:
    assert plan(with_children(child("tank/a", mountpoint="/srv/a")), mount=False).warnings == ()


@pytest.mark.parametrize(
    "dataset", [root(**LOCKED), root(mounted="no"), root(**{**LOCKED, "canmount": "off"})], ids=["locked", "", "off"]
)
def test_what_is_in_the_way_of_a_child_keeps_no_pool_locked(dataset: Dataset) -> None:
    below = child("tank/a", mountpoint="/srv/a", keystatus=dataset.value("keystatus"))
    made = plan(with_children(below, dataset=dataset), key={"file": "auto"})
    assert made.actions == plan(with_children(below, dataset=dataset, full=()), key={"file": "auto"}).actions
    assert made.actions[-1] == "Mount the filesystems of 'tank'"
    # Mounting will fail; check mode says so before.
    assert made.warnings == (SAID,)
    # Nothing is in the way of what is not mounted.
    assert plan(with_children(below, dataset=dataset), key={"file": "auto"}, mount=False).warnings == ()


def test_what_stays_locked_is_not_named() -> None:
    below = child("tank/a", mountpoint="/srv/a", keystatus="unavailable")
    made = plan(with_children(below, dataset=root(**LOCKED)), key={"file": "auto"}, unlock=False)
    assert (made.steps, made.warnings) == ((), ())


def test_a_new_mountpoint_of_the_root_moves_those_of_its_children() -> None:
    below = child("tank/a", mountpoint="/srv/a")
    assert plan(with_children(below), filesystem_properties={"mountpoint": "/elsewhere"}).warnings == ()
    # One that is the same moves nothing, and who has a mountpoint of its own stays.
    assert plan(with_children(below), filesystem_properties={"mountpoint": "/tank"}).warnings == (SAID,)
    off = {"mountpoint": "/tank", "canmount": "off"}
    assert plan(with_children(below), filesystem_properties=off).warnings == (SAID,)
    below = with_own(child("tank/a"), mountpoint="/srv/a")
    assert plan(with_children(below), filesystem_properties={"mountpoint": "/elsewhere"}).warnings == (SAID,)
