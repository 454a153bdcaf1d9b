# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where files are, and that nobody else can get at the sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import TestNasError as NasError
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.paths import (
    Files,
    cache_directory,
    socket_directory,
)


@pytest.mark.parametrize(
    ("given", "cache"),
    [
        ({"TEST_NAS_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/nasops-encryption/test_nas"),
        ({}, "/users/u/.cache/nasops-encryption/test_nas"),
    ],
)
def test_the_cache(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], cache: str) -> None:
    for name in ("TEST_NAS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/users/u", **given}.items():
        monkeypatch.setenv(name, value)
    assert cache_directory() == Path(cache)


def test_sockets_are_private_short_and_one_vm_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    first = socket_directory(tmp_path / ("a" * 200) / "vm")
    assert first == socket_directory(tmp_path / ("a" * 200) / "vm")
    assert first != socket_directory(tmp_path / "b" / "vm")
    assert first.stat().st_mode & 0o777 == 0o700
    assert len(first.name) == 8


def test_a_socket_directory_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    socket_directory(tmp_path / "vm").chmod(0o755)
    with pytest.raises(NasError, match="is not a private directory of user"):
        socket_directory(tmp_path / "vm")


def test_a_link_in_place_of_the_socket_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = socket_directory(tmp_path / "vm")
    made.rename(tmp_path / "elsewhere")
    made.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NasError, match="is not a private directory of user"):
        socket_directory(tmp_path / "vm")


def test_everything_of_a_vm_is_in_its_directory(tmp_path: Path) -> None:
    files = Files(tmp_path)
    paths = [value for value in vars(files).values() if value != tmp_path] + [files.data_disk("A1")]
    assert {path.parent for path in paths} == {tmp_path}
    assert len(set(paths)) == len(paths)
