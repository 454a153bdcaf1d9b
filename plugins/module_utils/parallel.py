# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that is shared out to the processors of the host."""

from __future__ import annotations

import os
import typing as t
from collections import deque
from concurrent.futures import ThreadPoolExecutor

Item = t.TypeVar("Item")
Answer = t.TypeVar("Answer")


def side_by_side(work: t.Callable[[Item], Answer], items: t.Sequence[Item]) -> list[Answer]:
    """What ``work`` answers to each item, one thread for each core. It pays off where Python lets other threads run.

    Each thread takes the next item when it is done with one. An executor's own queue would take longer for a thousand
    items than the system calls that are made for them.
    """
    threads = min(len(items), cores())
    if threads < 2:
        return [work(item) for item in items]
    left = deque(enumerate(items))
    answers: dict[int, Answer] = {}

    def serve() -> None:
        while True:
            try:
                index, item = left.popleft()
            except IndexError:
                return
            answers[index] = work(item)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(serve) for _thread in range(threads)]:
            done.result()
    return [answers[index] for index in range(len(items))]


def cores() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        # FreeBSD, macOS
        return os.cpu_count() or 1
