# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import threading

from ansible_collections.nasops.encryption.plugins.plugin_utils.progress_watch import ProgressWatch


def said(sent: int, seconds: float) -> str:
    return json.dumps({"what": "Send 'tank'", "bytes": sent, "total": 4096, "seconds": seconds, "done": False})


class Script:
    """What the host says, look by look; the test waits until all of it was said."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.all_said = threading.Event()

    def __call__(self) -> str:
        if not self.answers:
            self.all_said.set()
            return ""
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def watched(*answers: str | Exception) -> tuple[list[str], list[str]]:
    lines: list[str] = []
    complaints: list[str] = []
    script = Script(*answers)
    with ProgressWatch(script, lines.append, complaints.append, 0.001):
        assert script.all_said.wait(60)
    return lines, complaints


def test_each_change_is_one_line_with_the_rate_since_the_last() -> None:
    lines, complaints = watched("", said(1024, 1), said(1024, 1), said(3072, 2), "no json")
    assert lines == [
        "Send 'tank': 1.0 KiB of about 4.0 KiB, 25 %, 1.0 KiB/s, 0:03 left",
        "Send 'tank': 3.0 KiB of about 4.0 KiB, 75 %, 2.0 KiB/s, 0:00 left",
    ]
    assert complaints == []


def test_a_look_that_fails_does_not_end_the_watch() -> None:
    lines, complaints = watched(OSError("the line is busy"), said(0, 0.5))
    assert len(lines) == 1
    assert "the line is busy" in complaints[0]


def test_nothing_is_shown_after_the_end() -> None:
    lines: list[str] = []
    begun = threading.Event()

    def look() -> str:
        begun.set()
        # The task ends while a look is under way.
        assert watch._end.wait(60)
        return said(1, 1)

    watch = ProgressWatch(look, lines.append, lines.append, 0.001)
    with watch:
        assert begun.wait(60)
    assert lines == []
