# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree as a stream of records, by a program that is run by itself. What is found in it is told by test_tree.py."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.migration import listing
from ansible_collections.nasops.encryption.plugins.module_utils.migration.far import python, source_of
from ansible_collections.nasops.encryption.plugins.module_utils.migration.far_compare import differences_of
from ansible_collections.nasops.encryption.plugins.module_utils.migration.listing import (
    CutShort,
    Entry,
    Unlisted,
    entries,
    read_entries,
    unpacked,
    write_entries,
)

TEXT = st.binary(max_size=20).filter(lambda one: b"\0" not in one)
NAMES = st.lists(st.sampled_from([b"a", b"b", b"a-", b"a\xff", b"A"]), min_size=1, max_size=4).map(b"/".join)


def nobody(count: int) -> None:
    """Whoever does not want to know how far it is."""


def run(what: str, folder: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = (sys.executable, *python(listing, what, str(folder))[1:])
    return subprocess.run(argv, input=source_of(listing) + given, capture_output=True, check=False)


def told(data: bytes) -> list[Entry]:
    return list(read_entries(io.BytesIO(data), nobody))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "a" / "deep").mkdir(parents=True)
    (top / "a" / "deep" / "file").write_text("contents")
    (top / "a-b").write_text("linked")
    os.link(top / "a-b", top / "a" / "z")
    (top / "left out").mkdir()
    (top / "left out" / "below").write_text("")
    (top / "link").symlink_to(b"caf\xe9")
    (top / ".zfs").mkdir()
    return top


def test_it_runs_by_itself(tree: Path) -> None:
    done = run("list", tree, b"left out\0nothing of that name")
    assert (done.returncode, done.stderr) == (0, b"")
    found = told(done.stdout)
    # A folder, and what is in it, come before the next name, also before one that sorts before the slash.
    assert [one.path for one in found] == [b"", b"a", b"a/deep", b"a/deep/file", b"a/z", b"a-b", b"link"]
    by_name = {one.path: one for one in found}
    assert by_name[b"a-b"].first == b"a/z"
    assert by_name[b"link"].points == b"caf\xe9"
    assert by_name[b"a/deep/file"].size == 8
    assert len(by_name[b"a/deep/file"].contents) == 64
    assert found == list(entries(os.fsencode(tree), {b"left out"}, nobody))


def test_what_can_not_be_read_is_told_there(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(place: bytes) -> t.BinaryIO:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(listing, "opened_to_read", broken)
    out = io.BytesIO()
    write_entries(os.fsencode(tree), (), out)
    with pytest.raises(Unlisted, match="'a/deep/file' can't be read: Input/output error"):
        told(out.getvalue())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = run("list", tmp_path / "none")
    with pytest.raises(Unlisted, match="none' can't be read: No such file"):
        told(done.stdout)
    done = run("first", tmp_path / "none")
    assert done.returncode == 3
    assert b"none' can't be read: No such file" in done.stderr


def test_whether_there_is_something(tree: Path) -> None:
    assert run("first", tree / "left out").stdout == b"below"
    (tree / "left out" / "below").unlink()
    assert run("first", tree / "left out").stdout == b""


def test_whoever_does_not_listen_is_not_bothered(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / str(number)).write_text("")
    argv = (sys.executable, *python(listing, "list", str(tmp_path))[1:])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(source_of(listing))
        process.stdin.close()
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_it_tells_that_it_moves_within_a_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_TELL", 0.0)
    monkeypatch.setattr(listing, "CHUNK", 1000)
    (tree / "a" / "deep" / "file").write_bytes(b"x" * 10000)
    out = io.BytesIO()
    write_entries(os.fsencode(tree), (), out)
    counts: list[int] = []
    list(read_entries(io.BytesIO(out.getvalue()), counts.append))
    assert counts.count(1000) == 10
    assert sum(counts) >= 10000


@given(st.data())
def test_wherever_it_is_cut_off_it_is_none(data: st.DataObject) -> None:
    entry = Entry(b"a\n", 0o100644, "0:0", -5, 7, 0, "", b"a\n", b"", "0f")
    packed = entry.packed()
    whole = struct.pack(">cI", b"E", len(packed)) + packed + struct.pack(">cI", b"Z", 0)
    assert told(whole) == [entry]
    with pytest.raises(CutShort):
        told(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=200))
def test_what_is_none_is_not_believed(data: bytes) -> None:
    with pytest.raises((CutShort, Unlisted)):
        told(struct.pack(">cI", b"E", len(data)) + data)


@given(TEXT, st.integers(0, 1 << 20), st.integers(-(1 << 80), 1 << 80), TEXT, TEXT)
def test_an_entry_arrives_as_it_is(path: bytes, mode: int, when: int, first: bytes, points: bytes) -> None:
    one = Entry(path, mode, "1234:5678", when, 9, 259, "ab", first, points, "cd")
    assert unpacked(one.packed()) == one


@given(st.dictionaries(NAMES, st.integers(0, 2)), st.dictionaries(NAMES, st.integers(0, 2)))
def test_what_is_told_of_two_listings(ours: dict[bytes, int], theirs: dict[bytes, int]) -> None:
    """Each path that is at one end alone is told, but for what is below one that was."""

    def listed(paths: dict[bytes, int]) -> dict[bytes, Entry]:
        folders = {path.rsplit(b"/", number)[0] for path in paths for number in range(1, path.count(b"/") + 1)}
        found = {path: Entry(path, 0o100000, "", 0, size, 0, "", path, b"") for path, size in paths.items()}
        return {**found, **{path: Entry(path, 0o040000, "", 0, 0, 0, "", path, b"") for path in folders}}

    one, other = listed(ours), listed(theirs)
    in_order = [iter(sorted(end.values(), key=lambda entry: entry.path.split(b"/"))) for end in (one, other)]
    words = list(differences_of(*in_order))
    wanted: dict[bytes, str] = {}
    for path in sorted({*one, *other}, key=lambda path: path.split(b"/")):
        if any(path.startswith(above + b"/") for above, kind in wanted.items() if kind != "size"):
            continue
        if path not in other:
            wanted[path] = "is missing"
        elif path not in one:
            wanted[path] = "is not at the source"
        elif one[path].mode != other[path].mode:
            wanted[path] = "is a"
        elif one[path].size != other[path].size:
            wanted[path] = "size"
    assert len(words) == len(wanted)
    for sentence, (path, kind) in zip(words, wanted.items()):
        assert sentence.startswith(f"'{path.decode('utf-8', 'backslashreplace')}' ")
        assert kind in sentence
