# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules in this very process, with input that can't be right: a clear message, no traceback, nothing started."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.module_utils.misplaced import misplaced
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_options import argument_spec
from ansible_collections.nasops.encryption.plugins.modules import (
    geli_migrate,
    kmip_key,
    sed_lock,
    zfs_dataset_key,
    zfs_encrypted_pool,
    zfs_encryption_info,
    zfs_key_manifest,
    zfs_replicate,
)

HEX = "0f" * 32
SECRET = "geheimes wort"


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that refuses its input has no reason to start anything."""

    def refuse(*_arguments: object, **_more: object) -> t.NoReturn:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def fails(
    main: t.Callable[[], None], options: t.Mapping[str, t.Any], capsys: pytest.CaptureFixture[str]
) -> dict[str, t.Any]:
    """The result of a module that has to fail, in check mode and outside of it alike."""
    results: list[dict[str, t.Any]] = []
    for check_mode in (True, False):
        with patch_module_args({**options, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code not in (0, None)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        assert SECRET not in captured.out + captured.err
        results.append(json.loads(captured.out))
    assert results[0]["msg"] == results[1]["msg"]
    assert results[0]["failed"] is True
    assert not results[0].get("changed")
    return results[0]


CASES: list[tuple[dict[str, t.Any], str]] = [
    ({}, "Neither 'name' nor 'pools' is set"),
    ({"name": "1tank"}, "'1tank' is no name for a pool. It begins with a letter"),
    (
        {"name": "tank", "key": {"value": HEX + "\n"}},
        "it has blanks or line breaks around the digits. In YAML write '|-'",
    ),
    ({"name": "tank", "key": {"value": HEX + " "}}, "it has blanks or line breaks around the digits"),
    ({"name": "tank", "key": {"value": HEX[1:]}}, "it has 63 characters, wanted are 64 hexadecimal digits"),
    ({"name": "tank", "key": {"format": "passphrase", "value": "seven77"}}, "holds 7 bytes; a passphrase has 8 to 512"),
    (
        {"name": "tank", "key": {"format": "passphrase", "value": SECRET * 40}},
        "holds 520 bytes; a passphrase has 8 to 512",
    ),
    (
        {"name": "tank", "key": {"format": "passphrase", "value": f"{SECRET}\n"}},
        "a line break or another control character",
    ),
    ({"name": "tank", "key": {"format": "passphrase", "value": f"{SECRET} "}}, "begins or ends with a blank"),
    (
        {"name": "tank", "key": {"format": "passphrase", "value": SECRET, "iterations": 99_999}},
        "key.iterations is 99999; OpenZFS accepts 100000 or more",
    ),
    ({"name": "tank", "key": {"format": "raw", "value": SECRET}}, "key.value is not base64"),
    ({"name": "tank", "key": {"format": "hex"}}, "The key of 'tank' has neither a value nor a file"),
    ({"name": "tank", "key": {"generate": True}}, "key.file is missing, so it would exist nowhere"),
    ({"name": "tank", "cipher": False, "key": {"value": HEX}}, "cipher is off, but a key is given"),
    (
        {"name": "tank", "vdevs": [{"type": "raidz2", "disks": ["/dev/a", "/dev/b"]}]},
        "A raidz2 needs at least 3 disks; 2 are named",
    ),
    ({"name": "tank", "filesystem_properties": {"encryption": "on"}}, "filesystem_properties holds encryption"),
    ({"pools": [{"name": "tank"}, {"name": "tank"}]}, "names the same pool more than once: tank"),
]


@pytest.mark.parametrize("options,message", CASES)
def test_a_pool_that_can_not_be(options: dict[str, t.Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in fails(zfs_encrypted_pool.main, options, capsys)["msg"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"name": "tank", "cipher": "rot13"}, "value of cipher must be one of"),
        ({"name": "tank", "vdevs": [{"type": "raidz9", "disks": ["/a"]}]}, "value of type must be one of"),
        ({"name": "tank", "vdevs": [{"type": "mirror"}]}, "missing required arguments: disks"),
        ({"name": "tank", "ashift": 20}, "value of ashift must be one of"),
        ({"name": "tank", "key": {"val": SECRET}}, "key holds 'val', but its options are file, format, generate"),
        ({"name": "tank", "key": {"passphrase": SECRET}}, "key holds a name of 10 characters, but its"),
        ({"pools": [{}]}, "missing required arguments: name"),
        ({"name": "tank", "diskz": []}, "Unsupported parameters"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, t.Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with patch_module_args(options), pytest.raises(SystemExit):
        zfs_encrypted_pool.main()
    assert message in json.loads(capsys.readouterr().out)["msg"]


# Base64 ends in "=", where Ansible splits a text that it would like to be a mapping.
BASE64 = "c29tZSBzZWNyZXQgb2YgMzIgYnl0ZXMgaW4gYmFzZTY="
# A passphrase of digits, without quotes in YAML.
NUMBER = 4711081519
POOL: dict[str, t.Any] = {"name": "tank"}
REPLICA: dict[str, t.Any] = {"source": "tank", "target": "backup/tank"}

# Options that hold a secret, each with the module and a function that puts something in its place.
Place = tuple[str, t.Callable[[], None], t.Callable[[t.Any], dict[str, t.Any]]]
PLACES: list[Place] = [
    ("key", zfs_encrypted_pool.main, lambda given: {**POOL, "key": given}),
    ("pools[1].key", zfs_encrypted_pool.main, lambda given: {"pools": [POOL, {**POOL, "key": given}]}),
    ("key", zfs_dataset_key.main, lambda given: {**POOL, "key": given}),
    ("keys", zfs_dataset_key.main, lambda given: {**POOL, "keys": given}),
    ("datasets[0].key", zfs_dataset_key.main, lambda given: {"datasets": [{**POOL, "key": given}]}),
    ("keys", zfs_encryption_info.main, lambda given: {**POOL, "keys": given}),
    ("keys", zfs_key_manifest.main, lambda given: {"dest": "/x", "keys": given}),
    ("key", zfs_replicate.main, lambda given: {**REPLICA, "key": given}),
    ("proof_key", geli_migrate.main, lambda given: {**REPLICA, "proof_key": given}),
    ("keys", kmip_key.main, lambda given: {"keys": given}),
    ("passwords", sed_lock.main, lambda given: {"passwords": given}),
]


@pytest.mark.parametrize("secret", [BASE64, SECRET, f"{SECRET}, {SECRET}=x", HEX, f"{{{SECRET}", f"geheimes={SECRET}"])
@pytest.mark.parametrize(
    "wrap", [str, lambda secret: [secret], lambda secret: [[secret]]], ids=["text", "list", "lists"]
)
@pytest.mark.parametrize(
    "place", PLACES, ids=[f"{main.__module__.rsplit('.', 1)[1]} {name}" for name, main, _options in PLACES]
)
def test_a_secret_in_place_of_a_mapping_is_not_shown(
    place: Place,
    wrap: t.Callable[[str], t.Any],
    secret: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, main, put = place
    with patch_module_args({**put(wrap(secret)), "_ansible_inject_invocation": True}), pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    for text in (secret, secret.split("=")[0], SECRET):
        assert text not in out
    message = json.loads(out)["msg"]
    assert message.startswith(f"{name} is no mapping. What was given is not shown, since it may be a secret.")


@pytest.mark.parametrize(
    "given", [{SECRET: "x"}, {"valeu": SECRET}, {"valeu": {"a": [SECRET]}}, {"value": SECRET, BASE64: 1}]
)
@pytest.mark.parametrize("place", [place for place in PLACES if place[0].endswith("key")])
def test_a_secret_in_an_option_that_does_not_exist_is_not_shown(
    place: Place,
    given: dict[str, t.Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, main, put = place
    with patch_module_args({**put(given), "_ansible_inject_invocation": True}), pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    assert SECRET not in out
    assert BASE64 not in out
    assert json.loads(out)["msg"].startswith(f"{name} holds ")


@pytest.mark.parametrize(
    "options",
    [
        {"name": "tank", "kye": {"value": SECRET}},
        {"name": "tank", "kye": {"value": [NUMBER, {"a": NUMBER}]}},
        {"name": "tank", "kye": NUMBER},
        {"pools": [{"name": "tank", "keys": [SECRET]}]},
        {"name": "tank", "vdevs": [{"disks": ["/a"], "key": {"value": SECRET}}]},
    ],
)
def test_a_secret_in_a_misspelled_option_is_not_shown(
    options: dict[str, t.Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with patch_module_args({**options, "_ansible_inject_invocation": True}), pytest.raises(SystemExit):
        zfs_encrypted_pool.main()
    result = json.loads(capsys.readouterr().out)
    assert "Unsupported parameters" in result["msg"]
    assert SECRET not in json.dumps(result)
    assert str(NUMBER) not in json.dumps(result)
    assert "module_args" in result["invocation"]


# Not the options themselves, but what they stand in, or what stands beside them.
AROUND: list[tuple[t.Callable[[], None], dict[str, t.Any], str]] = [
    (zfs_encrypted_pool.main, {"pools": SECRET}, "pools[0] is no mapping"),
    (zfs_encrypted_pool.main, {"pools": [SECRET]}, "pools[0] is no mapping"),
    (zfs_encrypted_pool.main, {"pools": [POOL, f"{SECRET}=x"]}, "pools[1] is no mapping"),
    (zfs_encrypted_pool.main, {"pools": json.dumps({**POOL, "key": {"value": SECRET}})}, "pools[0] is no mapping"),
    (zfs_encrypted_pool.main, {"pools": [{**POOL, "vdevs": SECRET}]}, "pools[0].vdevs[0] is no mapping"),
    (zfs_encrypted_pool.main, {**POOL, "vdevs": [{"disks": ["/a"]}, SECRET]}, "vdevs[1] is no mapping"),
    (zfs_encrypted_pool.main, {**POOL, "vdevs": [{BASE64: SECRET}]}, "vdevs[0] holds a name of 44 characters, but"),
    (zfs_dataset_key.main, {"datasets": [SECRET]}, "datasets[0] is no mapping"),
    (zfs_dataset_key.main, {"datasets": f"tank/a, {SECRET}"}, "datasets[0] is no mapping; datasets[1] is no mapping"),
    (zfs_encrypted_pool.main, {**POOL, "key": {"format": SECRET}}, "key.format is none of hex, raw, passphrase."),
    (zfs_encrypted_pool.main, {**POOL, "key": {"generate": SECRET}}, "key.generate is neither yes nor no."),
    (zfs_encrypted_pool.main, {**POOL, "key": {"iterations": SECRET}}, "key.iterations is no whole number."),
    (zfs_encrypted_pool.main, {**POOL, "key": f"format={BASE64}"}, "key.format is none of hex, raw, passphrase."),
    (zfs_dataset_key.main, {"datasets": [{**POOL, "key": {"format": [SECRET]}}]}, "datasets[0].key.format is none of"),
    (kmip_key.main, {"name": "a", "format": SECRET}, "format is none of hex, raw, passphrase."),
    (kmip_key.main, {"name": "a", "generate": SECRET}, "generate is neither yes nor no."),
]


@pytest.mark.parametrize(("main", "options", "message"), AROUND)
def test_a_secret_around_its_option_is_not_shown(
    main: t.Callable[[], None], options: dict[str, t.Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch_module_args({**options, "_ansible_inject_invocation": True}), pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    assert SECRET not in out
    assert BASE64.rstrip("=") not in out
    assert json.loads(out)["msg"].startswith(message)


@pytest.mark.parametrize(
    ("main", "options", "hint"),
    [
        (zfs_encrypted_pool.main, {**POOL, "key": SECRET}, "'key: {value: ...}'."),
        (zfs_encrypted_pool.main, {"pools": SECRET}, "'pools: [{name: ...}]'."),
        (zfs_encrypted_pool.main, {**POOL, "vdevs": SECRET}, "'vdevs: [{disks: ...}]'."),
        (zfs_dataset_key.main, {**POOL, "keys": f"tank={HEX}"}, "'keys: {NAME: ...}', or the same as JSON."),
        (sed_lock.main, {"passwords": SECRET}, "'passwords: {NAME: ...}', or the same as JSON."),
        (geli_migrate.main, {**REPLICA, "proof_key": SECRET}, "'proof_key: {value: ...}'."),
    ],
)
def test_how_to_write_it_is_told_of_the_option_concerned(
    main: t.Callable[[], None], options: dict[str, t.Any], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with patch_module_args(options), pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["msg"].endswith(f"since it may be a secret. Write for example {hint}")


@pytest.mark.parametrize(
    "key", [{"value": HEX}, f"value={HEX}", json.dumps({"value": HEX}), f"format=hex, value={HEX}", None]
)
def test_a_mapping_of_known_options_may_be_written_in_each_way_of_ansible(key: t.Any) -> None:
    params = {"key": key, "datasets": [{"name": "tank/a", "key": key}]}
    assert list(misplaced(argument_spec(), params)) == []


@pytest.mark.parametrize("keys", [{"tank": HEX}, json.dumps({"tank": HEX}), None])
def test_a_mapping_of_any_names_is_one_or_json(keys: t.Any) -> None:
    assert list(misplaced(argument_spec(), {"keys": keys})) == []
    # Base64 is as likely.
    assert [one.problem for one in misplaced(argument_spec(), {"keys": f"tank={HEX}"})] == ["keys is no mapping"]


def test_a_misspelled_option_is_left_to_ansible(capsys: pytest.CaptureFixture[str]) -> None:
    with patch_module_args({"pools": [{"name": "tank", "propertys": {}}]}), pytest.raises(SystemExit):
        zfs_encrypted_pool.main()
    assert "Unsupported parameters for (basic.py) module: pools.propertys" in json.loads(capsys.readouterr().out)["msg"]


@pytest.mark.parametrize("name", ["tank@snap", "tank#mark", "tank//a", "1tank", "tank/ü", ""])
def test_a_dataset_that_can_not_be(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert f"'{name}'" in fails(zfs_encryption_info.main, {"name": name}, capsys)["msg"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({}, "seal_to is empty; wanted is at least one certificate"),
        ({"seal_to": ["recovery.pem"]}, "seal_to[0] holds 0 certificates in PEM"),
        ({"name": "tank@snap"}, "names a snapshot or bookmark"),
        ({"remap": {"tank": "1st"}}, "'1st' is no name for a pool"),
        ({"remap": {"tank": [{SECRET: SECRET}]}}, "remap holds something that is no text"),
        ({"remap": {"tank": []}}, "remap has no new name for 'tank'"),
        ({"manifest": SECRET}, "The manifest is not JSON"),
        ({"manifest": {"tank": 17}}, "is a number; the text of a key is wanted"),
        ({"keys": {HEX: "x"}}, "Entry 1 of keys does not begin with the name of a dataset"),
    ],
)
def test_a_backup_that_can_not_be(
    options: dict[str, t.Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert message in fails(zfs_key_manifest.main, {"dest": "/x", **options}, capsys)["msg"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"target": "backup"}, "The target 'backup' is the root of a pool"),
        ({"key": {"value": HEX}}, "a raw replica is opened by the key of its source"),
        ({"mode": "reencrypt", "key": {"format": "passphrase", "value": f"{SECRET} "}}, "begins or ends with a blank"),
        ({"target_host": "root@nas"}, "'root@nas' is no name of a host"),
        ({"properties": {"keylocation": "prompt"}}, "'keylocation' follows from mode, key and cipher"),
    ],
)
def test_a_replica_that_can_not_be(
    options: dict[str, t.Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    given = {"source": "tank", "target": "backup/tank", **options}
    assert message in fails(zfs_replicate.main, given, capsys)["msg"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"target": "backup"}, "root of a pool, which ZFS does not receive into"),
        ({"target": "tank/copy"}, "one lies in the other"),
        ({"state": "destroyed"}, "value of state must be one of"),
        ({"verify": "nothing"}, "value of verify must be one of"),
        ({"proof_key": {"value": HEX[1:]}}, "it has 63 characters"),
        ({"proof_key": {"format": "passphrase", "value": SECRET, "file": "/k"}}, "it can only be one of both"),
    ],
)
def test_migration_of_what_can_not_be(
    options: dict[str, t.Any], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    given = {"source": "tank", "target": "backup/tank", **options}
    assert message in fails(geli_migrate.main, given, capsys)["msg"]


@pytest.mark.parametrize(
    "main,options",
    [
        (zfs_encrypted_pool.main, {"name": "tank"}),
        (zfs_encryption_info.main, {}),
        (zfs_key_manifest.main, {"dest": "/x"}),
        (zfs_replicate.main, {"source": "tank", "target": "backup/tank"}),
        (geli_migrate.main, {"source": "tank", "target": "backup/tank"}),
    ],
)
def test_another_user_than_root(
    main: t.Callable[[], None],
    options: dict[str, t.Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    message = fails(main, options, capsys)["msg"]
    assert message == "This module runs as user 1000; pools, keys and disks need root. Set 'become: true' for the task."
