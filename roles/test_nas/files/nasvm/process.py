# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU process of a VM: started, recognised later by another program, ended."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from .errors import TestNasError
from .paths import Files


def boot_id() -> str:
    """The id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _start_ticks(pid: int) -> int | None:
    """When this process was started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        fields = Path("/proc/%d/stat" % pid).read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclasses.dataclass(frozen=True)
class Running:
    """A started VM. Process ids are used again, so the start time and the boot belong to its identity."""

    pid: int
    start_ticks: int
    boot_id: str
    uuid: str
    port: int
    accel: str

    def alive(self) -> bool:
        """Whether this very process still runs."""
        if self.boot_id != boot_id() or _start_ticks(self.pid) != self.start_ticks:
            return False
        try:
            return self.uuid.encode("ascii") in Path("/proc/%d/cmdline" % self.pid).read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False

    def wait_for_end(self, seconds: float) -> bool:
        """Waits until the process is gone; False if it still runs after that time."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        return True

    def kill(self) -> None:
        """Ends the process at once."""
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
        if not self.wait_for_end(10):
            raise TestNasError("process %d (QEMU) can't be ended" % self.pid)

    def write(self, path: Path) -> None:
        """Keeps the identity for the next program."""
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(json.dumps(dataclasses.asdict(self)) + "\n", "utf-8")
        temporary.replace(path)


def read_running(files: Files) -> Running | None:
    """The VM's process, None if it does not run."""
    try:
        running = Running(**json.loads(files.run.read_text("utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None
    return running if running.alive() else None


def start(argv: list[str], files: Files, uuid: str, port: int, accel: str) -> Running:
    """Starts QEMU in the VM's directory, in a session of its own so that it outlives the caller.

    Raises TestNasError with QEMU's words if it ends before its monitor can be reached.
    """
    files.monitor.unlink(missing_ok=True)
    with files.qemu_log.open("wb") as log:
        process = subprocess.Popen(
            argv,
            cwd=files.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    ticks = _start_ticks(process.pid)
    deadline = time.monotonic() + 60
    while ticks is not None and process.poll() is None:
        if files.monitor.exists():
            running = Running(process.pid, ticks, boot_id(), uuid, port, accel)
            running.write(files.run)
            return running
        if time.monotonic() >= deadline:
            process.kill()
            process.wait()
            raise TestNasError("QEMU did not open its monitor within a minute, see %s" % files.qemu_log)
        time.sleep(0.05)
    words = files.qemu_log.read_text("utf-8", "replace").strip().splitlines()[-5:]
    raise TestNasError("QEMU did not start: %s" % (" / ".join(words) or "it said nothing"))
