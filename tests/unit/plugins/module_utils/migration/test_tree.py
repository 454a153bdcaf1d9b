# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two trees of real files: whatever differs is told, and nothing else."""

from __future__ import annotations

import errno
import io
import os
import socket
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.migration.far_compare import differences_of
from ansible_collections.nasops.encryption.plugins.module_utils.migration.listing import (
    entries,
    first_entry,
    read_entries,
    write_entries,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.tree import differences

Place = tuple[Path, Path]


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A tree of each kind of thing, twice."""
    # What filesystem the tests run on is nobody's business.
    monkeypatch.setattr(os, "listxattr", lambda path, follow_symlinks: [])
    for end in ("source", "target"):
        top = tmp_path / end
        (top / "folder" / "deep").mkdir(parents=True)
        (top / "folder" / "deep" / "file").write_bytes(b"some data" * 1000)
        (top / "one").write_text("linked")
        os.link(top / "one", top / "two")
        (top / "link").symlink_to("one")
        os.mkfifo(top / "fifo")
        (top / "empty").write_bytes(b"")
        level(top)
    return tmp_path / "source", tmp_path / "target"


def level(top: Path) -> None:
    """Give everything the same time."""
    for folder, names, files in os.walk(top, topdown=False):
        for name in (*names, *files, "."):
            os.utime(os.path.join(folder, name), ns=(5, 10**18 + 7), follow_symlinks=False)


def told(ends: Place, *skip: str) -> list[str]:
    for top in ends:
        level(top)
    return seen(ends, *skip)


def seen(ends: Place, *skip: str) -> list[str]:
    left_out = {os.fsencode(one) for one in skip}
    found = list(differences(str(ends[0]), str(ends[1]), lambda count: None, left_out))
    # With a listing that comes from another host it is the same, in another order.
    listing = io.BytesIO()
    write_entries(os.fsencode(ends[1]), left_out, listing)
    listing.seek(0)
    ours = entries(os.fsencode(ends[0]), left_out, lambda count: None)
    assert sorted(differences_of(ours, read_entries(listing, lambda count: None))) == sorted(found)
    return found


def test_two_that_are_the_same(ends: Place) -> None:
    counts: list[int] = []
    assert list(differences(str(ends[0]), str(ends[1]), counts.append)) == []
    # Each entry counts, and each byte at both ends.
    assert sum(counts) >= 2 * 9000


def test_what_is_missing_and_what_is_too_much(ends: Place) -> None:
    (ends[1] / "folder" / "deep" / "file").unlink()
    (ends[1] / "folder" / "own").mkdir()
    (ends[1] / "folder" / "own" / "below").write_text("")
    assert told(ends) == ["'folder/own' is not at the source", "'folder/deep/file' is missing"]


def test_other_contents_of_the_same_size_and_time(ends: Place) -> None:
    path = ends[1] / "folder" / "deep" / "file"
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    assert told(ends) == ["'folder/deep/file' has other contents"]


def test_another_size(ends: Place) -> None:
    (ends[1] / "empty").write_bytes(b"x")
    assert told(ends) == ["'empty' has size 1, not 0"]


def test_another_mode_of_a_folder(ends: Place) -> None:
    (ends[1] / "folder").chmod(0o1700)
    (ends[0] / "folder").chmod(0o755)
    assert told(ends) == ["'folder' has mode 1700, not 755"]


def test_a_nanosecond(ends: Place) -> None:
    os.utime(ends[1] / "fifo", ns=(5, 10**18 + 8))
    assert seen(ends) == ["'fifo' has time 1000000000000000008, not 1000000000000000007"]


def test_the_root_counts_too(ends: Place) -> None:
    ends[0].chmod(0o755)
    ends[1].chmod(0o700)
    assert told(ends) == ["'/' has mode 700, not 755"]


def test_a_link_that_points_somewhere_else(ends: Place) -> None:
    (ends[1] / "link").unlink()
    (ends[1] / "link").symlink_to("two")
    assert told(ends) == ["'link' points somewhere else"]


def test_names_that_are_no_longer_one_file(ends: Place) -> None:
    (ends[1] / "two").unlink()
    (ends[1] / "two").write_text("linked")
    assert told(ends) == ["'two' is linked to other names"]
    # And the other way round.
    assert told((ends[1], ends[0])) == ["'two' is linked to other names"]


def test_things_of_another_kind_are_not_looked_into(ends: Place) -> None:
    (ends[0] / "thing").mkdir()
    (ends[0] / "thing" / "below").write_text("")
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(ends[1])
        one.bind("thing")
    assert told(ends) == ["'thing' is a socket, not a folder"]


def test_attributes_and_acls(ends: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    at_target = os.fsencode(ends[1])

    def names(path: bytes, follow_symlinks: bool) -> list[str]:
        assert not follow_symlinks
        if path.endswith(b"/fifo"):
            raise OSError(errno.ENOTSUP, "not supported")
        return ["system.posix_acl_access"] if path.endswith((b"/one", b"/two", b"/empty")) else []

    def value(path: bytes, name: str, follow_symlinks: bool) -> bytes:
        return b"other" if path == at_target + b"/empty" else b"acl"

    monkeypatch.setattr(os, "listxattr", names)
    monkeypatch.setattr(os, "getxattr", value)
    assert told(ends) == ["'empty' has other extended attributes or another ACL"]


def test_what_the_host_gives_each_file_is_no_difference(ends: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"security.selinux": b"label", "security.capability": b"all"}
    lacking = {"security.selinux"}

    def names(path: bytes, follow_symlinks: bool) -> list[str]:
        return [one for one in values if one not in lacking or b"/source" in path]

    monkeypatch.setattr(os, "listxattr", names)
    monkeypatch.setattr(os, "getxattr", lambda path, name, follow_symlinks: values[name])
    assert told(ends) == []
    lacking.add("security.capability")
    assert "'one' has other extended attributes or another ACL" in told(ends)


def test_an_attribute_that_can_not_be_read_is_no_difference(ends: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(path: bytes, follow_symlinks: bool) -> list[str]:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(os, "listxattr", names)
    with pytest.raises(OSError, match="Input/output error"):
        seen(ends)


def test_a_file_that_can_not_be_read_is_named(ends: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, mode: str) -> t.Any:
        os.close(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdopen", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        seen(ends)
    assert caught.value.filename == b"empty"


def test_what_is_left_out(ends: Place) -> None:
    (ends[1] / "one").unlink()
    (ends[1] / "folder" / "deep" / "more").write_text("")
    assert told(ends, "one", "folder/deep") == []


def test_the_folder_of_snapshots_is_none_of_the_files(ends: Place) -> None:
    (ends[0] / ".zfs").mkdir()
    (ends[0] / "folder" / ".zfs").mkdir()
    assert told(ends) == ["'folder/.zfs' is missing"]


def test_names_of_any_bytes(ends: Place) -> None:
    path = os.path.join(os.fsencode(ends[0]), b"caf\xe9\n")
    os.mkdir(path)
    assert told(ends) == ["'caf\\xe9\n' is missing"]


def test_deeper_than_python_likes_to_call(tmp_path: Path) -> None:
    for end in ("source", "target"):
        (tmp_path / end).mkdir()
        here = os.open(tmp_path / end, os.O_RDONLY)
        for _depth in range(1200):
            os.mkdir("d", dir_fd=here)
            os.utime(here, ns=(5, 10**18))
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.utime(here, ns=(5, 10**18))
        os.close(here)
    try:
        assert seen((tmp_path / "source", tmp_path / "target")) == []
    finally:
        # Nor does whoever tidies up here.
        subprocess.run(["rm", "-r", str(tmp_path / "source"), str(tmp_path / "target")], check=True)


class TestEmpty:
    def test_folders_are_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / ".zfs").mkdir()
        (tmp_path / ".zfs" / "x").write_text("")
        assert first_entry(str(tmp_path)) == ""

    @pytest.mark.parametrize("name", ["file", "a/b/file", "a/link"])
    def test_anything_else_is_something(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / name).symlink_to("nowhere")
        assert first_entry(str(tmp_path)) == name
