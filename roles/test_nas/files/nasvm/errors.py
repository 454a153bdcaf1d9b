# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of this package."""

from __future__ import annotations


class TestNasError(Exception):
    """Something a person has to know; its text says what was found, what was wanted and what to do next."""


class EmulatorFailed(TestNasError):
    """QEMU found a fault of its own and ended itself; the same machine may well run when it is started again."""
