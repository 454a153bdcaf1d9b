# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is planned for pools: commands as data, word by word."""

from __future__ import annotations

import base64
import typing as t
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.content import Finding
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command
from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Plan
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, encodings
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool import plan_pools
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_result import describe
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_state import PoolHost
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import Dataset
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.status import Vdev
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.hosts import (
    HEX,
    PASSPHRASE,
    blank,
    content,
    dormant,
    host,
    ids,
    key_file,
    leaf,
    mirror,
    no_key_file,
    plain,
    pool,
    properties,
    root,
    with_own,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.options import parse

Options = dict[str, t.Any]
Step = tuple[str, str]

HEX_VALUE = HEX.material.decode("ascii")
PASSPHRASE_VALUE = PASSPHRASE.material.decode("ascii")
AB = [{"type": "mirror", "disks": ids("ab")}]
FILE = {"file": "auto"}
NEW_FILE = {"file": "auto", "generate": True}
IN_FUNCTION = "-"
LOCKED = {"keystatus": "unavailable", "mounted": "no"}
PATH = "/etc/zfs/keys/tank.key"


def tank(**options: t.Any) -> Options:
    return {"name": "tank", **options}


def plan(options: Options, on: PoolHost) -> Plan:
    return plan_pools(parse(options), on)


def steps(made: Plan) -> list[Step]:
    """Titles, and command lines in which words with blanks are quoted; with ``<key`` if the key comes on stdin."""
    found = []
    for step in made.steps:
        line = IN_FUNCTION
        if isinstance(step.action, Command):
            line = " ".join(f"'{word}'" if " " in word else word for word in step.action.argv)
            line += " <key" if step.action.stdin is not None else ""
        found.append((step.title, line))
    return found


@dataclass(frozen=True)
class Case:
    """``before`` and ``after``: what the diff shows of the pool."""

    name: str
    options: Options
    on: PoolHost
    steps: list[Step] = field(default_factory=list)
    before: dict[str, t.Any] = field(default_factory=dict)
    after: dict[str, t.Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    reveals: bool = False


CREATED = {"state": "present", "vdevs": [f"mirror: {' '.join(ids('ab'))}"], "encryption": "aes-256-gcm"}
ABSENT = {"state": "absent", "vdevs": None, "encryption": None}

CASES = [
    Case(
        "new pool with a new key in its file",
        tank(vdevs=AB, key=NEW_FILE),
        host(files=[no_key_file()]),
        [
            (f"Write the new random hex key of 'tank' to {PATH}", IN_FUNCTION),
            (
                "Create pool 'tank', encrypted with aes-256-gcm",
                (
                    "zpool create -O encryption=aes-256-gcm -O keyformat=hex "
                    "-O keylocation=file:///etc/zfs/keys/tank.key "
                    "tank mirror /dev/disk/by-id/a /dev/disk/by-id/b"
                ),
            ),
        ],
        {**ABSENT, "keyformat": None, "keylocation": None},
        {**CREATED, "keyformat": "hex", "keylocation": f"file://{PATH}"},
    ),
    Case(
        "new pool with a passphrase that the controller keeps",
        tank(
            vdevs=[*AB, {"role": "cache", "disks": ids("c")}],
            key={"format": "passphrase", "value": PASSPHRASE_VALUE, "iterations": 1_300_000},
            cipher="aes-192-ccm",
            ashift=12,
            properties={"autotrim": True, "comment": None},
            filesystem_properties={"recordsize": "1M", "atime": False, "org.x:owner": "the team"},
        ),
        host(),
        [
            (
                "Create pool 'tank', encrypted with aes-192-ccm",
                (
                    "zpool create -o ashift=12 -o autotrim=on -O encryption=aes-192-ccm -O keyformat=passphrase "
                    "-O keylocation=prompt -O pbkdf2iters=1300000 -O recordsize=1048576 -O atime=off "
                    "-O 'org.x:owner=the team' tank mirror /dev/disk/by-id/a /dev/disk/by-id/b "
                    "cache /dev/disk/by-id/c <key"
                ),
            )
        ],
        {
            **ABSENT,
            "keyformat": None,
            "keylocation": None,
            "pbkdf2iters": None,
            "ashift": None,
            "properties": {"autotrim": None},
            "filesystem_properties": {"recordsize": None, "atime": None, "org.x:owner": None},
        },
        {
            **CREATED,
            "vdevs": [f"mirror: {' '.join(ids('ab'))}", "cache disk: /dev/disk/by-id/c"],
            "encryption": "aes-192-ccm",
            "keyformat": "passphrase",
            "keylocation": "prompt",
            "pbkdf2iters": 1_300_000,
            "ashift": 12,
            "properties": {"autotrim": "on"},
            "filesystem_properties": {"recordsize": "1048576", "atime": "off", "org.x:owner": "the team"},
        },
    ),
    Case(
        "new pool with a given key that is stored first",
        tank(vdevs=AB, cipher="on", key={"value": HEX_VALUE, "file": "/root/k"}),
        host(files=[no_key_file("/root/k")]),
        [
            ("Write the given hex key of 'tank' to /root/k", IN_FUNCTION),
            (
                "Create pool 'tank', encrypted with aes-256-gcm",
                (
                    "zpool create -O encryption=aes-256-gcm -O keyformat=hex -O keylocation=file:///root/k "
                    "tank mirror /dev/disk/by-id/a /dev/disk/by-id/b"
                ),
            ),
        ],
        {**ABSENT, "keyformat": None, "keylocation": None},
        {**CREATED, "keyformat": "hex", "keylocation": "file:///root/k"},
    ),
    Case(
        "new pool with a key file that is there",
        tank(vdevs=AB, key=FILE),
        host(files=[key_file(exposed=True)]),
        [
            (
                "Create pool 'tank', encrypted with aes-256-gcm",
                (
                    "zpool create -O encryption=aes-256-gcm -O keyformat=hex "
                    "-O keylocation=file:///etc/zfs/keys/tank.key "
                    "tank mirror /dev/disk/by-id/a /dev/disk/by-id/b"
                ),
            )
        ],
        {**ABSENT, "keyformat": None, "keylocation": None},
        {**CREATED, "keyformat": "hex", "keylocation": f"file://{PATH}"},
        (f"The key file {PATH} can be read by others than root; set its mode to 0400.",),
    ),
    Case(
        "new plain pool, of disks of different redundancy by force",
        tank(vdevs=[*AB, {"disks": ids("c")}], cipher="off", force=True),
        host(),
        [
            (
                "Create pool 'tank', not encrypted",
                "zpool create -f -O encryption=off tank /dev/disk/by-id/c mirror /dev/disk/by-id/a /dev/disk/by-id/b",
            )
        ],
        ABSENT,
        {**CREATED, "vdevs": [f"mirror: {' '.join(ids('ab'))}", "disk: /dev/disk/by-id/c"], "encryption": "off"},
    ),
    Case("pool that is as it should be", tank(vdevs=AB, key=FILE), host(pool(), files=[key_file()])),
    Case(
        "pool whose properties are as they should be, in other words",
        tank(
            properties={"autotrim": "off", "comment": "x y"},
            filesystem_properties={"recordsize": "128K", "compression": True, "acltype": "posixacl", "quota": None},
        ),
        host(
            pool(
                options=properties({"comment": "x y"}, "local"),
                dataset=with_own(root(quota="0"), acltype="posix"),
            )
        ),
    ),
    Case(
        "pool with other properties",
        tank(
            properties={"autotrim": True, "comment": None},
            filesystem_properties={"recordsize": "1M", "quota": None, "atime": None, "org.x:owner": "me"},
        ),
        host(
            pool(options=properties({"comment": "old"}, "local"), dataset=with_own(root(), quota="1024", atime="off"))
        ),
        [
            ("Set pool property autotrim=on on 'tank'", "zpool set autotrim=on tank"),
            ("Set pool property comment= on 'tank'", "zpool set comment= tank"),
            ("Set property recordsize=1048576 on 'tank'", "zfs set recordsize=1048576 tank"),
            ("Set property quota=none on 'tank'", "zfs set quota=none tank"),
            ("Unset property atime of 'tank'", "zfs inherit atime tank"),
            ("Set property org.x:owner=me on 'tank'", "zfs set org.x:owner=me tank"),
        ],
        {
            "properties": {"autotrim": "off", "comment": "old"},
            "filesystem_properties": {"recordsize": "131072", "quota": "1024", "atime": "off", "org.x:owner": None},
        },
        {
            "properties": {"autotrim": "on", "comment": ""},
            "filesystem_properties": {"recordsize": "1048576", "quota": "none", "atime": None, "org.x:owner": "me"},
        },
    ),
    Case(
        "new pool with a user property, which no pool can be created with",
        tank(vdevs=AB, cipher="off", properties={"comment": "x", "org.x:shelf": 3}),
        host(),
        [
            (
                "Create pool 'tank', not encrypted",
                "zpool create -o comment=x -O encryption=off tank mirror /dev/disk/by-id/a /dev/disk/by-id/b",
            ),
            ("Set pool property org.x:shelf=3 on 'tank'", "zpool set org.x:shelf=3 tank"),
        ],
        {**ABSENT, "properties": {"comment": None, "org.x:shelf": None}},
        {**CREATED, "encryption": "off", "properties": {"comment": "x", "org.x:shelf": "3"}},
    ),
    Case(
        "what can't be inherited goes back to its default",
        tank(filesystem_properties=dict.fromkeys(["canmount", "refquota", "snapshot_limit", "reservation"])),
        host(
            pool(
                dataset=with_own(
                    root(reservation="0"), canmount="noauto", refquota="1024", snapshot_limit="18446744073709551615"
                )
            )
        ),
        [
            ("Set property canmount=on on 'tank'", "zfs set canmount=on tank"),
            ("Set property refquota=none on 'tank'", "zfs set refquota=none tank"),
        ],
        {"filesystem_properties": {"canmount": "noauto", "refquota": "1024"}},
        {"filesystem_properties": {"canmount": "on", "refquota": "none"}},
    ),
    Case(
        "properties that come from elsewhere are not unset",
        tank(filesystem_properties={"quota": None, "atime": "inherit"}, properties={"autotrim": None, "comment": None}),
        host(
            pool(
                options={"comment": Property("-", "default")},
                dataset=root(quota="0", atime="on"),
            )
        ),
    ),
    Case(
        "a received value is taken back",
        tank(filesystem_properties={"compression": None}),
        host(pool(dataset=Dataset("tank", {**root().properties, "compression": Property("lz4", "received")}))),
        [("Unset property compression of 'tank'", "zfs inherit compression tank")],
        {"filesystem_properties": {"compression": "lz4"}},
        {"filesystem_properties": {"compression": None}},
    ),
    Case(
        "mountpoint below an altroot",
        tank(properties={"altroot": "/mnt"}, filesystem_properties={"mountpoint": "/data"}),
        host(pool(options=properties({"altroot": "/mnt"}, "local"), dataset=root(mountpoint="/mnt/data"))),
    ),
    Case(
        "pool that lacks vdevs",
        tank(
            vdevs=[*AB, {"type": "mirror", "disks": ids("cd")}, {"role": "log", "disks": ids("e")}],
            ashift=13,
        ),
        host(pool()),
        [
            (
                "Add to pool 'tank': mirror: /dev/disk/by-id/c /dev/disk/by-id/d, log disk: /dev/disk/by-id/e",
                "zpool add -o ashift=13 tank mirror /dev/disk/by-id/c /dev/disk/by-id/d log /dev/disk/by-id/e",
            )
        ],
        {"vdevs": [f"mirror: {' '.join(ids('ab'))}"]},
        {
            "vdevs": [
                f"mirror: {' '.join(ids('ab'))}",
                f"mirror: {' '.join(ids('cd'))}",
                "log disk: /dev/disk/by-id/e",
            ]
        },
    ),
    Case(
        "pool with vdevs that are not described, hurt",
        tank(vdevs=AB),
        host(pool(tree={"data": (mirror("ab"), mirror("cd")), "cache": (leaf("/dev/sde"),)}, health="DEGRADED")),
        warnings=(
            "Pool 'tank' is DEGRADED; see 'zpool status tank'.",
            (
                "Pool 'tank' has vdevs that are not described, which stay as they are: "
                "mirror: /dev/disk/by-id/c /dev/disk/by-id/d; cache disk: /dev/sde."
            ),
        ),
    ),
    Case(
        "locked pool with the key in its file",
        tank(key=FILE),
        host(pool(dataset=root(**LOCKED)), files=[key_file()], opens={"tank": True}),
        [
            (f"Unlock 'tank' with the key from {PATH}", f"zfs load-key -L file://{PATH} tank"),
            ("Mount the filesystems of 'tank'", IN_FUNCTION),
        ],
        {"locked": True, "mounted": False},
        {"locked": False, "mounted": True},
    ),
    Case(
        "locked pool with a passphrase",
        tank(key={"format": "passphrase", "value": PASSPHRASE_VALUE}, mount=False),
        host(
            pool(dataset=root(keyformat="passphrase", pbkdf2iters="350000", keylocation="prompt", **LOCKED)),
            opens={"tank": True},
        ),
        [("Unlock 'tank' with the key from key.value", "zfs load-key -L prompt tank <key")],
        {"locked": True},
        {"locked": False},
    ),
    Case(
        "locked pool without a key, which is where ZFS knows",
        tank(),
        host(pool(dataset=root(keylocation="https://me:pw@keys.example.org/tank", **LOCKED))),
        [
            ("Unlock 'tank' with the key from https://keys.example.org/tank", "zfs load-key tank"),
            ("Mount the filesystems of 'tank'", IN_FUNCTION),
        ],
        {"locked": True, "mounted": False},
        {"locked": False, "mounted": True},
    ),
    Case(
        "locked pool whose rotation was interrupted",
        tank(key=FILE),
        host(
            pool(dataset=root(**LOCKED)),
            files=[key_file(), key_file(PATH + ".new")],
            opens={"tank": False},
            successors={"tank": key_file(PATH + ".new")},
        ),
        [
            (f"Put the current key of 'tank' in its place, {PATH}", IN_FUNCTION),
            (f"Unlock 'tank' with the key from {PATH}", f"zfs load-key -L file://{PATH} tank"),
            ("Mount the filesystems of 'tank'", IN_FUNCTION),
        ],
        {"locked": True, "mounted": False},
        {"locked": False, "mounted": True},
    ),
    Case("locked pool that may stay locked", tank(unlock=False), host(pool(dataset=root(**LOCKED)))),
    Case(
        "unlocked pool that is not mounted",
        tank(),
        host(pool(dataset=root(mounted="no"))),
        [("Mount the filesystems of 'tank'", IN_FUNCTION)],
        {"mounted": False},
        {"mounted": True},
    ),
    Case(
        "unmounted pool that is to be mounted elsewhere",
        tank(filesystem_properties={"mountpoint": "/srv", "canmount": "on"}),
        host(pool(dataset=root(mounted="no", mountpoint="none", canmount="noauto"))),
        [
            ("Set property mountpoint=/srv on 'tank'", "zfs set mountpoint=/srv tank"),
            ("Set property canmount=on on 'tank'", "zfs set canmount=on tank"),
            ("Mount the filesystems of 'tank'", IN_FUNCTION),
        ],
        {"filesystem_properties": {"mountpoint": "none", "canmount": "noauto"}, "mounted": False},
        {"filesystem_properties": {"mountpoint": "/srv", "canmount": "on"}, "mounted": True},
    ),
    Case(
        "unmounted pool that is not to be mounted any more",
        tank(filesystem_properties={"mountpoint": "none"}),
        host(pool(dataset=root(mounted="no"))),
        [("Set property mountpoint=none on 'tank'", "zfs set mountpoint=none tank")],
        {"filesystem_properties": {"mountpoint": "/tank"}},
        {"filesystem_properties": {"mountpoint": "none"}},
    ),
    Case("pool that is not to be mounted", tank(mount=False), host(pool(dataset=root(mounted="no")))),
    Case("pool that does not want to be mounted", tank(), host(pool(dataset=root(mounted="no", canmount="noauto")))),
    Case("plain pool", tank(vdevs=AB, cipher="off"), host(pool(dataset=plain()))),
    Case(
        "key file that was lost is written again, once the key is proven",
        tank(key={"value": HEX_VALUE, "file": "auto"}),
        host(pool(), files=[no_key_file()], opens={"tank": True}),
        [(f"Write the given hex key of 'tank' to {PATH}", IN_FUNCTION)],
    ),
    Case(
        "key that moves into a file",
        tank(key={"value": HEX_VALUE, "file": "auto"}),
        host(pool(dataset=root(keylocation="prompt")), files=[no_key_file()], opens={"tank": True}),
        [
            (f"Write the given hex key of 'tank' to {PATH}", IN_FUNCTION),
            (f"Set the keylocation of 'tank' to file://{PATH}", f"zfs set keylocation=file://{PATH} tank"),
        ],
        {"keylocation": "prompt"},
        {"keylocation": f"file://{PATH}"},
    ),
    Case(
        "keylocation that points elsewhere",
        tank(key=FILE),
        host(pool(dataset=root(keylocation="file:///tmp/zettarepl-key")), files=[key_file()], opens={"tank": True}),
        [(f"Set the keylocation of 'tank' to file://{PATH}", f"zfs set keylocation=file://{PATH} tank")],
        {"keylocation": "file:///tmp/zettarepl-key"},
        {"keylocation": f"file://{PATH}"},
    ),
    Case(
        "keylocation with credentials, which are not shown",
        tank(key=FILE),
        host(pool(dataset=root(keylocation="https://me:pw@host/k")), files=[key_file()], opens={"tank": True}),
        [(f"Set the keylocation of 'tank' to file://{PATH}", f"zfs set keylocation=file://{PATH} tank")],
        {"keylocation": "https://host/k"},
        {"keylocation": f"file://{PATH}"},
    ),
    Case(
        "exported pool with its key",
        tank(vdevs=AB, key=FILE, properties={"altroot": "/mnt", "autotrim": True}),
        host(importable=[dormant(folders=("/srv/disks",))], files=[key_file()]),
        [
            ("Import pool 'tank' (17)", "zpool import -N -o altroot=/mnt -d /srv/disks 17"),
            (f"Unlock 'tank' with the key from {PATH}", f"zfs load-key -L file://{PATH} tank"),
            ("Mount the filesystems of 'tank'", IN_FUNCTION),
        ],
        {"state": "exported", "locked": True, "mounted": False},
        {"state": "present", "locked": False, "mounted": True},
        reveals=True,
    ),
    Case(
        "exported pool of another host, only to be imported",
        tank(import_foreign=True, unlock=False, mount=False, key={"value": HEX_VALUE}),
        host(importable=[dormant(message="The pool was last accessed by another system.", state="DEGRADED")]),
        [("Import pool 'tank' (17)", "zpool import -N -f 17")],
        {"state": "exported"},
        {"state": "present"},
        reveals=True,
    ),
    Case(
        "one of two exported pools with the same name",
        tank(confirm_guid=" 18 ", mount=False),
        host(importable=[dormant(), dormant(guid="18")]),
        [("Import pool 'tank' (18)", "zpool import -N 18")],
        {"state": "exported"},
        {"state": "present"},
        reveals=True,
    ),
    Case("pool to export that is not imported", tank(state="exported"), host(importable=[dormant()])),
    Case(
        "pool to export",
        tank(state="exported"),
        host(pool(), files=[key_file()]),
        [("Export pool 'tank'", "zpool export tank")],
        {"state": "present"},
        {"state": "exported"},
    ),
    Case("pool to destroy that is not there", tank(state="absent"), host(pool("vault"), importable=[dormant("vault")])),
    Case(
        "pool to destroy",
        tank(state="absent", confirm_guid="17"),
        host(pool()),
        [("Destroy pool 'tank' (17)", "zpool destroy tank")],
        {"state": "present"},
        {"state": "absent"},
    ),
    Case(
        "exported pool to destroy",
        tank(state="absent", confirm_guid="17"),
        host(importable=[dormant()]),
        [
            ("Import pool 'tank' (17) without mounting, to destroy it", "zpool import -N 17"),
            ("Destroy pool 'tank' (17)", "zpool destroy tank"),
        ],
        {"state": "exported"},
        {"state": "absent"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_plan(case: Case) -> None:
    made = plan(case.options, case.on)
    assert steps(made) == case.steps
    diff = made.diff()
    assert diff["before"].get("pools", {}).get("tank", {}) == case.before
    assert diff["after"].get("pools", {}).get("tank", {}) == case.after
    assert made.warnings == case.warnings
    assert bool(made.reveals) == case.reveals


def test_a_new_key_file_is_in_the_diff_without_its_content() -> None:
    diff = plan(tank(vdevs=AB, key={"value": HEX_VALUE, "file": "auto"}), host(files=[no_key_file()])).diff()
    assert diff["before"]["key_files"] == {PATH: None}
    assert diff["after"]["key_files"] == {PATH: "hex key of tank, readable by root only"}


def test_several_pools_are_one_plan_in_their_order() -> None:
    made = plan(
        {"pools": [tank(state="exported"), {"name": "vault", "vdevs": [{"disks": ids("c")}], "cipher": "off"}]},
        host(pool(), files=[key_file()]),
    )
    assert made.actions == ["Export pool 'tank'", "Create pool 'vault', not encrypted"]
    assert set(made.diff()["after"]["pools"]) == {"tank", "vault"}


def test_a_disk_that_holds_something_is_wiped_first_if_it_is_named() -> None:
    old = Finding('ext4 filesystem "old"', "/dev/sda", type="ext4")
    for name in ("SERIAL-a", "/dev/disk/by-id/a"):
        made = plan(tank(vdevs=AB, cipher="off", wipe_disks=[name]), host(contents=blank(content("a", old))))
        first, second = steps(made)
        assert first[0].startswith("Wipe /dev/disk/by-id/a (serial SERIAL-a")
        assert second[0] == "Create pool 'tank', not encrypted"
        assert made.diff()["before"]["disks"] == {"/dev/disk/by-id/a": {"content": 'ext4 filesystem "old"'}}
        assert made.diff()["after"]["disks"] == {"/dev/disk/by-id/a": {"content": None}}


def test_a_disk_of_an_exported_pool_is_wiped_only_if_that_pool_is_named_too() -> None:
    for label in (label_of("old"), label_of("old", guid="")):
        found = host(contents=blank(content("a", label)), importable=[dormant("old", "4711")])
        made = plan(tank(vdevs=AB, cipher="off", wipe_disks=["SERIAL-a", "4711"]), found)
        assert made.actions[0].startswith("Wipe /dev/disk/by-id/a")


def test_a_spare_or_cache_device_tells_nothing_of_its_pool() -> None:
    found = host(contents=blank(content("a", label_of("", guid=""))), importable=[dormant("old", "4711")])
    assert plan(tank(vdevs=AB, cipher="off", wipe_disks=["SERIAL-a"]), found).actions[0].startswith("Wipe")


@pytest.mark.parametrize("health", ["UNAVAIL", "FAULTED", "DEGRADED"])
def test_zpool_itself_answers_whether_a_broken_pool_can_be_destroyed(health: str) -> None:
    made = plan(tank(state="absent", confirm_guid="17"), host(pool(health=health)))
    assert made.actions == ["Destroy pool 'tank' (17)"]


@pytest.mark.parametrize("label", [("old", "4712"), ("other", "")], ids=["another GUID", "another name"])
def test_what_is_left_of_a_pool_that_can_not_be_imported_any_more_needs_no_guid(label: tuple[str, str]) -> None:
    found = host(contents=blank(content("a", label_of(*label))), importable=[dormant("old", "4711")])
    assert plan(tank(vdevs=AB, cipher="off", wipe_disks=["SERIAL-a"]), found).actions[0].startswith("Wipe")


def label_of(name: str, guid: str = "4711") -> Finding:
    return Finding(f'ZFS label of pool "{name}"', "/dev/sda1", type="zfs_member", pool=name, pool_guid=guid)


EXT4 = Finding("ext4 filesystem", "/dev/sda", type="ext4")
MOUNTED = Finding("mounted on /home", "/dev/sda", True, "mount")
STILL_A_POOL = (
    "/dev/disk/by-id/a is not blank: it belongs to the pool 'old' (4711), which is not imported but could be "
    'imported: its state is ONLINE (if that pool is to be lost, add its GUID to wipe_disks: "4711")'
)
FOREIGN = "The pool was last accessed by another system."

REFUSALS: list[tuple[str, Options, PoolHost, str, str]] = [
    ("no vdevs", tank(key=NEW_FILE), host(), "can't be created without a vdev for data", "unlock them if"),
    (
        "only a cache",
        tank(vdevs=[{"role": "cache", "disks": ids("a")}], cipher="off"),
        host(),
        "can't be created without a vdev for data",
        "Name its vdevs",
    ),
    (
        "no key",
        tank(vdevs=AB),
        host(),
        "is to be created encrypted with aes-256-gcm, but there is no key",
        'cipher: "off"',
    ),
    ("no key for this cipher", tank(vdevs=AB, cipher="aes-128-gcm"), host(), "encrypted with aes-128-gcm, but", "key:"),
    (
        "no key file",
        tank(vdevs=AB, key=FILE),
        host(files=[no_key_file()]),
        f"The key file {PATH} for the new pool 'tank' does not exist",
        "generate: true",
    ),
    (
        "a new key in memory",
        tank(vdevs=AB, key={"file": "auto", "generate": True}),
        host(files=[no_key_file(memory="tmpfs")]),
        f"The new random key of 'tank' would exist in {PATH} only. That is in memory (tmpfs)",
        "/data/keys/tank.key",
    ),
    (
        "no key in the key file",
        tank(vdevs=AB, key=FILE),
        host(files=[key_file(key=None, fault="it has 63 characters.")]),
        f"The key file {PATH} of 'tank' can't be used: it has 63 characters.",
        "never overwritten",
    ),
    (
        "another key in the key file",
        tank(vdevs=AB, key={"value": "b2" * 32, "file": "auto"}),
        host(files=[key_file()]),
        f"The key file {PATH} holds another key than key.value for 'tank'",
        "outdated",
    ),
    (
        "key file on the pool",
        tank(key={"file": "/tank/k"}),
        host(pool(), files=[key_file("/tank/k", source="tank")]),
        "lies on 'tank', inside the pool that it opens",
        "/etc/zfs/keys",
    ),
    (
        "key file in a dataset of the pool",
        tank(key={"file": "/x/k", "value": HEX_VALUE}),
        host(pool(), files=[key_file("/x/k", source="tank/a b")]),
        "lies on 'tank/a b'",
        "/etc/zfs/keys",
    ),
    (
        "key file below the mountpoint of the new pool",
        tank(vdevs=AB, key={"file": "/tank/k", "generate": True}),
        host(files=[no_key_file("/tank/k")]),
        "The key file /tank/k would lie below /tank",
        "/etc/zfs/keys",
    ),
    (
        "key file below another mountpoint of the new pool",
        tank(vdevs=AB, key={"file": "/srv/nas/k", "generate": True}, filesystem_properties={"mountpoint": "/srv/nas"}),
        host(files=[no_key_file("/srv/nas/k")]),
        "would lie below /srv/nas",
        "/etc/zfs/keys",
    ),
    (
        "something at the mountpoint of the new pool",
        tank(vdevs=AB, cipher="off"),
        host(obstacles={"/tank": "the mountpoint /tank is not empty"}),
        "can't be mounted: the mountpoint /tank is not empty",
        "Move away what is there",
    ),
    (
        "something at the mountpoint of an unmounted pool",
        tank(),
        host(pool(dataset=root(mounted="no")), obstacles={"/tank": "the mountpoint /tank is not empty"}),
        "can't be mounted: the mountpoint /tank is not empty",
        "mount: false",
    ),
    (
        "something at the new mountpoint",
        tank(filesystem_properties={"mountpoint": "/srv"}),
        host(pool(dataset=root(mounted="no")), obstacles={"/srv": "the mountpoint /srv is not empty"}),
        "can't be mounted: the mountpoint /srv is not empty",
        "choose another mountpoint",
    ),
    (
        "different redundancy",
        tank(vdevs=[*AB, {"disks": ids("c")}], cipher="off"),
        host(),
        "would differ in redundancy: mirror of 2 and disk of 1",
        "force: true",
    ),
    (
        "different redundancy of an added vdev",
        tank(vdevs=[*AB, {"disks": ids("c")}]),
        host(pool()),
        "would differ in redundancy",
        "force: true",
    ),
    (
        "disk that is not blank",
        tank(vdevs=AB, cipher="off"),
        host(contents=blank(content("a", EXT4))),
        "/dev/disk/by-id/a is not blank: ext4 filesystem",
        "wipe_disks names it",
    ),
    (
        "another disk may be wiped",
        tank(vdevs=AB, cipher="off", wipe_disks=["SERIAL-b", "/dev/disk/by-id/b"]),
        host(contents=blank(content("a", EXT4))),
        "/dev/disk/by-id/a is not blank",
        "wipe_disks",
    ),
    (
        "disk of an exported pool, which may be wiped",
        tank(vdevs=AB, cipher="off", wipe_disks=["SERIAL-a"]),
        host(contents=blank(content("a", label_of("old"))), importable=[dormant("old", "4711")]),
        STILL_A_POOL,
        "Check that these are the right disks",
    ),
    (
        "disk of a pool that lacks one of two disks",
        tank(vdevs=AB, cipher="off", wipe_disks=["SERIAL-a"]),
        host(contents=blank(content("a", label_of("old"))), importable=[dormant("old", "4711", "DEGRADED")]),
        STILL_A_POOL.replace("ONLINE", "DEGRADED"),
        "",
    ),
    (
        "disk of a pool that can't be imported, since others are missing",
        tank(vdevs=AB, cipher="off", wipe_disks=["SERIAL-a"]),
        host(contents=blank(content("a", label_of("old"))), importable=[dormant("old", "4711", "UNAVAIL")]),
        STILL_A_POOL.replace(" but could be imported: its state is ONLINE", ": its state is UNAVAIL"),
        "",
    ),
    (
        "disk of an exported pool without a GUID in its label, which may be wiped for a pool that grows",
        tank(vdevs=[*AB, {"role": "cache", "disks": ids("c")}], wipe_disks=["SERIAL-c", "17"]),
        host(pool(), contents=blank(content("c", label_of("old", ""))), importable=[dormant("old", "4711")]),
        "/dev/disk/by-id/c is not blank: it belongs to the pool 'old' (4711)",
        "",
    ),
    (
        "disk in use, whatever may be wiped",
        tank(vdevs=AB, cipher="off", wipe_disks=["SERIAL-a"], force=True),
        host(contents=blank(content("a", MOUNTED, EXT4))),
        "/dev/disk/by-id/a is in use: mounted on /home",
        "a disk in use never",
    ),
    (
        "disk of another pool",
        tank(vdevs=AB, cipher="off"),
        host(pool("vault", tree={"data": (leaf("/dev/sda"),)})),
        "/dev/disk/by-id/a is in use by the imported pool 'vault'",
        "Check that these are the right disks",
    ),
    (
        "disk that is missing",
        tank(vdevs=AB, cipher="off"),
        host(contents=blank(content("b", access="missing", problem="/dev/disk/by-id/b does not exist."))),
        "can't get these disks, so nothing was changed: /dev/disk/by-id/b does not exist.",
        "right disks",
    ),
    (
        "disk that is too small",
        tank(vdevs=AB, cipher="off"),
        host(contents=blank(content("b", size=63 << 20))),
        "/dev/disk/by-id/b has 66060288 bytes; ZFS needs at least 67108864",
        "right disks",
    ),
    (
        "disks of different size",
        tank(vdevs=AB, cipher="off"),
        host(contents=blank(content("b", size=(4 << 30) + (16 << 20) + 1))),
        "differ in size: 4294967296 to 4311744513 bytes",
        "force: true",
    ),
    (
        "file and disk",
        tank(vdevs=AB, cipher="off"),
        host(contents=blank(content("b", kind="file"))),
        "would mix files and disks",
        "one or the other",
    ),
    (
        "added disk that is not blank",
        tank(vdevs=[*AB, {"role": "cache", "disks": ids("c")}]),
        host(pool(), contents=blank(content("c", EXT4))),
        "/dev/disk/by-id/c is not blank",
        "wipe_disks",
    ),
    (
        "vdev of another shape",
        tank(vdevs=[{"type": "mirror", "disks": ids("abc")}]),
        host(pool()),
        "but these disks are in it as [mirror: /dev/disk/by-id/a /dev/disk/by-id/b], not all of them",
        "never reshaped",
    ),
    (
        "another cipher",
        tank(cipher="aes-128-gcm"),
        host(pool()),
        "should be encrypted with 'aes-128-gcm', but its root dataset has 'aes-256-gcm'",
        "chosen once",
    ),
    ("no cipher any more", tank(cipher="off"), host(pool()), "should be encrypted with 'off'", "chosen once"),
    (
        "a cipher on a plain pool",
        tank(cipher="on"),
        host(pool(dataset=plain())),
        "root dataset has 'off'",
        "chosen once",
    ),
    (
        "a key on a plain pool",
        tank(key=FILE),
        host(pool(dataset=plain()), files=[no_key_file()]),
        "but its root dataset is not encrypted",
        'cipher: "off"',
    ),
    (
        "another key format",
        tank(key={"format": "passphrase", "value": PASSPHRASE_VALUE}),
        host(pool()),
        "should be of format 'passphrase', but it is 'hex'",
        "zfs change-key",
    ),
    (
        "other iterations",
        tank(key={"format": "passphrase", "value": PASSPHRASE_VALUE, "iterations": 400_000}),
        host(pool(dataset=root(keyformat="passphrase", pbkdf2iters="350000"))),
        "should have 400000 PBKDF2 iterations, but it has 350000",
        "change-key",
    ),
    (
        "wrong key for a locked pool",
        tank(key={"value": HEX_VALUE}),
        host(pool(dataset=root(**LOCKED)), opens={"tank": False}),
        "The key from key.value is not the one that opens 'tank'; nothing was changed",
        "last backup",
    ),
    (
        "wrong key in the file for a locked pool",
        tank(key=FILE),
        host(pool(dataset=root(**LOCKED)), files=[key_file()], opens={"tank": False}),
        f"The key from {PATH} is not the one that opens 'tank'",
        "last backup",
    ),
    (
        "wrong key to be stored",
        tank(key={"value": HEX_VALUE, "file": "auto"}),
        host(pool(), files=[no_key_file()], opens={"tank": False}),
        "The key from key.value is not the one that opens 'tank'",
        "last backup",
    ),
    (
        "wrong key in the file that becomes the keylocation",
        tank(key=FILE),
        host(pool(dataset=root(keylocation="prompt")), files=[key_file()], opens={"tank": False}),
        f"The key from {PATH} is not the one that opens 'tank'",
        "last backup",
    ),
    (
        "locked pool whose key file is lost",
        tank(key=NEW_FILE),
        host(pool(dataset=root(**LOCKED)), files=[no_key_file()]),
        f"The key file {PATH} of pool 'tank' is missing",
        "Restore it from a backup",
    ),
    (
        "unlocked pool whose key file is lost",
        tank(key=NEW_FILE),
        host(pool(), files=[no_key_file()]),
        f"The key file {PATH} of pool 'tank' is missing",
        "do not reboot or lock it",
    ),
    (
        "locked pool without a key",
        tank(),
        host(pool(dataset=root(keylocation="prompt", **LOCKED))),
        "Pool 'tank' is locked, and no key is given",
        "unlock: false",
    ),
    (
        "property that is fixed at creation",
        tank(filesystem_properties={"casesensitivity": "insensitive"}),
        host(pool(dataset=root(casesensitivity="sensitive"))),
        "Property 'casesensitivity' of 'tank' should be 'insensitive', but is 'sensitive'",
        "",
    ),
    (
        "property that is chosen at import",
        tank(properties={"altroot": "/mnt"}),
        host(pool()),
        "The pool property 'altroot' of 'tank' should be '/mnt' and is '-'",
        "Export the pool first",
    ),
    (
        "pool property without a default",
        tank(properties={"org_nasops": None}),
        host(pool(options=properties({"org_nasops": "x"}, "local"))),
        "The pool property 'org_nasops' can't be unset; pool 'tank' has 'x'",
        "Give the value",
    ),
    (
        "suspended pool",
        tank(),
        host(pool(health="SUSPENDED")),
        "is SUSPENDED: it can't be read or changed",
        "zpool clear tank",
    ),
    ("suspended pool to export", tank(state="exported"), host(pool(health="UNAVAIL")), "is UNAVAIL", "zpool clear"),
    (
        "suspended pool to destroy",
        tank(state="absent", confirm_guid="17"),
        host(pool(health="SUSPENDED")),
        "is SUSPENDED: 'zpool destroy' would wait for its devices without an end",
        "run 'zpool clear tank' and this task again. If they are gone for good, restart the host",
    ),
    (
        "suspended pool to destroy, without its GUID",
        tank(state="absent"),
        host(pool(health="SUSPENDED")),
        "confirm_guid is not set",
        'confirm_guid: "17"',
    ),
    (
        "another pool of this name",
        tank(confirm_guid="18"),
        host(pool()),
        "confirm_guid is 18, but the imported pool 'tank' has the GUID 17",
        "",
    ),
    (
        "another exported pool of this name",
        tank(confirm_guid="18", vdevs=AB, cipher="off"),
        host(importable=[dormant(), dormant(guid="19")]),
        "confirm_guid is 18, but the pool 'tank' on these disks has the GUID 17 or 19; it was not touched",
        "",
    ),
    (
        "two exported pools of one name",
        tank(),
        host(importable=[dormant(), dormant(guid="18")]),
        "There are 2 pools named 'tank' that could be imported: 17, 18",
        "confirm_guid",
    ),
    (
        "pool of another host",
        tank(),
        host(importable=[dormant(message=FOREIGN)]),
        "Pool 'tank' (17) was last used by another host and not exported there",
        "import_foreign: true",
    ),
    (
        "pool of another host to destroy",
        tank(state="absent", confirm_guid="17"),
        host(importable=[dormant(message=FOREIGN)]),
        "was last used by another host",
        "import_foreign",
    ),
    (
        "pool that can't be imported",
        tank(),
        host(importable=[dormant(state="UNAVAIL", message="One or more devices are missing.")]),
        "its state is UNAVAIL. One or more devices are missing.",
        "still locked",
    ),
    (
        "exported pool whose key file is lost",
        tank(key=NEW_FILE),
        host(importable=[dormant()], files=[no_key_file()]),
        f"Pool 'tank' is locked, and its key file {PATH} does not exist",
        "Restore the file from a backup",
    ),
    (
        "pool to export with its key file on it",
        tank(state="exported"),
        host(pool(dataset=root(keylocation="file:///tank/k")), files=[key_file("/tank/k", source="tank")]),
        "lies on 'tank', inside the pool that it opens",
        "system disk",
    ),
    (
        "pool to destroy without its GUID",
        tank(state="absent"),
        host(pool()),
        "would be destroyed with all its data, but confirm_guid is not set",
        'confirm_guid: "17"',
    ),
    (
        "exported pool to destroy without its GUID",
        tank(state="absent"),
        host(importable=[dormant()]),
        "would be destroyed with all its data, but confirm_guid is not set",
        'confirm_guid: "17"',
    ),
    (
        "another pool to destroy",
        tank(state="absent", confirm_guid="18"),
        host(pool()),
        "confirm_guid is 18, but pool 'tank' has the GUID 17; it was not touched",
        "another pool",
    ),
]


@pytest.mark.parametrize("options,on,message,hint", [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_what_is_refused(options: Options, on: PoolHost, message: str, hint: str) -> None:
    with pytest.raises(Refused) as caught:
        plan(options, on)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_what_is_refused_for_one_pool_stops_all() -> None:
    with pytest.raises(Refused):
        plan({"pools": [tank(state="exported"), {"name": "vault"}]}, host(pool(), files=[key_file()]))


def test_every_disk_that_is_refused_is_listed() -> None:
    mounted = Finding("mounted on /home", "/dev/sdb1", True, "mount")
    on = host(contents=blank(content("a", EXT4), content("b", mounted)))
    with pytest.raises(Refused) as caught:
        plan(tank(vdevs=[{"type": "mirror", "disks": ids("abc")}], cipher="off"), on)
    assert caught.value.details["refused_disks"] == [
        "/dev/disk/by-id/a is not blank: ext4 filesystem",
        "/dev/disk/by-id/b is in use: mounted on /home on /dev/sdb1",
    ]


@pytest.mark.parametrize("name", ["/dev/sda", "/dev/vdb", "/dev/nvme0n1", "/dev/disk/by-path/pci-0"])
def test_names_that_change_are_no_names_of_disks_to_wipe(name: str) -> None:
    with pytest.raises(BadInput, match="can mean another disk after the next start"):
        plan(tank(vdevs=AB, cipher="off", wipe_disks=[name]), host())


def test_the_same_disk_twice_is_bad_input_before_anything_else() -> None:
    with pytest.raises(BadInput, match="asked for twice in pool 'tank'"):
        plan(tank(vdevs=[{"type": "mirror", "disks": ["/dev/disk/by-id/a", "/dev/sda"]}]), host())


def test_a_failed_creation_and_a_failed_unlock_can_be_taken_back() -> None:
    (create,) = plan(tank(vdevs=AB, cipher="off"), host()).steps
    assert len(create.undo) == 3
    imported = plan(tank(key=FILE), host(importable=[dormant()], files=[key_file()])).steps
    assert imported[1].undo == (Command(("zpool", "export", "tank")),)
    (unlock, _mount) = plan(
        tank(key=FILE), host(pool(dataset=root(**LOCKED)), files=[key_file()], opens={"tank": True})
    ).steps
    assert unlock.undo == ()


def shown(name: str, on: PoolHost, state: str = "present") -> dict[str, t.Any]:
    """The result of the module for one pool."""
    (wanted,) = parse({"name": name, "state": state})
    return describe(wanted, on)


def key_options() -> st.SearchStrategy[tuple[Key, Options]]:
    def build(raw: bytes, key_format: str) -> tuple[Key, Options]:
        if key_format == "hex":
            key = Key("hex", raw.hex().encode("ascii"))
            return key, {"format": "hex", "value": raw.hex()}
        if key_format == "raw":
            return Key("raw", raw), {"format": "raw", "value": base64.b64encode(raw).decode("ascii")}
        text = base64.b64encode(raw).decode("ascii")
        return Key("passphrase", text.encode("ascii")), {"format": "passphrase", "value": text}

    return st.builds(build, st.binary(min_size=32, max_size=32), st.sampled_from(["hex", "raw", "passphrase"]))


@given(key_options(), st.sampled_from(["create", "create with file", "unlock", "import", "restore"]))
def test_no_key_is_in_what_a_plan_tells(given_key: tuple[Key, Options], situation: str) -> None:
    key, option = given_key
    facts = {"keyformat": key.format, "keylocation": "prompt"}
    files = [no_key_file()]
    on = {
        "create": host(),
        "create with file": host(files=files),
        "unlock": host(pool(dataset=root(**{**facts, **LOCKED})), opens={"tank": True}),
        "import": host(importable=[dormant()]),
        "restore": host(pool(dataset=root(**facts)), files=files, opens={"tank": True}),
    }[situation]
    if situation in ("create with file", "restore"):
        option = {**option, "file": "auto"}
    vdevs = AB if situation.startswith("create") else []
    made = plan(tank(vdevs=vdevs, key=option), on)
    assert made.changed
    told = [repr(made), repr(made.diff()), *made.actions, *made.warnings, repr(parse(tank(key=option)))]
    told += [repr(shown("tank", on)), repr(on)]
    for step in made.steps:
        if isinstance(step.action, Command):
            told += step.action.argv
    for spelling in encodings(key.material):
        assert not [text for text in told if spelling in text]
    # It is handed over on stdin, or written to its file.
    handed = [step.action.stdin for step in made.steps if isinstance(step.action, Command) and step.action.stdin]
    assert handed == ([key.stdin()] if situation in ("create", "unlock", "import") else [])


class TestDescribe:
    def test_an_imported_pool(self) -> None:
        assert shown("tank", host(pool())) == {
            "name": "tank",
            "state": "present",
            "guid": "17",
            "health": "ONLINE",
            "encryption": "aes-256-gcm",
            "keyformat": "hex",
            "keylocation": "file:///etc/zfs/keys/tank.key",
            "locked": False,
            "mounted": True,
            "mountpoint": "/tank",
        }

    def test_a_plain_pool_that_is_mounted_nowhere(self) -> None:
        found = shown("tank", host(pool(dataset=plain(mountpoint="none", mounted="no"))))
        assert (found["encryption"], found["keyformat"], found["keylocation"]) == ("off", None, None)
        assert (found["mounted"], found["mountpoint"]) == (False, None)

    def test_credentials_are_not_shown(self) -> None:
        found = shown("tank", host(pool(dataset=root(keylocation="https://me:pw@host/k"))))
        assert found["keylocation"] == "https://host/k"

    def test_an_exported_and_an_absent_pool(self) -> None:
        on = host(importable=[dormant()])
        assert {**shown("tank", on), "name": None} == {
            **dict.fromkeys(shown("tank", on)),
            "state": "exported",
            "guid": "17",
        }
        assert shown("vault", on) == {**dict.fromkeys(shown("tank", on)), "name": "vault", "state": "absent"}

    def test_a_pool_to_export_counts_as_exported_wherever_its_disks_are(self) -> None:
        assert shown("tank", host(), "exported")["state"] == "exported"
        assert shown("tank", host(pool()), "exported")["state"] == "present"
        assert shown("tank", host(), "absent")["state"] == "absent"

    def test_a_pool_whose_dataset_could_not_be_read(self) -> None:
        hurt = pool(health="SUSPENDED")
        hurt = type(hurt)(hurt.name, hurt.guid, hurt.health, hurt.properties, hurt.tree, None)
        found = shown("tank", host(hurt))
        assert (found["state"], found["health"], found["encryption"], found["locked"]) == (
            "present",
            "SUSPENDED",
            None,
            None,
        )


def test_a_hot_spare_at_work_is_no_reason_to_do_anything() -> None:
    hurt = Vdev(
        "mirror",
        "mirror-0",
        "DEGRADED",
        (
            leaf("/dev/disk/by-id/a"),
            Vdev("spare", "spare-1", "DEGRADED", (leaf("/dev/disk/by-id/b", "UNAVAIL"), leaf("/dev/disk/by-id/c"))),
        ),
    )
    tree = {"data": (hurt,), "spare": (leaf("/dev/disk/by-id/c", "INUSE"),)}
    made = plan(tank(vdevs=[*AB, {"role": "spare", "disks": ids("c")}]), host(pool(tree=tree, health="DEGRADED")))
    assert made.steps == ()
