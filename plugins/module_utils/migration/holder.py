# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that holds something, such as a mount, for as long as its standard input is open."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import time
import typing as t

from ..command import Command
from ..zfs.replicate_run import End, end_process, held_back

# What a login shell has to say may come before it.
_READY = re.compile(rb"^ready (\d+)\n", re.MULTILINE)


class Holder:
    """It says ``ready`` and the number of its process, as that is called on its host, when it holds it."""

    def __init__(self, process: subprocess.Popen[bytes], hold: int, leave: float) -> None:
        self.process = process
        # None: it does not hold it.
        self.pid: int | None = None
        self._hold = hold
        self._leave = leave

    def wait(self) -> int | None:
        """Its exit status, None if it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(self._leave)
        return None

    def release(self) -> int | None:
        """Let go, and wait for its end. Returns its exit status, None if it does not end."""
        hold, self._hold = self._hold, -1
        if hold != -1:
            os.close(hold)
        return self.wait()


@contextlib.contextmanager
def holder(end: End, command: Command, patience: float, leave: float, given: bytes = b"") -> t.Iterator[Holder]:
    """Such a program, once it holds what it is to hold, or can't.

    :param patience: seconds that it gets for that
    :param leave: seconds that it gets to end
    :param given: what it reads first
    """
    stdin, hold = os.pipe()
    ready, stdout = os.pipe()
    found: Holder | None = None
    try:
        try:
            with held_back():
                found = Holder(end.start(command, stdin, stdout), hold, leave)
        finally:
            os.close(stdin)
            os.close(stdout)
        if given:
            # Why it does not listen is told by how it ends.
            with contextlib.suppress(BrokenPipeError):
                os.write(hold, given)
        found.pid = _pid_of(ready, patience)
        yield found
    finally:
        os.close(ready)
        if found is None:
            os.close(hold)
        else:
            found.release()
            end_process(found.process)


def _pid_of(ready: int, patience: float) -> int | None:
    found, end = b"", time.monotonic() + patience
    match = None
    while match is None:
        if not select.select([ready], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        part = os.read(ready, 64)
        if not part:
            return None
        found += part
        match = _READY.search(found)
    return int(match.group(1))
