# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a KMIP server says when it does not do what it was asked to, in words a person can act on."""

from __future__ import annotations

from ..errors import StorageError
from ..secrets import Mask

# Characters of what a server says, which may be anything.
_LONGEST = 200

# What it says when there is no such object (any more).
UNKNOWN = ("ITEM_NOT_FOUND", "OBJECT_NOT_FOUND", "OBJECT_DESTROYED")

# What to do about a refusal, by the reason the server gives.
HINTS = {
    "AUTHENTICATION_NOT_SUCCESSFUL": "The server does not know this client by its certificate, or the certificate does "
    "not allow client authentication (its extended key usage).",
    "PERMISSION_DENIED": "The object belongs to another client, its policy or state forbids this, or, on a PyKMIP "
    "server, it is one that this client is not to know of. Use the certificate of the client that stored it.",
    "NOT_AUTHORISED": "Use the certificate of the client that stored it.",
    "ITEM_NOT_FOUND": "Nothing has this uid. It may have been destroyed, or be on another server.",
    "OBJECT_NOT_FOUND": "Nothing has this uid. It may have been destroyed, or be on another server.",
    "OBJECT_DESTROYED": "It was destroyed.",
    "ILLEGAL_OPERATION": "The object is in a state that does not allow this, such as not active.",
    "OPERATION_NOT_SUPPORTED": "The server can't do this at all; it has to offer the operations Register, Activate, "
    "Get, Get Attributes, Locate, Modify Attribute, Revoke and Destroy.",
    "OBJECT_ALREADY_EXISTS": "An object of this name exists, maybe of another client that this one can't see.",
    "NON_UNIQUE_NAME_ATTRIBUTE": "An object of this name exists, maybe of another client that this one can't see.",
    "OBJECT_ARCHIVED": "It was archived; recover it on the server first.",
}


def words_of(text: str, mask: Mask) -> str:
    """What a server says, as a part of one line: without secrets, without what would begin another, and not endless."""
    plain = "".join(one if one.isprintable() else " " for one in mask.text(text.encode("utf-8", "replace")))
    cut = plain[:_LONGEST] + ("..." if len(plain) > _LONGEST else "")
    return cut.strip().rstrip(".") or "without words"


class RequestRefused(StorageError):
    """The server answered, and said no."""

    def __init__(self, message: str, reason: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
