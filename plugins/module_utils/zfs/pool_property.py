# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting a property of a pool."""

from __future__ import annotations

from ..command import Command
from ..plan import Change, Step, Value


def pool_property_step(pool: str, name: str, before: Value, value: str) -> Step:
    """The step that sets one property of an imported pool."""
    return Step(
        f"Set pool property {name}={value} on '{pool}'",
        Command(("zpool", "set", f"{name}={value}", pool)),
        (Change(("pools", pool, "properties", name), before, value),),
    )
