# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of passes and mounts share."""

from __future__ import annotations

import itertools
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils import lock
from ansible_collections.nasops.encryption.plugins.module_utils.migration import far_alone, private_mount
from ansible_collections.nasops.encryption.plugins.module_utils.remote import Ssh, connected
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Mask
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_progress import ProgressFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner

from .tools import Tools

_NUMBER = itertools.count()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = Tools(tmp_path)
    monkeypatch.setattr(private_mount, "_ROOT", str(found.base.parent))
    monkeypatch.setattr(lock, "LOCK_FILE", str(tmp_path / "lock"))
    # Tests that run at the same time are nothing to each other.
    monkeypatch.setattr(far_alone, "_MARK", f"NASOPS_TEST_{os.getpid()}_{next(_NUMBER)}")
    return found


@pytest.fixture
def runner() -> ReplicaRunner:
    return ReplicaRunner(Mask(), ProgressFile(None))


@pytest.fixture
def across(tools: Tools, runner: ReplicaRunner) -> t.Iterator[ReplicaRunner]:
    """A runner whose target is on another host, which is this one with other folders."""
    with connected(runner, Ssh("nas2", "admin", identity_file="/root/my key", args=("-J", "it's"))) as there:
        runner.target = there
        yield runner
