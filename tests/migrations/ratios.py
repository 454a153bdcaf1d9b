# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast it is, against the bare programs on the same disks: only ratios within one run are worth anything."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vm.connection import REMOTE
from vm.machine import Failed, Machine

from .source import GELI_KEY, LINKS, Source

SAMPLES = 5
# MB of random data in the pool that is migrated. ZFS keeps half of so small a pool free.
DATA = 75
# Reads of a device, and the MiB of each: more than one request of the kernel, which it gathers then, as it does for
# ZFS, so that a disk is asked for sectors of GELI by the hundred. Of one request, each would be a command of its own.
READS, READ = 8, 8
# Seconds for each of what is measured by time.
SECONDS = 4
WORKERS = 2

_FILL = """
zfs create old/data
head -c {bytes} /dev/urandom >/old/data/file
zfs snapshot old/data@x
zpool export old
"""
# So that nothing of it is in memory.
_IMPORT = f"""
! zpool list old >/dev/null 2>&1 || zpool export old
zpool import -d {LINKS} -o readonly=on -N -R /mnt/src old
zpool sync new
"""
_BARE = """
begun=$(date +%s%N)
zfs send -R old/data@x | zfs receive -s -u -x encryption -x mountpoint -o readonly=on new/bare
ended=$(date +%s%N)
zfs destroy -r new/bare
zpool sync new
echo $((ended - begun))
"""
_READ = """
begun=$(date +%s%N)
dd if={device} of=/dev/null iflag=direct bs={size}M count={count} status=none
echo $(($(date +%s%N) - begun))
"""
# The key is one for measuring only.
_PLAIN = """
disk=$(readlink -f {disk})
echo "0 $(($(blockdev --getsz $disk) / 8 * 8)) crypt aes-xts-plain64 {key} 0 $disk 0 1 sector_size:4096" |
  dmsetup create plain --readonly
udevadm settle
"""
_OPENSSL = f"openssl speed -elapsed -seconds {SECONDS} -bytes 4096 -multi {WORKERS} -decrypt -evp aes-256-xts 2>&1"
_KILOBYTES = re.compile(r"^AES-256-XTS\s+([0-9.]+)k\s*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Ratio:
    """One of two speeds, and what it has to be at least; 0 for a figure that has no limit."""

    what: str
    value: float
    limit: float

    @property
    def held(self) -> bool:
        return self.value >= self.limit


@dataclass
class Ratios:
    """Measures on a NAS whose source was made for that."""

    source: Source
    say: Callable[[str], None]
    found: list[Ratio] = field(default_factory=list)
    _speeds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        """All of them.

        :raises Failed: something can't be measured
        """
        self.source.make_of(_FILL.replace("{bytes}", str(DATA * 1_000_000)))
        self._devices()
        self._decryption()
        self.source.open()
        self._migration()
        self.source.close()

    def table(self) -> Iterator[str]:
        """The speeds, and what one is of another."""
        yield f"| what | MB/s, best of {SAMPLES} |\n| --- | --- |"
        for what, speeds in self._speeds.items():
            yield f"| {what} | {max(speeds):.1f} |"
        yield "\n| ratio | measured | limit | |\n| --- | --- | --- | --- |"
        for one in self.found:
            limit, held = f"at least {one.limit:.2f}", "held" if one.held else "MISSED"
            yield f"| {one.what} | {one.value:.2f} | {limit if one.limit else ''} | {held if one.limit else ''} |"

    @property
    def missed(self) -> list[Ratio]:
        return [one for one in self.found if not one.held]

    def _ratio(self, ours: str, theirs: str, limit: float = 0.0) -> None:
        value = max(self._speeds[ours]) / max(self._speeds[theirs])
        self.found.append(Ratio(f"{ours} / {theirs}", value, limit))

    def _note(self, what: str, count: float, seconds: float) -> None:
        speed = count / 1e6 / seconds
        self._speeds.setdefault(what, []).append(speed)
        self.say(f"migrations: {what}: {speed:.1f} MB/s")

    # --- devices -----------------------------------------------------------------------------------------------

    def _devices(self) -> None:
        """One disk by three ways, none of them before it was read once."""
        member, machine = self.source.members[0], self.source.machine
        attached = self._attach(member, "device_mapper")
        # In this order: no disk that is in use is attached.
        machine.shell(_PLAIN, disk=member, key=self.source.keys.hex("plain") + self.source.keys.hex("plain, half"))
        devices = {"GELI by device_mapper": attached, "dm-crypt": "/dev/mapper/plain", "the disk": member}
        self._read_in_turn(machine, devices)
        machine.shell("dmsetup remove --retry plain")
        self._detach(member)
        self._read_in_turn(machine, {"GELI by nbd": self._attach(member, "nbd")})
        self._detach(member)
        self._ratio("GELI by device_mapper", "dm-crypt", 1 / 3)
        self._ratio("GELI by device_mapper", "GELI by nbd", 2.0)

    def _read_in_turn(self, machine: Machine, devices: dict[str, str]) -> None:
        for sample in range(SAMPLES + 1):
            for what, device in devices.items():
                took = machine.shell(_READ, device=device, size=str(READ), count=str(READS))
                if sample:
                    self._note(what, READS * READ << 20, int(took) / 1e9)

    def _attach(self, member: str, backend: str) -> str:
        words = {"devices": [member], "keyfile": [GELI_KEY], "backend": backend}
        result = self.source.machine.module("geli_device", **words)
        if [one.get("backend") for one in result.get("devices", ())] != [backend]:
            raise Failed(f"the disk was not attached by {backend}: {result.get('msg', result)}")
        return str(result["devices"][0]["attached_as"])

    def _detach(self, member: str) -> None:
        result = self.source.machine.module("geli_device", devices=[member], state="detached")
        if "devices" not in result:
            raise Failed(f"the disk was not detached: {result.get('msg', result)}")

    # --- decryption --------------------------------------------------------------------------------------------

    def _decryption(self) -> None:
        """Without a disk: as many processes as OpenSSL gets."""
        machine = self.source.machine
        program = Path(__file__).with_name("decrypt_speed.py").read_text("utf-8")
        machine.shell(f"cat >/root/work/decrypt_speed.py <<'END_OF_PROGRAM'\n{program}\nEND_OF_PROGRAM")
        ours, theirs = f"decryption by {WORKERS} processes", f"openssl speed -multi {WORKERS}"
        for _sample in range(SAMPLES):
            said = machine.shell(_OPENSSL)
            match = _KILOBYTES.search(said)
            if match is None:
                raise Failed(f"openssl does not tell how fast it is: {said}")
            self._note(theirs, float(match[1]) * 1000, 1)
            self._note(
                ours, float(machine.shell(f"python3 /root/work/decrypt_speed.py {REMOTE} {WORKERS} {SECONDS}")), 1
            )
        self._ratio(ours, theirs, 1 / 4)

    # --- migration ---------------------------------------------------------------------------------------------

    def _migration(self) -> None:
        """In turn, and the first of each is for warming up."""
        machine = self.source.machine
        bare, streams, whole = "zfs send -R | zfs receive", "streams of a migration", "whole task of a migration"
        for sample in range(SAMPLES + 1):
            machine.shell(_IMPORT)
            took = int(machine.shell(_BARE)) / 1e9
            machine.shell(_IMPORT)
            begun = time.monotonic()
            result = machine.module("geli_migrate", source="old/data", target="new/ours", state="synced")
            seconds = time.monotonic() - begun
            if result.get("reached") != "synced":
                raise Failed(f"the migration to be timed failed: {result.get('msg', result)}")
            machine.shell("zfs destroy -r new/ours; zpool sync new")
            if sample:
                self._note(bare, DATA * 1e6, took)
                self._note(streams, DATA * 1e6, sum(float(one["seconds"]) for one in result["sent"]))
                self._note(whole, DATA * 1e6, seconds)
        self._ratio(streams, bare, 0.95)
        self._ratio(whole, bare)
