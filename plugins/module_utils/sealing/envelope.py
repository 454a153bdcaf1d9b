# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sealed manifest looks like: CMS AuthEnvelopedData (RFC 5083) in PEM, with a checksum above it.

The checksum finds damage in every byte, also in those that only another recipient would need. Against forgery there is
the tag of AES-256-GCM, which is checked when the message is opened. ``openssl cms`` reads over the lines above the PEM.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from ..errors import BadInput
from . import der

BEGIN, END = "-----BEGIN CMS-----", "-----END CMS-----"
_FIRST_LINE = "A sealed manifest of keys. To open it: openssl cms -decrypt -inform PEM -in FILE -inkey KEY"
_SECOND_LINE = "SHA-256 of the lines below: "
_LINE = 64

_AUTH_ENVELOPED_DATA = bytes.fromhex("2a864886f70d0109100117")
_DATA = bytes.fromhex("2a864886f70d010701")
_AES_256_GCM = bytes.fromhex("60864801650304012e")
_OAEP = bytes.fromhex("2a864886f70d010107")
_SHA_256 = bytes.fromhex("608648016503040201")
_TAG_BYTES = 16
_NONCE_BYTES = 12


@dataclass(frozen=True)
class Envelope:
    """A sealed message. ``recipients`` are as the message names them, ``size`` is the number of bytes sealed in it.

    ``weak`` tells what is not as this collection seals it, "" for nothing.
    """

    recipients: tuple[bytes, ...]
    size: int
    weak: str = ""


class Damaged(BadInput):
    """A text that is no sealed manifest, or one that was changed."""


def address(pem: str) -> str:
    """The message with the lines above it."""
    body = pem.rstrip("\n") + "\n"
    return f"{_FIRST_LINE}\n{_SECOND_LINE}{_digest(body)}\n{body}"


def parse(text: str) -> Envelope:
    """Look at a sealed manifest, with or without the lines above it.

    :raises Damaged: any part of it is not as it has to be
    """
    body = _checked(text.rstrip("\n") + "\n")
    try:
        return _structure(_decode(body))
    except (der.NotDer, IndexError) as error:
        raise Damaged("The sealed manifest is damaged, or is another kind of message.") from error


def _checked(text: str) -> str:
    """The PEM, once its checksum was seen to be right."""
    if text.startswith(BEGIN):
        return text
    first, _newline, rest = text.partition("\n")
    second, _newline, body = rest.partition("\n")
    if first != _FIRST_LINE or not body.startswith(BEGIN):
        raise Damaged(
            "This is no sealed manifest: it does not begin as one.",
            hint="It may be a manifest that is not sealed, or one that Ansible Vault encrypted.",
        )
    if second != _SECOND_LINE + _digest(body):
        raise Damaged(
            "The sealed manifest is damaged: its checksum is another one.",
            hint="It was changed, cut off, or sent through a program that alters line ends. Take another copy.",
        )
    return body


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


def _decode(body: str) -> bytes:
    match = re.fullmatch(f"{BEGIN}\n([A-Za-z0-9+/=\n]+)\n{END}\n", body)
    try:
        data = base64.b64decode(match[1].replace("\n", ""), validate=True) if match else b""
    except binascii.Error:
        data = b""
    if not data or body != _encode(data):
        raise Damaged("The sealed manifest is damaged: it is not written as PEM has it.")
    return data


def _encode(data: bytes) -> str:
    digits = base64.b64encode(data).decode("ascii")
    return "\n".join((BEGIN, *(digits[at : at + _LINE] for at in range(0, len(digits), _LINE)), END, ""))


def _structure(data: bytes) -> Envelope:
    kind, content = der.take(der.only(data, der.SEQUENCE).children(), der.OBJECT, der.CONSTRUCTED)
    if kind.body != _AUTH_ENVELOPED_DATA:
        raise Damaged(
            "This message is not sealed in a way that would show a change (AuthEnvelopedData is wanted).",
            hint="It was not made by this collection. openssl cms -decrypt may open it.",
        )
    version, people, sealed, tag = der.take(
        der.only(content.body, der.SEQUENCE).children(), der.INTEGER, der.SET, der.SEQUENCE, der.OCTET_STRING
    )
    what, algorithm, text = der.take(sealed.children(), der.OBJECT, der.SEQUENCE, der.PRIMITIVE)
    cipher, parameters = der.take(algorithm.children(), der.OBJECT, der.SEQUENCE)
    nonce, length = der.take(parameters.children(), der.OCTET_STRING, der.INTEGER)
    sizes = (len(nonce.body), length.body, len(tag.body))
    if (version.body, what.body, cipher.body) != (b"\0", _DATA, _AES_256_GCM) or sizes != (
        _NONCE_BYTES,
        bytes((_TAG_BYTES,)),
        _TAG_BYTES,
    ):
        raise Damaged("The sealed manifest is damaged, or not sealed by AES-256-GCM with its whole tag.")
    named: list[bytes] = []
    weak = ""
    for one in people.children():
        names, fault = _key_agreement(one) if one.tag == der.CONSTRUCTED + 1 else _key_transport(one)
        named += names
        weak = weak or fault
    return Envelope(tuple(named), len(text.body), weak)


def _key_transport(one: der.Element) -> tuple[list[bytes], str]:
    """For an RSA key."""
    der.expect(one, der.SEQUENCE)
    _version, name, algorithm, _key = one.children()[:4]
    kind, *parameters = algorithm.children()
    oaep = kind.body == _OAEP and bool(parameters) and parameters[0].whole.count(_SHA_256) == 2
    return [name.whole], "" if oaep else "a key is not wrapped by RSA-OAEP with SHA-256"


def _key_agreement(one: der.Element) -> tuple[list[bytes], str]:
    """For a key on an elliptic curve."""
    keys = der.expect(one.children()[-1], der.SEQUENCE).children()
    return [der.expect(key, der.SEQUENCE).children()[0].whole for key in keys], ""
