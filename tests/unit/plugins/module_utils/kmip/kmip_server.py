# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PyKMIP's own server as a process of its own, over TLS on 127.0.0.1, with all that lasts below one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.kmip.connection import (
    Connection,
    connection_spec,
    parse_connection,
)
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.session import Session
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.certificates import (
    CLIENT,
    SERVER,
    Authority,
    Pair,
)

HOST = "127.0.0.1"

_CONFIGURATION = """\
[server]
hostname={host}
port={port}
certificate_path={certificate}
key_path={key}
ca_path={ca}
auth_suite=TLS1.2
policy_path={policies}
enable_tls_client_auth=True
logging_level=INFO
database_path={database}
"""

_PROGRAM = "from kmip.services.server.server import main; main()"

# A machine that builds other things meanwhile takes its time; one that takes longer is stuck.
_PATIENCE = 120.0
_ATTEMPTS = 5

Options = dict[str, t.Any]


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def connection(options: Options) -> Connection:
    """A connection with these options, and the defaults of all others."""
    defaults = {name: one.get("default") for name, one in connection_spec().items()}
    return parse_connection({**defaults, **options})


class KmipServer:
    """A server with a certificate authority of its own, and two clients. Its keys outlive a restart."""

    def __init__(self, folder: Path, hosts: t.Sequence[str] = (HOST,)) -> None:
        """:param hosts: by what names and addresses clients may reach it"""
        self.folder = folder
        folder.mkdir()
        (folder / "policies").mkdir()
        self.authority = Authority(folder, "authority")
        self.alice = self.authority.issue("alice", CLIENT)
        self.bob = self.authority.issue("bob", CLIENT)
        self.log = folder / "server.log"
        self.port = 0
        self._identity = self.authority.issue("server", SERVER, hosts)
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets = ""

    def options(self, client: Pair | None = None, **more: t.Any) -> Options:
        """The options of a connection as this client, alice when not given."""
        pair = self.alice if client is None else client
        return {
            "server": HOST,
            "port": self.port,
            "certificate": str(pair.certificate),
            "private_key": str(pair.key),
            "ca_certificate": str(self.authority.certificate),
            **more,
        }

    def session(self, **more: t.Any) -> Session:
        """A session of alice."""
        return Session(connection(self.options(**more)), Mask())

    def start(self) -> None:
        """Start, on the former port if there was one, and wait until it takes connections."""
        ports = [self.port] * _ATTEMPTS if self.port else [free_port() for _attempt in range(_ATTEMPTS)]
        for port in ports:
            self._launch(port)
            if self._is_up():
                return
            self.kill()
        raise AssertionError(f"the KMIP server did not start:\n{self.said()}")

    def kill(self) -> None:
        """What a power failure does to it and its helpers."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_PATIENCE)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def runs(self) -> bool:
        return self._process is not None

    def pause(self) -> None:
        """It answers nothing any more, and refuses nothing either."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def said(self) -> str:
        """What it printed and logged."""
        paths = (self.folder / "output.txt", self.log)
        return "\n".join(path.read_text(errors="replace") for path in paths if path.exists())

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise AssertionError("the server does not run")
        os.killpg(self._process.pid, number)

    def _launch(self, port: int) -> None:
        self.port = port
        configuration = self.folder / "server.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                host=HOST,
                port=port,
                certificate=self._identity.certificate,
                key=self._identity.key,
                ca=self.authority.certificate,
                policies=self.folder / "policies",
                database=self.folder / "keys.db",
            )
        )
        # Its processes talk through sockets in TMPDIR, whose paths must not be long.
        self._sockets = tempfile.mkdtemp(prefix="kmip-")
        # The test's own PYTHONPATH would make it look for its parts in places of ansible-test.
        environment = {**os.environ, "TMPDIR": self._sockets, "HOME": str(self.folder)}
        environment.pop("PYTHONPATH", None)
        with (self.folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, "-f", str(configuration), "-l", str(self.log)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def _is_up(self) -> bool:
        """Wait until a client gets through the handshake; False if the server ended."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(self.alice.certificate, self.alice.key)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1.0) as plain:
                plain.settimeout(_PATIENCE)
                with context.wrap_socket(plain, server_hostname=HOST):
                    return True
            time.sleep(0.05)
        return False
