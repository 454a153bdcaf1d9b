# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of hypothesis for all unit tests.

A gate has to say the same thing twice, so it always draws the same examples. To look for new ones, run pytest with
``--hypothesis-profile=explore``.
"""

from __future__ import annotations

from hypothesis import settings

# No deadline: how long an example takes says nothing about the code on a shared machine.
settings.register_profile("gate", deadline=None, database=None, derandomize=True, max_examples=60)
settings.register_profile("explore", deadline=None, database=None, max_examples=1000, print_blob=True)
settings.load_profile("gate")
