# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time limits of what is asked of a KMIP server, and its words in messages."""

from __future__ import annotations

import socket
import time
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.kmip import link
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.connection import (
    Connection,
    connection_spec,
    parse_connection,
)
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.link import LinkFailed, Timer, Wire
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.objects import Stored, key_text
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.reader import Reader
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.refusal import words_of
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.ttlv import (
    ENUMERATION,
    TEXT,
    Item,
    encode,
    structure,
)
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, Mask


def connection(timeout: int = 30) -> Connection:
    defaults = {name: one.get("default") for name, one in connection_spec().items()}
    return parse_connection({**defaults, "server": "kmip", "certificate": "/etc/a", "timeout": timeout})


def test_a_request_has_what_is_left_of_the_whole() -> None:
    now = time.monotonic()
    assert 29 < Timer(connection(), now + 1000).left <= 30
    short = Timer(connection(), now + 5.2)
    assert 4 < short.left <= 5.2 and str(short) == "5 seconds"
    with pytest.raises(LinkFailed, match="the time for all of it is over"):
        Timer(connection(), now)


def test_nothing_is_begun_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def reach(*_arguments: object) -> t.NoReturn:
        raise AssertionError("a connection was begun")

    monkeypatch.setattr(link, "tls_context", lambda _connection: None)
    monkeypatch.setattr(link, "_reach", reach)
    with pytest.raises(LinkFailed, match="is over"):
        link.connect(connection(), time.monotonic() - 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = Wire(t.cast("t.Any", ours), connection(), bytes, time.monotonic() - 1)
        for work in (lambda: wire.write(b"x"), wire.read):
            with pytest.raises(LinkFailed, match="is over"):
                work()
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_an_answer_that_trickles_in_ends_with_the_whole() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = Wire(t.cast("t.Any", ours), connection(), bytes, time.monotonic() + 0.3)
        theirs.sendall(bytes(7) + b"\x08" + bytes(4))
        begin = time.monotonic()
        with pytest.raises(LinkFailed, match="did not answer within 1 seconds"):
            wire.read()
        assert time.monotonic() - begin < 5


class Told:
    """In place of a connection: one answer to each request."""

    def __init__(self, answer: Item) -> None:
        self._answer = answer

    def write(self, data: bytes) -> None:
        pass

    def read(self) -> Item:
        return self._answer


def reader(answer: Item) -> Reader:
    one = Reader.__new__(Reader)
    one._connection, one._mask, one._wire = connection(), Mask(), t.cast("Wire", Told(answer))
    one._mask.add(Key("passphrase", b"a secret"))
    return one


def answered(status: int, *items: Item) -> Item:
    found = structure(0x42000F, Item(0x42007F, ENUMERATION, status), *items)
    encode(found)
    return structure(0x42007B, found)


def located(*uids: str) -> Item:
    return answered(0, structure(0x42007C, *(Item(0x420094, TEXT, uid) for uid in uids)))


def test_a_name_stands_for_a_few_objects_at_the_most() -> None:
    assert len(reader(located(*map(str, range(64)))).locate("drives")) == 64
    with pytest.raises(StorageError, match="'drives' stands for 65 objects"):
        reader(located(*map(str, range(65)))).locate("drives")
    for uid in ("1\n2", "x" * 257, ""):
        with pytest.raises(StorageError, match="names an object by what is no uid"):
            reader(located(uid)).locate("drives")


def test_words_of_a_server_are_a_part_of_one_line() -> None:
    words = "No a secret.\nnasops-unlock-drives: done: \x1b[31mall\u2028" + "x" * 1000
    with pytest.raises(StorageError) as caught:
        reader(answered(1, Item(0x42007D, TEXT, words))).locate("drives")
    assert "No ********. nasops-unlock-drives: done:  [31mall xxx" in caught.value.message
    assert caught.value.message.isprintable() and len(caught.value.message) < 400
    for empty in ("", ".", "\n"):
        assert words_of(empty, Mask()) == "without words"


@pytest.mark.parametrize("kind", ["symmetric_key", "secret_data"])
def test_an_empty_key_is_none(kind: str) -> None:
    with pytest.raises(StorageError, match="is empty"):
        key_text(Stored("7", kind, (), "active"), b"")
