# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running programs on another host by ssh, without a terminal and without a question to anybody."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import typing as t
from dataclasses import dataclass

from .command import SYSTEM_PATH, Command, CommandError, HostRunner, ProgramMissing, Result
from .errors import BadInput, StorageError

STRICT, ACCEPT_NEW = "strict", "accept_new"
# What ssh itself exits with; a program on the other host may do so too.
_SSH_FAILED = 255
# So does zfs, above all where a key does not fit. These words are never ssh's own.
_SAID_BY_ZFS = re.compile(r"^(?:Key (?:un)?load error: |cannot )", re.MULTILINE)
# Seconds. How long a host may be silent before the connection counts as lost.
_CONNECT, _ALIVE, _ALIVE_COUNT = 30, 15, 4


@dataclass(frozen=True)
class Ssh:
    """How to reach a host."""

    host: str
    user: str = ""
    port: int | None = None
    identity_file: str = ""
    known_hosts_file: str = ""
    host_keys: str = STRICT
    sudo: bool = False
    args: tuple[str, ...] = ()

    def argv(self, control: str, master: bool, *more: str) -> tuple[str, ...]:
        """The words before those that are to be run there.

        :param control: path of the socket that all connections share
        :param master: whether this one may open the connection that later ones share
        :param more: options of ssh
        """
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes" if self.host_keys == STRICT else "accept-new",
            "ConnectTimeout": str(_CONNECT),
            "ServerAliveInterval": str(_ALIVE),
            "ServerAliveCountMax": str(_ALIVE_COUNT),
            "ControlPath": control,
            "ControlMaster": "auto" if master else "no",
            "ControlPersist": "60",
            "ForwardAgent": "no",
            "ClearAllForwardings": "yes",
            "EscapeChar": "none",
        }
        if self.known_hosts_file:
            options["UserKnownHostsFile"] = self.known_hosts_file
        if self.identity_file:
            options["IdentitiesOnly"] = "yes"
        words = ["ssh", "-T"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        if self.identity_file:
            words += ["-i", self.identity_file]
        if self.user:
            words += ["-l", self.user]
        if self.port is not None:
            words += ["-p", str(self.port)]
        return (*words, *self.args, *more, self.host)

    def line(self, argv: t.Sequence[str]) -> str:
        """A command as one line for the shell of the other host, which may be any."""
        before = ("env", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", f"PATH={os.pathsep.join(SYSTEM_PATH)}")
        return " ".join(shlex.quote(word) for word in (*before, *(("sudo", "-n") if self.sudo else ()), *argv))


def check_host(host: str) -> str:
    """Returns the name or address of a host.

    :raises BadInput: ssh would take it for something else
    """
    if not host or host.startswith("-") or any(letter.isspace() or letter in "@/" for letter in host):
        raise BadInput(
            f"'{host}' is no name of a host.", hint="Give a name or address alone; the user is an option of its own."
        )
    return host


class Unreachable(StorageError):
    """ssh could not connect, or the connection broke."""


class RemoteRunner:
    """Runs programs on another host, over one connection that all of them share."""

    def __init__(self, local: HostRunner, ssh: Ssh, folder: str) -> None:
        """:param folder: one that only this user can enter; it holds the socket of the connection"""
        self._local = local
        self._ssh = ssh
        self._control = os.path.join(folder, "ssh")

    @property
    def host(self) -> str:
        """Its name or address, for messages and for ``shell``."""
        return self._ssh.host

    def shell(self) -> tuple[str, ...]:
        """The words before the host, for a program that runs ssh itself, over the same connection."""
        return self._ssh.argv(self._control, False)[:-1]

    def line(self, argv: t.Sequence[str]) -> str:
        """A command as one line for the shell there."""
        return self._ssh.line(argv)

    def has(self, program: str) -> bool:
        return self.run(Command(("sh", "-c", 'command -v "$1"', "sh", program)), ok=(0, 1, 127)).rc == 0

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        """Run to the end.

        :raises Unreachable: the host can't be logged into
        :raises ProgramMissing: the program is not installed there
        :raises CommandError: its exit status is not in ``ok``
        """
        try:
            found = self._local.run(self._wrapped(command, True), ok)
        except CommandError as error:
            raise self._explained(command, error.result) from None
        return Result(command.argv, found.rc, found.stdout, found.stderr)

    def start(self, command: Command, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        """Start a program that is one end of a stream."""
        return self._local.start(self._wrapped(command, False), stdin, stdout)

    def close(self) -> None:
        """End the shared connection."""
        with contextlib.suppress(StorageError):
            self._local.run(Command(self._ssh.argv(self._control, False, "-O", "exit"), timeout=30), ok=(0, 255))

    def _wrapped(self, command: Command, master: bool) -> Command:
        argv = (*self._ssh.argv(self._control, master), self._ssh.line(command.argv))
        return Command(argv, command.stdin, command.timeout)

    def _explained(self, command: Command, result: Result) -> StorageError:
        if result.rc == _SSH_FAILED and not _SAID_BY_ZFS.search(result.stderr):
            return unreachable(self._ssh, result.stderr)
        if result.rc == 127:
            return ProgramMissing(f"The program '{command.argv[0]}' was not found on '{self._ssh.host}'.")
        return CommandError(Result(("ssh", self._ssh.host, *command.argv), result.rc, result.stdout, result.stderr))


def unreachable(ssh: Ssh, said: str) -> Unreachable:
    """The error for a connection that ssh could not make, with what to do about it."""
    hint = "Try 'ssh' by hand on this host, as root."
    if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION" in said:
        hint = (
            "Put its host key, which you have compared, into ssh.known_hosts_file (by default that of root on this "
            "host)."
        )
    elif "Permission denied" in said or "Too many authentication failures" in said:
        hint = "Give ssh.identity_file a key that the host takes, without a passphrase or from an agent."
    last = [line for line in said.strip().splitlines() if line.strip()][-1:] or ["ssh gave no reason"]
    return Unreachable(f"The host '{ssh.host}' can't be reached by ssh: {last[0].rstrip('.')}.", hint=hint, stderr=said)


@contextlib.contextmanager
def connected(local: HostRunner, ssh: Ssh) -> t.Iterator[RemoteRunner]:
    """A runner for another host; nothing of the connection is left afterwards."""
    # A socket's path has about a hundred bytes at most, which the temporary folder of Ansible can exceed.
    folder = tempfile.mkdtemp(prefix="nasops-", dir="/var/run" if os.access("/var/run", os.W_OK) else None)
    runner = RemoteRunner(local, ssh, folder)
    try:
        yield runner
    finally:
        runner.close()
        shutil.rmtree(folder, ignore_errors=True)
