# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of zfs_replicate: shows how far a stream is while the module runs."""

from __future__ import annotations

from ..module_utils.zfs.replicate_options import arguments
from ..plugin_utils.progress_action import ProgressAction


class ActionModule(ProgressAction):
    """What Ansible looks for."""

    module_name = "nasops.encryption.zfs_replicate"
    progress_interval = arguments()["progress_interval"]
