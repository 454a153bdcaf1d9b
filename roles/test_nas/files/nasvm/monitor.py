# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client for QEMU's monitor (QMP over a Unix socket)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import TestNasError


class Monitor:
    """One connection; QEMU serves one at a time, a second one waits. ``timeout`` is in seconds for each answer."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # through the directory's descriptor, since the whole path may be longer than a socket's may be
            self._socket.connect("/proc/self/fd/%d/%s" % (directory, path.name))
            self._stream = self._socket.makefile("rb")
            self._receive()
            self.execute("qmp_capabilities")
        except (OSError, TestNasError):
            self._socket.close()
            raise
        finally:
            os.close(directory)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()

    def _receive(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise TestNasError("QEMU closed its monitor without an answer")
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The answer to one command. Raises TestNasError with QEMU's words if it refuses."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = dict(arguments)
        self._socket.sendall(json.dumps(request).encode("utf-8") + b"\n")
        while True:
            message = self._receive()
            if "error" in message:
                raise TestNasError("QEMU refused %s: %s" % (command, message["error"].get("desc", message["error"])))
            if "return" in message:
                return message["return"]

    def human(self, command: str) -> str:
        """The answer to a command of the human monitor, which knows internal snapshots of the whole machine."""
        return str(self.execute("human-monitor-command", {"command-line": command}))
