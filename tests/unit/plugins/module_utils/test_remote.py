# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs on another host, with a program in place of ssh that runs the line of words as a shell there would."""

from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import (
    Command,
    CommandError,
    HostRunner,
    ProgramMissing,
)
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.remote import Ssh, Unreachable, connected
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, Mask

WORDS = ("a b", "$HOME", "~", "*", "it's", '"', "", "-n", "ü", "a\nb", "!x")

# The last word is what the other host's shell gets; all before it are noted.
FAKE = """#!/bin/sh
printf '%s\\n' "$@" >>{log}
for last; do :; done
case " $* " in *" -O exit "*) exit 0;; esac
[ -e {broken} ] && {{ cat {broken} >&2; exit 255; }}
exec sh -c "$last"
"""


@pytest.fixture(name="log")
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log = tmp_path / "log"
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(FAKE.format(log=log, broken=tmp_path / "broken"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


def local(*keys: Key) -> HostRunner:
    mask = Mask()
    for key in keys:
        mask.add(key)
    return HostRunner(mask)


def test_words_arrive_as_they_are(log: Path) -> None:
    with connected(local(), Ssh("nas2")) as there:
        result = there.run(Command(("sh", "-c", 'printf "%s|" "$@"', "sh", *WORDS)))
    assert result.stdout == "".join(f"{word}|" for word in WORDS)
    assert result.argv[0] == "sh"


def test_what_goes_to_standard_input_arrives(log: Path) -> None:
    with connected(local(), Ssh("nas2")) as there:
        assert there.run(Command(("cat",), stdin=b"a line\n")).stdout == "a line\n"


def test_the_host_key_has_to_be_known_and_nobody_is_asked(log: Path) -> None:
    ssh = Ssh("nas2", "admin", 2222, "/root/key", "/root/known", args=("-J", "gate"))
    with connected(local(), ssh) as there:
        there.run(Command(("true",)))
    said = log.read_text().split("\n")
    for option in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/root/known",
        "IdentitiesOnly=yes",
    ):
        assert option in said
    assert said[: said.index("nas2") + 1][-9:] == ["-i", "/root/key", "-l", "admin", "-p", "2222", "-J", "gate", "nas2"]
    assert "-O" in said, "the shared connection is ended"
    control = next(one for one in said if one.startswith("ControlPath="))
    assert not os.path.exists(os.path.dirname(control[len("ControlPath=") :]))


def test_a_new_host_key_only_if_asked_for(log: Path) -> None:
    with connected(local(), Ssh("nas2", host_keys="accept_new")) as there:
        there.run(Command(("true",)))
    assert "StrictHostKeyChecking=accept-new" in log.read_text()


def test_sudo_comes_before_the_program(log: Path, tmp_path: Path) -> None:
    line = Ssh("nas2", sudo=True).line(("zfs", "list"))
    assert line.startswith("env LANG=C.UTF-8 LC_ALL=C.UTF-8 PATH=/usr/local/sbin:")
    assert line.endswith(" sudo -n zfs list")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Host key verification failed.", "Put its host key"),
        ("root@nas2: Permission denied (publickey).", "ssh.identity_file"),
        ("ssh: connect to host nas2 port 22: Connection refused", "by hand"),
    ],
)
def test_a_host_that_can_not_be_reached(log: Path, tmp_path: Path, said: str, hint: str) -> None:
    (tmp_path / "broken").write_text(said + "\n")
    with (
        connected(local(), Ssh("nas2")) as there,
        pytest.raises(Unreachable, match="'nas2' can't be reached") as caught,
    ):
        there.run(Command(("true",)))
    assert hint in caught.value.hint
    assert said.rstrip(".") in caught.value.message


def test_a_failure_there_names_the_host_and_the_program(log: Path) -> None:
    with connected(local(), Ssh("nas2")) as there:
        with pytest.raises(CommandError, match="'ssh nas2 sh -c .*exit status 3: no good") as caught:
            there.run(Command(("sh", "-c", "echo no good >&2; exit 3")))
        assert caught.value.result.rc == 3
        assert there.run(Command(("sh", "-c", "exit 3")), ok=(0, 3)).rc == 3


@pytest.mark.parametrize(
    "said", ["Key load error: Incorrect key provided for 'a'.", "cannot open 'a': no such dataset"]
)
def test_zfs_may_end_with_the_status_of_ssh(log: Path, said: str) -> None:
    with connected(local(), Ssh("nas2")) as there, pytest.raises(CommandError) as caught:
        there.run(Command(("sh", "-c", 'echo "$1" >&2; exit 255', "sh", said)))
    assert (caught.value.result.rc, caught.value.result.stderr.strip()) == (255, said)


def test_a_program_that_is_missing_there(log: Path) -> None:
    with connected(local(), Ssh("nas2")) as there:
        assert there.has("sh")
        assert not there.has("no-such-program")
        with pytest.raises(ProgramMissing, match="'no-such-program' was not found on 'nas2'"):
            there.run(Command(("no-such-program",)))


def test_a_secret_never_gets_into_arguments(log: Path) -> None:
    key = Key("passphrase", b"geheimes wort")
    with connected(local(key), Ssh("nas2")) as there:
        with pytest.raises(Refused, match="secret"):
            there.run(Command(("echo", "x geheimes wort x")))
        assert there.run(Command(("cat",), stdin=key.stdin())).stdout == "geheimes wort\n"
        with pytest.raises(CommandError) as caught:
            there.run(Command(("sh", "-c", "cat >&2; exit 1"), stdin=key.stdin()))
    assert "geheimes" not in str(caught.value) + str(caught.value.details) + log.read_text()


def test_an_end_of_a_stream(log: Path) -> None:
    with connected(local(), Ssh("nas2")) as there:
        process: subprocess.Popen[t.Any] = there.start(Command(("echo", "a b")), subprocess.DEVNULL, subprocess.PIPE)
        assert process.communicate() == (b"a b\n", b"")
    assert "ControlMaster=no" in log.read_text()
