# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether KVM works is found out by a boot, and found out once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm import probe

# Says its version, or boots: writes what is in `says` to the console, and ends unless it has come up.
QEMU = """\
#!/bin/sh
here="${0%/*}"
if [ "$1" = --version ]; then
    cat "$here/version"
else
    echo boot >>"$here/boots"
    cat "$here/says" >console.log
    ! grep -q ready console.log || exec sleep 600
fi
"""


class Trial:
    """A QEMU whose boots are counted, and an image."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.qemu = directory / "qemu"
        self.qemu.write_text(QEMU)
        self.qemu.chmod(0o755)
        self.says("test-nas: ready\n")
        self.is_version("QEMU emulator version 10.0\n")
        self.cache = directory / "cache"
        self.cache.mkdir()

    def says(self, text: str) -> None:
        (self.directory / "says").write_text(text)

    def is_version(self, text: str) -> None:
        (self.directory / "version").write_text(text)

    def works(self, image: str = "1") -> bool:
        return probe.kvm_works(str(self.qemu), self.directory / image, self.cache)

    @property
    def boots(self) -> int:
        path = self.directory / "boots"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """A machine with a /dev/kvm."""
    monkeypatch.setattr(os, "access", lambda *_arguments: True)
    return Trial(tmp_path)


def test_without_the_device_nothing_is_tried(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    assert not trial.works()
    assert trial.boots == 0


def test_a_boot_that_comes_up_is_remembered(trial: Trial) -> None:
    assert trial.works() and trial.works()
    assert trial.boots == 1
    assert [path.name for path in trial.cache.iterdir() if not path.name.endswith(".lock")] == ["kvm.json"]


def test_a_boot_that_does_not_is_remembered_too(trial: Trial) -> None:
    trial.says("panic\n")
    assert not trial.works() and not trial.works()
    assert trial.boots == 1


def test_another_image_or_qemu_is_another_question(trial: Trial) -> None:
    assert trial.works("1") and trial.works("2")
    assert trial.boots == 2
    trial.is_version("QEMU emulator version 10.1\n")
    assert trial.works("2")
    assert trial.boots == 3


def test_another_boot_of_the_machine_is_another_question(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial.works()
    monkeypatch.setattr(probe, "boot_id", lambda: "another")
    assert trial.works()
    assert trial.boots == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"question": {}, "works": true}'])
def test_a_note_of_another_kind_is_no_answer(trial: Trial, text: str) -> None:
    (trial.cache / "kvm.json").write_text(text)
    trial.says("panic\n")
    assert not trial.works()
    assert trial.boots == 1


def test_a_comma_in_the_image_s_path_is_no_option_of_the_drive(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    start = subprocess.Popen

    def note(argv: list[str], **options: Any) -> Any:
        seen.append(argv)
        return start(argv, **options)

    monkeypatch.setattr(subprocess, "Popen", note)
    trial.works("a,b")
    boot = next(argv for argv in seen if "-drive" in argv)
    assert "a,,b/root.qcow2" in boot[boot.index("-drive") + 1]
