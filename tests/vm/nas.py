# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NAS of one run of the suite, made and destroyed with the programs of the role test_nas."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .connection import ROOT

PROGRAMS = ROOT / "roles" / "test_nas" / "files"
DISKS = 16
# The others have a partition, which is quicker to make a pool on than a whole disk.
WHOLE = 12
# MiB. ZFS wants 64 at least; small disks are quick to create pools on.
DISK_SIZE = 256
MEMORY = 1536
# Without KVM, two processors take 40 % more time of this machine's for the same work.
CPUS = 1
# Within which a script ends.
_SECONDS = 300


class NasError(Exception):
    """The NAS can't be made or reached."""


def prepare(log: Path, say: Callable[[str], None]) -> None:
    """Build the image, or find it in the cache; say what takes minutes.

    :raises NasError: with the end of what was said
    """
    if not _build_image("check", log)["changed"]:
        return
    say(f"       the image of the NAS is built, once: some minutes, ten on a slow machine; see {log}")
    start = time.monotonic()
    _build_image("build", log)
    say(f"       the image is ready after {time.monotonic() - start:.0f} s")


def _build_image(action: str, log: Path) -> Mapping[str, Any]:
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(
            ["bash", str(PROGRAMS / "build_image.sh"), action],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
    if done.returncode:
        end = "\n".join(log.read_text("utf-8").splitlines()[-30:])
        raise NasError(f"the image of the NAS could not be built; see {log}:\n{end}")
    answer: Mapping[str, Any] = json.loads(done.stdout)
    return answer


class Nas:
    """A virtual machine by name."""

    def __init__(self, name: str, cpus: int = CPUS) -> None:
        self.name = name
        self.cpus = cpus
        self.status: Mapping[str, Any] = {}

    def start(self) -> None:
        """Boot it, if it does not run already, and wait until it can be logged into."""
        options = ["--disks", str(DISKS), "--disk-size", f"{DISK_SIZE}M", "--memory", str(MEMORY)]
        options += ["--cpus", str(self.cpus)]
        self.status = self._control("start", *options)

    def find(self) -> None:
        """Use one that runs."""
        self.status = self._control("status")

    def cut(self) -> None:
        """Cut its power: what its kernel has not written yet is lost."""
        self._control("stop", "--cut")

    def reset(self) -> None:
        """The same, and the power is back at once; waits until it can be logged into."""
        self._control("reset")

    def snapshot(self, tag: str) -> None:
        """Save its memory and disks under a name."""
        self._control("snapshot", tag)

    def restore(self, tag: str) -> None:
        """Back to that; waits until it can be logged into."""
        self.status = {**self.status, **self._control("restore", tag)}

    def destroy(self) -> None:
        """Take it away with its disks."""
        self._control("destroy")

    @property
    def ssh(self) -> Sequence[str]:
        """The command that runs words on the NAS, over a connection of its own."""
        options = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "BatchMode=yes"]
        return ["ssh", "-F", str(self.status["ssh_config"]), *options, self.name, "--"]

    def shell(self, script: str, given: str = "") -> str:
        """What a script prints there.

        :param given: what it reads
        :raises NasError: it ended with an error
        """
        argv = [*self.ssh, script]
        done = subprocess.run(argv, input=given, text=True, capture_output=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise NasError(f"`{script}` failed on {self.name}: {done.stderr.strip()}")
        return done.stdout

    @property
    def serials(self) -> list[str]:
        """The serial numbers of its data disks."""
        return [str(disk["serial"]) for disk in self.status["disks"]]

    @property
    def console(self) -> Path:
        """What its kernel printed."""
        return Path(str(self.status["directory"])) / "console.log"

    @property
    def inventory(self) -> Path:
        """The NAS as an inventory of Ansible."""
        return Path(str(self.status["inventory"]))

    def _control(self, action: str, *options: str) -> Mapping[str, Any]:
        argv = [sys.executable, str(PROGRAMS / "vm.py"), action, self.name, *options]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NasError(f"vm.py {action} {self.name} failed: {done.stderr.strip()}")
        answer = json.loads(done.stdout)
        if not isinstance(answer, dict):
            raise NasError(f"vm.py {action} {self.name} answered {answer!r}")
        return answer
