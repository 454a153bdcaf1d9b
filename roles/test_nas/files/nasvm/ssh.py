# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh to a VM: its keys, its client configuration, its connections."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess
import time
from pathlib import Path

from .description import Description
from .errors import EmulatorFailed, TestNasError
from .paths import Files, socket_directory
from .process import Running

HOST = "127.0.0.1"
PERSIST_SECONDS = 600
# An emulated processor takes some seconds for the names of a dozen partitions.
SECONDS_TO_SETTLE = 60


def make_keys(files: Files, name: str) -> None:
    """A key for the client and one for the host, and the only known host there is."""
    for key in (files.client_key, files.host_key):
        if not key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test-nas-" + name, "-f", str(key)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    public = files.host_key.with_suffix(".pub").read_text("ascii").split()
    files.known_hosts.write_text("%s %s %s\n" % (alias(name), public[0], public[1]), "ascii")


def alias(name: str) -> str:
    """The name under which the host's key is known: the port changes, this does not."""
    return "test-nas-" + name


def _options(files: Files, name: str) -> dict[str, str]:
    return {
        "UserKnownHostsFile": '"%s"' % files.known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": alias(name),
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "UpdateHostKeys": "no",
        "Compression": "no",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "8",
        "ConnectTimeout": "60",
        "LogLevel": "ERROR",
    }


def write_config(files: Files, name: str, port: int) -> None:
    """A client configuration, so that ``ssh -F FILE NAME`` is all a person has to type."""
    lines = ["Host %s %s" % (name, alias(name))]
    values = {
        "HostName": HOST,
        "Port": str(port),
        "User": "root",
        "IdentityFile": '"%s"' % files.client_key,
        **_options(files, name),
        "ControlMaster": "auto",
        "ControlPath": str(socket_directory(files.directory) / "ssh"),
        "ControlPersist": str(PERSIST_SECONDS),
    }
    lines += ["  %s %s" % item for item in values.items()]
    files.ssh_config.write_text("\n".join(lines) + "\n", "utf-8")


def host_variables(description: Description, files: Files, running: Running) -> dict[str, str | int | bool]:
    """What Ansible needs to reach the VM."""
    options = [shlex.quote("-o%s=%s" % item) for item in _options(files, description.name).items()]
    return {
        "ansible_connection": "ansible.builtin.ssh",
        "ansible_host": HOST,
        "ansible_port": running.port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(files.client_key),
        "ansible_ssh_common_args": " ".join(["-F", "/dev/null", *options]),
        "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=%ds" % PERSIST_SECONDS,
        "ansible_control_path": str(socket_directory(files.directory) / "ansible").replace("%", "%%"),
        "ansible_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
        "test_nas_directory": str(files.directory),
    }


def command(files: Files, name: str, words: list[str]) -> list[str]:
    """The command line that runs something in the VM: one word is a line for its shell, more are taken as they are.

    Without words it is a shell to type in.
    """
    line = words if len(words) < 2 else [" ".join(shlex.quote(word) for word in words)]
    return ["ssh", "-F", str(files.ssh_config), name, *(["--"] + line if line else [])]


def close_connections(files: Files, name: str) -> None:
    """Ends the shared connections: after a reset or a restored snapshot they would hang."""
    for path in socket_directory(files.directory).iterdir():
        subprocess.run(
            ["ssh", "-F", str(files.ssh_config), "-o", "ControlPath=%s" % path, "-O", "exit", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        path.unlink(missing_ok=True)


def free_port(preferred: int) -> int:
    """A loopback port that nothing listens on, the preferred one if it is free (0: any)."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            # a connection that has just ended must not keep the VM from coming back on its port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TestNasError("no loopback port is free")


def _answers(port: int) -> bool:
    """Whether an ssh server answers: QEMU itself accepts the connection long before the guest does."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def settle(files: Files, name: str, running: Running) -> None:
    """Waits until udev has made all names of devices; a guest that does not answer is left as it is."""
    if not _answers(running.port):
        return
    words = ["udevadm", "settle", "--timeout=%d" % SECONDS_TO_SETTLE]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command(files, name, words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=SECONDS_TO_SETTLE + 30,
        )


# What assert() of the C library says before it aborts.
_ASSERTION = re.compile(r": Assertion `.*' failed\.")


def _last_lines(path: Path) -> str:
    text = path.read_bytes()[-4000:].decode("utf-8", "replace") if path.exists() else ""
    return "\n".join(text.splitlines()[-20:]) or "(nothing)"


def wait(description: Description, files: Files, running: Running, seconds: float) -> None:
    """Waits until a login works and the guest's clock is right.

    Raises TestNasError after that many seconds, or if QEMU ends: EmulatorFailed if that is a fault of its own.
    """
    deadline = time.monotonic() + seconds
    while True:
        if not running.alive():
            said = _last_lines(files.qemu_log)
            raise (EmulatorFailed if _ASSERTION.search(said) else TestNasError)(
                "QEMU of %s ended; its last words: %s; the guest's: %s"
                % (description.name, said, _last_lines(files.console))
            )
        if _answers(running.port):
            # a restored snapshot wakes up with the clock of the moment it was taken
            words = ["date", "-u", "-s", "@%d" % int(time.time())]
            try:
                done = subprocess.run(
                    command(files, description.name, words),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    check=False,
                    timeout=max(5.0, min(60.0, deadline - time.monotonic())),
                )
            except subprocess.TimeoutExpired:
                done = None
            if done is not None and done.returncode == 0:
                return
            if done is not None and b"Permission denied" in done.stderr:
                raise TestNasError("%s refuses its key: %s" % (description.name, done.stderr.decode(errors="replace")))
        if time.monotonic() >= deadline:
            raise TestNasError(
                "%s did not answer on port %d within %d s; the end of its console:\n%s"
                % (description.name, running.port, seconds, _last_lines(files.console))
            )
        time.sleep(0.3)
