# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of a volume, out of a stream and onto a device."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.migration import device as device_file
from ansible_collections.nasops.encryption.plugins.module_utils.migration.device import (
    NoDevice,
    device_of,
    opened,
    write_blocks,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.stream_digest import Contents, NotAStream
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.volume_stream import blocks_of, volume_contents

from ..zfs.streams import Maker

SIZE = 1 << 16
DATA = st.dictionaries(st.integers(0, SIZE // 512 - 1), st.integers(0, 3), max_size=40)


def volume(sectors: t.Mapping[int, int]) -> bytes:
    found = bytearray(SIZE)
    for number, letter in sectors.items():
        found[number * 512 : (number + 1) * 512] = bytes([letter]) * 512
    return bytes(found)


def stream(data: bytes, block: int, maker: Maker) -> bytes:
    """As zfs sends a volume: the data as object 1, and behind it the one with its size. Empty blocks are not there."""
    blocks = [
        maker.write(1, at, data[at : at + block])
        for at in range(0, len(data), block)
        if data[at : at + block].strip(b"\0")
    ]
    size = maker.object(2, kind=23) + maker.write(2, 0, struct.pack("<Q", len(data)))
    return maker.stream(maker.object(1, kind=23), *blocks, maker.free(1, len(data), 1 << 30), size)


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    return list(blocks_of(io.BytesIO(data), lambda count: None))


def contents(data: bytes) -> Contents:
    return volume_contents(io.BytesIO(data), lambda count: None)


def test_blocks_come_with_their_places() -> None:
    data = volume({0: 1, 40: 2})
    assert blocks(stream(data, 4096, Maker())) == [(0, data[:4096]), (20480, data[20480:24576])]


def test_what_is_out_of_order_is_not_believed() -> None:
    one = Maker()
    with pytest.raises(NotAStream, match="out of order"):
        blocks(one.stream(one.object(1), one.write(1, 8192, b"x" * 4096), one.write(1, 4096, b"x" * 4096)))


@given(DATA, st.sampled_from([512, 4096, 16384]), st.sampled_from([512, 8192, 32768]))
def test_the_size_of_blocks_does_not_count(sectors: dict[int, int], one: int, other: int) -> None:
    data = volume(sectors)
    assert contents(stream(data, one, Maker())) == contents(stream(data, other, Maker(">", 5)))


@given(DATA, DATA)
def test_what_differs_differs(ours: dict[int, int], theirs: dict[int, int]) -> None:
    one, other = volume(ours), volume(theirs)
    same = contents(stream(one, 4096, Maker())) == contents(stream(other, 8192, Maker()))
    assert same == (one == other)


class Device:
    """A file that stands for a device, and what was written to it."""

    def __init__(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self.path = path
        self.written: list[tuple[int, int]] = []

    def becomes(self, data: bytes, block: int, fresh: bool, monkeypatch: pytest.MonkeyPatch) -> bytes:
        write = os.pwrite

        def noted(descriptor: int, what: memoryview, offset: int) -> int:
            self.written.append((offset, len(what)))
            # Not all at once, as a device may do.
            return write(descriptor, what[:3000], offset)

        pieces = blocks(stream(data, block, Maker()))
        with monkeypatch.context() as patched, self.path.open("r+b") as file:
            patched.setattr(os, "pwrite", noted)
            write_blocks(file.fileno(), len(data), iter(pieces), fresh)
        return self.path.read_bytes()


@given(DATA, DATA, st.sampled_from([512, 4096, 16384]))
def test_a_device_becomes_what_the_stream_says(
    tmp_path_factory: pytest.TempPathFactory, before: dict[int, int], after: dict[int, int], block: int
) -> None:
    device = Device(tmp_path_factory.mktemp("device") / "zd0", volume(before))
    with pytest.MonkeyPatch.context() as patched:
        assert device.becomes(volume(after), block, False, patched) == volume(after)


def test_what_is_written_is_brought_to_the_disks_every_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it in the end would take so long that the other host would be given up, since it says nothing."""
    monkeypatch.setattr(device_file, "_SYNC", 8192)
    told: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: told.append("sync"))
    path = tmp_path / "zd0"
    path.write_bytes(bytes(4096) + b"x" * (SIZE - 4096))
    written = [(at, b"y" * 4096) for at in range(4096, 40960, 4096)]
    with path.open("r+b") as file:
        # What is the same already needs none.
        write_blocks(file.fileno(), SIZE, iter([(0, bytes(4096)), *written]), True, lambda: told.append("."))
    assert "".join("s" if one == "sync" else one for one in told) == "." + "..s." * 4 + ".s"


def test_what_is_the_same_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path / "zd0", volume({0: 1, 40: 2, 100: 3}))
    assert device.becomes(volume({0: 1, 41: 2}), 4096, False, monkeypatch) == volume({0: 1, 41: 2})
    # The block that holds other data, and the chunks of what is empty now.
    assert {offset for offset, _size in device.written if offset < 24576} == {20480, 23480}
    assert min(offset for offset, _size in device.written if offset > 23480) == 24576


def test_of_a_new_volume_nothing_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path / "zd0", bytes(SIZE))
    device.becomes(volume({40: 2}), 512, True, monkeypatch)
    assert device.written == [(20480, 512)]


class TestDevice:
    @pytest.fixture
    def devices(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """zd0 is a volume with a blank in its name, zd16 another one, and zd16p1 a partition of it."""
        for name in ("zd0", "zd16", "zd16p1", "sda"):
            (tmp_path / name).write_text("")
        names = {"zd0": b"new/my vol", "zd16": b"new/vol"}

        def ioctl(descriptor: int, request: int, room: bytes) -> bytes:
            assert (request, len(room)) == (0x8100127D, 256)
            name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
            return names[name].ljust(256, b"\0")

        monkeypatch.setattr(fcntl, "ioctl", ioctl)
        return tmp_path

    def test_the_kernel_tells_whose_it_is(self, devices: Path) -> None:
        assert device_of("new/my vol", str(devices)) == str(devices / "zd0")
        assert device_of("new/vol", str(devices)) == str(devices / "zd16")
        assert device_of("new/other", str(devices)) == ""

    def test_it_is_waited_for(self, devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = ["", "", str(devices / "zd0")]
        monkeypatch.setattr(device_file, "_PAUSE", 0.0)
        monkeypatch.setattr(device_file, "device_of", lambda volume: answers.pop(0))
        with opened("new/my vol") as descriptor:
            assert os.readlink(f"/proc/self/fd/{descriptor}") == str(devices / "zd0")
        assert answers == []

    def test_but_not_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device_file, "_PATIENCE", 0.0)
        monkeypatch.setattr(device_file, "_PAUSE", 0.0)
        monkeypatch.setattr(device_file, "device_of", lambda volume: "")
        with pytest.raises(NoDevice, match="'new/vol' has no device after 0 seconds"), opened("new/vol"):
            pass
