# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the offered keys counts, wherever a task offers it, and what a task would have read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.offer_options import offered, was_asked_for
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.offers import Offer

A, B, C, D = (digit * 64 for digit in "abcd")


def test_an_entry_counts_before_keys_and_those_before_manifests_and_the_file_comes_last(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(dict.fromkeys(("one", "two", "three", "four"), D)))
    params = {
        "keys": {"one": B, "two": B},
        "manifest": [{"two": C, "three": C}, json.dumps({"three": D})],
        "manifest_file": str(file),
    }
    offers = offered(params, [("one", Offer("an entry", A))])
    first = {name: offers.of(name)[0].text for name in ("one", "two", "three", "four")}
    assert first == {"one": A, "two": B, "three": C, "four": D}


def test_without_these_options_nothing_is_offered() -> None:
    assert offered({}).explicit == {}
    assert offered({"keys": None, "manifest": None, "manifest_file": None}).explicit == {}


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        offered({"manifest_file": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    "name,recursive,seen",
    [
        (None, True, ["tank", "tank/a", "tanks"]),
        ("tank", True, ["tank", "tank/a"]),
        ("tank/a", True, ["tank/a"]),
        ("tank", False, []),
        (None, False, []),
    ],
)
def test_what_would_have_been_read(name: str | None, recursive: bool, seen: list[str]) -> None:
    asked_for = was_asked_for({"name": name, "recursive": recursive})
    assert [one for one in ("tank", "tank/a", "tanks") if asked_for(one)] == seen
