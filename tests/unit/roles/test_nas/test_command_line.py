# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's command line follows from the description alone."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.command_line import (
    EMULATED_CPU,
    accelerator,
    build,
    disk_options,
    world_wide_name,
)
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.description import Description, Disk

UUID = "12345678-1234-5678-1234-567812345678"


def devices(argv: list[str], kind: str) -> list[str]:
    """The values of -device that begin with this kind."""
    values = [argv[place + 1] for place, word in enumerate(argv) if word == "-device"]
    return [value for value in values if value.split(",")[0] == kind]


def test_a_world_wide_name_is_the_same_on_every_machine() -> None:
    assert world_wide_name("NAS0001") == "0x552540018846a154"
    assert len({world_wide_name("NAS%04d" % number) for number in range(1, 200)}) == 199


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
def test_the_accelerator_brings_its_processor(accel: str) -> None:
    cpu = {"kvm": "host", "tcg": EMULATED_CPU}[accel]
    options = accelerator(accel)
    assert options[0] == "-accel" and options[1].split(",", maxsplit=1)[0] == accel
    assert options[2:] == ["-cpu", cpu]


def test_each_disk_has_its_file_its_serial_and_its_bus(description: Description) -> None:
    argv = disk_options(description)
    files = [word.split(",")[0] for word in argv if word.startswith("file=")]
    assert files == ["file=disk-A1.qcow2", "file=disk-B2.qcow2", "file=disk-C3.qcow2"]
    (scsi,) = devices(argv, "scsi-hd")
    (sata,) = devices(argv, "ide-hd")
    (virtio,) = devices(argv, "virtio-blk-pci")
    assert {"serial=A1", "drive=data-A1", "bus=scsi.0", "wwn=%s" % world_wide_name("A1")} <= set(scsi.split(","))
    assert {"serial=B2", "drive=data-B2", "bus=sata0.0", "wwn=%s" % world_wide_name("B2")} <= set(sata.split(","))
    assert {"serial=C3", "drive=data-C3"} <= set(virtio.split(","))
    for device in (scsi, sata, virtio):
        assert {"logical_block_size=512", "physical_block_size=4096"} <= set(device.split(","))


@pytest.mark.parametrize(("count", "controllers"), [(0, 0), (1, 1), (6, 1), (7, 2), (13, 3)])
def test_sata_disks_get_as_many_controllers_as_they_need(
    description: Description, count: int, controllers: int
) -> None:
    disks = tuple(Disk("S%d" % number, 1 << 30, "sata") for number in range(count))
    argv = disk_options(dataclasses.replace(description, disks=disks))
    assert len(devices(argv, "ich9-ahci")) == controllers
    buses = [word for device in devices(argv, "ide-hd") for word in device.split(",") if word.startswith("bus=")]
    assert len(set(buses)) == count
    assert all(int(bus.rpartition(".")[2]) < 6 for bus in buses)


def test_no_bus_without_a_disk_on_it(description: Description) -> None:
    disks = (Disk("V", 1 << 30, "virtio"),)
    argv = disk_options(dataclasses.replace(description, disks=disks))
    assert not devices(argv, "virtio-scsi-pci") and not devices(argv, "ich9-ahci")


def test_scsi_disks_keep_their_order(description: Description) -> None:
    disks = tuple(Disk("S%d" % number, 1 << 30, "scsi") for number in range(3))
    found = devices(disk_options(dataclasses.replace(description, disks=disks)), "scsi-hd")
    assert [device.split("scsi-id=")[1].split(",")[0] for device in found] == ["0", "1", "2"]


def test_the_machine_is_as_described(description: Description) -> None:
    argv = build(description, "tcg", 2222, UUID)
    options = dict(zip(argv, argv[1:]))
    assert argv[0] == description.qemu
    assert (options["-m"], options["-smp"], options["-uuid"]) == ("1024", "3", UUID)
    assert options["-kernel"] == "/cache/image/1/vmlinuz"
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in options["-netdev"]
    assert "root=LABEL=test-nas" in options["-append"]
    assert argv[-2:] == ["-device", "usb-ehci"]


def test_what_belongs_to_the_vm_is_named_relative_to_its_directory(description: Description) -> None:
    argv = build(description, "tcg", 2222, UUID)
    outside = [word for word in argv if "/" in word]
    assert outside == [description.qemu, description.image + "/vmlinuz"]
