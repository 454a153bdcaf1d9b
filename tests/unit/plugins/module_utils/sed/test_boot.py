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
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_files import File, archive
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_options import KEYS, check
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
    written = [one for one in files if not one.gone]
    assert written[-1] == File(boot_files.WANTED, target=boot_files.UNIT), (
        "nothing starts before what it needs is there"
    )


def test_the_program_is_one_file_that_needs_nothing_of_this_collection(tmp_path: Path) -> None:
    made = archive()
    assert made == archive()
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
    return tuple(replace(one, path=f"{root}{one.path}") for one in files)


def play(files: tuple[File, ...], check_mode: bool = False) -> Outcome[dict[str, File | None]]:
    return converge(
        lambda: boot_files.read(one.path for one in files),
        lambda found: boot_files.decide(files, found, RELOAD),
        RecordedRunner(),
        check_mode,
    )


def test_it_is_written_mended_and_removed(tmp_path: Path) -> None:
    files = moved(boot_files.wanted(SETTINGS), tmp_path)
    told = play(files, check_mode=True).plan
    assert not list(tmp_path.iterdir())
    assert play(files).plan.actions == told.actions
    assert [action.replace(str(tmp_path), "") for action in told.actions] == [
        "Write /etc/zfs/nasops-unlock-drives.pyz",
        "Write /etc/zfs/nasops-drives.json",
        "Write /etc/systemd/system/nasops-unlock-drives.service",
        "Write /etc/systemd/system/zfs-import.target.wants/nasops-unlock-drives.service",
        "Let systemd read its units again",
    ]
    assert "words-of-" not in str(told.diff())
    assert not play(files).plan.changed
    program, settings = Path(files[0].path), Path(files[1].path)
    settings.chmod(0o644)
    program.write_bytes(b"")
    Path(f"{program}.part").write_text("of a run that was cut off")
    assert len(play(files).plan.actions) == 3
    assert settings.stat().st_mode & 0o777 == 0o600 and program.read_bytes() == boot_files.archive()
    gone = moved(boot_files.unwanted(), tmp_path)
    assert len(play(gone).plan.actions) == 5
    assert not play(gone).plan.changed
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_a_file_of_another_user_is_written_anew(tmp_path: Path) -> None:
    files = moved(boot_files.wanted(SETTINGS), tmp_path)
    play(files)
    path = files[1].path
    found = boot_files.read(one.path for one in files)
    there = found[path]
    assert there is not None and there == files[1]
    theirs = {**found, path: replace(there, owner=there.owner + 1)}
    assert boot_files.decide(files, theirs, RELOAD).actions[0] == f"Write {path}"


def test_passwords_that_a_run_left_half_written_do_not_stay(tmp_path: Path) -> None:
    settings = moved(boot_files.wanted(SETTINGS), tmp_path)[1]
    # A folder in its place keeps it from being written.
    Path(settings.path).mkdir(parents=True)
    with pytest.raises(StorageError, match="can't be written"):
        boot_files.write(settings)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    Path(settings.path).rmdir()
    left = Path(f"{settings.path}.part")
    left.write_text("words-of-all")
    done = play(moved(boot_files.unwanted(), tmp_path))
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
        assert isinstance(merged, str)
        return
    whole = {**KEPT, "devices": asked["devices"], **expected}
    assert not isinstance(merged, str)
    assert merged.settings == {name: value for name, value in whole.items() if value}
    # The next run finds nothing to do.
    again = boot_proven.merge(asked, merged.settings, unproven)
    assert not isinstance(again, str) and again.settings == merged.settings


PLACE = {
    "server": "kmip.example.org",
    "port": 5696,
    "by": "name",
    "certificate": "/etc/nas/kmip/client.crt",
    "wait": 120,
}
ELSEWHERE = {**PLACE, "server": "kmip2.example.org"}


def on_server(place: dict[str, t.Any], shared: str | None = None, **objects: str) -> dict[str, t.Any]:
    """The part of a file that is about a server."""
    words = {**place, "object": shared, "objects": objects}
    return {name: value for name, value in words.items() if value}


def settings(*devices: str, hash: str = "sha1", **more: t.Any) -> dict[str, t.Any]:  # noqa: A002
    return {"devices": list(devices), "hash": hash, **more}


@pytest.mark.parametrize(
    "asked,former,unproven,expected,told",
    [
        # The object stays what it was.
        (settings("S1", "S2", kmip=on_server(PLACE, S1="new/S1", S2="new/S2")),
         settings("S1", "S2", kmip=on_server(PLACE, "drives")), ["S1"],
         {"kmip": on_server(PLACE, S1="drives", S2="new/S2")}, {"kept": ["S1"]}),
        # Of one of which there was nothing, it is written.
        (settings("S1", "S2", kmip=on_server(PLACE, "drives")), {}, ["S1"],
         {"kmip": on_server(PLACE, "drives")}, {"untried": ["S1"]}),
        (settings("S1", "S2", kmip=on_server(PLACE, "drives")), {}, ["S1", "S2"],
         {"kmip": on_server(PLACE, "drives")}, {"untried": ["S1", "S2"]}),
        # A password is not.
        (settings("S1", "S2", password="x", kmip=on_server(PLACE, S2="drives/S2")), {}, ["S1", "S2"],
         {"devices": ["S2"], "kmip": on_server(PLACE, S2="drives/S2")}, {"lost": ["S1"], "untried": ["S2"]}),
        # From a password to an object: there may not be both a common password and a common object.
        (settings("S1", "S2", "S3", kmip=on_server(PLACE, "drives")), settings("S1", "S2", password="of-all"), ["S1"],
         {"passwords": {"S1": "of-all"}, "kmip": on_server(PLACE, "drives")}, {"kept": ["S1"], "late": ["S1"]}),
        (settings("S1", "S2", kmip=on_server(PLACE, S1="a", S2="b")), settings("S1", "S2", password="of-all"),
         ["S1", "S2"], {"password": "of-all"}, {"kept": ["S1", "S2"], "late": ["S1", "S2"]}),
        # And back again: with the server that there was, for this one alone.
        (settings("S1", "S2", password="of-all"), settings("S1", "S2", kmip=on_server(PLACE, "drives")), ["S1"],
         {"password": "of-all", "kmip": on_server(PLACE, S1="drives")}, {"kept": ["S1"]}),
        (settings("S1", "S2", password="x", kmip=on_server(PLACE, S2="drives/S2")),
         settings("S1", kmip=on_server(PLACE, "drives")), ["S1"],
         {"kmip": on_server(PLACE, S1="drives", S2="drives/S2")}, {"kept": ["S1"]}),
        # How the server is reached is not what the drive has.
        (settings("S1", "S2", kmip=on_server({**PLACE, "certificate": "/etc/new.crt"}, S1="new/S1", S2="b")),
         settings("S1", kmip=on_server(PLACE, S1="a")), ["S1"],
         {"kmip": on_server({**PLACE, "certificate": "/etc/new.crt"}, S1="a", S2="b")}, {"kept": ["S1"]}),
        # On another server, an object has another name.
        (settings("S1", "S2", kmip=on_server(ELSEWHERE, S1="new/S1", S2="b")),
         settings("S1", kmip=on_server(PLACE, S1="a")), ["S1"],
         {"kmip": on_server(ELSEWHERE, S1="new/S1", S2="b")}, {"untried": ["S1"]}),
        (settings("S1", kmip=on_server({**PLACE, "by": "uid"}, S1="17")),
         settings("S1", kmip=on_server(PLACE, S1="a")), ["S1"],
         {"kmip": on_server({**PLACE, "by": "uid"}, S1="17")}, {"untried": ["S1"]}),
        (settings("S1", "S2", password="x", kmip=on_server(ELSEWHERE, S2="b")),
         settings("S1", kmip=on_server(PLACE, S1="a")), ["S1"], "objects for S1 on another KMIP server", {}),
        # What is fetched becomes a credential by that, too.
        (settings("S1", "S2", hash="raw", kmip=on_server(PLACE, "drives")),
         settings("S1", "S2", kmip=on_server(PLACE, "drives")), ["S1"], "another 'hash'", {}),
        (settings("S1", "S2", hash="raw", kmip=on_server(PLACE, "drives")), settings("S2", password="x"), ["S1"],
         {"kmip": on_server(PLACE, "drives")}, {"untried": ["S1"]}),
    ],
)  # fmt: skip
def test_an_object_stays_what_it_was_and_is_written_where_there_was_nothing(
    asked: dict[str, t.Any],
    former: dict[str, t.Any],
    unproven: list[str],
    expected: dict[str, t.Any] | str,
    told: dict[str, list[str]],
) -> None:
    merged = boot_proven.merge(asked, former, unproven)
    if isinstance(merged, str):
        assert isinstance(expected, str) and expected in merged
        return
    whole = expected if isinstance(expected, dict) else {}
    assert merged.settings == {"devices": asked["devices"], "hash": asked["hash"], **whole}
    found = {name: list(getattr(merged, name)) for name in ("kept", "untried", "lost", "late")}
    assert found == {"kept": [], "untried": [], "lost": [], "late": [], **told}
    # It is what the program takes, and the next run finds nothing to do.
    sources = check({**dict.fromkeys(KEYS), **merged.settings})
    assert {*sources.filed, *(sources.kmip.objects if sources.kmip else ())} == set(merged.settings["devices"])
    again = boot_proven.merge(asked, merged.settings, unproven)
    assert not isinstance(again, str) and again.settings == merged.settings


def test_the_unit_for_a_password_that_stays_in_the_file_stays_too() -> None:
    there: dict[str, File | None] = {one.path: one for one in boot_files.wanted(SETTINGS)}
    asked = {"devices": ["S1", "S2"], "hash": "sha1", "kmip": on_server(PLACE, "drives")}
    files = boot_files.wanted({**asked, "password": None, "passwords": None})
    assert next(one for one in files if one.path == boot_files.UNIT).gone
    settled, warnings = boot_proven.settle(files, there, ["S1"])
    units = {one.path: one.gone for one in settled if one.path in (boot_files.UNIT, boot_files.KMIP_UNIT)}
    assert units == {boot_files.UNIT: False, boot_files.KMIP_UNIT: False}
    assert {one.path for one in settled} == {one.path for one in files}, "what is there was looked at for these"
    assert "The passwords of S1 stay in /etc/zfs/nasops-drives.json" in warnings[1] and len(warnings) == 2
    assert "words-of-" not in "".join(warnings)
    # The other way about: the server stays for the drive that has an object there.
    files = boot_files.wanted({**SETTINGS, "passwords": None})
    there = {one.path: None if one.gone else one for one in boot_files.wanted(asked)}
    settled, warnings = boot_proven.settle(files, there, ["S1"])
    assert {one.path for one in settled if one.gone} == set()
    assert warnings == ("/etc/zfs/nasops-drives.json has for S1 what it had before.",)


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
        strange = {**there, boot.SETTINGS: replace(files[1], content=content)}
        assert boot_proven.settle(mistyped, strange, ["S1", "S2"])[0] == ()
    other = boot_files.wanted({**SETTINGS, "hash": "raw"})[1]
    settled, warnings = boot_proven.settle(mistyped, {**there, boot.SETTINGS: other}, ["S1"])
    assert settled == () and "another 'hash'" in warnings[0]
