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

SETUP = DEMO.parents[1] / "tools" / "setup.py"

PLAYER = """#!/bin/sh
echo "$*" >>"$CALLS"
for word; do case $word in test_nas_name=*) folder=$VMS/${word#*=} ;; esac; done
case "$*" in
*test_nas_state=started*) mkdir -p "$folder" ;;
*test_nas_state=absent*) [ -z "${STUCK:-}" ] || { echo "it is stuck"; exit 1; }; rm -rf "$folder" ;;
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

    def run(self, *words: str, **more: str) -> list[str]:
        """What Ansible was asked for."""
        calls = self.folder / "calls"
        calls.write_text("", "utf-8")
        environment = {name: value for name, value in os.environ.items() if name not in ("NAS_NAME", "KEEP")}
        environment.update(
            PATH=f"{self.folder}:{environment['PATH']}",
            XDG_CACHE_HOME=str(self.folder),
            CALLS=str(calls),
            VMS=str(self.vms),
            **more,
        )
        self.done = subprocess.run(
            [str(DEMO), *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.status = self.done.returncode
        return calls.read_text("utf-8").splitlines()

    def leave(self, name: str, mark: str = "") -> None:
        """A NAS that is there, with the mark of a demo."""
        (self.vms / name).mkdir(parents=True)
        marks = self.folder / "nasops-encryption" / "demo"
        marks.mkdir(parents=True, exist_ok=True)
        if mark:
            (marks / name).write_text(f"{mark}\n", "utf-8")

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


def test_what_could_not_be_taken_away_is_said(stage: Stage) -> None:
    name = name_in(stage.run(STUCK="yes"))
    assert stage.status == 1
    assert stage.left() == [name]
    assert "it is stuck\n" in stage.done.stdout
    assert f"The NAS {name} could not be taken away. Once more: python3 {SETUP} tests/demo/run --absent {name}\n" in (
        stage.done.stdout
    )
    # The next one tries again.
    stage.run()
    assert stage.status == 0
    assert stage.left() == []


def gone() -> str:
    """The number of a process that is no more."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return str(process.pid)


def test_what_a_killed_demo_left_is_taken_away_by_the_next(stage: Stage) -> None:
    here, dead = str(os.getpid()), gone()
    stage.leave(f"demo-{dead}", dead)
    stage.leave("named", dead)
    stage.leave(f"demo-{here}", here)
    stage.leave(f"demo-{dead}-7", "kept")
    # Made by another hand.
    stage.leave(f"demo-{dead}-8")
    stage.leave("demo-nas")
    stage.run()
    assert stage.left() == sorted([f"demo-{here}", f"demo-{dead}-7", f"demo-{dead}-8", "demo-nas"])
    assert stage.done.stdout.count("has no mark of one") == 1
    assert f"To take it away: python3 {SETUP} tests/demo/run --absent demo-{dead}-8\n" in stage.done.stdout
    stage.run("--absent", f"demo-{dead}-7")
    assert stage.status == 0
    assert f"demo-{dead}-7" not in stage.left()


def test_one_that_is_kept_is_told_of_and_stays(stage: Stage) -> None:
    kept = name_in(stage.run(KEEP="yes"))
    folder = stage.vms / kept
    assert f"ssh -F {folder}/ssh_config {kept} /usr/sbin/zpool status" in stage.done.stdout
    assert f"To take it away: python3 {SETUP} tests/demo/run --absent {kept}\n" in stage.done.stdout
    stage.run()
    assert stage.left() == [kept]
    assert kept not in stage.done.stdout


def test_the_command_for_that_finds_the_program_of_the_demo() -> None:
    """In a shell without Ansible: setup.py starts what is executable in its work tree."""
    assert SETUP.is_file()
    assert os.access(SETUP.parents[2] / "tests/demo/run", os.X_OK)
