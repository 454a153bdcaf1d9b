# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator, the library that shows it to programs, and Debian's sedutil-cli."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.opal.host import Emulator, emulator
from ansible_collections.nasops.encryption.tests.opal.player import Player, Worker
from ansible_collections.nasops.encryption.tests.opal.programs import Sedutil, build_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built by the compiler of this machine."""
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def host() -> t.Iterator[Emulator]:
    """A host without a drive as yet."""
    with emulator() as one:
        yield one


@pytest.fixture
def sedutil(host: Emulator, shim: Path) -> Sedutil:
    """sedutil-cli on that host."""
    return Sedutil(host, shim)


@pytest.fixture(scope="session")
def worker(shim: Path) -> t.Iterator[Worker]:
    """A process that runs modules."""
    one = Worker(shim)
    yield one
    one.close()


@pytest.fixture
def player(host: Emulator, worker: Worker) -> Player:
    """Tasks on that host."""
    return Player(host, worker)
