# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen of attached devices on Linux, and in which order they are made and taken away."""

from __future__ import annotations

import dataclasses
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.geli import device, device_plan
from ansible_collections.nasops.encryption.plugins.module_utils.geli.cipher import find_engine
from ansible_collections.nasops.encryption.plugins.module_utils.geli.device_plan import (
    Attachment,
    Desired,
    HostState,
    State,
    decide,
)
from ansible_collections.nasops.encryption.plugins.module_utils.geli.provider import Provider, find
from ansible_collections.nasops.encryption.plugins.module_utils.geli.trial import parse_offer, try_offer
from ansible_collections.nasops.encryption.plugins.module_utils.plan import apply
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.nas import QUICK, SIZE, Nas, partuuid
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import Secret, Volume

FILE = bytes(range(64))
LABEL = partuuid(0)
LAYERS = [f"eli-{LABEL}-err", f"eli-{LABEL}-wide", f"eli-{LABEL}-dec", f"eli-{LABEL}"]


class Linux(Nas):
    """A host that carries out dmsetup on a table of devices."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.maps: dict[str, list[str]] = {}
        self.commands: list[Command] = []
        self.held: set[str] = set()
        self.fails = ""

    def is_free(self, path: str) -> bool:
        return path not in self.held

    def has(self, program: str) -> bool:
        return True

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command)
        words = command.argv
        if self.fails and self.fails in words:
            raise StorageError("it failed")
        if words[:2] == ("dmsetup", "create"):
            below = [f"253:{index}" for index in range(len(self.maps))] + ["8:2"]
            used = (command.stdin or b"").decode().split()
            self.maps[words[2]] = [number for number in below if number in used]
        elif words[:2] == ("dmsetup", "remove"):
            number = self.number(words[-1])
            assert not any(number in below for below in self.maps.values()), f"{words[-1]} is still in use"
            del self.maps[words[-1]]
        return Result(words, 0, "", "")

    def number(self, name: str) -> str:
        return f"253:{list(self.maps).index(name)}" if name in self.maps else ""

    def whole_table(self) -> DeviceTable:
        def holders(number: str) -> tuple[str, ...]:
            return tuple(f"dm-{index}" for index, below in enumerate(self.maps.values()) if number in below)

        disks = [
            dataclasses.replace(one, number="8:2", holders=holders("8:2")) if one.name == "sda2" else one
            for one in self.devices
        ]
        maps = [
            BlockDevice(
                f"dm-{index}",
                f"/dev/dm-{index}",
                (f"/dev/mapper/{name}",),
                "other",
                size=1,
                holders=holders(f"253:{index}"),
                read_only=True,
            )
            for index, name in enumerate(self.maps)
        ]
        return DeviceTable((*disks, *maps))

    def state(self, with_key: bool = False) -> State:
        path = self.path("sda2")
        found = device.read_linux(find(self.whole_table(), path), self, self.whole_table())
        if with_key:
            offer = parse_offer((), None, None)
            offer = dataclasses.replace(offer, key_files=(FILE,))
            found = dataclasses.replace(found, verdict=try_offer(found.provider, offer, find_engine()))
        return State((found,), HostState({"geli": "no"}, memory=1 << 30))


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Linux:
    found = Linux(tmp_path)
    found.geli(0, Volume(SIZE, QUICK, (Secret((FILE,)),)))
    monkeypatch.setattr(device, "LINKS", str(tmp_path / "links"))
    monkeypatch.setattr(device_plan, "LINKS", str(tmp_path / "links"))
    monkeypatch.setattr(device, "number_of_map", found.number)
    monkeypatch.setattr(device, "on_freebsd", lambda: False)
    return found


def attach(linux: Linux) -> None:
    plan = decide(Desired(True), linux.state(with_key=True), device.Worker())
    apply(plan, linux)


def test_a_stack_is_built_seen_and_taken_down(linux: Linux, tmp_path: Path) -> None:
    attach(linux)
    assert list(linux.maps) == LAYERS
    links = tmp_path / "links"
    assert {path.name: os.readlink(path) for path in links.iterdir()} == {LAYERS[3]: f"/dev/mapper/{LAYERS[3]}"}
    (member,) = linux.state().members
    assert member.attachment == Attachment("device_mapper", f"/dev/mapper/{LAYERS[3]}")
    assert decide(Desired(True), linux.state(), device.Worker()).steps == ()
    apply(decide(Desired(False), linux.state(), device.Worker()), linux)
    assert linux.maps == {} and list(links.iterdir()) == []
    assert decide(Desired(False), linux.state(), device.Worker()).steps == ()


def test_who_holds_the_plain_device_is_seen(linux: Linux) -> None:
    attach(linux)
    linux.held.add("/dev/dm-3")
    (member,) = linux.state().members
    assert member.attachment is not None and member.attachment.busy


@pytest.mark.parametrize("layer", LAYERS)
def test_what_fails_half_way_leaves_nothing(linux: Linux, layer: str) -> None:
    linux.fails = layer
    with pytest.raises(StorageError, match="it failed"):
        attach(linux)
    assert linux.maps == {}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_a_killed_task_has_left_is_seen_and_removed(linux: Linux, count: int) -> None:
    attach(linux)
    for name in LAYERS[:count:-1] if count < 3 else LAYERS[3:]:
        linux.maps.pop(name)
    for name in [name for name in LAYERS[count:] if name in linux.maps]:
        linux.maps.pop(name)
    (member,) = linux.state().members
    assert member.attachment is None and member.leftovers == tuple(LAYERS[:count])
    attach(linux)
    assert list(linux.maps) == LAYERS


def test_a_stack_upon_a_disk_that_is_gone_is_not_taken_for_its_own(linux: Linux) -> None:
    attach(linux)
    # The disk was pulled, and has another number since it was plugged in again.
    linux.maps[LAYERS[1]] = [number for number in linux.maps[LAYERS[1]] if number != "8:2"]
    (member,) = linux.state().members
    assert member.attachment is None and member.leftovers == tuple(LAYERS)
    attach(linux)
    assert linux.state().members[0].attachment is not None


def test_the_provider_is_not_written_to(linux: Linux) -> None:
    before = Path(linux.path("sda2")).read_bytes()
    attach(linux)
    assert all("--readonly" in one.argv for one in linux.commands if one.argv[:2] == ("dmsetup", "create"))
    assert Path(linux.path("sda2")).read_bytes() == before


def test_a_member_is_shown_without_its_key(linux: Linux) -> None:
    (member,) = linux.state(with_key=True).members
    assert repr(FILE) not in repr(member) and "verdict" not in repr(member)


def made(folder: Path, name: str, number: str, mapping: str) -> None:
    (folder / name / "dm").mkdir(parents=True)
    (folder / name / "dev").write_text(f"{number}\n")
    (folder / name / "dm" / "name").write_text(f"{mapping}\n")


def test_the_number_of_a_map(tmp_path: Path) -> None:
    made(tmp_path, "dm-0", "253:0", "eli-x-err")
    made(tmp_path, "dm-1", "253:1", "eli-x")
    (tmp_path / "sda").mkdir()
    assert device.number_of_map("eli-x", str(tmp_path)) == "253:1"
    assert device.number_of_map("eli", str(tmp_path)) == ""


@pytest.mark.parametrize(
    "names,partuuid_,label",
    [
        (("/dev/disk/by-partuuid/a-1",), "a-1", "a-1"),
        (("/dev/block/7:7", "/dev/disk/by-id/ata-X 1"), "", "ata-X_1"),
        (("/dev/block/7:7",), "", "loop7"),
    ],
)
def test_the_name_of_a_device_is_a_persistent_one(names: tuple[str, ...], partuuid_: str, label: str) -> None:
    assert Provider("x", "/dev/loop7", names, partuuid_).label == label
