# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.names import (
    ancestors,
    check_dataset_name,
    check_pool_name,
    key_file_name,
)

POOL_CHARACTERS = string.ascii_letters + string.digits + "_.: -"
RESERVED = ("mirror", "raidz", "draid", "spare")

pool_names = (
    st.builds(str.__add__, st.sampled_from(string.ascii_letters), st.text(POOL_CHARACTERS, max_size=30))
    .filter(lambda name: not name.endswith(" "))
    .filter(lambda name: name != "log" and not name.startswith(RESERVED))
)
components = st.text(POOL_CHARACTERS + "%", min_size=1, max_size=20).filter(lambda part: part not in (".", ".."))
datasets = st.builds(lambda pool, parts: "/".join([pool, *parts]), pool_names, st.lists(components, max_size=4))


@given(pool_names)
def test_every_name_that_zfs_allows_for_a_pool_is_taken(name: str) -> None:
    assert check_pool_name(name) == name
    assert check_dataset_name(name) == name


@given(datasets)
def test_every_name_that_zfs_allows_for_a_dataset_is_taken(name: str) -> None:
    assert check_dataset_name(name) == name


@pytest.mark.parametrize("name", ["a", "Z", "logs", "log1", "alog", "mirrors"[:5], "my pool", "a.b:c-d_e", "x" * 255])
def test_names_at_the_border_that_are_fine(name: str) -> None:
    assert check_pool_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "1tank",
        "-tank",
        "_tank",
        ".tank",
        "tank ",
        "tank\n",
        "tänk",
        "a/b",
        "a@b",
        "a#b",
        "a,b",
        "a%b",
        "a\tb",
        "a'b",
    ],
)
def test_other_names_for_a_pool_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="no name for a pool"):
        check_pool_name(name)


@pytest.mark.parametrize(
    "name", ["log", "mirror", "mirror-0", "raidz", "raidz2x", "draid", "draid1", "spare", "spares"]
)
def test_names_that_zfs_keeps_for_vdevs_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="which ZFS keeps for vdevs"):
        check_pool_name(name)


def test_names_longer_than_255_bytes_are_refused() -> None:
    with pytest.raises(BadInput, match="longer than the 255 bytes"):
        check_pool_name("x" * 256)
    with pytest.raises(BadInput, match="longer than the 255 bytes"):
        check_dataset_name("tank/" + "x" * 251)
    assert check_dataset_name("tank/" + "x" * 250)


@pytest.mark.parametrize("name", ["tank@snap", "tank/a@snap", "tank#mark", "tank/a#mark"])
def test_snapshots_and_bookmarks_are_told_apart(name: str) -> None:
    with pytest.raises(BadInput, match="snapshot or bookmark"):
        check_dataset_name(name)


@pytest.mark.parametrize(
    "name", ["tank/", "tank//a", "/tank", "tank/.", "tank/..", "tank/a/../b", "tank/ü", "tank/a\n", "tank/a,b"]
)
def test_other_names_for_a_dataset_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="no name for a"):
        check_dataset_name(name)


def test_the_pool_of_a_dataset_has_to_have_a_name_for_a_pool() -> None:
    with pytest.raises(BadInput, match="which ZFS keeps for vdevs"):
        check_dataset_name("mirror/a")


def test_ancestors_come_nearest_first() -> None:
    assert list(ancestors("tank/a/b c/d")) == ["tank/a/b c", "tank/a", "tank"]
    assert list(ancestors("tank")) == []


@given(datasets)
def test_a_dataset_lies_below_each_of_its_ancestors(name: str) -> None:
    above = list(ancestors(name))
    assert len(above) == name.count("/")
    assert all(name.startswith(ancestor + "/") for ancestor in above)


class TestKeyFileName:
    def test_it_can_be_read_by_a_person(self) -> None:
        assert key_file_name("tank") == "tank.key"
        assert key_file_name("my pool/a%b") == "my%20pool%2Fa%25b.key"

    @given(datasets)
    def test_it_is_one_component_of_a_path_that_every_filesystem_takes(self, name: str) -> None:
        file_name = key_file_name(name)
        assert len(file_name.encode("utf-8")) <= 251
        assert set(file_name) <= set(string.ascii_letters + string.digits + "-_.:%")
        assert file_name.endswith(".key")
        assert not file_name.startswith(".")

    @given(datasets, datasets)
    def test_different_datasets_have_different_files(self, one: str, other: str) -> None:
        assume(one != other)
        assert key_file_name(one) != key_file_name(other)

    @given(st.text("/ %a", min_size=1, max_size=250), st.text("/ %a", min_size=1, max_size=250))
    def test_so_have_datasets_with_long_names(self, one: str, other: str) -> None:
        assume(one != other)
        assert key_file_name("tank/" + one) != key_file_name("tank/" + other)
        assert len(key_file_name("tank/" + one)) <= 251

    def test_names_that_differ_only_far_behind_stay_different(self) -> None:
        names = ["tank/" + "/".join(["part"] * 49) + suffix for suffix in ("/x", "/y", "/x y", "")]
        found = {key_file_name(name) for name in names}
        assert len(found) == len(names)
        assert all(len(file_name) <= 251 for file_name in found)

    @pytest.mark.parametrize("length,readable", [(239, True), (240, True), (241, False), (242, False), (246, False)])
    def test_it_is_readable_as_long_as_it_fits(self, length: int, readable: bool) -> None:
        name = "x" * length
        assert (key_file_name(f"tank/{name}") == f"tank%2F{name}.key") is readable
        assert len(key_file_name(f"tank/{name}")) <= 251

    def test_it_never_changes_because_keys_are_found_by_it(self) -> None:
        assert key_file_name("tank/" + "a b/" * 60 + "end") == (
            "tank" + "%2Fa%20b" * 22 + "%2-a9a4be5db8e38cb9d13320766a8d746f70f207ab1d0423bc3fd6824df0e7653b.key"
        )
