# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How all unit tests run: in the processes of the workers, with the same examples of hypothesis each time.

A gate has to say the same thing twice, so it always draws the same examples. To look for new ones, run
``make test T=unit EXAMPLES=1000``.
"""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import pytest
from hypothesis import settings

# The gates write the number of examples there that was asked for; ansible-test hands no variables on.
_ASKED_FOR = Path(__file__).resolve().parents[1] / "output" / "examples"

# What a property says of values is the same on each Python. One of them, the oldest, looks at more of them.
_EXAMPLES = 30 if sys.version_info < (3, 10) else 8


def pytest_configure(config: pytest.Config) -> None:
    """Do without a process for each test, which ansible-test has for code that leaves something behind.

    Ours does not, and a test that needs a process of its own to pass is to be found.
    """
    plugin = config.pluginmanager.get_plugin("ansible_forked")
    if plugin is not None:
        config.pluginmanager.unregister(plugin)


@pytest.fixture(scope="session", autouse=True)
def temporary_folders_are_on_a_disk() -> t.Iterator[None]:
    """Key files seem to be, at least: on many machines /tmp is in memory, where no new key is let be kept."""
    from ansible_collections.nasops.encryption.plugins.module_utils.zfs import keystore

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keystore, "memory_of", lambda _runner, _path, _source: "")
        yield


# No deadline: how long an example takes says nothing about the code on a shared machine.
settings.register_profile("gate", deadline=None, database=None, derandomize=True, max_examples=_EXAMPLES)
settings.load_profile("gate")
if _ASKED_FOR.exists():
    number = int(_ASKED_FOR.read_text())
    settings.register_profile("explore", deadline=None, database=None, max_examples=number, print_blob=True)
    settings.load_profile("explore")
