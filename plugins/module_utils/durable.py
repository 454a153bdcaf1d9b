# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders whose names, and those of the files in them, outlive a loss of power."""

from __future__ import annotations

import contextlib
import os

FOLDER_MODE = 0o700


def make_folder(folder: str) -> None:
    """Make a folder and those above it, for their owner alone, on the disk.

    :raises OSError: one of them can't be made
    """
    missing: list[str] = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for name in reversed(missing):
        # Another branch of the same plan, or another host of the same run, may make it at the same time.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, FOLDER_MODE)
        sync_folder(os.path.dirname(name))


def sync_folder(folder: str) -> None:
    """Put the names in a folder on the disk.

    :raises OSError: it can't be opened or synced
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
