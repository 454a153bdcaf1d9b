# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_progress import (
    Meter,
    ProgressFile,
    human,
    parse_progress,
    tell,
)


def test_a_stream_of_several_snapshots_is_added_up() -> None:
    meter = Meter()
    lines = (
        "full\ttank@a\t1000",
        "incremental\ta\ttank@b\t500",
        "size\t1500",
        "12:00:01\t400\ttank@a",
        "12:00:02\t990\ttank@a",
        "12:00:03\t7\t100\ttank@b c",
    )
    assert all(meter.take(line) for line in lines)
    assert (meter.total, meter.sent, meter.steps) == (1500, 997, 3)


@pytest.mark.parametrize(
    "line", ["warning: cannot send 'tank@a': Broken pipe", "", "size\tmuch", "12:00\t1\ttank@a", "full tank@a"]
)
def test_what_else_zfs_says_is_not_progress(line: str) -> None:
    assert not Meter().take(line)


def test_the_file_is_for_root_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run" / "progress.json"
    file, meter = ProgressFile(str(path)), Meter()
    meter.take("12:00:01\t400\ttank@a")
    file.write("Send 'tank'", meter, time.monotonic())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
    found = parse_progress(path.read_text())
    assert found is not None
    assert (found["what"], found["bytes"], found["done"]) == ("Send 'tank'", 400, False)
    meter.take("12:00:02\t800\ttank@a")
    file.write("Send 'tank'", meter, time.monotonic())
    assert json.loads(path.read_text())["bytes"] == 400, "at most once a second"
    file.write("Send 'tank'", meter, time.monotonic(), final=True)
    assert json.loads(path.read_text())["bytes"] == 800
    file.close()
    assert list(path.parent.iterdir()) == []


def test_without_a_path_nothing_is_written() -> None:
    file = ProgressFile(None)
    file.write("Send", Meter(), time.monotonic(), final=True)
    file.close()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"what": 1}', '{"what": "x", "bytes": "many"}'])
def test_what_is_no_progress_is_none(text: str) -> None:
    assert parse_progress(text) is None


def test_a_line_without_a_total_tells_no_rest() -> None:
    assert tell({"what": "x", "bytes": 2048, "total": 0, "seconds": 2}, None) == "x: 2.0 KiB, 1.0 KiB/s"


def test_another_stream_is_measured_anew() -> None:
    before = {"what": "x", "bytes": 4096, "total": 0, "seconds": 2}
    assert tell({"what": "y", "bytes": 1024, "total": 0, "seconds": 1}, before) == "y: 1.0 KiB, 1.0 KiB/s"


def test_hours_and_large_numbers() -> None:
    line = tell({"what": "x", "bytes": 1 << 30, "total": 1 << 42, "seconds": 1000}, None)
    assert line.startswith("x: 1.0 GiB of about 4.0 TiB, 0 %, 1.0 MiB/s, ")
    assert line.endswith(" left")
    assert human(1 << 42) == "4.0 TiB"
