# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notices that nobody waits for the result of a task any more.

With pipelining ssh has no terminal. So when a person stops the play, this host sends no SIGHUP, and what a module has
begun would go on for hours. But the pipe that the result is to be written to has lost its reader then.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import typing as t

# What poll tells without being asked for.
_GONE = select.POLLHUP | select.POLLERR
# Milliseconds between two looks. On FreeBSD nobody who waits for nothing else is woken when the reader goes.
_PAUSE = 5000


@contextlib.contextmanager
def ended_with_its_reader(descriptor: int = 1) -> t.Iterator[None]:
    """Within this, this process gets SIGTERM when whoever reads its standard output is gone."""
    waiting, stop = os.pipe()
    thread = threading.Thread(target=_watch, args=(descriptor, waiting), daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(stop)
        thread.join()
        os.close(waiting)


def _watch(descriptor: int, waiting: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.register(waiting, select.POLLIN)
    found: list[tuple[int, int]] = []
    while not found:
        found = poll.poll(_PAUSE)
    main = threading.main_thread().ident
    if main is not None and any(one == descriptor and event & _GONE for one, event in found):
        # What the main thread waits for is only broken off if it is the one that gets it.
        signal.pthread_kill(main, signal.SIGTERM)
