# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that ZFS accepts, and file names made of them. Source: zfsprops(7), zpool-create(8)."""

from __future__ import annotations

import hashlib
import posixpath
import re
import typing as t
import urllib.parse

from ..errors import BadInput

MAX_NAME_BYTES = 255
# Of the 255 that a filesystem allows; four are left for the endings that a rotation uses.
_FILE_NAME_BYTES = 251
_POOL = re.compile(r"[A-Za-z][A-Za-z0-9_.: -]*")
_COMPONENT = re.compile(r"[A-Za-z0-9_.:% -]+")
_RESERVED_PREFIXES = ("mirror", "raidz", "draid", "spare")


def check_pool_name(name: str) -> str:
    """Returns the name.

    :raises BadInput: ZFS would not take it
    """
    if not _POOL.fullmatch(name) or name.endswith(" "):
        raise BadInput(
            f"'{name}' is no name for a pool.",
            hint="It begins with a letter, and goes on with letters, digits, blanks and any of _ . : -, no blank "
            "at the end.",
        )
    if name == "log" or name.startswith(_RESERVED_PREFIXES):
        raise BadInput(
            f"'{name}' is no name for a pool: it is 'log', or begins with one of {', '.join(_RESERVED_PREFIXES)}, "
            "which ZFS keeps for vdevs."
        )
    return _check_length(name)


def check_dataset_name(name: str) -> str:
    """Returns the name of a filesystem or volume.

    :raises BadInput: ZFS would not take it, or it names a snapshot or bookmark
    """
    if "@" in name or "#" in name:
        raise BadInput(f"'{name}' names a snapshot or bookmark; a filesystem or volume is wanted.")
    pool, *rest = name.split("/")
    check_pool_name(pool)
    for part in rest:
        if not _COMPONENT.fullmatch(part) or part in (".", ".."):
            raise BadInput(f"'{name}' is no name for a dataset: the part '{part}' is not allowed.")
    return _check_length(name)


def ancestors(name: str) -> t.Iterator[str]:
    """The names above a dataset, nearest first."""
    while "/" in name:
        name = name.rsplit("/", 1)[0]
        yield name


def within(name: str, tops: t.Iterable[str]) -> bool:
    """Whether a dataset is one of these, or lies below one."""
    return any(f"{name}/".startswith(f"{top}/") for top in tops)


def within_each_other(one: str, other: str) -> bool:
    """Whether two datasets are the same, or one lies below the other."""
    return within(one, (other,)) or within(other, (one,))


def lies_below(path: str, folder: str) -> bool:
    """Whether a path is this folder, or lies below it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def inherited_mountpoint(above: str, last: str) -> str:
    """The mountpoint that a dataset inherits, by that of the one above it and the last part of its name."""
    return f"{above.rstrip('/')}/{last}" if above.startswith("/") else above


def folders_above(mountpoint: str) -> t.Iterator[str]:
    """The folders above a mountpoint, nearest first."""
    while mountpoint not in ("/", ""):
        mountpoint = posixpath.dirname(mountpoint)
        yield mountpoint


def folders_from(mountpoint: str) -> t.Iterator[str]:
    """A mountpoint, and the folders above it, nearest first."""
    yield mountpoint
    yield from folders_above(mountpoint)


def key_file_name(dataset: str) -> str:
    """A file name for the key of a dataset, different for every dataset and safe on every filesystem."""
    name = urllib.parse.quote(dataset, safe="-_.:") + ".key"
    if len(name) > _FILE_NAME_BYTES:
        digest = hashlib.sha256(dataset.encode("utf-8")).hexdigest()
        name = f"{name[: _FILE_NAME_BYTES - len(digest) - 5]}-{digest}.key"
    return name


def _check_length(name: str) -> str:
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        raise BadInput(f"The name '{name[:40]}...' is longer than the {MAX_NAME_BYTES} bytes that ZFS allows.")
    return name
