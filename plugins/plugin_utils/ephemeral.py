# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key for one task, and the certificate of it. Both are in memory only, and gone when the task ends."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from ..module_utils.errors import StorageError


@dataclass(frozen=True)
class Ephemeral:
    """Both in PEM."""

    certificate: str
    private_key: str = field(repr=False)


def make(now: datetime.datetime) -> Ephemeral:
    """A new one.

    :raises StorageError: the controller has no `cryptography`
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise StorageError(
            "The Python package 'cryptography' is wanted on the controller, and is not there.",
            hint="pip install cryptography, or apt install python3-cryptography.",
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "one task of nasops.encryption")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Ephemeral(certificate.public_bytes(pem).decode("ascii"), private.decode("ascii"))
