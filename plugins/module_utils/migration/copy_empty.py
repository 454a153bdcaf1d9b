# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a filesystem of the target is empty, before rsync would delete what is in it."""

from __future__ import annotations

from ..zfs.replicate_run import ReplicaRunner
from .private_mount import Mount, mounted
from .tree import first_entry, unreadable


def something_in(own: ReplicaRunner, mount: Mount) -> str:
    """The path of something that is in a filesystem, "" if it is empty.

    :raises Unreadable: it can't be looked at
    """
    with mounted(own, mount) as place:
        try:
            return first_entry(*place.folders)
        except OSError as error:
            raise unreadable(error) from None
