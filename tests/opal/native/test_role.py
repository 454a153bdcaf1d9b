# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role and its playbook as users run them, on a host whose Python sees emulated drives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from ansible_collections.nasops.encryption.tests.opal.drive import Spec
from ansible_collections.nasops.encryption.tests.opal.host import Emulator

COLLECTIONS = Path(__file__).parents[6]
COMMON, OWN = "the-password-of-all", "a-password-of-its-own"

PLAY = """
- hosts: all
  gather_facts: false
  roles:
    - role: nasops.encryption.sed_drives
"""


def play(host: Emulator, shim: Path, folder: Path, *playbooks: str) -> str:
    """What ansible-playbook prints when it succeeds."""
    python = folder / "python"
    exports = " ".join(f"{name}={value}" for name, value in host.environment(shim).items())
    python.write_text(f'#!/bin/sh\n{exports} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    variables = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_pipelining": True,
        "ansible_python_interpreter": str(python),
        "nas_drives": ["S1", {"device": "S2", "password": OWN}],
        "nas_drive_password": COMMON,
    }
    inventory = folder / "inventory.json"
    inventory.write_text(json.dumps({"nas": {"hosts": {"nas1": variables}}}))
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(COLLECTIONS)),
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
    }
    argv = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), "-v", *playbooks]
    done = subprocess.run(argv, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert COMMON not in shown and OWN not in shown
    return shown


def changed(shown: str) -> list[bool]:
    """Of each task with drives, whether it changed something."""
    return [word == "changed" for word in re.findall(r"^(changed|ok): \[nas1\] => .*\"drives\"", shown, re.M)]


def test_drives_are_set_up_once_and_unlocked_after_a_power_cut(host: Emulator, shim: Path, tmp_path: Path) -> None:
    drives = [host.plug(Spec(serial), name) for serial, name in (("S1", "nvme8"), ("S2", "nvme9"))]
    book = tmp_path / "play.yml"
    book.write_text(PLAY)
    assert changed(play(host, shim, tmp_path, str(book))) == [True, False]
    assert all(drive.owned() and drive.ranges[0].read_enabled for drive in drives)
    host.power_cycle()
    assert not any(drive.readable() for drive in drives)
    assert changed(play(host, shim, tmp_path, "nasops.encryption.unlock_drives")) == [True]
    assert all(drive.readable() for drive in drives)
