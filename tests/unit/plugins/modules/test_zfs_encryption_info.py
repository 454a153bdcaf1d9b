# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module in this very process, on a host that is only described."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.entry import Module
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keys import RootKey
from ansible_collections.nasops.encryption.plugins.modules import zfs_encryption_info as module

HEX, OTHER = "0a" * 32, "0b" * 32
SECRET = "geheimes wort!"


class Host:
    """A pool with two locked roots, of which one uses a passphrase, and what was asked of it."""

    DATASETS: t.ClassVar[dict[str, dict[str, str]]] = {
        "tank": {"type": "filesystem", "encryption": "off", "mounted": "yes", "mountpoint": "/tank"},
        "tank/auto": {"keyformat": "hex", "keylocation": "file:///etc/zfs/keys/tank%2Fauto.key"},
        "tank/pass": {"keyformat": "passphrase", "pbkdf2iters": "350000", "pbkdf2salt": "17", "keylocation": "prompt"},
    }
    LOCKED: t.ClassVar[dict[str, str]] = {
        "type": "filesystem",
        "encryption": "aes-256-gcm",
        "keystatus": "unavailable",
        "mounted": "no",
        "mountpoint": "none",
        "canmount": "on",
    }

    def __init__(self, fits: dict[str, str]) -> None:
        self.fits = fits
        self.commands: list[tuple[str, ...]] = []
        self.tried: list[str] = []
        self.health = {"tank": "ONLINE"}

    def runner(self, _mask: Mask) -> Host:
        return self

    def engine(self, _runner: object) -> Host:
        return self

    def try_all(self, wanted: t.Sequence[RootKey]) -> list[bool]:
        self.tried += [one.root for one in wanted]
        return [self.fits.get(one.root) == one.key.material.decode("utf-8") for one in wanted]

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command.argv)
        if command.argv[0] == "df":
            text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 1 1 1 1% /\n"
            return Result(command.argv, 0, text, "")
        if command.argv[0] == "zpool":
            facts = {name: {"guid": "1", "health": health} for name, health in self.health.items()}
            lines = [
                f"{name}\t{word}\t-\t{values.get(word, '-')}\n"
                for name, values in facts.items()
                for word in command.argv[-1].split(",")
            ]
            return Result(command.argv, 0, "".join(lines), "")
        words = list(command.argv[command.argv.index("name,property,source,value") + 1 :])
        recursive = "-r" in words
        if recursive:
            words.remove("-r")
        properties, *names = words
        shown = names or ["tank"]
        if recursive:
            shown = [one for one in self.DATASETS if any(f"{one}/".startswith(f"{top}/") for top in shown)]
        lines = [self.line(name, word) for name in shown for word in properties.split(",")]
        return Result(command.argv, 0, "".join(lines), "")

    def line(self, name: str, word: str) -> str:
        values = (
            self.DATASETS[name] if name == "tank" else {**self.LOCKED, "encryptionroot": name, **self.DATASETS[name]}
        )
        return f"{name}\t{word}\t-\t{values.get(word, '-')}\n"

    def has(self, program: str) -> bool:
        return True


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host({"tank/auto": HEX, "tank/pass": SECRET})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "HostRunner", found.runner)
    monkeypatch.setattr(module, "engine", found.engine)
    return found


def result(options: dict[str, t.Any], capsys: pytest.CaptureFixture[str], *secrets: str) -> dict[str, t.Any]:
    """What the module prints, in check mode and outside of it alike."""
    results: list[dict[str, t.Any]] = []
    for check_mode in (True, False):
        with patch_module_args({**options, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            module.main()
        captured = capsys.readouterr()
        for secret in (*secrets, "Traceback"):
            assert secret not in captured.out + captured.err
        found = json.loads(captured.out)
        found.pop("invocation", None)
        results.append(found)
    assert results[0] == results[1]
    assert results[0]["changed" if "roots" in results[0] else "failed"] is ("roots" not in results[0])
    return results[0]


def rows(found: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    return {row["name"]: row for row in found["roots"]}


def test_without_keys_it_only_looks(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(result({}, capsys))
    assert [row["valid_key"] for row in found.values()] == [None, None]
    assert [row["unlock_successful"] for row in found.values()] == [None, None]
    assert [row["iterations_below_policy"] for row in found.values()] == [False, True]
    # once in check mode, once outside of it
    assert [argv[:2] for argv in host.commands] == [("zpool", "get"), ("zfs", "get")] * 2
    assert not any("pbkdf2salt" in word for argv in host.commands for word in argv)
    assert host.tried == []


def test_keys_are_tried_and_no_secret_is_returned(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"keys": {"tank/auto": OTHER, "tank/pass": {"value": SECRET}}, "minimum_iterations": 350_000}
    found = rows(result(options, capsys, OTHER, SECRET))
    assert [(row["valid_key"], row["unlock_error"]) for row in found.values()] == [
        (False, "Provided key is invalid"),
        (True, None),
    ]
    assert found["tank/pass"]["iterations_below_policy"] is False


def test_a_path_and_the_word_auto_are_no_secrets(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"keys": {"tank/auto": {"file": "auto", "recursive": "yes"}, "tank/pass": {"file": "/nowhere/pass.key"}}}
    found = rows(result(options, capsys, "****"))
    assert list(found) == ["tank/auto", "tank/pass"]
    assert found["tank/auto"]["key_location"] == "file:///etc/zfs/keys/tank%2Fauto.key"
    assert found["tank/pass"]["key_error"] == "The key file /nowhere/pass.key does not exist."


def test_a_manifest_on_the_host_is_overlaid_by_the_option_and_that_by_keys(
    host: Host, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"tank/auto": HEX, "tank/pass": "from the file"}))
    options = {"manifest_file": str(path), "manifest": json.dumps({"tank/pass": SECRET})}
    found = rows(result(options, capsys, HEX, SECRET, "from the file"))
    assert [row["valid_key"] for row in found.values()] == [True, True]
    found = rows(result({**options, "keys": {"tank/pass": "something else"}}, capsys, "something else"))
    assert (found["tank/pass"]["valid_key"], found["tank/pass"]["key_origin"]) == (False, "keys['tank/pass']")


def test_what_lies_above_is_read_when_keys_are_tried(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(result({"name": "tank/auto", "manifest": {"tank/auto": HEX}}, capsys))["tank/auto"]["unlock_successful"]
    assert [argv[-1] for argv in host.commands[1:3]] == ["tank/auto", "tank"]


@pytest.mark.parametrize("zoned", ["on", "off"])
def test_what_belongs_to_a_jail_is_mounted_there(
    host: Host, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zoned: str
) -> None:
    (tmp_path / "mine").touch()
    facts = {**host.DATASETS["tank/auto"], "mountpoint": str(tmp_path), "zoned": zoned}
    monkeypatch.setattr(host, "DATASETS", {**host.DATASETS, "tank/auto": facts}, raising=False)
    found = rows(result({"name": "tank/auto", "manifest": {"tank/auto": HEX}}, capsys))
    assert found["tank/auto"]["unlock_successful"] is (zoned == "on")


def test_key_files_are_tried_alone(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(result({"try_key_files": True}, capsys))
    assert found["tank/auto"]["unlock_error"] == "Key not provided"
    assert found["tank/auto"]["key_error"] == "The key file /etc/zfs/keys/tank%2Fauto.key does not exist."
    assert host.tried == []


def test_keys_that_are_of_no_use_are_told(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"name": "tank", "keys": {"tank": HEX, "tank/gone": HEX, "other/x": HEX, "tank/auto": HEX}}
    assert result(options, capsys)["unused_keys"] == [
        {"name": "tank", "reason": "is not encrypted"},
        {"name": "tank/gone", "reason": "does not exist"},
    ]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"manifest": f"{{'tank': '{SECRET}'}}"}, "The manifest is not JSON"),
        ({"manifest": {"tank": {"key": SECRET}}}, "The entry 'tank' of the manifest is an object"),
        ({"manifest": f'{{"tank": "{SECRET}", "tank": "{SECRET}"}}'}, "The manifest holds 'tank' twice"),
        ({"manifest": f'["{SECRET}"]'}, "The manifest is a list; wanted is an object"),
        ({"manifest": [{}, SECRET]}, "The manifest 2 of 2 is not JSON"),
        ({"manifest_file": "/nowhere/keys.json"}, "The manifest /nowhere/keys.json does not exist on this host"),
        ({"manifest_file": "keys.json"}, "wanted is an absolute path"),
        ({"keys": {SECRET: "tank"}}, "Entry 1 of keys does not begin with the name of a dataset"),
        ({"keys": {"tank": {"value": SECRET, "file": "/k"}}}, "keys['tank'] has a value and a file"),
        ({"keys": {"tank": {"key": SECRET}}}, "keys['tank'] has words that mean nothing"),
    ],
)
def test_options_that_can_not_be(
    options: dict[str, t.Any], message: str, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in result(options, capsys, SECRET)["msg"]
    assert host.commands == []


def test_a_pool_that_is_suspended_does_not_hold_up_others(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Module, "warn", lambda _self, text: said.append(text))
    host.health["stuck"] = "SUSPENDED"
    options = {"keys": {"tank/auto": HEX, "stuck/a": HEX, "tank/gone": HEX}}
    found = result(options, capsys)
    assert list(rows(found)) == ["tank/auto", "tank/pass"]
    assert found["unused_keys"] == [{"name": "tank/gone", "reason": "does not exist"}]
    assert "Pool 'stuck' is SUSPENDED: its datasets can't be read." in said[0]
    assert "zpool clear stuck" in said[0]
    assert all(argv[-1] == "tank" for argv in host.commands if argv[0] == "zfs")


@pytest.mark.parametrize("name", ["stuck", "stuck/a"])
def test_a_pool_that_is_suspended_is_not_asked(host: Host, capsys: pytest.CaptureFixture[str], name: str) -> None:
    host.health["stuck"] = "SUSPENDED"
    assert "Pool 'stuck' is SUSPENDED" in result({"name": name}, capsys)["msg"]
    assert {argv[0] for argv in host.commands} == {"zpool"}


def test_nothing_is_asked_where_no_pool_answers(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.health = {"tank": "SUSPENDED"}
    assert result({}, capsys)["roots"] == []
    assert {argv[0] for argv in host.commands} == {"zpool"}


@pytest.mark.parametrize("passphrase,warns", [("pass", True), ("tank/auto", True), ("password", False)])
def test_a_key_that_is_a_part_of_a_name_is_warned_of(
    passphrase: str, warns: bool, host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Module, "warn", lambda _self, text: said.append(text))
    result({"keys": {"tank/pass": passphrase}}, capsys)
    # once in check mode, once outside of it
    assert ["is a part of the name of a dataset" in text for text in said] == ([True] * 2 if warns else [])
