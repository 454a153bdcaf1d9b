# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the old disks are opened, and whether that has to be done before a pool is made."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

VARS = Path(__file__).resolve().parents[4] / "roles" / "geli_migration" / "vars" / "main.yml"
MISSING = {"failed": True, "msg": "cannot open 'old': dataset does not exist."}


def decided(name: str, **more: t.Any) -> bool:
    variables = DataLoader().load_from_file(str(VARS), trusted_as_template=True)
    given = {
        "geli_migration_pool": "old",
        "geli_migration_target": "new/old",
        "ansible_check_mode": False,
        "__geli_migration_pools": {"stdout_lines": ["rpool"]},
        "__geli_migration_before": MISSING,
        **more,
    }
    return bool(Templar(DataLoader(), variables={**variables, **given}).template(variables[name]))


@pytest.mark.parametrize(
    ("check", "pool", "state", "opened"),
    [
        (True, "new", "exported", False),
        (True, "new", "absent", True),
        (True, "new", "present", True),
        (True, "media", "exported", True),
        (False, "new", "exported", True),
    ],
)
def test_check_mode_asks_for_no_disks_where_the_target_may_tell_that_all_is_done(
    check: bool, pool: str, state: str, opened: bool
) -> None:
    result = {"changed": True, "pools": [{"name": pool, "state": state}]}
    given = {"ansible_check_mode": check, "encrypted_pools_result": result}
    assert decided("__geli_migration_opens", **given) == opened
    assert decided("__geli_migration_blind", **given) == check


@pytest.mark.parametrize(
    ("pools", "imported", "first"),
    [
        (None, "rpool", False),
        ([{"name": "new"}, {"name": "media", "wipe_disks": []}], "rpool", False),
        ([{"name": "new"}, {"name": "media", "wipe_disks": ["S1"]}], "rpool", True),
        ([{"name": "new", "wipe_disks": ["S1"]}], "old", False),
    ],
)
def test_where_disks_may_be_wiped_those_of_the_source_are_opened_first(
    pools: t.Any, imported: str, first: bool
) -> None:
    given = {"nas_pools": pools, "__geli_migration_pools": {"stdout_lines": [imported]}}
    assert decided("__geli_migration_guarded", **given) == first


@pytest.mark.parametrize(
    ("pool", "guid", "finished"), [("old", "1", True), ("old", "2", False), ("old", None, True), ("other", "2", True)]
)
def test_another_pool_of_the_name_is_known_by_its_guid(pool: str, guid: str | None, finished: bool) -> None:
    seen = {"providers": [{"device": "/dev/a2", "state": "geli", "pool": pool, "pool_guid": guid, "opens": True}]}
    done = {"reached": "finalized", "source_guid": "1"}
    given = {"__geli_migration_before": done, "__geli_migration_seen": seen}
    assert decided("__geli_migration_finished", **given) == finished
    assert decided("__geli_migration_opens", **given) != finished
