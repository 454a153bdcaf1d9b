# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drive has its password where, and what of that the file of a host holds."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.sed import boot, boot_files
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_options import (
    check,
    kept,
    kmip_spec,
    parse_sources,
)
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_refused import Refusals

SERVER = {
    "server": "kmip.example.org",
    "certificate": "/etc/nas/kmip/client.crt",
    "private_key": "/etc/nas/kmip/client.key",
    "ca_certificate": "/etc/nas/kmip/ca.crt",
}

Params = dict[str, t.Any]


def params(kmip: Params | None, **more: t.Any) -> Params:
    """Options as the module gives them."""
    full = {name: one.get("default") for name, one in kmip_spec().items()}
    given = None if kmip is None else {**full, **SERVER, **kmip}
    return {"devices": ["S1", "S2"], "password": None, "passwords": None, "hash": "sha1", "kmip": given, **more}


@pytest.mark.parametrize(
    "kmip,more,filed,objects",
    [
        (None, {"password": "of-all"}, ["S1", "S2"], {}),
        ({"object": "drives"}, {}, [], {"S1": "drives", "S2": "drives"}),
        ({"objects": {"S1": "drives/S1"}, "object": "drives"}, {}, [], {"S1": "drives/S1", "S2": "drives"}),
        ({"objects": {"S1": "drives/S1"}}, {"password": "of-all"}, ["S2"], {"S1": "drives/S1"}),
        ({"object": "drives"}, {"passwords": {"S1": "of-s1"}}, ["S1"], {"S2": "drives"}),
        ({"objects": {"S1": 17}, "by": "uid"}, {"passwords": {"S2": "of-s2"}}, ["S2"], {"S1": "17"}),
    ],
)
def test_where_each_drive_has_its_password(
    kmip: Params | None, more: Params, filed: list[str], objects: Params
) -> None:
    sources = check(params(kmip, **more))
    assert list(sources.filed) == filed
    assert (dict(sources.kmip.objects) if sources.kmip else {}) == objects


@pytest.mark.parametrize(
    "kmip,more,message",
    [
        ({}, {}, "kmip needs object, or objects"),
        ({"object": "drives"}, {"password": "of-all"}, "Both password and kmip.object are given"),
        ({"objects": {"S1": "a"}}, {"passwords": {"S1": "b"}}, "Both a password and an object .* for S1"),
        ({"objects": {"S1": "a"}}, {}, "No password is given for S2, and no object in kmip"),
        ({"objects": {"S3": "a"}, "object": "b"}, {}, "kmip.objects has entries for what the task is not about: S3"),
        ({"object": "a"}, {"passwords": {"S1": "b", "S2": "c"}}, "all drives have their passwords in passwords"),
        ({"object": "a"}, {"passwords": {"S9": "b"}}, "passwords has entries for what the task is not about: S9"),
        ({"object": "a"}, {"devices": ["S1", "S1"]}, "the same drive more than once"),
        ({"object": " "}, {}, "The name of a key is empty"),
        ({"object": "Ä", "by": "uid"}, {}, "is no uid"),
        ({"objects": {"S1": ["a"]}, "object": "b"}, {}, "The object of 'S1' .* is not text"),
        ({"object": "a", "wait": 601}, {}, "kmip.wait is 601"),
        ({"object": "a", "port": 0}, {}, "port is 0"),
        ({"object": "a", "private_key": "client.key"}, {}, "kmip.private_key is 'client.key'; wanted is an absolute"),
        ({"object": "a", "certificate": "/etc/../a"}, {}, "kmip.certificate is '/etc/../a'; wanted is that without"),
        ({"object": "a", "certificate": "/etc/a/"}, {}, "kmip.certificate is '/etc/a/'; wanted is that without"),
        ({"object": "a", "ca_certificate": "//a"}, {}, "kmip.ca_certificate is '//a'; wanted is that without"),
        ({"object": "a", "ca_certificate": "/a\nb"}, {}, "wanted is an absolute path"),
        (None, {"password": "a", "passwords": {"S9": "b"}}, "passwords has entries for what the task is not about: S9"),
        ({"object": "a", "private_key_passphrase": "words"}, {}, "kmip holds something else than"),
        ({"object": "a", "by": "truenas"}, {}, "kmip.by is 'truenas'; it is one of name, uid"),
        ({"objects": {"S1": "a"}}, {"passwords": {"S2": "x" * 300}}, "passwords\\['S2'\\] has 300 bytes"),
    ],
)
def test_options_that_can_not_be(kmip: Params | None, more: Params, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(params(kmip, **more))


def test_the_file_holds_no_password_that_no_drive_has_there() -> None:
    given = params({"objects": {"S1": "a", "S2": "b"}}, password="of-all")
    assert "of-all" not in json.dumps(kept(given, parse_sources(given)))
    given = params({"objects": {"S1": "a"}}, password="of-all", passwords={"S2": "of-s2"})
    assert "of-all" not in json.dumps(kept(given, parse_sources(given)))
    given = params({"objects": {"S1": "a"}}, password="of-all")
    found = kept(given, parse_sources(given))
    assert found["password"] == "of-all" and "validate" not in found["kmip"]
    # The program reads the same of it.
    assert parse_sources({**found, "passwords": None}) == parse_sources(given)


def units(given: Params) -> dict[str, list[str]]:
    """By its path, the lines of each unit that is to be there; none for one that is not to be."""
    files = {one.path: one for one in boot_files.wanted(given, "/usr/bin/python3")}
    paths = (boot_files.UNIT, boot_files.KMIP_UNIT)
    for path, link in zip(paths, (boot_files.WANTED, boot_files.KMIP_WANTED)):
        assert files[path].gone == files[link].gone and (files[link].target or path) == path
    return {path: files[path].content.decode().splitlines() for path in paths}


def test_only_what_asks_a_server_comes_after_the_network() -> None:
    found = units(params({"objects": {"S1": "a"}, "wait": 60, "timeout": 10}, password="of-all"))
    filed, asking = found[boot_files.UNIT], found[boot_files.KMIP_UNIT]
    assert not [line for line in filed if "network" in line.lower() or "kmip" in line.lower()]
    assert "RequiresMountsFor=/etc/zfs" in filed and "TimeoutStartSec=600" in filed
    # What waits until the network works may hang, so nothing is said of that.
    assert "online" not in "".join(asking)
    assert [line.split("=")[0] for line in asking if line.endswith(" network.target")] == ["After"]
    for lines in (filed, asking):
        assert "Before=zfs-import-cache.service zfs-import-scan.service zfs-import.target" in lines
    assert "ExecStart=/usr/bin/python3 -I /etc/zfs/nasops-unlock-drives.pyz --kmip" in asking
    assert "TimeoutStartSec=680" in asking, "it ends by itself before systemd ends it"


def test_a_unit_is_there_only_for_drives_that_it_is_about() -> None:
    assert list(map(bool, units(params(None, password="of-all")).values())) == [True, False]
    assert list(map(bool, units(params({"object": "drives"})).values())) == [False, True]
    assert list(map(bool, units(params({"object": "drives"}, passwords={"S1": "x"})).values())) == [True, True]


def test_what_the_files_lie_on_is_mounted_before(tmp_path: Path) -> None:
    (tmp_path / "a key").write_text("")
    (tmp_path / "100%").symlink_to(tmp_path / "a key")
    given = params({"object": "drives", "private_key": f"{tmp_path}/100%", "certificate": "/nowhere/client.crt"})
    line = next(one for one in units(given)[boot_files.KMIP_UNIT] if one.startswith("RequiresMountsFor="))
    key, there = f"{tmp_path}/100%%", f'"{tmp_path}/a key"'
    assert line == f"RequiresMountsFor=/etc/zfs /nowhere/client.crt {key} {there} /etc/nas/kmip/ca.crt"


def test_the_program_comes_before_settings_that_an_older_one_refuses() -> None:
    files = [one.path for one in boot_files.wanted(params({"object": "drives"}), "/usr/bin/python3") if not one.gone]
    assert files == [boot_files.PROGRAM, boot.SETTINGS, boot_files.KMIP_UNIT, boot_files.KMIP_WANTED]


def test_what_was_offered_is_noted_by_drive_without_the_password(tmp_path: Path) -> None:
    path = tmp_path / "refused"
    notes = Refusals(str(path))
    assert not notes.has("S1", b"raw:one")
    for drive, password in (("S1", b"raw:one"), ("S1", b"raw:two"), ("S2", b"raw:two")):
        notes.begin(drive, password)
    # The next start of the program.
    again = Refusals(str(path))
    offered = [
        (drive, one) for drive in ("S1", "S2", "S3") for one in (b"raw:one", b"raw:two") if again.has(drive, one)
    ]
    assert offered == [("S1", b"raw:one"), ("S1", b"raw:two"), ("S2", b"raw:two")]
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert not any(one in text for one in ("one", "two", b"one".hex(), b"two".hex()))
    again.end("S1", b"raw:one")
    assert not again.has("S1", b"raw:one") and again.has("S1", b"raw:two")
    notes.forget(["S2", "S3"])
    assert not again.has("S2", b"raw:two") and again.has("S1", b"raw:two")
    for broken in ("{", "[]", '{"S1": ["an object"]}', '{"salt": "xx", "drives": {}}'):
        path.write_text(broken)
        assert not again.has("S1", b"raw:two")
    Refusals(str(tmp_path / "none" / "refused")).begin("S1", b"raw:one")


def test_notes_are_of_no_use_to_who_has_those_of_another_boot(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        Refusals(str(path)).begin("S1", b"raw:one")
    assert len({json.loads(path.read_text())["drives"]["S1"][0] for path in paths}) == 2
