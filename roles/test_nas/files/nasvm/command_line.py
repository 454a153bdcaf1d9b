# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of QEMU: a pure function of the VM's description.

QEMU runs with the VM's directory as its working directory, so all paths of the VM are relative: a path of any length
and with any character works, and the monitor's socket stays below the 107 bytes that a socket's path may have.
"""

from __future__ import annotations

import hashlib

from .description import Description

# The address that the guest's network configuration looks for.
MAC_ADDRESS = "52:54:00:6e:61:73"
_PORTS_OF_AHCI = 6
# Without what costs an emulator time and brings nothing: a fifth level of page tables, virtual machines in the virtual
# machine, and instructions that copy byte by byte, which the kernel and the C library take for the fastest way.
EMULATED_CPU = "max,la57=off,erms=off,fsrm=off,svm=off"
KERNEL_ARGUMENTS = (
    "console=ttyS0 root=LABEL=test-nas rw quiet loglevel=4 panic=5 mitigations=off nowatchdog "
    "systemd.show_status=no systemd.getty_auto=no audit_backlog_limit=8192"
)


def world_wide_name(serial: str) -> str:
    """A world wide name (NAA 5) that follows from the serial, so that it is the same in every run."""
    return "0x5525400" + hashlib.sha256(serial.encode("ascii")).hexdigest()[:9]


def accelerator(accel: str) -> list[str]:
    """The options for ``kvm`` or ``tcg``."""
    if accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU]


def disk_options(description: Description) -> list[str]:
    """The data disks, in the order of the description."""
    argv: list[str] = []
    used = {bus: sum(1 for disk in description.disks if disk.bus == bus) for bus in ("scsi", "sata")}
    if used["scsi"]:
        argv += ["-device", "virtio-scsi-pci,id=scsi"]
    for controller in range(-(-used["sata"] // _PORTS_OF_AHCI)):
        argv += ["-device", "ich9-ahci,id=sata%d" % controller]
    position = {"scsi": 0, "sata": 0, "virtio": 0}
    for disk in description.disks:
        number = position[disk.bus]
        position[disk.bus] += 1
        drive = "data-%s" % disk.serial
        argv += [
            "-drive",
            "file=disk-%s.qcow2,format=qcow2,if=none,id=%s,cache=unsafe,discard=unmap" % (disk.serial, drive),
        ]
        # 4096-byte sectors inside, 512 outside: what most hard disks sold today report
        common = "drive=%s,id=%s-device,serial=%s,logical_block_size=512,physical_block_size=4096" % (
            drive,
            drive,
            disk.serial,
        )
        wwn = world_wide_name(disk.serial)
        if disk.bus == "scsi":
            argv += ["-device", "scsi-hd,bus=scsi.0,scsi-id=%d,wwn=%s,%s" % (number, wwn, common)]
        elif disk.bus == "sata":
            bus = "sata%d.%d" % divmod(number, _PORTS_OF_AHCI)
            argv += ["-device", "ide-hd,bus=%s,wwn=%s,%s" % (bus, wwn, common)]
        else:
            argv += ["-device", "virtio-blk-pci,%s" % common]
    return argv


def build(description: Description, accel: str, port: int, uuid: str) -> list[str]:
    """The whole command line; ``port`` is the loopback port that leads to the guest's ssh."""
    argv = [
        description.qemu,
        "-name",
        "test-nas-%s" % description.name,
        "-uuid",
        uuid,
        "-machine",
        "q35",
        *accelerator(accel),
        "-smp",
        str(description.cpus),
        "-m",
        str(description.memory),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-rtc",
        "base=utc,clock=host",
        "-kernel",
        description.image + "/vmlinuz",
        "-initrd",
        "initrd.img",
        "-append",
        KERNEL_ARGUMENTS,
        "-chardev",
        "file,id=console,path=console.log",
        "-serial",
        "chardev:console",
        "-qmp",
        "unix:qmp.sock,server=on,wait=off",
        "-netdev",
        "user,id=net,hostfwd=tcp:127.0.0.1:%d-:22" % port,
        "-device",
        "virtio-net-pci,netdev=net,mac=%s,romfile=" % MAC_ADDRESS,
        "-device",
        "virtio-rng-pci",
        "-drive",
        "file=root.qcow2,format=qcow2,if=none,id=root,cache=unsafe,discard=unmap",
        "-device",
        "virtio-blk-pci,drive=root,id=root-device,serial=test-nas-root",
    ]
    argv += disk_options(description)
    argv += description.qemu_args
    return argv
