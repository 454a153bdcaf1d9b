# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tasks of zfs_dataset_key on a model of a host, as its entry point does."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome, converge
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import keystore
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_options import (
    Wishes,
    argument_spec,
    parse_options,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.dataset_read import (
    Survey,
    survey,
    survey_again,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.dataset_host import (
    DatasetZfs,
    Node,
    World,
)

Options = dict[str, t.Any]

HEX = {letter: letter * 64 for letter in "abcdef"}
PASSPHRASES = ("correct horse", "battery staple", "tr0ub4dor and 3")


def wishes(**options: t.Any) -> Wishes:
    """Options as AnsibleModule hands them over: with every word there is."""
    return parse_options(_filled(options, argument_spec()))


def _filled(options: Options, spec: t.Mapping[str, t.Any]) -> Options:
    filled = {word: options.pop(word, kind.get("default")) for word, kind in spec.items()}
    assert not options, f"unknown words: {options}"
    for word, value in filled.items():
        inner = spec[word].get("options")
        if inner and isinstance(value, dict):
            filled[word] = _filled(dict(value), inner)
        elif inner and isinstance(value, list):
            filled[word] = [_filled(dict(one), inner) for one in value]
    return filled


def run(zfs: DatasetZfs, folder: Path, wanted: Wishes, check: bool = False) -> Outcome[Survey]:
    """One run of a task."""
    runner = t.cast(t.Any, zfs)
    return converge(
        lambda: survey(runner, wanted, str(folder)),
        lambda found: found.plan,
        zfs,
        check,
        lambda before, done: survey_again(runner, wanted, before, done),
    )


def four(zfs: DatasetZfs, folder: Path, **options: t.Any) -> Outcome[Survey]:
    """Check, apply, check, apply; returns what the first apply did."""
    wanted = wishes(**options)
    before = zfs.copy().world
    check = run(zfs, folder, wanted, check=True)
    assert zfs.world == before, "check mode changed something"
    apply = run(zfs, folder, wanted)
    assert check.plan.actions == apply.plan.actions
    assert check.plan.diff() == apply.plan.diff()
    assert [one.branch for one in check.plan.failures] == [one.branch for one in apply.plan.failures]
    for again in (run(zfs, folder, wanted, check=True), run(zfs, folder, wanted)):
        assert again.plan.actions == []
        assert [str(one) for one in again.plan.failures] == [str(one) for one in apply.plan.failures]
    return apply


def file_of(folder: Path, name: str) -> str:
    """Where ``file: auto`` keeps the key of a dataset."""
    return keystore.path_for(keystore.AUTO, name, str(folder))


def key(letter: str) -> Key:
    return Key("hex", HEX[letter].encode())


def world(*nodes: Node) -> DatasetZfs:
    """A host with a pool ``plain`` that is not encrypted, and these datasets."""
    return DatasetZfs(World({one.name: one for one in (Node("plain", mounted=True), *nodes)}))


def root(name: str, letter: str = "a", **facts: t.Any) -> Node:
    """An encryption root with a hex key, unlocked and mounted unless said otherwise."""
    values: dict[str, t.Any] = {
        "cipher": "aes-256-gcm",
        "root": name,
        "wrapped": key(letter),
        "location": "prompt",
        "loaded": True,
        "mounted": True,
    }
    return Node(name, **{**values, **facts})


def replica(name: str, letter: str = "a", **facts: t.Any) -> Node:
    """A root that came as a stream with properties, of which only these tell."""
    return root(name, letter, **{"received": True, "snapshots": [("s", 10**10, 200)], **facts})


def passphrase_root(name: str, text: str, **facts: t.Any) -> Node:
    values: dict[str, t.Any] = {"wrapped": Key("passphrase", text.encode()), "iterations": 100000, "salt": 77}
    return root(name, **{**values, **facts})


def child(name: str, of: str, **facts: t.Any) -> Node:
    """A dataset that uses the key of another."""
    return Node(name, **{"cipher": "aes-256-gcm", "root": of, "mounted": True, **facts})


def locked(node: Node) -> Node:
    node.loaded = node.mounted = False
    return node
