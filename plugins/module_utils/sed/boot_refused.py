# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which passwords drives have refused since the host started, so that starting the program again costs no more tries.

What is noted is the object of the KMIP server, never the password nor anything that is made from it.
"""

from __future__ import annotations

import contextlib
import json
import os

from ..lock import RUN_FOLDER

# What is in there is gone when the host restarts.
REFUSED_FILE = f"{RUN_FOLDER}/nasops.encryption.refused"
_LONGEST = 1 << 20


class Refusals:
    """The notes, by the serial number of a drive."""

    def __init__(self, path: str = REFUSED_FILE) -> None:
        self.path = path

    def has(self, drive: str, origin: str) -> bool:
        """Whether the drive has refused the password of that object."""
        return origin in self._load().get(drive, ())

    def add(self, drive: str, origin: str) -> None:
        """Note it. Where that fails, another try may be wrong, which is no reason to end this one."""
        notes = self._load()
        notes[drive] = sorted({*notes.get(drive, ()), origin})
        part = f"{self.path}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):
            with open(os.open(part, flags, 0o600), "wb") as file:
                file.write(json.dumps(notes, sort_keys=True).encode("ascii"))
            os.replace(part, self.path)

    def _load(self) -> dict[str, list[str]]:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return {}
        try:
            found = json.loads(os.read(descriptor, _LONGEST) or b"{}")
        except ValueError:
            return {}
        finally:
            os.close(descriptor)
        return found if isinstance(found, dict) else {}
