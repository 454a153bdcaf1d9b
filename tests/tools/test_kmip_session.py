# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to a real KMIP server over TLS, and all the ways in which there is none."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import socket
import ssl
import sys
import threading
import typing as t
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.fetch import fetch
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.library import load
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.link import LinkFailed
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.read import objects_named
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.session import Session
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.certificates import (
    CLIENT,
    SERVER,
    Authority,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import (
    HOST,
    KmipServer,
    Options,
    connection,
    free_port,
)

TEXT = "0a" * 32


def session(options: Options) -> Session:
    return Session(connection(options), Mask())


def error(options: Options) -> str:
    """Why there is no connection, or why the first request over it fails."""
    with pytest.raises(StorageError) as caught:
        session(options).locate("tank")
    return str(caught.value)


def test_certificates_on_both_sides_are_looked_at(kmip: KmipServer, tmp_path: Path) -> None:
    """Each of the ways in which one side does not trust the other, and the ones in which it does."""
    stranger = Authority(tmp_path, "stranger")
    locked = kmip.authority.issue("locked", CLIENT, passphrase=b"open it please")
    assert session(kmip.options()).locate("tank") == ()
    assert session(kmip.options(locked, private_key_passphrase="open it please")).locate("tank") == ()
    both = tmp_path / "both.pem"
    both.write_bytes(kmip.alice.certificate.read_bytes() + kmip.alice.key.read_bytes())
    assert session(kmip.options(certificate=str(both), private_key=None)).locate("tank") == ()

    expected = [
        (
            kmip.options(ca_certificate=str(stranger.certificate)),
            "is not trusted: its certificate authority is not the one in ca_certificate",
        ),
        (kmip.options(ca_certificate=None), "is not trusted: its certificate authority is not the one"),
        (kmip.options(server="localhost"), "is not trusted: it was issued for another host name"),
        (kmip.options(stranger.issue("mallory", CLIENT)), "refused the certificate of the client"),
        (kmip.options(kmip.authority.issue("old", CLIENT, expired=True)), "refused the certificate of the client"),
        (kmip.options(kmip.authority.issue("web", SERVER)), "refused the certificate of the client"),
        (
            kmip.options(kmip.authority.issue("any", None)),
            "does not allow client authentication (its extended key usage)",
        ),
        (kmip.options(tls_version="1.3"), "The server has to speak TLS 1.3 or later"),
        (kmip.options(locked), "encrypted, and no private_key_passphrase is given"),
        (kmip.options(locked, private_key_passphrase="guessed wrongly"), "can't be used"),
        (kmip.options(private_key=str(kmip.bob.key)), "can't be used: key values mismatch"),
        (
            kmip.options(private_key="/nowhere/client.key"),
            "private_key /nowhere/client.key can't be read: No such file",
        ),
        (kmip.options(ca_certificate=str(kmip.alice.key)), "holds no certificate in PEM"),
    ]
    found = [(error(options), words) for options, words in expected]
    assert [message for message, words in found if words not in message] == []
    assert session(kmip.options(server="localhost", verify_hostname=False)).locate("tank") == ()


def test_keys_outlive_a_restart_and_a_server_that_stops_is_noticed(kmip: KmipServer) -> None:
    first = session(kmip.options())
    uid = first.register("tank", TEXT)
    first.activate(uid)
    kmip.kill()
    with pytest.raises(StorageError) as caught:
        first.locate("tank")
    assert any(words in str(caught.value) for words in ("closed the connection", "broke"))
    with pytest.raises(StorageError, match="Not attempted, since the connection is lost"):
        first.locate("tank")
    assert "refuses the connection: nothing listens on that port" in error(kmip.options())
    with pytest.raises(LinkFailed, match="refuses the connection"):
        first.mend()
    kmip.start()
    first.mend()
    assert first.locate("tank") == (uid,)
    assert fetch(session(kmip.options()), ["tank"], "name", False) == {"tank": TEXT}


def test_a_server_that_stops_answering_is_not_waited_for_without_end(kmip: KmipServer) -> None:
    hanging = session(kmip.options(timeout=1))
    kmip.pause()
    try:
        with pytest.raises(StorageError, match="did not answer within 1 seconds.*Run the task again"):
            hanging.locate("tank")
        assert "did not finish the TLS handshake within 1 seconds" in error(kmip.options(timeout=1))
    finally:
        kmip.go_on()


def test_what_other_clients_have_stored_is_neither_seen_nor_touched(kmip: KmipServer) -> None:
    alice, bob = session(kmip.options()), session(kmip.options(kmip.bob))
    uid = alice.register("tank", TEXT)
    assert alice.locate("tank") == (uid,)
    assert bob.locate("tank") == ()
    requests: list[t.Callable[[], object]] = [
        lambda: bob.describe(uid),
        lambda: bob.activate(uid),
        lambda: bob.revoke(uid),
        lambda: bob.destroy(uid),
    ]
    for request in requests:
        with pytest.raises(StorageError, match=r"refused to .*permission denied.*of the client that stored it"):
            request()
    assert "There is no key 'tank'" in failed_fetch(bob, "tank")
    assert alice.describe(uid) is not None


def test_states_kinds_and_names_are_those_of_the_server(kmip: KmipServer) -> None:
    alice, library = session(kmip.options()), load()
    enums, objects = library.enums, library.objects
    masks = [enums.CryptographicUsageMask.ENCRYPT]
    aes = objects.SymmetricKey(enums.CryptographicAlgorithm.AES, 256, bytes(range(32)), masks, name="tank/aes")
    old = objects.SecretData(TEXT.encode(), enums.SecretDataType.PASSWORD, name="tank/media-1a2b3c4")
    other = objects.SecretData(TEXT.encode(), enums.SecretDataType.PASSWORD, name="tank/media-other-1a2b3c4")
    with raw_client(kmip) as client:
        uids = [client.register(one) for one in (aes, old, other)]
        for uid in uids:
            client.activate(uid)
    assert fetch(alice, ["tank/aes"], "name", False) == {"tank/aes": bytes(range(32)).hex()}
    assert fetch(alice, uids[:1], "uid", False) == {uids[0]: bytes(range(32)).hex()}
    assert fetch(alice, ["tank/media"], "truenas", False) == {"tank/media": TEXT}
    row = objects_named(alice, "tank/aes")[0]
    assert (row.kind, row.algorithm, row.length, row.state) == ("symmetric_key", "AES", 256, "active")

    name = "tank/Büro 100% 日本"
    uid = alice.register(name, "schlüssel wort")
    assert "is pre-active, not active" in failed_fetch(alice, name)
    assert fetch(alice, [name], "name", True) == {name: "schlüssel wort"}
    stored = objects_named(alice, name)[0]
    assert (stored.uid, stored.names, stored.state, stored.length) == (uid, (name,), "pre_active", None)
    alice.rename(stored, name, "tank/renamed")
    assert (alice.locate(name), alice.locate("tank/renamed")) == ((), (uid,))
    with pytest.raises(StorageError, match="illegal operation.*not active"):
        alice.revoke(uid)
    alice.activate(uid)
    with pytest.raises(StorageError, match="Object is active and cannot be destroyed"):
        alice.destroy(uid)
    alice.revoke(uid)
    assert "is deactivated, not active" in failed_fetch(alice, "tank/renamed")
    alice.destroy(uid)
    assert alice.describe(uid) is None
    with pytest.raises(StorageError, match=f"refused to destroy '{uid}'.*Nothing has this uid"):
        alice.destroy(uid)
    assert "There is no key '99'" in failed_fetch(alice, "99", "uid")


def test_an_answer_that_the_library_can_not_read_is_the_fault_of_that_request_only(
    kmip: KmipServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = session(kmip.options())
    uid = alice.register("tank", TEXT)
    stream = load().streams
    good: list[t.Any] = [lambda data: stream(data.replace(b"tank", b"t\xc3\xa4k"))]
    monkeypatch.setattr(alice._wire, "_stream", lambda data: good.pop()(data) if good else stream(data))
    with pytest.raises(StorageError, match=r"its answer can't be understood \(UnicodeDecodeError\)") as caught:
        alice.describe(uid)
    assert not isinstance(caught.value, LinkFailed) and caught.value.__suppress_context__
    # A refusal without words: the tag of the words is one that the library does not look for.
    good[:] = [lambda data: stream(data.replace(b"\x42\x00\x7d", b"\x42\x00\x7c"))]
    with pytest.raises(StorageError, match="99") as caught:
        alice.activate("99")
    assert not isinstance(caught.value, LinkFailed)
    assert objects_named(alice, "tank")[0].uid == uid

    # Names are known by the numbers that the server gives them.
    one = objects_named(alice, "tank")[0]
    assert (one.names, one.indexes) == (("tank",), (0,))
    with pytest.raises(StorageError):
        alice.rename(replace(one, indexes=(3,)), "tank", "pool")
    alice.rename(one, "tank", "pool")
    assert alice.locate("pool") == (uid,)


def failed_fetch(server: Session, term: str, by: str = "name") -> str:
    with pytest.raises(StorageError) as caught:
        fetch(server, [term], by, False)
    return str(caught.value)


@contextlib.contextmanager
def raw_client(kmip: KmipServer) -> t.Iterator[t.Any]:
    """The library's own client, which stores what ours does not."""
    client = load().client(
        hostname=HOST,
        port=kmip.port,
        cert=str(kmip.alice.certificate),
        key=str(kmip.alice.key),
        ca=str(kmip.authority.certificate),
    )
    with client:
        yield client


# What needs no server


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Options with good certificates, and a port on which nothing listens."""
    authority = Authority(tmp_path, "authority")
    client = authority.issue("alice", CLIENT)
    return {
        "server": HOST,
        "port": free_port(),
        "certificate": str(client.certificate),
        "private_key": str(client.key),
        "ca_certificate": str(authority.certificate),
        "timeout": 1,
    }


def test_a_host_that_drops_packets_is_given_up_after_the_timeout(options: Options) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        # Nobody takes these connections, so the queue is full, and the system drops what else comes.
        for _place in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        assert "did not answer within 1 seconds" in error({**options, "port": listener.getsockname()[1]})


@pytest.mark.parametrize(
    "failure,message",
    [
        (OSError(errno.EHOSTUNREACH, "No route to host"), "can't be reached: No route to host"),
        (socket.gaierror(-2, "Name or service not known"), "can't be resolved: Name or service not known"),
    ],
)
def test_a_network_without_a_way_there(
    options: Options, monkeypatch: pytest.MonkeyPatch, failure: OSError, message: str
) -> None:
    def fail(*_arguments: object, **_more: object) -> t.NoReturn:
        raise failure

    if isinstance(failure, socket.gaierror):
        monkeypatch.setattr(socket, "getaddrinfo", fail)
    else:
        monkeypatch.setattr(socket.socket, "connect", fail)
    assert message in error(options)


def test_a_name_server_that_hangs_is_given_up_after_the_timeout(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_all, **_more: end.wait(60))
    try:
        assert "was not resolved within 1 seconds" in error(options)
    finally:
        end.set()


def test_all_addresses_of_a_server_share_one_timeout(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def connect(plain: socket.socket, _address: object) -> None:
        waits.append(plain.gettimeout() or 0.0)
        raise socket.timeout

    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", (HOST, 1))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_all, **_more: [address] * 4)
    monkeypatch.setattr(socket.socket, "connect", connect)
    assert "did not answer within 1 seconds" in error(options)
    assert len(waits) == 4 and 0 < waits[0] <= 0.25 and waits[-1] <= 1.0


def test_a_library_that_is_too_old_is_named(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _name: "0.10.0")
    assert "PyKMIP 0.10.0 is too old; wanted is 0.11 or later" in error(options)


@pytest.mark.parametrize(
    "answer,message",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no KMIP message: its length would be"),
        (b"\x42\x00\x7b\x01\x00\x00\x00\x08abcdefgh", "its answer can't be understood"),
        (b"\x42\x00\x7b\x01", "closed the connection instead of answering"),
    ],
)
def test_another_service_on_that_port(tmp_path: Path, answer: bytes, message: str) -> None:
    authority = Authority(tmp_path, "authority")
    own, client = authority.issue("server", SERVER, (HOST,)), authority.issue("alice", CLIENT)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certificate, own.key)
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(60)

        def serve() -> None:
            with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as channel:
                channel.recv(4096)
                channel.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            found = error(
                {
                    "server": HOST,
                    "port": listener.getsockname()[1],
                    "certificate": str(client.certificate),
                    "private_key": str(client.key),
                    "ca_certificate": str(authority.certificate),
                }
            )
        finally:
            thread.join(60)
    assert message in found


@pytest.mark.parametrize(
    "more,message",
    [
        ({"server": ""}, "No server is given"),
        ({"certificate": None}, "No certificate is given"),
        ({"server": "a..b"}, "'a..b' is neither the name of a host nor an IP address"),
        ({"port": 70000}, "port is 70000"),
        ({"timeout": 0}, "timeout is 0"),
        ({"tls_version": "1.0"}, "tls_version is '1.0'; it is one of 1.2, 1.3"),
    ],
)
def test_options_that_can_not_be(options: Options, more: Options, message: str) -> None:
    assert message in error({**options, **more})


def test_without_the_library_the_error_names_it(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "kmip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kmip", t.cast(t.Any, None))
    assert "Failed to import the required Python library (PyKMIP)" in error(options)


def test_the_library_logs_nowhere_and_reads_no_settings_of_the_machine(
    kmip: KmipServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    helper = importlib.import_module("kmip.core.config_helper")
    settings = tmp_path / "pykmip.conf"
    settings.write_text("[client]\nusername=somebody\npassword=else\n")
    helper.CONFIG_FILE[:] = [str(settings)]
    alice = session(kmip.options())
    alice.register("tank", TEXT)
    assert alice.fetch(objects_named(alice, "tank")[0]) == TEXT
    assert [record.name for record in caplog.records if record.name.startswith("kmip")] == []
    assert TEXT not in kmip.said() and TEXT.encode().hex() not in kmip.said()
