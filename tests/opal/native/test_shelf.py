# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line that keeps emulated drives for a virtual machine."""

from __future__ import annotations

import json
import socket
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.opal.shelf import Shelf, main, parse

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> t.Iterator[Path]:
    """Of a shelf, and longer than the path of a socket may be."""
    place = tmp_path / ("shelf" * 20)
    yield place
    Shelf(place).stop(False)


def said(capsys: Capture, *words: str) -> t.Any:
    assert main(words) == 0
    return json.loads(capsys.readouterr().out)


def test_drives_stay_until_they_are_stopped(folder: Path, capsys: Capture) -> None:
    words = (str(folder), "--drive", "S1:64M", "--drive", "S2:1G:enterprise")
    assert said(capsys, "start", *words, "--check") == {"changed": True}
    started = said(capsys, "start", *words)
    assert started["changed"] and [one["serial"] for one in started["drives"]] == ["S1", "S2"]
    assert started["drives"][1]["size"] == 1 << 30 and started["drives"][1]["locking_enabled"]
    assert said(capsys, "start", *words) == {**started, "changed": False}
    socket.create_connection(("127.0.0.1", started["port"]), 20).close()
    shown = said(capsys, "power-cycle", str(folder), "S2")
    assert shown["changed"] and shown["drives"] == started["drives"]
    assert said(capsys, "stop", str(folder), "--check") == {"changed": True}
    assert said(capsys, "stop", str(folder)) == {"changed": True}
    assert said(capsys, "stop", str(folder)) == {"changed": False} and not folder.exists()


def test_what_is_wrong_is_told(folder: Path, capsys: Capture) -> None:
    assert main(["show", str(folder)]) == 1 and "start it first" in capsys.readouterr().err
    said(capsys, "start", str(folder), "--drive", "S1:64M")
    for words, wanted in (
        (["start", str(folder), "--drive", "S2:64M"], "has other drives"),
        (["power-cycle", str(folder), "S9"], "there is no drive S9"),
    ):
        assert main(words) == 1 and wanted in capsys.readouterr().err
    for text in ("S1", "S1:64", "S1:64M:floppy", "a b:64M", ":64M"):
        with pytest.raises(ValueError, match="is no drive"):
            parse(text)
