# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the suite on a NAS runs every time, and that the rest is named."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.nasops.encryption.tests.vm import main
from ansible_collections.nasops.encryption.tests.vm.case import Call, load


def test_every_long_case_and_job_is_named_as_not_run() -> None:
    cases = load(main.CASES)
    said = main.left_out(cases)
    assert said.startswith(f"{len([case for case in cases if case.long])} cases")
    for job in ("kmip", "sed drives", "sed pool", "sed boot", "sed_role", "snapshots", "modules over ssh"):
        assert job in said
    assert "make vm-all" in said


def described(value: t.Any) -> t.Iterator[tuple[str, str]]:
    """Type and role of each vdev in the options of a call."""
    for vdev in value.get("vdevs") or ():
        yield vdev.get("type", "stripe"), vdev.get("role", "data")
    for pool in value.get("pools") or ():
        yield from described(pool)


def test_every_kind_of_vdev_is_made_every_time() -> None:
    calls = [step for case in load(main.CASES) if not case.long for step in case.steps if isinstance(step, Call)]
    pools = [call for call in calls if call.module == "zfs_encrypted_pool" and not call.failed]
    made = {vdev for call in pools for vdev in described(call.args)}
    # The playbooks make a raidz2 every time.
    assert {re.sub("1$", "", kind) for kind, _role in made} >= {"stripe", "mirror", "raidz", "raidz3", "draid"}
    assert {role for _kind, role in made} == {"data", "special", "dedup", "log", "cache", "spare"}
    actions = [action for call in pools for action in call.actions or ()]
    assert any("Add to pool" in action for action in actions)
