# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is changed behind the back of a migration that is done, and has to be found when it is verified."""

from __future__ import annotations

import re

from vm.machine import Failed

from .proof import VERIFIED, Proof, reached, refused
from .source import NEW

# Bytes of a disk before the first block that ZFS gives away: two labels and the boot block.
_LABELS = 4 << 20
# A block of data in what zdb tells of a file: level 0, then its first copy as vdev:offset:size, in hex.
_BLOCK = re.compile(r"^\s*[0-9a-f]+\s+L0\s+0:([0-9a-f]+):([0-9a-f]+)\s", re.MULTILINE)

_NUMBER_OF_FILE = """
mkdir -p /root/work/look
mount -t zfs new/old/media@one /root/work/look
stat -c %i /root/work/look/gone
umount /root/work/look
"""
_FLIP = """
zpool export new
python3 - {p1} {offset} <<'END'
import os, sys
with open(sys.argv[1], "r+b", buffering=0) as disk:
    byte = os.pread(disk.fileno(), 1, int(sys.argv[2]))
    os.pwrite(disk.fileno(), bytes([byte[0] ^ 1]), int(sys.argv[2]))
    os.fsync(disk.fileno())
END
zpool import -d /dev/disk/by-id new
zfs load-key new
zfs mount new
"""
# The same size, and the same time of the last change.
_OVERWRITE = """
file={file}
touch -r $file /root/work/stamp
before=$(stat -c '%s %y' $file)
dd if=/dev/urandom of=$file bs=4096 count=1 seek=2 conv=notrunc status=none
touch -m -r /root/work/stamp $file
[ "$before" = "$(stat -c '%s %y' $file)" ]
"""
_OPEN = """
zfs set readonly=off new/old/docs
zfs mount new/old/docs
"""
_SHUT = """
zfs unmount new/old/docs
zfs inherit readonly new/old/docs
zpool sync new
"""
_DOCS = "/root/work/new/old/docs/random"
_OTHER_SNAPSHOT = """
zfs destroy new/old/docs@--head--
zfs snapshot new/old/docs@--head--
"""
# A source without a snapshot, of which only the sizes are known.
_PLAIN = """
zpool create -O compression=off -O atime=off -O mountpoint=/plain plain {p2}
head -c 2000000 /dev/urandom >/plain/random
zpool export plain
"""
_READ_ONLY = "zpool import -d /dev/disk/by-id -o readonly=on -N -R /mnt/src plain"
_BETWEEN_IMPORTS = (
    """
zpool export plain
zpool import -d /dev/disk/by-id plain
"""
    + _OVERWRITE
    + """
zpool export plain
"""
    + _READ_ONLY
)


def check(proof: Proof) -> None:
    """:raises Failed: something is not found"""
    found = 0
    for part in (_bit_in_an_old_snapshot, _file_of_the_target, _snapshot_of_the_target, _file_of_the_source):
        proof.say(f"migrations: {part(proof)}")
        found += 1
    proof.tally.facts.append(("changes behind its back that were found", f"{found} of {found}"))


def _bit_in_an_old_snapshot(proof: Proof) -> str:
    """In a block that the newest state does not have any more, so that only ``full`` reads it; and has read it."""
    shell = proof.machine.shell
    reached(proof.run(verify="full"), "verified")
    number = shell(_NUMBER_OF_FILE)
    said = shell(f"zdb -ddddd new/old/media@one {number}")
    block = _BLOCK.search(said)
    if block is None:
        raise Failed(f"zdb does not tell where the blocks of the file are: {said[:2000]}")
    offset = _LABELS + int(block[1], 16) + int(block[2], 16) // 2
    shell(_FLIP, offset=str(offset))
    # All GUIDs are what they were, so what is recorded still fits.
    quiet = proof.run(verify="full")
    reached(quiet, "verified")
    if quiet["changed"]:
        raise Failed(f"a state that is recorded as verified was compared without being asked to: {quiet['actions']}")
    refused(proof.run(verify="full", verify_again=True), "can't be read", "damaged data")
    record = shell(f"zfs get -H -o value {VERIFIED} {NEW}")
    if record != "-":
        raise Failed(f"a target with damaged data is recorded as verified: {record}")
    shell(_FLIP, offset=str(offset))
    shell("zpool scrub -w new; zpool clear new")
    reached(proof.run(verify="full"), "verified")
    again = proof.run(verify="full", verify_again=True)
    reached(again, "verified")
    if not again["changed"]:
        raise Failed("nothing was compared again, although that was asked for")
    return f"a bit that was flipped at byte {offset} of the target's disk was found, and put right"


def _file_of_the_target(proof: Proof) -> str:
    shell = proof.machine.shell
    shell(_OPEN + _OVERWRITE + _SHUT, file=_DOCS)
    refused(proof.run(verify="checksums"), "was written to since")
    reached(proof.run(verify="checksums", force=True), "verified")
    proof.all_is_there()
    return "a file that was changed in the target was found, and with force it is what it was"


def _snapshot_of_the_target(proof: Proof) -> str:
    """The change gets a snapshot of the name that the true one had."""
    proof.machine.shell(_OPEN + _OVERWRITE + _OTHER_SNAPSHOT + _SHUT, file=_DOCS)
    result = proof.run(verify="checksums")
    if "reached" in result:
        proof.all_is_there()
        return "a snapshot of the target that was replaced was found, and sent anew"
    reached(proof.run(verify="checksums", force=True), "verified")
    proof.all_is_there()
    return "a snapshot of the target that was replaced was found, and with force it is what it was"


def _file_of_the_source(proof: Proof) -> str:
    """What is in no snapshot, and keeps its sizes: the one thing that is known to need ``checksums``."""
    shell = proof.machine.shell
    other = {"source": "plain", "target": "new/plain"}
    shell(_PLAIN + _READ_ONLY)
    reached(proof.run(**other, verify="checksums"), "verified")
    shell(_BETWEEN_IMPORTS, file="/plain/random")
    reached(proof.run(**other, state="planned"), "synced")
    refused(proof.run(**other, verify="checksums"), "does not hold what")
    shell("zpool export plain; zfs destroy -r new/plain")
    return "a file of the source that was changed between two imports was found"
