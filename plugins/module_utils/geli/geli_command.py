# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""geli(8) of FreeBSD: its commands, and what it says."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
import typing as t
from dataclasses import dataclass

from ..command import Command, CommandError, Runner
from ..errors import StorageError

SUFFIX = ".eli"
STDIN = "-"

# What geli and the kernel say, and what it means.
_MESSAGES = (
    ("Wrong key for", "The key does not open it."),
    ("Provider size mismatch", "The provider was resized after it was encrypted; give it back its size."),
    ("Cannot read metadata from", "There is no GELI metadata on it."),
    ("No valid keys on", "No key slot is in use: nothing can open it any more."),
    ("metadata version", "Its metadata is of a newer FreeBSD than this one."),
    ("Invalid or unsupported algorithms", "FreeBSD 13 and later have no Blowfish, 3DES and HMAC-MD5 any more."),
    ("(error=16)", "It is in use: export the pool, or stop what uses it."),
    ("(error=1)", "It is in use already, or attached."),
)
_GEOM = re.compile(r"^Geom name: (?P<name>.+)$", re.M)
_FLAGS = re.compile(r"^Flags: (?P<flags>.*)$", re.M)


@dataclass(frozen=True)
class Attach:
    """How to attach a provider."""

    provider: str
    read_only: bool
    # Paths of key files, in their order. STDIN is one whose content goes there; not together with a passphrase.
    key_files: tuple[str, ...]
    with_passphrase: bool


def attach(wanted: Attach, secret: bytes) -> Command:
    """The command that attaches a provider; ``secret`` is the passphrase or the content of the key file.

    Only one of both can be read from stdin. For the other one there is :func:`pipe`.
    """
    argv = ["geli", "attach"]
    if wanted.read_only:
        argv.append("-r")
    argv += ["-j", STDIN] if wanted.with_passphrase else ["-p"]
    for path in wanted.key_files:
        argv += ["-k", path]
    stdin = secret + b"\n" if wanted.with_passphrase else secret if STDIN in wanted.key_files else None
    return Command((*argv, _short(wanted.provider)), stdin=stdin)


@contextlib.contextmanager
def pipe(content: bytes) -> t.Iterator[str]:
    """The path of a named pipe that hands a key file to the first program that reads it, which is to be root's.

    FreeBSD has no other pipe than stdin in ``/dev/fd`` unless fdescfs is mounted there. A named pipe keeps nothing: its
    content never is in a file, and all that a kill leaves is a name in a folder that only root gets into.

    :raises StorageError: it can't be made
    """
    with contextlib.ExitStack() as stack:
        try:
            path = os.path.join(stack.enter_context(tempfile.TemporaryDirectory(prefix="nasops-geli-")), "key")
            os.mkfifo(path, 0o600)
        except OSError as error:
            raise StorageError(
                f"The key file can't be handed to geli(8) besides the passphrase: {error.strerror}.",
                hint="It needs a temporary folder, where no key is written. Or put the key file onto the host, and "
                "name it in 'keyfile'.",
            ) from None
        writer = threading.Thread(target=_write, args=(path, content), daemon=True)
        writer.start()
        stack.callback(_drain, path, writer)
        yield path


def _write(path: str, content: bytes) -> None:
    # geli may end without having read all of it.
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        file.write(content)


def _drain(path: str, writer: threading.Thread) -> None:
    """Let the writer end, which still waits for a reader if geli never came to it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while writer.is_alive():
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, 1 << 16)
            writer.join(0.01)
    finally:
        os.close(descriptor)


def detach(device: str) -> Command:
    """The command that detaches a device."""
    return Command(("geli", "detach", _short(device)))


def run(runner: Runner, command: Command) -> None:
    """Run geli, and say what its words mean.

    :raises StorageError: it failed
    """
    try:
        runner.run(command)
    except CommandError as error:
        said = error.result.stderr + error.result.stdout
        meaning = next((meaning for words, meaning in _MESSAGES if words in said), "")
        raise StorageError(error.message, hint=meaning, **error.details) from None


def read_only_devices(runner: Runner) -> frozenset[str]:
    """The attached devices that can't be written to, as ada1p2.eli.

    :raises StorageError: geli can't be asked
    """
    # 1: no device is attached, and the class may not even be loaded.
    return parse_list(runner.run(Command(("geli", "list")), ok=(0, 1)).stdout)


def parse_list(text: str) -> frozenset[str]:
    """The devices in the output of ``geli list`` that have the flag READ-ONLY."""
    heads = list(_GEOM.finditer(text))
    found: list[str] = []
    for head, end in zip(heads, [*(one.start() for one in heads[1:]), len(text)]):
        flags = _FLAGS.search(text, head.end(), end)
        if flags is not None and "READ-ONLY" in [word.strip() for word in flags.group("flags").split(",")]:
            found.append(head.group("name").strip())
    return frozenset(found)


def _short(path: str) -> str:
    return path[len("/dev/") :] if path.startswith("/dev/") else path


def attached_name(holders: t.Iterable[str]) -> str:
    """The device that GELI has made, among what is built on a provider; empty for none."""
    return next((name for name in holders if name.endswith(SUFFIX)), "")
