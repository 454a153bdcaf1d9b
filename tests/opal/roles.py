# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles as users run them, on a host whose Python sees emulated drives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from .host import Emulator

COLLECTIONS = Path(__file__).parents[5]
COMMON, OWN = "the-password-of-all", "a-password-of-its-own"
# What no run may print.
SECRETS = (COMMON, OWN)

PLAY = """
- hosts: all
  gather_facts: false
  roles:
    - role: nasops.encryption.sed_drives
"""


def play(host: Emulator, shim: Path, folder: Path, *playbooks: str, status: int = 0, **more: object) -> str:
    """What ansible-playbook prints when it ends with that status."""
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
        **more,
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
    assert done.returncode == status, shown
    assert not any(one in shown for one in SECRETS)
    return shown
