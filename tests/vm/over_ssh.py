# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same through ansible-playbook over ssh, as users do it: modules, roles and playbooks, and what a reboot does."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .case import Names
from .connection import ROOT
from .nas import Nas
from .recovery import Recovery

# Four times as long as it takes without KVM.
_SECONDS = 600
# Seconds for a reboot without KVM, generously.
_REBOOT = 300
# A host that refuses every connection.
_AWAY = {"all": {"hosts": {"away": {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}}}}

# What a power cut leaves after ZFS took the new key: it is in the file beside the one that ZFS knows of.
_INTERRUPTED = """
cd /etc/zfs/keys && mv fleet%2Fmedia.key fleet%2Fmedia.key.new
(umask 277 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \\n' >fleet%2Fmedia.key)
"""
_AFTER_REBOOT = """
zfs list -H -o name,keystatus,mounted -r fleet plain
systemctl is-active nasops-zfs-unlock.service
test -b /dev/zvol/fleet/vm1 && echo the volume is there
"""
_OPENED_AT_BOOT = """\
fleet\tavailable\tyes
fleet/media\tavailable\tyes
fleet/media/audio\tavailable\tyes
fleet/media/documents\tavailable\tyes
fleet/media/video\tunavailable\tno
fleet/vm1\tavailable\t-
plain\t-\tyes
plain/open\t-\tyes
active
the volume is there
"""

Check = tuple[str, float, Sequence[str]]
"""Name, seconds and complaints."""


@dataclass(frozen=True)
class Wanted:
    """What a run of ansible-playbook has to come to: its end, the recap of the NAS, and lines it says."""

    changed: int | None = None
    fails: bool = False
    lines: Sequence[str] = ()


@dataclass
class Playbooks:
    """Runs playbooks against the NAS."""

    nas: Nas
    names: Names
    log: Path

    def checks(self) -> Iterator[Check]:
        """Each check in turn. One of them reboots the NAS."""
        with tempfile.TemporaryDirectory() as folder:
            recovery = Recovery(Path(folder))
            recovery.make()
            yield from self._checks(recovery)

    def _checks(self, recovery: Recovery) -> Iterator[Check]:
        keys = self.names.keys
        disks = [disk["id"] for disk in self.names.disks]
        variables: dict[str, Any] = {
            "disks": disks,
            "passphrase": keys.passphrase("playbook", 40),
            "raw_key": base64.b64encode(keys.raw("playbook")).decode("ascii"),
            "wrong_key": base64.b64encode(keys.raw("wrong")).decode("ascii"),
        }
        there = {"recovery": str(recovery.folder)}
        yield self._run("what the roles make of the inventory", "tests/vm/playbooks/roles.yml", there, Wanted(0))
        yield self._run("modules over ssh", "tests/vm/playbooks/modules.yml", variables, Wanted())
        fleet = self._fleet(keys.passphrase("video", 40))
        for number, (words, changed) in enumerate(((["--check"], 2), ([], 3), (["--check"], 0), ([], 0)), 1):
            name = f"provision, run {number} of check, apply, check, apply"
            yield self._run(name, "nasops.encryption.provision", fleet, Wanted(changed), words)
        backup = {
            "dest": str(recovery.folder / "{{ inventory_hostname }}.keys"),
            "seal_to": [str(recovery.certificate)],
        }
        yield from self._backups({**fleet, "nas_key_backup": backup}, recovery)
        yield from self._daily({**fleet, "nas_key_backup": backup}, recovery)

    def _fleet(self, passphrase: str) -> dict[str, Any]:
        """The inventory variables of the NAS."""
        keys = self.names.keys
        disks = [disk["id"] for disk in self.names.disks]
        generated = {"file": "auto", "generate": True}
        video = {"format": "passphrase", "value": passphrase, "iterations": 100000}
        pools = [
            {
                "name": "fleet",
                "vdevs": [
                    {"type": "raidz2", "disks": disks[6:10]},
                    {"role": "spare", "disks": disks[10:11]},
                ],
                "key": {"value": keys.hex("role"), "file": "auto"},
                "properties": {"autotrim": True},
                "datasets": [
                    {"name": "media/video", "key": video},
                    {"name": "media/audio", "properties": {"recordsize": "1M"}},
                    {"name": "media/documents"},
                    {"name": "media", "key": generated},
                    {"name": "vm1", "volsize": "16M", "properties": {"refreservation": "none"}, "key": generated},
                ],
            },
            {
                "name": "plain",
                "cipher": "off",
                "vdevs": [{"disks": disks[11:12]}],
                "datasets": [{"name": "open", "cipher": "off"}],
            },
        ]
        return {"nas_pools": pools, "nas_hosts": "all"}

    def _backups(self, fleet: Mapping[str, Any], recovery: Recovery) -> Iterator[Check]:
        """Backups of keys: check, apply, check, apply, and what openssl alone finds in them."""
        nas, roots = self.nas.name, "fleet, fleet/media, fleet/vm1"
        current = "the backup of 3 keys is up to date"
        runs: list[tuple[list[str], int, str]] = [
            (["--check"], 1, f"would back up {roots}"),
            ([], 1, f"backed up {roots}"),
            (["--check"], 0, current),
            ([], 0, current),
        ]
        for number, (words, changed, line) in enumerate(runs, 1):
            name = f"backup of keys, run {number} of check, apply, check, apply"
            yield self._run(
                name, "nasops.encryption.backup_keys", fleet, Wanted(changed, lines=[f"{nas}: {line}"]), words
            )
        yield self._backed_up("what is in the backup", recovery, {"fleet": self.names.keys.hex("role")})

    def _backed_up(self, name: str, recovery: Recovery, wanted: Mapping[str, str]) -> Check:
        """The names in a backup, and some of its keys; those that were made on the NAS are noted for the search."""
        start = time.monotonic()
        found: dict[str, str] = json.loads(recovery.open(recovery.folder / f"{self.nas.name}.keys") or "{}")
        self.names.keys.found.update(key.encode() for root, key in found.items() if root not in wanted)
        complaints = [] if sorted(found) == ["fleet", "fleet/media", "fleet/vm1"] else [f"it has {sorted(found)}"]
        complaints += [f"the key of {root} is another one" for root in wanted if found.get(root) != wanted[root]]
        return name, time.monotonic() - start, complaints

    def _daily(self, fleet: Mapping[str, Any], recovery: Recovery) -> Iterator[Check]:
        """Lock, unlock where not all goes well, rotate, reboot, unlock, unlock again, and from the backup alone."""
        nas, keys, video = self.nas.name, self.names.keys, "fleet/media/video"
        yield self._run("lock", "nasops.encryption.lock", fleet, Wanted(1, lines=[f"{nas}: locked {video}"]))
        yield self._on_nas("export", "zpool export fleet && zpool export plain", "")
        opened = "imported fleet; imported plain; unlocked fleet, fleet/media, fleet/vm1"
        yield self._run(
            "unlock, one passphrase wrong and one host away",
            "nasops.encryption.unlock",
            {**fleet, "nas_keys": {video: keys.passphrase("wrong", 40)}},
            Wanted(2, fails=True, lines=["away: UNREACHABLE", f"{nas}: {opened}; FAILED {video}"]),
            away=True,
        )
        new = self._fleet(keys.passphrase("new video", 40))
        yield self._run(
            "rotate, what is locked too",
            "nasops.encryption.rotate_keys",
            {
                **fleet,
                "key_rotation_datasets": ["fleet/media"],
                "nas_new_keys": {video: keys.passphrase("new video", 40)},
            },
            Wanted(2, lines=[f"{nas}: backed up 3 keys; rotated fleet/media, {video}"]),
        )
        yield self._backed_up("what is in the backup after it", recovery, {"fleet": keys.hex("role")})
        yield self._on_nas("a rotation that was interrupted", _INTERRUPTED, "")
        yield self._reboot()
        yield self._on_nas("after the reboot all with key files is open", _AFTER_REBOOT, _OPENED_AT_BOOT)
        wanted = Wanted(1, lines=[f"{nas}: unlocked {video}"])
        yield self._run("unlock after the reboot", "nasops.encryption.unlock", new, wanted)
        wanted = Wanted(0, lines=[f"{nas}: nothing to do"])
        yield self._run("unlock again", "nasops.encryption.unlock", new, wanted)
        less = {**new, "nas_unlock_at_boot": False}
        yield self._run("provision without unlocking at boot", "nasops.encryption.provision", less, Wanted(2))
        yield self._on_nas("the keys are gone", "mv /etc/zfs/keys /root/away && zpool export fleet", "")
        yield self._run(
            "unlock from the sealed backup alone",
            "nasops.encryption.unlock",
            {
                "nas_hosts": "all",
                "nas_pools": [{"name": "fleet"}],
                "nas_keys": {video: keys.passphrase("new video", 40)},
                "nas_sealed_manifest": str(recovery.folder / f"{nas}.keys"),
                "nas_recovery_key": str(recovery.private_key),
            },
            Wanted(2, lines=[f"{nas}: imported fleet; unlocked fleet, fleet/media, {video}, fleet/vm1"]),
        )
        yield self._on_nas("the keys are back", "mv /root/away /etc/zfs/keys", "")
        yield self._on_nas("nothing is left", "ls /etc/zfs/nasops* /etc/zfs/keys/*.new 2>/dev/null", "")

    def _run(
        self,
        name: str,
        playbook: str,
        variables: Mapping[str, Any],
        wanted: Wanted,
        words: Sequence[str] = (),
        away: bool = False,
    ) -> Check:
        """One run with all that ansible-playbook can say, kept for the search for keys."""
        start = time.monotonic()
        path = self.log / f"playbook-{re.sub('[^a-z0-9]+', '-', name)}.log"
        # Neither the arguments nor the log hold a key: they come in a file that is gone afterwards.
        with (
            tempfile.NamedTemporaryFile("w", suffix=".json") as file,
            tempfile.NamedTemporaryFile("w", suffix=".json") as other,
            path.open("w", encoding="utf-8") as log,
        ):
            json.dump(variables, file)
            json.dump(_AWAY, other)
            file.flush()
            other.flush()
            argv = ["ansible-playbook", "-vvvv", "--diff", "-i", str(self.nas.inventory), "-e", f"@{file.name}"]
            done = subprocess.run(
                [*argv, *(("-i", other.name) if away else ()), *words, playbook],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            )
        said = path.read_text("utf-8")
        complaints: list[str] = []
        recap = re.search(rf"^{self.nas.name} +: ok=\d+ +changed=(\d+) ", said, re.M)
        if bool(done.returncode) != wanted.fails or recap is None:
            complaints.append(f"ansible-playbook ended with {done.returncode}")
            complaints += re.findall(r"^(?:fatal: .*|\[ERROR\]: .*|ERROR! .*)$", said, re.M)[-3:]
        elif wanted.changed is not None and int(recap[1]) != wanted.changed:
            complaints.append(f"changed={recap[1]}, wanted was {wanted.changed}")
        complaints += [f"nowhere it says: {line}" for line in wanted.lines if f'"{line}"' not in said]
        if complaints:
            complaints.append(f"see {path.relative_to(ROOT)}")
        return name, time.monotonic() - start, complaints

    def _on_nas(self, name: str, script: str, wanted: str) -> Check:
        """A script on the NAS, and all it prints."""
        start = time.monotonic()
        said = self._ssh(script)
        return name, time.monotonic() - start, [] if said == wanted else [f"it printed {said!r}, wanted was {wanted!r}"]

    def _reboot(self) -> Check:
        """The way an administrator does it; waits until the boot is through."""
        start = time.monotonic()
        boot = "cat /proc/sys/kernel/random/boot_id; "
        before = self._ssh(boot)
        self._ssh("systemctl --no-block reboot")
        while time.monotonic() < start + _REBOOT:
            said = self._ssh(boot + "systemctl is-system-running --wait")
            if "\n" in said and not said.startswith(before) and said.endswith(("running\n", "degraded\n")):
                return "reboot", time.monotonic() - start, []
            time.sleep(2)
        return "reboot", time.monotonic() - start, [f"it is not up after {_REBOOT} seconds"]

    def _ssh(self, script: str) -> str:
        """What a script prints; while the NAS does not answer, that is ssh's complaint."""
        done = subprocess.run(
            [*self.nas.ssh, script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_REBOOT,
            text=True,
            check=False,
        )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """With the collection of this work tree."""
        collections = ROOT / ".build" / "vm" / "collections"
        link = collections / "ansible_collections" / "nasops" / "encryption"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(ROOT)
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_DEPRECATION_WARNINGS": "1",
            "LC_ALL": "C.UTF-8",
        }
