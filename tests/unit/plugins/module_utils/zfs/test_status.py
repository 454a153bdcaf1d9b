# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``zpool status -P`` prints, column by column as OpenZFS 2.1 to 2.3 do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.status import Tree, Vdev, parse_status
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.zpool_text import (
    Row,
    status_text,
    tabbed,
)


def disk(path: str, state: str = "ONLINE") -> Vdev:
    return Vdev("disk", path, state)


def outline(tree: Tree) -> dict[str, list[tuple[str, tuple[tuple[str, ...], ...]]]]:
    """Shape and devices of each top-level vdev, by role."""
    return {role: [(vdev.shape, vdev.slots()) for vdev in vdevs] for role, vdevs in tree.items()}


# Debian 13, OpenZFS 2.3.
WHOLE = tabbed("""\
  pool: tank
 state: ONLINE
  scan: scrub repaired 0B in 00:00:01 with 0 errors on Sun Nov  9 00:24:02 2025
config:

|NAME                                         STATE     READ WRITE CKSUM
|tank                                         ONLINE       0     0     0
|  raidz2-0                                   ONLINE       0     0     0
|    /dev/disk/by-id/ata-WD40_WCC7K0A-part1   ONLINE       0     0     0
|    /dev/disk/by-id/ata-WD40_WCC7K0B-part1   ONLINE       0     0     0
|    /dev/disk/by-id/ata-WD40_WCC7K0C-part1   ONLINE       0     0     0
|    /dev/disk/by-id/ata-WD40_WCC7K0D-part1   ONLINE       0     0     0
|special\t
|  mirror-1                                   ONLINE       0     0     0
|    /dev/nvme0n1p1                           ONLINE       0     0     0
|    /dev/nvme1n1p1                           ONLINE       0     0     0
|dedup\t
|  /dev/nvme2n1p1                             ONLINE       0     0     0
|logs\t
|  mirror-3                                   ONLINE       0     0     0
|    /dev/nvme3n1p1                           ONLINE       0     0     0
|    /dev/nvme4n1p1                           ONLINE       0     0     0
|cache
|  /dev/nvme5n1p1                             ONLINE       0     0     0
|  /dev/nvme6n1p1                             ONLINE       0     0     0
|spares
|  /dev/sdx1                                  AVAIL   \n\nerrors: No known data errors
""")

# Two pools, one with a replacement, a missing disk and a hot spare at work (OpenZFS 2.1).
HURT = tabbed("""\
  pool: backup pool
 state: ONLINE
status: Some supported and requested features are not enabled on the pool.
|The pool can still be used, but some features are unavailable.
action: Enable all features using 'zpool upgrade'. Once this is done,
|the pool may no longer be accessible by software that does not support
|the features. See zpool-features(7) for details.
config:

|NAME           STATE     READ WRITE CKSUM
|backup pool    ONLINE       0     0     0
|  /srv/a file  ONLINE       0     0     0
|  /srv/b       ONLINE       0     0     0  block size: 512B configured, 4096B native

errors: No known data errors

  pool: tank
 state: DEGRADED
status: One or more devices is currently being resilvered.  The pool will
|continue to function, possibly in a degraded state.
action: Wait for the resilver to complete.
  scan: resilver in progress since Sat Nov 22 10:00:00 2025
|1.10T scanned at 1.20G/s, 320G issued at 350M/s, 4.00T total
|80G resilvered, 8.00% done, 03:02:01 to go
remove: Removal of vdev 3 copied 1.2G in 0h0m, completed on Sat Nov 22 09:00:00 2025
|12K memory used for removed device mappings
config:

|NAME                                   STATE     READ WRITE CKSUM
|tank                                   DEGRADED     0     0     0
|  mirror-0                             DEGRADED     0     0     0
|    /dev/sda1                          ONLINE       0     0     0
|    replacing-1                        DEGRADED     0     0     0
|      9523123512311231231              UNAVAIL      0     0     0  was /dev/sdb1/old
|      /dev/sdb1                        ONLINE       0     0     0  (resilvering)
|  mirror-1                             DEGRADED     0     0     0
|    spare-0                            DEGRADED     0     0     0
|      14523123512311231231             UNAVAIL      3   120     0  was /dev/disk/by-id/ata-X-part1
|      /dev/sdg1                        ONLINE       0     0     0
|    /dev/sdd1                          FAULTED     12     0     0  too many errors
|  mirror-2                             DEGRADED     0     0     0
|    2222222222222222222                OFFLINE      0     0     0  was /dev/my disk
|    /dev/sdf1                          ONLINE       0     0     0
|spares
|  /dev/sdg1                            INUSE     currently in use
|  /dev/sdh1                            AVAIL   \n\nerrors: 2 data errors, use '-v' for a list
""")

# FreeBSD, OpenZFS 2.2.
FREEBSD = tabbed("""\
  pool: storage
 state: ONLINE
  scan: none requested
config:

|NAME                                                  STATE     READ WRITE CKSUM
|storage                                               ONLINE       0     0     0
|  mirror-0                                            ONLINE       0     0     0
|    /dev/gptid/c7c1dd5f-1e8a-11ec-9d64-0242ac130003   ONLINE       0     0     0
|    /dev/gptid/c7d1dd5f-1e8a-11ec-9d64-0242ac130003   ONLINE       0     0     0
|  mirror-1                                            ONLINE       0     0     0
|    /dev/ada2p2                                       ONLINE       0     0     0
|    /dev/gpt/disk 3.eli                               ONLINE       0     0     0

errors: No known data errors

  pool: zroot
 state: ONLINE
config:

|NAME            STATE     READ WRITE CKSUM
|zroot           ONLINE       0     0     0
|  /dev/vtbd0p4  ONLINE       0     0     0

errors: No known data errors
""")

SUSPENDED = tabbed("""\
  pool: tank
 state: SUSPENDED
status: One or more devices are faulted in response to IO failures.
action: Make sure the affected devices are connected, then run 'zpool clear'.
   see: https://openzfs.github.io/openzfs-docs/msg/ZFS-8000-HC
config:

|NAME         STATE     READ WRITE CKSUM
|tank         UNAVAIL      0     0     0  insufficient replicas
|  /dev/sda1  REMOVED      0     0     0

errors: List of errors unavailable: pool I/O is currently suspended
""")

DRAID = tabbed("""\
  pool: d
 state: ONLINE
config:

|NAME                    STATE     READ WRITE CKSUM
|d                       ONLINE       0     0     0
|  draid2:3d:7c:1s-0     ONLINE       0     0     0
|    /dev/sda1           ONLINE       0     0     0
|    /dev/sdb1           ONLINE       0     0     0
|    /dev/sdc1           ONLINE       0     0     0
|    spare-3             ONLINE       0     0     0
|      /dev/sdd1         ONLINE       0     0     0
|      draid2-0-0        ONLINE       0     0     0
|    /dev/sde1           ONLINE       0     0     0
|    /dev/sdf1           ONLINE       0     0     0
|    /dev/sdg1           ONLINE       0     0     0
|spares
|  draid2-0-0            INUSE     currently in use

errors: No known data errors
""")


def test_every_class_of_vdev_is_found_with_its_role() -> None:
    assert outline(parse_status(WHOLE)["tank"]) == {
        "data": [("raidz2", tuple((f"/dev/disk/by-id/ata-WD40_WCC7K0{x}-part1",) for x in "ABCD"))],
        "special": [("mirror", (("/dev/nvme0n1p1",), ("/dev/nvme1n1p1",)))],
        "dedup": [("disk", (("/dev/nvme2n1p1",),))],
        "log": [("mirror", (("/dev/nvme3n1p1",), ("/dev/nvme4n1p1",)))],
        "cache": [("disk", (("/dev/nvme5n1p1",),)), ("disk", (("/dev/nvme6n1p1",),))],
        "spare": [("disk", (("/dev/sdx1",),))],
    }


def test_states_are_kept() -> None:
    tree = parse_status(HURT)["tank"]
    assert [vdev.state for vdev in tree["data"]] == ["DEGRADED"] * 3
    assert [vdev.state for vdev in tree["spare"]] == ["INUSE", "AVAIL"]
    assert [leaf.state for leaf in tree["data"][1].leaves()] == ["UNAVAIL", "ONLINE", "FAULTED"]


def test_a_missing_disk_is_known_by_its_last_path_and_one_at_work_by_all() -> None:
    tree = parse_status(HURT)["tank"]
    assert outline(tree)["data"] == [
        ("mirror", (("/dev/sda1",), ("/dev/sdb1", "/dev/sdb1"))),
        ("mirror", (("/dev/disk/by-id/ata-X-part1", "/dev/sdg1"), ("/dev/sdd1",))),
        ("mirror", (("/dev/my disk",), ("/dev/sdf1",))),
    ]


def test_several_pools_and_names_with_blanks() -> None:
    trees = parse_status(HURT)
    assert list(trees) == ["backup pool", "tank"]
    assert outline(trees["backup pool"]) == {"data": [("disk", (("/srv/a file",),)), ("disk", (("/srv/b",),))]}


def test_the_names_of_freebsd() -> None:
    trees = parse_status(FREEBSD)
    assert outline(trees["storage"])["data"] == [
        (
            "mirror",
            (
                ("/dev/gptid/c7c1dd5f-1e8a-11ec-9d64-0242ac130003",),
                ("/dev/gptid/c7d1dd5f-1e8a-11ec-9d64-0242ac130003",),
            ),
        ),
        ("mirror", (("/dev/ada2p2",), ("/dev/gpt/disk 3.eli",))),
    ]
    assert outline(trees["zroot"]) == {"data": [("disk", (("/dev/vtbd0p4",),))]}


def test_a_suspended_pool_is_read_as_well() -> None:
    assert parse_status(SUSPENDED) == {"tank": {"data": (disk("/dev/sda1", "REMOVED"),)}}


def test_a_draid_with_its_distributed_spare_at_work() -> None:
    tree = parse_status(DRAID)["d"]
    assert tree["data"][0].kind == "draid2:3d:7c:1s"
    assert tree["data"][0].slots()[3] == ("/dev/sdd1", "draid2-0-0")
    assert len(tree["data"][0].slots()) == 7
    assert [spare.path for spare in tree["spare"]] == ["draid2-0-0"]


@pytest.mark.parametrize(
    "name", ["logs", "special", "spares", "cache", "dedup", "config:", "a pool: b", "NAME", "tank 1"]
)
def test_no_name_of_a_pool_is_taken_for_something_else(name: str) -> None:
    text = status_text(name, [Row(1, "/dev/sda1"), Row(0, "logs"), Row(1, "/dev/sdb1")]) + status_text(
        "other", [Row(1, "/dev/sdc1")]
    )
    assert parse_status(text) == {
        name: {"data": (disk("/dev/sda1"),), "log": (disk("/dev/sdb1"),)},
        "other": {"data": (disk("/dev/sdc1"),)},
    }


@pytest.mark.parametrize("kind", ["replacing", "spare"])
def test_a_stripe_disk_at_work_counts_as_one_disk(kind: str) -> None:
    text = status_text("tank", [Row(1, f"{kind}-0"), Row(2, "/dev/sda1"), Row(2, "/dev/sdb1"), Row(1, "/dev/sdc1")])
    assert outline(parse_status(text)["tank"]) == {
        "data": [("disk", (("/dev/sda1", "/dev/sdb1"),)), ("disk", (("/dev/sdc1",),))]
    }


@pytest.mark.parametrize(
    "note,path",
    [
        ("was /dev/sdb1", "/dev/sdb1"),
        ("was /dev/disk/by-id/a disk-part1", "/dev/disk/by-id/a disk-part1"),
        ("was /dev/sdb1/old", "/dev/sdb1"),
        ("was /dev/sdb1  (awaiting resilver)", "/dev/sdb1"),
    ],
)
def test_the_last_path_of_a_missing_disk(note: str, path: str) -> None:
    text = status_text("tank", [Row(1, "1234567890123456789", "UNAVAIL", note)])
    assert parse_status(text)["tank"]["data"] == (disk(path, "UNAVAIL"),)


@pytest.mark.parametrize("text", ["", "no pools available\n", "all pools are healthy\n"])
def test_no_pools(text: str) -> None:
    assert parse_status(text) == {}


def test_a_pool_without_a_table_of_vdevs_is_an_error() -> None:
    with pytest.raises(StorageError, match="shows no vdevs for pool 'tank'"):
        parse_status("  pool: tank\n state: ONLINE\nconfig:\n\n\tsomething else\n\nerrors: none\n")


names = st.text("abcdefgh XYZ019_.:-", min_size=1, max_size=12).map(lambda name: f"p{name}".strip())
leaf_paths = st.text("abcXYZ 09-_.:", min_size=1, max_size=24).map(lambda text: "/dev/disk/by-id/" + f"x{text}".strip())
leaves = st.builds(disk, leaf_paths, st.sampled_from(["ONLINE", "FAULTED", "OFFLINE"]))
KINDS = ("mirror", "raidz1", "raidz2", "raidz3", "draid1:2d:4c:1s")


@st.composite
def trees(draw: st.DrawFn) -> dict[str, tuple[Vdev, ...]]:
    """A tree with vdevs as zpool numbers them, some with a replacement or a hot spare at work."""
    found: dict[str, tuple[Vdev, ...]] = {}
    number = 0
    for role in ("data", "special", "dedup", "log", "cache", "spare"):
        simple = role in ("cache", "spare")
        tops = []
        for _vdev in range(draw(st.integers(1 if role == "data" else 0, 3))):
            kind = "disk" if simple else draw(st.sampled_from(("disk", *KINDS)))
            if kind == "disk":
                tops.append(draw(leaves))
            else:
                members = []
                for position in range(draw(st.integers(2, 4))):
                    at_work = draw(st.sampled_from(["", "", "replacing", "spare"]))
                    one = draw(leaves)
                    if at_work:
                        one = Vdev(at_work, f"{at_work}-{position}", "DEGRADED", (one, draw(leaves)))
                    members.append(one)
                tops.append(Vdev(kind, f"{kind}-{number}", "ONLINE", tuple(members)))
            number += 1
        if tops:
            found[role] = tuple(tops)
    return found


SECTIONS = {"special": "special\t", "dedup": "dedup\t", "log": "logs\t", "cache": "cache", "spare": "spares"}


def rows_of(tree: Tree) -> list[Row]:
    rows: list[Row] = []

    def add(vdev: Vdev, depth: int) -> None:
        rows.append(Row(depth, vdev.path, vdev.state))
        for child in vdev.children:
            add(child, depth + 1)

    for role, vdevs in tree.items():
        if role != "data":
            rows.append(Row(0, SECTIONS[role]))
        for vdev in vdevs:
            add(vdev, 1)
    return rows


@given(st.dictionaries(names, trees(), max_size=3))
def test_what_is_printed_of_any_tree_reads_back_as_that_tree(pools: dict[str, Tree]) -> None:
    text = "\n".join(status_text(name, rows_of(tree)) for name, tree in pools.items())
    assert parse_status(text) == pools
