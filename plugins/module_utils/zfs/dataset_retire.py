# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key files that go out of use: marked before the key is changed, removed after the new one is proven.

The mark is a second name of the same file. A run that finds one knows that an earlier run was interrupted, and which
file that one meant.
"""

from __future__ import annotations

import os
import typing as t

from ..plan import Change, Step
from . import keystore
from .dataset_actions import MarkRetired, RemoveRetired
from .dataset_draft import Draft
from .dataset_keys import in_keystore, is_own_file


def mark_steps(name: str, location: str, next_file: str, draft: Draft) -> t.Iterator[Step]:
    """Mark the key file of a keylocation that is about to be left.

    :param next_file: the key file from now on, "" for none
    """
    path = _leaving(name, location, next_file, draft)
    if path:
        yield Step(
            f"Mark {path}, which will not be the key of '{name}' any more", MarkRetired(path, _mark(name, draft))
        )


def retire_steps(name: str, location: str, next_file: str, draft: Draft) -> t.Iterator[Step]:
    """Remove the key file that was marked."""
    path = _leaving(name, location, next_file, draft)
    if path:
        yield Step(
            f"Remove the former key of '{name}', {path}",
            RemoveRetired(_mark(name, draft), (path,)),
            (Change(("key_files", path), f"former key of {name}", None),),
        )


def finish_retiring(name: str, draft: Draft, in_use: str = "") -> t.Iterator[Step]:
    """Remove what an interrupted run had marked, unless the key of another dataset is in that file by now.

    :param in_use: the key file that is in use now, "" for none; if that was marked, it loses nothing but the mark
    """
    mark = _mark(name, draft)
    if os.path.basename(mark) not in draft.host.stored or draft.sharers(mark, name):
        return
    names = [] if in_use and _is_same(mark, in_use, draft) else draft.names_of(mark)
    yield Step(
        f"Remove what an interrupted run left of the former key of '{name}', {mark}",
        RemoveRetired(mark, tuple(one for one in names if is_own_file(one, name, draft))),
        (Change(("key_files", mark), f"former key of {name}", None),),
    )


def _mark(name: str, draft: Draft) -> str:
    return keystore.path_for(keystore.AUTO, name, draft.host.folder) + keystore.RETIRED


def _leaving(name: str, location: str, next_file: str, draft: Draft) -> str:
    """The file of a keylocation, if it is one of the keystore's own for this pool, and no other dataset uses it."""
    path = keystore.path_of(location)
    # A rotation by programs may have been interrupted while the keylocation was that of the next key.
    if path is None or path in (next_file, next_file + keystore.NEXT) or not in_keystore(path, draft):
        return ""
    if os.path.basename(path) not in draft.host.stored:
        return ""
    if next_file and (_is_same(path, next_file, draft) or _is_same(path, next_file + keystore.NEXT, draft)):
        return ""
    # A file with any other name may be meant for a pool that is exported now, whose keylocations nobody can see.
    if not is_own_file(path, name, draft) or draft.sharers(path, name):
        return ""
    return path


def _is_same(path: str, other: str, draft: Draft) -> bool:
    """Whether two paths lead to one file."""
    return bool(draft.identity(path) & draft.identity(other))
