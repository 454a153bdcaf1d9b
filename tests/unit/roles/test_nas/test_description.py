# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM's description: what is allowed, what is kept, how two of them differ."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.description import (
    SAME,
    Description,
    Difference,
    Disk,
    check_name,
    compare,
    size_in_bytes,
)
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import TestNasError as NasError


@pytest.mark.parametrize("name", ["a", "nas-1", "0", "x" * 31])
def test_a_host_name_is_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "Nas", "a_b", "a/b", "..", "x" * 32, "a\n", "ä"])
def test_what_is_no_host_name_or_directory_is_refused(name: str) -> None:
    with pytest.raises(NasError, match="is no name for a VM"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 << 20), ("1G", 1 << 30), ("2T", 2 << 40), ("65536K", 64 << 20), ("67108864", 64 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "0M", "-1G", "1.5G", "1g", "1 G", "1GB", "0x10", "1G\n", "None"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(NasError, match="is no size"):
        size_in_bytes(text)


@pytest.mark.parametrize("text", ["63M", "67108865", "67109000"])
def test_a_disk_that_zfs_or_qemu_would_refuse(text: str) -> None:
    with pytest.raises(NasError, match="too small or not made of sectors"):
        size_in_bytes(text)


@pytest.mark.parametrize("serial", ["", "a b", "a/b", "x" * 21, "a,b", "a\n"])
def test_a_serial_that_would_be_rewritten_is_refused(serial: str) -> None:
    with pytest.raises(NasError, match="is no serial"):
        Disk.make(serial, "1G", "scsi")


def test_an_unknown_bus_is_refused() -> None:
    with pytest.raises(NasError, match="unknown bus 'ide', known are scsi, sata, virtio"):
        Disk.make("A", "1G", "ide")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "A"}, "is no name"),
        ({"memory": 511}, "511 MiB of memory are too little"),
        ({"cpus": 0}, "0 CPUs: at least 1"),
        ({"accel": "hvf"}, "unknown accelerator 'hvf'"),
        ({"disks": (Disk("A", 1 << 30, "scsi"), Disk("A", 1 << 29, "sata"))}, "more than one disk: A"),
    ],
)
def test_a_vm_that_can_not_be(description: Description, change: dict[str, Any], words: str) -> None:
    with pytest.raises(NasError, match=words):
        dataclasses.replace(description, **change)


DISKS = st.lists(
    st.builds(
        Disk,
        st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True),
        st.integers(1 << 17, 1 << 34).map(lambda sectors: sectors * 512),
        st.sampled_from(["scsi", "sata", "virtio"]),
    ),
    unique_by=lambda disk: disk.serial,
    max_size=20,
)
PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
DESCRIPTIONS = st.builds(
    Description,
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,30}", fullmatch=True),
    image=PATHS,
    qemu=PATHS,
    qemu_img=PATHS,
    memory=st.integers(512, 1 << 20),
    cpus=st.integers(1, 64),
    accel=st.sampled_from(["auto", "kvm", "tcg"]),
    disks=DISKS.map(tuple),
    qemu_args=st.lists(PATHS).map(tuple),
)


@given(DESCRIPTIONS)
def test_what_is_kept_is_read_back(description: Description) -> None:
    assert Description.from_values(json.loads(description.to_json())) == description
    assert compare(description, description) == SAME


def test_a_directory_without_a_vm(tmp_path: Path) -> None:
    assert Description.read(tmp_path / "vm.json") is None


def refused(path: Path, values: object) -> None:
    """A VM's directory with these values is not taken for a VM."""
    path.write_text(json.dumps(values))
    with pytest.raises(NasError, match=r"vm\.json does not describe a test NAS \(.+\): remove its directory"):
        Description.read(path)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Description)])
def test_a_file_that_lacks_something(description: Description, tmp_path: Path, key: str) -> None:
    values = json.loads(description.to_json())
    del values[key]
    refused(tmp_path / "vm.json", values)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"name": "A"},
        {"memory": None},
        {"cpus": "two"},
        {"accel": "fast"},
        {"disks": None},
        {"disks": ["A1"]},
        {"disks": [{"serial": "A1", "size": 1}]},
        {"disks": [{"serial": "A1", "size": -1, "bus": "scsi"}]},
        {"qemu_args": None},
    ],
)
def test_a_file_of_another_kind(description: Description, tmp_path: Path, change: dict[str, Any]) -> None:
    refused(tmp_path / "vm.json", {**json.loads(description.to_json()), **change})
    refused(tmp_path / "vm.json", [change])


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "vm.json").write_text("{")
    with pytest.raises(NasError, match="does not describe a test NAS"):
        Description.read(tmp_path / "vm.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"memory": 2048}, "memory is 1024, wanted is 2048"),
        ({"cpus": 1}, "cpus is 3, wanted is 1"),
        ({"accel": "kvm"}, "accel is tcg, wanted is kvm"),
        ({"qemu": "/q"}, "qemu is /usr/bin/qemu-system-x86_64, wanted is /q"),
        ({"qemu_img": "/i"}, "qemu_img is /usr/bin/qemu-img, wanted is /i"),
        ({"qemu_args": ()}, "qemu_args is ('-device', 'usb-ehci'), wanted is ()"),
    ],
)
def test_what_can_change_while_the_vm_is_off(description: Description, change: dict[str, Any], sentence: str) -> None:
    assert compare(description, dataclasses.replace(description, **change)) == Difference((sentence,), ())


def test_another_image_needs_another_vm(description: Description) -> None:
    wanted = dataclasses.replace(description, image="/new")
    assert compare(description, wanted) == Difference((), ("it was made from /cache/image/1, wanted is /new",))


def test_disks_are_added_and_moved_but_never_dropped_or_resized(description: Description) -> None:
    first, second, third = description.disks
    wanted = dataclasses.replace(
        description,
        disks=(Disk("D4", 1 << 30, "scsi"), dataclasses.replace(first, size=1 << 31), Disk("B2", second.size, "scsi")),
    )
    assert compare(description, wanted) == Difference(
        ("disk B2 is not on the bus scsi", "disk D4 is missing"),
        ("disk A1 has 1073741824 bytes, wanted are 2147483648", "disk %s is not wanted" % third.serial),
    )


def test_the_order_of_the_disks_is_part_of_the_vm(description: Description) -> None:
    wanted = dataclasses.replace(description, disks=description.disks[::-1])
    assert compare(description, wanted) == Difference(("the order of the disks differs",), ())
