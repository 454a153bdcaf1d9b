# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a KMIP server is, and who asks: the options that the module and the lookup share."""

from __future__ import annotations

import ssl
import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput

DEFAULT_PORT = 5696
DEFAULT_TIMEOUT = 30
TLS_VERSIONS = ("1.2", "1.3")

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_LONGEST_TIMEOUT = 600


@dataclass(frozen=True)
class Connection:
    """How to reach a server. Paths are those of the machine that connects."""

    server: str
    port: int
    certificate: str
    private_key: str | None
    private_key_passphrase: str | None = field(repr=False)
    ca_certificate: str | None
    verify_hostname: bool
    tls_version: str
    timeout: int

    @property
    def place(self) -> str:
        """The server as messages name it."""
        host = f"[{self.server}]" if ":" in self.server else self.server
        return f"{host}:{self.port}"

    @property
    def oldest_tls(self) -> ssl.TLSVersion:
        return _VERSIONS[self.tls_version]


def connection_spec() -> dict[str, t.Any]:
    """The arguments of the module that describe the connection."""
    return {
        "server": {"type": "str", "required": True},
        "port": {"type": "int", "default": DEFAULT_PORT},
        "certificate": {"type": "path", "required": True},
        "private_key": {"type": "path", "no_log": False},
        "private_key_passphrase": {"type": "str", "no_log": True},
        "ca_certificate": {"type": "path"},
        "verify_hostname": {"type": "bool", "default": True},
        "tls_version": {"type": "str", "default": TLS_VERSIONS[0], "choices": list(TLS_VERSIONS)},
        "timeout": {"type": "int", "default": DEFAULT_TIMEOUT},
    }


def parse_connection(params: t.Mapping[str, t.Any]) -> Connection:
    """The connection that options describe.

    :raises BadInput: something is missing, or out of bounds
    """
    for name in ("server", "certificate"):
        if not params.get(name):
            raise BadInput(
                f"No {name} is given for the KMIP server.",
                hint="A server is reached with server, certificate and mostly ca_certificate.",
            )
    port, timeout = params["port"], params["timeout"]
    if not 0 < port < 65536:
        raise BadInput(f"port is {port}; wanted is a number from 1 to 65535.")
    if not 0 < timeout <= _LONGEST_TIMEOUT:
        raise BadInput(f"timeout is {timeout}; wanted is a number of seconds from 1 to {_LONGEST_TIMEOUT}.")
    if params["tls_version"] not in TLS_VERSIONS:
        raise BadInput(f"tls_version is '{params['tls_version']}'; it is one of {', '.join(TLS_VERSIONS)}.")
    return Connection(**{name: params[name] for name in connection_spec()})
