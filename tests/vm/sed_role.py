# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NAS with emulated drives as the role test_nas makes it, and what becomes of them with each of its states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .connection import ROOT
from .nas import Nas, NasError
from .over_ssh import Check, Wanted, play

_PLAYBOOK = "tests/vm/playbooks/sed_role.yml"
_PROGRAM = ROOT / "tests" / "opal" / "run"
_SET_UP, _OTHER = "ROLE0001", "ROLE0002"
# Of drives that are gone at the end, and shown to all in the arguments: no key of the suite.
_SHOWN = "shown-to-all-by-the-suite"


def checks(log: Path) -> Iterator[Check]:
    """Each check in turn, on a NAS of its own."""
    log.mkdir(parents=True, exist_ok=True)
    nas = Nas(f"suite-{os.getpid()}-role")
    nas.find()
    folder = Path(f"{nas.status['directory']}.drives")
    try:
        yield from _Course(nas, folder, log).checks()
    finally:
        nas.destroy()
        _shelf("stop", folder)


class _Course:
    """One NAS from its making to its end."""

    def __init__(self, nas: Nas, folder: Path, log: Path) -> None:
        self._nas = nas
        self._folder = folder
        self._log = log

    def checks(self) -> Iterator[Check]:
        # The drives and the VM; then also a folder, three files and a unit in it.
        for number, (words, changed) in enumerate(((["--check"], 2), ([], 5), (["--check"], 0), ([], 0)), 1):
            yield self._run(f"a NAS with drives, run {number} of check, apply, check, apply", changed, words)
        yield self._show(
            "both are in the NAS, as they leave the factory", {_SET_UP: False, _OTHER: False}, self._seen()
        )
        password = {"sed_role_password": _SHOWN}
        yield self._run("set one of them up", 0, more=password)
        yield self._show("what was set up is open", {_SET_UP: False, _OTHER: False}, self._owned())
        cut = {"test_nas_state": "stopped", "test_nas_power_cut": True}
        yield self._run("power cut by the role", 2, more=cut)
        yield self._show("the drives lost their power", {_SET_UP: True, _OTHER: False})
        yield self._run("power cut once more", 0, more=cut)
        yield self._run("start it, and unlock", 2, more={**password, "sed_role_state": "unlocked"})
        yield self._show("it is open again", {_SET_UP: False, _OTHER: False})
        self._nas.cut()
        yield self._show("another hand cuts the power of the VM alone", {_SET_UP: False, _OTHER: False})
        yield self._run("start it by the role", 2)
        yield self._show("the drives lost their power by then", {_SET_UP: True, _OTHER: False}, self._seen())
        pid = int(_shelf("show", self._folder)["pid"])
        absent = {"test_nas_state": "absent"}
        yield self._run("away with it", 2, more=absent)
        yield self._gone(pid)
        yield self._run("away with it once more", 0, more=absent)

    def _run(self, name: str, changed: int, words: Sequence[str] = (), more: Mapping[str, Any] | None = None) -> Check:
        """One run of the playbook; the tasks of the role are those of this machine in its recap."""
        start = time.monotonic()
        variables = {
            "test_nas_name": self._nas.name,
            "test_nas_disk_count": 1,
            "test_nas_drives": [{"serial": _SET_UP, "size": "256M"}, {"serial": _OTHER, "size": str(256 << 20)}],
            "sed_role_serial": _SET_UP,
            **(more or {}),
        }
        argv = ["-vv", "-e", json.dumps(variables), *words, _PLAYBOOK]
        complaints = play(name, argv, self._log, "localhost", Wanted(changed), {})
        return name, time.monotonic() - start, complaints

    def _show(self, name: str, locked: Mapping[str, bool], complaints: Sequence[str] = ()) -> Check:
        """What the drives themselves say, whether they are locked above all."""
        start = time.monotonic()
        found = {row["serial"]: row["locked"] for row in _shelf("show", self._folder)["drives"]}
        different = [] if found == locked else [f"locked are {found}, wanted was {locked}"]
        return name, time.monotonic() - start, [*complaints, *different]

    def _owned(self) -> list[str]:
        owned = [row["serial"] for row in _shelf("show", self._folder)["drives"] if row["owned"]]
        return [] if owned == [_SET_UP] else [f"owned are {owned}"]

    def _seen(self) -> list[str]:
        """What the NAS does not have in /dev/disk/by-id."""
        self._nas.find()
        paths = [f"/dev/disk/by-id/nvme-EMU_OPAL_{serial}" for serial in (_SET_UP, _OTHER)]
        argv = [*self._nas.ssh, f"udevadm settle; for one in {' '.join(paths)}; do test -b $one || echo $one; done"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
        missing = [f"the NAS has no {line}" for line in done.stdout.splitlines()]
        return [*missing, f"ssh says: {done.stderr.strip()}"] if done.returncode else missing

    def _gone(self, pid: int) -> Check:
        start = time.monotonic()
        end = start + 30
        # It answers before it ends.
        while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
            time.sleep(0.1)
        complaints = [f"{place} is still there" for place in (Path(f"/proc/{pid}"), self._folder) if place.exists()]
        self._nas.find()
        if self._nas.status["state"] != "absent":
            complaints.append(f"the VM is {self._nas.status['state']}")
        return "nothing is left of it", time.monotonic() - start, complaints


def _shelf(word: str, folder: Path) -> Mapping[str, Any]:
    """What the program of the drives answers."""
    argv = [sys.executable, str(_PROGRAM), word, str(folder)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise NasError(f"{word} of the drives in {folder} failed: {done.stderr.strip()}")
    answer: Mapping[str, Any] = json.loads(done.stdout)
    return answer
