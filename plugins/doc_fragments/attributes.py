# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module of this collection promises."""

from __future__ import annotations


class ModuleDocFragment:
    """The ``attributes`` part of the documentation."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the target.
    support: full
    details:
      - The whole plan is made and returned, and everything that can be refused is refused.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation does nothing.
    support: full
  action_group:
    description: Use C(group/nasops.encryption.encryption) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - nasops.encryption.encryption
  platform:
    description: Systems the module runs on.
    support: full
    platforms: linux, freebsd
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the target.
    support: full
    details:
      - This module never changes anything.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: N/A
    details:
      - This module never changes anything.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation does nothing.
    support: full
    details:
      - This module never changes anything.
  action_group:
    description: Use C(group/nasops.encryption.encryption) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - nasops.encryption.encryption
  platform:
    description: Systems the module runs on.
    support: full
    platforms: linux, freebsd
"""
