# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same through ansible-playbook over ssh, as users do it: modules, role and playbook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .case import Names
from .nas import Nas


@dataclass
class Playbooks:
    """Runs playbooks against the NAS."""

    nas: Nas
    names: Names
    log: Path

    def checks(self) -> Iterator[tuple[str, float, Sequence[str]]]:
        """Name, seconds and complaints of each check."""
        yield from ()
