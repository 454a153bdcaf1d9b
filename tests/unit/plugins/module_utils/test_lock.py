# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Only one task at a time, as far as processes can tell."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.lock import exclusive


def hold(path: str) -> tuple[int, int]:
    """Another process that holds the lock until it is killed; its number, and a pipe that ends with it."""
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(ready)
        with exclusive(path):
            os.write(tell, b"x")
            signal.pause()
        os._exit(0)
    os.close(tell)
    assert os.read(ready, 1) == b"x"
    return child, ready


def test_another_process_is_waited_for_and_named(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    child, pipe = hold(path)
    try:
        with pytest.raises(StorageError, match=f"Another task .*fuser {path}"), exclusive(path, patience=0):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(pipe)
    # Killed, it holds nothing any more.
    with exclusive(path, patience=0):
        pass


def test_it_is_let_go_after_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with pytest.raises(StorageError, match="went wrong"), exclusive(path, patience=0):
        raise StorageError("went wrong")
    with exclusive(path, patience=0):
        pass


def test_only_root_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(str(path)):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="can't be opened"), exclusive(str(tmp_path / "lock")):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody who may not make files where root's locks are."""
    opened = os.open

    def refuse(path: str, *rest: int) -> int:
        if path.startswith("/var/run/of-root"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_who_is_not_root_has_a_lock_of_their_own(home: Path) -> None:
    child, pipe = hold("/var/run/of-root")
    try:
        with pytest.raises(StorageError, match=f"fuser {home}/"), exclusive("/var/run/of-root", patience=0):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(pipe)


@pytest.mark.usefixtures("home")
def test_a_task_of_who_is_not_root_does_not_wait_for_itself() -> None:
    with exclusive("/var/run/of-root", patience=0), exclusive("/var/run/of-root.sda", patience=0):
        pass


def test_without_the_right_to_it_there_is_nothing_to_protect(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    done = []
    with exclusive("/nowhere"):
        done.append(True)
    assert done
