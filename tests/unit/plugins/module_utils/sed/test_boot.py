# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is installed so that a host unlocks its drives when it starts."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import typing as t
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome, Step, converge
from ansible_collections.nasops.encryption.plugins.module_utils.sed import boot, boot_files, boot_proven
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_files import File
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner

SETTINGS = {"devices": ["S1", "S2"], "password": "words-of-all", "passwords": {"S2": "words-of-s2"}, "hash": "sha1"}
RELOAD = Step("Let systemd read its units again", lambda _runner: None)


def test_the_unit_comes_before_pools_are_imported() -> None:
    unit = next(one for one in boot_files.wanted(SETTINGS, "/usr/bin/python3") if one.path == boot_files.UNIT)
    lines = unit.content.decode().splitlines()
    assert "Before=zfs-import-cache.service zfs-import-scan.service zfs-import.target" in lines
    assert "ExecStart=/usr/bin/python3 -I /etc/zfs/nasops-unlock-drives.pyz" in lines
    assert "DefaultDependencies=no" in lines and "WantedBy=zfs-import.target" in lines
    assert boot_files.WANTED == "/etc/systemd/system/zfs-import.target.wants/nasops-unlock-drives.service"
    assert "words-of-" not in unit.content.decode()


def test_passwords_are_in_one_file_for_root_alone() -> None:
    files = boot_files.wanted({**SETTINGS, "state": "present"})
    holding = [one for one in files if b"words-of-" in one.content]
    assert [(one.path, one.mode) for one in holding] == [("/etc/zfs/nasops-drives.json", 0o600)]
    assert json.loads(holding[0].content) == SETTINGS
    assert files[-1] == File(boot_files.WANTED, target=boot_files.UNIT), "nothing starts before what it needs is there"


def test_the_program_is_one_file_that_needs_nothing_of_this_collection(tmp_path: Path) -> None:
    made = boot_files.archive()
    assert made == boot_files.archive()
    names = zipfile.ZipFile(io.BytesIO(made)).namelist()
    assert not [name for name in names if "entry" in name or "zfs" in name or "geli" in name]
    program = tmp_path / "program.pyz"
    program.write_bytes(made)
    settings = tmp_path / "settings.json"
    argv = [sys.executable, "-I", "-S", str(program), str(settings)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("nasops-unlock-drives: no drive was unlocked: ")
    assert "settings.json can't be opened: No such file or directory" in done.stdout


def moved(files: t.Iterable[File], root: Path) -> tuple[File, ...]:
    return tuple(File(f"{root}{one.path}", one.content, one.mode, one.target) for one in files)


def play(files: tuple[File, ...], present: bool, check_mode: bool = False) -> Outcome[dict[str, File | None]]:
    return converge(
        lambda: boot_files.read(one.path for one in files),
        lambda found: boot_files.decide(files, present, found, RELOAD),
        RecordedRunner(),
        check_mode,
    )


def test_it_is_written_mended_and_removed(tmp_path: Path) -> None:
    files = moved(boot_files.wanted(SETTINGS), tmp_path)
    told = play(files, True, check_mode=True).plan
    assert not list(tmp_path.iterdir())
    assert play(files, True).plan.actions == told.actions
    assert [action.replace(str(tmp_path), "") for action in told.actions] == [
        "Write /etc/zfs/nasops-drives.json",
        "Write /etc/zfs/nasops-unlock-drives.pyz",
        "Write /etc/systemd/system/nasops-unlock-drives.service",
        "Write /etc/systemd/system/zfs-import.target.wants/nasops-unlock-drives.service",
        "Let systemd read its units again",
    ]
    assert "words-of-" not in str(told.diff())
    assert not play(files, True).plan.changed
    settings, program = Path(files[0].path), Path(files[1].path)
    settings.chmod(0o644)
    program.write_bytes(b"")
    Path(f"{program}.part").write_text("of a run that was cut off")
    assert len(play(files, True).plan.actions) == 3
    assert settings.stat().st_mode & 0o777 == 0o600 and program.read_bytes() == boot_files.archive()
    gone = moved(boot_files.unwanted(), tmp_path)
    assert len(play(gone, False).plan.actions) == 5
    assert not play(gone, False).plan.changed
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_a_file_of_another_user_is_written_anew(tmp_path: Path) -> None:
    files = moved(boot_files.wanted(SETTINGS), tmp_path)
    play(files, True)
    path = files[0].path
    found = boot_files.read(one.path for one in files)
    there = found[path]
    assert there is not None and there == files[0]
    theirs = {**found, path: replace(there, owner=there.owner + 1)}
    assert boot_files.decide(files, True, theirs, RELOAD).actions[0] == f"Write {path}"


def test_passwords_that_a_run_left_half_written_do_not_stay(tmp_path: Path) -> None:
    settings = moved(boot_files.wanted(SETTINGS), tmp_path)[0]
    # A folder in its place keeps it from being written.
    Path(settings.path).mkdir(parents=True)
    with pytest.raises(StorageError, match="can't be written"):
        boot_files.write(settings)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    Path(settings.path).rmdir()
    left = Path(f"{settings.path}.part")
    left.write_text("words-of-all")
    done = play(moved(boot_files.unwanted(), tmp_path), False)
    assert done.plan.actions[0] == f"Remove {left}" and not left.exists()


def test_the_python_of_the_system_starts_it_if_it_is_new_enough(tmp_path: Path) -> None:
    usual = tmp_path / "python3"
    for name, mode, fits in (
        ("python3.9", 0o755, True),
        ("python3.13", 0o755, True),
        ("python3.6", 0o755, False),
        ("python3.11", 0o644, False),
        ("platform-python", 0o755, False),
    ):
        program = tmp_path / name
        program.write_text("")
        program.chmod(mode)
        usual.unlink(missing_ok=True)
        usual.symlink_to(name)
        assert boot_files.interpreter(str(usual)) == (str(usual) if fits else sys.executable), name
    assert boot_files.interpreter(str(tmp_path / "none")) == sys.executable


def test_settings_that_others_may_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(SETTINGS))
    path.chmod(0o640)
    with pytest.raises(Refused, match="others than root may read or change it"):
        boot.load(str(path))
    path.chmod(0o600)
    loaded = boot.load(str(path))
    assert {name: loaded[name] for name in SETTINGS} == SETTINGS
    assert loaded["state"] == "unlocked" and loaded["backend"] == "auto"
    for text, message in (("{", "is not JSON"), ('{"state": "absent"}', "holds something else")):
        path.write_text(text)
        with pytest.raises(BadInput, match=message):
            boot.load(str(path))


KEPT = {"devices": ["S1", "S2"], "password": "words-of-all", "passwords": {"S2": "words-of-s2"}, "hash": "sha1"}
OF_S2 = {"S2": "words-of-s2"}


@pytest.mark.parametrize(
    "wanted,former,unproven,expected",
    [
        # A common one that was mistyped takes the place of nothing, and one that a drive took only of what it opens.
        ({"password": "x"}, KEPT, ["S1"], {"password": "words-of-all"}),
        ({"password": "x"}, KEPT, ["S1", "S2"], {"password": "words-of-all"}),
        ({"password": "x", "devices": ["S1", "S2", "S3"]}, KEPT, ["S1"],
         {"password": "x", "passwords": {"S1": "words-of-all", **OF_S2}}),
        ({"passwords": {"S2": "x"}}, KEPT, ["S2"], {}),
        ({"password": "x", "passwords": None}, {**KEPT, "passwords": None}, ["S2"],
         {"password": "x", "passwords": {"S2": "words-of-all"}}),
        # There is nothing to be kept of a drive that is new.
        ({"devices": ["S1", "S2", "S3"]}, KEPT, ["S3"], {"devices": ["S1", "S2"]}),
        ({}, {}, ["S1"], {"devices": ["S2"], "password": None}),
        # One that is described no more goes.
        ({"devices": ["S2"]}, KEPT, ["S2"], {"devices": ["S2"], "password": None}),
        ({"devices": ["S1"], "passwords": None}, {"devices": ["S1"], "hash": "sha1"}, ["S1"], None),
        ({}, {}, ["S1", "S2"], None),
        # Two sorts of credentials can't be in one file.
        ({"hash": "raw"}, KEPT, ["S1"], None),
        ({"hash": "raw", "devices": ["S1", "S3"], "passwords": None}, {**KEPT, "devices": ["S2"]}, ["S1"],
         {"hash": "raw", "devices": ["S3"], "passwords": None}),
    ],
)  # fmt: skip
def test_what_is_not_proven_takes_the_place_of_nothing(
    wanted: dict[str, t.Any], former: dict[str, t.Any], unproven: list[str], expected: dict[str, t.Any] | None
) -> None:
    asked = {**KEPT, **wanted}
    merged = boot_proven.merge(asked, former, unproven)
    if expected is None:
        assert merged is None
        return
    whole = {**KEPT, "devices": asked["devices"], **expected}
    assert merged == {name: value for name, value in whole.items() if value}
    # The next run finds nothing to do.
    assert boot_proven.merge(asked, merged, unproven) == merged


def test_the_file_is_left_as_it_is_or_tells_what_it_keeps() -> None:
    files = boot_files.wanted(SETTINGS)
    there: dict[str, File | None] = {one.path: one for one in files}
    assert boot_proven.settle(files, there, []) == (files, ())
    mistyped = boot_files.wanted({**SETTINGS, "password": "mistyped"})
    settled, warnings = boot_proven.settle(mistyped, there, ["S1"])
    assert settled == files and warnings == ("/etc/zfs/nasops-drives.json has for S1 what it had before.",)
    nothing: dict[str, File | None] = dict.fromkeys(there)
    settled, warnings = boot_proven.settle(mistyped, nothing, ["S1"])
    assert b"mistyped" not in b"".join(one.content for one in settled if one.path == boot.SETTINGS)
    assert warnings == ("/etc/zfs/nasops-drives.json has no password for S1: the boot leaves that locked.",)
    settled, warnings = boot_proven.settle(mistyped, nothing, ["S1", "S2"])
    assert settled == () and "was left as it is" in warnings[0] and "none of these drives" in warnings[0]
    for content in (b"{", b"[]", b'{"devices": 1}'):
        strange = {**there, boot.SETTINGS: replace(files[0], content=content)}
        assert boot_proven.settle(mistyped, strange, ["S1", "S2"])[0] == ()
    (other, *_rest), warnings = boot_files.wanted({**SETTINGS, "hash": "raw"}), ()
    settled, warnings = boot_proven.settle(mistyped, {**there, boot.SETTINGS: other}, ["S1"])
    assert settled == () and "another 'hash'" in warnings[0]
