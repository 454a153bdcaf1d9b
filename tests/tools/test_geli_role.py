# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role geli_migration by ansible-playbook: in which order it does what, and what it says of what goes wrong.

Programs play zpool, and modules play those of the collection that look at disks and pools. All else is real. Each test
has a host of its own; one run is for many of them, since most of what a run takes is its start.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from compiled import python
from setup import lock
from test_playbooks import CONFIG, Controller, Run

ROOT = Path(__file__).resolve().parents[2]

# Says what it was made to say, and keeps what it was given. The word makes Ansible hand over a file of JSON.
_MODULE = """#!/usr/bin/python
# WANT_JSON
import json, os, sys
FOLDER, NAME = os.environ["PLAYED"], {name!r}
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
import json, os, sys
FOLDER, words = os.environ["PLAYED"], sys.argv[1:]
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


@dataclass(frozen=True)
class Scene:
    """A NAS that is played: what it says, and what the inventory has of it."""

    said: Mapping[str, Any]
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """What a run did to one host, and told of it."""

    name: str
    folder: Path
    run: Run

    def asked(self) -> list[tuple[str, Any]]:
        """All that was asked of programs and modules, in order."""
        path = self.folder / "asked.log"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return list(map(tuple, found))

    def order(self) -> list[str]:
        """The same without what it was given, but for the stage."""
        return [
            f"{name} {given['state']}" if isinstance(given, dict) and "state" in given else name
            for name, given in self.asked()
        ]

    def tasks(self, report: bool) -> list[str]:
        """What was said in each task, of all hosts: in that of the report, or in the others."""
        found = re.split(r"^TASK ", self.run.output, flags=re.M)
        return [one for one in found if (" Tell what became of each host]" in one.split("\n", 1)[0]) is report]

    @property
    def output(self) -> str:
        """What was said of this host, without the report, which is about all of them.

        An error is told once more before the line of its host, and so behind that of another one.
        """
        starts = r"^(?=[a-z]+: \[|\[[A-Z ]+\]: )"
        parts = [part for one in self.tasks(False) for part in re.split(starts, one, flags=re.M)]
        return "".join(part for part in parts if re.match(rf"[a-z]+: \[{self.name}\]", part))

    @property
    def line(self) -> str:
        """Its line in the report; before that comes the one of a backup of keys."""
        (report,) = Run(self.run.status, self.tasks(True)[-1]).reports
        (line,) = (one for one in report if one.startswith(f"{self.name}: "))
        return line[len(self.name) + 2 :]

    @property
    def shown(self) -> list[list[str]]:
        """What was shown of it before the report."""
        return Run(self.run.status, self.output).reports

    @property
    def recap(self) -> str:
        (line,) = re.findall(rf"^{self.name} +: (.*)$", self.run.output, re.M)
        return str(line)


@dataclass(frozen=True)
class Stage:
    """Where such hosts are."""

    folder: Path

    def build(self) -> None:
        collection = self.folder / "collections" / "ansible_collections" / "nasops" / "encryption"
        modules = collection / "plugins" / "modules"
        modules.mkdir(parents=True)
        for path in (*ROOT.iterdir(), *(ROOT / "plugins").iterdir(), *(ROOT / "plugins" / "modules").iterdir()):
            played = path.stem in _PLAYED and path.parent.name == "modules"
            if path.name.startswith(".") or path.name in ("plugins", "modules", "action") or played:
                continue
            (collection / path.relative_to(ROOT)).symlink_to(path)
        for name in _PLAYED:
            (modules / f"{name}.py").write_text(_MODULE.format(name=name))
        (self.folder / "ansible.cfg").write_text(CONFIG)
        (self.folder / "bin").mkdir()
        program = self.folder / "bin" / "zpool"
        program.write_text(_ZPOOL.format(python=sys.executable))
        program.chmod(0o755)

    def play(
        self, scenes: Mapping[str, Scene], words: Sequence[str] = (), playbook: str = "nasops.encryption.migrate_geli"
    ) -> Run:
        """Run a playbook on a host for each scene."""
        given = {"geli_migration_pool": "old", "geli_migration_target": "new/old", "geli_migration_hold": False}
        hosts: dict[str, dict[str, Any]] = {}
        for name, scene in scenes.items():
            folder = self.folder / name
            folder.mkdir()
            (folder / "said.json").write_text(json.dumps({"pools": ["new"], **scene.said}))
            program = python(self.folder, program=f"python-{name}", PLAYED=str(folder))
            hosts[name] = {**given, **scene.variables, "ansible_python_interpreter": str(program)}
        return Controller(self.folder).run(playbook, hosts, words=words)

    def host(self, name: str, run: Run) -> Host:
        return Host(name, self.folder / name, run)


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Host]:
    """All hosts, after their runs. The first worker that asks for them has them run, and the others wait."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    path = base / "geli-role"
    found: dict[str, Host] = {}
    with lock(base / "geli-role.lock", "the runs of another worker"):
        for folder, (scenes, words) in {"ends": (ENDS, ()), "fails": (FAILS, ()), "checked": (CHECKED, CHECK)}.items():
            stage, ended = Stage(path / folder), path / folder / "run.json"
            if ended.exists():
                run = Run(*json.loads(ended.read_text()))
            else:
                stage.folder.mkdir(parents=True)
                stage.build()
                run = stage.play(scenes, words)
                ended.write_text(json.dumps([run.status, run.output]))
            found.update({name: stage.host(name, run) for name in scenes})
    return found


def row(device: str, **facts: Any) -> dict[str, Any]:
    """What geli_info tells of a disk."""
    told = {"device": device, "state": "geli", "pool": "old", "pool_guid": "1", "opens": True}
    return {**told, "problem": None, "key_error": None, **facts}


def found_disks(*rows: Mapping[str, Any]) -> dict[str, Any]:
    """What is said where the source is to be opened, and these disks are there."""
    return {"geli_info": {"changed": False, "providers": rows}, "geli_migrate": MISSING, **OPENED}


DISKS = {"geli_migration_devices": ["/dev/a2", "/dev/b2"]}
DEGRADED = {"geli_migration_allow_degraded": True}
CHANGED = {**DONE, "changed": True}
VERIFIED = {**PLANNED, "reached": "verified", "verified": "full"}
BAD = row("/dev/c2", opens=None, problem="/dev/c2 can't be read: Input/output error.")
WRONG = row("/dev/d2", opens=False, key_error="No key is offered for it.")
REFUSED: dict[str, Any] = {"failed": True, "msg": "The target 'new/old' was made by a migration of another source."}

# As OpenZFS 2.3 and the ZFS of FreeBSD 12 say it.
FOREIGN = """cannot import 'old': pool was previously in use from another system.
Last accessed by nas.local (hostid=1a2b3c4d) at Thu Nov 26 22:10:00 2026
The pool can be imported, use 'zpool import -f' to import the pool.
"""
OLDER = """cannot import 'old': pool may be in use from other system, it was last accessed by nas (hostid: 0x1a2) on Thu
use '-f' to import anyway
"""
# As on FreeBSD, where no folder holds all devices.
PATHS = ["/dev/gptid/a.eli", "/dev/gptid/b.eli"]
NO_POOL = "cannot import 'old': no such pool available\n"

FINAL = {"value": "0f" * 32, "file": "auto"}
COPIED: dict[str, Any] = {"format": "passphrase", "value": "words that nobody may see", "iterations": 100000}
OWN = [{"name": "old/private", **COPIED}]
# The source is imported.
BOTH = {"pools": ["new", "old"], "geli_migrate": PLANNED, "geli_migrate finalized": VERIFIED}

CHECK = ("--check",)
ENDS = {
    "left_alone": Scene(
        {
            "geli_migrate": DONE,
            "zfs_key_manifest": {"changed": False, "record": "keys.json", "exported": [{"dataset": "new"}]},
            "geli_info": {"failed": True, "msg": "No such file: /root/old.key"},
        },
        {
            "nas_pools": [{"name": "new"}],
            "nas_key_backup": {"dest": "keys", "unsealed": True},
            "nas_unlock_at_boot": False,
            "geli_migration_final_key": {"file": "auto"},
            "geli_migration_keyfile": ["/root/old.key"],
        },
    ),
    "imported": Scene({"pools": ["new", "old"], "geli_migrate": DONE}),
    "closed": Scene(
        {"geli_migrate": VERIFIED, **OPENED},
        {
            **DISKS,
            "nas_pools": [{"name": "new", "wipe_disks": ["S1"]}],
            "nas_unlock_at_boot": False,
            "geli_migration_state": "verified",
        },
    ),
    "key": Scene(
        BOTH,
        {
            "geli_migration_key": COPIED,
            "geli_migration_dataset_keys": OWN,
            "geli_migration_final_key": FINAL,
            "geli_migration_include": ["old/docs", "old/home/alice"],
            **DEGRADED,
        },
    ),
    "one_key": Scene(BOTH, {"geli_migration_key": COPIED}),
    "early": Scene(BOTH, {"geli_migration_state": "synced", "geli_migration_final_key": FINAL}),
}
FAILS = {
    "another": Scene(
        {
            "geli_migrate": DONE,
            "geli_migrate finalized": REFUSED,
            **OPENED,
            "geli_info": {
                "changed": False,
                "providers": [row("/dev/a2", pool_guid="2"), row("/dev/b2", pool_guid="2")],
            },
        }
    ),
    "clear": Scene(
        {"geli_migrate": {"failed": True, "msg": "These at the target are NOT ENCRYPTED: 'new/old/x'."}},
    ),
    "opened": Scene({"geli_migrate": MISSING, "geli_migrate synced": CHANGED, **OPENED}, DISKS),
    "members": Scene(
        found_disks(
            row("/dev/a2"), row("/dev/b2"), row("/dev/e2", pool="other"), row("/dev/f2", pool=None, opens=False)
        )
    ),
    "some_open": Scene(found_disks(row("/dev/a2"), BAD, WRONG), {"geli_migration_allow_degraded": False}),
    # Without any that opens, doing without the others is none.
    "none_opens": Scene(found_disks(BAD, WRONG), DEGRADED),
    "left_out": Scene(found_disks(row("/dev/a2"), BAD, WRONG), DEGRADED),
    "named": Scene(found_disks(BAD), DISKS),
    "foreign": Scene({"geli_migrate": MISSING, "zpool import": FOREIGN, **OPENED}, DISKS),
    "older": Scene({"geli_migrate": MISSING, "zpool import": OLDER, **OPENED}, DISKS),
    "forced": Scene({"geli_migrate": MISSING, **OPENED}, {**DISKS, "geli_migration_force_import": True}),
    "no_pool": Scene(
        {
            "geli_migrate": MISSING,
            "zpool import": NO_POOL,
            "geli_device": {"changed": True, "import_from": PATHS, "directory": None},
        },
        DISKS,
    ),
    "busy": Scene(
        {"geli_migrate": VERIFIED, "zpool export": "cannot export 'old': pool is busy\n", **OPENED},
        {**DISKS, "geli_migration_state": "verified"},
    ),
    "no_zfs": Scene({"pools": "The ZFS modules cannot be auto-loaded."}),
}
CHECKED = {
    "known": Scene(
        {
            "geli_migrate": DONE,
            "geli_info": {
                "changed": False,
                "providers": [
                    row("/dev/a2", pool_guid="1"),
                    row("/dev/b2", pool="other", pool_guid="2"),
                    row("/dev/c2", pool=None, pool_guid=None, opens=False),
                    row("/dev/d2", pool=None, pool_guid=None, opens=None, state="unreadable"),
                ],
            },
        }
    ),
    "unknown": Scene({"geli_migrate": MISSING, **OPENED}, DISKS),
}


class TestFinalized:
    """Once the target has taken the place of the source, nobody needs the old disks."""

    ENDED = "stage finalized, compared: full; the source is not imported, and was not looked at"

    def test_the_source_is_left_alone(self, hosts: Mapping[str, Host]) -> None:
        host = hosts["left_alone"]
        # The target pool is imported first, and what it needs is still looked after.
        assert host.order() == [
            "zfs_encrypted_pool",
            "geli_migrate",
            "geli_info",
            "zfs_dataset_key",
            "zfs_key_manifest",
        ], host.run.output
        assert host.line == self.ENDED
        # Nor did any other host of that run fail.
        assert host.run.status == 0, host.run.output
        assert "changed=0 " in host.recap
        assert host.asked()[1][1].items() >= {"source": "old", "target": "new/old"}.items()

    def test_in_check_mode_too(self, hosts: Mapping[str, Host]) -> None:
        """Other disks are none of its business, and its own may be there still."""
        host = hosts["known"]
        assert host.order() == ["geli_migrate", "geli_info"]
        told = "/dev/c2 carries GELI, was not opened, and may be of another pool of that name."
        assert host.shown == [[*DONE["notes"], told]], host.run.output
        assert host.line == self.ENDED

    def test_another_pool_of_that_name_is_not_finished(self, hosts: Mapping[str, Host]) -> None:
        host = hosts["another"]
        assert host.order() == [
            "geli_migrate",
            "geli_info",
            "geli_info",
            "geli_device",
            "zpool import",
            "geli_migrate",
            "geli_migrate finalized",
        ], host.run.output
        assert host.line == "FAILED new/old"
        assert REFUSED["msg"] in host.output

    def test_what_is_wrong_with_the_target_is_told(self, hosts: Mapping[str, Host]) -> None:
        host = hosts["clear"]
        assert host.order() == ["geli_migrate"]
        assert (host.shown, host.line) == ([], "FAILED new/old"), host.run.output
        assert "new/old: These at the target are NOT ENCRYPTED: 'new/old/x'." in host.output

    def test_before_anything_is_open_check_mode_says_so(self, hosts: Mapping[str, Host]) -> None:
        host = hosts["unknown"]
        assert host.order() == ["geli_migrate", "geli_device"], host.run.output
        words = "the source has to be imported and the target pool made before more can be told of new/old"
        assert (host.shown, host.line) == ([], words), host.run.output
        assert host.run.status == 0

    def test_it_is_asked_where_the_target_is(self, tmp_path: Path) -> None:
        """It is the second migration of the play, and what the first one did is not told of it."""
        said = {"pools": ["new", "here"], "geli_migrate": PLANNED, "geli_migrate of old/docs": DONE}
        said.update({f"geli_migrate {stage}": CHANGED for stage in ("synced", "finalized")})
        far = {"geli_migration_target_host": "nas2", "geli_migration_ssh": {"user": "root"}}
        far = {**far, "geli_migration_source": "old/docs", "geli_migration_method": "rsync"}
        role = {"include_role": {"name": "nasops.encryption.geli_migration"}}
        first = {**role, "vars": {"geli_migration_pool": "here", "geli_migration_target": "new/here"}}
        stage = Stage(tmp_path)
        stage.build()
        playbook = Controller(tmp_path).playbook(roles=[], tasks=[first, {**role, "vars": far}])
        host = stage.host("h", stage.play({"h": Scene(said)}, playbook=playbook))
        assert host.run.reports[-3:] == [
            ["h: stage finalized, compared: full; migrated to new/here"],
            DONE["notes"],
            [f"h: {self.ENDED}"],
        ], host.run.output
        given = host.asked()[3][1]
        wanted = {"source": "old/docs", "method": "rsync", "target_host": "nas2", "ssh": {"user": "root"}}
        assert given.items() >= wanted.items()

    def test_a_source_that_is_imported_is_looked_at(self, hosts: Mapping[str, Host]) -> None:
        host = hosts["imported"]
        assert host.order() == ["geli_migrate", "geli_migrate finalized"]
        assert host.line == "stage finalized, compared: full", host.run.output

    def test_until_then_the_source_is_opened(self, hosts: Mapping[str, Host]) -> None:
        """The plan, the copy and the end answer as they would; the first question fails, as without a source."""
        host = hosts["opened"]
        # The plan fails too, by the same words.
        assert host.order() == ["geli_migrate", "geli_device", "zpool import", "geli_migrate"], host.run.output
        assert (host.shown, host.line) == ([], "FAILED new/old")
        assert "new/old: cannot open 'old': dataset does not exist." in host.output


class TestMembers:
    """Which disks are attached."""

    @staticmethod
    def attached(host: Host) -> Any:
        """The disks that geli_device was given, None if it was not run."""
        return next((given["devices"] for name, given in host.asked() if name == "geli_device"), None)

    def test_those_of_the_pool(self, hosts: Mapping[str, Host]) -> None:
        assert self.attached(hosts["members"]) == ["/dev/a2", "/dev/b2"]

    @pytest.mark.parametrize("name", ["some_open", "none_opens"])
    def test_what_does_not_open_is_told_with_the_way_out(self, hosts: Mapping[str, Host], name: str) -> None:
        host = hosts[name]
        assert self.attached(host) is None, host.run.output
        for text in (
            "Members of the pool 'old' can't be opened: /dev/c2 can't be read: Input/output error; /dev/d2: No key is",
            "geli_migration_allow_degraded: true",
            "geli_migration_devices",
        ):
            assert text in host.output

    def test_it_is_left_out_where_that_is_allowed(self, hosts: Mapping[str, Host]) -> None:
        assert self.attached(hosts["left_out"]) == ["/dev/a2"]

    def test_what_is_named_is_taken_as_it_is(self, hosts: Mapping[str, Host]) -> None:
        assert self.attached(hosts["named"]) == DISKS["geli_migration_devices"]
        assert "geli_info" not in hosts["named"].order()


class TestZpool:
    """What zpool says when it fails, and what to do then."""

    @pytest.mark.parametrize(("name", "said"), [("foreign", FOREIGN), ("older", OLDER)])
    def test_a_pool_of_a_nas_that_died(self, hosts: Mapping[str, Host], name: str, said: str) -> None:
        host = hosts[name]
        assert (host.shown, host.line) == ([], "FAILED new/old"), host.run.output
        # Once where it happens, and once in the report.
        for text in (
            "The pool 'old' was not exported by the host that used it last.",
            "geli_migration_force_import: true",
            "only in the log of the pool",
            f"zpool says: {' '.join(said.split())}",
        ):
            assert host.output.count(text) >= 2, host.run.output
        assert "non-zero return code" not in host.output
        ((_name, words),) = [one for one in host.asked() if one[0] == "zpool import"]
        assert words == ["-d", "/run/nasops-geli", "-o", "readonly=on", "-N", "-R", "/mnt/geli", "old"]

    def test_it_is_imported_where_that_is_wished(self, hosts: Mapping[str, Host]) -> None:
        ((_name, words),) = [one for one in hosts["forced"].asked() if one[0] == "zpool import"]
        assert words[-2:] == ["-f", "old"]

    def test_one_that_is_not_found(self, hosts: Mapping[str, Host]) -> None:
        host = hosts["no_pool"]
        text = f"'zpool import -d {PATHS[0]} -d {PATHS[1]}'. zpool says: {NO_POOL.strip()}"
        assert text in host.output
        assert "geli_migration_force_import" not in host.output

    def test_a_source_that_can_not_be_exported(self, hosts: Mapping[str, Host]) -> None:
        host = hosts["busy"]
        assert host.order() == [
            "geli_migrate",
            "geli_device",
            "zpool import",
            "geli_migrate",
            "geli_migrate synced",
            "geli_migrate verified",
            "zpool export",
        ]
        assert host.line == "FAILED new/old", host.run.output
        assert "could not be exported: cannot export 'old': pool is busy" in host.output
        assert "geli_migration_close: false" in host.output

    def test_it_is_closed_in_the_end(self, hosts: Mapping[str, Host]) -> None:
        """Before disks may be wiped for the target, those of the source are in use."""
        host = hosts["closed"]
        assert host.order()[:5] == [
            "geli_migrate",
            "geli_device",
            "zpool import",
            "zfs_encrypted_pool",
            "geli_migrate",
        ], host.run.output
        assert host.order()[-2:] == ["zpool export", "geli_device detached"]
        assert host.line == "stage verified, compared: full", host.run.output

    def test_a_command_that_fails_is_told_in_its_own_words(self, hosts: Mapping[str, Host]) -> None:
        assert "new/old: The ZFS modules cannot be auto-loaded." in hosts["no_zfs"].output


class TestKeys:
    """Which key the target has when."""

    @staticmethod
    def stages(host: Host) -> list[tuple[str, Any]]:
        """What geli_migrate and zfs_dataset_key were given in the stages, the source being imported."""
        return [one for one in host.asked() if one[0] in ("geli_migrate", "zfs_dataset_key")]

    def test_the_one_that_is_kept_comes_before_it_is_proven(self, hosts: Mapping[str, Host]) -> None:
        asked, run = self.stages(hosts["key"]), hosts["key"].run
        assert [(name, options.get("state")) for name, options in asked] == [
            ("geli_migrate", None),
            ("geli_migrate", "synced"),
            ("zfs_dataset_key", None),
            ("geli_migrate", "finalized"),
        ], run.output
        for name, options in asked:
            if name == "geli_migrate":
                assert options["key"] == COPIED
                assert options["dataset_keys"] == OWN
                assert options["allow_degraded"] is True
                assert options["include"] == ["old/docs", "old/home/alice"]
                # The key file alone, since the module takes a value or a file.
                assert options["proof_key"] == {"file": "auto"}
        # It looks like a raw replica, and is none.
        assert asked[2][1] == {"name": "new/old", "key": FINAL, "mount": False, "detach_replica": True}
        assert COPIED["value"] not in run.output

    def test_without_another_one_it_keeps_what_it_has(self, hosts: Mapping[str, Host]) -> None:
        asked = self.stages(hosts["one_key"])
        assert [name for name, _options in asked] == ["geli_migrate"] * 3
        assert all("proof_key" not in options for _name, options in asked)

    def test_it_is_not_changed_before_it_is_time(self, hosts: Mapping[str, Host]) -> None:
        host = hosts["early"]
        assert [(name, options.get("state")) for name, options in self.stages(host)] == [
            ("geli_migrate", None),
            ("geli_migrate", "synced"),
            ("geli_migrate", "synced"),
        ], host.run.output
