# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import Dataset
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.summary import summarize, unencrypted


def dataset(name: str, root: str = "", **values: str) -> Dataset:
    """A filesystem below an encryption root, or one that is not encrypted."""
    facts = {"type": "filesystem", "mountpoint": f"/{name}", "mounted": "yes", "encryption": "off"}
    if root:
        facts.update(
            encryption="aes-256-gcm",
            encryptionroot=root,
            keystatus="available",
            keyformat="hex",
            keylocation=f"file:///k/{name}" if name == root else "none",
            pbkdf2iters="0",
        )
    facts.update(values)
    return Dataset(name, {key: Property(value, "local") for key, value in facts.items()})


def table(*datasets: Dataset) -> dict[str, Dataset]:
    return {one.name: one for one in datasets}


def test_one_row_per_root_with_the_datasets_that_use_its_key() -> None:
    rows = summarize(
        table(
            dataset("tank/b", "tank"),
            dataset("tank", "tank"),
            dataset(
                "tank/a", "tank/a", keyformat="passphrase", pbkdf2iters="350000", keystatus="unavailable", mounted="no"
            ),
            dataset(
                "tank/a/vol",
                "tank/a",
                type="volume",
                mountpoint="-",
                mounted="-",
                encryption="aes-128-ccm",
                keystatus="unavailable",
            ),
            dataset("boot"),
        )
    )
    assert rows == [
        {
            "name": "tank",
            "pool": "tank",
            "type": "filesystem",
            "cipher": "aes-256-gcm",
            "key_format": "hex",
            "key_location": "file:///k/tank",
            "iterations": None,
            "iterations_below_policy": False,
            "key_loaded": True,
            "locked": False,
            "mounted": True,
            "mountpoint": "/tank",
            "children": [
                {
                    "name": "tank/b",
                    "type": "filesystem",
                    "cipher": "aes-256-gcm",
                    "locked": False,
                    "mounted": True,
                    "mountpoint": "/tank/b",
                }
            ],
        },
        {
            "name": "tank/a",
            "pool": "tank",
            "type": "filesystem",
            "cipher": "aes-256-gcm",
            "key_format": "passphrase",
            "key_location": "file:///k/tank/a",
            "iterations": 350_000,
            "iterations_below_policy": True,
            "key_loaded": False,
            "locked": True,
            "mounted": False,
            "mountpoint": "/tank/a",
            "children": [
                {
                    "name": "tank/a/vol",
                    "type": "volume",
                    "cipher": "aes-128-ccm",
                    "locked": True,
                    "mounted": None,
                    "mountpoint": None,
                }
            ],
        },
    ]


def test_a_root_that_was_not_read_is_known_by_its_children() -> None:
    (row,) = summarize(table(dataset("tank/a/b", "tank", keyformat="passphrase", pbkdf2iters="350000")))
    assert (row["name"], row["type"], row["cipher"], row["key_location"], row["mounted"]) == (
        "tank",
        None,
        None,
        None,
        None,
    )
    assert (row["key_format"], row["iterations"], row["locked"]) == ("passphrase", 350_000, False)
    assert [child["name"] for child in row["children"]] == ["tank/a/b"]


def test_a_root_outside_that_was_read_all_the_same_is_shown_in_full() -> None:
    child, own = dataset("tank/a/b", "tank"), dataset("tank", "tank")
    (row,) = summarize(table(child), table(own, dataset("other", "other")))
    assert (row["name"], row["type"], row["cipher"], row["key_location"]) == (
        "tank",
        "filesystem",
        "aes-256-gcm",
        "file:///k/tank",
    )
    assert [one["name"] for one in row["children"]] == ["tank/a/b"]


@pytest.mark.parametrize(
    "key_format,iterations,minimum,below",
    [
        ("passphrase", "350000", 1_300_000, True),
        ("passphrase", "1299999", 1_300_000, True),
        ("passphrase", "1300000", 1_300_000, False),
        ("passphrase", "350000", 350_000, False),
        ("hex", "0", 1_300_000, False),
        ("raw", "0", 1_300_000, False),
    ],
)
def test_passphrases_with_less_iterations_than_wanted_are_marked(
    key_format: str, iterations: str, minimum: int, below: bool
) -> None:
    found = table(dataset("tank", "tank", keyformat=key_format, pbkdf2iters=iterations))
    (row,) = summarize(found, minimum_iterations=minimum)
    assert row["iterations_below_policy"] is below


def test_the_iterations_that_truenas_wants_are_those_wanted_when_nothing_is_said() -> None:
    (row,) = summarize(table(dataset("tank", "tank", keyformat="passphrase", pbkdf2iters="1299999")))
    assert row["iterations_below_policy"] is True


def test_credentials_in_a_location_are_not_shown() -> None:
    (row,) = summarize(table(dataset("tank", "tank", keylocation="https://me:pw@host/k")))
    assert row["key_location"] == "https://host/k"


def test_what_is_not_encrypted_and_looks_as_if_it_were() -> None:
    rows = unencrypted(
        table(
            dataset("tank", "tank"), dataset("tank/plain"), dataset("tank/plain/x"), dataset("boot"), dataset("boot/x")
        )
    )
    assert [(row["name"], row["below_encrypted"]) for row in rows] == [
        ("boot", False),
        ("boot/x", False),
        ("tank/plain", True),
        ("tank/plain/x", True),
    ]
    assert rows[0] == {
        "name": "boot",
        "type": "filesystem",
        "cipher": "off",
        "locked": False,
        "mounted": True,
        "mountpoint": "/boot",
        "below_encrypted": False,
    }


def test_a_neighbour_is_not_below() -> None:
    rows = unencrypted(table(dataset("tank/a", "tank/a"), dataset("tank/ab"), dataset("tank")))
    assert [row["below_encrypted"] for row in rows] == [False, False]


names = st.lists(st.sampled_from(["a", "b", "c d"]), min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(names, st.booleans(), max_size=8))
def test_every_dataset_is_in_exactly_one_place(encrypted: dict[str, bool]) -> None:
    datasets = table(*(dataset(name, name.split("/")[0] if flag else "") for name, flag in encrypted.items()))
    roots, plain = summarize(datasets), unencrypted(datasets)
    shown = [child["name"] for row in roots for child in row["children"]] + [row["name"] for row in plain]
    shown += [row["name"] for row in roots if row["name"] in datasets and encrypted[row["name"]]]
    assert sorted(shown) == sorted(encrypted)
    assert [row["name"] for row in roots] == sorted(row["name"] for row in roots)
