# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line that keeps emulated drives for a virtual machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
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


@pytest.mark.parametrize(
    "text, size", [("S1:67108864", 64 << 20), ("S1:65536K:ruby", 64 << 20), ("S1:1G", 1 << 30), ("a-b_C:2T", 2 << 40)]
)
def test_a_drive_in_words(text: str, size: int) -> None:
    spec = parse(text)
    assert f"{spec.serial}:" == text[: len(spec.serial) + 1] and spec.blocks * 512 == size


@pytest.mark.parametrize(
    "drives, wanted",
    [
        (["S1"], "is no drive"),
        (["a b:64M"], "is no drive"),
        ([":64M"], "is no drive"),
        (["S1:064M"], "is no drive"),
        (["S1:0"], "is no drive"),
        (["S1:64"], "S1: 64 bytes are too few"),
        (["S1:63M"], "S1: 66060288 bytes are too few"),
        (["S1:67108865"], "not made of sectors"),
        (["S1:64M:floppy"], "S1: unknown kind 'floppy'"),
        (["S1:64M", "S2:64M", "S1:128M"], "to more than one drive: S1"),
    ],
)
@pytest.mark.parametrize("words", [(), ("--check",)])
def test_what_is_no_drive_is_refused(
    folder: Path, capsys: Capture, words: t.Sequence[str], drives: t.Sequence[str], wanted: str
) -> None:
    argv = ["start", str(folder), *words, *(word for one in drives for word in ("--drive", one))]
    assert main(argv) == 1 and wanted in capsys.readouterr().err
    assert not folder.exists(), "nothing was launched"


def test_drives_anew(folder: Path, capsys: Capture) -> None:
    words = ("start", str(folder), "--drive", "S1:64M", "--anew")
    first = said(capsys, *words)
    other = (*words, "--drive", "S2:64M")
    assert said(capsys, *other, "--check") == {"changed": True}
    assert said(capsys, "show", str(folder))["pid"] == first["pid"]
    second = said(capsys, *other)
    assert second["changed"] and second["pid"] != first["pid"]
    assert [one["serial"] for one in second["drives"]] == ["S1", "S2"]
    ended(first["pid"])


def test_the_process_is_gone_and_its_folder_there(folder: Path, capsys: Capture) -> None:
    words = ("start", str(folder), "--drive", "S1:64M")
    started = said(capsys, *words)
    os.kill(started["pid"], signal.SIGKILL)
    ended(started["pid"])
    assert (folder / "control").exists()
    for more in (["--check"], []):
        assert said(capsys, "power-cycle", str(folder), *more) == {"changed": False}
        assert said(capsys, "stop", str(folder), "--check") == {"changed": False}
    assert main(["power-cycle", str(folder), "S1"]) == 1 and "start it first" in capsys.readouterr().err
    again = said(capsys, *words)
    assert again["changed"] and again["pid"] != started["pid"]
    os.kill(again["pid"], signal.SIGKILL)
    ended(again["pid"])
    assert said(capsys, "stop", str(folder)) == {"changed": False} and not folder.exists()


def ended(pid: int) -> None:
    """Wait for a process to be gone, or to wait for nothing but to be noticed."""
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
