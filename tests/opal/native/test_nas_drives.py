# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the role test_nas makes drives, takes the power from them, and takes them away, with a VM that is only noted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.opal.shelf import Shelf

TREE = Path(__file__).parents[3]
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: nasops.encryption.test_nas
"""
IMAGE = """
case $1 in
    needs) ;;
    *) echo '{"changed": false, "image": "/image", "qemu": "/qemu", "qemu_img": "/qemu-img"}' ;;
esac
"""
# A VM that is only a word in a file. What --recreate is given for is always another one.
VM = """
import json, pathlib, sys

check, words = "--check" in sys.argv, [word for word in sys.argv if word != "--check"]
folder, action, name = pathlib.Path(words[2]), words[5], words[6]
note = folder / name
before = note.read_text() if note.exists() else "absent"
after = {"start": "started", "stop": "stopped" if before == "started" else before, "destroy": "absent"}[action]
new = before == "absent" or "--recreate" in words
if not check:
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(after)
changed = after != before or (action == "start" and new)
print(json.dumps({"changed": changed, "new": new, "state": before if check else after}))
"""
ONE, TWO = {"serial": "S1", "size": "64M"}, {"serial": "S2", "size": "67108864", "kind": "ruby"}


class Role:
    """The role in a tree of its own, with another program for the VM."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        collection = folder / "ansible_collections/nasops/encryption"
        for part in ("roles/test_nas", "tests/opal"):
            shutil.copytree(TREE / part, collection / part, ignore=shutil.ignore_patterns("__pycache__", "native"))
        (collection / "roles/test_nas/files/vm.py").write_text(VM)
        (collection / "roles/test_nas/files/build_image.sh").write_text(IMAGE)
        self._play = folder / "play.yml"
        self._play.write_text(PLAY)
        self.note = folder / "vms/nas"
        self.shelf = folder / "vms/nas.drives"

    def run(self, *words: str, status: int = 0, **variables: t.Any) -> tuple[int, str]:
        """How many tasks changed something, and all that was said."""
        given = self._folder / "variables.json"
        # With a folder as people write it.
        names = {f"test_nas_{name}": value for name, value in variables.items()}
        given.write_text(json.dumps({"ansible_python_interpreter": sys.executable, "test_nas_dir": "~/vms", **names}))
        environment = {
            **os.environ,
            "HOME": str(self._folder),
            "ANSIBLE_COLLECTIONS_PATH": str(self._folder),
            "ANSIBLE_LOCAL_TEMP": str(self._folder / "local"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
        }
        argv = [
            sys.executable,
            "-m",
            "ansible",
            "playbook",
            "-i",
            "localhost,",
            "-e",
            f"@{given}",
            *words,
            str(self._play),
        ]
        done = subprocess.run(argv, env=environment, cwd=self._folder, capture_output=True, text=True, check=False)
        shown = done.stdout + done.stderr
        found = re.search(r"^localhost +: ok=\d+ +changed=(\d+) ", shown, re.M)
        assert done.returncode == status and found is not None, shown
        return int(found[1]), shown

    def pid(self) -> int:
        """Of the process with the drives, 0 if there is none."""
        there = Shelf(self.shelf).ask("show")
        return t.cast(int, there["pid"]) if there else 0


@pytest.fixture
def role(tmp_path: Path) -> t.Iterator[Role]:
    one = Role(tmp_path)
    yield one
    Shelf(one.shelf).stop(False)


def test_drives_go_with_their_vm(role: Role) -> None:
    assert role.run(drives=[ONE, TWO])[0] == 2, "the drives and the VM"
    first = role.pid()
    role.note.write_text("stopped")
    changed, shown = role.run(drives=[ONE, TWO])
    assert changed == 2 and re.search(r"Take the power from the emulated drives.*\]\s\**\nchanged", shown), shown
    assert role.pid() == first != 0, "they are the same drives"
    assert role.run("--check", drives=[TWO], recreate=True)[0] == 2 == role.run(drives=[TWO], recreate=True)[0]
    second = role.pid()
    assert second not in (0, first), "a new VM has new drives"
    os.kill(second, signal.SIGKILL)
    assert role.run(state="stopped")[0] == 1, "the VM; drives whose process is gone hinder nothing"
    assert role.run(state="absent")[0] == 1 and not role.shelf.exists()


def test_what_can_not_be_is_told_before_anything_is_done(role: Role) -> None:
    assert "given to more than one drive: S1" in role.run(status=2, drives=[ONE, ONE])[1]
    assert not role.note.exists() and not role.shelf.exists()
    Shelf(role.shelf).start(["S1:64M"], False)
    assert "Make the VM absent first" in role.run(status=2, state="snapshot")[1]
