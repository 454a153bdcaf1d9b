# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges certificates before something is sealed to them: whether they are valid now, strong, and for that purpose."""

from __future__ import annotations

import datetime
import typing as t
from dataclasses import dataclass

from ..module_utils.errors import BadInput, StorageError
from ..module_utils.sealing.recipient import Recipient, parse_recipient
from .controller_files import absolute, read_text

if t.TYPE_CHECKING:
    from cryptography import x509

RSA_MIN_BITS = 2048
RSA_GOOD_BITS = 3072
CURVES = ("secp256r1", "secp384r1", "secp521r1")
_SOON = datetime.timedelta(days=30)
# Purposes of a certificate that something can be sealed to: e-mail, documents, any.
_PURPOSES = ("1.3.6.1.5.5.7.3.4", "1.3.6.1.4.1.311.80.1", "2.5.29.37.0")


@dataclass(frozen=True)
class Certificate:
    """A certificate that was found to be good."""

    recipient: Recipient
    subject: str
    expires: str
    warnings: tuple[str, ...] = ()

    def row(self) -> dict[str, str]:
        """What may be told of it."""
        return {"fingerprint": self.recipient.fingerprint, "subject": self.subject, "expires": self.expires}


def load(given: t.Sequence[str], now: datetime.datetime) -> tuple[Certificate, ...]:
    """The certificates that are given as texts or as paths on the controller, each once.

    :raises StorageError: one of them can't be read, or nothing should be sealed to it
    """
    if not given:
        raise BadInput("seal_to is empty; wanted is at least one certificate.")
    found = (judge(*_text(one, number), now) for number, one in enumerate(given))
    return tuple({one.recipient.fingerprint: one for one in found}.values())


def _text(given: str, number: int) -> tuple[str, str]:
    """The PEM, and how to name it in a message."""
    if not given.strip():
        raise BadInput(f"seal_to[{number}] is empty; wanted is a certificate in PEM, or its path.")
    if "-----BEGIN" in given:
        return given, f"The certificate seal_to[{number}]"
    path = absolute(given)
    return read_text(path, "The certificate"), f"The certificate {path}"


def judge(pem: str, where: str, now: datetime.datetime) -> Certificate:
    """Whether something may be sealed to a certificate.

    :param where: how to name it at the beginning of a message
    :raises BadInput: it may not
    """
    recipient = parse_recipient(pem, where)
    x509 = _x509()
    try:
        found = x509.load_pem_x509_certificate(recipient.pem.encode("ascii"))
        purposes = _purposes(found)
        usage = _usage(found)
        subject = found.subject.rfc4514_string()
        begins, ends = _validity(found)
        kind, strength = _strength(found)
    except (ValueError, x509.DuplicateExtension) as error:
        raise BadInput(f"{where} is no certificate that can be read: {error}.") from None
    named = f"{where} ({subject})"
    if now > ends:
        raise BadInput(f"{named} has expired on {ends:%Y-%m-%d}; nothing was sealed to it.")
    if now < begins:
        raise BadInput(
            f"{named} is not valid before {begins:%Y-%m-%d}; nothing was sealed to it.",
            hint="Is the clock of the controller right?",
        )
    if purposes is not None and not any(one in _PURPOSES for one in purposes):
        raise BadInput(
            f"{named} is for another purpose: its extended key usage has neither e-mail protection nor document "
            "encryption.",
            hint="The certificate of a web server is none to seal backups to. Make one for this purpose alone.",
        )
    weakness = tuple(_weakness(named, kind, strength))
    needed = "key_encipherment" if kind == "rsa" else "key_agreement"
    if usage is not None and not getattr(usage, needed):
        raise BadInput(
            f"{named} is for another purpose: its key usage does not have '{needed.replace('_', ' ')}'.",
            hint="A certificate for signatures is none to seal backups to. Make one for this purpose alone.",
        )
    warnings = tuple(f"{named} {text}." for text in (*weakness, *_end(ends, now)))
    return Certificate(recipient, subject, f"{ends:%Y-%m-%dT%H:%M:%SZ}", warnings)


def _x509() -> t.Any:
    try:
        from cryptography import x509
    except ImportError:
        raise StorageError(
            "Certificates are checked with the Python package 'cryptography' on the controller, which is not there.",
            hint="pip install cryptography, or apt install python3-cryptography.",
        ) from None
    return x509


def _validity(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    """From when to when. Versions of cryptography before 42 tell it without a time zone, and mean UTC."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    utc = datetime.timezone.utc
    return certificate.not_valid_before.replace(tzinfo=utc), certificate.not_valid_after.replace(tzinfo=utc)


def _purposes(certificate: x509.Certificate) -> list[str] | None:
    """The purposes it is restricted to, ``None`` for no restriction."""
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound

    try:
        return [one.dotted_string for one in certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value]
    except ExtensionNotFound:
        return None


def _usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    from cryptography.x509 import ExtensionNotFound, KeyUsage

    try:
        return certificate.extensions.get_extension_for_class(KeyUsage).value
    except ExtensionNotFound:
        return None


def _strength(certificate: x509.Certificate) -> tuple[str, str | int]:
    """The kind of the key, and its number of bits or its curve."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        key = certificate.public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa", key.key_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "ec", key.curve.name
    return "other", type(key).__name__


def _weakness(named: str, kind: str, strength: str | int) -> t.Iterator[str]:
    """Nothing, or a warning.

    :raises BadInput: it is too weak, or of a kind that nothing can be sealed to
    """
    if kind == "rsa" and isinstance(strength, int):
        if strength < RSA_MIN_BITS:
            raise BadInput(f"{named} has an RSA key of {strength} bits; wanted are {RSA_MIN_BITS} or more.")
        if strength < RSA_GOOD_BITS:
            yield f"has an RSA key of {strength} bits, which is not much for something that is kept for years"
    elif kind == "ec":
        if strength not in CURVES:
            raise BadInput(f"{named} has a key on the curve {strength}; wanted is one of P-256, P-384 and P-521.")
    else:
        raise BadInput(
            f"{named} has neither an RSA key nor one on an elliptic curve, so nothing can be sealed to it.",
            hint="Ed25519 and RSA-PSS keys only sign.",
        )


def _end(ends: datetime.datetime, now: datetime.datetime) -> t.Iterator[str]:
    if ends - now < _SOON:
        yield f"expires on {ends:%Y-%m-%d}; what was sealed to it can still be opened then, but nothing new be sealed"
