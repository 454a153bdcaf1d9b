# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a filesystem of the target is empty, before rsync would delete what is in it."""

from __future__ import annotations

from ..command import Command, CommandError
from ..errors import in_a_sentence
from ..remote import RemoteRunner
from ..zfs.replicate_run import ReplicaRunner
from . import listing
from .far import far_end, python, source_of
from .listing import first_entry
from .private_mount import Mount, mounted, run_mounted
from .tree import not_readable, unreadable


def something_in(own: ReplicaRunner, mount: Mount) -> str:
    """The path of something that is in a filesystem of the target, "" if it is empty.

    :raises Unreadable: it can't be looked at
    """
    far = far_end(own)
    if far is not None:
        return _something_there(far, mount)
    with mounted(own, mount) as place:
        try:
            return first_entry(*place.folders)
        except OSError as error:
            raise unreadable(error) from None


def _something_there(far: RemoteRunner, mount: Mount) -> str:
    """The same at another host, where nothing waits for this one: nobody ends it before a plan is made."""

    def look(folder: str) -> Command:
        return Command(python(listing, "first", folder), stdin=source_of(listing))

    try:
        return run_mounted(far, mount, look)
    except CommandError as error:
        words = in_a_sentence(error.result.stderr) or f"status {error.result.rc}"
        raise not_readable(f"'{mount.name}' can't be looked at: {words}.") from None
