# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups by ansible-playbook, with all it can say: what is written, what is not, and where no key turns up.

Here, and not among the unit tests, since ansible-playbook takes its time: once is enough, and few runs are.
"""

from __future__ import annotations

import base64
import json
import stat
import typing as t
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from fake_nas import FakeNas, Run

from ansible_collections.nasops.encryption.plugins.module_utils.secrets import encodings
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sealing.people import (
    Person,
    openssl_opens,
    person,
)

HEX, RAW, OTHER = "a1b2c3d4" * 8, "0f1e2d3c" * 8, "5566ddee" * 8
MANIFEST = {"tank": HEX, "tank/raw": RAW}
PASSWORD = "the password of the vault"
NOTHING: dict[str, t.Any] = {"before": {}, "after": {}}


@pytest.fixture
def nas(tmp_path: Path) -> FakeNas:
    """Two roots with keys, one with a passphrase, a child and a volume of plain data."""
    found = FakeNas(tmp_path)
    found.root("tank", HEX)
    found.root("tank/raw", RAW, "raw")
    found.root("tank/clients", "geheimes wort", "passphrase", file=False, pbkdf2iters="350000", pbkdf2salt="7")
    found.datasets["tank/child"] = {**found.datasets["tank"], "encryptionroot": "tank", "keylocation": "none"}
    found.datasets["plain"] = {"type": "filesystem", "encryption": "off", "mounted": "yes", "mountpoint": "/plain"}
    found.pools["plain"] = {"guid": "17", "health": "ONLINE"}
    return found


@pytest.fixture
def somebody(nas: FakeNas) -> Person:
    """Whoever may open the backups. The certificate lies where the playbook is started."""
    found = person("rsa")
    (nas.folder / "recovery.pem").write_text(found.certificate)
    return found


def task(dest: str = "backups/nas.keys", **options: t.Any) -> dict[str, t.Any]:
    return {"nasops.encryption.zfs_key_manifest": {"dest": dest, **options}}


def checked(one: dict[str, t.Any]) -> dict[str, t.Any]:
    """The same task in check mode."""
    return {**one, "check_mode": True}


def shell(script: str) -> dict[str, t.Any]:
    """A task that does or shows something in between."""
    return {"ansible.builtin.shell": script}


def needles(*more: str) -> set[bytes]:
    """Every key in every encoding."""
    found: set[bytes] = set()
    for text in (HEX, RAW, *more):
        found.update(one.encode() for one in encodings(text.encode()))
        found.add(bytes.fromhex(text))
    return found


def leaks(nas: FakeNas, run: Run, *but: str, extra: t.Sequence[str] = ()) -> list[str]:
    """Where a key turns up that must not: what was said and returned, all arguments, environments and files."""
    places = {"output": run.said.encode(), "results": json.dumps(run.results).encode()}
    for path in nas.folder.rglob("*"):
        name = str(path.relative_to(nas.folder))
        if path.is_file() and not name.startswith(("keys/", "state.json", "bin/", *but)):
            places[name] = path.read_bytes()
    assert "argv.log" in places
    words = needles(*extra)
    return [name for name, data in places.items() if any(word in data for word in words)]


def test_sealed_in_four_tasks(nas: FakeNas, somebody: Person) -> None:
    wanted = task(seal_to=["recovery.pem"])
    run = nas.play(checked(wanted), shell(f"ls {nas.folder}"), wanted, checked(wanted), wanted)
    path, record = nas.folder / "backups" / "nas.keys", nas.folder / "backups" / "nas.keys.json"
    first, between, second, third, fourth = run.results
    assert "keys" in between["stdout_lines"]
    assert "backups" not in between["stdout_lines"]
    for word in ("changed", "actions", "diff", "exported", "digest", "dest", "record"):
        assert first[word] == second[word], word
    assert second["changed"] is True
    assert second["actions"] == [f"Write the keys of 2 encryption roots to {path}, sealed to 1 certificate"]
    assert list(second["diff"]["after"][str(path)]["keys"]) == ["tank", "tank/raw"]
    for again in (third, fourth):
        assert (again["changed"], again["actions"], again["diff"]) == (False, [], NOTHING)
    assert [row["name"] for row in second["not_exportable"]] == ["tank/clients"]
    assert second["pools"] == [{"name": "tank", "guid": "9512867134298873421"}]

    assert json.loads(openssl_opens(path.read_text(), somebody.private_key, nas.folder / "home")) == MANIFEST
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, record, path.parent)] == [0o600, 0o600, 0o700]
    assert sorted(one.name for one in path.parent.iterdir()) == ["nas.keys", "nas.keys.json"]
    told = json.loads(record.read_text())
    # Nothing was there yet, then it was made, looked at, and proven once more.
    assert first["proven"] is None
    assert second["proven"] == third["proven"] == told["written"] <= fourth["proven"] == told["proven"]
    assert told["count"] == 2
    assert [one["fingerprint"] for one in told["recipients"]] == [somebody.recipient.fingerprint]
    assert leaks(nas, run) == []
    # Neither sealed keys nor anything else is opened on the controller.
    assert not any("-decrypt" in words for words in nas.argv())
    # Each key was tried, and none loaded.
    tried = [words for words in nas.argv() if "load-key" in words]
    assert {words[-1] for words in tried} == set(MANIFEST)
    assert all("-n" in words for words in tried)
    # What is searched for would be found.
    (nas.folder / "planted").write_bytes(b"..." + bytes.fromhex(RAW))
    assert leaks(nas, run) == ["planted"]


def test_vault_and_clear(nas: FakeNas) -> None:
    (nas.folder / "password").write_text(PASSWORD + "\n")
    kinds = [
        task("v.yml", vault_password_file="password"),
        task("c.json", unsealed=True),
        task("l.yml", vault_id="keys"),
    ]
    tasks = [*map(checked, kinds), shell(f"ls {nas.folder}"), *kinds, *kinds]
    run = nas.play(*tasks, words=["--vault-id", "keys@password"])
    first, (between,), applied, again = run.results[:3], run.results[3:4], run.results[4:7], run.results[7:]
    assert not {"v.yml", "c.json", "l.yml"} & set(between["stdout_lines"])
    for before, after, last in zip(first, applied, again):
        assert [before[word] for word in ("changed", "actions", "diff")] == [
            after[word] for word in ("changed", "actions", "diff")
        ]
        assert (after["changed"], last["changed"]) == (True, False)
    secrets = [("keys", VaultSecret(PASSWORD.encode()))]
    for name in ("v.yml", "l.yml"):
        assert json.loads(VaultLib(secrets).decrypt((nas.folder / name).read_bytes())) == MANIFEST
    assert (nas.folder / "l.yml").read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;keys\n")
    assert json.loads((nas.folder / "c.json").read_text()) == MANIFEST
    assert leaks(nas, run, "c.json") == []
    # The private key of the task went through a pipe, and is in no argument.
    opened = [argv for argv in nas.argv() if "-decrypt" in argv]
    assert opened
    assert all(argv[argv.index("-inkey") + 1].startswith("/dev/fd/") for argv in opened)
    assert "PRIVATE KEY" not in (nas.folder / "argv.log").read_text() + run.said


def test_a_key_that_changed_and_a_file_that_was_damaged(nas: FakeNas, somebody: Person) -> None:
    wanted, path = task(seal_to=["recovery.pem"]), nas.folder / "backups" / "nas.keys"
    key = nas.folder / "keys" / "tank%2Fraw.key"
    nas.root("tank/raw", OTHER, "raw")
    later = nas.save("later.json")
    key.rename(nas.folder / "later.key")
    nas.root("tank/raw", RAW, "raw")
    other = person("p256", "two")
    both = task(seal_to=["recovery.pem", other.certificate], backup=False)
    read = shell(f"base64 -w0 <{path}")
    run = nas.play(
        wanted,
        read,
        shell(f"cp {later} {nas.folder}/state.json && cp {nas.folder}/later.key {key}"),
        checked(wanted),
        wanted,
        read,
        shell(f"sed -i s/A/B/ {path}"),
        task(seal_to=["recovery.pem"], backup=False),
        both,
        shell(f"chmod 644 {path}"),
        both,
        shell(f"stat -c %a {path}"),
        both,
    )
    first, before, _changed, check, applied, after, _damaged, mended, shared, _opened, private, mode, last = run.results
    assert (check["actions"], check["diff"]) == (applied["actions"], applied["diff"])
    assert applied["diff"]["before"][str(path)] == {"keys": {"tank/raw": first["exported"][1]["fingerprint"]}}
    assert len(applied["actions"]) == 2
    kept = Path(applied["backup_file"])
    assert kept.read_bytes() == base64.b64decode(before["stdout"])
    assert Path(f"{kept}.json").exists()
    now = base64.b64decode(after["stdout"]).decode()
    wanted_now = {**MANIFEST, "tank/raw": OTHER}
    assert json.loads(openssl_opens(now, somebody.private_key, nas.folder / "home")) == wanted_now

    assert mended["changed"] is True
    # What is damaged may be somebody else's, so it is kept whatever is asked for.
    assert Path(mended["backup_file"]).exists()
    assert shared["backup_file"] is None
    assert "its record is that of another file" in json.dumps(mended["warnings"])

    # Sealed to somebody else as well, and readable by others than its owner.
    assert shared["changed"] is True
    assert json.loads(openssl_opens(path.read_text(), other.private_key, nas.folder / "home")) == wanted_now
    assert private["diff"]["before"] == {str(path): {"private": False}}
    assert mode["stdout"] == "600"
    assert last["changed"] is False


def test_one_key_that_is_not_found_and_nothing_is_written(nas: FakeNas, somebody: Person) -> None:
    nas.root("tank/lost", OTHER, file=False)
    nas.root("tank/web", OTHER, file=False, keylocation="https://user:word@example.com/key")
    wrong = nas.folder / "keys" / "tank%2Fraw.key"
    wrong.write_bytes(bytes.fromhex(OTHER))
    old = '#!/bin/sh\necho "OpenSSL 1.1.1w  11 Sep 2023"\n'
    (nas.folder / "old").write_text(old)
    run = nas.play(
        task(seal_to=["recovery.pem"]),
        task(seal_to=["recovery.pem"], partial=True),
        shell(f"cp {nas.folder}/old {nas.bin}/openssl"),
        task("s.keys", seal_to=["recovery.pem"]),
        task("c.json", unsealed=True),
    )
    failed, partly, _replaced, host, controller = run.results
    assert failed["proven"] is None
    assert failed["failed"] is True
    assert set(failed["failed_datasets"]) == {"tank/lost", "tank/raw", "tank/web"}
    assert "is not the one that opens 'tank/raw'" in failed["failed_datasets"]["tank/raw"]["error"]
    assert "No key is offered for 'tank/lost'" in failed["msg"]
    assert "https://example.com/key" in failed["msg"]
    assert "word" not in failed["msg"]
    assert "Nothing was backed up, although the keys of these were found: tank." in failed["msg"]
    assert (partly["failed"], partly["changed"]) == (False, True)
    assert sum("Not backed up: " in json.dumps(warning) for warning in partly["warnings"]) == 3
    sealed = (nas.folder / "backups" / "nas.keys").read_text()
    assert json.loads(openssl_opens(sealed, somebody.private_key, nas.folder / "home")) == {"tank": HEX}
    assert leaks(nas, run, extra=[OTHER]) == []
    # From there on openssl is too old.
    for result, place in ((host, "this host"), (controller, "the controller")):
        assert result["failed"] is True
        assert (
            f"Sealing needs the program openssl 3.0 or later on {place}: 'openssl' is OpenSSL 1.1.1w" in result["msg"]
        )
    assert not [path for name in ("s.keys", "c.json") if (path := nas.folder / name).exists()]


def test_keys_that_are_offered(nas: FakeNas, somebody: Person) -> None:
    nas.root("tank/lost", OTHER, file=False)
    manifest = {"tank/lost": OTHER, "tank/gone": HEX, "tank/clients": HEX, "tank/child": HEX}
    renamed = {"tank": ["backup/nas", "tank"], "tank/lost": "found"}
    # Not in the playbook itself, whose lines Ansible shows where a task fails.
    variables = {
        "text": json.dumps({**manifest, "tank/lost": HEX}),
        "foreign": {"other/lost": OTHER},
        "right": OTHER,
        "wrong": HEX,
    }
    (nas.folder / "variables.json").write_text(json.dumps(variables))
    run = nas.play(
        task(seal_to=["recovery.pem"], manifest=[{"tank/lost": "{{ right }}"}, "{{ text | string }}"], remap=renamed),
        task("x", seal_to=["recovery.pem"], manifest="{{ foreign }}"),
        task("x", seal_to=["recovery.pem"], keys={"tank/lost": "{{ wrong }}"}),
        task("x", seal_to=["recovery.pem"], keys={"tank/lost": "17"}),
        task("x", seal_to=["recovery.pem"], keys={"tank/lost": "{{ right }}"}, remap={"tonk": "backup"}),
        task("x", seal_to=["recovery.pem"], keys={"tank/lost": "{{ right }}"}, remap={"tank/raw": "tank"}),
        task("x", seal_to=["recovery.pem"], name="tonk"),
        task("x", seal_to=["recovery.pem"], name="tank/child", recursive=False),
        task("y", seal_to=["recovery.pem"], name="plain"),
        task("y", seal_to=["recovery.pem"], manifest="[1, 2]"),
        words=["-e", "@variables.json"],
    )
    good, foreign, wrong, no_key, typo, twice, nowhere, child, plain, no_manifest = run.results
    assert [row["name"] for row in good["exported"]] == ["backup/nas", "backup/nas/raw", "found", "tank", "tank/raw"]
    assert good["actions"][-1].startswith("Write the keys of 3 encryption roots to ")
    assert [row["name"] for row in good["unused_keys"]] == ["tank/child", "tank/clients", "tank/gone"]
    assert "is opened by a passphrase" in good["unused_keys"][1]["reason"]
    sealed = (nas.folder / "backups" / "nas.keys").read_text()
    assert json.loads(openssl_opens(sealed, somebody.private_key, nas.folder / "home")) == {
        "backup/nas": HEX,
        "backup/nas/raw": RAW,
        "found": OTHER,
        "tank": HEX,
        "tank/raw": RAW,
    }
    assert "are they of another system?" in foreign["msg"]
    assert "is not the one that opens 'tank/lost'" in wrong["msg"]
    assert "is not a hex key: it has 2 characters" in no_key["msg"]
    assert "remap renames 'tonk', but there is no key of a dataset at or below that name" in typo["msg"]
    assert "the same name 'tank'" in twice["msg"]
    assert "dataset does not exist" in nowhere["msg"]
    assert [row["name"] for row in child["exported"]] == ["tank"]
    assert (plain["changed"], plain["exported"]) == (False, [])
    assert "There is no key to back up" in json.dumps(plain["warnings"])
    assert "The manifest is a list; wanted is an object" in no_manifest["msg"]
    assert sorted(path.name for path in nas.folder.glob("[xy]*")) == ["x", "x.json"]
    assert leaks(nas, run, "variables.json", extra=[OTHER]) == []


def test_what_can_not_be_is_refused_before_the_host_is_asked(nas: FakeNas, somebody: Person) -> None:
    (nas.folder / "file").write_text("no folder")
    (nas.folder / "photo").write_bytes(b"\xff\xd8\xff")
    (nas.folder / "clear.json").write_text(json.dumps(MANIFEST))
    (nas.folder / "link").symlink_to("/dev/full")
    (nas.folder / "signs.pem").write_text(person("signs").certificate)
    (nas.folder / "small.pem").write_text(person("small").certificate)
    (nas.folder / "both.pem").write_text(somebody.certificate + somebody.private_key)
    good = {"seal_to": ["recovery.pem"]}
    cases: list[tuple[dict[str, t.Any], str]] = [
        (task(), "none is given; wanted is exactly one"),
        (task(unsealed=False), "written in clear only with 'unsealed: true'"),
        (task(unsealed=True, vault_id="x"), "2 is given; wanted is exactly one"),
        (task(vault_id="default"), "The run has no vault secret 'default': it has none at all"),
        (task(vault_password_file="nowhere"), "nowhere can't be used"),
        (task(seal_to=[]), "seal_to is empty"),
        (task(seal_to=[" "]), "seal_to[0] is empty"),
        (task(seal_to=["nowhere.pem"]), "nowhere.pem does not exist on the controller"),
        (task(seal_to=["file"]), "holds 0 certificates in PEM"),
        (task(seal_to=["both.pem"]), "holds a private key"),
        (task(seal_to=["signs.pem"]), "neither an RSA key nor one on an elliptic curve"),
        (task(seal_to=["small.pem"]), "has an RSA key of 1024 bits; wanted are 2048 or more"),
        (task("keys", **good), "keys is a folder; wanted is the path of a file"),
        (task("file/below", **good), "is no folder"),
        (task("link", **good), "/dev/full is no regular file"),
        (task("photo", **good), "exists and is no backup of keys"),
        (task("clear", **good), "clear.json exists and is no record of a backup"),
    ]
    run = nas.play(*(one for one, _message in cases))
    for (_task, message), result in zip(cases, run.results):
        assert result["failed"] is True
        assert message in result["msg"], result["msg"]
        assert "Traceback" not in json.dumps(result)
    assert (nas.folder / "photo").read_bytes() == b"\xff\xd8\xff"
    assert json.loads((nas.folder / "clear.json").read_text()) == MANIFEST
    assert not (nas.folder / "clear").exists()
    assert "PRIVATE KEY-----" not in run.said


def test_a_generated_key_as_a_template_calls_it(nas: FakeNas) -> None:
    (nas.folder / "password").write_text(PASSWORD)
    call = "lookup('nasops.encryption.generated_key', 'made/a', format='raw') | b64decode(encoding='latin-1') | length"
    size = {"ansible.builtin.set_fact": {"size": f"{{{{ {call} }}}}"}}
    tasks = [
        size,
        {"ansible.builtin.set_fact": {"key": "{{ lookup('nasops.encryption.generated_key', 'made/a') }}"}},
        {
            "ansible.builtin.set_fact": {
                "key": "{{ lookup('nasops.encryption.generated_key', 'made/b', format='hax') }}"
            }
        },
    ]
    words = ["--vault-password-file", "password"]
    made = nas.folder / "made"
    (check,) = nas.play(size, words=[*words, "--check"]).results
    assert not made.exists()
    applied, other, wrong = nas.play(*tasks, words=words).results
    assert [one["ansible_facts"]["size"] for one in (check, applied)] == [32, 32]
    assert [path.name for path in made.iterdir()] == ["a"]
    secrets = [("default", VaultSecret(PASSWORD.encode()))]
    assert len(base64.b64decode(VaultLib(secrets).decrypt((made / "a").read_bytes()))) == 32
    assert "holds no key of the format hex" in json.dumps(other)
    assert "hax" in json.dumps(wrong)
