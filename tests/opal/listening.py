# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A socket that is listened to in the background, with a thread for each connection."""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t


class Closed(Exception):
    """The other end closed the connection."""


class Listening:
    """Connections to a listening socket are served until :meth:`close`."""

    def __init__(self, listener: socket.socket, serve: t.Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._serve = serve
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()


def receive(connection: socket.socket, length: int) -> bytes:
    """Exactly so many bytes.

    :raises Closed: the other end is gone before
    """
    gathered = bytearray()
    while len(gathered) < length:
        part = connection.recv(length - len(gathered))
        if not part:
            raise Closed
        gathered += part
    return bytes(gathered)
