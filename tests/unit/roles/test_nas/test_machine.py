# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What start would do to a VM, of which nothing but its description is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm import ssh
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.description import Description, Disk
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import EmulatorFailed
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import TestNasError as NasError
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.machine import Machine


@pytest.fixture
def machine(tmp_path: Path, description: Description) -> Machine:
    one = Machine(tmp_path, description.name)
    one.files.directory.mkdir()
    return one


def test_a_vm_that_is_not_there_is_new(machine: Machine, description: Description) -> None:
    assert machine.is_new(description, False) and machine.is_new(description, True)


def test_a_vm_as_described_is_not_new(machine: Machine, description: Description) -> None:
    machine.files.description.write_text(description.to_json(), "utf-8")
    assert not machine.is_new(description, False) and not machine.is_new(description, True)
    assert machine.start(description, True, 1, True), "it is off"


def test_another_vm_is_new_only_if_it_may_be_recreated(machine: Machine, description: Description) -> None:
    machine.files.description.write_text(description.to_json(), "utf-8")
    for wanted in (replace(description, memory=2048), replace(description, disks=(Disk("D4", 1 << 30, "scsi"),))):
        assert machine.is_new(wanted, True) and not machine.is_new(wanted, False)
        assert machine.start(wanted, True, 1, True)
    with pytest.raises(NasError, match="only a new one can be"):
        machine.start(wanted, False, 1, True)
    assert machine.description() == description, "nothing was done"


class TestQemuThatFailsByItself:
    """The machine boots once more, and no more than that."""

    @pytest.fixture
    def booted(self, machine: Machine, description: Description, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The words of each boot; how each ends is what ``ends`` gives."""
        machine.files.description.write_text(description.to_json(), "utf-8")
        boots: list[str] = []
        monkeypatch.setattr(Machine, "_boot", lambda _self, described, _snapshot: boots.append(described.name))
        return boots

    def ends(self, monkeypatch: pytest.MonkeyPatch, *errors: NasError) -> None:
        left = list(errors)

        def wait(*_words: object) -> None:
            if left:
                raise left.pop(0)

        monkeypatch.setattr(ssh, "wait", wait)

    def test_is_started_again(
        self, machine: Machine, description: Description, booted: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.ends(monkeypatch, EmulatorFailed("Assertion"))
        assert machine.start(description, False, 1, False)
        assert booted == ["box", "box"]

    def test_is_not_started_a_third_time(
        self, machine: Machine, description: Description, booted: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.ends(monkeypatch, EmulatorFailed("first"), EmulatorFailed("second"))
        with pytest.raises(NasError, match="second"):
            machine.start(description, False, 1, False)
        assert booted == ["box", "box"]

    def test_another_end_is_told_at_once(
        self, machine: Machine, description: Description, booted: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.ends(monkeypatch, NasError("no such disk"))
        with pytest.raises(NasError, match="no such disk"):
            machine.start(description, False, 1, False)
        assert booted == ["box"]
