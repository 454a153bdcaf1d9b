# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A KMIP server for each test that asks for one, and Ansible's way to find plugins."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader

if t.TYPE_CHECKING:
    from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer


def pytest_configure() -> None:
    """Let Ansible find the collection where Python does; that has to be before something of it is imported."""
    init_plugin_loader([place for place in sys.path if (Path(place) / "ansible_collections").is_dir()])


@pytest.fixture
def kmip(tmp_path: Path) -> t.Iterator[KmipServer]:
    """A PyKMIP server that runs, and is gone after the test."""
    from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer

    server = KmipServer(tmp_path / "kmip")
    try:
        server.start()
        yield server
    finally:
        server.kill()
