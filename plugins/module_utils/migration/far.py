# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target on another host: what runs there beside ZFS, and how it gets there. Nothing is installed there."""

from __future__ import annotations

import contextlib
import functools
import pkgutil
import subprocess
import types

from ..errors import in_a_sentence
from ..remote import RemoteRunner
from ..zfs.replicate_run import ReplicaRunner, end_process

_RUN = 'import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), sys.argv[2], "exec"))'
_SAID = 2000
# Seconds that a program gets to end after it has closed what it says.
_GRACE = 10.0
# What ssh itself ends with.
_SSH_FAILED = 255


def far_end(own: ReplicaRunner) -> RemoteRunner | None:
    """The host of the target, None if it is this one."""
    return own.target if isinstance(own.target, RemoteRunner) else None


def python(program: types.ModuleType, *words: str) -> tuple[str, ...]:
    """The words that run a program of this collection at another host, a module that needs no other one.

    Its source comes on standard input, and what it reads behind that. It is not among the words, since it is long, and
    a login shell may know no line breaks within quotes.
    """
    return ("python3", "-I", "-c", _RUN, str(len(source_of(program))), _file_of(program), *words)


@functools.cache
def source_of(program: types.ModuleType) -> bytes:
    """The source of a program, also where the collection is in a zip file, as it is while a module runs."""
    found = pkgutil.get_data(__package__ or "", _file_of(program))
    if found is None:
        raise ValueError(f"there is no {_file_of(program)}")
    return found


def _file_of(program: types.ModuleType) -> str:
    return f"{program.__name__.rpartition('.')[2]}.py"


def ending(far: RemoteRunner, own: ReplicaRunner, process: subprocess.Popen[bytes]) -> str:
    """Why a program at another host has ended, in words. It is ended if it does not end by itself."""
    said = b""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
        said = b"" if process.stderr is None or process.stderr.closed else process.stderr.read(_SAID)
    end_process(process)
    words = in_a_sentence(own.redact(said))
    if process.returncode == _SSH_FAILED:
        return f"the connection to '{far.host}' was lost{': ' + words if words else ''}"
    return words or f"it ended with status {process.returncode}"
