# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulated drives behind a Unix socket, and the part of /sys, /dev and /proc that shows them to a host.

The preloaded library of ``shim.c`` forwards what a program does with the device nodes, and shows it the tree.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import struct
import tempfile
import threading
import time
import typing as t
import zlib
from pathlib import Path

from . import transports
from .drive import Drive, Spec
from .listening import Closed, Listening, receive
from .tper import TPer, Vanished

_REQUEST = struct.Struct("=III")
_ANSWER = struct.Struct("=iIII")
_OPEN, _NVME, _SG, _OTHER, _READ, _SIZE = 1, 2, 3, 4, 5, 6
_PLACE = struct.Struct("=QQ")
_BLKRRPART = 0x125F
_SECTOR = 512


class Emulator:
    """A host with emulated drives: a folder with a socket and a tree, until :meth:`close`."""

    def __init__(self) -> None:
        # The path of a Unix socket has little room, so not below a test's own folder.
        self.folder = Path(tempfile.mkdtemp(prefix="opal-"))
        self.root = self.folder / "root"
        self.drives: dict[str, Drive] = {}
        # Nodes whose partition table was read again.
        self.rescans: list[str] = []
        # How many times that fails, since something holds a partition.
        self.fail_rescans = 0
        # How many drives were at work at the same time at most, if they wait for each other.
        self.gate: threading.Barrier | None = None
        # How often a drive was opened for reading alone, as this collection does it and sedutil-cli does not; and what
        # happens right before one of these, such as another drive in its place.
        self.looks = 0
        self.before_look: t.Callable[[int], None] | None = None
        # Seconds that a drive takes for each command; all of them at the same time.
        self.delay = 0.0
        self._tpers: dict[int, TPer] = {}
        self._locks: dict[int, threading.Lock] = {}
        self._skeleton()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.folder / "socket"))
        listener.listen(64)
        self._listening = Listening(listener, self._serve)

    def close(self) -> None:
        self._listening.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, library: Path) -> dict[str, str]:
        """What makes a program see the drives."""
        return {"LD_PRELOAD": str(library), "OPAL_EMULATOR": str(self.folder)}

    # The drives

    def plug(self, spec: Spec, name: str) -> Drive:
        """A new drive, as ``nvme8`` or ``sdx``."""
        drive = Drive(spec)
        self.attach(drive, name)
        return drive

    def attach(self, drive: Drive, name: str) -> None:
        """Show a drive under a kernel name, also one that had another name before."""
        drive.gone = False
        self._tpers.setdefault(id(drive), TPer(drive))
        self._locks.setdefault(id(drive), threading.Lock())
        nodes = (name, f"{name}n1") if name.startswith("nvme") else (name,)
        for node in nodes:
            self.drives[node] = drive
            (self.root / "dev" / node).touch()
        block = nodes[-1]
        self._show(drive, name, block)

    def exchange(self, name: str, drive: Drive) -> None:
        """Another drive where one was: what is open stays that one, what is opened from now on is the other."""
        self._tpers.setdefault(id(drive), TPer(drive))
        self._locks.setdefault(id(drive), threading.Lock())
        for node in (name, f"{name}n1"):
            if node in self.drives:
                self.drives[node] = drive

    def unplug(self, name: str) -> Drive:
        """Pull a drive: its nodes go, and what is open to it fails."""
        drive = self.drives[name]
        drive.gone = True
        for node in [node for node, one in self.drives.items() if one is drive]:
            del self.drives[node]
            (self.root / "dev" / node).unlink()
            shutil.rmtree(self.root / "sys/devices" / node, ignore_errors=True)
            for link in (self.root / "sys/class/block" / node, self.root / "sys/class/nvme" / node):
                link.unlink(missing_ok=True)
        for folder in ("dev/disk/by-id", "sys/class/block"):
            for link in (self.root / folder).iterdir():
                if not link.exists():
                    link.unlink()
        return drive

    def power_cycle(self) -> None:
        """All drives off and on, and the host looks at them anew."""
        for drive in {id(one): one for one in self.drives.values()}.values():
            drive.power_cycle()
        for node in list(self.drives):
            self._reread(node)

    def partition(self, name: str) -> None:
        """Put a partition table with one partition on a drive, of which the host then knows."""
        first = bytearray(3 * _SECTOR)
        first[446:462] = bytes([0, 0, 2, 0, 0xEE, 255, 255, 255, 1, 0, 0, 0, 255, 255, 255, 255])
        first[510:512] = b"\x55\xaa"
        # The type of a partition of ZFS, and its first and last block.
        kind = bytes.fromhex("c38c896ad21db211 99a6080020736631")
        struct.pack_into("<16s16sQQ", first, 2 * _SECTOR, kind, b"\1" * 16, 2048, 4095)
        entries = zlib.crc32(first[2 * _SECTOR : 2 * _SECTOR + 128])
        struct.pack_into("<8sII56xQIII", first, _SECTOR, b"EFI PART", 0x10000, 92, 2, 1, 128, entries)
        struct.pack_into("<I", first, _SECTOR + 16, zlib.crc32(first[_SECTOR : _SECTOR + 92]))
        self.drives[name].media = bytes(first)
        self._reread(f"{name}n1" if name.startswith("nvme") else name)

    def partitions(self, name: str) -> list[str]:
        """The partitions of a drive that the host knows of."""
        block = f"{name}n1" if name.startswith("nvme") else name
        return sorted(folder.parent.name for folder in (self.root / "sys/devices" / block).glob("*/partition"))

    def _reread(self, node: str) -> None:
        """What the kernel does when it reads a partition table: one that it can't read has no partitions."""
        drive = self.drives[node]
        folder = self.root / "sys/devices" / node
        if not folder.is_dir() or (drive.spec.transport == "nvme" and not node.endswith("n1")):
            return
        part = f"{node}p1" if node[-1].isdigit() else f"{node}1"
        if drive.media and drive.readable():
            self.write(f"sys/devices/{node}/{part}/partition", "1\n")
            self.write(f"sys/devices/{node}/{part}/size", "2048\n")
            self._link(f"sys/class/block/{part}", f"../../devices/{node}/{part}")
        else:
            shutil.rmtree(folder / part, ignore_errors=True)
            (self.root / "sys/class/block" / part).unlink(missing_ok=True)

    def restart(self) -> None:
        """The host forgets what is kept until then; the drives notice nothing."""
        for file in (self.root / "run").iterdir():
            file.unlink()

    # The tree

    def _skeleton(self) -> None:
        for folder in ("run", "var", "dev/disk/by-id", "sys/class/block", "sys/class/nvme", "sys/devices", "proc/self"):
            (self.root / folder).mkdir(parents=True)
        for folder in ("etc/zfs", "etc/systemd/system"):
            (self.root / folder).mkdir(parents=True)
        self._link("var/run", "../run")
        self.write("proc/self/mountinfo", "1 0 0:1 / / rw - rootfs none rw\n")
        self.write("proc/swaps", "Filename Type Size Used Priority\n")
        self.allow_tpm(True)

    def write(self, path: str, content: str | bytes) -> None:
        """A file of the tree."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def allow_tpm(self, allowed: bool) -> None:
        """What libata lets through."""
        self.write("sys/module/libata/parameters/allow_tpm", "1\n" if allowed else "0\n")
        for drive in self.drives.values():
            drive.filtered = not allowed and drive.spec.transport == "sata"

    def mount(self, node: str, where: str) -> None:
        """Let a filesystem be mounted from a drive."""
        number = (self.root / "sys/class/block" / node / "dev").read_text().strip()
        old = (self.root / "proc/self/mountinfo").read_text()
        self.write("proc/self/mountinfo", f"{old}30 1 {number} / {where} rw - ext4 /dev/{node} rw\n")

    def _show(self, drive: Drive, name: str, block: str) -> None:
        spec = drive.spec
        folder = f"sys/devices/{block}"
        minor = sorted({*(node for node in self.drives)}).index(block)
        self.write(f"{folder}/size", f"{spec.blocks * spec.block_size // _SECTOR}\n")
        self.write(f"{folder}/dev", f"259:{minor}\n")
        self.write(f"{folder}/ro", "0\n")
        if name.startswith("nvme"):
            wwn, folder_id = f"eui.{spec.serial[-16:].lower().rjust(16, '0')}", "nvme"
            self.write(f"sys/devices/{name}/serial", spec.serial.ljust(20) + "\n")
            self.write(f"sys/devices/{name}/model", spec.model.ljust(40) + "\n")
            self._link(f"sys/class/nvme/{name}", f"../../devices/{name}")
            self._link(f"{folder}/device", f"../{name}")
        else:
            wwn = f"naa.{spec.wwn or '5' + spec.serial[-15:].lower().rjust(15, '0')}"
            folder_id = "ata" if spec.transport == "sata" else "scsi"
            text = spec.serial.encode("ascii")
            self.write(f"{folder}/device/vpd_pg80", bytes([0, 0x80, 0, len(text)]) + text)
            self.write(f"{folder}/device/vendor", "ATA\n" if spec.transport == "sata" else f"{spec.vendor}\n")
            self.write(f"{folder}/device/model", f"{spec.model}\n")
            self.write(f"{folder}/device/wwid", f"{wwn}\n")
        if name.startswith("nvme"):
            self.write(f"{folder}/wwid", f"{wwn}\n")
        self._link(f"sys/class/block/{block}", f"../../devices/{block}")
        label = f"{folder_id}-{spec.model.replace(' ', '_')}_{spec.serial}"
        self._link(f"dev/disk/by-id/{label}", f"../../{block}")
        self._link(f"dev/disk/by-id/wwn-{wwn.replace('naa.', '0x')}", f"../../{block}")

    def _link(self, path: str, target: str) -> None:
        link = self.root / path
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    # The socket

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(Closed, ConnectionError):
            name = ""
            drive: Drive | None = None
            while True:
                kind, head_length, data_length = _REQUEST.unpack(receive(connection, _REQUEST.size))
                head, data = receive(connection, head_length), receive(connection, data_length)
                if kind == _OPEN:
                    name = os.path.basename(head.decode())
                    self._looked(int.from_bytes(data, "little"))
                    drive = self.drives.get(name)
                    connection.sendall(_ANSWER.pack(-self._opening(drive, data), 0, 0, 0))
                elif drive is None:
                    return
                else:
                    connection.sendall(self._command(kind, name, drive, head, data))

    def _looked(self, flags: int) -> None:
        if flags & os.O_ACCMODE == os.O_RDONLY:
            self.looks += 1
            if self.before_look is not None:
                self.before_look(self.looks)

    def _opening(self, drive: Drive | None, flags: bytes) -> int:
        if drive is None or drive.gone:
            return errno.ENXIO
        exclusive = int.from_bytes(flags, "little") & os.O_EXCL
        return errno.EBUSY if drive.busy and exclusive else 0

    def _command(self, kind: int, name: str, drive: Drive, head: bytes, data: bytes) -> bytes:
        tper = self._tpers[id(drive)]
        nvme = drive.spec.transport == "nvme"
        if kind == _OTHER:
            request = int.from_bytes(head, "little")
            if request != _BLKRRPART:
                return _ANSWER.pack(-errno.ENOTTY, 0, 0, 0)
            self.rescans.append(name)
            if self.fail_rescans:
                self.fail_rescans -= 1
                return _ANSWER.pack(-errno.EBUSY, 0, 0, 0)
            if not drive.gone:
                self._reread(name)
            return _ANSWER.pack(-errno.ENODEV if drive.gone else 0, 0, 0, 0)
        if kind == _READ:
            return self._content(drive, head)
        if kind == _SIZE:
            size = (drive.spec.blocks * drive.spec.block_size).to_bytes(8, "little")
            return _ANSWER.pack(0, 0, 0, len(size)) + size
        if (kind == _NVME) != nvme:
            return _ANSWER.pack(-errno.ENOTTY, 0, 0, 0)
        if drive.gone:
            return _ANSWER.pack(-errno.ENODEV, 0, 0, 0)
        if self.gate is not None and head[0] in (transports.NVME_SEND,):
            self.gate.wait(60)
        if self.delay:
            time.sleep(self.delay)
        try:
            with self._locks[id(drive)]:
                answer = transports.nvme(tper, head, data) if nvme else transports.scsi(tper, head, data)
        except Vanished:
            return _ANSWER.pack(-errno.ENODEV, 0, 0, 0)
        return _ANSWER.pack(0, answer.status, len(answer.sense), len(answer.data)) + answer.sense + answer.data

    def _content(self, drive: Drive, head: bytes) -> bytes:
        offset, length = _PLACE.unpack(head)
        if drive.gone or not drive.readable():
            return _ANSWER.pack(-errno.EIO, 0, 0, 0)
        data = drive.media[offset : offset + length].ljust(length, b"\0")
        return _ANSWER.pack(0, 0, 0, len(data)) + data


@contextlib.contextmanager
def emulator() -> t.Iterator[Emulator]:
    """An emulator that is gone afterwards."""
    one = Emulator()
    try:
        yield one
    finally:
        one.close()
