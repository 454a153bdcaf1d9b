# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of the fault tests: two operations, killed after each of their effects. ``make faults`` does all of it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .connection import bundle
from .nas import Nas

OPERATIONS = ("rotate_given", "inherit")

_FOLDER = "/opt/faults"
_PROGRAM = Path(__file__).resolve().parents[1] / "faults" / "on_nas.py"
_SECONDS = 600


def checks(nas: Nas) -> Iterator[tuple[str, float, Sequence[str]]]:
    """Name, seconds and complaints of each operation."""
    begun = time.monotonic()
    unpack = f"rm -rf {_FOLDER} && mkdir -p {_FOLDER} && tar -C {_FOLDER} -xzf -"
    subprocess.run([*nas.ssh, unpack], input=bundle(), check=True, timeout=_SECONDS)
    subprocess.run([*nas.ssh, f"cat >{_FOLDER}/on_nas.py"], input=_PROGRAM.read_bytes(), check=True, timeout=_SECONDS)
    words = f"python3 {_FOLDER}/on_nas.py {_FOLDER}/lib kills {' '.join(OPERATIONS)}; rm -rf {_FOLDER}"
    done = subprocess.run([*nas.ssh, words], capture_output=True, text=True, check=False, timeout=_SECONDS)
    rows = {row["operation"]: row for row in map(json.loads, done.stdout.splitlines())}
    for operation in OPERATIONS:
        row = rows.get(operation, {"points": 0, "losses": [f"it did not get that far: {done.stderr.strip()}"]})
        complaints = list(row["losses"]) if row["points"] else [*row["losses"], "it was never killed"]
        name = f"killed after each of {row['points']} effects: {operation}"
        yield name, time.monotonic() - begun, complaints
        begun = time.monotonic()
