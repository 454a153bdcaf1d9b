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


@pytest.mark.parametrize(
    ("core", "wanted"),
    [
        ("2.20", ["ansible-core==2.20.*", "ansible-core>=2.20.0a0,<2.21"]),
        ("2.22.0rc1", ["ansible-core==2.22.0rc1"]),
        ("2.21.0b2", ["ansible-core==2.21.0b2"]),
        ("2.19.14", ["ansible-core==2.19.14"]),
    ],
)
def test_a_release_of_ansible_core_or_one_version_of_it_can_be_asked_for(core: str, wanted: list[str]) -> None:
    assert setup.core_requirements(core) == wanted


@pytest.mark.parametrize("core", ["2", "devel", "3.1", "2.20.*", "2.22rc1", "2.22.0rc", ">=2.20", "2.20 x"])
def test_what_is_no_release_of_it_is_refused(core: str) -> None:
    with pytest.raises(setup.SetupError, match="is not a release of ansible-core"):
        setup.core_requirements(core)


@pytest.mark.parametrize("released", [True, False])
def test_a_pre_release_is_taken_only_while_there_is_no_release(
    released: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    out = [released]

    def run(argv: Sequence[str]) -> str:
        if "pip" in argv:
            asked.append(argv[-1])
            if not out[0] and "==" in argv[-1]:
                raise setup.SetupError("ERROR: No matching distribution found for ansible-core==2.22.*")
        else:
            Path(argv[-1]).mkdir()
        return ""

    monkeypatch.setattr(setup, "run", run)
    wanted = setup.core_requirements("2.22")
    place = setup.make_venv(tmp_path / "venv", Path("python"), [], wanted, "what")
    assert asked == wanted[: 1 if released else 2]
    assert (place / ".complete").exists()
    assert (place == tmp_path / "venv") is released
    # It is made once; only whether the release is out by now is asked again.
    asked.clear()
    assert setup.make_venv(tmp_path / "venv", Path("python"), [], wanted, "what") == place
    assert asked == ([] if released else wanted[:1])
    out[0] = True
    assert setup.make_venv(tmp_path / "venv", Path("python"), [], wanted, "what") == tmp_path / "venv"


def test_another_failure_of_pip_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str]) -> str:
        asked.append(argv)
        if "pip" in argv:
            raise setup.SetupError("no way to the index")
        return ""

    monkeypatch.setattr(setup, "run", run)
    with pytest.raises(setup.SetupError, match="no way"):
        setup.make_venv(tmp_path / "venv", Path("python"), [], ["a", "b"], "what")
    assert len(asked) == 2
