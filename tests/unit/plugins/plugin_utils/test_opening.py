# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealed manifests are opened by the real openssl, whole or not at all."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ansible_collections.nasops.encryption.plugins.module_utils.command import HostRunner
from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.sealing import envelope
from ansible_collections.nasops.encryption.plugins.module_utils.sealing.seal import seal
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.plugin_utils.opening import NotOpened, open_sealed
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.sealing.people import Person, person

PLAIN = json.dumps({"tank": "0a" * 32}).encode()


def sealed(*people: Person) -> str:
    return seal(HostRunner(Mask()), "openssl", PLAIN, [one.recipient for one in people])


def with_passphrase(somebody: Person, passphrase: str) -> str:
    key = serialization.load_pem_private_key(somebody.private_key.encode(), None)
    protection = serialization.BestAvailableEncryption(passphrase.encode())
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, protection).decode()


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521"])
def test_what_is_sealed_is_opened(kind: str) -> None:
    somebody = person(kind)
    assert open_sealed(sealed(person("p256", "other"), somebody), somebody.private_key) == PLAIN


def test_a_private_key_with_a_passphrase() -> None:
    somebody = person("rsa")
    text, key = sealed(somebody), with_passphrase(somebody, "geheimes wort")
    assert open_sealed(text, key, "geheimes wort") == PLAIN
    with pytest.raises(BadInput, match="has a passphrase, and none is given"):
        open_sealed(text, key)
    with pytest.raises(BadInput, match="its passphrase is another one"):
        open_sealed(text, key, "anderes wort")
    with pytest.raises(BadInput, match="but the private key has none"):
        open_sealed(text, somebody.private_key, "geheimes wort")


@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_another_private_key(kind: str) -> None:
    with pytest.raises(NotOpened, match="is not sealed to the certificate of this private key"):
        open_sealed(sealed(person("rsa"), person("p256")), person(kind, "stranger").private_key)


@pytest.mark.parametrize("text", ["", "no key", person("p256").certificate])
def test_what_is_no_private_key(text: str) -> None:
    with pytest.raises(BadInput, match="it is none in PEM"):
        open_sealed(sealed(person("p256")), text)


@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_what_was_forged_together_with_its_checksum(kind: str) -> None:
    """The checksum is no secret. What counts then is the tag of AES-256-GCM."""
    somebody = person(kind)
    data = base64.b64decode("".join(sealed(somebody).splitlines()[3:-1]))
    refused: list[int] = []
    positions = [*range(0, len(data) - 100, 31), *range(len(data) - 16 - 2 - len(PLAIN), len(data), 9)]
    for position in positions:
        broken = bytearray(data)
        broken[position] ^= 1
        digits = base64.b64encode(broken).decode()
        body = "\n".join((envelope.BEGIN, *(digits[at : at + 64] for at in range(0, len(digits), 64)), envelope.END))
        try:
            # A few bytes, such as the name of the recipient, are nowhere authenticated. Then the content is whole.
            assert open_sealed(envelope.address(body), somebody.private_key) == PLAIN
        except StorageError:
            refused.append(position)
    # The content and its tag to the last byte, and nearly all of the rest.
    assert refused[-12:] == positions[-12:]
    assert len(refused) > 0.6 * len(positions)


def test_the_private_key_is_in_no_argument_and_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    somebody = person("p256")
    text = sealed(somebody)
    seen: list[tuple[list[str], dict[str, str]]] = []
    real = subprocess.run

    def recorded(argv: list[str], **more: object) -> object:
        seen.append((argv, dict(more["env"])))  # type: ignore[call-overload]
        found.extend(path.read_text() for path in tmp_path.iterdir())
        del more["check"]
        return real(argv, check=False, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", recorded)
    found: list[str] = []
    assert open_sealed(text, somebody.private_key) == PLAIN
    ((argv, environment),) = seen
    line = somebody.private_key.splitlines()[1]
    assert not any(line in word for word in (*argv, *environment.values()))
    # Only what is sealed is in a file meanwhile, and no pipe is used but the one that FreeBSD shows in /dev/fd as well.
    assert found == [text]
    assert argv[argv.index("-inkey") + 1] == "/dev/fd/0"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_for_what_is_sealed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    somebody = person("p256")
    text = sealed(somebody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match="can't be written to a file for openssl: No such file or directory"):
        open_sealed(text, somebody.private_key)
