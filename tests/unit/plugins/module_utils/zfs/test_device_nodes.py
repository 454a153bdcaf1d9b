# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A volume is only done when its device node is there, which udev makes a while after ZFS made the volume."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.zfs import dataset_actions
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    locked,
    root,
    run,
    wishes,
    world,
)

Properties = dict[str, t.Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The nodes that were looked for; each is there the second time."""
    found: list[str] = []

    def exists(path: str) -> bool:
        found.append(path)
        return found.count(path) > 1

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(dataset_actions, "_makes_no_nodes", lambda: False)
    monkeypatch.setattr(dataset_actions, "_PAUSE", 0.0)
    monkeypatch.setattr(os.path, "exists", exists)
    return found


def test_of_a_volume_that_is_created(tmp_path: Path, asked: list[str]) -> None:
    entries = [{"name": "plain/v", "volsize": "1M", "key": {"value": HEX["a"]}}, {"name": "plain/f", "cipher": "off"}]
    done = run(world(), tmp_path, wishes(datasets=entries))
    assert done.plan.failures == ()
    assert asked == ["/dev/zvol/plain/v"] * 2


@pytest.mark.parametrize(("parent", "own"), [({}, {"volmode": "none"}), ({"volmode": "none"}, {})])
def test_of_one_that_gets_none(tmp_path: Path, asked: list[str], parent: Properties, own: Properties) -> None:
    entries = [
        {"name": "plain/p", "key": {"value": HEX["a"]}, "properties": parent},
        {"name": "plain/p/v", "volsize": "1M", "properties": own},
    ]
    assert run(world(), tmp_path, wishes(datasets=entries)).plan.failures == ()
    assert asked == []


@pytest.fixture
def absent(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No node appears."""
    monkeypatch.setattr(dataset_actions, "NODE_PATIENCE", 0.0)
    monkeypatch.setattr(os.path, "exists", lambda path: False)


@pytest.mark.usefixtures("absent")
def test_one_that_does_not_appear_after_its_creation_is_told(tmp_path: Path) -> None:
    # A jail or a container may show none, and the volume is there.
    zfs = world()
    wanted = wishes(name="plain/v", volsize="1M", key={"value": HEX["a"]})
    done = run(zfs, tmp_path, wanted)
    assert done.plan.failures == ()
    (warning,) = done.plan.warnings
    assert "without a device node" in warning
    assert "/dev/zvol/plain/v" in warning
    again = run(zfs, tmp_path, wanted)
    assert (again.plan.actions, again.plan.warnings) == ([], ())


@pytest.mark.usefixtures("absent")
def test_one_that_does_not_appear_after_its_unlocking(tmp_path: Path) -> None:
    zfs = world(locked(root("plain/v", "a", kind="volume", volsize=16384)))
    done = run(zfs, tmp_path, wishes(name="plain/v", state="unlocked", key={"value": HEX["a"]}))
    assert "The key is loaded, but these device nodes did not appear" in done.plan.failures[0].message


@pytest.mark.parametrize(
    ("parameters", "none"),
    [({}, False), ({"zvol_inhibit_dev": "0", "zvol_volmode": "1"}, False), ({"zvol_inhibit_dev": "1"}, True)]
    + [({"zvol_inhibit_dev": "0", "zvol_volmode": "3"}, True)],
)
def test_hosts_that_make_none(monkeypatch: pytest.MonkeyPatch, parameters: dict[str, str], none: bool) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(dataset_actions, "_parameter", lambda name: parameters.get(name, ""))
    assert dataset_actions._makes_no_nodes() is none
