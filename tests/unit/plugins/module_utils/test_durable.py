# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders are made for their owner alone, and their names are on the disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils import durable


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were synced, relative to the one of the test."""
    found: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        found.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_each_new_folder_is_private_and_its_name_is_synced(tmp_path: Path, synced: list[str]) -> None:
    before = os.umask(0)
    try:
        durable.make_folder(str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]
    assert synced == [".", "a"]


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "a").mkdir(0o755)
    mode = (tmp_path / "a").stat().st_mode
    durable.make_folder(str(tmp_path / "a"))
    assert (tmp_path / "a").stat().st_mode == mode
    assert synced == []


def test_one_that_another_run_makes_meanwhile_will_do(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir

    def slower(path: str, mode: int) -> None:
        real(path)
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", slower)
    durable.make_folder(str(tmp_path / "a"))
    assert (tmp_path / "a").is_dir()
    assert synced == ["."]


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        durable.make_folder(str(tmp_path / "file" / "a"))
    with pytest.raises(NotADirectoryError):
        durable.sync_folder(str(tmp_path / "file"))
