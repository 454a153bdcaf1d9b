# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target on another host: a program in place of ssh runs what is to be run there, in other folders."""

from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
import tempfile
import types
import typing as t
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.migration import (
    device,
    leftovers,
    listing,
    private_mount,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.compare import Differs
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_compare import CompareTree
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_empty import something_in
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_run import Pass
from ansible_collections.nasops.encryption.plugins.module_utils.migration.far import far_end, python, source_of
from ansible_collections.nasops.encryption.plugins.module_utils.migration.far_alone import mark_of
from ansible_collections.nasops.encryption.plugins.module_utils.migration.private_mount import (
    Mount,
    NotMounted,
    mounted,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.rsync import CopyFailed
from ansible_collections.nasops.encryption.plugins.module_utils.migration.tree import Unreadable
from ansible_collections.nasops.encryption.plugins.module_utils.remote import RemoteRunner
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner, Stalled

from .tools import Tools

DOCS = Pass("Copy", "old/docs@b", "new/old/my docs", "b", state="1", afterwards={"readonly": None}, guid="3")
COMPARED = CompareTree("Compare", "old/docs@b", "new/old/my docs@b", ("left out",), 100, 20.0)
# What they import of the standard library of any Python.
STANDARD = {"contextlib", "errno", "fcntl", "hashlib", "os", "re", "signal", "stat", "struct", "sys", "time", "typing"}


@pytest.fixture
def far(across: ReplicaRunner) -> RemoteRunner:
    found = far_end(across)
    assert found is not None
    return found


def of(tools: Tools, program: str) -> list[str]:
    return [line for line in tools.log if line.split()[0] == program]


@pytest.mark.parametrize("program", [listing, device, leftovers])
def test_what_runs_by_itself_needs_nothing_else(program: types.ModuleType) -> None:
    tree = ast.parse(source_of(program), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert (node.level, node.module) == (0, "__future__")
        elif isinstance(node, ast.Import):
            assert {one.name for one in node.names} <= STANDARD


def test_they_are_found_in_a_zip_file_too(tmp_path: Path) -> None:
    """As they are when Ansible runs a module, with all that it imports and nothing else."""
    top = Path(device.__file__).parents[2]
    place = "ansible_collections/nasops/encryption/plugins"
    with zipfile.ZipFile(tmp_path / "module.zip", "w") as archive:
        for path in top.rglob("*.py"):
            archive.write(path, f"{place}/{path.relative_to(top)}")
        for folder in ("ansible_collections", "ansible_collections/nasops", place.rpartition("/")[0], place):
            archive.writestr(f"{folder}/__init__.py", "")
        names = archive.namelist()
        for folder in ("module_utils", "module_utils/migration", "module_utils/zfs"):
            if f"{place}/{folder}/__init__.py" not in names:
                archive.writestr(f"{place}/{folder}/__init__.py", "")
    script = (
        "from ansible_collections.nasops.encryption.plugins.module_utils.migration import far, leftovers; "
        "import sys; sys.stdout.buffer.write(far.source_of(leftovers))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "module.zip")}
    done = subprocess.run((sys.executable, "-c", script), env=environment, capture_output=True, check=True)
    assert done.stdout == source_of(leftovers)


def test_words_that_any_shell_understands() -> None:
    assert not any("\n" in word or "!" in word for word in python(device, "new/vol", "fresh"))


def test_nothing_is_far_that_is_here(runner: ReplicaRunner) -> None:
    assert far_end(runner) is None


class TestMount:
    def test_it_is_held_there(self, tools: Tools, across: ReplicaRunner, far: RemoteRunner) -> None:
        with mounted(across, Mount("new/old", write=True), end=far, before=("env", "A=b c")) as place:
            assert os.listdir(tools.there / "1") == ["old"]
            # The process there, not the one of ssh.
            words = Path(f"/proc/{place.pid}/cmdline").read_bytes().split(b"\0")
            assert words[:2] == [b"sh", b"-c"]
            assert b"A=b c" in Path(f"/proc/{place.pid}/environ").read_bytes().split(b"\0")
        assert tools.mounts == [f"mount -c -i -n -t zfs -o rw,noatime -- new/old {tools.there}/1"]
        assert tools.log[-1] == f"umount {tools.there}/1"

    def test_one_that_can_not_be_mounted(self, tools: Tools, across: ReplicaRunner, far: RemoteRunner) -> None:
        tools.mount_by("echo 'mount: it is busy.' >&2; exit 32")
        with (
            pytest.raises(NotMounted, match="'new/old' on 'nas2' can't be mounted: mount: it is busy"),
            mounted(across, Mount("new/old"), end=far),
        ):
            raise AssertionError("it was not mounted")

    def test_it_goes_with_the_connection(self, tools: Tools, across: ReplicaRunner, far: RemoteRunner) -> None:
        with (
            pytest.raises(NotMounted, match="'new/old' on 'nas2' can't be unmounted"),
            mounted(across, Mount("new/old"), end=far) as place,
        ):
            os.kill(place.pid, signal.SIGKILL)

    def test_whatever_the_login_shell_has_to_say(self, tools: Tools, across: ReplicaRunner, far: RemoteRunner) -> None:
        tools.program("unshare", 'echo "ready to serve"; echo hello; shift 3; exec "$@"')
        with mounted(across, Mount("new/old"), end=far) as place:
            assert place.inside == (f"{tools.base}/1",)


class TestEmpty:
    def test_what_is_there(self, tools: Tools, across: ReplicaRunner) -> None:
        assert something_in(across, Mount("new/old")) == "old"

    def test_nothing_is_there(self, tools: Tools, across: ReplicaRunner) -> None:
        tools.mount_by("exit 0")
        assert something_in(across, Mount("new/old")) == ""

    def test_what_can_not_be_looked_at(self, tools: Tools, across: ReplicaRunner) -> None:
        tools.mount_by(f"rmdir {tools.there}/1")
        tools.program("umount", "exit 0")
        with pytest.raises(Unreadable, match="'new/old' can't be looked at: .*/1' can't be read: No such file"):
            something_in(across, Mount("new/old"))

    def test_one_that_can_not_be_mounted(self, tools: Tools, across: ReplicaRunner) -> None:
        tools.mount_by("echo 'mount: it is busy.' >&2; exit 32")
        with pytest.raises(NotMounted, match="'new/old' on 'nas2' can't be mounted: mount: it is busy"):
            something_in(across, Mount("new/old"))

    def test_one_that_can_not_be_unmounted(
        self, tools: Tools, across: ReplicaRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(private_mount, "_TRIES", 1)
        tools.program("umount", "echo 'umount: it is busy.' >&2; exit 32")
        with pytest.raises(NotMounted, match="'new/old' on 'nas2' can't be unmounted: umount: it is busy"):
            something_in(across, Mount("new/old"))

    def test_it_waits_for_nobody(self, tools: Tools, across: ReplicaRunner) -> None:
        """One program there, which ends also when the line does not: nothing that holds a mount for another one."""
        something_in(across, Mount("new/old"))
        assert [line.split()[0] for line in tools.log if line.split()[0] not in ("mount", "python3")] == [
            "ssh",
            "unshare",
            "umount",
        ]
        assert "cat" not in next(line for line in tools.log if line.startswith("unshare"))


class TestFiles:
    def test_rsync_connects_by_itself(self, tools: Tools, across: ReplicaRunner) -> None:
        # As rsync does it: its words, and those of the server.
        tools.program("rsync", f'for one; do echo "$one"; done >{tools.folder}/words')
        DOCS(across)
        words = (tools.folder / "words").read_text().splitlines()
        assert words[-2:] == [f"{tools.base}/1/", f"nas2:{tools.base}/1/"]
        assert "--partial" in words
        assert "--whole-file" not in words
        (shell,) = (one for one in words if one.startswith("--rsh="))
        assert shell.startswith("--rsh=ssh -T -o BatchMode=yes ")
        assert shell.endswith(" -i '/root/my key' -l admin -J 'it''s'")
        assert " ControlMaster=no " in shell
        (program,) = (one for one in words if one.startswith("--rsync-path="))
        assert program.startswith("--rsync-path=env LANG=C.UTF-8 LC_ALL=C.UTF-8 PATH=/usr/local/sbin:")
        mark, enter = program.split(" env ")[1].split(" nsenter ")
        assert mark == f"'{mark_of(across, 'new/old/my docs')}'"
        assert enter.startswith("--mount=/proc/")
        assert enter.endswith("/ns/mnt --wd=/ rsync")
        # It runs where the source is, and enters where the target is: two processes hold them.
        (entered,) = of(tools, "nsenter")
        assert enter.split()[0] != entered.split()[1]
        assert sorted(tools.mounts) == [
            f"mount -c -i -n -t zfs -o ro -- old/docs@b {tools.base}/1",
            f"mount -c -i -n -t zfs -o rw,noatime -- new/old/my docs {tools.there}/1",
        ]
        last = [one.split()[1] for one in of(tools, "zfs")]
        assert last == ["set", "snapshot", "get", "inherit", "set"]

    def test_its_words_are_those_that_ssh_gets(self, tools: Tools, across: ReplicaRunner) -> None:
        """rsync splits them by itself: quotes count, and within them a doubled one stands for itself."""
        tools.program("rsync", f'for one; do echo "$one"; done >{tools.folder}/words')
        DOCS(across)
        (shell,) = (one for one in (tools.folder / "words").read_text().splitlines() if one.startswith("--rsh="))
        far = far_end(across)
        assert far is not None
        assert split_as_rsync(shell[len("--rsh=") :]) == list(far.shell())

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (12, "rsync to 'nas2' ended with status 12: the connection broke, or rsync ended early there"),
            (255, "rsync to 'nas2' ended with status 255: the connection was lost"),
            (127, "a program was not found there"),
            (23, "rsync to 'nas2' ended with status 23: some files could not be copied"),
        ],
    )
    def test_a_line_that_breaks(self, tools: Tools, across: ReplicaRunner, status: int, words: str) -> None:
        (tools.folder / "rsync.status").write_text(str(status))
        with pytest.raises(CopyFailed, match=words) as caught:
            DOCS(across)
        assert caught.value.hint
        assert of(tools, "zfs")[-4:-2] == [
            "zfs inherit readonly new/old/my docs",
            "zfs snapshot new/old/my docs@--partial--",
        ]

    def test_a_target_that_is_not_empty_after_all(self, tools: Tools, across: ReplicaRunner) -> None:
        with pytest.raises(Refused, match="'new/old/my docs' is not empty: there is 'my docs'"):
            replace(DOCS, empty=True)(across)
        assert of(tools, "zfs") == []


def split_as_rsync(text: str) -> list[str]:
    """As do_cmd() in main.c of rsync does it."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        letter = text[at]
        at += 1
        if quote:
            if letter != quote:
                word += letter
            elif text[at : at + 1] == quote:
                word += quote
                at += 1
            else:
                quote = ""
        elif letter in "'\"":
            quote = letter
        elif letter == " ":
            words.append(word)
            word = ""
        else:
            word += letter
    return [*words, word]


class TestCompare:
    @pytest.fixture
    def files(self, tools: Tools) -> Tools:
        tools.mount_by(
            'mkdir "$last/folder"; seq 1000 >"$last/folder/numbers"; touch "$last/left out"; '
            'find "$last" -exec touch -d @5 {} +',
        )
        tools.program("umount", 'rm -rf "$1"/*')
        return tools

    def test_the_same(self, files: Tools, across: ReplicaRunner) -> None:
        COMPARED(across)
        assert sorted(files.mounts) == [
            f"mount -c -i -n -t zfs -o ro -- new/old/my docs@b {files.there}/1",
            f"mount -c -i -n -t zfs -o ro -- old/docs@b {files.base}/1",
        ]

    def test_not_the_same(self, files: Tools, across: ReplicaRunner) -> None:
        path = files.folder / "mount"
        path.write_text(
            path.read_text()
            + f'[ "$last" = {files.base}/1 ] || {{ echo 2 1<>"$last/folder/numbers"; echo x >"$last/left out"; '
            + 'touch -d @5 "$last/folder/numbers" "$last/folder" "$last"; }\n'
        )
        with pytest.raises(Differs, match="'folder/numbers' has other contents") as caught:
            COMPARED(across)
        assert len(caught.value.details["differences"]) == 1

    def test_so_much_that_it_is_not_read_to_the_end(self, files: Tools, across: ReplicaRunner) -> None:
        path = files.folder / "mount"
        path.write_text(path.read_text() + f'[ "$last" = {files.base}/1 ] || seq -f "$last/%g" 99 | xargs touch\n')
        # What is still at it there keeps it from being unmounted, for a moment.
        once = f"{files.folder}/tried"
        files.program("umount", f"[ -e {once} ] || {{ touch {once}; echo 'target is busy' >&2; exit 32; }}")
        with pytest.raises(Differs, match="'1' is not at the source.* and more"):
            COMPARED(across)

    def test_what_was_not_mounted_any_more_is_no_difference(
        self, files: Tools, across: ReplicaRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The connection of the holder breaks, and what then runs there finds an empty folder."""
        monkeypatch.setattr(private_mount, "_TRIES", 1)
        files.program("nsenter", f'shift 2; rm -rf {files.there}/1/*; exec "$@"')
        files.program("umount", f'case $1 in {files.there}*) echo "not mounted" >&2; exit 32;; esac; rm -rf "$1"/*')
        with pytest.raises(NotMounted, match="'new/old/my docs@b' on 'nas2' can't be unmounted: not mounted"):
            COMPARED(across)

    def test_a_listing_that_ends_early(self, files: Tools, across: ReplicaRunner) -> None:
        files.program("nsenter", "echo 'nsenter: no such process' >&2; exit 1")
        words = "listing of 'new/old/my docs@b' on 'nas2' can't be read, it ends early: nsenter: no such process"
        with pytest.raises(Unreadable, match=words):
            COMPARED(across)

    def test_no_room_for_what_it_is_told(
        self, files: Tools, across: ReplicaRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full() -> t.BinaryIO:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(tempfile, "TemporaryFile", full)
        with pytest.raises(StorageError, match="A temporary file can't be written on this host: No space left"):
            COMPARED(across)

    def test_a_line_that_breaks(self, files: Tools, across: ReplicaRunner) -> None:
        files.program("nsenter", "exit 255")
        with pytest.raises(Unreadable, match="it ends early: the connection to 'nas2' was lost"):
            COMPARED(across)

    def test_something_that_can_not_be_read_there(self, files: Tools, across: ReplicaRunner) -> None:
        files.program("nsenter", f'shift 2; rm -r {files.there}/1; exec "$@"')
        with pytest.raises(Unreadable, match="On 'nas2': '.*there/fs/1' can't be read: No such file"):
            COMPARED(across)

    def test_nothing_comes(self, files: Tools, across: ReplicaRunner) -> None:
        files.program("nsenter", "exec sleep 60")
        with pytest.raises(Stalled, match="Nothing has come for 1 seconds"):
            replace(COMPARED, stall_timeout=1.0)(across)
