# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts in these tests are values: the last look at a disk finds what the plan found, and volumes have no nodes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.content import DiskContent
from ansible_collections.nasops.encryption.plugins.module_utils.command import Runner
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import dataset_actions, pool_disks


def _unchanged(runner: Runner, contents: Sequence[DiskContent]) -> tuple[DiskContent, ...]:
    return tuple(contents)


@pytest.fixture(autouse=True)
def disks_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is about a disk that changes sets another look_again."""
    monkeypatch.setattr(pool_disks, "look_again", _unchanged)


@pytest.fixture(autouse=True)
def nobody_waits_for_device_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host that makes none."""
    monkeypatch.setattr(dataset_actions, "_makes_no_nodes", lambda: True)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
