# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module in this very process, on a host that is only described. Only openssl is real."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, HostRunner, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_manifest import digest, fingerprint
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keys import RootKey
from ansible_collections.nasops.encryption.plugins.modules import zfs_key_manifest as module
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sealing.people import openssl_opens, person

HEX, RAW, OTHER = "a1b2c3d4" * 8, "0f1e2d3c" * 8, "5566ddee" * 8


class Host:
    """A pool with three roots, of which one has a passphrase, and a child that uses the key of the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fits: dict[str, bytes] = {"tank": HEX.encode(), "tank/raw": bytes.fromhex(RAW)}
        self.fault: StorageError | None = None
        self.commands: list[Command] = []
        self.keys = self
        self.health = {"tank": "ONLINE"}
        (folder / "tank.key").write_text(HEX.upper() + "\n")
        (folder / "raw.key").write_bytes(bytes.fromhex(RAW))
        shared = {"type": "filesystem", "encryption": "aes-256-gcm", "keystatus": "unavailable"}
        self.datasets = {
            "tank": {
                **shared,
                "encryptionroot": "tank",
                "keyformat": "hex",
                "keylocation": f"file://{folder}/tank.key",
            },
            "tank/child": {**shared, "encryptionroot": "tank", "keyformat": "hex", "keylocation": "none"},
            "tank/pass": {**shared, "encryptionroot": "tank/pass", "keyformat": "passphrase", "keylocation": "prompt"},
            "tank/raw": {
                **shared,
                "encryptionroot": "tank/raw",
                "keyformat": "raw",
                "keylocation": f"file://{folder}/raw.key",
            },
        }

    def runner(self, mask: Mask) -> Host:
        self.real = HostRunner(mask)
        return self

    def has(self, program: str) -> bool:
        return program == "openssl"

    def try_all(self, wanted: t.Sequence[RootKey]) -> list[bool | StorageError]:
        return [self.fault or self.fits.get(one.root) == one.key.material.lower() for one in wanted]

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command)
        if command.argv[0] in ("openssl", "df"):
            return self.real.run(command, ok)
        if command.argv[0] == "zpool":
            lines = [
                f"{pool}\tguid\t-\t42\n{pool}\thealth\t-\t{health}\n{pool}\taltroot\t-\t-\n"
                for pool, health in self.health.items()
            ]
            return Result(command.argv, 0, "".join(lines), "")
        rest = list(command.argv[command.argv.index("name,property,source,value") + 1 :])
        recursive = rest[0] == "-r"
        properties, *tops = rest[recursive:]
        tops = tops or ["tank"]
        names = [
            name
            for name in self.datasets
            if any(name == top or recursive and f"{name}/".startswith(top) for top in tops)
        ]
        lines = [
            f"{name}\t{word}\t-\t{self.datasets[name].get(word, '-')}\n"
            for name in names
            for word in properties.split(",")
        ]
        return Result(command.argv, 0, "".join(lines), "")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "ZfsRunner", found.runner)
    return found


def result(capsys: pytest.CaptureFixture[str], check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    """What the module prints. No key is in it."""
    given = {"dest": "/nowhere", "seal_to": [person("p256").certificate], **options, "_ansible_check_mode": check}
    with patch_module_args(given), pytest.raises(SystemExit):
        module.main()
    captured = capsys.readouterr()
    for secret in (HEX, HEX.upper(), RAW, OTHER, "Traceback"):
        assert secret not in captured.out + captured.err
    found: dict[str, t.Any] = json.loads(captured.out)
    found.pop("invocation", None)
    return found


def test_the_host_seals_what_was_proven(host: Host, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = result(capsys)
    assert found["changed"] is False
    plain = openssl_opens(found.pop("sealed"), person("p256").private_key, tmp_path)
    assert json.loads(plain) == {"tank": HEX, "tank/raw": RAW}
    fingerprints = {"tank": fingerprint("42", "tank", HEX), "tank/raw": fingerprint("42", "tank/raw", RAW)}
    assert {row["name"]: row["fingerprint"] for row in found["exported"]} == fingerprints
    assert found["digest"] == digest(fingerprints)
    host.commands.clear()
    assert found == result(capsys, check=True)
    assert not any("-encrypt" in command.argv for command in host.commands)


def test_one_dataset_below_its_root(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, name="tank/child", recursive=False)
    assert [row["dataset"] for row in found["exported"]] == ["tank"]


def test_an_error_of_the_disks_is_no_wrong_key(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.fault = StorageError("I/O error.")
    found = result(capsys)
    assert "could not be found out: I/O error." in found["failed_datasets"]["tank"]["error"]
    assert found["failed"] is True
    assert "sealed" not in found


def test_nothing_proven_is_no_partial_backup(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.fits.clear()
    found = result(capsys, partial=True, keys={"tank": OTHER})
    assert found["failed"] is True
    assert "Nothing was backed up." in found["msg"]
    assert found["exported"] == []


class TestPoolThatIsSuspended:
    @pytest.fixture(autouse=True)
    def suspended(self, host: Host) -> None:
        host.health["stuck"] = "SUSPENDED"

    def test_it_is_a_key_that_is_not_found(self, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
        found = result(capsys)
        assert "stuck: Pool 'stuck' is SUSPENDED: its datasets can't be read. Bring its devices back" in found["msg"]
        assert list(found["failed_datasets"]) == ["stuck"]
        assert [row["name"] for row in found["exported"]] == ["tank", "tank/raw"]
        assert all("tank" in command.argv for command in host.commands if command.argv[0] == "zfs")

    def test_the_others_can_be_backed_up(self, host: Host, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        remap = {"stuck": "backup/stuck", "tank": "backup/tank"}
        found = result(capsys, partial=True, keys={"stuck/a": HEX}, remap=remap)
        assert "Pool 'stuck' is SUSPENDED" in str(found["warnings"])
        assert [row["name"] for row in found["exported"]] == ["backup/tank", "backup/tank/raw"]
        assert found["unused_keys"] == []
        assert "sealed" in found


def test_a_key_file_that_fits_counts_before_an_old_manifest(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, manifest={"tank": OTHER, "tank/raw": OTHER})
    assert [row["origin"] for row in found["exported"]] == [str(host.folder / "tank.key"), str(host.folder / "raw.key")]


def test_a_key_that_an_interrupted_rotation_left_beside_its_file(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    (host.folder / "tank.key").write_text(OTHER + "\n")
    (host.folder / "tank.key.new").write_text(HEX + "\n")
    found = result(capsys)
    assert [row["origin"] for row in found["exported"]] == [
        str(host.folder / "tank.key.new"),
        str(host.folder / "raw.key"),
    ]


def test_the_fingerprint_of_a_key() -> None:
    """It changes with the key, the dataset and the pool, not with how the digits are written."""
    one = fingerprint("42", "tank", HEX)
    assert one == fingerprint("42", "tank", HEX.upper())
    others = {fingerprint("43", "tank", HEX), fingerprint("42", "tonk", HEX), fingerprint("42", "tank", RAW)}
    assert len({one, *others}) == 4
    assert len(one) == 32


@pytest.mark.parametrize(
    "options",
    [{"keys": {"tank/pass": "pass"}}, {"manifest": {"tank/pass": "tank/raw"}}, {"keys": {"tank/pass": "offsite"}}],
)
def test_a_key_that_is_a_part_of_a_name_would_spoil_the_record(
    options: dict[str, t.Any], host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result(capsys, remap={"tank": ["tank", "offsite-1/nas"]}, **options)
    assert found["failed"] is True
    assert "nothing was backed up" in found["msg"]
    assert not any("-encrypt" in command.argv for command in host.commands)


def test_a_key_that_is_a_part_of_no_root_is_no_obstacle(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sealed" in result(capsys, keys={"tank/pass": "child"})
