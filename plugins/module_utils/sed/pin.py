# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The credential that a password stands for, the same that sedutil-cli makes of it."""

from __future__ import annotations

import hashlib

from ..errors import BadInput

# name -> (hash, iterations): Debian and upstream, two forks of sedutil, and the password as it is (sedutil-cli -n).
HASHES = {"sha1": ("sha1", 75_000), "sha512": ("sha512", 75_000), "sha512_500k": ("sha512", 500_000), "raw": ("", 0)}
_BYTES = 32
# sedutil-cli takes no more when it hashes.
_LONGEST = 256


def derive(password: bytes, salt: bytes, kind: str) -> bytes:
    """The credential.

    :param salt: the field of the serial number as the drive reports it, padding and all
    """
    algorithm, iterations = HASHES[kind]
    if not algorithm:
        return password
    return hashlib.pbkdf2_hmac(algorithm, password, salt, iterations, _BYTES)


def check(password: str, kind: str, where: str) -> bytes:
    """The bytes of a password that can be used.

    :raises BadInput: it is empty, too long, or can't be typed; the message never repeats it
    """
    try:
        data = password.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"{where} holds half a character, which can't be written in UTF-8.") from None
    longest = _BYTES if kind == "raw" else _LONGEST
    if not data:
        raise BadInput(f"{where} is empty.")
    if len(data) > longest:
        raise BadInput(f"{where} has {len(data)} bytes; a drive set up with 'hash: {kind}' takes {longest} at most.")
    if any(byte < 0x20 or byte == 0x7F for byte in data):
        raise BadInput(
            f"{where} holds a line break or another control character.", hint="In YAML write '|-' instead of '|'."
        )
    return data
