# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes the tests of drives quick, and is of no matter to what they say."""

from __future__ import annotations

import functools
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.sed import boot_files, session


@pytest.fixture(scope="package", autouse=True)
def quick() -> t.Iterator[None]:
    """The program for the boot is made once, and no time is given to drives that are in this very process.

    That the program is the same each time has a test, which has the function as it is.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boot_files, "archive", functools.lru_cache(maxsize=None)(boot_files.archive))
        patch.setattr(session, "_OWN_PATIENCE", 0.02)
        patch.setattr(session, "_BUSY_PAUSE", 0.01)
        yield
