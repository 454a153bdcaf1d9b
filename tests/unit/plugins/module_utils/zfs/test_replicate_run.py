# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams between two programs that behave as the two ends of zfs do, at their best and at their worst."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.remote import Ssh, connected
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import replicate_run
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_option import WantedKey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_plan import plan_replication
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_progress import Meter, ProgressFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_read import read_key_file
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import (
    KEY_FD,
    WITH_KEY,
    AtTarget,
    Broken,
    ReplicaRunner,
    Stalled,
    StoreTargetKey,
    Transfer,
)

from .replicate_model import wish, world

KEY = Key("passphrase", b"a \\n %s secret")


def runner(progress: str | None = None) -> ReplicaRunner:
    mask = Mask()
    mask.add(KEY)
    return ReplicaRunner(mask, ProgressFile(progress))


def transfer(send: str, receive: str, **facts: t.Any) -> Transfer:
    return Transfer(
        "Send 'tank'",
        "tank",
        "backup/tank",
        Command(("sh", "-c", send)),
        Command(("sh", "-c", receive)),
        **{"stall_timeout": 60.0, **facts},
    )


def gone(pid: int) -> bool:
    """Whether a process has ended. A signal in the midst of Popen.poll() may keep it from being reaped."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_a_sender_that_nobody_reads_from_is_told_in_words() -> None:
    with pytest.raises(Broken, match=r"sending end was ended because nobody read on \(SIGPIPE\).*status 3: full"):
        transfer("exec cat /dev/zero", "head -c 9 >/dev/null; echo full >&2; exit 3")(runner())


def test_every_byte_arrives_and_is_measured(tmp_path: Path) -> None:
    own = runner()
    send = "printf 'size\\t2000000\\n12:00:01\\t1000\\ttank@a\\n' >&2; head -c 2000000 /dev/zero"
    transfer(send, f"cat >{tmp_path}/got")(own)
    assert (tmp_path / "got").read_bytes() == bytes(2_000_000)
    (sent,) = own.sent
    assert sent.row() == {
        "source": "tank",
        "target": "backup/tank",
        "estimated_bytes": 2_000_000,
        "seconds": pytest.approx(sent.seconds, abs=0.1),
        "resumed": False,
    }


def test_the_progress_can_be_read_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    send = f"printf '12:00:01\\t77\\ttank@a\\n' >&2; while ! [ -e {path} ]; do sleep 0.05; done; echo x"
    transfer(send, "cat >/dev/null")(runner(str(path)))
    assert path.exists()


def test_both_ends_are_quoted_when_one_fails() -> None:
    with pytest.raises(Broken) as caught:
        transfer("yes; echo 'cannot send' >&2; exit 7", "echo 'cannot receive: it is full' >&2; exit 1")(runner())
    error = caught.value
    assert "The receiving end ended with status 1: cannot receive: it is full." in error.message
    assert error.details["receive"]["stderr"] == "cannot receive: it is full\n"
    assert error.details["receive"]["rc"] == 1
    assert error.details["send"]["rc"] != 0


@pytest.mark.parametrize("end", ["send", "receive"])
def test_an_end_that_dies_takes_the_other_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    # The other one does not notice by itself.
    monkeypatch.setattr(replicate_run, "_GRACE", 0.1)
    monkeypatch.setattr(replicate_run, "_TICK", 0.05)
    lasts = f"echo $$ >{tmp_path}/pid; trap '' PIPE; while :; do sleep 0.1; done"
    dies = f"while ! [ -s {tmp_path}/pid ]; do sleep 0.05; done; echo dead >&2; kill -9 $$"
    ends = (dies, lasts) if end == "send" else (lasts, dies)
    with pytest.raises(Broken, match="was ended by signal 9: dead"):
        transfer(*ends)(runner())
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_stream_that_stands_still_is_ended(tmp_path: Path) -> None:
    sleeps = f"echo $$ >>{tmp_path}/pids; exec sleep 600"
    with pytest.raises(Stalled, match="Nothing has moved for 1 seconds"):
        transfer(sleeps, sleeps, stall_timeout=1.0)(runner())
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_both_ends_first(tmp_path: Path, name: str) -> None:
    number = signal.Signals[name]
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    receives = f"echo $$ >{tmp_path}/one; exec sleep 600"
    sends = f"while ! [ -s {tmp_path}/one ]; do sleep 0.05; done; echo $$ >{tmp_path}/two; kill -{number.value} "
    try:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        replicate_run.end_in_order()
        with pytest.raises(SystemExit) as caught:
            transfer(f"{sends} {os.getpid()}; exec sleep 600", receives)(runner())
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "a second one breaks nothing off"
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert caught.value.code == 143
    assert all(gone(int((tmp_path / one).read_text())) for one in ("one", "two"))


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        replicate_run.end_in_order()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_only_more_bytes_count_as_movement(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    own = runner()
    process = own.start(Command(("true",)), subprocess.DEVNULL, subprocess.DEVNULL)
    process.wait()
    watch = replicate_run._Watch(own, transfer("", ""), process, process, Meter(), 0.0)
    for second, line, moved in (
        (10, b"size\t900\n", 10),
        (20, b"12:00:01\t5\ttank@a\n", 20),
        (30, b"12:00:02\t5\ttank@a\n", 20),
        (40, b"something else\n", 20),
        (50, b"12:00:03\t6\tta", 20),
        (60, b"nk@a\n", 60),
    ):
        now[0] = float(second)
        watch._measure(line)
        assert watch._moved == moved


def test_the_reason_is_looked_up() -> None:
    said = "cannot receive: destination backup/tank has been modified"
    with pytest.raises(Broken) as caught:
        transfer("echo x", f"cat >/dev/null; echo '{said}' >&2; exit 1")(runner())
    assert "force" in caught.value.hint
    with pytest.raises(Broken) as caught:
        transfer("echo x; exit 1", "cat >/dev/null")(runner())
    assert "run this again" in caught.value.hint


def test_neither_keys_nor_tokens_nor_the_stream_get_into_a_message() -> None:
    token = "1-10caf5dd5f-c8-" + "789c636064000310a50" * 4
    send = f"echo 'a \\\\n %s secret' >&2; echo 'zfs send -t {token}' >&2; echo THE-DATA; exit 1"
    with pytest.raises(Broken) as caught:
        transfer(send, "cat >/dev/null")(runner())
    everything = str(caught.value) + str({**caught.value.details, "send": caught.value.details["send"]["stderr"]})
    assert "TOKEN" in everything
    assert "THE-DATA" not in everything
    assert token not in everything
    assert "secret" not in everything


def test_what_is_told_of_a_token_is_no_reason() -> None:
    contents = "resume token contents:\\nnvlist version: 0\\n\\tbytes = 0x50\\n\\ttoname = tank@a\\nit is gone\\n"
    send = f"printf '{contents}' >&2; exit 1"
    with pytest.raises(Broken) as caught:
        transfer(send, "cat >/dev/null; exit 255")(runner())
    assert caught.value.message == (
        "The sending end ended with status 1: it is gone. "
        "The receiving end ended with status 255: the connection to the target host was lost."
    )


def test_an_end_that_can_not_be_started() -> None:
    one = dataclasses.replace(transfer("echo x", "cat"), send=Command(("no-such-program",)))
    with pytest.raises(StorageError, match="no-such-program"):
        one(runner())


def test_a_process_that_is_left_behind_does_not_hold_the_task(tmp_path: Path) -> None:
    end, ended = tmp_path / "end", tmp_path / "ended"
    left = f"n=0; while ! [ -e {end} ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done; echo >{ended}"
    transfer(f"({left}) >/dev/null & echo x", "cat >/dev/null")(runner())
    assert not ended.exists()
    end.touch()


@pytest.mark.parametrize("far", [False, True])
def test_a_key_comes_before_the_stream_and_is_seen_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: bool
) -> None:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{tmp_path}/log\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    own = runner()
    opens = KEY_FD[len("file://") :]
    receive = ("sh", "-c", f'cat {opens} >{tmp_path}/key; cat >{tmp_path}/got; printf "%s " "$@" >{tmp_path}/args')
    one = dataclasses.replace(
        transfer("head -c 1000000 /dev/zero", ""), receive=Command(("sh", "-c", WITH_KEY, "sh", *receive)), key=KEY
    )
    if far:
        with connected(own, Ssh("nas2")) as there:
            own.target = there
            one(own)
        assert "secret" not in (tmp_path / "log").read_text()
    else:
        one(own)
    assert (tmp_path / "key").read_bytes() == KEY.file_content()
    assert (tmp_path / "got").read_bytes() == bytes(1_000_000)
    assert "secret" not in repr(one)


class TestKeyFiles:
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: Key | None, key_format: str) -> Path:
        ssh = tmp_path / "bin" / "ssh"
        ssh.parent.mkdir(exist_ok=True)
        ssh.write_text('#!/bin/sh\nfor last; do :; done\ncase "$last" in nas2) exit 0;; esac\nexec sh -c "$last"\n')
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
        own, path = runner(), tmp_path / "keys" / "a b.key"
        with connected(own, Ssh("nas2")) as there:
            own.target = there
            StoreTargetKey(str(path), key, key_format, True)(own)
        return path

    def test_a_file_at_the_other_host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = Key("raw", bytes(range(32)))
        path = self.store(tmp_path, monkeypatch, raw, "raw")
        assert path.read_bytes() == raw.material
        assert path.stat().st_mode & 0o777 == 0o400
        assert [one.name for one in path.parent.iterdir()] == ["a b.key"]

    def test_it_is_never_overwritten(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.store(tmp_path, monkeypatch, None, "hex")
        before = path.read_bytes()
        assert len(before) == 65
        with pytest.raises(StorageError):
            self.store(tmp_path, monkeypatch, None, "hex")
        assert path.read_bytes() == before
        assert [one.name for one in path.parent.iterdir()] == ["a b.key"]

    def test_a_file_at_this_host(self, tmp_path: Path) -> None:
        path = tmp_path / "keys" / "one.key"
        StoreTargetKey(str(path), None, "hex", False)(runner())
        assert len(path.read_bytes()) == 65


def test_no_line_for_the_other_host_is_broken() -> None:
    # A login shell that is csh takes no line break, not even within quotes.
    lines: list[str] = []

    class Local(ReplicaRunner):
        def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
            lines.append(command.argv[-1])
            return Result(command.argv, 0, "", "")

    own, ssh = Local(Mask(), ProgressFile(None)), Ssh("nas2")
    key = Key("hex", b"a1" * 32)
    with connected(own, ssh) as there:
        own.target = there
        there.has("zfs")
        StoreTargetKey("/k", key, "hex", True)(own)
        read_key_file(own, wish(mode="reencrypt", ssh=ssh, key=WantedKey("hex", None, "/k")), "tank")
    wanted = wish(mode="reencrypt", ssh=ssh, key=WantedKey("hex", key))
    for step in plan_replication(wanted, world().ends(wanted)).steps:
        if isinstance(step.action, Transfer):
            lines.append(ssh.line(step.action.receive.argv))
    assert len(lines) == 8
    assert any("chmod 400" in one for one in lines)
    assert any("IFS= read -r key" in one for one in lines)
    assert [one for one in lines if "\n" in one] == []


def test_what_is_done_at_the_target_is_not_done_here(tmp_path: Path) -> None:
    own = runner()
    seen: list[t.Any] = []

    class There:
        def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> t.Any:
            seen.append(command.argv)
            return type("Result", (), {"stdout": ""})

    own.target = There()  # type: ignore[assignment]
    AtTarget(Command(("zfs", "set", "a=b", "c")))(own)
    AtTarget(seen.append)(own)
    assert seen == [("zfs", "set", "a=b", "c"), own.target]
