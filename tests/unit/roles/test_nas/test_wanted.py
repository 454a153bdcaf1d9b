# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a caller asks for, on the command line or as the role's JSON, becomes a whole description."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.description import Description, Disk
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import TestNasError as NasError
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.wanted import (
    Words,
    from_json,
    from_words,
    new,
    numbered_disks,
    parse_disk,
)

IMAGE = {"image": "/image", "qemu": "/qemu", "qemu_img": "/qemu-img"}


def test_only_a_name() -> None:
    made = new("nas", {**IMAGE, "more": "is ignored"})
    assert (made.name, made.image, made.qemu, made.qemu_img) == ("nas", "/image", "/qemu", "/qemu-img")
    assert (made.memory, made.cpus, made.accel, made.qemu_args) == (1536, 2, "auto", ())
    assert made.disks == numbered_disks(16, "512M")
    assert made.disks[-1] == Disk("NAS0016", 512 << 20, "scsi")


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("A", Disk("A", 512 << 20, "scsi")),
        ("A:1G", Disk("A", 1 << 30, "scsi")),
        ("A:1G:sata", Disk("A", 1 << 30, "sata")),
    ],
)
def test_a_disk_in_words(text: str, disk: Disk) -> None:
    assert parse_disk(text) == disk


@pytest.mark.parametrize(
    ("text", "words"), [("A:1G:sata:x", "SERIAL:SIZE:BUS is"), ("A:", "is no size"), (":1G", "is no serial")]
)
def test_no_disk_in_words(text: str, words: str) -> None:
    with pytest.raises(NasError, match=words):
        parse_disk(text)


def test_what_is_left_out_stays_as_it_is(description: Description) -> None:
    assert from_words(description, Words()) == description
    changed = from_words(description, Words(memory=2048, qemu_arg=["-s"]))
    assert (changed.memory, changed.qemu_args) == (2048, ("-s",))
    assert (changed.cpus, changed.accel, changed.disks) == (description.cpus, description.accel, description.disks)


@pytest.mark.parametrize(
    ("words", "disks"),
    [
        (Words(disks=2), numbered_disks(2, "512M")),
        (Words(disks=0), ()),
        (Words(disk_size="1G"), numbered_disks(16, "1G")),
        (Words(disks=1, disk_size="1G"), numbered_disks(1, "1G")),
        (Words(disk=["X:64M", "Y"], disks=9), (parse_disk("X:64M"), parse_disk("Y"))),
    ],
)
def test_disks_of_the_command_line(description: Description, words: Words, disks: tuple[Disk, ...]) -> None:
    assert from_words(description, words).disks == disks


def role(**changes: object) -> str:
    """What the role hands over, with these changes."""
    values: dict[str, Any] = {
        **IMAGE,
        "memory": 1024,
        "cpus": 2,
        "accel": "auto",
        "disk_count": 3,
        "disk_size": "1G",
        "disks": [],
        "qemu_args": ["-s"],
    }
    return json.dumps({**values, **changes})


def test_the_role_gives_a_number_of_disks() -> None:
    made = from_json("nas", role())
    assert (made.name, made.memory, made.qemu_args) == ("nas", 1024, ("-s",))
    assert made.disks == numbered_disks(3, "1G")
    assert from_json("nas", role(disk_count=0)).disks == ()


def test_the_role_names_its_disks() -> None:
    disks = [{"serial": "A"}, {"serial": "B", "size": "64M", "bus": "sata"}, {"serial": "C", "size": None, "bus": None}]
    assert from_json("nas", role(disks=disks)).disks == (
        Disk("A", 1 << 30, "scsi"),
        Disk("B", 64 << 20, "sata"),
        Disk("C", 1 << 30, "scsi"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "nas is not described: JSONDecodeError"),
        ("[]", "nas is not described: TypeError"),
        ("{}", "nas is not described: KeyError: 'disks'"),
        (role(disks=[{"size": "1G"}]), "nas is not described: KeyError: 'serial'"),
        (role(memory="much"), "nas is not described: TypeError"),
        (role(disk_size="1 G"), "'1 G' is no size"),
        (role(disks=[{"serial": "A", "bus": "ide"}]), "unknown bus 'ide'"),
    ],
)
def test_a_wish_of_another_kind_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(NasError, match=words):
        from_json("nas", text)
