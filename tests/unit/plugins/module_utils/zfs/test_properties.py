# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import (
    CIPHERS,
    FILESYSTEM,
    MANAGED,
    POOL,
    Given,
    Property,
    filesystem_type,
    parse_size,
    pool_type,
    same,
    wanted_text,
)

# Wanted as a person writes it in YAML, what zfs is handed, what ``zfs get -Hp`` prints afterwards.
FILESYSTEM_VALUES: list[tuple[str, Given, str, str]] = [
    ("atime", True, "on", "on"),
    ("atime", False, "off", "off"),
    ("atime", "on", "on", "on"),
    ("atime", "off", "off", "off"),
    ("atime", "yes", "on", "on"),
    ("atime", "no", "off", "off"),
    ("atime", "true", "on", "on"),
    ("atime", "False", "off", "off"),
    ("atime", "On", "on", "on"),
    ("atime", "OFF", "off", "off"),
    ("readonly", "off", "off", "off"),
    ("recordsize", "128K", "131072", "131072"),
    ("recordsize", "128k", "131072", "131072"),
    ("recordsize", "128KB", "131072", "131072"),
    ("recordsize", "128KiB", "131072", "131072"),
    ("recordsize", "128 KiB", "131072", "131072"),
    ("recordsize", 131072, "131072", "131072"),
    ("recordsize", "131072", "131072", "131072"),
    ("recordsize", 131072.0, "131072", "131072"),
    ("recordsize", "1M", "1048576", "1048576"),
    ("special_small_blocks", 0, "0", "0"),
    ("special_small_blocks", "0.5K", "512", "512"),
    ("quota", "1.5G", "1610612736", "1610612736"),
    ("quota", "10T", "10995116277760", "10995116277760"),
    ("quota", "none", "none", "0"),
    ("quota", 0, "0", "0"),
    ("quota", "0", "0", "0"),
    ("refquota", "none", "none", "0"),
    ("reservation", "none", "none", "0"),
    ("refreservation", "none", "none", "0"),
    ("defaultuserquota", "10G", "10737418240", "10737418240"),
    ("defaultgroupquota", "none", "none", "0"),
    ("defaultprojectquota", "1.5G", "1610612736", "1610612736"),
    ("defaultuserobjquota", "10K", "10240", "10240"),
    ("defaultgroupobjquota", 1000, "1000", "1000"),
    ("defaultprojectobjquota", "none", "none", "0"),
    ("filesystem_limit", "none", "none", "18446744073709551615"),
    ("snapshot_limit", 1000, "1000", "1000"),
    ("compression", True, "on", "on"),
    ("compression", "lz4", "lz4", "lz4"),
    ("compression", "gzip-6", "gzip-6", "gzip"),
    ("compression", "zstd-3", "zstd-3", "zstd"),
    ("compression", "zstd-fast-1", "zstd-fast-1", "zstd-fast"),
    ("compression", "zstd-19", "zstd-19", "zstd-19"),
    ("acltype", "posixacl", "posixacl", "posix"),
    ("acltype", "noacl", "noacl", "off"),
    ("acltype", False, "off", "off"),
    ("aclinherit", "secure", "secure", "restricted"),
    ("copies", 2, "2", "2"),
    ("copies", "3", "3", "3"),
    ("utf8only", True, "on", "on"),
    ("normalization", "formD", "formD", "formD"),
    ("mountpoint", "/srv/nas data", "/srv/nas data", "/srv/nas data"),
    ("mountpoint", "none", "none", "none"),
    ("canmount", "noauto", "noauto", "noauto"),
    ("canmount", False, "off", "off"),
    ("volsize", "1G", "1073741824", "1073741824"),
    ("volblocksize", "16K", "16384", "16384"),
    ("volmode", "full", "full", "geom"),
    ("sharenfs", "rw=@10.0.0.0/8,no_root_squash", "rw=@10.0.0.0/8,no_root_squash", "rw=@10.0.0.0/8,no_root_squash"),
    ("org.nasops:owner", "team $HOME ~ 'x'", "team $HOME ~ 'x'", "team $HOME ~ 'x'"),
    ("org.nasops:count", 7, "7", "7"),
    ("org.nasops:note", "two\nlines", "two\nlines", "two\nlines"),
]

POOL_VALUES: list[tuple[str, Given, str, str]] = [
    ("autotrim", True, "on", "on"),
    ("autotrim", "off", "off", "off"),
    ("autoexpand", "yes", "on", "on"),
    ("comment", "shelf 3", "shelf 3", "shelf 3"),
    ("comment", "", "", "-"),
    ("bootfs", "", "", "-"),
    ("cachefile", "/tmp/cache", "/tmp/cache", "/tmp/cache"),
    ("cachefile", "none", "none", "none"),
    ("failmode", "continue", "continue", "continue"),
    ("compatibility", "openzfs-2.1-linux", "openzfs-2.1-linux", "openzfs-2.1-linux"),
    ("dedup_table_quota", "1G", "1073741824", "1073741824"),
    ("dedup_table_quota", "none", "none", "0"),
    ("feature@lz4_compress", "enabled", "enabled", "enabled"),
    ("feature@lz4_compress", "enabled", "enabled", "active"),
    ("altroot", "/mnt", "/mnt", "/mnt"),
    ("org.nasops:shelf", 3, "3", "3"),
]


@pytest.mark.parametrize("name,given_value,text,read", FILESYSTEM_VALUES)
def test_dataset_values_from_yaml(name: str, given_value: Given, text: str, read: str) -> None:
    kind = filesystem_type(name)
    assert wanted_text(name, given_value, kind) == text
    assert same(text, read, kind)
    assert same(read, read, kind)


@pytest.mark.parametrize("name,given_value,text,read", POOL_VALUES)
def test_pool_values_from_yaml(name: str, given_value: Given, text: str, read: str) -> None:
    kind = pool_type(name)
    assert wanted_text(name, given_value, kind) == text
    assert same(text, read, kind)


@pytest.mark.parametrize(
    "name,wanted,read",
    [
        ("atime", "on", "off"),
        ("recordsize", "131072", "1048576"),
        ("quota", "none", "1048576"),
        ("quota", "1G", "0"),
        ("compression", "on", "lz4"),
        ("compression", "gzip", "gzip-9"),
        ("copies", "2", "1"),
        ("acltype", "posix", "off"),
        ("mountpoint", "/a", "/a/"),
        ("org.nasops:note", "on", "On"),
        ("org.nasops:note", "128K", "131072"),
        ("encryption", "aes-256-gcm", "off"),
    ],
)
def test_other_dataset_values_are_different(name: str, wanted: str, read: str) -> None:
    assert not same(wanted, read, filesystem_type(name))


@pytest.mark.parametrize(
    "name,wanted,read",
    [
        ("comment", "a", "-"),
        ("comment", "none", "-"),
        ("cachefile", "none", "-"),
        ("comment", "a", "b"),
        ("feature@zstd_compress", "enabled", "disabled"),
        ("autotrim", "on", "off"),
    ],
)
def test_other_pool_values_are_different(name: str, wanted: str, read: str) -> None:
    assert not same(wanted, read, pool_type(name))


@pytest.mark.parametrize("name", ["atime", "recordsize", "mountpoint", "org.nasops:owner", "compression"])
@pytest.mark.parametrize("value", [None, "inherit"])
def test_null_and_inherit_unset_a_property(name: str, value: Given) -> None:
    assert wanted_text(name, value, filesystem_type(name)) is None


@pytest.mark.parametrize(
    "name,value,part",
    [
        ("atime", "maybe", "either on or off, not 'maybe'"),
        ("atime", 1, "either on or off, not '1'"),
        ("atime", "on\n", "line break"),
        ("recordsize", "big", "takes a size, not 'big'"),
        ("recordsize", "-1", "takes a size, not '-1'"),
        ("recordsize", "1X", "takes a size, not '1X'"),
        ("recordsize", "1 2", "takes a size, not '1 2'"),
        ("recordsize", "", "takes a size, not ''"),
        ("recordsize", "128K\n", "line break"),
        ("copies", "two", "takes a whole number, not 'two'"),
        ("copies", "-1", "takes a whole number, not '-1'"),
        ("quota", False, "takes a size, not false"),
        ("copies", True, "takes a number, not true"),
        ("copies", 1.5, "takes a whole number, not '1.5'"),
    ],
)
def test_values_that_do_not_fit_the_type_are_refused(name: str, value: Given, part: str) -> None:
    with pytest.raises(BadInput) as caught:
        wanted_text(name, value, filesystem_type(name))
    assert part in caught.value.message
    assert f"'{name}'" in caught.value.message


UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}


@given(
    st.integers(0, 2**20),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(["", " "]),
    st.sampled_from(["", "B", "iB"]),
    st.booleans(),
)
def test_a_size_in_any_spelling_is_its_bytes(number: int, unit: str, blank: str, tail: str, lower: bool) -> None:
    if unit in ("", "B"):
        tail = ""
    text = f"{number}{blank}{unit}{tail}"
    text = text.lower() if lower else text
    assert parse_size("quota", text) == number * UNITS[unit]


@given(st.integers(0, 2**64 - 1))
def test_every_size_in_bytes_is_exact(number: int) -> None:
    assert parse_size("quota", str(number)) == number
    assert wanted_text("quota", number, filesystem_type("quota")) == str(number)


@given(st.sampled_from(sorted(FILESYSTEM)), st.data())
def test_what_zfs_reads_back_is_what_was_wanted(name: str, data: st.DataObject) -> None:
    """ZFS prints sizes in bytes, the canonical word for an alias, and everything else as it was set."""
    kind = filesystem_type(name)
    words = sorted({*kind.aliases, *kind.aliases.values()})
    by_kind: dict[str, st.SearchStrategy[Given]] = {
        "switch": st.sampled_from([True, False, "on", "off", "yes", "no"]),
        "number": st.integers(0, 9),
        "size": st.one_of(
            st.integers(0, 2**50), st.builds("{}{}".format, st.integers(0, 999), st.sampled_from("KMGT"))
        ),
        "text": st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1).filter(
            lambda text: text != "inherit"
        ),
    }
    strategy = by_kind[kind.kind]
    if words:
        strategy = st.one_of(strategy, st.sampled_from(words))
    wanted = wanted_text(name, data.draw(strategy), kind)
    assert wanted is not None
    read = kind.aliases.get(wanted, wanted)
    assert same(wanted, read, kind)
    assert same(read, wanted, kind)
    # Handing ZFS what it printed is no change either.
    assert wanted_text(name, read, kind) == read


@given(st.sampled_from(sorted(POOL)))
def test_the_default_of_a_pool_property_is_the_value_that_unset_stands_for(name: str) -> None:
    kind = pool_type(name)
    if kind.default is not None:
        assert same(kind.default, kind.aliases.get(kind.default, kind.default) or "-", kind)


def test_on_is_the_cipher_that_openzfs_reads_back() -> None:
    kind = filesystem_type("encryption")
    assert same("on", "aes-256-gcm", kind)
    for cipher in CIPHERS:
        assert same(cipher, cipher, kind)
        assert same("on", cipher, kind) == (cipher == "aes-256-gcm")


def test_what_is_fixed_at_creation() -> None:
    fixed = {name for name, kind in FILESYSTEM.items() if kind.when == "create"}
    assert fixed == {"casesensitivity", "encryption", "normalization", "utf8only", "volblocksize"}
    assert {name for name, kind in POOL.items() if kind.when == "attach"} == {"altroot", "readonly"}


def test_the_properties_of_the_key_have_options_of_their_own() -> None:
    assert set(MANAGED) == {"encryption", "keyformat", "keylocation", "pbkdf2iters"}


@pytest.mark.parametrize(
    "source,own",
    [
        ("local", True),
        ("received", True),
        ("default", False),
        ("inherited", False),
        ("none", False),
        ("temporary", False),
    ],
)
def test_a_value_is_its_own_only_if_it_was_given_to_this_dataset(source: str, own: bool) -> None:
    assert Property("on", source).own is own
