# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens sealed manifests with the program openssl. The private key goes to it through a pipe, never through a file."""

from __future__ import annotations

import os
import subprocess
import tempfile
import typing as t

from ..module_utils.command import SYSTEM_PATH, HostRunner
from ..module_utils.errors import BadInput, StorageError
from ..module_utils.sealing import envelope
from ..module_utils.sealing.seal import find_openssl
from ..module_utils.secrets import Mask

_SECONDS = 120


class NotOpened(StorageError):
    """The private key does not open it, or it was forged."""


def open_sealed(text: str, private_key: str, passphrase: str | None = None) -> bytes:
    """What is sealed in a text.

    :param private_key: in PEM
    :param passphrase: of the private key
    :raises StorageError: the text was changed, or the key is not one it is sealed to
    """
    found = envelope.parse(text)
    plain = _decrypt(text, plain_key(private_key, passphrase))
    if len(plain) != found.size:
        raise NotOpened("The sealed manifest was opened, but is not whole.")
    return plain


def plain_key(private_key: str, passphrase: str | None) -> bytes:
    """The private key in PEM, without its passphrase.

    :raises StorageError: it is none, or has another passphrase
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise StorageError(
            "Private keys are read with the Python package 'cryptography' on the controller, which is not there.",
            hint="pip install cryptography, or apt install python3-cryptography.",
        ) from None
    secret = passphrase.encode("utf-8") if passphrase else None
    try:
        key = serialization.load_pem_private_key(private_key.encode("utf-8"), secret)
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except TypeError:
        if secret is None:
            raise BadInput("The private key has a passphrase, and none is given.") from None
        raise BadInput("A passphrase is given, but the private key has none.") from None
    except (ValueError, UnsupportedAlgorithm):
        if secret is not None and "ENCRYPTED" in private_key:
            raise BadInput("The private key can't be read: its passphrase is another one, or it is damaged.") from None
        raise BadInput(
            "The private key can't be read: it is none in PEM.", hint="It begins with -----BEGIN PRIVATE KEY-----."
        ) from None


def _decrypt(text: str, key: bytes) -> bytes:
    program = find_openssl(HostRunner(Mask()), "the controller")
    # The key takes standard input, the one pipe that has a path everywhere: FreeBSD shows no others in /dev/fd unless
    # fdescfs is mounted there. What is sealed may lie in a file.
    argv = [program, "cms", "-decrypt", "-binary", "-inform", "PEM", "-inkey", "/dev/fd/0", "-in"]
    try:
        with tempfile.NamedTemporaryFile("wb", prefix="nasops-sealed-") as sealed:
            sealed.write(text.encode("utf-8"))
            sealed.flush()
            done = _run([*argv, sealed.name], key)
    except OSError as error:
        raise StorageError(
            f"The sealed manifest can't be written to a file for openssl: {error.strerror}.",
            hint=f"It needs a few kB of free space in {tempfile.gettempdir()}; nothing is written there in clear.",
        ) from None
    if done.returncode:
        raise NotOpened(
            "The sealed manifest was not opened: it is not sealed to the certificate of this private key, or forged.",
            hint="The recipients are in the record beside it (.json), by the fingerprints of their certificates.",
        )
    return done.stdout


def _run(argv: t.Sequence[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment["PATH"] = os.pathsep.join((environment.get("PATH", ""), *SYSTEM_PATH))
    try:
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            env={**environment, "LC_ALL": "C"},
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StorageError(f"'{argv[0]} cms -decrypt' did not end within {_SECONDS} seconds.") from None
    except OSError as error:
        raise StorageError(f"'{argv[0]}' can't be started: {error.strerror}.") from None
