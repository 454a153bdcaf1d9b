# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a filesystem of the target is empty, before rsync would delete what is in it."""

from __future__ import annotations

from ..command import CommandError
from ..zfs.replicate_run import ReplicaRunner
from .far import far_end, first_entry_there
from .listing import first_entry
from .private_mount import Mount, mounted
from .tree import not_readable, unreadable


def something_in(own: ReplicaRunner, mount: Mount) -> str:
    """The path of something that is in a filesystem of the target, "" if it is empty.

    :raises Unreadable: it can't be looked at
    """
    far = far_end(own)
    with mounted(own, mount, end=far) as place:
        try:
            if far is None:
                return first_entry(*place.folders)
            return first_entry_there(far, place.enter, place.inside[0])
        except OSError as error:
            raise unreadable(error) from None
        except CommandError as error:
            words = " ".join(error.result.stderr.split()).rstrip(".") or f"status {error.result.rc}"
            raise not_readable(f"'{mount.name}' can't be looked at: {words}.") from None
