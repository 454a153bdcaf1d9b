# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.command import (
    Command,
    CommandError,
    CommandTimeout,
    HostRunner,
    ProgramMissing,
    Result,
)
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, Mask, encodings

SECRET = "correct horse battery"
HEX = "0f" * 32


def shell(script: str, stdin: bytes | None = None, timeout: float = 60.0) -> Command:
    return Command(("sh", "-c", script), stdin=stdin, timeout=timeout)


def masked(*keys: Key) -> HostRunner:
    mask = Mask()
    for key in keys:
        mask.add(key)
    return HostRunner(mask)


@pytest.fixture(name="host")
def make_host() -> HostRunner:
    return masked(Key("passphrase", SECRET.encode("ascii")))


class TestOutcome:
    def test_output_and_exit_status_are_returned(self, host: HostRunner) -> None:
        result = host.run(shell("printf out; printf err >&2"))
        assert result == Result(("sh", "-c", "printf out; printf err >&2"), 0, "out", "err")

    def test_another_exit_status_is_an_error_with_all_that_was_said(self, host: HostRunner) -> None:
        with pytest.raises(CommandError) as caught:
            host.run(shell("echo to stdout; echo not good >&2; exit 3"))
        error = caught.value
        assert error.message.endswith("ended with exit status 3: not good.")
        assert error.details["rc"] == error.result.rc == 3
        assert error.details["stdout"] == "to stdout\n"
        assert error.details["stderr"] == "not good\n"
        assert error.details["cmd"] == ["sh", "-c", "echo to stdout; echo not good >&2; exit 3"]

    def test_the_message_falls_back_to_stdout_and_to_words(self, host: HostRunner) -> None:
        with pytest.raises(CommandError, match="exit status 1: only here."):
            host.run(shell("echo only here.; exit 1"))
        with pytest.raises(CommandError, match="exit status 1: it printed nothing."):
            host.run(Command(("false",)))

    def test_an_expected_exit_status_is_no_error(self, host: HostRunner) -> None:
        assert host.run(shell("exit 2"), ok=(0, 2)).rc == 2
        with pytest.raises(CommandError):
            host.run(Command(("true",)), ok=(2,))

    def test_a_program_ended_by_a_signal_is_an_error(self, host: HostRunner) -> None:
        with pytest.raises(CommandError) as caught:
            host.run(shell("kill -9 $$"))
        assert caught.value.result.rc != 0

    def test_much_output_on_both_sides_does_not_block(self, host: HostRunner) -> None:
        result = host.run(shell("cat; cat /dev/zero | head -c 300000 | tr '\\0' x >&2", stdin=b"y" * 300_000))
        assert (len(result.stdout), len(result.stderr)) == (300_000, 300_000)

    def test_output_that_is_no_text_does_not_fail(self, host: HostRunner) -> None:
        assert host.run(shell("printf 'a\\377b'")).stdout == "a\ufffdb"

    def test_words_are_handed_over_as_they_are(self, host: HostRunner) -> None:
        words = ("$HOME", "~", "a b", "*", "'\"", "", "-n", "ü")
        assert host.run(Command(("sh", "-c", 'printf "%s\\n" "$@"', "sh", *words))).stdout == "\n".join(words) + "\n"


class TestInput:
    def test_stdin_reaches_the_program_byte_by_byte(self, host: HostRunner, tmp_path: Path) -> None:
        raw = bytes(range(256))
        host.run(shell(f"cat > '{tmp_path}/copy'", stdin=raw))
        assert (tmp_path / "copy").read_bytes() == raw

    def test_without_stdin_the_program_reads_the_end_at_once(self, host: HostRunner) -> None:
        assert host.run(Command(("cat",), timeout=60)).stdout == ""

    def test_stdin_is_no_terminal(self, host: HostRunner) -> None:
        assert host.run(shell("test -t 0"), ok=(1,)).rc == 1

    def test_there_is_no_terminal_to_ask_a_person_on(self, host: HostRunner) -> None:
        assert host.run(shell("( : < /dev/tty ) 2>/dev/null"), ok=(1, 2)).rc != 0

    def test_a_program_that_does_not_read_its_stdin_is_fine(self, host: HostRunner) -> None:
        assert host.run(Command(("true",), stdin=b"x" * 1_000_000)).rc == 0

    @given(st.binary(min_size=8, max_size=64))
    def test_stdin_is_in_no_repr(self, material: bytes) -> None:
        shown = Command(("zfs", "load-key", "tank"), stdin=material)
        assert repr(shown) == repr(Command(("zfs", "load-key", "tank")))
        assert str(shown) == repr(shown)
        assert shown.line() == "zfs load-key tank"

    def test_stdin_is_in_no_error(self) -> None:
        host = HostRunner(Mask())
        commands = (
            shell("exit 1", stdin=SECRET.encode("ascii")),
            shell("sleep 60", stdin=SECRET.encode("ascii"), timeout=0.1),
            Command(("no-such-program",), stdin=SECRET.encode("ascii")),
        )
        for command in commands:
            with pytest.raises(StorageError) as caught:
                host.run(command)
            assert SECRET not in str(caught.value) + repr(caught.value) + repr(caught.value.details)


class TestEnvironment:
    def test_messages_are_in_english_and_paths_in_utf_8_whatever_the_locale(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("LANG", "LC_ALL", "LC_MESSAGES", "LC_CTYPE", "LANGUAGE"):
            monkeypatch.setenv(name, "de_DE.UTF-8")
        said = HostRunner(Mask()).run(shell("env")).stdout.splitlines()
        locale = {line for line in said if line.startswith(("LC_", "LANG"))}
        assert locale == {"LANG=C.UTF-8", "LC_ALL=C.UTF-8"}

    def test_other_variables_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CA_CERT_FILE", "/etc/ca.pem")
        assert HostRunner(Mask()).run(shell('printf %s "$SSL_CA_CERT_FILE"')).stdout == "/etc/ca.pem"

    def test_the_environment_of_this_process_is_not_changed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
        before = dict(os.environ)
        HostRunner(Mask()).run(Command(("true",)))
        assert dict(os.environ) == before

    def test_the_folders_of_the_system_are_searched_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        host = HostRunner(Mask())
        assert host.has("sh")
        path = host.run(shell('printf %s "$PATH"')).stdout.split(":")
        assert path[0] == "/nowhere"
        assert {"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"} <= set(path)
        assert len(path) == len(set(path))

    def test_the_callers_path_goes_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = tmp_path / "cat"
        program.write_text("#!/bin/sh\necho mine\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert HostRunner(Mask()).run(Command(("cat",))).stdout == "mine\n"

    def test_an_empty_path_does_not_mean_the_current_folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "zfs-of-mine").write_text("#!/bin/sh\n")
        (tmp_path / "zfs-of-mine").chmod(0o755)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", ":/usr/bin:")
        assert not HostRunner(Mask()).has("zfs-of-mine")


class TestMissingProgram:
    def test_it_is_named_and_so_is_where_it_was_looked_for(self, host: HostRunner) -> None:
        assert not host.has("no-such-program")
        with pytest.raises(ProgramMissing) as caught:
            host.run(Command(("no-such-program", "--help")))
        assert "'no-such-program' was not found" in caught.value.message
        assert "/usr/sbin" in caught.value.hint

    def test_a_file_that_can_not_be_executed_is_no_program(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "tool").write_text("#!/bin/sh\n")
        (tmp_path / "tool").chmod(stat.S_IRUSR)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert not HostRunner(Mask()).has("tool")


class TestTimeout:
    def test_a_program_that_does_not_end_is_stopped(self, host: HostRunner, tmp_path: Path) -> None:
        with pytest.raises(CommandTimeout) as caught:
            host.run(shell(f"echo $$ > '{tmp_path}/pid'; exec sleep 600", timeout=0.5))
        assert "did not end within" in caught.value.message
        assert caught.value.details["cmd"][:2] == ["sh", "-c"]
        pid = int((tmp_path / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def test_so_is_what_it_has_started_itself(self, host: HostRunner, tmp_path: Path) -> None:
        with pytest.raises(CommandTimeout):
            host.run(shell(f"sleep 600 & echo $! > '{tmp_path}/pid'; wait", timeout=0.5))
        status = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
        for _attempt in range(200):
            # An orphan stays a zombie until its new parent looks after it.
            if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
            time.sleep(0.05)
        else:
            pytest.fail("the grandchild still runs")


class TestSecrets:
    @pytest.mark.parametrize(
        "key",
        [
            Key("passphrase", SECRET.encode("ascii")),
            Key("passphrase", "schlüsselwort".encode()),
            Key("hex", HEX.encode("ascii")),
            Key("raw", bytes(range(200, 232))),
        ],
        ids=["passphrase", "passphrase in utf-8", "hex", "raw"],
    )
    def test_a_secret_in_argv_is_refused_and_nothing_is_started(self, key: Key, tmp_path: Path) -> None:
        host = masked(key)
        for spelling in encodings(key.material):
            for word in (spelling, f"--password={spelling}", f"x{spelling}y"):
                with pytest.raises(
                    Refused, match="A secret of this task also occurs in the arguments of 'touch'"
                ) as caught:
                    host.run(Command(("touch", f"{tmp_path}/started", word)))
                assert spelling not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_the_bytes_of_a_raw_key_in_argv_are_refused(self) -> None:
        raw = bytes(range(200, 232))
        with pytest.raises(Refused, match="occurs in the arguments"):
            masked(Key("raw", raw)).run(Command(("echo", raw.decode("utf-8", "surrogateescape"))))

    def test_a_secret_in_the_output_of_a_failure_is_hidden_in_every_encoding(self) -> None:
        key = Key("hex", HEX.encode("ascii"))
        host = masked(key)
        for spelling in (HEX, HEX.upper(), base64.b64encode(bytes.fromhex(HEX)).decode("ascii")):
            with pytest.raises(CommandError) as caught:
                host.run(shell("tee /dev/stderr; exit 1", stdin=f"key={spelling}.\n".encode("ascii")))
            assert caught.value.result.stdout == caught.value.result.stderr == "key=********.\n"

    def test_what_a_successful_program_warns_of_is_hidden_as_well(self, host: HostRunner) -> None:
        assert host.run(shell("cat >&2", stdin=SECRET.encode("ascii"))).stderr == "********"

    def test_a_weak_passphrase_does_not_change_what_is_read(self) -> None:
        host = masked(Key("passphrase", b"storage-pool"))
        assert host.run(shell("printf %s-%s storage pool")).stdout == "storage-pool"

    def test_nothing_of_a_failure_shows_a_secret(self, host: HostRunner) -> None:
        with pytest.raises(CommandError) as caught:
            host.run(shell("tee /dev/stderr; exit 1", stdin=SECRET.encode("ascii")))
        error = caught.value
        shown = str(error) + repr(error) + repr(error.details) + repr(error.result)
        assert SECRET not in shown
        assert error.result.stdout == error.result.stderr == "********"
