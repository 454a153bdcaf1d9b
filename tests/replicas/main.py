# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof: two NAS, a line between them that breaks, keys that change, and in the end the same content twice."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vm.connection import ROOT, AgentLost
from vm.expect import warnings_of
from vm.keys import KeyRing, letters
from vm.leaks import Search
from vm.machine import Failed, Machine
from vm.nas import Nas, NasError, prepare

from .line import Line

BUILD = ROOT / ".build" / "replicas"
# What the bare pipe does in the same time.
LIMIT = 0.97
SAMPLES = 3
# MiB of the stream that is timed.
SIZE = 160
GATEWAY = "10.0.2.2"

MAKE_SOURCE = """
mkdir -p -m 700 /root/keys /root/work
printf '%s\\n' {hex1} >/root/keys/tank.key
zpool create -O encryption=on -O keyformat=hex -O keylocation=file:///root/keys/tank.key -O compression=off \\
  -O mountpoint=/root/work/tank tank {p1} {p2}
zfs create tank/docs
zfs create tank/docs/deep
zfs create -o keyformat=passphrase -o pbkdf2iters=100000 -o keylocation=prompt tank/media <<<{pass1}
zfs create -V 8M tank/media/vol
udevadm settle
for number in 1 2 3; do head -c 8000000 /dev/urandom >/root/work/tank/docs/$number; done
head -c 4000000 /dev/urandom >/root/work/tank/docs/deep/file
head -c 6000000 /dev/urandom >/root/work/tank/media/file
for number in $(seq 1000); do echo '{mark}'; done >/root/work/tank/docs/words
dd if=/dev/urandom of=/dev/zvol/tank/media/vol bs=1M count=6 conv=fsync status=none
ssh-keygen -q -t ed25519 -N '' -f /root/work/id </dev/null
cat /root/work/id.pub
"""
MAKE_TARGET = """
mkdir -p /root/work
zpool create -O mountpoint=/root/work/backup -O compression=off backup {p1} {p2}
mkdir -p -m 700 /root/.ssh
cat >>/root/.ssh/authorized_keys <<'END'
{public}
END
cat /etc/ssh/ssh_host_ed25519_key.pub
"""
MORE = """
head -c $((2000000 + RANDOM * 120)) /dev/urandom >/root/work/tank/docs/$(( RANDOM % 5 ))
head -c 900000 /dev/urandom >/root/work/tank/docs/deep/file
head -c 1200000 /dev/urandom >/root/work/tank/media/more
dd if=/dev/urandom of=/dev/zvol/tank/media/vol bs=256k count=1 conv=fsync status=none
"""
NEW_KEYS = """
printf '%s\\n' {hexkey} >/root/keys/tank.next
zfs change-key -o keylocation=file:///root/keys/tank.next tank
mv /root/keys/tank.next /root/keys/tank.key
zfs set keylocation=file:///root/keys/tank.key tank
zfs change-key -o keyformat=passphrase -o pbkdf2iters=100000 -o keylocation=prompt tank/media <<<{passkey}
"""
DIGESTS = """
cd /root/work/{place}
find . -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum
udevadm settle
sha256sum </dev/zvol/{dataset}/media/vol
"""
# The raw disks, below everything that could decrypt them.
ON_DISK = "zpool sync; for disk in {p1} {p2}; do LC_ALL=C grep -a -o -m1 '{mark}' $disk || true; done"
BARE = """
zpool sync
begun=$(date +%s.%N)
zfs send -w -R bench@x | zfs receive -s -u sink/bare
ended=$(date +%s.%N)
zfs destroy -r sink/bare
zpool sync
echo "$ended - $begun" | bc -l 2>/dev/null || python3 -c "print($ended - $begun)"
"""


@dataclass
class Proof:
    """The steps, in order, on two NAS that run."""

    source: Machine
    target: Machine
    seed: int
    keys: KeyRing = field(default_factory=KeyRing)
    mark: str = field(default_factory=lambda: letters(32))
    generation: int = 1
    cuts: list[tuple[int, int, str, bool]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)

    def say(self, text: str) -> None:
        print(text, flush=True)

    def run(self, cuts: int) -> None:
        """:raises Failed: it does not hold"""
        line = Line(int(self.target.nas.status["port"]))
        try:
            self.prepare(line)
            self.break_often(line, cuts)
            self.finish()
            self.compare()
            self.keys_of_then_and_now()
        finally:
            line.close()
        self.unlock_and_compare()
        self.measure()

    def prepare(self, line: Line) -> None:
        words = {"hex1": self.keys.hex("1"), "pass1": self.keys.passphrase("1", 24), "mark": self.mark}
        public = self.source.shell(MAKE_SOURCE, **words)
        host = self.target.shell(MAKE_TARGET, public=public.splitlines()[-1])
        kind, key = host.split()[:2]
        self.source.shell(f"echo '[{GATEWAY}]:{line.port} {kind} {key}' >/root/work/known")
        self.options: dict[str, Any] = {
            "source": "tank",
            "target": "backup/nas1",
            "target_host": GATEWAY,
            "ssh": {
                "user": "root",
                "port": line.port,
                "identity_file": "/root/work/id",
                "known_hosts_file": "/root/work/known",
            },
            "stall_timeout": 60,
        }
        unknown = {**self.options["ssh"], "known_hosts_file": "/root/work/none"}
        said = str(self.source.module("zfs_replicate", **{**self.options, "ssh": unknown}).get("msg"))
        if "Host key verification failed" not in said:
            raise Failed(f"a host whose key is not known was not refused: {said}")
        self.say("replicas: a host whose key is not known was refused")

    def break_often(self, line: Line, cuts: int) -> None:
        chance = random.Random(self.seed)
        up_to_date = 0
        while len(self.cuts) < cuts:
            # What is on the way when the line breaks is lost: some MiB in the buffers of ssh and of the network.
            silent = len(self.cuts) % 5 == 4
            line.arm(chance.randrange(300_000, 8_000_000), silent)
            result = self.source.module(
                "zfs_replicate", **{**self.options, **({"stall_timeout": 20} if silent else {})}
            )
            carried, broke = line.carried, line.disarm()
            if "replicas" in result:
                up_to_date += 1
                self.source.shell(MORE)
                if up_to_date % 2:
                    self.change_keys()
                continue
            said = str(result.get("msg", result))
            if not broke:
                raise Failed(f"the line did not break, and yet it failed: {said}")
            if silent and "Nothing has moved for 20 seconds" not in said:
                raise Failed(f"a line that swallows everything was not noticed: {said}")
            going_on = "on" if any("broke off" in one for one in result.get("actions_done", ())) else ""
            going_on = going_on or ("on" if "Failed to go on" in said else "new")
            self.cuts.append((len(self.cuts) + 1, carried, going_on, silent))
            how = "went silent" if silent else "cut"
            self.say(f"replicas: {how} {len(self.cuts)}: {carried} bytes ({going_on}): {said.splitlines()[0][:150]}")

    def change_keys(self) -> None:
        self.generation += 1
        name = str(self.generation)
        self.source.shell(NEW_KEYS, hexkey=self.keys.hex(name), passkey=self.keys.passphrase(name, 24))

    def finish(self) -> None:
        first, result = (self.source.module("zfs_replicate", **self.options) for _attempt in range(2))
        for one in (first, result):
            if "replicas" not in one:
                raise Failed(f"without a cut it failed all the same: {one.get('msg', one)}")
        if result["changed"]:
            raise Failed(f"it found something to do a second time: {result['actions']}")
        roots = {row["name"]: row["opened_by"] for row in result["roots"]}
        if roots != {"backup/nas1": "tank", "backup/nas1/media": "tank/media"}:
            raise Failed(f"these are the encryption roots of the replica: {roots}")
        self.facts.append(("runs to the end after the last cut, then nothing to do", "1"))

    def compare(self) -> None:
        listed = "zfs list -Hp -t snapshot -o name,guid -s name -r "
        ours, theirs = self.source.shell(listed + "tank"), self.target.shell(listed + "backup/nas1")
        if ours.replace("tank", "backup/nas1") != theirs:
            raise Failed(f"the snapshots differ:\n{ours}\n{theirs}")
        self.facts.append(("snapshots with the same GUID at both ends", str(len(ours.splitlines()))))
        if self.target.shell(ON_DISK, mark=self.mark):
            raise Failed("what is in the files can be read on the disks of the target")
        self.target.shell(f"echo {self.mark} >/root/work/backup/plain; zpool sync")
        if self.mark not in self.target.shell(ON_DISK, mark=self.mark):
            raise Failed("not even what was written there in the clear was found on the disks of the target")
        self.facts.append(("words of the files on the disks of the target", "0"))

    def opens(self, dataset: str, key: str) -> bool:
        script = f"zfs load-key -n -L prompt {dataset} <<<{{key}} >/dev/null 2>&1 && echo yes || echo no"
        return self.target.shell(script, key=key) == "yes"

    def keys_of_then_and_now(self) -> None:
        """The former keys open the replica until the next increment, the new ones after it."""
        former = self.generation
        self.change_keys()
        for what, good, bad in (("former", former, self.generation), ("new", self.generation, former)):
            if what == "new":
                result = self.source.module("zfs_replicate", **self.options)
                if not any("tank/media" in one and "was changed" in one for one in warnings_of(result)):
                    raise Failed(f"the change of a passphrase was not told: {warnings_of(result)}")
            for dataset, make in (("backup/nas1", self.keys.hex), ("backup/nas1/media", self._passphrase)):
                if not self.opens(dataset, make(str(good))) or self.opens(dataset, make(str(bad))):
                    raise Failed(f"'{dataset}' is not opened by the {what} key alone")
        self.facts.append(("changes of keys at the source", str(self.generation - 1)))

    def _passphrase(self, name: str) -> str:
        return self.keys.passphrase(name, 24)

    def unlock_and_compare(self) -> None:
        """By the manifest of the source under other names, the roots that are in it and no other."""
        with tempfile.TemporaryDirectory() as folder:
            manifest = self._manifest(Path(folder))
        if set(manifest) != {"backup/nas1"}:
            raise Failed(f"the manifest has other names: {sorted(manifest)}")
        state = {"name": "backup/nas1", "state": "unlocked"}
        result = self.target.module("zfs_dataset_key", **state, manifest=manifest)
        if result.get("unlocked") != ["backup/nas1"]:
            raise Failed(f"the manifest opened something else: {result.get('unlocked', result)}")
        if self.target.shell("zfs get -H -o value keystatus backup/nas1/media") != "unavailable":
            raise Failed("a dataset with a passphrase was opened by a manifest without it")
        both = {**manifest, "backup/nas1/media": self._passphrase(str(self.generation))}
        result = self.target.module("zfs_dataset_key", **state, recursive=True, manifest=both)
        if result.get("unlocked") != ["backup/nas1/media"]:
            raise Failed(f"the passphrase opened something else: {result.get('unlocked', result)}")
        ours = self.source.shell(DIGESTS, place="tank", dataset="tank")
        theirs = self.target.shell(DIGESTS, place="backup/nas1", dataset="backup/nas1")
        if ours != theirs or len(ours.splitlines()) < 6:
            raise Failed(f"the content differs:\n{ours}\n{theirs}")
        self.facts.append(("files and volumes with the same SHA-256 at both ends", str(len(ours.splitlines()))))

    def _manifest(self, folder: Path) -> Mapping[str, str]:
        """What the module seals on the source, opened and renamed by the filters of the collection."""
        argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        argv += ["-subj", "/CN=recovery", "-days", "30", "-keyout", "private.pem", "-out", "certificate.pem"]
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)
        sealed = self.source.module(
            "zfs_key_manifest", name="tank", dest="/nowhere", seal_to=[(folder / "certificate.pem").read_text()]
        )
        if "sealed" not in sealed:
            raise Failed(f"the keys were not sealed: {sealed.get('msg', sealed)}")
        (folder / "keys").write_text(sealed["sealed"])
        link = folder / "ansible_collections" / "nasops" / "encryption"
        link.parent.mkdir(parents=True)
        link.symlink_to(ROOT)
        sys.path.insert(0, str(folder))
        try:
            from ansible_collections.nasops.encryption.plugins.filter import open_manifest, remap_manifest

            opened = open_manifest.FilterModule().filters()["open_manifest"](
                (folder / "keys").read_text(), str(folder / "private.pem")
            )
            named = remap_manifest.FilterModule().filters()["remap_manifest"](opened, {"tank": "backup/nas1"})
        finally:
            sys.path.remove(str(folder))
        return dict(json.loads(named) if isinstance(named, str) else named)

    def measure(self) -> None:
        """A stream of the module and the bare pipe, in turn, between two pools of one NAS."""
        self.source.shell("zpool destroy tank")
        self.source.shell(
            "zpool create -O encryption=on -O keyformat=hex -O keylocation=file:///root/keys/tank.key "
            "-O mountpoint=/root/work/bench bench {p1} {p2}; zpool create -O mountpoint=none sink {p3} {p4}"
        )
        self.source.shell(f"head -c {SIZE << 20} /dev/urandom >/root/work/bench/file; zfs snapshot bench@x")
        bare: list[float] = []
        ours: list[float] = []
        for _sample in range(SAMPLES):
            bare.append(float(self.source.shell(BARE)))
            result = self.source.module("zfs_replicate", source="bench", target="sink/ours", snapshot="x")
            if "sent" not in result or len(result["sent"]) != 1:
                raise Failed(f"the stream to be timed failed: {result.get('msg', result)}")
            ours.append(float(result["sent"][0]["seconds"]))
            self.source.shell("zfs destroy -r sink/ours; zpool sync")
            self.say(f"replicas: {SIZE} MiB: bare pipe {bare[-1]:.1f} s, zfs_replicate {ours[-1]:.1f} s")
        ratio = min(bare) / min(ours)
        self.facts.append((f"throughput, zfs_replicate / bare pipe (best of {SAMPLES})", f"{ratio:.3f}"))
        if ratio < LIMIT:
            raise Failed(f"the throughput is {ratio:.3f} of the bare pipe's; wanted is {LIMIT}")

    def search(self) -> None:
        """:raises Failed: a key is somewhere it must not be"""
        found: list[str] = []
        for machine in (self.source, self.target):
            search = Search(machine.agent, self.keys, machine.log, machine.nas.console)
            for name, complaints in search.checks():
                found += [f"{machine.nas.name}: {name}: {complaint}" for complaint in complaints]
        if found:
            raise Failed("\n".join(found))
        self.facts.append(("keys in arguments, logs, journals, environments, files", "0"))

    def table(self) -> None:
        self.say(
            f"\nseed {self.seed}\n\n| cut | the line | bytes carried until then | stream |\n| --- | --- | --- | --- |"
        )
        for number, carried, going_on, silent in self.cuts:
            line = "swallowed all" if silent else "broke"
            self.say(f"| {number} | {line} | {carried} | {'went on' if going_on == 'on' else 'new'} |")
        self.say("\n| what | |\n| --- | --- |")
        for what, value in self.facts:
            self.say(f"| {what} | {value} |")


def main() -> int:
    """Boot two NAS, prove, print a table."""
    parser = argparse.ArgumentParser(description="Proves zfs_replicate between two NAS with real ZFS.")
    parser.add_argument("--cuts", type=int, default=20, help="how often the line is cut (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16), help="of the cuts")
    parser.add_argument("--keep", action="store_true", help="do not destroy the NAS")
    options = parser.parse_args()
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    begun = time.monotonic()
    machines = [Machine(Nas(f"replicas-{name}", cpus=2), BUILD / name) for name in ("source", "target")]
    proof = Proof(machines[0], machines[1], options.seed)
    try:
        prepare(BUILD / "image.txt", print)
        print("replicas: booting two NAS; without KVM the whole takes a quarter of an hour", flush=True)
        for machine in machines:
            machine.open()
        proof.run(options.cuts)
        proof.search()
    except (Failed, AgentLost, NasError) as error:
        print(f"replicas: FAILED: {error}", flush=True)
        proof.table()
        return 1
    finally:
        for machine in machines:
            if hasattr(machine, "agent"):
                machine.agent.close()
            if not options.keep:
                machine.nas.destroy()
    proof.table()
    print(f"\nreplicas: all of it holds; {time.monotonic() - begun:.0f} s in all", flush=True)
    return 0
