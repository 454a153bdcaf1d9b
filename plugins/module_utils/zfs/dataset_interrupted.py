# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of format within one key file that was interrupted between ZFS and the file.

What is in the file then is no key of the format that ZFS has: it looks like damage, or like the key of another dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..secrets import FORMATS
from . import keystore
from .dataset_adopt import may_open_another
from .dataset_draft import Draft
from .dataset_keys import is_leftover, is_there, present_format, refuse_own_file
from .keystore import KeyFile
from .state import Dataset


@dataclass(frozen=True)
class Interrupted:
    """A change of format within one key file that did not come to its end: ZFS took the key, and the file did not.

    ``next`` holds the present key, ``former`` the one from before, which is ``None`` if that file is gone.
    """

    next: KeyFile
    former: KeyFile | None


def present_beside(path: str, dataset: Dataset, draft: Draft, strict: bool) -> KeyFile | None:
    """The successor of a key file, if it holds the present key of a dataset.

    :param strict: not if that is a key which ZFS takes, and which could not be set any more
    """
    now = present_format(dataset)
    if not now or not is_there(path + keystore.NEXT, now, draft):
        return None
    found = draft.host.key_file(path + keystore.NEXT, now, strict)
    return found if found.key is not None and draft.host.opens(dataset.name, found.key) else None


def find_interrupted(path: str | None, key_format: str, dataset: Dataset, draft: Draft) -> Interrupted | None:
    """What is left of an interrupted change, if the formats of both keys and the wanted one are not all the same.

    It takes the place of a file that is no key of the wanted format. So all has to speak for it: ZFS looks for the key
    there, this collection made the successor, and what is in the file is a key that opens nothing else.
    """
    if path is None:
        return None
    if dataset.value("keylocation") not in (keystore.location_of(path), keystore.location_of(path + keystore.NEXT)):
        return None
    successor = present_beside(path, dataset, draft, strict=True)
    if successor is None or successor.key is None or not is_leftover(successor, dataset.name, draft):
        return None
    file = draft.host.key_file(path, key_format)
    if successor.key.format == key_format and (file.key is not None or not file.exists):
        return None
    for one in (file, successor):
        refuse_own_file(dataset.name, one, draft)
    if not file.exists:
        return Interrupted(successor, None)
    # A text may be a key of more than one format.
    readings = [file, *(draft.host.key_file(path, one) for one in FORMATS if one != key_format)]
    keys = [one.key for one in readings if one.key is not None]
    if not keys or any(one.same_as(successor.key) or may_open_another(one, dataset.name, draft) for one in keys):
        return None
    return Interrupted(successor, next(one for one in readings if one.key is not None))
