# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import threading

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils import parallel
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.parallel import cores, side_by_side


def test_all_cores_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 3)
    # Nobody gets past it before three have come.
    meeting = threading.Barrier(3, timeout=60)
    assert side_by_side(lambda item: meeting.wait() >= 0 and item, range(1, 4)) == [1, 2, 3]


def test_one_item_needs_no_thread() -> None:
    assert side_by_side(lambda item: threading.current_thread(), [1]) == [threading.current_thread()]


def test_what_goes_wrong_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 2)

    def work(item: int) -> int:
        if item == 3:
            raise StorageError("three")
        return item

    with pytest.raises(StorageError, match="three"):
        side_by_side(work, range(8))


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    assert cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores() == 7
