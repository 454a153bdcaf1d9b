# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the controller: whole or as they were, for their owner alone."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.plugin_utils import controller_files as files


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for data in (b"first", b"second"):
        files.write(str(path), data)
        found = files.read(str(path), "It")
        assert found is not None
        assert (found.data, found.mode) == (data, 0o600)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)] == [0o700] * 2


def test_everything_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        did.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def named(source: str, target: str) -> None:
        did.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    files.write(str(tmp_path / "file"), b"data")
    assert did == ["file", "name", "folder"]


def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    assert files.create(path, b"first") is True
    assert files.create(path, b"second") is False
    assert (tmp_path / "file").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


def _write_on_a_full_disk(path: str, answers: multiprocessing.Queue[str]) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    for work in (files.write, files.create):
        try:
            work(path, b"x" * 5000)
            answers.put("written")
        except StorageError as error:
            answers.put(str(error))


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"former")
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_write_on_a_full_disk, args=(str(path), answers))
    process.start()
    process.join()
    for _attempt in range(2):
        message = answers.get()
        assert message.startswith(f"{path} can't be written on the controller: File too large.")
        assert message.endswith("What was there is kept.")
    assert path.read_bytes() == b"former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [28, 30, 13])
def test_what_the_system_says_is_told(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=os.strerror(number)):
        files.write(str(tmp_path / "file"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a folder"):
        files.check_place(str(tmp_path))
    with pytest.raises(BadInput, match="is no folder"):
        files.check_place(str(tmp_path / "file" / "below"))
    files.check_place(str(tmp_path / "new" / "folder" / "file"))
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(StorageError, match="does not let this user write"):
        files.check_place(str(tmp_path / "other"))


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="is no regular file"):
        files.read(str(tmp_path / "pipe"), "It")
    with pytest.raises(BadInput, match="is a folder"):
        files.read(str(tmp_path), "It")
    assert files.read(str(tmp_path / "nothing"), "It") is None
    monkeypatch.setattr(files, "LIMIT", 3)
    (tmp_path / "large").write_bytes(b"four")
    with pytest.raises(BadInput, match="has more than"):
        files.read(str(tmp_path / "large"), "It")


def test_a_link_leads_to_what_it_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    monkeypatch.chdir(tmp_path)
    files.write(files.absolute("link"), b"data")
    assert (tmp_path / "real" / "file").read_bytes() == b"data"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_a_new_file_is_made_and_another_is_left_alone(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and exFAT have none."""

    def refuse(_source: str, _target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    assert files.create(str(path), b"first") is True
    assert files.create(str(path), b"second") is False
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_without_hard_links_a_name_that_comes_to_nothing_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_paths: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="Operation not permitted"):
        files.create(str(tmp_path / "file"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_where_no_modes_are_kept_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on FAT that is mounted as most systems do."""
    real = os.open
    opened: list[str] = []

    def open_to_all(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = real(path, flags, mode)
        if flags & os.O_CREAT:
            os.fchmod(descriptor, 0o755)
            opened.append(path)
        return descriptor

    monkeypatch.setattr(os, "open", open_to_all)
    for work in (files.write, files.create):
        with pytest.raises(StorageError, match=r"mode 0755.*nothing was written.*umask=077"):
            work(str(tmp_path / "file"), b"data")
    assert len(opened) == 2
    assert list(tmp_path.iterdir()) == []
