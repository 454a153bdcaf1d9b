# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy ``truenas`` relies on what the same task makes of other datasets, but only as far as that is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_tools import (
    HEX,
    PASSPHRASES,
    four,
    locked,
    passphrase_root,
    replica,
    root,
    run,
    wishes,
    world,
)

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.mark.parametrize("received", [False, True])
def test_a_parent_gets_a_passphrase_if_its_child_inherits(tmp_path: Path, received: bool) -> None:
    zfs = world(root("plain/p", "a"), (replica if received else root)("plain/p/c", "b"))
    entries = [
        {"name": "plain/p", "key": {"format": "passphrase", "value": PASSPHRASES[0]}},
        {"name": "plain/p/c", "state": "inherited"},
    ]
    done = four(zfs, tmp_path, datasets=entries)
    assert [failure.branch for failure in done.plan.failures] == (["plain/p", "plain/p/c"] if received else [])
    wrapped = zfs.world.nodes["plain/p"].wrapped
    assert wrapped is not None and wrapped.format == ("hex" if received else "passphrase")


@pytest.mark.parametrize("received", [False, True])
def test_a_child_gets_a_hex_key_if_its_parent_does(tmp_path: Path, received: bool) -> None:
    zfs = world(passphrase_root("plain/p", PASSPHRASES[0], received=received, snapshots=[("s", 10**10, 200)]))
    entries = [
        {"name": "plain/p", "key": {"format": "hex", "value": HEX["a"]}},
        {"name": "plain/p/c", "key": {"format": "hex", "value": HEX["b"]}},
    ]
    done = four(zfs, tmp_path, datasets=entries)
    assert [failure.branch for failure in done.plan.failures] == (["plain/p", "plain/p/c"] if received else [])
    assert ("plain/p/c" in zfs.world.nodes) == (not received)


def test_what_is_refused_then_may_refuse_more(tmp_path: Path) -> None:
    """The grandparent relies on the parent, and that on the child."""
    zfs = world(
        root("plain/g", "a"),
        root("plain/g/p", "b"),
        replica("plain/g/p/c", "c"),
    )
    entries = [
        {"name": "plain/g", "key": {"format": "passphrase", "value": PASSPHRASES[0]}},
        {"name": "plain/g/p", "key": {"format": "passphrase", "value": PASSPHRASES[1]}},
        {"name": "plain/g/p/c", "state": "inherited"},
    ]
    done = four(zfs, tmp_path, datasets=entries)
    assert sorted(failure.branch for failure in done.plan.failures) == ["plain/g", "plain/g/p", "plain/g/p/c"]
    assert zfs.commands_that_change() == []


def test_a_child_that_only_could_not_be_mounted_inherits_all_the_same(tmp_path: Path) -> None:
    place = tmp_path / "c"
    place.mkdir()
    (place / "file").touch()
    zfs = world(root("plain/p", "a"), locked(root("plain/p/c", "b", properties={"mountpoint": str(place)})))
    entries = [
        {"name": "plain/p", "key": {"format": "passphrase", "value": PASSPHRASES[0]}},
        {"name": "plain/p/c", "state": "inherited", "key": {"value": HEX["b"]}},
    ]
    done = run(zfs, tmp_path / "keys", wishes(datasets=entries))
    assert "Let 'plain/p/c' use the key of 'plain/p'" in done.plan.actions
    assert any("Change the key of 'plain/p'" in action for action in done.plan.actions)
    assert "plain/p/c" in [failure.branch for failure in done.plan.failures]


def test_a_child_that_is_unlocked_and_then_refused_is_not_relied_on(tmp_path: Path) -> None:
    """It is unlocked by the entry of what it lies below, so that something is done to it."""
    zfs = world(root("plain/a", "a"), locked(root("plain/a/x", "b", origin="plain/y@s")))
    entries = [
        {"name": "plain", "state": "unlocked", "recursive": True},
        {"name": "plain/a", "key": {"format": "passphrase", "value": PASSPHRASES[0]}},
        {"name": "plain/a/x", "state": "inherited"},
    ]
    done = run(zfs, tmp_path, wishes(datasets=entries, keys={"plain/a/x": HEX["b"]}))
    assert sorted(failure.branch for failure in done.plan.failures) == ["plain/a", "plain/a/x"]
    wrapped = zfs.world.nodes["plain/a"].wrapped
    assert wrapped is not None and wrapped.format == "hex"
