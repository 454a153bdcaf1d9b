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
from ansible_collections.nasops.encryption.plugins.module_utils.sed import boot_files
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
        ({"object": "a", "private_key_passphrase": "words"}, {}, "kmip holds something else than"),
        ({"object": "a", "by": "truenas"}, {}, "kmip.by is 'truenas'; it is one of name, uid"),
        ({"objects": {"S1": "a"}}, {"passwords": {"S2": "x" * 300}}, "passwords\\['S2'\\] has 300 bytes"),
    ],
)
def test_options_that_can_not_be(kmip: Params, more: Params, message: str) -> None:
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


def unit(given: Params) -> list[str]:
    content = next(one.content for one in boot_files.wanted(given, "/usr/bin/python3") if one.path == boot_files.UNIT)
    return content.decode().splitlines()


def test_only_a_host_that_asks_a_server_waits_for_the_network() -> None:
    plain = unit(params(None, password="of-all"))
    assert not [line for line in plain if "network" in line]
    assert "RequiresMountsFor=/etc/zfs" in plain and "TimeoutStartSec=600" in plain
    asking = unit(params({"object": "drives", "private_key": "/srv/100% mine/a key", "wait": 60, "timeout": 10}))
    assert [line.split("=")[0] for line in asking if line.endswith(" network-online.target")] == ["Wants", "After"]
    assert "Before=zfs-import-cache.service zfs-import-scan.service zfs-import.target" in asking
    mounts = '/etc/zfs /etc/nas/kmip/client.crt "/srv/100%% mine/a key" /etc/nas/kmip/ca.crt'
    assert f"RequiresMountsFor={mounts}" in asking
    assert "TimeoutStartSec=700" in asking, "it ends by itself before systemd ends it"


def test_what_was_refused_is_noted_by_drive_and_object(tmp_path: Path) -> None:
    path = tmp_path / "refused"
    notes = Refusals(str(path))
    assert not notes.has("S1", "object '4'")
    notes.add("S1", "object '4'")
    notes.add("S2", "object '5'")
    again = Refusals(str(path))
    assert again.has("S1", "object '4'") and again.has("S2", "object '5'")
    assert not again.has("S1", "object '5'") and not again.has("S3", "object '4'")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    assert not again.has("S1", "object '4'")
    Refusals(str(tmp_path / "none" / "refused")).add("S1", "object '4'")
