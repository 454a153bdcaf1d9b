# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which NAS the demo makes and takes away; a program in the place of Ansible makes and removes its folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1] / "demo" / "run"

PLAYER = """#!/bin/sh
echo "$*" >>"$CALLS"
for word; do case $word in test_nas_name=*) folder=$VMS/${word#*=} ;; esac; done
case "$*" in
*test_nas_state=started*) mkdir -p "$folder" ;;
*test_nas_state=absent*) rm -rf "$folder" ;;
*provision*) echo "demo : ok=2 changed=${CHANGES:-0} failed=0" ;;
esac
"""


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vms = folder / "nasops-encryption" / "test_nas" / "vm"
        for program in ("ansible", "ansible-playbook"):
            (folder / program).write_text(PLAYER, "utf-8")
            (folder / program).chmod(0o755)

    def run(self, **more: str) -> list[str]:
        """What Ansible was asked for."""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if name not in ("NAS_NAME", "KEEP")}
        environment.update(
            PATH=f"{self.folder}:{environment['PATH']}",
            XDG_CACHE_HOME=str(self.folder),
            CALLS=str(calls),
            VMS=str(self.vms),
            **more,
        )
        self.status = subprocess.run([str(DEMO)], env=environment, capture_output=True, check=False).returncode
        return calls.read_text("utf-8").splitlines()

    def left(self) -> list[str]:
        return sorted(path.name for path in self.vms.iterdir())


@pytest.fixture(name="stage")
def make_stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def name_in(calls: list[str]) -> str:
    (name,) = {word for line in calls for word in line.split() if word.startswith("test_nas_name=")}
    return name.partition("=")[2]


def test_every_demo_has_a_nas_of_its_own_and_takes_it_away(stage: Stage) -> None:
    names = {name_in(stage.run()) for _run in range(2)}
    assert len(names) == 2
    assert stage.status == 0
    assert stage.left() == []
    kept = name_in(stage.run(KEEP="yes"))
    assert stage.left() == [kept]


def test_no_demo_destroys_a_nas_that_it_did_not_make(stage: Stage) -> None:
    (stage.vms / "mine").mkdir(parents=True)
    calls = stage.run(NAS_NAME="mine")
    assert name_in(calls) == "mine"
    assert not [line for line in calls if "recreate" in line or "absent" in line]
    assert stage.left() == ["mine"]
    stage.run(NAS_NAME="other")
    assert stage.left() == ["mine"]


def test_a_demo_that_fails_takes_its_nas_away(stage: Stage) -> None:
    stage.run(CHANGES="1")
    assert stage.status == 1
    assert stage.left() == []
