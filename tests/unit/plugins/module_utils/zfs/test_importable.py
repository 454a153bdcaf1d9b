# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``zpool import`` without a name prints."""

from __future__ import annotations

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.status import ImportablePool, parse_importable
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.zpool_text import tabbed

SEVERAL = tabbed("""\
   pool: tank
     id: 9512345678901234567
  state: ONLINE
 action: The pool can be imported using its name or numeric identifier.
 config:

|tank                        ONLINE
|  mirror-0                  ONLINE
|    /dev/disk/by-id/a       ONLINE
|    /dev/disk/by-id/b       ONLINE

   pool: my pool
     id: 1
  state: DEGRADED
status: One or more devices are missing from the system.
 action: The pool can be imported despite missing or damaged devices.  The
|fault tolerance of the pool may be compromised if imported.
   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-2Q
 config:

|my pool       DEGRADED
|  mirror-0    DEGRADED
|    /dev/sda  ONLINE
|    /dev/sdb  UNAVAIL  cannot open

   pool: vault
     id: 17
  state: ONLINE
status: The pool was last accessed by another system.
 action: The pool can be imported using its name or numeric identifier and
|the '-f' flag.
   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-EY
comment: shelf: 3
 config:

|vault   ONLINE
|  sdc   ONLINE

   pool: lost
     id: 18446744073709551615
  state: UNAVAIL
status: One or more devices are missing from the system.
 action: The pool cannot be imported. Attach the missing
|devices and try again.
   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-6X
 config:

|lost        UNAVAIL  insufficient replicas
|  sdd       ONLINE
|  sde       UNAVAIL  cannot open
""")

CLUSTER = tabbed("""\
   pool: shared
     id: 42
  state: UNAVAIL
status: The pool is currently imported by another system.
 action: The pool must be exported from nas1 (hostid=3f2a11c4)
|before it can be safely imported.
 config:

|shared  UNAVAIL  currently in use
|  sdf   ONLINE
""")

DESTROYED = tabbed("""\
   pool: old
     id: 7
  state: ONLINE (DESTROYED)
 action: The pool can be imported using its name or numeric identifier.
 config:

|old     ONLINE
|  sdg   ONLINE
""")


def find(text: str) -> dict[str, ImportablePool]:
    return {pool.name: pool for pool in parse_importable(text)}


def test_every_pool_is_found_with_guid_and_state() -> None:
    found = [(pool.name, pool.guid, pool.state) for pool in parse_importable(SEVERAL)]
    assert found == [
        ("tank", "9512345678901234567", "ONLINE"),
        ("my pool", "1", "DEGRADED"),
        ("vault", "17", "ONLINE"),
        ("lost", "18446744073709551615", "UNAVAIL"),
    ]


def test_what_zpool_says_is_one_line_for_people() -> None:
    pools = find(SEVERAL)
    assert pools["tank"].message == "The pool can be imported using its name or numeric identifier."
    assert pools["lost"].message == (
        "One or more devices are missing from the system. "
        "The pool cannot be imported. Attach the missing devices and try again."
    )
    assert "\t" not in pools["my pool"].message
    assert pools["my pool"].message.endswith("fault tolerance of the pool may be compromised if imported.")


@pytest.mark.parametrize("name,foreign", [("tank", False), ("my pool", False), ("vault", True), ("lost", False)])
def test_the_pool_of_another_host_is_told_apart(name: str, foreign: bool) -> None:
    assert find(SEVERAL)[name].foreign is foreign


def test_so_is_one_that_another_host_uses_right_now() -> None:
    (pool,) = parse_importable(CLUSTER)
    assert pool.foreign
    assert pool.state == "UNAVAIL"
    assert "nas1 (hostid=3f2a11c4) before it can be safely imported." in pool.message


def test_a_destroyed_pool_is_not_online() -> None:
    (pool,) = parse_importable(DESTROYED)
    assert pool.state not in ("ONLINE", "DEGRADED")


def test_two_pools_of_one_name_are_both_told() -> None:
    text = SEVERAL[: SEVERAL.index("   pool: my pool")]
    assert [pool.guid for pool in parse_importable(text + text.replace("9512345678901234567", "8"))] == [
        "9512345678901234567",
        "8",
    ]


@pytest.mark.parametrize("text", ["", "no pools available to import\n", "\n"])
def test_nothing_to_import(text: str) -> None:
    assert parse_importable(text) == ()


@pytest.mark.parametrize("name", ["a pool: b", "id: 5", "state", "config: x"])
def test_no_name_is_taken_for_another_field(name: str) -> None:
    text = SEVERAL.replace("   pool: tank\n", f"   pool: {name}\n").replace("\ttank ", f"\t{name} ")
    (first, *_others) = parse_importable(text)
    assert (first.name, first.guid, first.state) == (name, "9512345678901234567", "ONLINE")


def test_where_they_were_found_is_remembered() -> None:
    assert all(pool.folders == ("/srv/a", "/srv/b") for pool in parse_importable(SEVERAL, ("/srv/a", "/srv/b")))
