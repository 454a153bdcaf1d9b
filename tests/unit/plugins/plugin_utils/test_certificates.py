# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""To which certificates something is sealed, and to which not."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.plugin_utils import ephemeral
from ansible_collections.nasops.encryption.plugins.plugin_utils.certificates import judge, load
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sealing.people import person

# After the certificates are made, with which this file begins.
NOW = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
YEAR = datetime.timedelta(days=365)


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521"])
def test_a_good_one(kind: str) -> None:
    found = judge(person(kind).certificate, "it", NOW)
    assert found.recipient == person(kind).recipient
    assert found.subject == "CN=somebody"
    assert found.expires.endswith("Z")


def test_what_is_not_much_is_told() -> None:
    (warning,) = judge(person("rsa").certificate, "The certificate a.pem", NOW).warnings
    assert warning.startswith("The certificate a.pem (CN=somebody) has an RSA key of 2048 bits, which is not much")
    assert judge(person("p256").certificate, "it", NOW).warnings == ()
    (warning,) = judge(person("p256").certificate, "it", NOW + YEAR - datetime.timedelta(days=20)).warnings
    assert "expires on" in warning


@pytest.mark.parametrize(
    "kind,extension,message",
    [
        ("small", "", "has an RSA key of 1024 bits; wanted are 2048 or more"),
        ("odd", "", "on the curve secp256k1; wanted is one of P-256, P-384 and P-521"),
        ("signs", "", "neither an RSA key nor one on an elliptic curve"),
        ("rsa", "keyUsage=critical,digitalSignature", "its key usage does not have 'key encipherment'"),
        ("rsa", "keyUsage=critical,keyAgreement", "its key usage does not have 'key encipherment'"),
        ("p256", "keyUsage=critical,digitalSignature", "its key usage does not have 'key agreement'"),
        ("p256", "keyUsage=critical,keyEncipherment", "its key usage does not have 'key agreement'"),
        ("rsa", "extendedKeyUsage=serverAuth,clientAuth", "has neither e-mail protection nor document encryption"),
        ("p256", "extendedKeyUsage=codeSigning", "has neither e-mail protection nor document encryption"),
    ],
)
def test_for_another_purpose_or_too_weak(kind: str, extension: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        judge(person(kind, extension=extension).certificate, "it", NOW)


@pytest.mark.parametrize(
    "kind,extension",
    [
        ("rsa", "keyUsage=critical,keyEncipherment"),
        ("p256", "keyUsage=critical,keyAgreement"),
        ("rsa", "extendedKeyUsage=emailProtection"),
        ("p256", "extendedKeyUsage=1.3.6.1.4.1.311.80.1"),
        ("rsa", "extendedKeyUsage=anyExtendedKeyUsage"),
    ],
)
def test_for_this_purpose(kind: str, extension: str) -> None:
    assert judge(person(kind, extension=extension).certificate, "it", NOW).subject == "CN=somebody"


def test_another_time() -> None:
    certificate = person("p256").certificate
    with pytest.raises(BadInput, match="has expired on"):
        judge(certificate, "it", NOW + 2 * YEAR)
    with pytest.raises(BadInput, match="is not valid before .* Is the clock of the controller right"):
        judge(certificate, "it", NOW - YEAR)


def test_paths_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = person("p256"), person("p384")
    (tmp_path / "one.pem").write_text(one.certificate)
    monkeypatch.chdir(tmp_path)
    found = load(["one.pem", two.certificate, str(tmp_path / "one.pem")], NOW)
    assert [certificate.recipient for certificate in found] == [one.recipient, two.recipient]
    (tmp_path / "binary.pem").write_bytes(b"\x30\x82\xff")
    with pytest.raises(BadInput, match="binary.pem is no text"):
        load(["binary.pem"], NOW)
    with pytest.raises(StorageError, match=r"two.pem does not exist on the controller"):
        load(["two.pem"], NOW)
    with pytest.raises(BadInput, match="is a folder"):
        load([str(tmp_path)], NOW)


def test_the_key_of_one_task_is_never_the_same_and_not_shown() -> None:
    one, two = ephemeral.make(NOW), ephemeral.make(NOW)
    assert one.private_key != two.private_key
    assert one.private_key.splitlines()[1] not in repr(one)
    assert judge(one.certificate, "it", NOW).recipient.kind == "ec"
