# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role geli_migration by ansible-playbook: in which order it does what, and what it says of what goes wrong.

Programs play zpool, and modules play those of the collection that look at disks and pools. All else is real.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_playbooks import Controller, Run

ROOT = Path(__file__).resolve().parents[2]

# Says what it was made to say, and keeps what it was given. The word makes Ansible hand over a file of JSON.
_MODULE = """#!/usr/bin/python
# WANT_JSON
import json, sys
FOLDER, NAME = {folder!r}, {name!r}
with open(sys.argv[1]) as file:
    given = {{key: value for key, value in json.load(file).items() if not key.startswith("_ansible")}}
with open(FOLDER + "/said.json") as file:
    said = json.load(file)
with open(FOLDER + "/asked.log", "a") as log:
    log.write(json.dumps([NAME, given]) + "\\n")
answers = [NAME + " of " + given.get("source", ""), NAME + " " + given.get("state", ""), NAME]
print(json.dumps(next((said[one] for one in answers if one in said), {{"changed": False}})))
"""
_ZPOOL = """#!{python} -IS
import json, sys
FOLDER, words = {folder!r}, sys.argv[1:]
with open(FOLDER + "/said.json") as file:
    said = json.load(file)
if words[0] == "list":
    if isinstance(said["pools"], str):
        sys.exit(said["pools"])
    print(*said["pools"], sep="\\n")
    sys.exit(0)
with open(FOLDER + "/asked.log", "a") as log:
    log.write(json.dumps(["zpool " + words[0], words[1:]]) + "\\n")
sys.exit(said.get("zpool " + words[0]))
"""
# What is looked at or changed is not on this machine.
_PLAYED = ("geli_info", "geli_device", "geli_migrate", "zfs_encrypted_pool", "zfs_dataset_key", "zfs_key_manifest")

OPENED = {"geli_device": {"changed": True, "import_from": ["/run/nasops-geli"]}}
PLANNED: dict[str, Any] = {
    "reached": "planned",
    "verified": None,
    "source_read_only": True,
    "datasets": [],
    "estimated_bytes": 0,
    "available_bytes": 0,
    "streams": [],
    "closing": [],
    "notes": [],
    "source_guid": None,
    "changed": False,
}
DONE = {**PLANNED, "reached": "finalized", "verified": "full", "source_guid": "1", "notes": ["It was the GUID 1."]}
MISSING = {"failed": True, "msg": "cannot open 'old': dataset does not exist."}


@dataclass
class Host:
    """A NAS that is played."""

    controller: Controller
    said: dict[str, Any] = field(default_factory=dict)

    def run(
        self,
        variables: Mapping[str, Any] | None = None,
        words: Sequence[str] = (),
        playbook: str = "nasops.encryption.migrate_geli",
    ) -> Run:
        (self.controller.folder / "said.json").write_text(json.dumps({"pools": ["new"], **self.said}))
        given = {"geli_migration_pool": "old", "geli_migration_target": "new/old", "geli_migration_hold": False}
        return self.controller.run(playbook, {"h": {**given, **(variables or {})}}, words=words)

    def asked(self) -> list[tuple[str, Any]]:
        """All that was asked of programs and modules, in order."""
        path = self.controller.folder / "asked.log"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return list(map(tuple, found))

    def order(self) -> list[str]:
        """The same without what it was given, but for the stage."""
        return [
            f"{name} {given['state']}" if isinstance(given, dict) and "state" in given else name
            for name, given in self.asked()
        ]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    collection = tmp_path / "collections" / "ansible_collections" / "nasops" / "encryption"
    modules = collection / "plugins" / "modules"
    modules.mkdir(parents=True)
    for path in (*ROOT.iterdir(), *(ROOT / "plugins").iterdir(), *(ROOT / "plugins" / "modules").iterdir()):
        played = path.stem in _PLAYED and path.parent.name == "modules"
        if path.name.startswith(".") or path.name in ("plugins", "modules", "action") or played:
            continue
        (collection / path.relative_to(ROOT)).symlink_to(path)
    for name in _PLAYED:
        (modules / f"{name}.py").write_text(_MODULE.format(folder=str(tmp_path), name=name))
    (tmp_path / "ansible.cfg").touch()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "zpool"
    program.write_text(_ZPOOL.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    return Host(Controller(tmp_path))


DISKS = {"geli_migration_devices": ["/dev/a2", "/dev/b2"]}


class TestFinalized:
    """Once the target has taken the place of the source, nobody needs the old disks."""

    def test_the_source_is_left_alone(self, host: Host) -> None:
        saved = {"changed": False, "record": "keys.json", "exported": [{"dataset": "new"}]}
        lost = {"failed": True, "msg": "No such file: /root/old.key"}
        host.said = {"geli_migrate": DONE, "zfs_key_manifest": saved, "geli_info": lost}
        backup = {"nas_key_backup": {"dest": "keys", "unsealed": True}, "nas_unlock_at_boot": False}
        final = {"geli_migration_final_key": {"file": "auto"}, "geli_migration_keyfile": ["/root/old.key"]}
        run = host.run({"nas_pools": [{"name": "new"}], **backup, **final})
        # The target pool is imported first, and what it needs is still looked after.
        assert host.order() == [
            "zfs_encrypted_pool",
            "geli_migrate",
            "geli_info",
            "zfs_dataset_key",
            "zfs_key_manifest",
        ], run.output
        assert run.reports[-1] == [
            "h: stage finalized, compared: full; the source is not imported, and was not looked at"
        ], run.output
        assert run.status == 0
        assert "changed=0 " in run.output
        assert host.asked()[1][1].items() >= {"source": "old", "target": "new/old"}.items()

    def test_in_check_mode_too(self, host: Host) -> None:
        """Other disks are none of its business, and its own may be there still."""
        rows = [
            row("/dev/a2", pool_guid="1"),
            row("/dev/b2", pool="other", pool_guid="2"),
            row("/dev/c2", pool=None, pool_guid=None, opens=False),
            row("/dev/d2", pool=None, pool_guid=None, opens=None, state="unreadable"),
        ]
        host.said = {"geli_migrate": DONE, "geli_info": {"changed": False, "providers": rows}}
        run = host.run(words=["--check"])
        assert host.order() == ["geli_migrate", "geli_info"]
        assert run.reports == [
            [*DONE["notes"], "/dev/c2 carries GELI, was not opened, and may be of another pool of that name."],
            ["h: stage finalized, compared: full; the source is not imported, and was not looked at"],
        ], run.output

    def test_another_pool_of_that_name_is_not_finished(self, host: Host) -> None:
        refused: dict[str, Any] = {
            "failed": True,
            "msg": "The target 'new/old' was made by a migration of another source.",
        }
        rows = [row("/dev/a2", pool_guid="2"), row("/dev/b2", pool_guid="2")]
        host.said = {"geli_migrate": DONE, "geli_migrate finalized": refused, **OPENED}
        host.said["geli_info"] = {"changed": False, "providers": rows}
        run = host.run()
        assert host.order() == [
            "geli_migrate",
            "geli_info",
            "geli_info",
            "geli_device",
            "zpool import",
            "geli_migrate",
            "geli_migrate finalized",
        ], run.output
        assert run.reports[-1] == ["h: FAILED new/old"], run.output
        assert refused["msg"] in run.output

    def test_what_is_wrong_with_the_target_is_told(self, host: Host) -> None:
        host.said = {"geli_migrate": {"failed": True, "msg": "These at the target are NOT ENCRYPTED: 'new/old/x'."}}
        run = host.run()
        assert host.order() == ["geli_migrate"]
        assert run.reports == [["h: FAILED new/old"]], run.output
        assert "new/old: These at the target are NOT ENCRYPTED: 'new/old/x'." in run.output

    def test_before_anything_is_open_check_mode_says_so(self, host: Host) -> None:
        host.said = {"geli_migrate": MISSING, **OPENED}
        run = host.run(DISKS, words=["--check"])
        assert host.order() == ["geli_migrate", "geli_device"], run.output
        words = "the source has to be imported and the target pool made before more can be told of new/old"
        assert run.reports == [[f"h: {words}"]], run.output
        assert run.status == 0

    def test_it_is_asked_where_the_target_is(self, host: Host) -> None:
        """It is the second migration of the play, and what the first one did is not told of it."""
        changed = {**DONE, "changed": True}
        host.said = {"pools": ["new", "here"], "geli_migrate": PLANNED, "geli_migrate of old/docs": DONE}
        host.said.update({f"geli_migrate {stage}": changed for stage in ("synced", "finalized")})
        far = {"geli_migration_target_host": "nas2", "geli_migration_ssh": {"user": "root"}}
        far = {**far, "geli_migration_source": "old/docs", "geli_migration_method": "rsync"}
        role = {"include_role": {"name": "nasops.encryption.geli_migration"}}
        first = {**role, "vars": {"geli_migration_pool": "here", "geli_migration_target": "new/here"}}
        run = host.run(playbook=host.controller.playbook(roles=[], tasks=[first, {**role, "vars": far}]))
        assert run.reports[-3:] == [
            ["h: stage finalized, compared: full; migrated to new/here"],
            DONE["notes"],
            ["h: stage finalized, compared: full; the source is not imported, and was not looked at"],
        ], run.output
        given = host.asked()[3][1]
        wanted = {"source": "old/docs", "method": "rsync", "target_host": "nas2", "ssh": {"user": "root"}}
        assert given.items() >= wanted.items()

    def test_a_source_that_is_imported_is_looked_at(self, host: Host) -> None:
        host.said = {"pools": ["new", "old"], "geli_migrate": DONE}
        run = host.run()
        assert host.order() == ["geli_migrate", "geli_migrate finalized"]
        assert run.reports[-1] == ["h: stage finalized, compared: full"], run.output

    def test_until_then_the_source_is_opened(self, host: Host) -> None:
        """The plan, the copy and the end answer as they would; the first question fails, as without a source."""
        changed = {**DONE, "changed": True}
        host.said = {"geli_migrate": MISSING, "geli_migrate synced": changed, **OPENED}
        run = host.run(DISKS)
        # The plan fails too, by the same words.
        assert host.order() == ["geli_migrate", "geli_device", "zpool import", "geli_migrate"], run.output
        assert run.reports == [["h: FAILED new/old"]]
        assert "new/old: cannot open 'old': dataset does not exist." in run.output


def row(device: str, **facts: Any) -> dict[str, Any]:
    """What geli_info tells of a disk."""
    told = {"device": device, "state": "geli", "pool": "old", "pool_guid": "1", "opens": True}
    return {**told, "problem": None, "key_error": None, **facts}


class TestMembers:
    """Which disks are attached."""

    BAD = row("/dev/c2", opens=None, problem="/dev/c2 can't be read: Input/output error.")
    WRONG = row("/dev/d2", opens=False, key_error="No key is offered for it.")

    def attached(self, host: Host, rows: Sequence[Any], variables: Mapping[str, Any]) -> tuple[Any, Run]:
        """The disks that geli_device is given, None if it is not run."""
        host.said = {"geli_info": {"changed": False, "providers": rows}, "geli_migrate": MISSING, **OPENED}
        run = host.run(variables)
        return next((given["devices"] for name, given in host.asked() if name == "geli_device"), None), run

    def test_those_of_the_pool(self, host: Host) -> None:
        rows = [row("/dev/a2"), row("/dev/b2"), row("/dev/e2", pool="other"), row("/dev/f2", pool=None, opens=False)]
        assert self.attached(host, rows, {})[0] == ["/dev/a2", "/dev/b2"]

    @pytest.mark.parametrize("rows", [[row("/dev/a2"), BAD, WRONG], [BAD, WRONG]])
    def test_what_does_not_open_is_told_with_the_way_out(self, host: Host, rows: Sequence[Any]) -> None:
        # Without any that opens, doing without the others is none.
        allowed = {"geli_migration_allow_degraded": len(rows) == 2}
        devices, run = self.attached(host, rows, allowed)
        assert devices is None, run.output
        for text in (
            "Members of the pool 'old' can't be opened: /dev/c2 can't be read: Input/output error; /dev/d2: No key is",
            "geli_migration_allow_degraded: true",
            "geli_migration_devices",
        ):
            assert text in run.output

    def test_it_is_left_out_where_that_is_allowed(self, host: Host) -> None:
        allowed = {"geli_migration_allow_degraded": True}
        assert self.attached(host, [row("/dev/a2"), self.BAD, self.WRONG], allowed)[0] == ["/dev/a2"]

    def test_what_is_named_is_taken_as_it_is(self, host: Host) -> None:
        devices, _run = self.attached(host, [self.BAD], DISKS)
        assert devices == DISKS["geli_migration_devices"]
        assert "geli_info" not in host.order()


# As OpenZFS 2.3 and the ZFS of FreeBSD 12 say it.
FOREIGN = """cannot import 'old': pool was previously in use from another system.
Last accessed by nas.local (hostid=1a2b3c4d) at Thu Nov 26 22:10:00 2026
The pool can be imported, use 'zpool import -f' to import the pool.
"""
OLDER = """cannot import 'old': pool may be in use from other system, it was last accessed by nas (hostid: 0x1a2) on Thu
use '-f' to import anyway
"""


class TestZpool:
    """What zpool says when it fails, and what to do then."""

    @pytest.mark.parametrize("said", [FOREIGN, OLDER])
    def test_a_pool_of_a_nas_that_died(self, host: Host, said: str) -> None:
        host.said = {"geli_migrate": MISSING, "zpool import": said, **OPENED}
        run = host.run(DISKS)
        assert run.reports == [["h: FAILED new/old"]], run.output
        # Once where it happens, and once in the report.
        for text in (
            "The pool 'old' was not exported by the host that used it last.",
            "geli_migration_force_import: true",
            "only in the log of the pool",
            f"zpool says: {' '.join(said.split())}",
        ):
            assert run.output.count(text) >= 2, run.output
        assert "non-zero return code" not in run.output
        ((_name, words),) = [one for one in host.asked() if one[0] == "zpool import"]
        assert words == ["-d", "/run/nasops-geli", "-o", "readonly=on", "-N", "-R", "/mnt/geli", "old"]

    def test_it_is_imported_where_that_is_wished(self, host: Host) -> None:
        host.said = {"geli_migrate": MISSING, **OPENED}
        host.run({**DISKS, "geli_migration_force_import": True})
        ((_name, words),) = [one for one in host.asked() if one[0] == "zpool import"]
        assert words[-2:] == ["-f", "old"]

    def test_one_that_is_not_found(self, host: Host) -> None:
        """As on FreeBSD, where no folder holds all devices."""
        paths = ["/dev/gptid/a.eli", "/dev/gptid/b.eli"]
        attached = {"changed": True, "import_from": paths, "directory": None}
        missing = "cannot import 'old': no such pool available\n"
        host.said = {"geli_migrate": MISSING, "zpool import": missing, "geli_device": attached}
        run = host.run(DISKS)
        text = f"'zpool import -d {paths[0]} -d {paths[1]}'. zpool says: {missing.strip()}"
        assert text in run.output
        assert "geli_migration_force_import" not in run.output

    def test_a_source_that_can_not_be_exported(self, host: Host) -> None:
        verified = {**PLANNED, "reached": "verified", "verified": "full"}
        host.said = {"geli_migrate": verified, "zpool export": "cannot export 'old': pool is busy\n", **OPENED}
        run = host.run({**DISKS, "geli_migration_state": "verified"})
        assert host.order() == [
            "geli_migrate",
            "geli_device",
            "zpool import",
            "geli_migrate",
            "geli_migrate synced",
            "geli_migrate verified",
            "zpool export",
        ]
        assert run.reports[-1] == ["h: FAILED new/old"], run.output
        assert "could not be exported: cannot export 'old': pool is busy" in run.output
        assert "geli_migration_close: false" in run.output

    def test_it_is_closed_in_the_end(self, host: Host) -> None:
        """Before disks may be wiped for the target, those of the source are in use."""
        verified = {**PLANNED, "reached": "verified", "verified": "full"}
        host.said = {"geli_migrate": verified, **OPENED}
        pools = {"nas_pools": [{"name": "new", "wipe_disks": ["S1"]}], "nas_unlock_at_boot": False}
        run = host.run({**DISKS, **pools, "geli_migration_state": "verified"})
        assert host.order()[:5] == [
            "geli_migrate",
            "geli_device",
            "zpool import",
            "zfs_encrypted_pool",
            "geli_migrate",
        ], run.output
        assert host.order()[-2:] == ["zpool export", "geli_device detached"]
        assert run.reports[-1] == ["h: stage verified, compared: full"], run.output

    def test_a_command_that_fails_is_told_in_its_own_words(self, host: Host) -> None:
        host.said = {"pools": "The ZFS modules cannot be auto-loaded."}
        run = host.run()
        assert "new/old: The ZFS modules cannot be auto-loaded." in run.output


class TestKeys:
    """Which key the target has when."""

    FINAL = {"value": "0f" * 32, "file": "auto"}
    COPIED: dict[str, Any] = {"format": "passphrase", "value": "words that nobody may see", "iterations": 100000}

    def stages(self, host: Host, variables: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], Run]:
        """What geli_migrate and zfs_dataset_key are given in the stages, the source being imported."""
        verified = {**PLANNED, "reached": "verified", "verified": "full"}
        host.said = {"pools": ["new", "old"], "geli_migrate": PLANNED, "geli_migrate finalized": verified}
        run = host.run(variables)
        return [one for one in host.asked() if one[0] in ("geli_migrate", "zfs_dataset_key")], run

    def test_the_one_that_is_kept_comes_before_it_is_proven(self, host: Host) -> None:
        own = [{"name": "old/private", **self.COPIED}]
        given = {
            "geli_migration_key": self.COPIED,
            "geli_migration_dataset_keys": own,
            "geli_migration_allow_degraded": True,
        }
        asked, run = self.stages(host, {**given, "geli_migration_final_key": self.FINAL})
        assert [(name, options.get("state")) for name, options in asked] == [
            ("geli_migrate", None),
            ("geli_migrate", "synced"),
            ("zfs_dataset_key", None),
            ("geli_migrate", "finalized"),
        ], run.output
        for name, options in asked:
            if name == "geli_migrate":
                assert options["key"] == self.COPIED
                assert options["dataset_keys"] == own
                assert options["allow_degraded"] is True
                # The key file alone, since the module takes a value or a file.
                assert options["proof_key"] == {"file": "auto"}
        # It looks like a raw replica, and is none.
        assert asked[2][1] == {"name": "new/old", "key": self.FINAL, "mount": False, "detach_replica": True}
        assert self.COPIED["value"] not in run.output

    def test_without_another_one_it_keeps_what_it_has(self, host: Host) -> None:
        asked, _run = self.stages(host, {"geli_migration_key": self.COPIED})
        assert [name for name, _options in asked] == ["geli_migrate"] * 3
        assert all("proof_key" not in options for _name, options in asked)

    def test_it_is_not_changed_before_it_is_time(self, host: Host) -> None:
        asked, run = self.stages(host, {"geli_migration_state": "synced", "geli_migration_final_key": self.FINAL})
        assert [(name, options.get("state")) for name, options in asked] == [
            ("geli_migrate", None),
            ("geli_migrate", "synced"),
            ("geli_migrate", "synced"),
        ], run.output
