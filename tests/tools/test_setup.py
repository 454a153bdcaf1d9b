# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up installs what the NAS lacks where it may, and names the command where it may not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import setup

NAMED = "the NAS needs Debian packages, and there is no right to install them; as root: apt-get install one two"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that needs the packages in the file `needs`, and has an apt-get that is allowed to run."""
    (tmp_path / "needs").write_text("one\ntwo\n")
    (tmp_path / "build_image.sh").write_text('[ "$1" = needs ] && cat "${0%/*}/needs"\n')

    def install(packages: Sequence[str]) -> bool:
        (tmp_path / "installed").write_text(" ".join(packages))
        (tmp_path / "needs").write_text("")
        return True

    monkeypatch.setattr(setup, "apt_install", install)
    return tmp_path


def test_what_the_nas_lacks_is_installed_once(machine: Path) -> None:
    assert setup.nas_packages(machine / "build_image.sh") == []
    assert (machine / "installed").read_text() == "one two"
    (machine / "installed").unlink()
    assert setup.nas_packages(machine / "build_image.sh") == []
    assert not (machine / "installed").exists()


def test_without_the_right_to_install_the_command_is_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "apt_install", lambda _packages: False)
    assert setup.nas_packages(machine / "build_image.sh") == [NAMED]
    assert capsys.readouterr().err == f"setup: {NAMED}\n"


def test_a_program_that_can_not_say_what_it_needs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "build_image.sh").write_text("echo no cache >&2; exit 3\n")
    with pytest.raises(setup.SetupError, match="failed with status 3:\nno cache"):
        setup.nas_packages(tmp_path / "build_image.sh")
