# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seals bytes to certificates with the program openssl: nothing secret in arguments or files, all on standard input."""

from __future__ import annotations

import os
import re
import tempfile
import typing as t

from ..command import Command, CommandError, Runner
from ..errors import BadInput, StorageError
from . import envelope
from .recipient import Recipient

# FreeBSD has an older one in its base system, and the package beside it.
_PROGRAMS = ("openssl", "/usr/local/bin/openssl")
_VERSION = re.compile(r"OpenSSL (\d+)\.(\d+)")
_WRAPPING = {
    "rsa": ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"),
    "ec": ("ecdh_kdf_md:sha256",),
}


class NoOpenssl(StorageError):
    """There is no openssl that can seal with authentication."""


def find_openssl(runner: Runner, place: str) -> str:
    """The program to use, of OpenSSL 3.0 or later: older ones can't seal with authentication.

    :param place: where it is looked for, for the message
    :raises NoOpenssl: there is none
    """
    seen: list[str] = []
    for program in _PROGRAMS:
        if not runner.has(program):
            continue
        try:
            said = runner.run(Command((program, "version"), timeout=60)).stdout.strip()
        except CommandError as error:
            said = error.message
        match = _VERSION.match(said)
        if match and int(match[1]) >= 3:
            return program
        seen.append(f"'{program}' is {said.split(chr(10))[0] or 'silent about its version'}")
    raise NoOpenssl(
        f"Sealing needs the program openssl 3.0 or later on {place}: {'; '.join(seen) or 'there is none'}.",
        hint="Install the package 'openssl' (on FreeBSD: pkg install openssl). LibreSSL and OpenSSL 1.1.1 can't do it.",
    )


def seal(runner: Runner, program: str, plain: bytes, recipients: t.Sequence[Recipient]) -> str:
    """The sealed text, as it is to be kept.

    :raises StorageError: openssl failed, or did not do what it was told to
    """
    try:
        with tempfile.TemporaryDirectory(prefix="nasops-certificates-") as folder:
            argv = [program, "cms", "-encrypt", "-binary", "-aes-256-gcm", "-aes256-wrap", "-outform", "PEM"]
            for number, one in enumerate(recipients):
                path = os.path.join(folder, f"{number}.pem")
                with open(path, "w", encoding="ascii") as file:
                    file.write(one.pem)
                argv += ["-recip", path]
                for option in wrapping(one):
                    argv += ["-keyopt", option]
            text = envelope.address(runner.run(Command(tuple(argv), stdin=plain, timeout=120)).stdout)
    except OSError as error:
        raise StorageError(
            f"The certificates can't be written to a folder for openssl: {error.strerror}.",
            hint=f"It needs a few kB of free space in {tempfile.gettempdir()}; no key is written there.",
        ) from error
    check(text, recipients, len(plain))
    return text


def wrapping(one: Recipient) -> tuple[str, ...]:
    """How the key of the message is wrapped for a recipient.

    :raises BadInput: nothing can be sealed to a certificate of this kind
    """
    if one.kind not in _WRAPPING:
        raise BadInput(
            f"The certificate {one.fingerprint} has neither an RSA key nor one on an elliptic curve, so nothing can be "
            "sealed to it.",
            hint="A key that only signs (RSA-PSS, Ed25519) can't be sealed to.",
        )
    return _WRAPPING[one.kind]


def check(text: str, recipients: t.Sequence[Recipient], size: int | None = None) -> None:
    """See that a sealed text is whole, and sealed to these certificates and to no other.

    :param size: how many bytes are to be in it, if that is known
    :raises StorageError: it is not
    """
    found = envelope.parse(text)
    if found.weak:
        raise StorageError(f"The manifest is not sealed as it has to be: {found.weak}.")
    if sorted(found.recipients) != sorted(one.issuer_and_serial for one in recipients):
        raise StorageError("The manifest is sealed to other certificates than those that were asked for.")
    if size not in (None, found.size):
        raise StorageError(f"There are {found.size} bytes sealed in place of {size}.")
