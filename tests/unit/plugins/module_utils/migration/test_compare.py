# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents that are compared, sent by programs that behave as zfs does."""

from __future__ import annotations

import os
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.migration import compare as compare_file
from ansible_collections.nasops.encryption.plugins.module_utils.migration.compare import (
    Compare,
    Differs,
    ReadAll,
    SeeHealthy,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.tree import Unreadable
from ansible_collections.nasops.encryption.plugins.module_utils.remote import Ssh, connected
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_progress import ProgressFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner, Stalled

from ..recorded import RecordedRunner, answer
from ..zfs.streams import Maker, file

HERE, THERE = Maker(), Maker(noise=5)
BLOCKS = {at << 17: bytes([at % 251 + 1]) * (1 << 17) for at in range(40)}
ONE = Compare("1 of 1: Compare", "old/docs@a", "new/old/docs@a", 1 << 22)


class Programs:
    """A folder with a zfs that sends what was put there for a name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program(
            "zfs",
            f'echo "$*" >>{folder}/log; for last; do :; done; name=$(echo "$last" | tr / _); '
            f'[ -e {folder}/$name.sh ] && . {folder}/$name.sh; exec cat {folder}/"$name"',
        )
        self.program(
            "ssh",
            f'echo "$@" >>{folder}/ssh.log; for last; do :; done; '
            # The path of the other host is not that of this test.
            f'exec sh -c "$(printf %s "$last" | sed \'s,PATH=[^ ]*,PATH={folder}:/usr/bin:/bin,\')"',
        )

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def holds(self, name: str, stream: bytes) -> None:
        (self.folder / name.replace("/", "_")).write_bytes(stream)

    def does(self, name: str, script: str) -> None:
        (self.folder / f"{name.replace('/', '_')}.sh").write_text(script + "\n")

    @property
    def asked(self) -> list[str]:
        return sorted((self.folder / "log").read_text().splitlines())


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(compare_file, "_TICK", 0.05)
    found = Programs(tmp_path)
    found.holds("old/docs@a", HERE.stream(file(HERE, BLOCKS)))
    found.holds("new/old/docs@a", THERE.stream(file(THERE, BLOCKS)))
    return found


def runner(progress: str | None = None) -> ReplicaRunner:
    return ReplicaRunner(Mask(), ProgressFile(progress))


def test_the_same_contents_are_the_same(programs: Programs) -> None:
    ONE(runner())
    assert programs.asked == ["send -L new/old/docs@a", "send -L old/docs@a"]


def test_one_bit_is_a_difference(programs: Programs) -> None:
    blocks = {**BLOCKS, 5 << 17: BLOCKS[5 << 17][:-1] + b"\x07"}
    programs.holds("new/old/docs@a", THERE.stream(file(THERE, blocks)))
    with pytest.raises(Differs, match="'new/old/docs@a' does not hold what 'old/docs@a' holds: 1 objects") as caught:
        ONE(runner())
    assert set(caught.value.details["contents"]) == {"source", "target"}
    assert "Keep the source" in caught.value.hint


def test_a_missing_file_is_a_difference(programs: Programs) -> None:
    programs.holds("new/old/docs@a", THERE.stream())
    with pytest.raises(Differs, match="0 objects with 0 B"):
        ONE(runner())


@pytest.mark.parametrize("size", [32768, 65536])
def test_a_volume_ends_where_the_other_does(programs: Programs, size: int) -> None:
    for name, maker, ends in (("old/vol@a", HERE, 32768), ("new/vol@a", THERE, size)):
        programs.holds(name, maker.stream(maker.object(1), maker.write(1, 8192, b"data" * 1024)))
        programs.does(name, f'[ "$1" != get ] || {{ echo {ends}; exit; }}')
    one = Compare("Compare", "old/vol@a", "new/vol@a", volumes=True)
    if size == 32768:
        one(runner())
        return
    # What is more there is zeros, which no stream tells of.
    with pytest.raises(
        Differs, match="'new/vol@a' does not hold what 'old/vol@a' holds: it has 65536 bytes, not 32768"
    ):
        one(runner())


@pytest.mark.parametrize("name", ["old/docs@a", "new/old/docs@a"])
def test_an_end_that_can_not_be_read_is_named(programs: Programs, name: str) -> None:
    programs.does(
        name, f"head -c 100000 {programs.folder}/$name; echo 'warning: cannot send: Input/output error' >&2; exit 1"
    )
    with pytest.raises(Unreadable, match=f"'{name}' can't be read: warning: cannot send: Input/output error"):
        ONE(runner())


def test_a_stream_that_ends_early_without_a_word_is_no_whole_one(programs: Programs) -> None:
    programs.does("new/old/docs@a", f"head -c 100000 {programs.folder}/$name; exit 0")
    with pytest.raises(Unreadable, match="'new/old/docs@a' can't be compared: The stream ended in the middle"):
        ONE(runner())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_nobody_has_read_is_not_the_same(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stream: t.Any, count: t.Any) -> t.Any:
        while stream.read(1 << 20):
            pass
        raise MemoryError

    monkeypatch.setattr(compare_file, "contents_of", broken)
    with pytest.raises(Unreadable, match="'old/docs@a' was not read to the end"):
        ONE(runner())


def test_what_is_no_stream_is_no_contents(programs: Programs) -> None:
    programs.does("new/old/docs@a", "exec yes")
    with pytest.raises(Unreadable, match="does not begin as a stream does"):
        ONE(runner())


def test_nothing_runs_on_when_an_end_is_missing(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    own = runner()
    start = own.start
    seen: list[t.Any] = []

    def start_and_fail(*words: t.Any) -> t.Any:
        if seen:
            raise Refused("no")
        seen.append(start(*words))
        return seen[0]

    programs.does("old/docs@a", "exec sleep 600")
    monkeypatch.setattr(own, "start", start_and_fail)
    with pytest.raises(Refused, match="no"):
        ONE(own)
    assert seen[0].poll() is not None


@pytest.mark.parametrize("name", ["old/docs@a", "new/old/docs@a"])
def test_an_end_that_stands_still_is_given_up(programs: Programs, name: str) -> None:
    programs.does(name, f"head -c 100000 {programs.folder}/$name; exec sleep 600")
    own = runner()
    with pytest.raises(Stalled, match=f"Nothing of '{name}' has come for 2 seconds"):
        replace(ONE, stall_timeout=2.0)(own)


def test_a_reading_that_stands_still_is_given_up(programs: Programs) -> None:
    programs.does("new/old/docs@a", "exec sleep 600")
    with pytest.raises(Stalled, match="0 bytes were read"):
        ReadAll("Read", "new/old/docs", "a", "a", stall_timeout=0.5)(runner())


def test_the_target_may_be_elsewhere(programs: Programs) -> None:
    own = runner()
    with connected(own, Ssh("nas2")) as there:
        own.target = there
        ONE(own)
    assert "nas2" in (programs.folder / "ssh.log").read_text()
    assert len(programs.asked) == 2


def test_it_tells_how_far_it_is(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    programs.does("old/docs@a", f"while ! [ -e {path} ]; do sleep 0.05; done")
    ONE(runner(str(path)))
    assert '"what": "1 of 1: Compare"' in path.read_text()


def test_all_snapshots_are_read(programs: Programs) -> None:
    programs.holds("new/old/docs@c", b"anything, since it is zfs that looks at it")
    ReadAll("Read", "new/old/docs", "a", "c")(runner())
    assert programs.asked == ["send -L -I @a new/old/docs@c", "send -L new/old/docs@a"]
    ReadAll("Read", "new/old/docs", "a", "a")(runner())
    assert len(programs.asked) == 3


def test_a_snapshot_that_can_not_be_read_is_found(programs: Programs) -> None:
    programs.does("new/old/docs@c", "echo 'cannot send: Input/output error' >&2; exit 1")
    with pytest.raises(Unreadable, match="Input/output error"):
        ReadAll("Read", "new/old/docs", "a", "c")(runner())


@pytest.mark.parametrize(
    ("said", "fine"),
    [
        ("errors: No known data errors\n", True),
        ("errors: 2 data errors, use '-v' for a list\n", False),
        ("  pool: new\n state: ONLINE\n", False),
    ],
)
def test_a_pool_that_knows_of_damage_is_not_verified(said: str, fine: bool) -> None:
    argv = ("zpool", "status", "new")
    recorded = RecordedRunner({argv: answer(argv, said)})
    if fine:
        SeeHealthy("new")(recorded)
    else:
        with pytest.raises(Refused, match="damaged data"):
            SeeHealthy("new")(recorded)
