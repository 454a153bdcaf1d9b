# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_option import WantedKey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_options import WantedPool
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.topology import WantedVdev
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.options import parse

HEX = "0f" * 32


def one(**options: t.Any) -> WantedPool:
    (pool,) = parse({"name": "tank", **options})
    return pool


def refusal(options: t.Mapping[str, t.Any]) -> BadInput:
    with pytest.raises(BadInput) as caught:
        parse(options)
    return caught.value


def test_a_name_is_enough() -> None:
    assert one() == WantedPool("tank")


def test_everything_at_once() -> None:
    pool = one(
        state="present",
        vdevs=[{"type": "raidz", "disks": ["/a", "/b"]}, {"role": "cache", "disks": ["/c", "/d"]}],
        cipher="aes-128-gcm",
        key={"value": HEX, "file": "/root/k"},
        properties={"autotrim": True, "comment": None},
        filesystem_properties={"recordsize": "1M", "org.x:n": 5},
        ashift="12",
        unlock="no",
        mount=False,
        import_foreign=True,
        search_paths=["/srv"],
        confirm_guid=" 17\n",
        wipe_disks=["SERIAL"],
        force=True,
    )
    assert pool == WantedPool(
        name="tank",
        state="present",
        vdevs=(
            WantedVdev("data", "raidz1", ("/a", "/b")),
            WantedVdev("cache", "disk", ("/c",)),
            WantedVdev("cache", "disk", ("/d",)),
        ),
        cipher="aes-128-gcm",
        key=WantedKey("hex", Key("hex", HEX.encode("ascii")), "/root/k"),
        properties={"autotrim": "on", "comment": None},
        filesystem_properties={"recordsize": "1048576", "org.x:n": "5"},
        ashift=12,
        unlock=False,
        mount=False,
        import_foreign=True,
        search_paths=("/srv",),
        confirm_guid="17",
        wipe_disks=("SERIAL",),
        force=True,
    )
    assert pool.disks == ("/a", "/b", "/c", "/d")


@pytest.mark.parametrize(
    "given,cipher",
    [
        ("on", "aes-256-gcm"),
        (True, "aes-256-gcm"),
        ("off", "off"),
        (False, "off"),
        ("aes-192-ccm", "aes-192-ccm"),
    ],
)
def test_yaml_turns_a_cipher_into_a_boolean(given: t.Any, cipher: str) -> None:
    assert one(cipher=given).cipher == cipher


def test_pools_is_a_list_of_the_same() -> None:
    assert parse({"pools": [{"name": "tank", "cipher": "off"}, {"name": "my pool", "state": "exported"}]}) == (
        WantedPool("tank", cipher="off"),
        WantedPool("my pool", state="exported"),
    )
    assert parse({"pools": []}) == ()


@pytest.mark.parametrize(
    "options,message",
    [
        ({}, "Neither 'name' nor 'pools' is set"),
        ({"name": "tank", "pools": []}, "Both 'name' and 'pools' are set"),
        ({"pools": [{"name": "a"}], "force": True, "cipher": "on"}, "found outside: cipher, force"),
        ({"pools": [{"name": "a"}], "vdevs": [{"disks": ["/a"]}]}, "found outside: vdevs"),
        ({"pools": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "names the same pool more than once: a."),
        ({"name": "1tank"}, "'1tank' is no name for a pool"),
        ({"name": "tank/a"}, "'tank/a' is no name for a pool"),
        ({"name": "mirror"}, "which ZFS keeps for vdevs"),
        ({"pools": [{"name": "tank", "key": {"value": "x"}}]}, "Pool 'tank': key.value is not a hex key"),
        ({"name": "tank", "cipher": "off", "key": {"value": HEX}}, "Pool 'tank': cipher is off, but a key is given"),
        (
            {"name": "tank", "filesystem_properties": {"encryption": "on", "keylocation": "prompt"}},
            "holds encryption, keylocation",
        ),
        ({"name": "tank", "properties": {"ashift": 12}}, "Pool 'tank': properties holds ashift"),
        ({"name": "tank", "properties": {"comment": ["a"]}}, "The value of property 'comment' is a list"),
        ({"name": "tank", "filesystem_properties": {"quota": {"a": 1}}}, "The value of property 'quota' is a dict"),
        (
            {"name": "tank", "filesystem_properties": {"atime": "maybe"}},
            "Pool 'tank': Property 'atime' is either on or off",
        ),
        (
            {"name": "tank", "vdevs": [{"type": "mirror", "disks": ["/a"]}]},
            "Pool 'tank': A mirror needs at least 2 disks",
        ),
        (
            {"name": "tank", "vdevs": [{"type": "mirror", "role": "cache", "disks": ["/a", "/b"]}]},
            "role 'cache' can't be of type",
        ),
    ],
)
def test_what_can_not_be_right(options: dict[str, t.Any], message: str) -> None:
    assert message in refusal(options).message


WRITTEN = {"file": "/root/k", "generate": True}
GIVEN = {"file": "/root//k", "value": HEX}
THERE = {"file": "/root/k"}


@pytest.mark.parametrize("one_key,other_key", [(WRITTEN, WRITTEN), (WRITTEN, THERE), (THERE, GIVEN), (GIVEN, GIVEN)])
def test_two_pools_do_not_write_one_key_file(one_key: dict[str, t.Any], other_key: dict[str, t.Any]) -> None:
    error = refusal({"pools": [{"name": "a", "key": one_key}, {"name": "b", "key": other_key}, {"name": "c"}]})
    assert "The pools a, b share the key file /root/k, and one of them would write it" in error.message


def test_pools_may_share_a_key_file_that_is_there() -> None:
    assert len(parse({"pools": [{"name": "a", "key": THERE}, {"name": "b", "key": THERE}]})) == 2
    assert (
        len(parse({"pools": [{"name": "a", "key": WRITTEN}, {"name": "b", "key": {"file": "auto", "generate": True}}]}))
        == 2
    )
    assert len(parse({"pools": [{"name": "a", "key": WRITTEN}, {"name": "b", "state": "exported", "key": THERE}]})) == 2


@pytest.mark.parametrize(
    "filesystem_properties,properties,mountpoint",
    [
        ({}, {}, "/tank"),
        ({"mountpoint": None}, {}, "/tank"),
        ({"mountpoint": "/srv/data"}, {}, "/srv/data"),
        ({"mountpoint": "/"}, {}, "/"),
        ({"mountpoint": "none"}, {}, ""),
        ({"mountpoint": "legacy"}, {}, ""),
        ({"canmount": False}, {}, ""),
        ({}, {"altroot": "/mnt"}, "/mnt/tank"),
        ({"mountpoint": "/srv"}, {"altroot": "/mnt/"}, "/mnt/srv"),
        ({"mountpoint": "/"}, {"altroot": "/mnt"}, "/mnt"),
        ({"mountpoint": "none"}, {"altroot": "/mnt"}, ""),
    ],
)
def test_where_a_new_pool_will_be_mounted(
    filesystem_properties: dict[str, t.Any], properties: dict[str, t.Any], mountpoint: str
) -> None:
    assert one(filesystem_properties=filesystem_properties, properties=properties).mountpoint() == mountpoint
