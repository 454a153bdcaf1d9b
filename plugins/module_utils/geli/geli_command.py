# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""geli(8) of FreeBSD: its commands, and what it says."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ..command import Command, CommandError, Runner
from ..errors import StorageError

SUFFIX = ".eli"

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
    # Paths of key files, in their order.
    key_files: tuple[str, ...]
    # Only the content of the key file is known, so it goes to stdin in place of the passphrase.
    key_file_on_stdin: bool
    with_passphrase: bool


def attach(wanted: Attach, secret: bytes) -> Command:
    """The command that attaches a provider; ``secret`` is the passphrase or the content of the key file.

    Only one of both can be read from stdin.

    :raises StorageError: both would have to be
    """
    if wanted.key_file_on_stdin and wanted.with_passphrase:
        raise StorageError(
            "geli(8) reads either a key file or a passphrase from its standard input, not both.",
            hint="Put the key file onto the host, and name it in 'keyfile'.",
        )
    argv = ["geli", "attach"]
    if wanted.read_only:
        argv.append("-r")
    argv += ["-j", "-"] if wanted.with_passphrase else ["-p"]
    for path in ("-",) if wanted.key_file_on_stdin else wanted.key_files:
        argv += ["-k", path]
    stdin = secret + b"\n" if wanted.with_passphrase else secret if wanted.key_file_on_stdin else None
    return Command((*argv, _short(wanted.provider)), stdin=stdin)


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
