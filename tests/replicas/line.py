# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line between two NAS: passes on what it gets until it has carried as much as it was told to.

Then it breaks, or it swallows all there is without a word, as a firewall does that has forgotten a connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading


class Line:
    """Listens on a port of this machine, and connects whoever comes with another port of it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._left: int | None = None
        self._silent = False
        self._over = threading.Event()
        self.carried = 0
        self.cuts = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def arm(self, count: int, silent: bool = False) -> None:
        """Break after so many bytes to the target; ``silent``: swallow everything from then on instead."""
        with self._lock:
            self._left, self.carried, self._silent = count, 0, silent
            self._over.clear()

    def disarm(self) -> bool:
        """Break no more; tells whether it broke."""
        with self._lock:
            broke = self._left is not None and self._left <= 0
            self._left = None
            self._over.set()
            return broke

    def close(self) -> None:
        """Take the line away."""
        self._server.close()
        self._over.set()
        self._cut()

    def _serve(self) -> None:
        while True:
            try:
                near, _address = self._server.accept()
            except OSError:
                return
            with self._lock:
                broken = self._left is not None and self._left <= 0
            if broken:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open += [near, far]
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._may_pass(len(data) if counted else 0):
                    if self._silent:
                        # Neither end hears of the other, nor of its end.
                        self._over.wait()
                    self._cut()
                    return
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _may_pass(self, count: int) -> bool:
        with self._lock:
            if self._left is None:
                return True
            if count:
                self._left -= count
                self.carried += count
            return self._left > 0 or not (count or self._silent)

    def _cut(self) -> None:
        with self._lock:
            self.cuts += 1
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
