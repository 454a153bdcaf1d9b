# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of the configuration, and what is none."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.geli import config_backup
from ansible_collections.nasops.encryption.plugins.module_utils.geli.config_backup import BackedUpDisk, ConfigBackup
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.core import Row, archive, database
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner

KEY = "0d1c4a2e-9f0b-4f6f-8f1e-2a3b4c5d6e7f"
FIRST, SECOND = "5c3b0d8e-0000-11e3-a1b2-d43d7e000001", "5c3b0d8e-0000-11e3-a1b2-d43d7e000002"
ROWS: list[Row] = [
    (f"gptid/{FIRST}", "tank", 2, KEY),
    (f"gptid/{SECOND.upper()}", "tank", 2, KEY),
    ("/dev/ada3p2.eli", "old", 1, "k"),
]
CONTENT = bytes(range(64))


def load(path: str) -> ConfigBackup:
    """The backup; no program is started for it."""
    return config_backup.load(path, RecordedRunner())


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return database(tmp_path / "source.db", ROWS)


@pytest.mark.parametrize("prefix", ["", "./", "backup/"])
def test_a_tar_file(tmp_path: Path, content: bytes, prefix: str) -> None:
    members = {
        f"{prefix}freenas-v1.db": content,
        f"{prefix}pwenc_secret": b"x" * 32,
        f"{prefix}geli/{KEY}.key": CONTENT,
        f"{prefix}geli/readme": b"no key",
    }
    found = load(str(archive(tmp_path / "nas.tar", members)))
    assert found.disks[0] == BackedUpDisk(f"gptid/{FIRST}", "tank", "174", True, KEY)
    assert [(one.provider, one.pool, one.passphrase) for one in found.disks[1:]] == [
        (f"gptid/{SECOND}", "tank", True),
        ("ada3p2", "old", False),
    ]
    assert found.keys == {KEY: CONTENT}
    assert found.disk(SECOND, ()) == found.disks[1]
    assert found.disk("", ("/dev/ada3p2",)) == found.disks[2]
    assert found.disk("", ("/dev/sda2",)) is None
    assert repr(CONTENT) not in repr(found)


def test_the_folder_of_the_nas(tmp_path: Path) -> None:
    database(tmp_path / "freenas-v1.db", ROWS)
    assert load(str(tmp_path)).keys == {}
    (tmp_path / "geli").mkdir()
    (tmp_path / "geli" / f"{KEY}.key").write_bytes(CONTENT)
    found = load(str(tmp_path))
    assert (len(found.disks), found.keys) == (3, {KEY: CONTENT})


def test_the_database_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "freenas.db"
    path.write_bytes(content)
    assert (len(load(str(path)).disks), load(str(path)).keys) == (3, {})


def test_the_database_never_gets_into_a_file(tmp_path: Path, content: bytes) -> None:
    path = archive(tmp_path / "nas.tar", {"freenas-v1.db": content})
    (tmp_path / "source.db").unlink()
    before = sorted(tmp_path.iterdir())
    load(str(path))
    assert sorted(tmp_path.iterdir()) == before


class Old(sqlite3.Connection):
    """A connection of a Python before 3.11, on which no attribute says that it could read from memory."""

    def __getattribute__(self, name: str) -> t.Any:
        if name == "deserialize":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.fixture
def old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **more: connect(name, factory=Old, **more))


def no_memory(_runner: t.Any) -> str:
    return ""


@pytest.mark.usefixtures("old_python")
@pytest.mark.parametrize("name", ["data", "a%20b?c#d é"])
def test_an_old_python_reads_a_file_where_it_lies(
    tmp_path: Path, content: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_backup, "memory_folder", no_memory)
    folder = tmp_path / name
    folder.mkdir()
    path = folder / "freenas-v1.db"
    path.write_bytes(content)
    path.chmod(0o400)
    before = path.stat()
    assert len(load(str(folder)).disks) == len(load(str(path)).disks) == 3
    after = path.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert [one.name for one in folder.iterdir()] == ["freenas-v1.db"]


@pytest.mark.usefixtures("old_python")
def test_a_database_that_is_being_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_backup, "memory_folder", no_memory)
    database(tmp_path / "freenas-v1.db", ROWS)
    with contextlib.closing(sqlite3.connect(tmp_path / "freenas-v1.db")) as nas:
        nas.execute("PRAGMA locking_mode=EXCLUSIVE")
        nas.execute("BEGIN EXCLUSIVE")
        assert len(load(str(tmp_path)).disks) == 3


@pytest.mark.usefixtures("old_python")
def test_an_old_python_unpacks_in_memory_only(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "nas.tar", {"freenas-v1.db": content, f"geli/{KEY}.key": CONTENT})
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(config_backup, "memory_folder", lambda _runner: str(memory))
    assert len(load(str(path)).disks) == 3
    assert list(memory.iterdir()) == []
    bad = archive(tmp_path / "bad.tar", {"freenas-v1.db": content[:100] + bytes(len(content) - 100)})
    with pytest.raises(BadInput, match="has no table of GELI disks"):
        load(str(bad))
    assert list(memory.iterdir()) == []


@pytest.mark.usefixtures("old_python")
def test_an_old_python_without_memory(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_backup, "memory_folder", no_memory)
    (tmp_path / "source.db").unlink()
    path = archive(tmp_path / "nas.tar", {"freenas-v1.db": content})
    with pytest.raises(StorageError, match="no filesystem in memory is there") as caught:
        load(str(path))
    assert "give its folder /data" in caught.value.hint and "tar -xf FILE" in caught.value.hint
    assert [one.name for one in tmp_path.iterdir()] == ["nas.tar"]


def test_what_is_no_backup(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    sqlite3.connect(other).close()
    other.write_bytes(b"SQLite format 3\0" + bytes(100))
    words = {
        str(tmp_path): "There is no freenas-v1.db in",
        str(archive(tmp_path / "empty.tar", {"x": b""})): "There is no freenas-v1.db in",
        str(archive(tmp_path / "text.tar", {"freenas-v1.db": b"text"})): "is no database of SQLite",
        str(other): "has no table of GELI disks",
        "nas.tar": "wanted is an absolute path",
        os.devnull: "is no regular file and no folder",
    }
    for path, message in words.items():
        with pytest.raises(BadInput, match=message):
            load(path)
    with pytest.raises(StorageError, match="can't be read: No such file"):
        load(str(tmp_path / "gone"))


def test_a_database_of_scale(tmp_path: Path) -> None:
    database(tmp_path / "freenas-v1.db", ROWS)
    with sqlite3.connect(tmp_path / "freenas-v1.db") as found:
        found.execute("DROP TABLE storage_encrypteddisk")
    found.close()
    with pytest.raises(BadInput, match="SCALE drops it"):
        load(str(tmp_path))


def test_a_key_file_that_is_none(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_backup, "MOST_KEY_FILE", 64)
    members = {"freenas-v1.db": content, "geli/a.key": bytes(65)}
    with pytest.raises(BadInput, match="geli/a.key has more than 64 bytes"):
        load(str(archive(tmp_path / "nas.tar", members)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("damaged")
    database(found / "freenas-v1.db", ROWS)
    return found


@settings(max_examples=30)
@given(garbage=st.binary(max_size=2000), at=st.integers(0, 200))
def test_damaged_backups_are_no_traceback(folder: Path, garbage: bytes, at: int) -> None:
    content = (folder / "freenas-v1.db").read_bytes()
    damaged = content[: at * 60] + garbage + content[at * 60 + len(garbage) :]
    archive(folder / "nas.tar", {"freenas-v1.db": damaged, "geli/a.key": CONTENT})
    whole = (folder / "nas.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: at * 100] + garbage)
    for name in ("nas.tar", "cut.tar"):
        try:
            load(str(folder / name))
        except StorageError as error:
            assert error.message
