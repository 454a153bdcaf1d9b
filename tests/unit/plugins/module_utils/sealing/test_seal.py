# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing by the real openssl, and what is seen of it without a private key."""

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import HostRunner, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.sealing import envelope
from ansible_collections.nasops.encryption.plugins.module_utils.sealing.envelope import Damaged
from ansible_collections.nasops.encryption.plugins.module_utils.sealing.recipient import (
    parse_recipient,
    parse_recipients,
)
from ansible_collections.nasops.encryption.plugins.module_utils.sealing.seal import (
    NoOpenssl,
    check,
    find_openssl,
    seal,
    wrapping,
)
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, answer
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sealing.people import (
    Person,
    openssl_opens,
    person,
)

PLAIN = b'{\n  "tank": "' + b"0a" * 32 + b'"\n}\n'


def sealed(*people: Person) -> str:
    return seal(HostRunner(Mask()), "openssl", PLAIN, [one.recipient for one in people])


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521"])
def test_openssl_alone_opens_it(kind: str, tmp_path: Path) -> None:
    somebody = person(kind)
    text = sealed(somebody)
    assert openssl_opens(text, somebody.private_key, tmp_path) == PLAIN
    assert "0a0a0a0a" not in text
    assert envelope.parse(text).size == len(PLAIN)


def test_each_of_several_people_opens_it_and_nobody_else(tmp_path: Path) -> None:
    people = [person("rsa"), person("p256", "two"), person("p384", "three")]
    text = sealed(*people)
    for one in people:
        assert openssl_opens(text, one.private_key, tmp_path) == PLAIN
    for stranger in (person("rsa", "stranger"), person("p256", "stranger")):
        with pytest.raises(subprocess.CalledProcessError):
            openssl_opens(text, stranger.private_key, tmp_path)


def test_every_flipped_byte_is_seen() -> None:
    """Also in what only the other recipient would need, and in what CMS itself does not authenticate."""
    text = sealed(person("rsa"), person("p256", "two"))
    data = text.encode("ascii")
    for position in range(len(data)):
        for bit in (0, 5):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            with pytest.raises(Damaged):
                envelope.parse(broken.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("change", ["cut", "more", "windows", "lines", "nothing", "vault", "manifest"])
def test_what_is_no_sealed_manifest_any_more(change: str) -> None:
    text = sealed(person("p256"))
    spoilt = {
        "cut": text[: len(text) // 2],
        "more": text + "more",
        "windows": text.replace("\n", "\r\n"),
        "lines": "\n".join(text.splitlines()[1:]),
        "nothing": "",
        "vault": "$ANSIBLE_VAULT;1.1;AES256\n3132\n",
        "manifest": '{"tank": "' + "0a" * 32 + '"}',
    }[change]
    with pytest.raises(Damaged):
        envelope.parse(spoilt)


def test_without_its_last_line_end_it_is_the_same() -> None:
    text = sealed(person("p256"))
    assert envelope.parse(text.rstrip("\n")) == envelope.parse(text)


def test_a_message_without_the_lines_above_it_is_one_too() -> None:
    text = sealed(person("p256"))
    assert envelope.parse(text[text.index(envelope.BEGIN) :]) == envelope.parse(text)


def by_hand(*options: str, people: t.Sequence[Person], tmp_path: Path) -> str:
    """What openssl makes with other options."""
    argv = ["openssl", "cms", "-encrypt", "-binary", "-outform", "PEM", *options]
    for number, one in enumerate(people):
        path = tmp_path / f"{number}.pem"
        path.write_text(one.certificate)
        argv.append(str(path))
    return subprocess.run(argv, input=PLAIN, check=True, capture_output=True).stdout.decode()


def test_a_message_that_would_not_show_a_change_is_refused(tmp_path: Path) -> None:
    text = by_hand("-aes-256-cbc", people=[person("rsa")], tmp_path=tmp_path)
    with pytest.raises(Damaged, match="AuthEnvelopedData"):
        envelope.parse(text)


def test_a_weaker_cipher_is_refused(tmp_path: Path) -> None:
    text = by_hand("-aes-128-gcm", people=[person("rsa")], tmp_path=tmp_path)
    with pytest.raises(Damaged, match="AES-256-GCM"):
        envelope.parse(text)


def test_a_key_wrapped_in_the_old_way_is_told(tmp_path: Path) -> None:
    """openssl does so unless it is told otherwise."""
    somebody = person("rsa")
    text = by_hand("-aes-256-gcm", people=[somebody], tmp_path=tmp_path)
    assert envelope.parse(text).weak
    with pytest.raises(StorageError, match="not wrapped by RSA-OAEP"):
        check(text, [somebody.recipient])
    assert not envelope.parse(sealed(somebody)).weak


def test_for_whom_it_is_sealed_is_seen_without_a_private_key() -> None:
    one, two, three = person("rsa"), person("p256", "two"), person("p384", "three")
    text = sealed(one, two)
    check(text, [two.recipient, one.recipient], len(PLAIN))
    for others in ([one], [one, two, three], [one, three]):
        with pytest.raises(StorageError, match="other certificates"):
            check(text, [other.recipient for other in others])
    with pytest.raises(StorageError, match="bytes sealed"):
        check(text, [one.recipient, two.recipient], len(PLAIN) - 1)


def test_no_secret_is_in_an_argument_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    runner = RecordedRunner(default=lambda command: answer(command.argv, stdout=""))
    with pytest.raises(Damaged):
        seal(runner, "openssl", PLAIN, [person("p256").recipient])
    (command,) = runner.commands
    assert command.stdin == PLAIN
    assert not any("0a0a" in word for word in command.argv)
    assert "0a0a" not in repr(command)


@pytest.mark.parametrize(
    "said,good",
    [
        ("OpenSSL 3.0.19 27 Jan 2026 (Library: OpenSSL 3.0.19 27 Jan 2026)", True),
        ("OpenSSL 3.5.1 1 Jul 2025", True),
        ("OpenSSL 4.0.0 1 Apr 2026", True),
        ("OpenSSL 1.1.1w  11 Sep 2023", False),
        ("OpenSSL 1.1.1w-freebsd  11 Sep 2023", False),
        ("LibreSSL 3.9.2", False),
        ("", False),
    ],
)
def test_which_openssl_will_do(said: str, good: bool) -> None:
    runner = RecordedRunner({("openssl", "version"): answer(("openssl", "version"), said)}, missing=(_LOCAL,))
    if good:
        assert find_openssl(runner, "this host") == "openssl"
        return
    with pytest.raises(NoOpenssl) as caught:
        find_openssl(runner, "this host")
    assert "openssl 3.0 or later on this host" in str(caught.value)
    assert said in str(caught.value)


_LOCAL = "/usr/local/bin/openssl"


def test_the_one_that_was_installed_beside_an_older_one() -> None:
    answers: dict[tuple[str, ...], Result] = {
        (program, "version"): answer((program, "version"), f"OpenSSL {version} 1 Jan 2025")
        for program, version in (("openssl", "1.1.1"), (_LOCAL, "3.0.16"))
    }
    assert find_openssl(RecordedRunner(answers), "this host") == _LOCAL


def test_no_openssl_at_all() -> None:
    with pytest.raises(NoOpenssl, match="there is none"):
        find_openssl(RecordedRunner(missing=("openssl", _LOCAL)), "this host")


def test_one_that_does_not_even_start() -> None:
    broken = RecordedRunner(default=lambda command: answer(command.argv, stderr="no library", rc=127))
    with pytest.raises(NoOpenssl, match="no library"):
        find_openssl(broken, "this host")


def test_a_certificate_twice_is_one_recipient() -> None:
    text = person("p256").certificate
    assert len(parse_recipients([text, text.replace("\n", "\r\n")])) == 1


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "holds 0 certificates"),
        ("somewhere/recovery.pem", "holds 0 certificates"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is no certificate that can be read"),
        ("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "is no certificate that can be read"),
    ],
)
def test_what_is_no_certificate(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_recipient(text, "seal_to[0]")


def test_a_private_key_must_not_be_where_backups_are_made() -> None:
    somebody = person("p256")
    with pytest.raises(BadInput, match="holds a private key") as caught:
        parse_recipient(somebody.certificate + somebody.private_key, "seal_to[0]")
    assert somebody.private_key.splitlines()[1] not in str(caught.value)


def test_two_certificates_in_one_text() -> None:
    with pytest.raises(BadInput, match="holds 2 certificates"):
        parse_recipient(person("p256").certificate + person("rsa").certificate, "seal_to[0]")


def test_no_certificate_at_all() -> None:
    with pytest.raises(BadInput, match="seal_to is empty"):
        parse_recipients([])


def test_a_key_that_only_signs() -> None:
    with pytest.raises(BadInput, match="neither an RSA key nor one on an elliptic curve"):
        wrapping(person("signs").recipient)
