# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that hangs, breaks off or is away is asked for as long as it was said, and no longer."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.connection import (
    Connection,
    connection_spec,
    parse_connection,
)
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.link import LinkFailed, NotTrusted
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.objects import Held, Stored
from ansible_collections.nasops.encryption.plugins.module_utils.sed import boot_keys
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_options import Kmip

_TIMEOUT = 10


class Server:
    """A server with a clock of its own. What it has may be a text, or an error that comes after some seconds."""

    def __init__(self, objects: t.Mapping[str, str | tuple[float, StorageError]]) -> None:
        self.objects = dict(objects)
        self.now = 1000.0
        self.asked: list[str] = []
        # From when on it takes connections.
        self.up = 0.0
        self.place = "kmip:5696"
        self._deadline = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def connect(self, _connection: Connection, _mask: object, deadline: float) -> Server:
        self._deadline = deadline
        if self.now >= deadline:
            raise LinkFailed("too slow.")
        if self.now < self.up:
            raise LinkFailed("refuses the connection.")
        return self

    def close(self) -> None:
        pass

    def fetch(self, _server: object, term: str, _by: str) -> Held:
        self.asked.append(term)
        if self.now >= self._deadline:
            raise LinkFailed("too slow.")
        found = self.objects[term]
        if isinstance(found, str):
            self.now += 1.0
            return Held(Stored(f"uid of {term}", "secret_data", (term,), "active"), found)
        self.now = min(self.now + found[0], self._deadline)
        raise found[1]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., boot_keys.Fetched]:
    def run(server: Server, wait: int, patient: bool = True, said: list[str] | None = None) -> boot_keys.Fetched:
        monkeypatch.setattr(boot_keys, "time", server)
        monkeypatch.setattr(boot_keys, "Reader", server.connect)
        monkeypatch.setattr(boot_keys, "fetch_one", server.fetch)
        monkeypatch.setattr(boot_keys, "check_files", lambda _connection: None)
        defaults = {name: one.get("default") for name, one in connection_spec().items()}
        given = {**defaults, "server": "kmip", "certificate": "/etc/a", "timeout": _TIMEOUT}
        kmip = Kmip(parse_connection(given), "name", {f"drive {term}": term for term in server.objects}, wait)
        begin = server.now
        lines = [] if said is None else said
        done = boot_keys.collect(kmip, kmip.objects, "raw", lines.append, patient)
        assert server.now - begin <= kmip.limit == wait + 2 * _TIMEOUT
        assert set(done.passwords) | set(done.faults) == set(kmip.objects)
        return done

    return run


Play = t.Callable[..., boot_keys.Fetched]


def test_one_object_at_which_the_server_hangs_holds_up_none_behind_it(play: Play) -> None:
    server = Server({"a": (_TIMEOUT, LinkFailed("did not answer.")), "b": "of b", "c": "of c"})
    for wait, patient in ((0, True), (120, False)):
        server.asked.clear()
        done = play(server, wait, patient)
        assert server.asked == ["a", "b", "c"]
        assert {device: one.text for device, one in done.passwords.items()} == {"drive b": "of b", "drive c": "of c"}
        assert str(done.faults["drive a"]) == "did not answer."
    server.asked.clear()
    said: list[str] = []
    done = play(server, 60, said=said)
    assert server.asked[:3] == ["a", "b", "c"] and set(server.asked[3:]) == {"a"} and len(server.asked) > 5
    assert sorted(done.passwords) == ["drive b", "drive c"] and len(said) == 1
    # It breaks the connection off only the first time.
    server.objects["a"] = "of a"
    assert len(play(server, 0).passwords) == 3


def test_all_of_it_ends_in_time_whatever_the_server_does(play: Play) -> None:
    slow = Server({str(number): (_TIMEOUT, LinkFailed("did not answer.")) for number in range(20)})
    for wait in (0, 30):
        done = play(slow, wait)
        assert not done.passwords and "too slow" in {str(one)[:8] for one in done.faults.values()}
    # Each answer comes in time, all of them together do not.
    many = Server({str(number): "words" for number in range(100)})
    done = play(many, 30)
    assert len(done.passwords) == 50 and {str(one) for one in done.faults.values()} == {"too slow."}


def test_one_that_comes_late_is_waited_for_unless_that_is_not_wanted(play: Play) -> None:
    server = Server({"a": "of a"})
    server.up = server.now + 50
    assert not play(server, 120, patient=False).passwords
    assert server.now == 1000.0
    assert not play(server, 40).passwords
    assert play(server, 120).passwords


def test_what_waiting_does_not_mend_is_told_at_once(play: Play) -> None:
    server = Server({"a": "of a", "b": (0.0, NotTrusted("refused the certificate.")), "c": "of c"})
    done = play(server, 120)
    assert server.asked == ["a", "b"] and list(done.passwords) == ["drive a"]
    assert {str(one) for one in done.faults.values()} == {"refused the certificate."}
