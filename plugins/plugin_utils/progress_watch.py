# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells how far a long task is while it runs: looks now and then at what the host says, and shows one line."""

from __future__ import annotations

import contextvars
import threading
import types
import typing as t

from ..module_utils.zfs.replicate_progress import parse_progress, tell

# Seconds to wait for a look that is under way when the task has ended.
_PATIENCE = 10.0


class ProgressWatch:
    """Looks every so many seconds from a thread of its own, as long as the block lasts.

    A look that fails is no reason to disturb the task: it is told to ``complain``, and the next one may succeed.
    """

    def __init__(
        self,
        look: t.Callable[[], str],
        show: t.Callable[[str], None],
        complain: t.Callable[[str], None],
        interval: float,
    ) -> None:
        """:param look: what the host says, "" if it says nothing (yet)"""
        self._look = look
        self._show = show
        self._complain = complain
        self._interval = interval
        self._end = threading.Event()
        self._before: dict[str, t.Any] | None = None
        # What Ansible keeps for a task belongs to the thread that runs it.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._watch,), daemon=True)

    def __enter__(self) -> ProgressWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join(_PATIENCE)

    def _watch(self) -> None:
        while not self._end.wait(self._interval):
            try:
                found = parse_progress(self._look())
            except Exception as error:  # noqa: BLE001  (whatever a connection plugin raises)
                self._complain(f"The progress of the task can't be read: {error!r}")
                continue
            if found is not None and found != self._before and not self._end.is_set():
                self._show(tell(found, self._before))
                self._before = found
