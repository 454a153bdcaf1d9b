# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that goes on for as long as its standard input is open, such as one that holds a mount."""

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


class Talk:
    """A program with the other ends of its standard input and output."""

    def __init__(self, process: subprocess.Popen[bytes], sending: int, hearing: int, leave: float) -> None:
        self.process = process
        self.sending = sending
        self.hearing = hearing
        # As its host calls it, once it has told that it holds what it is to hold.
        self.pid: int | None = None
        self._leave = leave

    def wait(self) -> int | None:
        """Its exit status, None if it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(self._leave)
        return None

    def release(self) -> int | None:
        """Let it come to its end, and wait for that. Returns its exit status, None if it does not end."""
        sending, self.sending = self.sending, -1
        if sending != -1:
            os.close(sending)
        return self.wait()


@contextlib.contextmanager
def started(end: End, command: Command, leave: float) -> t.Iterator[Talk]:
    """Such a program. It comes to its end here, or is ended.

    :param leave: seconds that it gets to end
    """
    stdin, sending = os.pipe()
    hearing, stdout = os.pipe()
    talk: Talk | None = None
    try:
        try:
            with held_back():
                talk = Talk(end.start(command, stdin, stdout), sending, hearing, leave)
        finally:
            os.close(stdin)
            os.close(stdout)
        yield talk
    finally:
        os.close(hearing)
        if talk is None:
            os.close(sending)
        else:
            talk.release()
            end_process(talk.process)


@contextlib.contextmanager
def holder(end: End, command: Command, patience: float, leave: float, given: bytes = b"") -> t.Iterator[Talk]:
    """One that holds something, and says ``ready`` and the number of its process when it does; or can't.

    :param patience: seconds that it gets for that
    :param leave: as for :func:`started`
    :param given: what it reads first
    """
    with started(end, command, leave) as talk:
        if given:
            # Why it does not listen is told by how it ends.
            with contextlib.suppress(BrokenPipeError):
                os.write(talk.sending, given)
        talk.pid = _pid_of(talk.hearing, patience)
        yield talk


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
