# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of keys on a KMIP server.

A name is stored as it is if it is ASCII, as all names of datasets are. Other letters, and the percent sign, are written
as the percent-encoded bytes of UTF-8, since PyKMIP can neither send nor receive text beyond ASCII. No two names are
stored alike.
"""

from __future__ import annotations

import re
import urllib.parse

from ..errors import BadInput

# Blanks and parentheses together are in no name of a dataset, so these can't be meant for another one.
NEXT = " (next)"
PREVIOUS = " (previous)"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_AS_IT_IS = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def check_name(name: str) -> str:
    """The name, if one can be made of it on a server.

    :raises BadInput: it is empty, or holds what no name holds
    """
    if not name.strip():
        raise BadInput("The name of a key is empty.")
    if name != name.strip() or _CONTROL.search(name):
        raise BadInput(f"{name!r} is no name for a key: it has blanks around it, or control characters in it.")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"{name!r} is no name for a key: it holds half a character.") from None
    return name


def check_own_name(name: str) -> str:
    """The name, if a key may be stored or rotated under it.

    :raises BadInput: it is no name, or one that a rotation makes
    """
    for suffix in (NEXT, PREVIOUS):
        if name.endswith(suffix):
            raise BadInput(
                f"'{name}' is what a rotation of '{name[: -len(suffix)]}' calls a key; it can be read and removed, but "
                "not stored or rotated."
            )
    return check_name(name)


def check_uid(uid: str) -> str:
    """The unique identifier, if a server can have given it.

    :raises BadInput: it is empty or not ASCII
    """
    if not uid or not uid.isascii() or _CONTROL.search(uid):
        raise BadInput(f"{uid!r} is no uid; a KMIP server gives short texts of ASCII.")
    return uid


def stored(name: str) -> str:
    """How the name is written on the server."""
    return urllib.parse.quote(name, safe=_AS_IT_IS)


def shown(text: str) -> str:
    """The name that is written so on the server; what no name is written like stays as it is."""
    name = urllib.parse.unquote(text)
    return name if stored(name) == text else text
