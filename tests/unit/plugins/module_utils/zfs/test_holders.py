# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is named when a key can't be unloaded."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils import mountinfo
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import dataset_actions, holders, mount_table
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keys import Busy
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import Node
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    child,
    root,
    run,
    wishes,
    world,
)

OWN = "/proc/self/mountinfo"


class Tables:
    """Mount tables, by their paths, and the namespaces of processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: dict[str, list[str]] = {OWN: []}
        self.namespaces: dict[str, int] = {}
        self._stat = os.stat
        monkeypatch.setattr(mountinfo, "read", self._read)
        monkeypatch.setattr(os, "stat", self._status)
        monkeypatch.setattr(holders, "_processes", lambda: sorted(self.namespaces, key=int))

    def _read(self, table: str = OWN) -> list[mountinfo.MountLine]:
        if table not in self.lines:
            raise FileNotFoundError(table)
        return mountinfo.parse(self.lines[table])

    def _status(self, path: t.Any, **words: t.Any) -> t.Any:
        parts = str(path).split("/")
        if parts[-2:] != ["ns", "mnt"]:
            return self._stat(path, **words)
        number = 1 if parts[2] == "self" else self.namespaces[parts[2]]
        return os.stat_result((0, number, *[0] * 8))

    def process(self, number: str, namespace: int, *lines: str) -> None:
        self.namespaces[number] = namespace
        self.lines[f"/proc/{number}/mountinfo"] = list(lines)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Tables:
    return Tables(monkeypatch)


def mount(source: str, place: str, kind: str = "zfs") -> str:
    return f"40 30 0:99 / {place} rw - {kind} {source} rw,xattr"


def test_a_folder_that_is_mounted_elsewhere_is_named(tables: Tables) -> None:
    tables.lines[OWN] = [mount("tank/a", "/srv/export"), mount("tank/ab", "/srv/b"), mount("tank/a", "/x", "nfs")]
    assert holders.describe_mounts(("tank/a",)) == "; still mounted: 'tank/a' at /srv/export"


def test_each_other_namespace_is_looked_into_once(tables: Tables) -> None:
    tables.process("70001", 1, mount("tank/a", "/mine"))
    tables.process("70002", 2, mount("tank/a", "/in a container".replace(" ", "\\040")))
    tables.process("70003", 2, mount("tank/a", "/again"))
    said = holders.describe_mounts(("tank/a",))
    assert said == "; still mounted: 'tank/a' at /in a container for process 70002 (it has ended meanwhile)"


def test_what_a_service_has_from_here_goes_with_that(tables: Tables) -> None:
    tables.lines[OWN] = [mount("tank/a", "/srv/export")]
    tables.process("70001", 2, mount("tank/a", "/srv/export"), mount("tank/a", "/own"))
    assert holders.describe_mounts(("tank/a",)) == (
        "; still mounted: 'tank/a' at /srv/export, 'tank/a' at /own for process 70001 (it has ended meanwhile)"
    )


def test_a_process_that_ends_meanwhile_is_left_out(tables: Tables) -> None:
    tables.namespaces["70001"] = 2
    assert holders.describe_mounts(("tank/a",)) == ""


def test_the_error_of_a_lock_tells_of_it(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(mount_table, "TABLE", str(tmp_path / "none"))
    monkeypatch.setattr(dataset_actions, "BUSY_PATIENCE", 0.0)
    zfs = world(root("plain/a", "a"), child("plain/a/b", "plain/a"), Node("plain/c", mounted=True))

    def unload(name: str) -> None:
        tables.lines[OWN] = [mount("plain/a/b", "/srv/export"), mount("plain/c", "/plain/c")]
        raise Busy(f"'{name}' is busy")

    monkeypatch.setattr(zfs, "unload", unload)
    done = run(zfs, tmp_path, wishes(name="plain/a", state="locked"))
    (failure,) = done.plan.failures
    assert "its key can't be unloaded; still mounted: 'plain/a/b' at /srv/export." in failure.message
