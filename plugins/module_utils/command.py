# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running programs on the host: no secret in argv, secrets on stdin only, C locale, a deadline, redacted output."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import typing as t
from dataclasses import dataclass, field

from .errors import Refused, StorageError
from .secrets import Mask

# Non-interactive ssh sessions on Debian and FreeBSD often lack these, where zfs, zpool and wipefs live.
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

# Seconds. Generous, because a pool on sleeping disks needs time; finite, because a suspended pool never answers.
DEFAULT_TIMEOUT = 600.0


@dataclass(frozen=True)
class Command:
    """A program to start. ``stdin`` may hold a secret, so it never shows up in ``repr``."""

    argv: tuple[str, ...]
    stdin: bytes | None = field(default=None, repr=False)
    timeout: float = DEFAULT_TIMEOUT

    def line(self) -> str:
        """The command as one readable line, for messages only."""
        return " ".join(self.argv)


@dataclass(frozen=True)
class Result:
    """How a program ended. In an error both texts are redacted; ``stdout`` of a success is as it was printed."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str


class CommandError(StorageError):
    """A program ended with an exit status that the caller did not expect."""

    def __init__(self, result: Result, *, hint: str = "") -> None:
        said = (result.stderr.strip() or result.stdout.strip() or "it printed nothing").rstrip(".")
        super().__init__(
            f"'{' '.join(result.argv)}' ended with exit status {result.rc}: {said}.",
            hint=hint,
            cmd=list(result.argv),
            rc=result.rc,
            stdout=result.stdout,
            stderr=result.stderr,
        )
        self.result = result


class CommandTimeout(StorageError):
    """A program did not end in time."""


class ProgramMissing(StorageError):
    """A program is not installed on the host."""


class Runner(t.Protocol):
    """What the readers and the plan need to start programs; tests give a recorded one."""

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        """Run to the end. Raises CommandError on an exit status outside ``ok``."""

    def has(self, program: str) -> bool:
        """Whether the program is installed."""


class HostRunner:
    """Runs programs on this host."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._path = os.pathsep.join(_search_path(os.environ.get("PATH", "")))

    def has(self, program: str) -> bool:
        return shutil.which(program, path=self._path) is not None

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        """Run to the end.

        :raises ProgramMissing: the program is not installed
        :raises CommandTimeout: it did not end within ``command.timeout`` seconds
        :raises CommandError: its exit status is not in ``ok``
        :raises Refused: a secret is in argv
        """
        program = self._program(command)
        rc, out, err = self._execute((program,) + command.argv[1:], command)
        if rc not in ok:
            raise CommandError(Result(command.argv, rc, self._mask.text(out), self._mask.text(err)))
        # Not masked, since it is read: a weak passphrase may be equal to a name in it.
        return Result(command.argv, rc, out.decode("utf-8", "replace"), self._mask.text(err))

    def start(self, command: Command, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        """Start a program that is one end of a stream, with a pipe for what it says. The caller waits for it.

        :raises ProgramMissing: the program is not installed
        :raises Refused: a secret is in argv
        """
        return self._spawn((self._program(command),) + command.argv[1:], stdin, stdout)

    def redact(self, data: bytes) -> str:
        """What a program said as text, without the secrets of this task."""
        return self._mask.text(data)

    def _program(self, command: Command) -> str:
        """The path of a program whose arguments hold no secret."""
        if any(self._mask.hides(word) for word in command.argv):
            raise Refused(
                f"A secret of this task also occurs in the arguments of '{command.argv[0]}', where every user of the "
                "host could read it; the program was not started.",
                hint="A passphrase must not be a part of the name of a pool, disk, file or property. Choose another.",
            )
        program = shutil.which(command.argv[0], path=self._path)
        if program is None:
            raise ProgramMissing(
                f"The program '{command.argv[0]}' was not found on this host.",
                hint=f"Install the package that brings it; searched: {self._path}.",
            )
        return program

    def _execute(self, argv: tuple[str, ...], command: Command) -> tuple[int, bytes, bytes]:
        stdin = subprocess.DEVNULL if command.stdin is None else subprocess.PIPE
        process = self._spawn(argv, stdin, subprocess.PIPE)
        try:
            out, err = process.communicate(command.stdin, timeout=command.timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # A process stuck in the kernel can't be reaped; waiting for it would be the same hang again.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            raise CommandTimeout(
                f"'{command.line()}' did not end within {command.timeout:.0f} seconds and was stopped.",
                hint="A suspended pool or a failing disk makes ZFS wait for ever: see 'zpool status' and the "
                "kernel log.",
                cmd=list(command.argv),
            ) from None
        return process.returncode, out, err

    def _spawn(self, argv: tuple[str, ...], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
        # English messages, yet zfs can make a mountpoint with letters beyond ASCII. Where there is no such locale,
        # programs fall back to C.
        environment.update(LANG="C.UTF-8", LC_ALL="C.UTF-8", PATH=self._path)
        # stdin is never a terminal and always ends: zfs asks for keys there and must not wait for a person.
        # AnsibleModule.run_command can't be used: it has no deadline, and would wait for a suspended pool for ever.
        return subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment,
            close_fds=True,
            start_new_session=True,
        )


def _search_path(path: str) -> list[str]:
    """PATH with the system's own folders behind it, each once."""
    folders = [folder for folder in path.split(os.pathsep) if folder] + list(SYSTEM_PATH)
    return list(dict.fromkeys(folders))
