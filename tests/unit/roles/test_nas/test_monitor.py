# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of QEMU's monitor, against a server that says what QEMU says."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.errors import TestNasError as NasError
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.monitor import Monitor

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}
EVENT = {"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}
DONE: dict[str, Any] = {"return": {}}


class Server:
    """Says hello, then answers each request with the next batch of messages; without one it hangs up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[dict[str, Any]] = []
        self.batches: list[list[dict[str, Any]]] = [[GREETING], [DONE]]
        self._listener = socket.socket(socket.AF_UNIX)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # the whole path is longer than a socket's may be
            self._listener.bind("/proc/self/fd/%d/%s" % (directory, path.name))
        finally:
            os.close(directory)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _address = self._listener.accept()
        with connection, connection.makefile("rwb") as stream:
            for batch in self.batches:
                stream.write(b"".join(json.dumps(message).encode() + b"\n" for message in batch))
                stream.flush()
                line = stream.readline()
                if not line:
                    return
                self.requests.append(json.loads(line))

    def close(self) -> None:
        """Let a server that nobody called go."""
        with socket.socket(socket.AF_UNIX) as last:
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            last.connect("/proc/self/fd/%d/%s" % (directory, self.path.name))
            os.close(directory)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A monitor in a directory with a very long path."""
    directory = tmp_path / ("d" * 200)
    directory.mkdir()
    made = Server(directory / "qmp.sock")
    yield made
    made.close()


def test_a_connection_begins_with_the_capabilities(server: Server) -> None:
    with Monitor(server.path, 60):
        pass
    assert server.requests == [{"execute": "qmp_capabilities"}]


def test_events_are_no_answers(server: Server) -> None:
    server.batches.append([EVENT, EVENT, {"return": {"status": "running"}}])
    with Monitor(server.path, 60) as monitor:
        assert monitor.execute("query-status") == {"status": "running"}


def test_the_human_monitor_is_asked_through_the_other(server: Server) -> None:
    server.batches.append([{"return": "Error: no snapshot\r\n"}])
    with Monitor(server.path, 60) as monitor:
        assert monitor.human("loadvm clean") == "Error: no snapshot\r\n"
    assert server.requests[1:] == [{"execute": "human-monitor-command", "arguments": {"command-line": "loadvm clean"}}]


def test_a_refusal_is_told_in_qemu_s_words(server: Server) -> None:
    server.batches.append([{"error": {"class": "GenericError", "desc": "Device is busy"}}])
    with Monitor(server.path, 60) as monitor, pytest.raises(NasError, match="QEMU refused device_del: Device is busy"):
        monitor.execute("device_del", {"id": "x"})


def test_a_monitor_that_hangs_up_is_an_error(server: Server) -> None:
    server.batches.clear()
    with pytest.raises(NasError, match="closed its monitor without an answer"):
        Monitor(server.path, 60)


def test_no_monitor_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Monitor(tmp_path / "qmp.sock", 60)
