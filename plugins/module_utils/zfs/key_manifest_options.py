# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of zfs_key_manifest, which the controller and the host both understand."""

from __future__ import annotations

import typing as t

from . import offer_options


def arguments() -> dict[str, t.Any]:
    """A new argument specification."""
    return {
        "name": {"type": "str"},
        "recursive": {"type": "bool", "default": True},
        "dest": {"type": "path", "required": True},
        "seal_to": {"type": "list", "elements": "str"},
        "vault_id": {"type": "str"},
        "vault_password_file": {"type": "path", "no_log": False},
        "unsealed": {"type": "bool", "default": False},
        "remap": {"type": "dict"},
        **offer_options.arguments(),
        "partial": {"type": "bool", "default": False},
        "backup": {"type": "bool", "default": True},
    }
