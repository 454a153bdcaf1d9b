# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rsync is given the right words, its end is told in ours, and what it says of its progress is understood."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command
from ansible_collections.nasops.encryption.plugins.module_utils.migration.rsync import (
    Across,
    CopyFailed,
    escaped,
    fault_of_programs,
    fault_of_version,
    rsync_command,
    run_rsync,
    words_of,
)
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_progress import Meter, ProgressFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner

from ..recorded import RecordedRunner, answer

VERSION = """rsync  version 3.2.7  protocol version 32
Capabilities:
    64-bit files, 64-bit inums, 64-bit timestamps, 64-bit long ints,
    socketpairs, symlinks, symtimes, hardlinks, hardlink-specials,
    hardlink-symlinks, IPv6, atimes, batchfiles, inplace, append, ACLs,
    xattrs, optional secluded-args, iconv, prealloc, stop-at, no crtimes
"""


class TestWords:
    def test_everything_that_it_can_carry_and_nothing_by_halves(self) -> None:
        argv = rsync_command("/s", "/t").argv
        assert argv[:4] == ("setpriv", "--pdeathsig", "TERM", "rsync")
        assert argv[-2:] == ("/s/", "/t/")
        wanted = {"-aHAXXS", "--numeric-ids", "--one-file-system", "--delete", "--modify-window=-1"}
        assert wanted <= set(argv)
        assert not any(one.startswith(("--inplace", "--partial", "--timeout")) for one in argv)

    def test_labels_of_selinux_are_those_of_the_host(self) -> None:
        argv = rsync_command("/s", "/t").argv
        # One filter of attributes switches off that rsync leaves out those of the system by itself.
        filters = [one for one in argv if one.startswith("--filter=")]
        assert filters == ["--filter=-x security.selinux", "--filter=-x system.*"]

    def test_it_is_given_up_when_nothing_comes(self) -> None:
        assert "--timeout=300" in rsync_command("/s", "/t", stall_timeout=300.0).argv
        assert "--timeout=1" in rsync_command("/s", "/t", stall_timeout=0.5).argv

    def test_what_is_left_out_is_nothing_but_that(self) -> None:
        argv = rsync_command("/s", "/t", ("a/b", "odd [1]*")).argv
        assert [one for one in argv if one.startswith("--exclude")] == [
            "--exclude=/.zfs",
            "--exclude=/a/b",
            r"--exclude=/odd \[1]\*",
        ]

    def test_a_backslash_means_itself(self) -> None:
        # Without a wildcard rsync takes it as it is.
        assert escaped("a\\b") == "a\\b"
        assert escaped("a\\b?") == "a\\\\b\\?"


class TestAcross:
    SHELL = ("ssh", "-o", "BatchMode=yes", "-i", "/root/my key", "-J", "it's", "")

    def argv(self, host: str) -> tuple[str, ...]:
        return rsync_command("/s", "/t", stall_timeout=9.0, enter=("e",), across=Across(host, self.SHELL, "x y")).argv

    def test_it_connects_by_words_of_ours(self) -> None:
        argv = self.argv("nas2")
        assert argv[:5] == ("setpriv", "--pdeathsig", "TERM", "e", "rsync")
        assert argv[-4:] == (
            "--rsh=ssh -o BatchMode=yes -i '/root/my key' -J 'it''s' ''",
            "--rsync-path=x y",
            "/s/",
            "nas2:/t/",
        )
        assert "--timeout=9" in argv

    def test_of_a_file_only_what_has_changed_is_sent(self) -> None:
        argv = self.argv("nas2")
        assert "--whole-file" not in argv
        assert "--partial" in argv
        assert "--inplace" not in argv

    @pytest.mark.parametrize("host", ["2001:db8::7", "fe80::1%eth0", "::1"])
    def test_an_address_with_colons(self, host: str) -> None:
        assert self.argv(host)[-1] == f"[{host}]:/t/"


class TestPrograms:
    def runner(self, said: str = VERSION, missing: tuple[str, ...] = ()) -> RecordedRunner:
        argv = ("rsync", "--version")
        return RecordedRunner({argv: answer(argv, said)}, missing=missing)

    def test_one_that_will_do(self) -> None:
        assert fault_of_programs(self.runner()) == ""

    def test_none(self) -> None:
        assert "rsync, setpriv are missing" in fault_of_programs(self.runner(missing=("rsync", "setpriv")))

    @pytest.mark.parametrize("version", ["3.1.2", "3.0.9", "2.6.9"])
    def test_one_that_does_not_see_nanoseconds(self, version: str) -> None:
        assert f"is {version}; wanted is 3.1.3" in fault_of_version(VERSION.replace("3.2.7", version))

    def test_one_that_nobody_knows(self) -> None:
        assert "is unknown; wanted is 3.1.3" in fault_of_version("openrsync: protocol version 29")

    @pytest.mark.parametrize("lacks", ["ACLs", "xattrs", "hardlinks"])
    def test_one_that_would_lose_something(self, lacks: str) -> None:
        assert "would be lost" in fault_of_version(
            VERSION.replace(f" {lacks},", f" no {lacks},").replace(f"    {lacks},", f"    no {lacks},")
        )

    def test_a_newer_one(self) -> None:
        assert fault_of_version(VERSION.replace("3.2.7", "v3.10.0")) == ""


class TestEnds:
    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (11, "status 11: a file could not be read or written"),
            (12, "status 12: one of its processes ended early"),
            (23, "status 23: some files could not be copied"),
            (24, "status 24: some files were gone"),
            (30, "status 30: nothing has come for too long"),
            (99, "status 99: it failed"),
            (-9, "ended by signal 9"),
            (None, "does not end"),
        ],
    )
    def test_each_has_its_words(self, status: int | None, words: str) -> None:
        sentence, hint = words_of(status)
        assert words in sentence
        assert hint

    @pytest.mark.parametrize("status", [11, 12, 20, 23, 30, 99, 255, -9])
    def test_those_of_another_host_name_it_or_what_is_kept(self, status: int) -> None:
        sentence, hint = words_of(status, "nas2")
        assert "to 'nas2'" in sentence or status < 0
        assert ("also of a file that was not copied to its end" in hint) == (status != 23)


class Programs:
    """A folder with a setpriv that runs an rsync of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rsync(self, script: str) -> None:
        for name, text in (("setpriv", 'shift 2; exec "$@"'), ("rsync", script)):
            path = self.folder / name
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Programs(tmp_path)


COMMAND = Command(("setpriv", "--pdeathsig", "TERM", "rsync", "/s/", "/t/"))


class Watched(ProgressFile):
    """Keeps what would be told instead of writing it down once a second."""

    def __init__(self) -> None:
        super().__init__(None)
        self.told: list[tuple[str, int, int]] = []

    def write(self, what: str, meter: Meter, begun: float, final: bool = False) -> None:
        self.told.append((what, meter.sent, meter.total))


@pytest.mark.parametrize(
    ("line", "count"),
    [
        # As rsync prints it with progress2: a carriage return before each line.
        (
            r"\r        32768   0%%    0.00kB/s    0:00:00  \r      5000000  50%%  158.95MB/s    0:00:00 (xfr#1)\n",
            5000000,
        ),
        (r"\r  1,234,567,890 100%%    1.00MB/s    0:00:01 (xfr#2, to-chk=0/8)\n", 1234567890),
        (r"\r         70,000   7%%    1.00MB/s    0:00:01 \r              0 100%%    0.00kB/s    0:00:00 \n", 70000),
    ],
)
def test_how_far_it_is(programs: Programs, line: str, count: int) -> None:
    programs.rsync(f"printf '{line}'")
    progress = Watched()
    run_rsync(ReplicaRunner(Mask(), progress), "Copy", COMMAND, 10_000_000)
    assert progress.told[-1] == ("Copy", count, 10_000_000)


def test_what_went_wrong(programs: Programs) -> None:
    programs.rsync("echo 'rsync: read errors mapping \"/proc/7/root/x\": Input/output error (5)' >&2; exit 23")
    with pytest.raises(
        CopyFailed, match="status 23: some files could not be copied, or not whole: rsync: read"
    ) as caught:
        run_rsync(ReplicaRunner(Mask(), ProgressFile(None)), "Copy", COMMAND, 0)
    assert caught.value.details["rc"] == 23
    assert "Input/output error" in caught.value.details["stderr"]
    assert "exclude_files" in caught.value.hint


def test_only_the_end_of_a_long_story_is_kept(programs: Programs) -> None:
    programs.rsync("seq 100000 >&2; echo the last >&2; exit 12")
    with pytest.raises(CopyFailed) as caught:
        run_rsync(ReplicaRunner(Mask(), ProgressFile(None)), "Copy", COMMAND, 0)
    assert len(caught.value.details["stderr"]) <= 8000
    assert caught.value.details["stderr"].endswith("the last\n")


def test_without_a_word(programs: Programs) -> None:
    programs.rsync("kill -9 $$")
    with pytest.raises(CopyFailed, match="^rsync was ended by signal 9. What was copied"):
        run_rsync(ReplicaRunner(Mask(), ProgressFile(None)), "Copy", COMMAND, 0)
