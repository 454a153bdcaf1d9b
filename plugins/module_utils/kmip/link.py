# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to a KMIP server: TLS with certificates on both sides, and messages that arrive whole and in time."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import typing as t

from ..errors import BadInput, StorageError
from .connection import Connection

# Far more than a key and its attributes; a server that announces more has lost its way.
_LONGEST_MESSAGE = 4 * 1024 * 1024
_HEADER = 8

# No end but those that each request has by itself.
FOREVER = float("inf")
# Seconds; 0 would mean not to wait at all, which is another kind of error.
_INSTANT = 0.001

# What OpenSSL found wrong with the certificate of the server (X509_V_ERR_*).
_VERDICTS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed and not in ca_certificate",
    19: "its certificate authority is not the one in ca_certificate",
    20: "its certificate authority is not the one in ca_certificate",
    21: "its certificate authority is not the one in ca_certificate",
    62: "it was issued for another host name",
    64: "it was issued for another IP address",
}
_OTHER_NAME = (62, 64)
_NOT_YET = 9


class LinkFailed(StorageError):
    """The server can't be reached, or the connection broke: whether the last request was carried out is not known."""


class NotTrusted(LinkFailed):
    """One side does not take the certificate of the other, which waiting does not mend."""


class Timer:
    """The time of one request or handshake: that of the connection, or what is left of an attempt if that is less."""

    def __init__(self, connection: Connection, deadline: float) -> None:
        """
        :raises LinkFailed: nothing is left
        """
        now = time.monotonic()
        if now >= deadline:
            raise LinkFailed(f"The KMIP server {connection.place} answered too slowly: the time for all of it is over.")
        self._end = min(now + connection.timeout, deadline)
        self._seconds = max(1, round(self._end - now))

    @property
    def left(self) -> float:
        """Seconds; 0 or less when it is over."""
        return self._end - time.monotonic()

    def __str__(self) -> str:
        return f"{self._seconds} seconds"


def connect(connection: Connection, deadline: float = FOREVER) -> ssl.SSLSocket:
    """A TLS connection on which both sides have shown their certificates.

    :param deadline: when it is to stand, by the clock that nobody sets
    :raises BadInput: a certificate or key file is missing or no good
    :raises LinkFailed: no connection; the message tells which of the many reasons it was
    """
    context = tls_context(connection)
    place = connection.place
    timer = Timer(connection, deadline)
    try:
        plain = _reach(connection, timer)
    except socket.gaierror as error:
        raise LinkFailed(
            f"The name of the KMIP server {place} can't be resolved: {error.strerror or error}.",
            hint="Is it spelled right, and does this machine reach its name server?",
        ) from None
    except ConnectionRefusedError:
        raise LinkFailed(
            f"The KMIP server {place} refuses the connection: nothing listens on that port.",
            hint="Is the service started, and is this the right port?",
        ) from None
    except socket.timeout:
        raise LinkFailed(
            f"The KMIP server {place} did not answer within {timer}.",
            hint="Is the host up, and does a firewall drop the packets?",
        ) from None
    except ValueError:
        raise BadInput(f"'{connection.server}' is neither the name of a host nor an IP address.") from None
    except OSError as error:
        raise LinkFailed(f"The KMIP server {place} can't be reached: {error.strerror or error}.") from None
    try:
        channel = context.wrap_socket(plain, server_hostname=connection.server, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:
        plain.close()
        raise LinkFailed(f"TLS with the KMIP server {place} can't begin: {error}.") from None
    try:
        timer = Timer(connection, deadline)
        channel.settimeout(max(_INSTANT, timer.left))
        channel.do_handshake()
    except LinkFailed:
        channel.close()
        raise
    except (OSError, ValueError) as error:
        channel.close()
        raise _handshake_failed(error, connection, timer) from None
    return channel


def _reach(connection: Connection, timer: Timer) -> socket.socket:
    """A connection to the first address of the server that takes one; all of them together have one time limit."""
    addresses = _resolve(connection, timer)
    failure: OSError = socket.timeout()
    for number, (family, kind, protocol, _name, address) in enumerate(addresses):
        # A dead address must not use up the time of those behind it.
        left = timer.left / (len(addresses) - number)
        if left <= 0:
            break
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(left)
            plain.connect(address)
            return plain
        except OSError as error:
            plain.close()
            failure = error
    raise failure


def _resolve(connection: Connection, timer: Timer) -> list[t.Any]:
    """The addresses of the server. The system's resolver knows no time limit, so it is left behind when it hangs."""
    answers: list[t.Any] = []

    def ask() -> None:
        try:
            answers.append(socket.getaddrinfo(connection.server, connection.port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            answers.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(max(0.0, timer.left))
    if not answers:
        raise LinkFailed(
            f"The name of the KMIP server {connection.place} was not resolved within {timer}.",
            hint="Does this machine reach its name server?",
        )
    if isinstance(answers[0], Exception):
        raise answers[0]
    return list(answers[0])


def tls_context(connection: Connection) -> ssl.SSLContext:
    """What both certificates are checked by.

    :raises BadInput: a file can't be read, or does not hold what it is given for
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = connection.oldest_tls
    context.check_hostname = connection.verify_hostname
    context.verify_mode = ssl.CERT_REQUIRED
    for name in ("ca_certificate", "certificate", "private_key"):
        _readable(name, getattr(connection, name))
    if connection.ca_certificate is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(connection.ca_certificate)
        except (ssl.SSLError, ValueError):
            raise BadInput(f"ca_certificate {connection.ca_certificate} holds no certificate in PEM.") from None
    try:
        context.load_cert_chain(connection.certificate, connection.private_key, lambda: _passphrase(connection))
    except (ssl.SSLError, ValueError) as error:
        raise BadInput(
            f"certificate {connection.certificate} and its key {connection.private_key or 'in the same file'} can't "
            f"be used: {_reason(error)}.",
            hint="Wanted are PEM files that belong together, and private_key_passphrase if the key is encrypted.",
        ) from None
    return context


def _readable(name: str, path: str | None) -> None:
    """Raises BadInput if the file can't be read: OpenSSL does not tell which one it was."""
    if path is None:
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise BadInput(
            f"{name} {path} can't be read: {error.strerror}.",
            hint="The path is one on the machine that connects to the KMIP server.",
        ) from None


def _passphrase(connection: Connection) -> str:
    """OpenSSL asks for it when the key is encrypted; without an answer it would ask a person at the terminal."""
    if connection.private_key_passphrase is None:
        raise BadInput("The private key of the client is encrypted, and no private_key_passphrase is given.")
    return connection.private_key_passphrase


def _reason(error: Exception) -> str:
    """The words of OpenSSL, without the place in its source."""
    reason = getattr(error, "reason", None)
    return str(reason or error).replace("_", " ").lower()


def _handshake_failed(error: Exception, connection: Connection, timer: Timer) -> LinkFailed:
    place = connection.place
    if isinstance(error, ssl.SSLCertVerificationError):
        verdict = _VERDICTS.get(error.verify_code, error.verify_message)
        hint = "ca_certificate has to be that of the authority which issued the certificate of the server."
        if error.verify_code in _OTHER_NAME:
            hint = (
                "Use the name the certificate was issued for, or, if you know that this is the right server, "
                "verify_hostname: false."
            )
        # The clock of a host that starts may be behind, and be set meanwhile.
        kind = LinkFailed if error.verify_code == _NOT_YET else NotTrusted
        return kind(f"The certificate of the KMIP server {place} is not trusted: {verdict}.", hint=hint)
    if isinstance(error, socket.timeout):
        return LinkFailed(
            f"The KMIP server {place} accepted the connection, but did not finish the TLS handshake within {timer}.",
            hint="Is this the KMIP port, and is the server overloaded or stopped?",
        )
    if is_refusal(error):
        return refused(error, connection)
    return LinkFailed(
        f"The TLS handshake with the KMIP server {place} failed: {_reason(error)}.",
        hint=f"The server has to speak TLS {connection.tls_version} or later; its log tells what it did not like.",
    )


def is_refusal(error: Exception) -> bool:
    """Whether the server has broken off because of the certificate of the client."""
    reason = str(getattr(error, "reason", None) or "")
    if "ALERT" not in reason:
        return False
    return any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR"))


def refused(error: Exception, connection: Connection) -> NotTrusted:
    """The error of a server that does not take the certificate of the client."""
    return NotTrusted(
        f"The KMIP server {connection.place} refused the certificate of the client {connection.certificate}: "
        f"{_reason(error)}.",
        hint="It has to be issued by an authority that the server trusts, be valid now, and allow client "
        "authentication. The log of the server tells more.",
    )


class Wire:
    """Whole messages on a connection, each within a time limit. It writes no log: messages hold keys.

    ``stream`` makes what the library reads a message from. ``deadline``: when all of them are to be through.
    """

    def __init__(
        self,
        channel: ssl.SSLSocket,
        connection: Connection,
        stream: t.Callable[[bytes], t.Any],
        deadline: float = FOREVER,
    ) -> None:
        self._channel = channel
        self._connection = connection
        self._stream = stream
        self._deadline = deadline

    def write(self, data: bytes) -> None:
        """Send one message."""
        timer = Timer(self._connection, self._deadline)
        with self._translated(timer):
            self._channel.settimeout(max(_INSTANT, timer.left))
            self._channel.sendall(bytes(data))

    def read(self) -> t.Any:
        """Receive one message."""
        timer = Timer(self._connection, self._deadline)
        with self._translated(timer):
            header = self._exactly(_HEADER, timer)
            size = int.from_bytes(header[4:], "big")
            if size > _LONGEST_MESSAGE:
                raise LinkFailed(
                    f"What the KMIP server {self._connection.place} answers is no KMIP message: its length would be "
                    f"{size} bytes.",
                    hint="Is this the KMIP port, or that of another service with TLS?",
                )
            return self._stream(header + self._exactly(size, timer))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.close()

    def _exactly(self, size: int, timer: Timer) -> bytes:
        found = bytearray()
        while len(found) < size:
            left = timer.left
            if left <= 0:
                raise socket.timeout
            self._channel.settimeout(left)
            part = self._channel.recv(size - len(found))
            if not part:
                raise LinkFailed(
                    f"The KMIP server {self._connection.place} closed the connection instead of answering.",
                    hint="Was it stopped or restarted? Its log tells.",
                )
            found += part
        return bytes(found)

    @contextlib.contextmanager
    def _translated(self, timer: Timer) -> t.Iterator[None]:
        place = self._connection.place
        try:
            yield
        except socket.timeout:
            raise LinkFailed(
                f"The KMIP server {place} did not answer within {timer}.",
                hint="Whether it carried out the request is not known. Run the task again: it looks first.",
            ) from None
        except OSError as error:
            if is_refusal(error):
                raise refused(error, self._connection) from None
            raise LinkFailed(
                f"The connection to the KMIP server {place} broke: {_reason(error)}.",
                hint="Whether it carried out the last request is not known. Run the task again: it looks first.",
            ) from None
