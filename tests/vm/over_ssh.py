# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same through ansible-playbook over ssh, as users do it: modules, roles, playbooks, and what a power cut does."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import kills
from .case import Names
from .connection import ROOT
from .keys import letters
from .nas import Nas
from .recovery import Recovery

# Four times as long as it takes without KVM; that of a role with several boots is within it, too.
_SECONDS = 900
# Seconds for a boot without KVM, generously.
_BOOT = 300
# How many keys are rotated while the power is cut, and the seconds from the beginning within which that happens.
_ROTATED = 6
_SPAN = 3.0
# What ``thorough`` adds, for a person who wants to know what did not run.
THOROUGH = "some checks by playbooks, such as modules over ssh"
# A host that refuses every connection.
_AWAY = {"all": {"hosts": {"away": {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}}}}

# What a power cut leaves after ZFS took the new key: it is in the file beside the one that ZFS knows of.
_INTERRUPTED = """
cd /etc/zfs/keys && mv fleet%2Fmedia.key fleet%2Fmedia.key.new
(umask 277 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \\n' >fleet%2Fmedia.key)
sync
"""
# The mark comes in two halves, so that it is not in the arguments of the shell that leaves it.
_MARK_AT_BOOT = """
unit=/etc/systemd/system/UNIT.service.d
mkdir -p $unit
printf '[Service]\\nExecStartPre=/bin/true --mark=%s%s\\n' HALVES >$unit/suite.conf
auditctl -s | grep '^lost'
sync
"""
_KEY_FILES = """
for file in /etc/zfs/keys/*; do
    [ -f "$file" ] && base64 -w0 <"$file" && echo
done
"""
_EXPORT_OTHERS = """
zpool list -H -o name | grep -vx -e fleet -e plain | while IFS= read -r pool; do
    zpool export "$pool" </dev/null
done
zpool list -H -o name
"""
_AFTER_BOOT = """
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
    marks: list[str] = field(default_factory=list)
    """Gets what was executed on purpose, at boot and after it."""
    thorough: bool = False
    """Whether what other checks come close to is wanted, too."""

    def checks(self) -> Iterator[Check]:
        """Each check in turn. One of them cuts the power of the NAS."""
        self.temporary.mkdir(exist_ok=True)
        # Stays there, so that backups are searched for keys like all else.
        recovery = Recovery(self.temporary / "recovery")
        recovery.make()
        keys = self.names.keys
        variables: dict[str, Any] = {
            # The first one is for the power cut.
            "partitions": [partition["id"] for partition in self.names.partitions[1:]],
            "passphrase": keys.passphrase("playbook", 40),
            "raw_key": base64.b64encode(keys.raw("playbook")).decode("ascii"),
            "wrong_key": base64.b64encode(keys.raw("wrong")).decode("ascii"),
        }
        there = {"recovery": str(recovery.folder)}
        yield self.run("what the roles make of the inventory", "tests/vm/playbooks/roles.yml", there, Wanted(0))
        if self.thorough:
            yield self.run("modules over ssh", "tests/vm/playbooks/modules.yml", variables, Wanted())
        fleet = self._fleet(keys.passphrase("video", 40))
        for number, (words, changed) in enumerate(((["--check"], 2), ([], 3), (["--check"], 0), ([], 0)), 1):
            name = f"provision, run {number} of check, apply, check, apply"
            yield self.run(name, "nasops.encryption.provision", fleet, Wanted(changed), words)
        backup = {
            "dest": str(recovery.folder / "{{ inventory_hostname }}.keys"),
            "seal_to": [str(recovery.certificate)],
        }
        # Pools that are not in the inventory would be backed up too, and nobody gives their keys.
        yield self.on_nas("only the pools of the inventory are left", _EXPORT_OTHERS, "fleet\nplain\n")
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
        """A backup of keys, nothing left to do, and what openssl alone finds in it."""
        playbook, nas = "nasops.encryption.backup_keys", self.nas.name
        wanted = Wanted(1, lines=[f"{nas}: backed up fleet, fleet/media, fleet/vm1"])
        yield self.run("backup of keys", playbook, fleet, wanted)
        if self.thorough:
            record = json.loads((recovery.folder / f"{nas}.keys.json").read_text())
            wanted = Wanted(0, lines=[f"{nas}: the backup of 3 keys is up to date, proven {record['proven']}"])
            yield self.run("backup of keys, checked afterwards", playbook, fleet, wanted, ["--check"])
        yield self._backed_up("what is in the backup", recovery, {"fleet": self.names.keys.hex("role")})

    def _backed_up(self, name: str, recovery: Recovery, wanted: Mapping[str, str]) -> Check:
        """The names in a backup, and some of its keys."""
        start = time.monotonic()
        found: dict[str, str] = json.loads(recovery.open(recovery.folder / f"{self.nas.name}.keys") or "{}")
        complaints = [] if sorted(found) == ["fleet", "fleet/media", "fleet/vm1"] else [f"it has {sorted(found)}"]
        complaints += [f"the key of {root} is another one" for root in wanted if found.get(root) != wanted[root]]
        return name, time.monotonic() - start, complaints

    def _daily(self, fleet: Mapping[str, Any], recovery: Recovery) -> Iterator[Check]:
        """Lock, unlock where not all goes well, rotate, power cut, unlock, again, and from the backup alone."""
        nas, keys, video = self.nas.name, self.names.keys, "fleet/media/video"
        yield self.run("lock", "nasops.encryption.lock", fleet, Wanted(1, lines=[f"{nas}: locked {video}"]))
        yield self.on_nas("export", "zpool export fleet && zpool export plain", "")
        opened = "imported fleet; imported plain; unlocked fleet, fleet/media, fleet/vm1"
        yield self.run(
            "unlock, one passphrase wrong and one host away",
            "nasops.encryption.unlock",
            {**fleet, "nas_keys": {video: keys.passphrase("wrong", 40)}},
            Wanted(2, fails=True, lines=["away: UNREACHABLE", f"{nas}: {opened}; FAILED {video}"]),
            away=True,
        )
        new = self._fleet(keys.passphrase("new video", 40))
        self._note_keys()
        yield self.run(
            "rotate, what is locked too",
            "nasops.encryption.rotate_keys",
            {
                **fleet,
                "key_rotation_datasets": ["fleet/media"],
                "nas_new_keys": {video: keys.passphrase("new video", 40)},
            },
            Wanted(2, lines=[f"{nas}: backed up 3 keys; rotated fleet/media, {video}"]),
        )
        self._note_keys()
        yield self._backed_up("what is in the backup after it", recovery, {"fleet": keys.hex("role")})
        yield self.on_nas("a rotation that was interrupted", _INTERRUPTED, "")
        yield from self._power_cut()
        yield self.on_nas("after the power cut all with key files is open", _AFTER_BOOT, _OPENED_AT_BOOT)
        yield self._recovered()
        # The inventory has the former passphrase; a manifest counts before it, and holds keys of other hosts too.
        manifest = json.dumps({video: keys.passphrase("new video", 40), "elsewhere/media": keys.hex("elsewhere")})
        wanted = Wanted(1, lines=[f"{nas}: unlocked {video}"])
        after = {**fleet, "nas_manifest": manifest}
        yield self.run("unlock after the power cut", "nasops.encryption.unlock", after, wanted)
        wanted = Wanted(0, lines=[f"{nas}: nothing to do"])
        yield self.run("unlock again", "nasops.encryption.unlock", new, wanted)
        if not self.thorough:
            return
        less = {**new, "nas_unlock_at_boot": False}
        yield self.run("provision without unlocking at boot", "nasops.encryption.provision", less, Wanted(2))
        yield self.on_nas("the keys are gone", "mv /etc/zfs/keys /root/away && zpool export fleet", "")
        yield self.run(
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
        yield self.on_nas("the keys are back", "mv /root/away /etc/zfs/keys", "")
        yield self.on_nas("nothing is left", "ls /etc/zfs/nasops* /etc/zfs/keys/*.new 2>/dev/null", "")
        new["nas_pools"][1]["datasets"].append({"name": "no/parent"})
        wanted = Wanted(1, fails=True)
        yield self.run("provision where one dataset can't be made", "nasops.encryption.provision", new, wanted)
        script = "systemctl is-enabled nasops-zfs-unlock.service"
        yield self.on_nas("at the next boot the others are unlocked all the same", script, "enabled\n")

    def run(
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
        # Neither the arguments nor the log hold a key: they come in a file that is gone afterwards.
        with (
            tempfile.NamedTemporaryFile("w", suffix=".json", dir=self.temporary) as file,
            tempfile.NamedTemporaryFile("w", suffix=".json", dir=self.temporary) as other,
        ):
            json.dump(variables, file)
            json.dump(_AWAY, other)
            file.flush()
            other.flush()
            argv = ["-vvvv", "--diff", "-i", str(self.nas.inventory), "-e", f"@{file.name}"]
            argv += [*(("-i", other.name) if away else ()), *words, playbook]
            temporary = {"ANSIBLE_LOCAL_TEMP": str(self.temporary), "TMPDIR": str(self.temporary)}
            complaints = play(name, argv, self.log, self.nas.name, wanted, temporary)
        return name, time.monotonic() - start, complaints

    def on_nas(self, name: str, script: str, wanted: str) -> Check:
        """A script on the NAS, and all it prints."""
        start = time.monotonic()
        said = self.shell(script)
        return name, time.monotonic() - start, [] if said == wanted else [f"it printed {said!r}, wanted was {wanted!r}"]

    def _power_cut(self) -> Iterator[Check]:
        """Cut the power while keys of a pool of its own are rotated; waits until the boot that follows is through."""
        start = time.monotonic()
        kills.send(self.nas, self.names.keys)
        device = self.names.partitions[0]["id"]
        prepared = self._fault(f"prepare {_ROTATED} {device}")
        mark, complaints = self.mark_at_boot("nasops-zfs-unlock")
        complaints += [prepared.stderr.strip()] if prepared.returncode else []
        yield "all that was executed before the power cut was recorded", time.monotonic() - start, complaints
        start = time.monotonic()
        moment = random.uniform(0.0, _SPAN)
        words = kills.command(self.nas, f"rotate {_ROTATED}")
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                begun = process.stdout is not None and bool(process.stdout.readline())
                time.sleep(moment)
                self.nas.reset()
            finally:
                process.kill()
        complaints = [*([] if begun else ["no rotation began"]), *self.booted()]
        after = letters(20)
        self.shell(f"/bin/true --mark={after}; rm -r /etc/systemd/system/nasops-zfs-unlock.service.d")
        self.marks += [mark, after]
        yield f"power cut {moment:.1f} s after a rotation began, and boot", time.monotonic() - start, complaints

    def _recovered(self) -> Check:
        """What the power cut has left of the keys, and what the next run makes of it."""
        start = time.monotonic()
        done = self._fault(f"recover {_ROTATED}")
        complaints = [done.stderr.strip()] if done.returncode else []
        half = 0
        for row in map(json.loads, done.stdout.splitlines()):
            half = row["half_done"]
            complaints += [row["loss"]] if row["loss"] else []
        self._fault("destroy")
        self.shell(f"rm -rf {kills.FOLDER}")
        name = f"a rotation goes on after the power cut, which left {half} of {_ROTATED} keys half done"
        return name, time.monotonic() - start, complaints

    def _fault(self, words: str) -> subprocess.CompletedProcess[str]:
        """A part of the fault tests, on the NAS."""
        return subprocess.run(
            kills.command(self.nas, words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            text=True,
            check=False,
        )

    def mark_at_boot(self, unit: str) -> tuple[str, list[str]]:
        """Let a unit execute a mark at the next boot; the mark, and what was not recorded until now."""
        halves = [letters(10), letters(10)]
        lost = self.shell(_MARK_AT_BOOT.replace("UNIT", unit).replace("HALVES", " ".join(halves)))
        return "".join(halves), [] if lost == "lost 0\n" else [f"the kernel says: {lost.strip()}"]

    def booted(self) -> list[str]:
        """Wait until the boot is through; complaints if it is not."""
        state = self.shell("systemctl is-system-running --wait").strip()
        return [] if state in ("running", "degraded") else [f"the boot is not through, it is {state!r}"]

    def _note_keys(self) -> None:
        """Generated keys are searched for as well, also those that are replaced later."""
        for line in self.shell(_KEY_FILES).splitlines():
            self.names.keys.note(base64.b64decode(line))

    def shell(self, script: str) -> str:
        """What a script prints; while the NAS does not answer, that is ssh's complaint."""
        done = subprocess.run(
            [*self.nas.ssh, script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_BOOT,
            text=True,
            check=False,
        )
        return done.stdout

    @property
    def temporary(self) -> Path:
        """Where the controller keeps temporary files; it is searched with the logs."""
        return self.log.resolve() / "tmp"


def link_collection() -> Path:
    """Where Ansible and Python find the collection of this work tree."""
    collections = ROOT / ".build" / "vm" / "collections"
    link = collections / "ansible_collections" / "nasops" / "encryption"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(ROOT)
    return collections


def play(
    name: str, words: Sequence[str], log: Path, host: str, wanted: Wanted, environment: Mapping[str, str]
) -> list[str]:
    """Run ansible-playbook with the collection of this work tree; what it came to for a host that was not wanted.

    All that it says is kept in a file below ``log``.
    """
    path = log / f"playbook-{re.sub('[^a-z0-9]+', '-', name)}.log"
    env = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(link_collection()),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "1",
        "LC_ALL": "C.UTF-8",
        **environment,
    }
    with path.open("w", encoding="utf-8") as said:
        done = subprocess.run(
            ["ansible-playbook", *words],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    text = path.read_text("utf-8")
    complaints: list[str] = []
    recap = re.search(rf"^{host} +: ok=\d+ +changed=(\d+) ", text, re.M)
    if bool(done.returncode) != wanted.fails or recap is None:
        complaints.append(f"ansible-playbook ended with {done.returncode}")
        complaints += re.findall(r"^(?:fatal: .*|\[ERROR\]: .*|ERROR! .*)$", text, re.M)[-3:]
    elif wanted.changed is not None and int(recap[1]) != wanted.changed:
        complaints.append(f"changed={recap[1]}, wanted was {wanted.changed}")
    complaints += [f"nowhere it says: {line}" for line in wanted.lines if f'"{line}"' not in text]
    if complaints:
        complaints.append(f"see {path.relative_to(ROOT)}")
    return complaints
