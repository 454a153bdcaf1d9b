# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool on emulated self-encrypting drives: set up, locked by power cuts, unlocked by a playbook and at boot."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .drives import Drives
from .kmip_pool import kmip_server
from .over_ssh import Check, Playbooks, Wanted, link_collection

PARTS = ("sed drives", "sed pool", "sed boot")
"""Jobs of the suite, each with drives of its own."""

_MIB = 1024 * 1024
_SIZE = 256 * _MIB
_POOL = ("SED0001", "SED0002")
_SPARE = "SED0003"
# Enterprise, and not for a pool.
_BAND = "SED0004"
# That of the drive that sedutil-cli gets, which shows it in the list of processes: no key of the suite.
_SHOWN = "shown-to-all-by-sedutil"
_FOLDER = "tests/vm/playbooks"

# What other checks may have left.
_NOTHING = """
rm -rf /etc/zfs/nasops* /etc/systemd/system/nasops* /etc/systemd/system/*.wants/nasops*
systemctl daemon-reload
"""
# Reading a disk past the cache of the kernel.
_READ = """
for one in PATHS; do
    dd if=$one of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null && echo open || echo locked
done
zpool list -H -o name
zpool import 2>&1 | grep -o 'pool: vault' || true
"""
_CONTENT = "dd if=/dev/urandom bs=64k count=40 2>/dev/null | tee /vault/file | sha256sum >/root/vault.sum; sync\n"
_SAME = "sha256sum </vault/file | cmp - /root/vault.sum && echo the same\n"
_DATASETS = "zfs list -H -o name,keystatus,mounted -r vault\n"
_OPEN = "vault\tavailable\tyes\nvault/own\tavailable\tyes\nvault/words\t{}\n"
_AFTER_BOOT = """
rm -r /etc/systemd/system/nasops-unlock-drives*.service.d
systemctl is-active opal-drives nasops-unlock-drives nasops-unlock-drives-kmip zfs-import-cache nasops-zfs-unlock
journalctl -b -u 'nasops-unlock-drives*' -o cat | grep '^nasops-unlock-drives: .*[Ll]ock' | sort
at() { systemctl show --property "$2TimestampMonotonic" --value "$1.service"; }
before() { [ "$(at "$1" ActiveEnter)" -gt 0 ] && [ "$(at "$1" ActiveEnter)" -le "$(at "$2" ExecMainStart)" ]; }
for unit in nasops-unlock-drives nasops-unlock-drives-kmip; do
    before opal-drives $unit && before $unit zfs-import-cache && echo $unit between drives and import
done
"""
_BOOTED = """\
active
active
active
active
active
nasops-unlock-drives: done: Unlock range 0 of 'SED0001'
nasops-unlock-drives: done: Unlock range 0 of 'SED0002'
nasops-unlock-drives between drives and import
nasops-unlock-drives-kmip between drives and import
"""
# The controller, as the NAS reaches it.
_CONTROLLER = "10.0.2.2"
_CLIENT = "/etc/nas-kmip"
# What the NAS has of the drives: of one the password, of the other the name of the object that holds it.
_HELD = """
python3 -c '
import json
held = json.load(open("/etc/zfs/nasops-drives.json"))
print(sorted(held), list(held["passwords"]), held["kmip"]["objects"])
'
systemctl show --property After --value nasops-unlock-drives | grep -c network
systemctl show --property After --value nasops-unlock-drives-kmip | grep -ow 'network[a-z-]*.target'
journalctl -b -o cat | grep -i 'ordering cycle' || echo no unit waits for itself
"""
_LEFT = """
zpool destroy vault
rm -r /etc/nas-kmip
ls /etc/zfs/nasops* /etc/systemd/system/nasops* /etc/systemd/system/*.wants/nasops* 2>/dev/null
rm -f /root/vault.sum
"""


def checks(playbooks: Playbooks, part: str) -> Iterator[Check]:
    """Each check of a part in turn. Some of them cut the power of the NAS."""
    sys.path.insert(0, str(link_collection()))
    playbooks.temporary.mkdir(exist_ok=True)
    more = (_BAND,) if part == PARTS[0] else ()
    drives = Drives(playbooks.nas, (*_POOL, _SPARE, *more), _SIZE, {_BAND: "enterprise"})
    try:
        drives.plug()
        course = _Course(playbooks, drives)
        yield from {PARTS[0]: course.by_hand, PARTS[1]: course.by_playbook, PARTS[2]: course.at_boot}[part]()
        drives.unplug()
    finally:
        drives.close()


def _given(server: Any) -> str:
    """What gives the NAS the files by which it is a client of the server."""
    files = {
        "ca.crt": server.authority.certificate,
        "client.crt": server.alice.certificate,
        "client.key": server.alice.key,
    }
    lines = [f"cat >{_CLIENT}/{name} <<'END'\n{path.read_text().rstrip()}\nEND\n" for name, path in files.items()]
    return f"umask 077; mkdir -p {_CLIENT}\n{''.join(lines)}"


class _Course:
    """The pool ``vault`` is striped over two drives, so it is not there if one of them is locked."""

    def __init__(self, playbooks: Playbooks, drives: Drives) -> None:
        self._playbooks = playbooks
        self._drives = drives
        self._name = playbooks.nas.name
        keys = playbooks.names.keys
        self._password = keys.passphrase("drives", 32)
        self._own = keys.passphrase("a drive", 32)
        words = {"format": "passphrase", "value": keys.passphrase("words", 32), "iterations": 100000}
        pool = {
            "name": "vault",
            "vdevs": [{"disks": [drives.path(serial)]} for serial in _POOL],
            "key": {"value": keys.hex("vault"), "file": "auto"},
            "datasets": [
                {"name": "own", "key": {"value": keys.hex("own"), "file": "auto"}},
                {"name": "words", "key": words},
            ],
        }
        self._inventory: dict[str, Any] = {
            "nas_hosts": "all",
            "nas_drives": [_POOL[0], {"device": drives.path(_POOL[1]), "password": self._own}],
            "nas_drive_password": self._password,
            "nas_pools": [pool],
        }

    def by_hand(self) -> Iterator[Check]:
        """The drives without a pool, by Debian's sedutil-cli and by the native client."""
        variables = {"serials": [*_POOL, _SPARE], "spare": _SPARE, "band": _BAND, "password": _SHOWN}
        yield self._playbooks.run("drives by sedutil-cli and natively", f"{_FOLDER}/sed.yml", variables, Wanted())

    def by_playbook(self) -> Iterator[Check]:
        """Provisioned, locked by power cuts, and unlocked by the playbook."""
        yield from self._provision("", self._inventory, 3)
        used = {"serials": list(_POOL), "pool": "vault", "password": self._password}
        yield self._playbooks.run("a drive of the pool is told by its name", f"{_FOLDER}/sed_used.yml", used, Wanted(0))
        yield self._reset("power cut, which locks the drives")
        yield self._shown("the pool is not there when both drives are locked", "locked\nlocked\n")
        described = f"drive {self._drives.path(_POOL[1])}, drive {_POOL[0]}"
        yield from self._unlocked("both drives are locked", described)
        yield self._playbooks.on_nas("export the pool of the drives", "zpool export vault", "")
        start = time.monotonic()
        self._drives.pull_and_plug(_POOL[1])
        yield "a drive is pulled and plugged in again", time.monotonic() - start, []
        yield self._shown("the pool can't be imported when one drive is locked", "open\nlocked\npool: vault\n")
        yield from self._unlocked("one drive is locked", f"drive {self._drives.path(_POOL[1])}")
        yield self._playbooks.on_nas("destroy the pool of the drives", "zpool destroy vault; rm -f /root/vault.sum", "")
        yield self._tries()

    def _provision(self, which: str, inventory: Mapping[str, Any], changed: int) -> Iterator[Check]:
        """:param changed: how many tasks check mode says that they would change; that of datasets can't tell"""
        yield self._playbooks.on_nas("nothing unlocks at boot as yet", _NOTHING, "")
        for name, words, count in (
            ("in check mode", ["--check"], changed),
            ("for the first time", [], changed + 1),
            ("once more", [], 0),
        ):
            title = f"provision on drives{which}, {name}"
            yield self._playbooks.run(title, "nasops.encryption.provision", inventory, Wanted(count), words)
        start = time.monotonic()
        yield f"drives{which} are owned, and lock when their power is off", time.monotonic() - start, self._owned()
        yield self._playbooks.on_nas("something is written", _CONTENT, "")

    def _owned(self) -> list[str]:
        """What is not as it was asked for in the drives themselves."""
        complaints: list[str] = []
        for serial, password in zip(_POOL, (self._password, self._own)):
            drive = self._drives.by_serial[serial]
            pin = hashlib.pbkdf2_hmac("sha1", password.encode(), serial.ljust(20).encode(), 75000, 32)
            found = [one.value for one in drive.pins.values() if one.value]
            if found.count(pin) != 2:
                complaints.append(f"SID and Admin1 of {serial} do not have its password")
            one = drive.ranges[0]
            if not (one.read_enabled and one.write_enabled and one.lock_on_reset == (0,)):
                complaints.append(f"{serial} does not lock when its power is off: {one}")
        return complaints

    def _unlocked(self, name: str, drives: str) -> Iterator[Check]:
        """Drives, pool and datasets come up in one run; the second one has nothing to do."""
        opened = f"{self._name}: imported vault; unlocked {drives}, vault, vault/own, vault/words"
        for changed, line in ((3, opened), (0, f"{self._name}: nothing to do")):
            title = f"unlock, when {name}" if changed else f"unlock once more, when {name}"
            wanted = Wanted(changed, lines=[line])
            yield self._playbooks.run(title, "nasops.encryption.unlock", self._inventory, wanted)
        there = _OPEN.format("available\tyes") + "the same\n"
        yield self._playbooks.on_nas(f"all is there that was, when {name}", _DATASETS + _SAME, there)

    def at_boot(self) -> Iterator[Check]:
        """Provisioned, and after a power cut the NAS comes up by itself: one password is on a KMIP server."""
        with self._kmip() as server:
            yield self._playbooks.on_nas("the NAS has a certificate", _given(server), "")
            yield from self._at_boot(server)

    @contextlib.contextmanager
    def _kmip(self) -> Iterator[Any]:
        """A KMIP server on the controller, which has the password of the first drive."""
        with kmip_server(self._playbooks, _CONTROLLER) as server:
            session = server.session()
            session.activate(session.register(f"drives/{_POOL[0]}", self._password))
            session.close()
            yield server

    def _at_boot(self, server: Any) -> Iterator[Check]:
        inventory = {
            **self._inventory,
            "nas_drives": [{"device": _POOL[0], "kmip": f"drives/{_POOL[0]}"}, self._inventory["nas_drives"][1]],
            "nas_drive_unlock_at_boot": True,
            "nas_drive_kmip": {
                "server": _CONTROLLER,
                "port": server.port,
                "certificate": f"{_CLIENT}/client.crt",
                "private_key": f"{_CLIENT}/client.key",
                "ca_certificate": f"{_CLIENT}/ca.crt",
            },
        }
        yield from self._provision(" that the NAS unlocks", inventory, 4)
        start = time.monotonic()
        marks, complaints = [], []
        for unit in ("nasops-unlock-drives", "nasops-unlock-drives-kmip"):
            mark, lost = self._playbooks.mark_at_boot(unit)
            marks.append(mark)
            complaints += lost
        yield "all was recorded before the power of the drives was cut", time.monotonic() - start, complaints
        yield self._reset("power cut, which locks the drives that are unlocked at boot")
        self._playbooks.marks += marks
        yield self._playbooks.on_nas("the drives are unlocked before pools are imported", _AFTER_BOOT, _BOOTED)
        parts, filed = ["devices", "hash", "kmip", "passwords"], [self._drives.path(_POOL[1])]
        objects = {_POOL[0]: f"drives/{_POOL[0]}"}
        held = f"{parts} {filed} {objects}\n0\nnetwork.target\nno unit waits for itself\n"
        yield self._playbooks.on_nas("the NAS has one of the two passwords, and asks for the other", _HELD, held)
        there = _OPEN.format("unavailable\tno") + "the same\n"
        yield self._playbooks.on_nas("what has keys in files came up by itself", _DATASETS + _SAME, there)
        wanted = Wanted(1, lines=[f"{self._name}: unlocked vault/words"])
        yield self._playbooks.run("unlock what is left", "nasops.encryption.unlock", inventory, wanted)
        less = {**inventory, "nas_drive_unlock_at_boot": False, "nas_unlock_at_boot": False}
        name = "provision without unlocking drives at boot"
        yield self._playbooks.run(name, "nasops.encryption.provision", less, Wanted(2))
        yield self._playbooks.on_nas("no password is left on the NAS", _LEFT, "")
        yield self._tries()

    def _reset(self, name: str) -> Check:
        """Take the power from NAS and drives, and give it back; waits until the boot is through."""
        start = time.monotonic()
        self._playbooks.on_nas("sync", "sync; zpool sync", "")
        self._drives.power_cycle()
        self._playbooks.nas.reset()
        return name, time.monotonic() - start, self._playbooks.booted()

    def _shown(self, name: str, wanted: str) -> Check:
        paths = " ".join(self._drives.path(serial) for serial in _POOL)
        return self._playbooks.on_nas(name, _READ.replace("PATHS", paths), wanted)

    def _tries(self) -> Check:
        start = time.monotonic()
        wrong = [serial for serial, drive in self._drives.by_serial.items() if drive.wrong]
        return "no drive was offered a wrong password", time.monotonic() - start, [f"{one} was" for one in wrong]
