# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source: a mirror of two disks as FreeNAS encrypted them, with all that a migration has to bring along.

What is in it is summed up before the disks are encrypted, and summed up again at the target, by mounting each snapshot
and reading each file. Nothing of the collection has a part in that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vm.keys import KeyRing
from vm.machine import Failed, Machine

OLD, NEW = "old", "new/old"
HEAD = "--head--"
LINKS = "/run/nasops-geli"
GELI_KEY = "/root/keys/geli.key"
WRONG_GELI_KEY = "/root/keys/wrong.key"
LINE_KEY = "/root/keys/line"
LINE_KNOWN = "/root/keys/known_hosts"
# Seconds to encrypt a disk in place without KVM, and more.
_SLOW = 340

_PARTITION = """
for disk in {d1} {d2}; do
  sgdisk --clear --set-alignment=8 --new=1:128:+16M --typecode=1:a502 $disk >/dev/null
  # 64 KiB more than ZFS will use
  sgdisk --set-alignment=8 --new=2:40000:$((40000 + 176 * 2048 + 127)) --typecode=2:a504 $disk >/dev/null
done
udevadm settle
# Where udev lost a name amid the events of two tables in a row.
udevadm trigger --subsystem-match=block --settle
printf '{bytes}' >{key}
head -c 64 /dev/urandom >{wrong}
# It would take it for granted that a write takes 24 times its room, and wait, in a pool this small.
echo 4 >/sys/module/zfs/parameters/spa_asize_inflation
zpool create -o ashift=12 -O compression=off -O atime=off -O mountpoint=/old old mirror {d1}-part2 {d2}-part2
"""
_FILL = """
zfs create -o recordsize=1M -o quota=100M -o org.example:owner='me and you' old/docs
zfs create -o recordsize=1M old/media
zfs create old/case -o casesensitivity=insensitive
zfs create -s -V 8M old/vol
head -c 3000000 /dev/urandom >/old/docs/random
seq 1 50000 >/old/docs/numbers
ln /old/docs/numbers /old/docs/second
ln -s numbers /old/docs/link
mkfifo /old/docs/fifo
truncate -s 4M /old/docs/sparse
echo end >>/old/docs/sparse
mkdir /old/docs/many
for number in $(seq 50); do printf '%s\\n' $number $number >/old/docs/many/$number; done
echo CaSe >/old/case/Name
head -c 12000000 /dev/urandom >/old/media/film
head -c 3000000 /dev/urandom >/old/media/gone
udevadm settle
dd if=/dev/urandom of=/dev/zvol/old/vol bs=1M count=6 oflag=sync status=none
zfs snapshot -r old@one
rm /old/media/gone
echo later >/old/docs/later
head -c 6000000 /dev/urandom >/old/media/second
dd if=/dev/urandom of=/old/media/film bs=1M count=3 seek=5 conv=notrunc status=none
zfs snapshot old/docs@two old/media@two
head -c 5000000 /dev/urandom >/old/media/third
zfs snapshot old/media@three
# What a stream of the tree would leave out: a clone, a dataset and heads that are in no snapshot.
zfs clone old/docs@one old/copy
echo changed >/old/copy/numbers
zfs create old/bare
head -c 6000000 /dev/urandom >/old/bare/file
rm /old/docs/later
echo head >/old/docs/head
head -c 4000000 /dev/urandom >/old/media/head
dd if=/dev/urandom of=/dev/zvol/old/vol bs=1M count=1 seek=2 oflag=sync conv=notrunc status=none
zpool sync old
"""
# A bind mount shows a filesystem without what is mounted in it, as a snapshot does.
_SUM = """
mkdir -p /root/work/look
sum() {
  (cd /root/work/look
   find . -printf '%p %y %m %U %G %l %T@ %n\\n' | LC_ALL=C sort
   find . -type f -printf '%p %s\\n' | LC_ALL=C sort
   find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum) | sha256sum | cut -c1-64
}
"""
_SUMS_BEFORE = (
    _SUM
    + """
for name in $(zfs list -H -o name -t filesystem -r old); do
  mount --bind $(zfs get -H -o value mountpoint $name) /root/work/look
  echo "$name@--head-- $(sum)"
  umount /root/work/look
done
for name in $(zfs list -H -o name -t snapshot -r old | grep -v ^old/vol@); do
  mount -t zfs $name /root/work/look
  echo "$name $(sum)"
  umount /root/work/look
done
zfs set snapdev=visible old/vol
udevadm settle
for _try in $(seq 50); do [ -e /dev/zvol/old/vol@one ] && break; sleep 0.2; done
echo "old/vol@--head-- $(sha256sum </dev/zvol/old/vol | cut -c1-64)"
echo "old/vol@one $(sha256sum </dev/zvol/old/vol@one | cut -c1-64)"
zfs inherit snapdev old/vol
zpool export old
"""
)
_SUMS_AFTER = (
    _SUM
    + """
for name in $(zfs list -H -o name -t snapshot -r new/old | grep -v ^new/old/vol@); do
  mount -t zfs $name /root/work/look
  echo "$name $(sum)"
  umount /root/work/look
done
for name in $(zfs list -H -o name -t snapshot -r new/old | grep ^new/old/vol@); do
  zfs clone -o volmode=dev -o readonly=on $name new/look
  udevadm settle
  for _try in $(seq 50); do [ -e /dev/zvol/new/look ] && break; sleep 0.2; done
  echo "$name $(sha256sum </dev/zvol/new/look | cut -c1-64)"
  udevadm settle
  zfs destroy new/look
done
"""
)
_ENCRYPT = """
encrypt() { python3 /opt/suite/geli_writer.py $1-part2 <<<'{"slots": [{"key_files": ["{hexkey}"]}]}'; }
encrypt {d1} &
encrypt {d2}
wait $!
sync
"""
# Below everything that could keep a copy of them in memory.
_DIGEST = """
for disk in {d1} {d2}; do dd if=$disk iflag=direct bs=1M status=none | sha256sum & done | LC_ALL=C sort
wait
"""
_WRITTEN = """
for disk in {d1} {d2}; do
  read -r -a field </sys/class/block/$(basename $(readlink -f $disk))/stat
  echo ${field[4]} ${field[6]} ${field[11]} ${field[13]}
done
"""
_TARGET = """
printf '%s\\n' {hex} >/root/keys/new.key
zpool create -o ashift=12 -O encryption=on -O keyformat=hex -O keylocation=file:///root/keys/new.key \\
  -O compression=off -O mountpoint=/root/work/new new {p1}
sync
"""
# For runs that reach the target by ssh: the NAS may log into itself. It gets its list of keys anew at each start.
_LINE = """
[ -e {line} ] || ssh-keygen -q -t ed25519 -N '' -C line-to-itself -f {line} </dev/null
sed -i /line-to-itself/d /root/.ssh/authorized_keys
cat {line}.pub >>/root/.ssh/authorized_keys
(printf '127.0.0.1 '; cat /etc/ssh/ssh_host_ed25519_key.pub) >{known}
sync
"""
# After a power cut it may be imported already, and a run that was killed may have left it locked.
_OPEN_TARGET = """
zpool list new >/dev/null 2>&1 || zpool import -d /dev/disk/by-id new
[ "$(zfs get -H -o value keystatus new)" = available ] || zfs load-key new
[ "$(zfs get -H -o value mounted new)" = yes ] || zfs mount new
"""
# Where the disks are gone, it may never come back, nor may anything else that looks at the pool.
_EXPORT = """
[ -e /proc/spl/kstat/zfs/old ] || exit 0
setsid zpool export old </dev/null >/run/export-of-old 2>&1 &
for _try in $(seq 100); do
  [ -e /proc/spl/kstat/zfs/old ] || exit 0
  sleep 0.2
done
echo 'the pool was not exported:' >&2
cat /run/export-of-old >&2
exit 1
"""


@dataclass
class Source:
    """Both pools of one NAS, and what is in the old one."""

    machine: Machine
    keys: KeyRing
    contents: dict[str, str] = field(default_factory=dict)
    """By snapshot of the source, heads among them, what is in it."""
    digest: str = ""
    """Of the encrypted disks, every byte of them."""
    written: str = ""
    """The kernel's counters of what was written to them, since they were opened."""
    _snapshots: dict[str, str] = field(default_factory=dict)

    def make(self) -> None:
        """Make the disks with all that a migration has to bring along, and sum it up; and the target pool."""
        self._partition()
        self.machine.shell(_FILL)
        said = self.machine.shell(_SUMS_BEFORE, _SLOW)
        self.contents = dict(line.rsplit(" ", 1) for line in said.splitlines())
        self._encrypt()

    def make_of(self, script: str) -> None:
        """Make the disks, filled by a script that exports their pool at its end; and the target pool."""
        self._partition()
        self.machine.shell(script)
        self._encrypt()

    def _partition(self) -> None:
        words = {
            "bytes": "".join(f"\\x{byte:02x}" for byte in self._key),
            "key": GELI_KEY,
            "wrong": WRONG_GELI_KEY,
        }
        self.machine.shell(_PARTITION, **words)

    def _encrypt(self) -> None:
        self.machine.shell(_ENCRYPT, _SLOW, hexkey=self._key.hex())
        self.digest = self.machine.shell(_DIGEST, _SLOW)
        self.machine.shell(_TARGET, hex=self.keys.hex("1"))
        self.lay_line()

    @property
    def _key(self) -> bytes:
        return self.keys.raw("1") + self.keys.raw("2")

    @property
    def members(self) -> list[str]:
        return [f"{self.machine.names[disk]}-part2" for disk in ("d1", "d2")]

    def lay_line(self) -> None:
        """Let the NAS log into itself, also after it was started anew."""
        self.machine.shell(_LINE, line=LINE_KEY, known=LINE_KNOWN)

    def attach(self, keyfile: str = GELI_KEY) -> dict[str, Any]:
        """The result of the task that opens the disks."""
        return self.machine.module("geli_device", devices=self.members, keyfile=[keyfile])

    def open(self) -> None:
        """Open the disks, and import the pool, read-only.

        :raises Failed: it can't be done
        """
        result = self.attach()
        if "devices" not in result:
            raise Failed(f"the disks were not attached: {result.get('msg', result)}")
        self.written = self.machine.shell(_WRITTEN)
        self.machine.shell(f"zpool import -d {LINKS} -o readonly=on -N -R /mnt/src old")

    def close(self) -> None:
        """Export the pool, and close the disks.

        :raises Failed: it can't be done
        """
        self.machine.shell(_EXPORT)
        result = self.machine.module("geli_device", devices=self.members, state="detached")
        if "devices" not in result:
            raise Failed(f"the disks were not detached: {result.get('msg', result)}")

    def open_target(self) -> None:
        """Import and unlock the target pool, as far as it is not."""
        self.machine.shell(_OPEN_TARGET)

    def check_untouched(self) -> None:
        """:raises Failed: something was written to the disks since they were opened"""
        now = self.machine.shell(_WRITTEN)
        if now != self.written:
            raise Failed(f"something was written to the source disks: {now!r}, before {self.written!r}")

    def check_digest(self) -> None:
        """:raises Failed: a byte of the disks is another one than before the first migration"""
        now = self.machine.shell(_DIGEST, _SLOW)
        if now != self.digest:
            raise Failed(f"the source disks are not what they were: {now}, before {self.digest}")

    def snapshots(self) -> dict[str, str]:
        """What has to arrive, by name at the source: GUIDs of snapshots, and of what is in none."""
        if not self._snapshots:
            # They are what they are: nothing is written to the source.
            self._snapshots.update(self._read_snapshots())
        return self._snapshots

    def _read_snapshots(self) -> dict[str, str]:
        found = self._listed("old")
        rows = self.machine.shell("zfs get -Hp -r -t filesystem,volume -o name,value written,guid old").splitlines()
        values: dict[str, list[str]] = {}
        for name, value in (row.split("\t") for row in rows):
            values.setdefault(name, []).append(value)
        for name, (written, guid) in values.items():
            if written != "0" or not any(one.startswith(f"{name}@") for one in found):
                found[f"{name}@{HEAD}"] = guid
        return found

    def arrived(self) -> dict[str, str]:
        """What the target has, by name at the source."""
        return {name[len("new/") :]: guid for name, guid in self._listed(NEW).items()}

    def _listed(self, top: str) -> dict[str, str]:
        script = f"! zfs list {top} >/dev/null 2>&1 || zfs list -Hp -t snapshot -o name,guid -r {top}"
        return dict(line.split("\t") for line in self.machine.shell(script).splitlines())

    def differences(self) -> list[str]:
        """What the target lacks, has too much, or holds otherwise than the source; read file by file."""
        wanted, there = self.snapshots(), self.arrived()
        faults = [f"{name} is not there" for name in sorted(set(wanted) - set(there))]
        faults += [f"{name} is of nobody" for name in sorted(set(there) - set(wanted))]
        faults += [f"{name} has another GUID" for name, guid in wanted.items() if there.get(name, guid) != guid]
        said = self.machine.shell(_SUMS_AFTER, _SLOW)
        sums = dict(line.rsplit(" ", 1) for line in said.splitlines())
        found = {name[len("new/") :]: one for name, one in sums.items()}
        faults += [
            f"{name} holds something else"
            for name in sorted(set(wanted) & set(there))
            if found.get(name) != self.contents[name]
        ]
        clear = self.machine.shell(f"zfs get -H -r -t filesystem,volume -o name,value encryption {NEW}").splitlines()
        return faults + [f"{line.split()[0]} is not encrypted" for line in clear if line.endswith("\toff")]
