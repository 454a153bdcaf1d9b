# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How sedutil-cli is had, and what is said where it can't be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import drives
import pytest


def test_what_is_there_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/sedutil-cli").touch()
    drives.unpack(tmp_path)


def test_a_machine_without_apt_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(drives.Unobtainable, match="apt-get is not there"):
        drives.unpack(tmp_path / "sedutil")


def test_an_archive_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_words: object, **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 100, "", "E: no archive\n")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(drives.Unobtainable, match="failed with status 100: E: no archive"):
        drives.run(["apt-get", "update"], tmp_path)


def test_the_archive_of_this_machine_or_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "http://a.example/security\nhttp://b.example/debian/\nhttp://c.example/debian\n"
    monkeypatch.setattr(drives, "run", lambda *_words: lines)
    monkeypatch.delenv("TEST_NAS_MIRROR", raising=False)
    assert drives.mirror() == "http://b.example/debian/"
    monkeypatch.setattr(drives, "run", lambda *_words: "")
    assert drives.mirror() == "http://deb.debian.org/debian"
    monkeypatch.setenv("TEST_NAS_MIRROR", "http://d.example/debian")
    assert drives.mirror() == "http://d.example/debian"
