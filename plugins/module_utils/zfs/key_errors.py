# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a key could not be tried, loaded, unloaded or changed: one wording, whatever way it was attempted.

libzfs_core answers with an error number, the program zfs with a sentence. What both mean was read off libzfs_crypto.c
and dsl_crypt.c, and looked at on a real pool.
"""

from __future__ import annotations

import errno
import os
import typing as t
from dataclasses import dataclass

from ..errors import Refused, StorageError

TRY, LOAD, UNLOAD = "try a key of", "load the key of", "unload the key of"
CHANGE, INHERIT = "change the key of", "let the parent's key open"


@dataclass(frozen=True)
class Reason:
    """``refused``: ZFS could do it, but not in the state things are in."""

    text: str
    hint: str = ""
    refused: bool = False


MISSING = Reason("it does not exist")
NO_ROOT = Reason("it is no encryption root", "Name the dataset that its encryptionroot tells.")
PLAIN = Reason("it is not encrypted")
FORBIDDEN = Reason("permission denied", "Set 'become: true' for the task.")
IN_USE = Reason("it is in use", refused=True)
NOT_LOADED = Reason("its key is not loaded", "Unlock it first.", refused=True)
PARENT_NOT_LOADED = Reason("the key of its parent is not loaded", "Unlock the parent first.", refused=True)
CLONE = Reason("it is a clone, which always uses the key of its origin", "'zfs promote' it first.", refused=True)
NO_PARENT = Reason("it is the root dataset of a pool, which has no parent")
PLAIN_PARENT = Reason("its parent is not encrypted")
READ_ONLY = Reason("its pool is imported read-only", "Import it without readonly=on.")
NO_FEATURE = Reason(
    "its pool can't hold encrypted datasets", "'zpool upgrade' the pool, or enable its feature 'encryption'."
)
NO_CIPHER = Reason("this version of ZFS does not know its cipher", "Use a newer OpenZFS.")
UNREADABLE = Reason("ZFS can't read its key from the disks (I/O error)", "See 'zpool status -v' and the kernel log.")
SILENT = Reason("its pool does not answer", "See 'zpool status'.")
TOO_SHORT = Reason(
    "this version of ZFS does not take passphrases of less than 8 characters, even if one is set",
    "Use OpenZFS 2.2 or newer.",
)
NO_REASON = Reason(
    "ZFS tells no reason; the pool may be imported read-only, or have errors",
    "See 'zpool get readonly' and 'zpool status -v'.",
)
UNCHANGEABLE = Reason("it is not encrypted, a clone, or can't have such a key")
NOT_INHERITABLE = Reason("it is no encryption root, a clone, or its parent is not encrypted")
EITHER_NOT_LOADED = Reason("its key or that of its parent is not loaded", "Unlock both first.", refused=True)

# ECKSUM of ZFS: EBADE on Linux, EINTEGRITY on FreeBSD.
_CHECKSUM = (getattr(errno, "EBADE", None), getattr(errno, "EINTEGRITY", 97))
# ZFS_ERR_CRYPTO_NOTSUP of sys/fs/zfs.h.
_NO_CIPHER_NUMBER = 1048

_NUMBERS: t.Mapping[int, Reason] = {
    errno.EACCES: NOT_LOADED,
    errno.EAGAIN: SILENT,
    errno.EBUSY: IN_USE,
    errno.EINVAL: NO_ROOT,
    errno.EIO: UNREADABLE,
    errno.ENOENT: MISSING,
    errno.ENOTSUP: NO_FEATURE,
    errno.ENXIO: SILENT,
    errno.EPERM: FORBIDDEN,
    errno.EROFS: READ_ONLY,
    _NO_CIPHER_NUMBER: NO_CIPHER,
}
# The same number means something else there.
_NUMBERS_OF: t.Mapping[tuple[str, int], Reason] = {
    (CHANGE, errno.EINVAL): UNCHANGEABLE,
    (INHERIT, errno.EINVAL): NOT_INHERITABLE,
    (INHERIT, errno.EACCES): EITHER_NOT_LOADED,
}

# The first that is found counts.
_SENTENCES: tuple[tuple[str, Reason], ...] = (
    ("dataset does not exist", MISSING),
    ("no such pool", MISSING),
    ("Parent key must be loaded", PARENT_NOT_LOADED),
    ("Key must be loaded", NOT_LOADED),
    ("Key is not currently loaded", NOT_LOADED),
    ("Keys cannot be changed on clones", CLONE),
    ("Root dataset cannot inherit key", NO_PARENT),
    ("Parent must be encrypted", PLAIN_PARENT),
    ("can only be performed on encryption roots", NO_ROOT),
    ("for encryption root of", NO_ROOT),
    ("is not encrypted", PLAIN),
    ("Dataset not encrypted", PLAIN),
    ("Encryption feature not enabled", NO_FEATURE),
    ("unsupported encryption suite", NO_CIPHER),
    ("Permission denied", FORBIDDEN),
    ("is busy", IN_USE),
    ("Passphrase too short", TOO_SHORT),
    ("pool is read only", READ_ONLY),
    ("I/O is currently suspended", SILENT),
    ("I/O error", UNREADABLE),
    ("encryption failure", NO_REASON),
)


def from_number(task: str, name: str, status: int) -> StorageError:
    """The error for what libzfs_core returned."""
    reason = _NUMBERS_OF.get((task, status)) or _NUMBERS.get(status)
    if reason is None:
        reason = UNREADABLE if status in _CHECKSUM else Reason(os.strerror(status))
    return _problem(task, name, reason, {"errno": status})


def from_sentence(task: str, name: str, said: str, details: t.Mapping[str, t.Any]) -> StorageError | None:
    """The error for what the program zfs wrote to standard error; ``None`` if that says nothing that is known."""
    for sentence, reason in _SENTENCES:
        if sentence in said:
            return _problem(task, name, reason, details)
    return None


def _problem(task: str, name: str, reason: Reason, details: t.Mapping[str, t.Any]) -> StorageError:
    kind = Refused if reason.refused else StorageError
    return kind(f"Can't {task} '{name}': {reason.text}.", hint=reason.hint, **details)
