# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where decrypted devices are found."""

from __future__ import annotations

# Links to all decrypted devices on Linux and to nothing else, for zpool import -d.
LINKS = "/run/nasops-geli"
