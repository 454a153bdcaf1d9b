# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new random key is wanted, but the key file has one already that does not open the dataset.

A run that was interrupted before ZFS took the new key leaves it there, and a former key that was put back looks alike.
Writing another key into the file might destroy the only copy of somebody's key. Making the one that is there the key of
the dataset destroys nothing; but the next rotation replaces it, so this is for files that are surely of this dataset.
"""

from __future__ import annotations

from ..errors import StorageError
from ..secrets import Key
from . import keystore
from .dataset_draft import Draft
from .dataset_state import TryKey, Unanswered
from .keystore import KeyFile
from .state import Dataset


def adoptable(file: KeyFile | None, dataset: Dataset, draft: Draft) -> bool:
    """Whether the key in a file, which is not that of the dataset, can be made its key.

    The file has to be what this collection makes for that very dataset, no dataset of the imported pools may have its
    key there, and the key must open none of those in the pools of the task, wherever these say that their key is: that
    file may be a stale one. In other pools all have to say where it is, since they are not tried.
    """
    if file is None or file.key is None or not file.sealed:
        return False
    if file.path != keystore.path_for(keystore.AUTO, dataset.name, draft.host.folder):
        return False
    if draft.sharers(file.path, dataset.name):
        return False
    elsewhere = draft.host.key_locations_elsewhere().values()
    if draft.host.silent_pools() or any(keystore.path_of(location) is None for location in elsewhere):
        return False
    return not opens_another(file.key, dataset.name, draft)


def opens_another(key: Key, name: str, draft: Draft) -> bool:
    """Whether a key opens another dataset in the pools of the task than the named one."""
    others = [
        one.name
        for one in draft.host.datasets.values()
        if one.is_root and one.name != name and one.value("keyformat") == key.format
    ]
    # All of them in one round.
    unknown = [question for question in (TryKey(one, key) for one in others) if question not in draft.host.answers]
    draft.questions.update(dict.fromkeys(unknown))
    if unknown:
        raise Unanswered(unknown[0])
    return any(draft.host.opens(one, key) for one in others)


def may_open_another(key: Key, name: str, draft: Draft) -> bool:
    """The same, and also where it can't be found out."""
    try:
        return opens_another(key, name, draft)
    except StorageError:
        return True
