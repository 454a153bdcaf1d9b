# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of the fault tests: an operation, killed after each of its effects, with a restart after each kill.

``make faults`` does all of it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .connection import bundle
from .keys import KeyRing
from .nas import Nas

OPERATIONS = ("rotate_given",)

FOLDER = "/opt/faults"
_PROGRAM = Path(__file__).resolve().parents[1] / "faults" / "on_nas.py"
_SECONDS = 600


def send(nas: Nas, keys: KeyRing) -> None:
    """What the fault tests need on the NAS. All keys there begin as those of the suite, so the search finds them."""
    unpack = f"rm -rf {FOLDER} && mkdir -p {FOLDER} && tar -C {FOLDER} -xzf -"
    subprocess.run([*nas.ssh, unpack], input=bundle(), check=True, timeout=_SECONDS)
    for name, content in (("on_nas.py", _PROGRAM.read_bytes()), ("prefix", keys.prefix.encode())):
        subprocess.run([*nas.ssh, f"cat >{FOLDER}/{name}"], input=content, check=True, timeout=_SECONDS)


def command(nas: Nas, words: str) -> Sequence[str]:
    """The command that runs a part of the fault tests on the NAS."""
    return [*nas.ssh, f"python3 -u {FOLDER}/on_nas.py {FOLDER}/lib {words}"]


def checks(nas: Nas, keys: KeyRing) -> Iterator[tuple[str, float, Sequence[str]]]:
    """Name, seconds and complaints of each operation."""
    begun = time.monotonic()
    send(nas, keys)
    words = f"sample {' '.join(OPERATIONS)}; rm -rf {FOLDER}"
    done = subprocess.run(command(nas, words), capture_output=True, text=True, check=False, timeout=_SECONDS)
    rows = {row["operation"]: row for row in map(json.loads, done.stdout.splitlines())}
    for operation in OPERATIONS:
        row = rows.get(operation, {"points": 0, "losses": [f"it did not get that far: {done.stderr.strip()}"]})
        complaints = list(row["losses"]) if row["points"] else [*row["losses"], "it was never killed"]
        name = f"killed after each of {row['points']} effects: {operation}"
        yield name, time.monotonic() - begun, complaints
        begun = time.monotonic()
