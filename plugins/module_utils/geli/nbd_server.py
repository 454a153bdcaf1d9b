# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A decrypting server for the network block device of Linux, without a network: it answers on a pair of sockets.

The kernel asks with fixed structures (kernel ``include/uapi/linux/nbd.h``), big-endian. Only reads are answered; the
device is read-only, and a write that comes all the same is refused.
"""

from __future__ import annotations

import errno
import socket
import struct
import typing as t

from ..errors import StorageError

_REQUEST = struct.Struct(">II8sQI")
_REPLY = struct.Struct(">II8s")
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698
_READ, _WRITE, _DISCONNECT, _FLUSH = range(4)
# The kernel asks for 32 MiB at the most.
_LONGEST = 32 << 20
# Flags of a request are in the upper half.
_TYPE = 0xFFFF


class Content(t.Protocol):
    """What is served."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes at an offset."""


def serve(link: socket.socket, content: Content) -> None:
    """Answer until the kernel says that it is done, or closes its end.

    :raises OSError: from the socket
    """
    while True:
        head = _receive(link, _REQUEST.size)
        if head is None:
            return
        magic, kind, handle, offset, length = _REQUEST.unpack(head)
        if magic != _REQUEST_MAGIC:
            # Nothing that follows could be understood.
            return
        kind &= _TYPE
        if kind == _DISCONNECT:
            return
        if kind == _WRITE:
            if _receive(link, length, keep=False) is None:
                return
            _answer(link, handle, errno.EPERM)
        elif kind == _READ:
            _answer(link, handle, *_read(content, offset, length))
        else:
            _answer(link, handle, 0 if kind == _FLUSH else errno.EINVAL)


def _read(content: Content, offset: int, length: int) -> tuple[int, bytes]:
    """An error number, or 0 and the bytes."""
    if length > _LONGEST or offset + length > content.size:
        return errno.EINVAL, b""
    try:
        return 0, content.read(offset, length)
    except (OSError, StorageError):
        return errno.EIO, b""


def _answer(link: socket.socket, handle: bytes, error: int, data: bytes = b"") -> None:
    link.sendall(_REPLY.pack(_REPLY_MAGIC, error, handle))
    if data:
        link.sendall(data)


def _receive(link: socket.socket, length: int, keep: bool = True) -> bytes | None:
    """So many bytes, or None if the other end is closed; with ``keep`` false they are thrown away."""
    parts: list[bytes] = []
    while length > 0:
        part = link.recv(min(length, 1 << 20))
        if not part:
            return None
        length -= len(part)
        if keep:
            parts.append(part)
    return b"".join(parts)
