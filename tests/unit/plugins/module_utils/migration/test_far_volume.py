# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A volume of another host: the program that writes there, with a file in the place of a device."""

from __future__ import annotations

import io
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.migration import device as device_file
from ansible_collections.nasops.encryption.plugins.module_utils.migration import far as far_file
from ansible_collections.nasops.encryption.plugins.module_utils.migration import far_volume
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_run import Pass
from ansible_collections.nasops.encryption.plugins.module_utils.migration.device import (
    END,
    CutShort,
    blocks_in,
    framed,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner, Stalled

from ..zfs.streams import Maker
from .tools import Tools

VOLUME = Pass(
    "Copy", "old/vol", "new/vol", "a", volume=True, state="1", afterwards={"volmode": None}, guid="4", stall_timeout=20
)
SIZE = 1 << 16
DATA = {0: b"a" * 4096, 20480: b"b" * 8192}


@pytest.fixture
def device(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel says whose device it is can't be had in a test. All else runs as it does there."""
    path = tools.folder / "zd0"
    path.write_bytes(b"x" * SIZE)
    source_of = far_file.source_of

    def changed(program: types.ModuleType) -> bytes:
        found = source_of(program)
        if program is not device_file:
            return found
        line = b"    path = device_of(volume)\n"
        assert found.count(line) == 1
        known = f"    path = {str(path)!r} if volume == 'new/vol' else ''\n".encode()
        return found.replace(line, known).replace(b"_PATIENCE, _PAUSE = 60.0", b"_PATIENCE, _PAUSE = 0.0")

    for one in (far_file, far_volume):
        monkeypatch.setattr(one, "source_of", changed)
    holds(tools, DATA)
    return path


def writes(tools: Tools, script: str) -> None:
    """What is done in place of the program that writes there."""
    tools.program("python3", f'case "$*" in *leftovers.py*) exec {sys.executable} "$@";; esac; {script}')


def holds(tools: Tools, data: dict[int, bytes]) -> None:
    one = Maker()
    blocks = [one.write(1, at, block) for at, block in data.items()]
    (tools.folder / "stream").write_bytes(one.stream(one.object(1), *blocks))


def whole(data: dict[int, bytes]) -> bytes:
    found = bytearray(SIZE)
    for at, block in data.items():
        found[at : at + len(block)] = block
    return bytes(found)


def of_zfs(tools: Tools) -> list[str]:
    return [line.split()[1] for line in tools.log if line.startswith("zfs")]


def test_it_becomes_what_the_stream_says(tools: Tools, across: ReplicaRunner, device: Path) -> None:
    VOLUME(across)
    assert device.read_bytes() == whole(DATA)
    assert of_zfs(tools) == ["set", "send", "snapshot", "get", "inherit", "set"]
    assert [one.row()["target"] for one in across.sent] == ["new/vol"]


def test_of_a_new_one_nothing_is_cleared(tools: Tools, across: ReplicaRunner, device: Path) -> None:
    replace(VOLUME, new=True)(across)
    written = whole(DATA)
    assert device.read_bytes() == written[:4096] + b"x" * 16384 + written[20480:28672] + b"x" * (SIZE - 28672)


def test_more_than_any_pipe_holds(tools: Tools, across: ReplicaRunner, device: Path) -> None:
    data = {at << 17: bytes([at % 255 + 1]) * (1 << 17) for at in range(64)}
    holds(tools, data)
    VOLUME(across)
    assert device.read_bytes() == b"".join(data.values())


def test_a_source_that_ends_early_is_its_own_fault(tools: Tools, across: ReplicaRunner, device: Path) -> None:
    (tools.folder / "stream").write_bytes((tools.folder / "stream").read_bytes()[:-400])
    (tools.folder / "send.status").write_text("1")
    with pytest.raises(StorageError, match="'old/vol' can't be read to its end"):
        VOLUME(across)
    # What lies behind the last block was not taken for empty.
    assert device.read_bytes()[-4096:] == b"x" * 4096
    assert of_zfs(tools)[-4:] == ["inherit", "snapshot", "get", "set"]


def test_one_without_a_device(tools: Tools, across: ReplicaRunner, device: Path) -> None:
    with pytest.raises(StorageError, match="'new/other' on 'nas2' can't be written: The volume 'new/other' has no dev"):
        replace(VOLUME, target="new/other")(across)
    assert "send" not in of_zfs(tools)


def test_a_device_that_is_full(tools: Tools, across: ReplicaRunner, device: Path) -> None:
    device.unlink()
    device.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="The device of 'new/vol' on 'nas2' can't be written: "):
        VOLUME(across)


@pytest.mark.parametrize("amid", [False, True])
def test_a_line_that_breaks(tools: Tools, across: ReplicaRunner, device: Path, amid: bool) -> None:
    writes(tools, "echo ready; head -c 9000 >/dev/null; exit 255" if amid else "exit 255")
    with pytest.raises(StorageError, match="can't be written: the connection to 'nas2' was lost"):
        VOLUME(across)
    assert of_zfs(tools)[-4:] == ["inherit", "snapshot", "get", "set"]


def test_one_that_ends_without_saying_that_all_is_there(tools: Tools, across: ReplicaRunner, device: Path) -> None:
    writes(tools, "echo ready; exec head -c 18000 >/dev/null")
    with pytest.raises(StorageError, match="can't be written: it ended with status 0"):
        VOLUME(across)


def test_one_that_takes_all_and_does_not_come_to_an_end(tools: Tools, across: ReplicaRunner, device: Path) -> None:
    writes(tools, "echo ready; exec cat >/dev/null")
    with pytest.raises(Stalled, match="Nothing has moved to 'new/vol' on 'nas2'"):
        replace(VOLUME, stall_timeout=1.0)(across)


@pytest.mark.parametrize("ready", ["echo ready; ", ""])
def test_nothing_moves(
    tools: Tools, across: ReplicaRunner, device: Path, monkeypatch: pytest.MonkeyPatch, ready: str
) -> None:
    monkeypatch.setattr(far_volume, "_PATIENCE", 1.0)
    monkeypatch.setattr(device_file, "LEAVE", 0.1)
    holds(tools, {at << 17: b"x" * (1 << 17) for at in range(64)})
    writes(tools, f"{ready}exec sleep 60")
    with pytest.raises(Stalled, match="Nothing has moved to 'new/vol' on 'nas2' for 1 seconds"):
        replace(VOLUME, stall_timeout=1.0)(across)


@given(st.lists(st.tuples(st.integers(0, 1 << 50), st.binary(min_size=1, max_size=50))), st.data())
def test_frames(blocks: list[tuple[int, bytes]], data: st.DataObject) -> None:
    sent = b"".join(framed(offset, block) for offset, block in blocks) + END
    assert list(blocks_in(io.BytesIO(sent))) == blocks
    with pytest.raises(CutShort):
        list(blocks_in(io.BytesIO(sent[: data.draw(st.integers(0, len(sent) - 1))])))
