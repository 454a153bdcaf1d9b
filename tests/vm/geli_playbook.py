# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook ``migrate_geli``, with the disks and the backup of the configuration that a dead FreeNAS leaves."""

from __future__ import annotations

import base64
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .over_ssh import Check, Playbooks, Wanted, link_collection
from .recovery import Recovery

_CORE = "ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.core"
_PLAYBOOK = "nasops.encryption.migrate_geli"
# Names of the partitions, by which FreeNAS knows its disks.
_UUIDS = ("5c3b0d8e-0000-11e3-a1b2-d43d7e000001", "5c3b0d8e-0000-11e3-a1b2-d43d7e000002")
_KEY = "0d1c4a2e-9f0b-4f6f-8f1e-2a3b4c5d6e7f"
# FreeNAS 9.10 to 11.0; fewer iterations than it chose, since each of them is emulated here.
_SHAPE = {"version": 7, "bits": 128, "sector": 4096, "iterations": 20000}
_BACKUP = "/root/geli/nas.tar"
_PARAMETERS = {"SPL_HOSTID": "spl/parameters/spl_hostid", "TXG_TIMEOUT": "zfs/parameters/zfs_txg_timeout"}

_MAKE = """
set -e
umask 077
mkdir -p /root/geli
cat >/root/geli/given
uuids=(UUIDS)
for disk in DISKS; do
  sgdisk --clear --set-alignment=8 --new=1:128:+16M --typecode=1:a502 $disk >/dev/null
  # 64 KiB more than ZFS will use
  sgdisk --set-alignment=8 --new=2:40000:$((40000 + 72 * 2048 + 127)) --typecode=2:a504 $disk >/dev/null
  sgdisk --partition-guid=2:$uuids $disk >/dev/null
  members+=($disk-part2)
  uuids=(${uuids[@]:1})
done
udevadm settle
udevadm trigger --subsystem-match=block --settle
zpool create -o ashift=12 -O mountpoint=/oldtank oldtank mirror ${members[@]}
zfs create -o recordsize=1M -o quota=60M -o org.example:owner='me and you' oldtank/docs
zfs create -V 4M oldtank/vol
head -c 3000000 /dev/urandom >/oldtank/docs/random
seq 1 50000 >/oldtank/docs/numbers
ln /oldtank/docs/numbers /oldtank/docs/second
dd if=/dev/urandom of=/dev/zvol/oldtank/vol bs=1M count=3 oflag=sync status=none
zfs snapshot -r oldtank@one
zfs clone oldtank/docs@one oldtank/copy
echo changed >/oldtank/copy/numbers
zfs create oldtank/bare
echo bare >/oldtank/bare/file
(cd /oldtank && find . -type f | sort | xargs sha256sum) >/root/geli/sums
sha256sum </dev/zvol/oldtank/vol >/root/geli/vol.sum
zfs list -Hp -o name,guid -t snapshot -r oldtank >/root/geli/guids
zpool export oldtank
# Imported by another host, which dies: its disks are copied while it has the pool, and while nothing is written.
mv /etc/hostid /root/geli/ 2>/dev/null || true
cat SPL_HOSTID >/root/geli/spl_hostid
cat TXG_TIMEOUT >/root/geli/txg_timeout
trap 'cat /root/geli/spl_hostid >SPL_HOSTID; cat /root/geli/txg_timeout >TXG_TIMEOUT' EXIT
zgenhostid -f 0a0b0c0d
echo $((0x0a0b0c0d)) >SPL_HOSTID
zpool import -N oldtank
echo 3600 >TXG_TIMEOUT
zpool sync oldtank
sync
for member in ${members[@]}; do dd if=$member of=/root/geli/image-${member##*/} bs=1M status=none; done
zpool export oldtank
for member in ${members[@]}; do dd if=/root/geli/image-${member##*/} of=$member bs=1M conv=fsync status=none; done
rm /root/geli/image-*
zgenhostid -f 01020304
for member in ${members[@]}; do
  sed -n 1p /root/geli/given | python3 /opt/suite/geli_writer.py $member
done
sed -n 2p /root/geli/given | base64 -d >BACKUP
rm /root/geli/given
sync
cat DISKS | sha256sum >/root/geli/digest
"""
_NOT_IMPORTED = "zpool list -H -o name | grep -x oldtank || echo not imported\n"
_NOTHING_COPIED = "zfs list -H -o name -t filesystem,volume,snapshot -r newtank\n"
_COMPARE = """
set -e
zfs mount -a
cd /newtank/oldtank
sha256sum --quiet -c /root/geli/sums
[ docs/numbers -ef docs/second ]
udevadm settle
sha256sum </dev/zvol/newtank/oldtank/vol | cmp - /root/geli/vol.sum
# Each snapshot of the source is at the target under its GUID.
sed 's,^,newtank/,' /root/geli/guids | sort >/root/geli/wanted
zfs list -Hp -o name,guid -t snapshot -r newtank/oldtank | grep -v @--head-- | sort | diff - /root/geli/wanted
zfs get -H -r -t filesystem,volume -o value encryption newtank/oldtank | sort | uniq -c | xargs
zfs get -H -o value origin newtank/oldtank/copy
zfs get -Hp -o value recordsize,quota,org.example:owner newtank/oldtank/docs | xargs
# The key that it has in the end, and that of the dataset with its own.
zfs get -H -o value keyformat,keylocation newtank/oldtank newtank/oldtank/bare | xargs
zfs get -H -r -t filesystem,volume -o value encryptionroot newtank/oldtank | sort | uniq -c | xargs
"""
_SAME = """\
5 aes-256-gcm
newtank/oldtank/docs@one
1048576 62914560 me and you
hex file:///etc/zfs/keys/newtank%2Foldtank.key passphrase prompt
4 newtank/oldtank 1 newtank/oldtank/bare
"""
_PUT_AWAY = """
zpool list -H -o name | grep -x oldtank
ls /run/nasops-geli 2>/dev/null
dmsetup ls 2>/dev/null | grep eli-
cat DISKS | sha256sum | cmp - /root/geli/digest && echo not a byte of the old disks has changed
"""
# Where the migration failed, the source is still open.
_CLEAN = """
zpool export oldtank 2>/dev/null && dmsetup remove_all
zpool destroy newtank
rm -f /etc/hostid
mv /root/geli/hostid /etc/ 2>/dev/null
rm -r /root/geli
for disk in DISKS; do sgdisk --zap-all $disk >/dev/null; done
"""


def checks(playbooks: Playbooks) -> Iterator[Check]:
    """Each check in turn."""
    sys.path.insert(0, str(link_collection()))
    playbooks.temporary.mkdir(exist_ok=True)
    yield from _Course(playbooks).checks()


class _Course:
    """A pool ``oldtank`` of two disks becomes ``newtank/oldtank``."""

    def __init__(self, playbooks: Playbooks) -> None:
        self._playbooks = playbooks
        self._name = playbooks.nas.name
        self._recovery = Recovery(playbooks.temporary / "recovery")
        self._recovery.make()
        self._disks = [disk["id"] for disk in playbooks.names.disks[:2]]
        keys = playbooks.names.keys
        self._passphrase = keys.passphrase("geli", 32)
        # Copied under a passphrase and kept under a key file, with one dataset that keeps a passphrase of its own.
        self._kept = {"newtank": keys.hex("newtank"), "newtank/oldtank": keys.hex("oldtank")}
        own = {"format": "passphrase", "value": keys.passphrase("bare", 32), "iterations": 100000}
        self._inventory: dict[str, Any] = {
            "nas_hosts": "all",
            "geli_migration_pool": "oldtank",
            "geli_migration_target": "newtank/oldtank",
            "geli_migration_config_backup": _BACKUP,
            "geli_migration_passphrase": self._passphrase,
            "geli_migration_verify": "full",
            "geli_migration_key": {
                "format": "passphrase",
                "value": keys.passphrase("while it is copied", 32),
                "iterations": 100000,
            },
            "geli_migration_dataset_keys": [{"name": "oldtank/bare", **own}],
            "geli_migration_final_key": {"format": "hex", "value": self._kept["newtank/oldtank"], "file": "auto"},
            "nas_pools": [
                {
                    "name": "newtank",
                    "vdevs": [{"disks": [playbooks.names.partitions[0]["id"]]}],
                    "key": {"value": self._kept["newtank"], "file": "auto"},
                }
            ],
            "nas_key_backup": {
                "dest": str(self._recovery.folder / "{{ inventory_hostname }}.keys"),
                "seal_to": [str(self._recovery.certificate)],
            },
        }

    def checks(self) -> Iterator[Check]:
        yield self._made()
        words = "the source has to be imported and the target pool made before more can be told of newtank/oldtank"
        yield self._migrated("in check mode", [words], None, ["--check"])
        yield self._migrated("with a wrong passphrase", ["FAILED newtank/oldtank"], None, wrong=True)
        yield self._migrated("with a pool of another host", ["FAILED newtank/oldtank"], None, fails=True)
        yield self._on_nas("a pool of another host is not imported", _NOT_IMPORTED, "not imported\n")
        self._inventory["geli_migration_force_import"] = True
        # Nobody is there to type it.
        yield self._migrated("before anybody has agreed", ["FAILED newtank/oldtank"], None, fails=True)
        yield self._on_nas("nothing is copied before anybody has agreed", _NOTHING_COPIED, "newtank\n")
        # It has stayed imported. A run that imports it exports it in the end, and detaches the disks.
        yield self._on_nas("the source is exported by hand", "zpool export oldtank\n", "")
        self._inventory["geli_migration_hold"] = False
        done = "stage finalized, compared: full"
        yield self._migrated("through all stages", [f"{done}; migrated to newtank/oldtank"], None)
        yield self._on_nas("all is at the target, encrypted", _COMPARE, _SAME)
        yield self._backed_up()
        # The old disks are closed, and stay so.
        alone = f"{done}; the source is not imported, and was not looked at"
        yield self._migrated("once more, in check mode", [alone], 0, ["--check"])
        yield self._migrated("once more", [alone], 0)
        yield self._on_nas(
            "the disks are closed, and what they were", _PUT_AWAY, "not a byte of the old disks has changed\n"
        )
        yield self._on_nas("the disks are given back", _CLEAN, "")

    def _made(self) -> Check:
        """What the dead NAS has left: two disks of a mirror, and a backup of its configuration."""
        start = time.monotonic()
        keys, core = self._playbooks.names.keys, importlib.import_module(_CORE)
        key = keys.raw("geli") + keys.raw("geli, second half")
        folder = self._playbooks.temporary
        content = core.database(folder / "freenas-v1.db", [(f"gptid/{uuid}", "oldtank", 2, _KEY) for uuid in _UUIDS])
        archive = core.archive(folder / "nas.tar", {"freenas-v1.db": content, f"geli/{_KEY}.key": key})
        slots = [
            {"key_files": [key.hex()], "passphrase": self._passphrase},
            {"key_files": [keys.raw("recovery").hex()]},
        ]
        given = [json.dumps({"slots": slots, "shape": _SHAPE}), base64.b64encode(archive.read_bytes()).decode("ascii")]
        # It holds the key as FreeNAS backs it up: in the clear.
        archive.unlink()
        script = self._script(_MAKE.replace("UUIDS", " ".join(_UUIDS)).replace("BACKUP", _BACKUP))
        for word, name in _PARAMETERS.items():
            script = script.replace(word, f"/sys/module/{name}")
        self._playbooks.nas.shell(script, "\n".join(given) + "\n")
        return "two disks of a mirror, and a backup of the configuration", time.monotonic() - start, []

    def _migrated(
        self,
        name: str,
        said: Sequence[str],
        changed: int | None,
        words: Sequence[str] = (),
        fails: bool = False,
        wrong: bool = False,
    ) -> Check:
        keys = self._playbooks.names.keys
        more = {"geli_migration_passphrase": keys.passphrase("wrong geli", 32)} if wrong else {}
        wanted = Wanted(changed, fails or wrong, [f"{self._name}: {line}" for line in said])
        return self._playbooks.run(f"migrate_geli, {name}", _PLAYBOOK, {**self._inventory, **more}, wanted, words)

    def _backed_up(self) -> Check:
        """The keys in files, as openssl alone finds them in the backup; a passphrase is in somebody's head."""
        start = time.monotonic()
        found = json.loads(self._recovery.open(self._recovery.folder / f"{self._name}.keys") or "{}")
        complaints = [f"it has keys of {sorted(found)}"] if sorted(found) != sorted(self._kept) else []
        complaints += [f"the key of {root} is another one" for root in found if found[root] != self._kept.get(root)]
        return "the keys of the target are backed up", time.monotonic() - start, complaints

    def _on_nas(self, name: str, script: str, wanted: str) -> Check:
        return self._playbooks.on_nas(name, self._script(script), wanted)

    def _script(self, script: str) -> str:
        return script.replace("DISKS", " ".join(self._disks))
