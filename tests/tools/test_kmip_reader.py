# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reads keys without PyKMIP, against a real KMIP server: it finds what the client with that library finds."""

from __future__ import annotations

import contextlib
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.fetch import fetch, fetch_one
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.library import load
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.link import LinkFailed, NotTrusted
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.reader import Reader
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.session import Session
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.certificates import CLIENT, Authority
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import (
    KmipServer,
    connection,
)


@pytest.fixture
def reader(kmip: KmipServer) -> t.Iterator[Reader]:
    with contextlib.closing(Reader(connection(kmip.options()), Mask())) as one:
        yield one


@pytest.fixture
def session(kmip: KmipServer) -> t.Iterator[Session]:
    with contextlib.closing(Session(connection(kmip.options()), Mask())) as one:
        yield one


def failed(server: Reader, term: str, by: str = "name") -> str:
    with pytest.raises(StorageError) as caught:
        fetch_one(server, term, by)
    return str(caught.value)


def stored(session: Session, name: str, text: str) -> str:
    uid = session.register(name, text)
    session.activate(uid)
    return uid


def test_it_finds_what_the_library_finds(kmip: KmipServer, reader: Reader, session: Session) -> None:
    texts = {"drives/S1": "0a" * 32, "drives/Büro 100% 日本": "ein wört", "drives-1a2b3c4": "of a TrueNAS"}
    uids = {name: stored(session, name, text) for name, text in texts.items()}
    library = load()
    aes = library.objects.SymmetricKey(
        library.enums.CryptographicAlgorithm.AES, 256, bytes(range(32)), [library.enums.CryptographicUsageMask.ENCRYPT]
    )
    uids["symmetric"] = str(session._client.register(aes))
    session.activate(uids["symmetric"])
    for name in (*texts, "nothing"):
        assert reader.locate(name) == session.locate(name)
    assert reader.locate_secrets() == session.locate_secrets()
    for uid in uids.values():
        ours, theirs = reader.describe(uid), session.describe(uid)
        assert ours is not None and theirs is not None
        assert (ours.kind, ours.names, ours.state, ours.indexes) == (
            theirs.kind,
            theirs.names,
            theirs.state,
            theirs.indexes,
        )
    for name, text in texts.items():
        held = fetch_one(reader, name, "name")
        assert (held.text, held.uid) == (text, uids[name])
        assert fetch_one(reader, uids[name], "uid").text == text
    assert fetch_one(reader, uids["symmetric"], "uid").text == bytes(range(32)).hex()
    assert fetch(reader, ["drives"], "truenas", False) == {"drives": "of a TrueNAS"}
    assert reader.describe("99") is None


def test_what_is_no_key_is_told_in_words(kmip: KmipServer, reader: Reader, session: Session) -> None:
    library = load()
    opaque = library.objects.OpaqueObject(b"words", library.enums.OpaqueDataType.NONE, name="blob")
    uid = str(session._client.register(opaque))
    with pytest.raises(StorageError, match=f"The object {uid} on the KMIP server is a opaque data, not a key"):
        held = reader.describe(uid)
        assert held is not None
        reader.fetch(held)
    assert "There is no key 'drives' on the KMIP server" in failed(reader, "drives")
    assert "There is no key '99' on the KMIP server" in failed(reader, "99", "uid")
    session.register("early", "words")
    assert "is pre-active, not active" in failed(reader, "early")
    late = stored(session, "late", "words")
    session.revoke(late)
    assert "is deactivated, not active" in failed(reader, "late")
    session.destroy(late)
    assert reader.describe(late) is None
    for _number in range(2):
        stored(session, "twice", "words")
    assert "'twice' stands for 2 objects" in failed(reader, "twice")
    uid = stored(session, "alices", "words")
    bob = Reader(connection(kmip.options(kmip.bob)), Mask())
    assert "There is no key 'alices'" in failed(bob, "alices")
    assert "refused to describe" in failed(bob, uid, "uid") and "of the client that stored it" in failed(
        bob, uid, "uid"
    )
    bob.close()


def test_a_server_that_does_not_answer_is_told_from_one_that_is_not_trusted(kmip: KmipServer) -> None:
    stranger = Authority(kmip.folder, "stranger")
    for options in (
        kmip.options(ca_certificate=str(stranger.certificate)),
        kmip.options(stranger.issue("mallory", CLIENT)),
        kmip.options(server="localhost"),
    ):
        with pytest.raises(NotTrusted):
            Reader(connection(options), Mask()).locate("drives")
    hanging = Reader(connection(kmip.options(timeout=1)), Mask())
    kmip.pause()
    try:
        with pytest.raises(LinkFailed, match="did not answer within 1 seconds") as caught:
            hanging.locate("drives")
        assert not isinstance(caught.value, NotTrusted)
    finally:
        kmip.go_on()
    kmip.kill()
    with pytest.raises(LinkFailed, match="refuses the connection") as caught:
        Reader(connection(kmip.options()), Mask())
    assert not isinstance(caught.value, NotTrusted)
