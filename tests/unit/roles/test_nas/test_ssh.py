# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a VM is reached: the client's configuration, the inventory's variables, a free port."""

from __future__ import annotations

import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm import ssh
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.description import Description
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import EmulatorFailed
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import TestNasError as NasError
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.paths import Files, socket_directory
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.process import Running

RUNNING = Running(pid=1, start_ticks=1, boot_id="b", uuid="u", port=2222, accel="tcg")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """A VM in a directory with a blank in its name."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "a vm").mkdir()
    return Files(tmp_path / "a vm")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], []),
        (["zpool status; ls"], ["--", "zpool status; ls"]),
        (["printf", "%s", "a b", "$HOME"], ["--", "printf %s 'a b' '$HOME'"]),
    ],
)
def test_one_word_is_a_line_for_the_shell_and_more_are_taken_as_they_are(
    files: Files, words: list[str], line: list[str]
) -> None:
    assert ssh.command(files, "box", words) == ["ssh", "-F", str(files.ssh_config), "box", *line]


def test_ssh_understands_the_configuration(files: Files) -> None:
    ssh.write_config(files, "box", 2222)
    done = subprocess.run(["ssh", "-G", "-F", str(files.ssh_config), "box"], capture_output=True, text=True, check=True)
    options = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert (options["hostname"], options["port"], options["user"]) == ("127.0.0.1", "2222", "root")
    assert options["identityfile"].strip('"') == str(files.client_key)
    assert options["userknownhostsfile"].strip('"') == str(files.known_hosts)
    assert (options["stricthostkeychecking"], options["hostkeyalias"]) == ("true", "test-nas-box")
    assert Path(options["controlpath"]).parent.is_dir()


def test_ansible_gets_the_same_options(files: Files, description: Description) -> None:
    variables = ssh.host_variables(description, files, RUNNING)
    assert (variables["ansible_host"], variables["ansible_port"]) == ("127.0.0.1", 2222)
    assert variables["ansible_ssh_private_key_file"] == str(files.client_key)
    words = shlex.split(str(variables["ansible_ssh_common_args"]))
    assert words[:2] == ["-F", "/dev/null"]
    assert '-oUserKnownHostsFile="%s"' % files.known_hosts in words
    assert "-oStrictHostKeyChecking=yes" in words


def test_a_percent_sign_in_a_path_stays_one(
    files: Files, description: Description, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "50%"))
    variables = ssh.host_variables(description, files, RUNNING)
    assert str(variables["ansible_control_path"]) % {} == str(socket_directory(files.directory) / "ansible")


def test_the_preferred_port_is_taken_if_it_is_free() -> None:
    with socket.socket() as taken:
        taken.bind((ssh.HOST, 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        assert ssh.free_port(port) not in (0, port)
    assert ssh.free_port(port) == port


def test_the_known_host_is_known_by_an_alias(files: Files) -> None:
    ssh.make_keys(files, "box")
    alias, kind, key = files.known_hosts.read_text().split()
    assert (alias, kind) == ("test-nas-box", "ssh-ed25519")
    assert key == files.host_key.with_suffix(".pub").read_text().split()[1]
    before = files.client_key.read_bytes()
    ssh.make_keys(files, "box")
    assert files.client_key.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "itself"),
    [
        ("qemu-system-x86_64: system/physmem.c:2671: iotlb_to_section: Assertion `index < sections' failed.", True),
        ("qemu-system-x86_64: terminating on signal 15 from pid 4711", False),
        ("", False),
    ],
)
def test_a_fault_of_qemu_itself_is_told_apart_from_another_end(
    files: Files, description: Description, words: str, itself: bool
) -> None:
    files.qemu_log.write_text(words + "\n", "utf-8")
    files.console.write_text("booting\n", "utf-8")
    with pytest.raises(NasError, match="QEMU of box ended") as ended:
        ssh.wait(description, files, RUNNING, 60)
    assert isinstance(ended.value, EmulatorFailed) == itself
    assert words in str(ended.value) and "booting" in str(ended.value)
