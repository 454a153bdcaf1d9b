# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what lies on the controller to the plan, and through it to nothing left to do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultSecret

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome, converge
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_manifest import fingerprint, write_manifest
from ansible_collections.nasops.encryption.plugins.plugin_utils import key_backup
from ansible_collections.nasops.encryption.plugins.plugin_utils.key_backup import Present, Protection, Wanted
from ansible_collections.nasops.encryption.plugins.plugin_utils.vaulting import choose
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner

KEYS = {"tank": "0a" * 32, "tank/media": "0b" * 32}
VAULT = choose("default", [("default", VaultSecret(b"the password"))])


def wanted(path: Path, keys: dict[str, str], protection: Protection) -> Wanted:
    rows = [{"name": name, "dataset": name, "fingerprint": fingerprint("42", name, key)} for name, key in keys.items()]
    return Wanted(str(path), "nas", protection, rows, [{"name": "tank", "guid": "42"}], True)


def run(goal: Wanted, keys: dict[str, str], check: bool = False) -> Outcome[Present]:
    plain = write_manifest(keys)
    data = plain if goal.protection.vault is None else goal.protection.vault.encrypt(plain)
    return converge(
        lambda: key_backup.look(goal),
        lambda found: key_backup.decide(goal, found, lambda: data),
        RecordedRunner(),
        check,
    )


@pytest.mark.parametrize("protection", [Protection(key_backup.UNSEALED), Protection(key_backup.VAULT, vault=VAULT)])
def test_written_once_changed_once_and_kept(protection: Protection, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    goal = wanted(path, KEYS, protection)
    foreseen = run(goal, KEYS, check=True).plan
    assert list(tmp_path.iterdir()) == []
    done = run(goal, KEYS).plan
    assert (foreseen.actions, foreseen.diff()) == (done.actions, done.diff())
    assert run(goal, KEYS).plan.changed is False
    former = path.read_bytes()

    newer = {**KEYS, "tank/media": "0c" * 32}
    done = run(wanted(path, newer, protection), newer).plan
    assert done.diff()["after"] == {str(path): {"keys": {"tank/media": fingerprint("42", "tank/media", "0c" * 32)}}}
    kept = Path(done.actions[0][len(key_backup.KEEP) :])
    assert kept.read_bytes() == former
    # Within the same second, so under another name.
    again = run(goal, KEYS).plan
    other = Path(again.actions[0][len(key_backup.KEEP) :])
    assert other != kept
    assert kept.read_bytes() == former
    assert "0a0a" not in json.dumps(done.diff()) + (tmp_path / "keys.json").read_text()


def test_the_backup_of_another_host_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    goal = wanted(path, KEYS, Protection(key_backup.UNSEALED))
    run(goal, KEYS)
    before = path.read_bytes()
    other = replace(goal, host="nas2", pools=[{"name": "tank", "guid": "43"}])
    with pytest.raises(BadInput, match="is the backup of 'nas'.*Give each host a file of its own"):
        run(other, KEYS)
    assert path.read_bytes() == before
    # The same pools in another host: the disks were moved.
    assert run(replace(goal, host="nas2"), KEYS).plan.changed is False


@pytest.mark.parametrize("keep_former", [True, False])
def test_keys_that_are_not_there_any_more_are_kept_elsewhere_whatever_is_asked(
    tmp_path: Path, keep_former: bool
) -> None:
    path = tmp_path / "keys"
    run(wanted(path, KEYS, Protection(key_backup.UNSEALED)), KEYS)
    before = path.read_bytes()
    fewer = {"tank": KEYS["tank"]}
    goal = replace(wanted(path, fewer, Protection(key_backup.UNSEALED)), keep_former=keep_former)
    done = run(goal, fewer).plan
    kept = Path(done.actions[0][len(key_backup.KEEP) :])
    assert kept.read_bytes() == before
    (warning,) = done.warnings
    assert warning.startswith(f"These keys are not in the backup any more, but in {kept}: tank/media. ")


def test_somebody_elses_vault_is_kept_whatever_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("$ANSIBLE_VAULT;1.1;AES256\n3132\n")
    goal = replace(wanted(path, KEYS, Protection(key_backup.UNSEALED)), keep_former=False)
    done = run(goal, KEYS).plan
    assert Path(done.actions[0][len(key_backup.KEEP) :]).read_text().startswith("$ANSIBLE_VAULT")


def test_another_file_of_that_name_stays_as_it_is(tmp_path: Path) -> None:
    goal = wanted(tmp_path / "keys", KEYS, Protection(key_backup.UNSEALED))
    (tmp_path / "keys.json").write_bytes(write_manifest(KEYS))
    with pytest.raises(BadInput, match="is no record of a backup"):
        run(goal, KEYS)
    (tmp_path / "keys.json").unlink()
    (tmp_path / "keys").write_text("something else")
    with pytest.raises(BadInput, match="is no backup of keys"):
        run(goal, KEYS)


def test_a_manifest_without_a_record_is_kept_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(write_manifest(KEYS))
    done = run(wanted(path, KEYS, Protection(key_backup.UNSEALED)), KEYS).plan
    assert len(done.actions) == 2
    assert "it has no record that can be read" in done.warnings[0]


@pytest.mark.parametrize("text", ["[]", "no json", "{}", '{"format": "nasops.encryption key backup 1"}'])
def test_a_record_that_was_spoilt(text: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    goal = wanted(path, KEYS, Protection(key_backup.UNSEALED))
    run(goal, KEYS)
    (tmp_path / "keys.json").write_text(f"{text}{' ' * 9}{key_backup.FORMAT}")
    assert run(goal, KEYS).plan.changed is True
    assert run(goal, KEYS).plan.changed is False


def test_a_key_in_the_file_that_is_another_than_the_record_says(tmp_path: Path) -> None:
    """Somebody changed both, but the fingerprints."""
    path = tmp_path / "keys"
    goal = wanted(path, KEYS, Protection(key_backup.UNSEALED))
    run(goal, KEYS)
    record = json.loads((tmp_path / "keys.json").read_text())
    path.write_bytes(write_manifest({**KEYS, "tank": "0d" * 32}))
    record["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "keys.json").write_text(json.dumps(record))
    assert "its content is not that of its record" in run(replace(goal, keep_former=False), KEYS).plan.warnings[0]
    assert json.loads(path.read_text()) == KEYS


def test_a_proof_is_written_down_and_changes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    goal = wanted(path, KEYS, Protection(key_backup.UNSEALED))
    assert key_backup.last_proof(str(path)) is None
    monkeypatch.setattr(key_backup, "_now", lambda: "2026-11-27T03:00:00Z")
    run(goal, KEYS)
    assert key_backup.last_proof(str(path)) == "2026-11-27T03:00:00Z"
    first, data = json.loads((tmp_path / "keys.json").read_text()), path.read_bytes()
    assert (first["written"], first["proven"]) == ("2026-11-27T03:00:00Z", "2026-11-27T03:00:00Z")

    monkeypatch.setattr(key_backup, "_now", lambda: "2026-11-28T03:00:00Z")
    assert run(goal, KEYS).plan.changed is False
    key_backup.note_proof(goal)
    assert key_backup.last_proof(str(path)) == "2026-11-28T03:00:00Z"
    assert json.loads((tmp_path / "keys.json").read_text()) == {**first, "proven": "2026-11-28T03:00:00Z"}
    assert path.read_bytes() == data
    assert run(goal, KEYS).plan.changed is False


def test_a_record_of_an_earlier_version_was_proven_when_it_was_written(tmp_path: Path) -> None:
    goal = wanted(tmp_path / "keys", KEYS, Protection(key_backup.UNSEALED))
    run(goal, KEYS)
    record = json.loads((tmp_path / "keys.json").read_text())
    del record["proven"]
    (tmp_path / "keys.json").write_text(json.dumps(record))
    assert key_backup.last_proof(goal.path) == record["written"]
    assert run(goal, KEYS).plan.changed is False
    key_backup.note_proof(goal)
    assert "proven" in json.loads((tmp_path / "keys.json").read_text())


@pytest.mark.parametrize("proven", ["yesterday", 17, None])
def test_a_time_that_is_none_makes_the_record_one_that_can_not_be_read(proven: object, tmp_path: Path) -> None:
    goal = wanted(tmp_path / "keys", KEYS, Protection(key_backup.UNSEALED))
    run(goal, KEYS)
    record = json.loads((tmp_path / "keys.json").read_text())
    (tmp_path / "keys.json").write_text(json.dumps({**record, "proven": proven}))
    assert key_backup.last_proof(goal.path) is None
    with pytest.raises(StorageError, match="was changed by something else meanwhile"):
        key_backup.note_proof(goal)
    assert run(goal, KEYS).plan.warnings[0].endswith("it has no record that can be read.")
