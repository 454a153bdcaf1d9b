# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server of the network block device, asked as the kernel asks."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.geli import nbd, nbd_server

if t.TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(number % 251 for number in range(1 << 16))
READ, WRITE, DISCONNECT, FLUSH, TRIM = range(5)


class Content:
    """Bytes in memory, a part of which can't be read."""

    size = len(DATA)

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad

    def read(self, offset: int, length: int) -> bytes:
        if offset <= self.bad < offset + length:
            raise StorageError("The disk ended.")
        return DATA[offset : offset + length]


class Client:
    """The kernel's end."""

    def __init__(self, content: Content) -> None:
        self.link, server = socket.socketpair()
        self.link.settimeout(20)
        self.thread = threading.Thread(target=self.run, args=(server, content))
        self.thread.start()

    @staticmethod
    def run(server: socket.socket, content: Content) -> None:
        with server:
            nbd_server.serve(server, content)

    def send(self, kind: int, offset: int, length: int, data: bytes = b"", magic: int = 0x25609513) -> None:
        self.link.sendall(struct.pack(">II8sQI", magic, kind, b"handle-1", offset, length) + data)

    def ask(self, kind: int, offset: int, length: int, data: bytes = b"") -> tuple[int, bytes]:
        self.send(kind, offset, length, data)
        magic, error, handle = struct.unpack(">II8s", self.receive(16))
        assert (magic, handle) == (0x67446698, b"handle-1")
        return error, self.receive(length) if kind & 0xFFFF == READ and not error else b""

    def receive(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            part = self.link.recv(length - len(found))
            assert part, "the server is gone"
            found += part
        return found

    def ended(self) -> bool:
        """Whether the server closes its end, and its thread ends."""
        gone = self.link.recv(1) == b""
        self.thread.join(20)
        return gone and not self.thread.is_alive()


@pytest.fixture
def client() -> t.Iterator[Client]:
    found = Client(Content(bad=60000))
    yield found
    found.link.close()
    found.thread.join(20)


def test_reads(client: Client) -> None:
    assert client.ask(READ, 0, 4096) == (0, DATA[:4096])
    # Flags, such as that the caches are to be passed by, are in the upper half.
    assert client.ask(READ | 1 << 16, 512, 512) == (0, DATA[512:1024])
    assert client.ask(FLUSH, 0, 0) == (0, b"")


def test_nothing_is_ever_written(client: Client) -> None:
    assert client.ask(WRITE, 0, 512, bytes(512)) == (errno.EPERM, b"")
    assert client.ask(TRIM, 0, 512) == (errno.EINVAL, b"")
    assert client.ask(READ, 0, 512) == (0, DATA[:512])


def test_a_place_that_can_not_be_read_is_an_error_of_that_place_alone(client: Client) -> None:
    assert client.ask(READ, 59904, 512) == (errno.EIO, b"")
    assert client.ask(READ, 61440, 512) == (0, DATA[61440:61952])


@pytest.mark.parametrize("offset,length", [(len(DATA), 512), (len(DATA) - 512, 1024), (0, 1 << 31), (1 << 60, 512)])
def test_beyond_the_end(client: Client, offset: int, length: int) -> None:
    assert client.ask(READ, offset, length) == (errno.EINVAL, b"")
    assert client.ask(READ, 0, 512)[0] == 0


def test_it_ends_when_it_is_told(client: Client) -> None:
    client.send(DISCONNECT, 0, 0)
    assert client.ended()


def test_it_ends_at_what_it_does_not_understand(client: Client) -> None:
    client.send(READ, 0, 512, magic=1)
    assert client.ended()


def test_it_ends_when_the_kernel_is_gone(client: Client) -> None:
    client.send(WRITE, 0, 512, bytes(100))
    client.link.shutdown(socket.SHUT_WR)
    assert client.ended()


def made(folder: Path, *connected: str) -> str:
    for name in ("nbd10", "nbd2", "nbd0", "nbd0p1", "sda"):
        (folder / name).mkdir()
    for name in connected:
        (folder / name / "pid").write_text("17")
    return str(folder)


def test_the_first_free_device(tmp_path: Path) -> None:
    assert nbd.find_free(made(tmp_path, "nbd0")) == "nbd2"


def test_no_free_device(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="All 3 devices of nbd are in use"):
        nbd.find_free(made(tmp_path, "nbd0", "nbd2", "nbd10"))
