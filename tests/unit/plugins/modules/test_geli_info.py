# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module in this very process, on disks that are files with real GELI in them."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.modules import geli_info as module
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.core import Row, archive, database
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.nas import QUICK, SIZE, Nas, partuuid
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import SHAPES, Secret, Volume

FILE, OTHER, RECOVERY = bytes(range(64)), bytes(range(1, 65)), bytes(range(64, 128))
PASS = "geheimes wort"
BOTH = (Secret((FILE,), PASS.encode()), Secret((RECOVERY,)))


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nas:
    found = Nas(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "read_table", found.table)
    return found


def result(options: dict[str, t.Any], capsys: pytest.CaptureFixture[str]) -> dict[str, t.Any]:
    """What the module prints, in check mode and outside of it alike, without a secret."""
    results: list[dict[str, t.Any]] = []
    for check_mode in (True, False):
        with patch_module_args({**options, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            module.main()
        captured = capsys.readouterr()
        for secret in (PASS, "Traceback", base64.b64encode(FILE).decode()[:20], FILE.hex()[:20], "\\u0001\\u0002"):
            assert secret not in captured.out + captured.err
        found = json.loads(captured.out)
        found.pop("invocation", None)
        results.append(found)
    assert results[0] == results[1]
    return results[0]


def rows(options: dict[str, t.Any], capsys: pytest.CaptureFixture[str]) -> list[dict[str, t.Any]]:
    found = result(options, capsys)
    assert found["changed"] is False
    return list(found["providers"])


def key_file(folder: Path, content: bytes, name: str = "x.key") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def test_without_keys_it_only_looks(nas: Nas, capsys: pytest.CaptureFixture[str]) -> None:
    path = nas.geli(0, Volume(SIZE, SHAPES["2013"], (Secret((FILE,)),)))
    nas.add(1, bytes(SIZE))
    before = {one.name: one.read_bytes() for one in nas.folder.iterdir()}
    (row,) = rows({}, capsys)
    assert {one.name: one.read_bytes() for one in nas.folder.iterdir()} == before
    assert row == {
        "device": path,
        "names": [f"/dev/disk/by-partuuid/{partuuid(0)}"],
        "partuuid": partuuid(0),
        "disk": nas.path("sda"),
        "serial": "SERIAL-0",
        "size": SIZE,
        "state": "geli",
        "problem": None,
        "in_use_by": [],
        "version": 6,
        "algorithm": "AES-XTS",
        "key_bits": 128,
        "authentication": None,
        "sector_size": 4096,
        "provider_sector": 512,
        "decrypted_size": SIZE - 4096,
        "flags": [],
        "iterations": None,
        "slots": [0],
        "opens": None,
        "slot": None,
        "with_passphrase": None,
        "key_origin": None,
        "key_error": None,
        "content": None,
        "content_error": None,
        "pool": None,
        "pool_guid": None,
    }


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_key_file_and_passphrase(nas: Nas, capsys: pytest.CaptureFixture[str], tmp_path: Path, shape: t.Any) -> None:
    nas.geli(0, Volume(SIZE, dataclasses.replace(shape, iterations=5), BOTH))
    (row,) = rows({"keyfile": [key_file(tmp_path, FILE)], "passphrase": PASS}, capsys)
    assert (row["opens"], row["slot"], row["with_passphrase"], row["key_error"]) == (True, 0, True, None)
    assert row["key_origin"] == str(tmp_path / "x.key")
    assert (row["content"], row["pool"], row["pool_guid"]) == ('ZFS label of exported pool "tank"', "tank", "17")


def test_a_key_file_without_its_passphrase_and_a_wrong_one(
    nas: Nas, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nas.geli(0, Volume(SIZE, QUICK, BOTH))
    (row,) = rows({"keyfile": [key_file(tmp_path, FILE)]}, capsys)
    assert row["opens"] is False and row["pool"] is None
    assert "A passphrase was set once on this disk: give it too" in row["key_error"]
    (row,) = rows({"keyfile": [key_file(tmp_path, OTHER)], "passphrase": PASS}, capsys)
    assert row["opens"] is False
    assert "does not open it, alone or together with the passphrase" in row["key_error"]


def test_a_recovery_key_as_content(nas: Nas, capsys: pytest.CaptureFixture[str]) -> None:
    nas.geli(0, Volume(SIZE, QUICK, BOTH))
    (row,) = rows({"keyfile_content": base64.b64encode(RECOVERY).decode()}, capsys)
    assert (row["opens"], row["slot"], row["with_passphrase"]) == (True, 1, False)
    assert row["key_origin"] == "keyfile_content"


def test_a_disk_by_several_names_is_one_row(nas: Nas, capsys: pytest.CaptureFixture[str]) -> None:
    path = nas.geli(0, Volume(SIZE, QUICK, BOTH))
    names = [path, f"/dev/gptid/{partuuid(0).upper()}", f"/dev/disk/by-partuuid/{partuuid(0)}"]
    assert [row["device"] for row in rows({"devices": names}, capsys)] == [path]


def test_what_was_asked_for_and_is_no_geli(nas: Nas, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nas.geli(0, Volume(SIZE, QUICK, BOTH))
    image = key_file(tmp_path, Volume(SIZE, QUICK, BOTH).image(), "image")
    names = [nas.path("sda1"), "/nowhere", str(tmp_path), image]
    found = {row["device"]: row for row in rows({"devices": names, "passphrase": PASS}, capsys)}
    assert {name: row["state"] for name, row in found.items()} == {
        nas.path("sda1"): "none",
        "/nowhere": "unreadable",
        str(tmp_path): "unreadable",
        image: "geli",
    }
    assert "on FreeNAS the second one" in found[nas.path("sda1")]["problem"]
    assert "can't be examined: No such file" in found["/nowhere"]["problem"]
    assert found[nas.path("sda1")]["opens"] is None and found[image]["opens"] is False


def test_a_partition_that_has_grown(nas: Nas, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = nas.add(0, Volume(SIZE, QUICK, BOTH).image() + bytes(1 << 20))
    data = tmp_path / "data"
    (data / "geli").mkdir(parents=True)
    (data / "geli" / "k1.key").write_bytes(RECOVERY)
    database(data / "freenas-v1.db", [(f"gptid/{partuuid(number)}", "tank", 1, "k1") for number in (0, 1)])
    with patch_module_args({"config_backup": str(data)}), pytest.raises(SystemExit):
        module.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["providers"], [one["device"] for one in found["missing"]]) == ([], [path, None])
    (row,) = rows({"devices": [path]}, capsys)
    assert row["state"] == "none" and "is still where it ended before" in row["problem"]


def test_a_partition_that_begins_elsewhere(nas: Nas, capsys: pytest.CaptureFixture[str]) -> None:
    nas.add(0, Volume(SIZE // 2, QUICK, BOTH).image().rjust(SIZE, b"\0"))
    (row,) = rows({"keyfile_content": base64.b64encode(RECOVERY).decode()}, capsys)
    assert "but did not begin here" in row["problem"] and row["opens"] is True
    assert row["content"] is None and "but did not begin here" in row["content_error"]


def test_damaged_metadata(nas: Nas, capsys: pytest.CaptureFixture[str]) -> None:
    image = bytearray(Volume(SIZE, QUICK, BOTH).image())
    image[-300] ^= 1
    nas.add(0, bytes(image))
    (row,) = rows({"passphrase": PASS}, capsys)
    assert (row["state"], row["version"], row["opens"]) == ("damaged", None, None)
    assert "its checksum does not fit" in row["problem"]


def test_authentication_is_told(nas: Nas, capsys: pytest.CaptureFixture[str]) -> None:
    shape = dataclasses.replace(QUICK, flags=0x10)
    nas.add(0, Volume(SIZE, shape, BOTH, aalgo=18).image())
    (row,) = rows({"keyfile_content": base64.b64encode(RECOVERY).decode()}, capsys)
    assert (row["authentication"], row["opens"], row["content"]) == ("HMAC/SHA256", True, None)
    assert "with authentication (HMAC/SHA256), which is not read here" in row["content_error"]


KEY, GONE = "0d1c4a2e", "ffffffff"


def backup(folder: Path, rows_: list[Row], keys: dict[str, bytes]) -> str:
    content = database(folder / "source.db", rows_)
    members = {"freenas-v1.db": content, **{f"geli/{name}.key": key for name, key in keys.items()}}
    return str(archive(folder / "nas.tar", members))


def test_each_disk_finds_its_key_in_a_backup(nas: Nas, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nas.geli(0, Volume(SIZE, QUICK, (Secret((FILE,), PASS.encode()),)), "tank")
    nas.geli(1, Volume(SIZE, QUICK, (Secret((OTHER,)),)), "media")
    # The database does not know of this one, as after a replacement.
    nas.geli(2, Volume(SIZE, QUICK, (Secret((OTHER,)),)), "media")
    known: list[Row] = [
        (f"gptid/{partuuid(0)}", "tank", 2, KEY),
        (f"gptid/{partuuid(1)}", "media", 1, "a-media"),
        (f"gptid/{partuuid(7)}", "media", 1, "a-media"),
    ]
    path = backup(tmp_path, known, {KEY: FILE, "a-media": OTHER})
    found = result({"config_backup": path, "passphrase": PASS}, capsys)
    assert [(row["opens"], row["pool"], row["key_origin"], row["with_passphrase"]) for row in found["providers"]] == [
        (True, "tank", f"{KEY}.key in the backup", True),
        (True, "media", "a-media.key in the backup", False),
        (True, "media", "a-media.key in the backup", False),
    ]
    assert found["missing"] == [
        {"provider": f"gptid/{partuuid(7)}", "pool": "media", "passphrase": False, "device": None}
    ]


def test_a_backup_names_the_pool_of_what_does_not_open(
    nas: Nas, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nas.geli(0, Volume(SIZE, QUICK, (Secret((FILE,), PASS.encode()),)))
    path = backup(tmp_path, [(f"gptid/{partuuid(0)}", "tank", 2, KEY)], {KEY: FILE, GONE: OTHER})
    (row,) = rows({"config_backup": path}, capsys)
    assert (row["opens"], row["pool"], row["pool_guid"]) == (False, "tank", "174")
    assert row["key_error"].startswith("None of 2 keys opens it alone.")


def test_who_uses_it(nas: Nas, capsys: pytest.CaptureFixture[str]) -> None:
    nas.add(0, Volume(SIZE, QUICK, BOTH).image(), holders=("dm-3",))
    assert rows({}, capsys)[0]["in_use_by"] == ["dm-3"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"keyfile": ["x.key"]}, "wanted is an absolute path on the host"),
        ({"keyfile": ["/nowhere/x.key"]}, "The key file /nowhere/x.key can't be read: No such file"),
        ({"keyfile": ["/dev/null"]}, "is no regular file"),
        ({"keyfile": ["/x"], "keyfile_content": "eA=="}, "are both given"),
        ({"keyfile_content": PASS}, "keyfile_content is not base64"),
        ({"keyfile_content": ""}, "keyfile_content is empty"),
        ({"passphrase": ""}, "passphrase is empty"),
        ({"passphrase": f"{PASS}\n"}, "holds a line break"),
        ({"config_backup": "/nowhere.tar"}, "The backup /nowhere.tar can't be read"),
    ],
)
def test_options_that_can_not_be(
    options: dict[str, t.Any], message: str, nas: Nas, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result(options, capsys)
    assert found["failed"] is True and message in found["msg"]


def test_an_empty_key_file(nas: Nas, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "is empty" in result({"keyfile": [key_file(tmp_path, b"")]}, capsys)["msg"]


def test_another_user_than_root(nas: Nas, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "This module runs as user 1000" in result({}, capsys)["msg"]
