# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot is taken when the guest has all its names of devices, as far as it can be asked."""

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm import ssh
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.machine import Machine
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.process import Running

Said = list[str]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """What the guest and QEMU were told, in order; the guest answers on every port but 0."""
    told: Said = []

    def run(argv: list[str], timeout: float, **_more: t.Any) -> subprocess.CompletedProcess[bytes]:
        told.append(argv[-1])
        # More than udevadm takes itself, so that it is not cut off where the guest answers; and there is an end.
        assert 60 < timeout <= 120
        if "udevadm" in argv[-1] and "slow" in argv:
            raise subprocess.TimeoutExpired(argv, 1)
        return subprocess.CompletedProcess(argv, 1)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(ssh, "_answers", bool)
    monkeypatch.setattr(Machine, "snapshots", lambda machine: ["old"])
    monkeypatch.setattr(Machine, "_human", lambda machine, command: told.append(command))
    return told


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, port: int = 2222, name: str = "nas") -> Machine:
    monkeypatch.setattr(Machine, "_started", lambda machine: Running(1, 1, "boot", "uuid", port, "tcg"))
    return Machine(folder, name)


SETTLE = "udevadm settle --timeout=60"


@pytest.mark.parametrize("name", ["nas", "slow"])
def test_udev_is_waited_for_first(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert machine(tmp_path, monkeypatch, name=name).snapshot("new", keep=True, check=False)
    assert said == [SETTLE, "savevm new"]


def test_a_guest_that_does_not_answer_is_saved_as_it_is(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch, port=0).snapshot("new", keep=True, check=False)
    assert said == ["savevm new"]


def test_the_guest_is_not_bothered_when_there_is_nothing_to_do(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine(tmp_path, monkeypatch)
    assert not found.snapshot("old", keep=True, check=False)
    assert found.snapshot("new", keep=True, check=True)
    assert said == []
