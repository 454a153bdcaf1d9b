# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module keeps to: check mode tells what is done, and what was done once is not done again."""

from __future__ import annotations

import typing as t

Result = dict[str, t.Any]


def four_runs(run: t.Callable[[bool], Result], changes: bool = True) -> Result:
    """Check, apply, check, apply: the first two tell the same, the other two that nothing is left to do.

    :param run: of a module, in check mode or not
    :param changes: whether there is something to do at first
    """
    runs = [run(check_mode) for check_mode in (True, False, True, False)]
    assert not any(one.get("failed") for one in runs), [one.get("msg") for one in runs]
    for word in ("changed", "actions", "diff"):
        assert runs[0][word] == runs[1][word]
    assert [one["changed"] for one in runs] == [changes, changes, False, False]
    return runs[1]
