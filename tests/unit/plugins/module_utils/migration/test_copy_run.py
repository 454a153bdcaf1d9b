# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pass over a dataset, step by step, by programs that behave as those of ZFS do."""

from __future__ import annotations

import contextlib
import os
import signal
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import CommandError
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.migration import device as device_file
from ansible_collections.nasops.encryption.plugins.module_utils.migration.compare import Differs
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_compare import CompareTree
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_run import Pass
from ansible_collections.nasops.encryption.plugins.module_utils.migration.rsync import CopyFailed
from ansible_collections.nasops.encryption.plugins.module_utils.migration.tree import Unreadable
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import (
    ReplicaRunner,
    Stalled,
    end_in_order,
)

from ..zfs.streams import Maker
from .tools import Tools

RECORD = "nasops.encryption:migration-copied"
DOCS = Pass(
    "1 of 2: Copy",
    "old/docs@b",
    "new/old/docs",
    "b",
    before="5",
    doomed=("a", "left"),
    settings={"readonly": "off"},
    afterwards={"readonly": None},
    skip=("broken",),
    guid="3",
)
VOLUME = Pass(
    "2 of 2: Copy",
    "old/vol",
    "new/vol",
    "--head--",
    volume=True,
    state="head:9",
    settings={"readonly": "off", "volmode": "dev"},
    afterwards={"readonly": "on", "volmode": "none"},
    guid="4",
    new=True,
)


PARTIAL = [
    "zfs inherit readonly new/old/docs",
    "zfs snapshot new/old/docs@--partial--",
    "zfs get -Hp -o value guid new/old/docs@--partial--",
    f"zfs set {RECORD}=3 77 partial new/old/docs",
]


def of_zfs(tools: Tools) -> list[str]:
    return [line for line in tools.log if line.startswith("zfs")]


def test_files(tools: Tools, runner: ReplicaRunner) -> None:
    DOCS(runner)
    state = "77 77/" + of_zfs(tools)[-1].split("/")[1].split()[0]
    assert of_zfs(tools) == [
        "zfs get -Hp -o value guid old/docs@b",
        # What is marked as under way is no copy, whatever happens next.
        f"zfs set readonly=off {RECORD}=3 5 copying@b new/old/docs",
        "zfs destroy new/old/docs@a,left",
        "zfs snapshot new/old/docs@b",
        "zfs get -Hp -o value guid new/old/docs@b",
        "zfs inherit readonly new/old/docs",
        f"zfs set {RECORD}=3 {state} new/old/docs",
    ]
    (rsync,) = (line for line in tools.log if line.startswith("rsync"))
    (entered,) = (line for line in tools.log if line.startswith("nsenter"))
    assert entered.split()[1].startswith("--mount=/proc/")
    assert f" {tools.base}/1/ " in rsync
    assert " --exclude=/broken " in rsync
    assert rsync.endswith(f"{tools.base}/2/")
    log = [line.split()[0] for line in tools.log]
    assert log.index("mount") < log.index("rsync") < log.index("umount")
    assert tools.log.index("zfs snapshot new/old/docs@b") > len(log) - 1 - log[::-1].index("umount")
    assert [one.row()["target"] for one in runner.sent] == ["new/old/docs"]


def test_files_that_could_not_be_copied(tools: Tools, runner: ReplicaRunner) -> None:
    (tools.folder / "rsync.status").write_text("23")
    with pytest.raises(CopyFailed, match="status 23"):
        DOCS(runner)
    unmounted = max(place for place, line in enumerate(tools.log) if line.startswith("umount"))
    # It is not left writable, and what others write from now on shows.
    assert tools.log[unmounted + 1 :] == PARTIAL
    assert runner.sent == []


def test_one_that_a_signal_ends(tools: Tools, runner: ReplicaRunner) -> None:
    tools.program("rsync", f"kill -TERM {os.getpid()}; exec sleep 20")
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        end_in_order()
        with pytest.raises(SystemExit):
            DOCS(runner)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert tools.log[-4:] == PARTIAL


@pytest.mark.parametrize(
    ("failing", "left"),
    [
        # Nothing was written since a snapshot that the record knows of.
        ("set readonly=off", ["zfs inherit readonly new/old/docs"]),
        ("destroy", ["zfs inherit readonly new/old/docs"]),
        ("get -Hp -o value guid new/old/docs@b", ["zfs inherit readonly new/old/docs"]),
        # No room for it, say.
        ("snapshot new/old/docs@b", ["zfs inherit readonly new/old/docs"]),
    ],
)
def test_wherever_it_fails_it_is_closed(tools: Tools, runner: ReplicaRunner, failing: str, left: list[str]) -> None:
    tools.program("zfs", f"case \"$*\" in '{failing}'*) echo 'no room' >&2; exit 1;; get*) echo 77;; esac")
    with pytest.raises(StorageError, match="no room") as caught:
        DOCS(runner)
    assert of_zfs(tools)[-1:] == left
    assert "left_writable" not in caught.value.details


def test_one_that_can_not_be_closed_tells_so(tools: Tools, runner: ReplicaRunner) -> None:
    (tools.folder / "rsync.status").write_text("23")
    tools.program("zfs", 'case "$*" in inherit*) echo "pool is busy" >&2; exit 1;; get*) echo 77;; esac')
    with pytest.raises(CopyFailed, match="status 23") as caught:
        DOCS(runner)
    assert "pool is busy" in caught.value.details["left_writable"]
    # What is still writable is no state that a snapshot could stand for.
    assert not any("partial" in line for line in of_zfs(tools))


def test_a_target_that_is_not_empty_after_all(tools: Tools, runner: ReplicaRunner) -> None:
    # What is mounted holds a file here.
    with pytest.raises(Refused, match="'new/old/docs' is not empty: there is 'docs'"):
        replace(DOCS, empty=True)(runner)
    assert of_zfs(tools) == ["zfs get -Hp -o value guid old/docs@b"]


def test_a_target_that_can_not_be_looked_at(
    tools: Tools, runner: ReplicaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: bytes) -> list[bytes]:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "listdir", broken)
    with pytest.raises(Unreadable, match="can't be read: Input/output error"):
        replace(DOCS, empty=True)(runner)


def test_one_that_zfs_refuses(tools: Tools, runner: ReplicaRunner) -> None:
    tools.program("zfs", "echo 'cannot set property: it is busy' >&2; exit 1")
    with pytest.raises(CommandError):
        replace(DOCS, state="1")(runner)
    assert not any(line.startswith("rsync") for line in tools.log)


class TestVolume:
    @pytest.fixture
    def device(self, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tools.folder / "device"
        path.write_bytes(bytes(1 << 15))

        @contextlib.contextmanager
        def opened(volume: str) -> t.Iterator[int]:
            assert volume == "new/vol"
            descriptor = os.open(path, os.O_RDWR)
            try:
                yield descriptor
            finally:
                os.close(descriptor)

        monkeypatch.setattr(device_file, "opened", opened)
        one = Maker()
        (tools.folder / "stream").write_bytes(one.stream(one.object(1), one.write(1, 8192, b"data" * 1024)))
        return path

    def test_blocks(self, tools: Tools, runner: ReplicaRunner, device: Path) -> None:
        VOLUME(runner)
        assert device.read_bytes() == bytes(8192) + b"data" * 1024 + bytes(20480)
        assert of_zfs(tools) == [
            f"zfs set readonly=off volmode=dev {RECORD}=4 - copying:readonly=on,volmode=none@--head-- new/vol",
            "zfs send -L old/vol",
            "zfs snapshot new/vol@--head--",
            "zfs get -Hp -o value guid new/vol@--head--",
            f"zfs set readonly=on volmode=none {RECORD}=4 77 head:9 new/vol",
        ]

    def test_a_block_that_can_not_be_read(self, tools: Tools, runner: ReplicaRunner, device: Path) -> None:
        stream = (tools.folder / "stream").read_bytes()
        (tools.folder / "stream").write_bytes(stream[:-400])
        fails = f"cat {tools.folder}/stream; echo 'warning: Input/output error' >&2; exit 1"
        tools.program("zfs", f"[ $1 != get ] || echo 77; [ $1 != send ] || {{ {fails}; }}")
        words = "'old/vol' can't be read to its end: warning: Input/output error"
        with pytest.raises(StorageError, match=words) as caught:
            VOLUME(runner)
        assert caught.value.details["rc"] == 1
        assert of_zfs(tools)[-4:] == [
            "zfs set readonly=on volmode=none new/vol",
            "zfs snapshot new/vol@--partial--",
            "zfs get -Hp -o value guid new/vol@--partial--",
            f"zfs set {RECORD}=4 77 partial new/vol",
        ]

    def test_a_stream_that_ends_early_without_a_word(self, tools: Tools, runner: ReplicaRunner, device: Path) -> None:
        (tools.folder / "stream").write_bytes((tools.folder / "stream").read_bytes()[:-400])
        with pytest.raises(StorageError, match="can't be read to its end: The stream ended in the middle"):
            VOLUME(runner)

    def test_one_that_ends_well_and_fails(self, tools: Tools, runner: ReplicaRunner, device: Path) -> None:
        (tools.folder / "send.status").write_text("3")
        with pytest.raises(StorageError, match="zfs ended with status 3"):
            VOLUME(runner)

    def test_nothing_comes(self, tools: Tools, runner: ReplicaRunner, device: Path) -> None:
        tools.program("zfs", "[ $1 != send ] || exec sleep 100")
        with pytest.raises(Stalled, match="Nothing of 'old/vol' has come"):
            replace(VOLUME, stall_timeout=0.2)(runner)

    def test_a_device_that_is_full(
        self, tools: Tools, runner: ReplicaRunner, device: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(descriptor: int, data: bytes, offset: int) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="The device of 'new/vol' can't be written: No space left on device"):
            VOLUME(runner)


class TestCompare:
    ONE = CompareTree("Compare", "old/docs@b", "new/old/docs@b", ("left out",), 100)

    def test_the_same(self, tools: Tools, runner: ReplicaRunner) -> None:
        self.ONE(runner)
        assert tools.mounts == [
            f"mount -c -i -n -t zfs -o ro -- old/docs@b {tools.base}/1",
            f"mount -c -i -n -t zfs -o ro -- new/old/docs@b {tools.base}/2",
        ]

    def test_not_the_same(self, tools: Tools, runner: ReplicaRunner) -> None:
        tools.mount_by('echo "$last" >"$last/file"; touch "$last/left out"')
        with pytest.raises(Differs, match="'new/old/docs@b' is not what 'old/docs@b' is: .*'file' has other contents"):
            self.ONE(runner)

    def test_so_much_that_it_is_not_worth_reading_on(self, tools: Tools, runner: ReplicaRunner) -> None:
        tools.mount_by('[ "${last%/1}" = "$last" ] || seq -f "$last/%g" 99 | xargs touch')
        with pytest.raises(Differs, match="is missing and more") as caught:
            self.ONE(runner)
        assert len(caught.value.details["differences"]) == 20

    def test_what_can_not_be_read(self, tools: Tools, runner: ReplicaRunner, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(path: bytes) -> list[bytes]:
            raise OSError(5, "Input/output error", path)

        monkeypatch.setattr(os, "listdir", broken)
        with pytest.raises(Unreadable, match="base/fs/1' can't be read: Input/output error"):
            self.ONE(runner)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_what_nobody_has_looked_at_is_not_the_same(
        self, tools: Tools, runner: ReplicaRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(path: bytes) -> list[bytes]:
            raise MemoryError

        monkeypatch.setattr(os, "listdir", broken)
        with pytest.raises(Unreadable, match="'old/docs@b' and 'new/old/docs@b' were not compared to the end"):
            self.ONE(runner)
