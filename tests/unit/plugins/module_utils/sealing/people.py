# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates and their private keys, made by the real openssl. Once for a run: RSA keys take their time."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.sealing.recipient import Recipient, parse_recipient

_ALGORITHMS = {
    "rsa": ("rsa:2048",),
    "small": ("rsa:1024",),
    "p256": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "p384": ("ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "p521": ("ec", "-pkeyopt", "ec_paramgen_curve:P-521"),
    "odd": ("ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
    "signs": ("ed25519",),
}


@dataclass(frozen=True)
class Person:
    """Both in PEM."""

    certificate: str
    private_key: str

    @property
    def recipient(self) -> Recipient:
        return parse_recipient(self.certificate, "the certificate")


@functools.cache
def person(kind: str, name: str = "somebody", days: int = 365, extension: str = "") -> Person:
    """Somebody with a self-signed certificate."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "certificate.pem"), Path(folder, "private.pem")
        argv = ["openssl", "req", "-x509", "-nodes", "-newkey", *_ALGORITHMS[kind], "-subj", f"/CN={name}"]
        argv += ["-days", str(days), "-keyout", str(key), "-out", str(certificate)]
        for one in filter(None, (extension,)):
            argv += ["-addext", one]
        subprocess.run(argv, check=True, capture_output=True)
        return Person(certificate.read_text(), key.read_text())


def openssl_opens(text: str, private_key: str, folder: Path) -> bytes:
    """What the program alone makes of a sealed text, as somebody does it who does not have this collection.

    :raises subprocess.CalledProcessError: it does not open it
    """
    sealed, key = folder / "sealed", folder / "private.pem"
    sealed.write_text(text)
    key.write_text(private_key)
    argv = ["openssl", "cms", "-decrypt", "-inform", "PEM", "-in", str(sealed), "-inkey", str(key)]
    return subprocess.run(argv, check=True, capture_output=True).stdout
