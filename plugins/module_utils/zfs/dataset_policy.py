# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ZFS would do, but a TrueNAS does not: trees whose parts can be open while their top is locked.

A key that lies on the host opens its dataset at every start, a passphrase does not. A child with such a key below a
parent with a passphrase would be unlocked in a parent that is not, and end up mounted in the bare folder.
"""

from __future__ import annotations

from ..errors import Refused
from .dataset_draft import Draft
from .dataset_model import KEY_FORMATS
from .names import ancestors
from .state import Dataset

_HINT = "With 'policy: openzfs' everything is done that ZFS itself allows."


def check_new_root(name: str, key_format: str, draft: Draft) -> None:
    """An encryption root gets a key of this format, or a key of its own at all.

    :raises Refused: the policy does not want that there
    """
    if draft.wishes.policy != "truenas":
        return
    if key_format in KEY_FORMATS:
        for above in ancestors(name):
            dataset = draft.model.get(above)
            if dataset is not None and dataset.encrypted and _format_to_be(dataset, draft) == "passphrase":
                raise Refused(
                    f"'{name}' would have a {key_format} key below '{above}', which is opened by a passphrase.",
                    hint=f"Give '{name}' a passphrase, or let it inherit. {_HINT}",
                )
    else:
        refuse_key_children(name, draft)


def refuse_key_children(name: str, draft: Draft) -> None:
    """Nothing with a key of its own may lie below a passphrase.

    :raises Refused: something does
    """
    if draft.wishes.policy != "truenas":
        return
    found = [one.name for one in draft.model.roots_below(name) if _format_to_be(one, draft) in KEY_FORMATS]
    if found:
        raise Refused(
            f"'{name}' would be opened by a passphrase, but below it these have keys of their own: {', '.join(found)}.",
            hint=f"Let them inherit or give them passphrases first, or in the same task. {_HINT}",
        )


def _format_to_be(dataset: Dataset, draft: Draft) -> str:
    """The key format of a root once the task is through; "" for one that will not be a root any more."""
    entry = None if dataset.name in draft.distrusted else draft.entries.get(dataset.name)
    promised = None
    if entry is not None and entry.state in ("inherited", "absent"):
        promised = ""
    elif entry is not None and entry.state == "present" and entry.key is not None:
        promised = entry.key.format
    if promised is None:
        return draft.model.key_format(dataset)
    draft.trusted.add(dataset.name)
    return promised


def check_plain(name: str, draft: Draft) -> None:
    """A dataset is created without encryption.

    :raises Refused: inside an encrypted one
    """
    if draft.wishes.policy != "truenas":
        return
    above = next((one for one in ancestors(name) if _encrypted(one, draft)), "")
    if above:
        raise Refused(
            f"'{name}' would be stored in plain text below the encrypted '{above}', where it looks protected.",
            hint=f"Leave 'cipher: \"off\"' out. {_HINT}",
        )


def check_gap(name: str, draft: Draft) -> None:
    """An encrypted dataset is created.

    :raises Refused: below a plain one that is itself below an encrypted one
    """
    if draft.wishes.policy != "truenas":
        return
    plain = ""
    for above in ancestors(name):
        if not _encrypted(above, draft):
            plain = plain or above
        elif plain:
            raise Refused(
                f"'{name}' would be encrypted below '{plain}', which is not, inside the encrypted '{above}'.",
                hint=f"Move '{plain}' out of '{above}' first. {_HINT}",
            )


def _encrypted(name: str, draft: Draft) -> bool:
    dataset = draft.model.get(name)
    return dataset is not None and dataset.encrypted


def check_lock(name: str, roots: list[Dataset], draft: Draft) -> None:
    """A dataset and roots below it are locked.

    :raises Refused: one below has a key of its own, and was not asked for by name
    """
    if draft.wishes.policy != "truenas":
        return
    unasked = [
        one.name
        for one in roots
        if one.name != name and draft.model.key_format(one) in KEY_FORMATS and not _asked_to_lock(one.name, draft)
    ]
    if unasked:
        raise Refused(
            f"To lock '{name}', these that have keys of their own would be locked too: {', '.join(unasked)}.",
            hint=f"Describe them with 'state: locked' as well. {_HINT}",
        )


def _asked_to_lock(name: str, draft: Draft) -> bool:
    entry = draft.entries.get(name)
    return entry is not None and entry.state == "locked"
