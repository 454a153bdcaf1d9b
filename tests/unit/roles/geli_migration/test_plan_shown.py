# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role shows a person before that one types 'yes', by its own templates."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).resolve().parents[4] / "roles" / "geli_migration"
CLOSES = "Set readonly=on on 'tank', so that nothing is written to the source any more"
PLAN: dict[str, t.Any] = {
    "reached": "planned",
    "source_read_only": False,
    "datasets": [{"source": "tank"}],
    "estimated_bytes": 4096,
    "available_bytes": None,
    "streams": ["Send 'tank'"],
    "notes": ["Holds of snapshots are not sent."],
    "closing": [CLOSES, "'tank/.system' is left out"],
}


def shown(**more: t.Any) -> list[str]:
    variables = DataLoader().load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True)
    given = {"geli_migration_pool": "tank", "geli_migration_target": "new/tank", "geli_migration_plan": PLAN, **more}
    found = Templar(DataLoader(), variables={**variables, **given}).template(variables["__geli_migration_plan_lines"])
    return [str(line) for line in found]


@pytest.mark.parametrize("given", [{}, {"geli_migration_state": "finalized"}])
def test_that_the_source_is_closed_in_the_end(given: dict[str, str]) -> None:
    lines = shown(**given)
    assert lines[-2:] == [f"At the end: {CLOSES}", "At the end: 'tank/.system' is left out"]
    assert lines[2:4] == [*PLAN["streams"], *PLAN["notes"]]


@pytest.mark.parametrize("state", ["planned", "synced", "verified"])
def test_that_nothing_is_closed_before(state: str) -> None:
    assert not [line for line in shown(geli_migration_state=state) if "At the end" in line]


def test_that_nothing_is_left_to_be_done_in_the_end() -> None:
    assert len(shown(geli_migration_plan={**PLAN, "reached": "finalized"})) == 4


def test_that_every_variable_counts() -> None:
    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    files = [*(ROLE / "tasks").glob("*.yml"), *(ROLE / "vars").glob("*.yml")]
    text = "".join(one.read_text(encoding="utf-8") for one in files)
    readme = (ROLE / "README.md").read_text(encoding="utf-8")
    for name in specs["argument_specs"]["main"]["options"]:
        assert name in text, name
        assert f"`{name}`" in readme, name
