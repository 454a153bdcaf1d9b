# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates that a manifest is sealed to, as far as sealing needs to know them. Standard library only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import typing as t
from dataclasses import dataclass

from ..errors import BadInput
from . import der

_RSA = bytes.fromhex("2a864886f70d010101")
_EC = bytes.fromhex("2a8648ce3d0201")
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


@dataclass(frozen=True)
class Recipient:
    """A certificate. ``issuer_and_serial`` is how a sealed message names it, ``fingerprint`` is SHA-256 in hex."""

    pem: str
    fingerprint: str
    kind: str
    issuer_and_serial: bytes


def parse_recipients(texts: t.Sequence[str]) -> tuple[Recipient, ...]:
    """The certificates in PEM, each once.

    :raises BadInput: there is none, or something else is among them
    """
    found = {one.fingerprint: one for one in (parse_recipient(text, f"seal_to[{n}]") for n, text in enumerate(texts))}
    if not found:
        raise BadInput("seal_to is empty; wanted is at least one certificate.")
    return tuple(found.values())


def parse_recipient(text: str, where: str) -> Recipient:
    """One certificate in PEM.

    :param where: how to name it in a message
    :raises BadInput: it is none, or several, or comes with its private key
    """
    if "PRIVATE KEY-----" in text:
        raise BadInput(
            f"{where} holds a private key. It opens what is sealed, so it must not be where backups are made.",
            hint="Give the certificate alone: openssl x509 -in FILE -out certificate.pem",
        )
    blocks = _BLOCK.findall(text)
    if len(blocks) != 1:
        raise BadInput(
            f"{where} holds {len(blocks)} certificates in PEM; wanted is exactly one.",
            hint="One in DER is converted by: openssl x509 -inform DER -in FILE -out certificate.pem",
        )
    try:
        data = base64.b64decode("".join(blocks[0].split()), validate=True)
        kind, name = _facts(data)
    except (binascii.Error, der.NotDer, IndexError):
        raise BadInput(f"{where} is no certificate that can be read.") from None
    body = base64.encodebytes(data).replace(b"\n", b"").decode("ascii")
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    pem = "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""))
    return Recipient(pem, hashlib.sha256(data).hexdigest(), kind, name)


def _facts(data: bytes) -> tuple[str, bytes]:
    """The kind of the public key, and the name under which a sealed message has the certificate."""
    signed = der.expect(der.only(data, der.SEQUENCE).children()[0], der.SEQUENCE).children()
    if signed[0].tag == der.CONSTRUCTED:
        # the version, which the oldest kind leaves out
        signed = signed[1:]
    serial, issuer = der.expect(signed[0], der.INTEGER), der.expect(signed[2], der.SEQUENCE)
    algorithm = der.expect(der.expect(signed[5], der.SEQUENCE).children()[0], der.SEQUENCE).children()[0]
    kinds = {_RSA: "rsa", _EC: "ec"}
    kind = kinds.get(der.expect(algorithm, der.OBJECT).body, "other")
    return kind, der.sequence(issuer.whole, serial.whole)
