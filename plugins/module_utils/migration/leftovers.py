# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends what an earlier run has left at a host: where a line goes silent, nobody there notices for hours.

This file is run by itself at the other host, which needs no more than Python 3.9 for it. So it imports nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import typing as t

# Seconds that processes get to end after each signal. One that is stuck in the kernel does not.
_PATIENCE, _PAUSE = 15.0, 0.1


def left_over(mark: bytes, proc: str = "/proc") -> list[int]:
    """The processes that have this in their environment."""
    found = []
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        # It may be gone by now.
        with contextlib.suppress(OSError), open(os.path.join(proc, name, "environ"), "rb") as file:
            if mark in file.read().split(b"\0"):
                found.append(int(name))
    return found


def end_left(mark: bytes) -> list[int]:
    """End them, politely first: rsync keeps what it has got of a file then. Returns those that do not end."""
    left = left_over(mark)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + _PATIENCE
        while left and time.monotonic() < end:
            time.sleep(_PAUSE)
            left = left_over(mark)
    return left


def main(argv: t.Sequence[str]) -> int:
    """What is run at another host: what they have in their environment, as NAME=VALUE."""
    left = end_left(os.fsencode(argv[0]))
    if left:
        sys.stderr.write(f"process {', '.join(str(pid) for pid in left)} does not end\n")
    return 3 if left else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[3:]))
