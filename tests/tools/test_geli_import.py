# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command by which the role imports the source, from what the module answers on Linux and on FreeBSD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE_VARS = Path(__file__).resolve().parents[2] / "roles" / "geli_migration" / "vars" / "main.yml"
END = ["-o", "readonly=on", "-N", "-R", "/mnt/geli"]


def command(import_from: list[str], **variables: Any) -> Any:
    role = DataLoader().load_from_file(str(ROLE_VARS), trusted_as_template=True)
    facts = {"geli_migration_pool": "old", "geli_migration_attached": {"import_from": import_from}}
    templar = Templar(DataLoader(), variables={**role, **facts, **variables})
    return templar.template(role["__geli_migration_import"])


@pytest.mark.parametrize(
    "import_from,options",
    [
        (["/run/nasops-geli"], ["-d", "/run/nasops-geli"]),
        (["/dev/gptid/a.eli", "/dev/ada1p2.eli"], ["-d", "/dev/gptid/a.eli", "-d", "/dev/ada1p2.eli"]),
    ],
)
def test_each_place_has_an_option_of_its_own(import_from: list[str], options: list[str]) -> None:
    assert command(import_from) == ["zpool", "import", *options, *END, "old"]
    forced = command(import_from, geli_migration_force_import=True)
    assert forced == ["zpool", "import", *options, *END, "-f", "old"]
