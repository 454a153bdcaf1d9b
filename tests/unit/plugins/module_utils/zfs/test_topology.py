# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable
from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.status import Tree, Vdev
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.topology import (
    TYPES,
    Comparison,
    WantedVdev,
    argument_list,
    check_redundancy,
    check_unique,
    compare,
    parse_vdev,
)

EMPTY = DeviceTable()


def option(
    kind: str = "stripe", disks: t.Sequence[str] = ("/dev/a",), role: str = "data", **more: t.Any
) -> dict[str, t.Any]:
    return {"role": role, "type": kind, "disks": list(disks), "draid_data": None, "draid_spares": None, **more}


def disks(count: int) -> list[str]:
    return [f"/dev/d{number}" for number in range(count)]


def leaf(path: str, state: str = "ONLINE") -> Vdev:
    return Vdev("disk", path, state)


def group(kind: str, *members: str | Vdev) -> Vdev:
    return Vdev(kind, f"{kind}-0", "ONLINE", tuple(leaf(one) if isinstance(one, str) else one for one in members))


def wanted(kind: str, *names: str, role: str = "data") -> WantedVdev:
    return WantedVdev(role, kind, names)


class TestParse:
    def test_every_disk_of_a_stripe_is_a_vdev(self) -> None:
        assert parse_vdev(option("stripe", ["/dev/a", "/dev/b"], role="cache")) == (
            wanted("disk", "/dev/a", role="cache"),
            wanted("disk", "/dev/b", role="cache"),
        )

    @pytest.mark.parametrize(
        "kind,count,name",
        [
            ("mirror", 2, "mirror"),
            ("mirror", 5, "mirror"),
            ("raidz", 2, "raidz1"),
            ("raidz1", 3, "raidz1"),
            ("raidz2", 3, "raidz2"),
            ("raidz3", 4, "raidz3"),
            ("draid", 3, "draid1:2d:3c:0s"),
            ("draid2", 12, "draid2:8d:12c:0s"),
            ("draid3", 5, "draid3:2d:5c:0s"),
        ],
    )
    def test_the_smallest_and_the_usual(self, kind: str, count: int, name: str) -> None:
        assert parse_vdev(option(kind, disks(count))) == (WantedVdev("data", name, tuple(disks(count))),)

    @pytest.mark.parametrize("kind,count", [("mirror", 1), ("raidz", 1), ("raidz1", 1), ("raidz2", 2), ("raidz3", 3)])
    def test_too_few_disks_are_refused(self, kind: str, count: int) -> None:
        with pytest.raises(BadInput, match=f"needs at least {count + 1} disks; {count} (is|are) named: /dev/d0"):
            parse_vdev(option(kind, disks(count)))

    @pytest.mark.parametrize(
        "count,data,spares,name",
        [
            (7, 4, 1, "draid1:4d:7c:1s"),
            (7, None, 1, "draid1:5d:7c:1s"),
            (20, None, 2, "draid1:8d:20c:2s"),
            (255, 16, 4, "draid1:16d:255c:4s"),
        ],
    )
    def test_draid_with_its_numbers(self, count: int, data: int | None, spares: int, name: str) -> None:
        (vdev,) = parse_vdev(option("draid1", disks(count), draid_data=data, draid_spares=spares))
        assert vdev.kind == name

    @pytest.mark.parametrize(
        "count,data,spares,part",
        [
            (2, None, None, "needs at least 3 and at most 255 disks; 2 are named"),
            (5, 4, 1, "needs at least 6 and"),
            (256, 8, 0, "at most 255 disks; 256 are named"),
            (5, 0, 0, "A draid1"),
            (9, 2, 5, "draid_spares is 5; possible are 0 to 4"),
            (9, 2, -1, "draid_spares is -1"),
        ],
    )
    def test_draid_that_can_not_be(self, count: int, data: int | None, spares: int | None, part: str) -> None:
        with pytest.raises(BadInput) as caught:
            parse_vdev(option("draid1", disks(count), draid_data=data, draid_spares=spares))
        assert part in caught.value.message

    @pytest.mark.parametrize("extra", [{"draid_data": 4}, {"draid_spares": 0}])
    @pytest.mark.parametrize("kind", ["stripe", "mirror", "raidz2"])
    def test_numbers_of_a_draid_on_something_else(self, kind: str, extra: dict[str, int]) -> None:
        with pytest.raises(BadInput, match=f"are for draid vdevs, not for '{'raidz2' if kind == 'raidz2' else kind}'"):
            parse_vdev({**option(kind, disks(4)), **extra})

    @pytest.mark.parametrize(
        "role,allowed",
        [
            ("data", TYPES),
            ("special", ("stripe", "mirror")),
            ("dedup", ("stripe", "mirror")),
            ("log", ("stripe", "mirror")),
            ("cache", ("stripe",)),
            ("spare", ("stripe",)),
        ],
    )
    def test_types_that_a_role_can_have(self, role: str, allowed: tuple[str, ...]) -> None:
        for kind in TYPES:
            if kind in allowed:
                assert all(vdev.role == role for vdev in parse_vdev(option(kind, disks(5), role=role)))
            else:
                with pytest.raises(BadInput, match=f"role '{role}' can't be of type '{kind}'") as caught:
                    parse_vdev(option(kind, disks(5), role=role))
                assert caught.value.hint == f"Possible are: {', '.join(allowed)}."

    @pytest.mark.parametrize("names", [[], [""], ["/dev/a", " "]])
    def test_no_disks_are_refused(self, names: list[str]) -> None:
        with pytest.raises(BadInput, match="has no disks, or an empty name among them"):
            parse_vdev(option("stripe", names))


# The same disk under many names, whole and with the partition that ZFS makes on it; a multipath map with two paths.
TABLE = DeviceTable(
    (
        BlockDevice("sda", "/dev/sda", aliases=("/dev/disk/by-id/ata-A", "/dev/disk/by-path/pci-0")),
        BlockDevice(
            "sda1",
            "/dev/sda1",
            aliases=("/dev/disk/by-id/ata-A-part1", "/dev/disk/by-partuuid/1111"),
            kind="partition",
            parent="sda",
            partition=1,
        ),
        BlockDevice("sdb", "/dev/sdb", aliases=("/dev/disk/by-id/ata-B",)),
        BlockDevice(
            "sdb1", "/dev/sdb1", aliases=("/dev/disk/by-id/ata-B-part1",), kind="partition", parent="sdb", partition=1
        ),
        BlockDevice(
            "sdb2", "/dev/sdb2", aliases=("/dev/disk/by-id/ata-B-part2",), kind="partition", parent="sdb", partition=2
        ),
        BlockDevice("sdc", "/dev/sdc", parent="dm-0"),
        BlockDevice("sdd", "/dev/sdd", parent="dm-0"),
        BlockDevice("dm-0", "/dev/dm-0", aliases=("/dev/mapper/mpatha",), kind="multipath"),
    )
)
NAMES_OF_A = ("/dev/sda", "sda", "/dev/disk/by-id/ata-A", "ata-A", "/dev/disk/by-path/pci-0")


class TestUnique:
    @pytest.mark.parametrize("one", NAMES_OF_A)
    @pytest.mark.parametrize("other", [*NAMES_OF_A, "/dev/sda1", "/dev/disk/by-id/ata-A-part1", "/dev/gptid/1111"])
    def test_one_disk_under_two_names_is_found(self, one: str, other: str) -> None:
        for names in ((one, other), (other, one)):
            with pytest.raises(BadInput, match="The same disk is asked for twice in pool 'tank'") as caught:
                check_unique([("tank", wanted("mirror", *names))], TABLE)
            assert f"'{names[0]}'" in caught.value.message
            assert f"'{names[1]}'" in caught.value.message

    def test_two_paths_of_one_multipath_disk_are_found(self) -> None:
        for names in (("/dev/sdc", "/dev/sdd"), ("/dev/sdc", "/dev/mapper/mpatha")):
            with pytest.raises(BadInput):
                check_unique([("tank", wanted("mirror", *names))], TABLE)

    def test_over_all_vdevs_and_pools(self) -> None:
        with pytest.raises(BadInput, match="in pools 'tank' and 'vault'"):
            check_unique([("tank", wanted("disk", "/dev/sda")), ("vault", wanted("disk", "ata-A", role="log"))], TABLE)

    def test_two_partitions_of_one_disk_are_two(self) -> None:
        check_unique([("tank", wanted("disk", "/dev/sdb1")), ("tank", wanted("disk", "/dev/sdb2", role="log"))], TABLE)

    @given(st.lists(st.integers(0, 9), max_size=8))
    def test_files_are_known_by_their_paths(self, numbers: list[int]) -> None:
        vdevs = [("tank", wanted("disk", f"/srv/{number}")) for number in numbers]
        if len(set(numbers)) == len(numbers):
            check_unique(vdevs, EMPTY)
        else:
            with pytest.raises(BadInput):
                check_unique(vdevs, EMPTY)


class TestCompare:
    @pytest.mark.parametrize("name", [*NAMES_OF_A, "/dev/sda1", "/dev/disk/by-partuuid/1111"])
    @pytest.mark.parametrize("shown", ["/dev/sda1", "/dev/disk/by-id/ata-A-part1", "/dev/gptid/1111"])
    def test_a_whole_disk_is_the_partition_that_zfs_made_on_it(self, name: str, shown: str) -> None:
        tree = {"data": (group("mirror", shown, "/dev/sdb1"),)}
        assert compare("tank", [wanted("mirror", name, "ata-B")], tree, TABLE) == Comparison((), ())

    def test_one_path_of_a_multipath_disk_is_the_disk(self) -> None:
        assert compare(
            "tank", [wanted("disk", "/dev/sdd")], {"data": (leaf("/dev/mapper/mpatha"),)}, TABLE
        ) == Comparison((), ())

    def test_the_order_of_disks_and_vdevs_does_not_matter(self) -> None:
        tree = {"data": (group("raidz1", "/a", "/b", "/c"), group("raidz1", "/d", "/e", "/f"))}
        vdevs = [wanted("raidz1", "/f", "/d", "/e"), wanted("raidz1", "/b", "/c", "/a")]
        assert compare("tank", vdevs, tree, EMPTY) == Comparison((), ())

    def test_what_is_missing_and_what_is_not_described(self) -> None:
        tree = {"data": (group("mirror", "/a", "/b"), group("mirror", "/c", "/d")), "cache": (leaf("/e"),)}
        new = wanted("mirror", "/x", "/y")
        found = compare("tank", [new, wanted("mirror", "/a", "/b"), wanted("disk", "/z", role="spare")], tree, EMPTY)
        assert found.missing == (new, wanted("disk", "/z", role="spare"))
        assert found.unmanaged == ("mirror: /c /d", "cache disk: /e")

    def test_a_missing_disk_still_belongs_to_the_pool(self) -> None:
        tree = {"data": (group("mirror", "/dev/gone-part1", leaf("/dev/disk/by-id/ata-X", "UNAVAIL")),)}
        vdevs = [wanted("mirror", "/dev/gone-part1", "/dev/disk/by-id/ata-X")]
        assert compare("tank", vdevs, tree, EMPTY) == Comparison((), ())

    @pytest.mark.parametrize(
        "vdev,shown",
        [
            (wanted("mirror", "/a", "/x"), "mirror: /a /b], not all of them"),
            (wanted("mirror", "/a", "/b", "/x"), "mirror: /a /b], not all of them"),
            (wanted("disk", "/a"), "mirror: /a /b]."),
            (wanted("raidz1", "/a", "/b"), "mirror: /a /b]."),
            (wanted("mirror", "/a", "/b", role="special"), "mirror: /a /b]."),
            (wanted("mirror", "/a", "/c"), "mirror: /a /b]."),
            (wanted("disk", "/e"), "log disk: /e]."),
            (wanted("disk", "/f", role="log"), "spare disk: /f]."),
            (wanted("mirror", "/c", "/x", "/y"), "raidz1: /c /d /g], not all of them"),
            (wanted("raidz1", "/c", "/d"), "raidz1: /c /d /g]."),
        ],
    )
    def test_a_vdev_is_never_reshaped(self, vdev: WantedVdev, shown: str) -> None:
        tree = {
            "data": (group("mirror", "/a", "/b"), group("raidz1", "/c", "/d", "/g")),
            "log": (leaf("/e"),),
            "spare": (leaf("/f"),),
        }
        with pytest.raises(Refused) as caught:
            compare("tank", [vdev], tree, EMPTY)
        assert f"Pool 'tank' should have the vdev [{vdev.describe()}]" in caught.value.message
        assert f"in it as [{shown}" in caught.value.message

    @pytest.mark.parametrize("kind", ["replacing", "spare"])
    @pytest.mark.parametrize("known_as", ["/old", "/new"])
    def test_a_disk_under_replacement_keeps_its_place(self, kind: str, known_as: str) -> None:
        at_work = group(kind, leaf("/old", "UNAVAIL"), "/new")
        in_mirror = {"data": (group("mirror", "/a", at_work),)}
        assert compare("tank", [wanted("mirror", "/a", known_as)], in_mirror, EMPTY) == Comparison((), ())
        alone = {"data": (at_work, leaf("/a"))}
        assert compare("tank", [wanted("disk", known_as), wanted("disk", "/a")], alone, EMPTY) == Comparison((), ())

    def test_a_hot_spare_at_work_is_a_spare_and_a_member(self) -> None:
        tree = {
            "data": (group("mirror", "/a", group("spare", leaf("/b", "UNAVAIL"), "/s")),),
            "spare": (leaf("/s", "INUSE"), leaf("/t", "AVAIL")),
        }
        vdevs = [wanted("mirror", "/a", "/b"), wanted("disk", "/s", role="spare"), wanted("disk", "/t", role="spare")]
        assert compare("tank", vdevs, tree, EMPTY) == Comparison((), ())

    def test_the_distributed_spares_of_a_draid_are_no_devices(self) -> None:
        tree = {"data": (group("draid1:2d:4c:1s", "/a", "/b", "/c", "/d"),), "spare": (leaf("draid1-0-0", "AVAIL"),)}
        assert compare("tank", [wanted("draid1:2d:4c:1s", "/a", "/b", "/c", "/d")], tree, EMPTY) == Comparison((), ())
        with pytest.raises(Refused):
            compare("tank", [wanted("draid1:3d:4c:0s", "/a", "/b", "/c", "/d")], tree, EMPTY)

    def test_partitions_of_one_disk_in_several_roles(self) -> None:
        tree = {"data": (leaf("/dev/sdb2"),), "log": (leaf("/dev/sdb1"),)}
        vdevs = [wanted("disk", "/dev/disk/by-id/ata-B-part1", role="log"), wanted("disk", "/dev/sdb2")]
        assert compare("tank", vdevs, tree, TABLE) == Comparison((), ())


class TestRedundancy:
    @pytest.mark.parametrize(
        "tree,added",
        [
            ({}, [wanted("mirror", "/a", "/b"), wanted("mirror", "/c", "/d")]),
            ({"data": (group("raidz2", *"abcd"),)}, [wanted("raidz2", *"efgh")]),
            (
                {"data": (group("mirror", "/a", "/b"),)},
                [wanted("disk", "/l", role="log"), wanted("disk", "/c", role="cache")],
            ),
            ({"data": (group("mirror", "/a", "/b"),)}, [wanted("mirror", "/c", "/d", role="special")]),
            ({"data": (group("mirror", "/a", group("replacing", "/b", "/c")),)}, [wanted("mirror", "/d", "/e")]),
            ({"data": (group("replacing", "/a", "/b"),)}, [wanted("disk", "/c")]),
            ({"data": (group("mirror", "/a", "/b", "/c"),)}, [wanted("raidz2", *"efgh")]),
            ({"data": (leaf("/a"), group("raidz1", *"abc"))}, [wanted("disk", "/l", role="log")]),
        ],
    )
    def test_vdevs_that_lose_as_many_disks_go_together(self, tree: Tree, added: list[WantedVdev]) -> None:
        check_redundancy("tank", tree, added)

    @pytest.mark.parametrize(
        "tree,added",
        [
            ({}, [wanted("mirror", "/a", "/b"), wanted("disk", "/c")]),
            ({}, [wanted("raidz1", *"abc"), wanted("raidz2", *"defg")]),
            ({"data": (group("mirror", "/a", "/b"),)}, [wanted("disk", "/c")]),
            ({"data": (group("raidz1", *"abc"),)}, [wanted("raidz1", *"defg")]),
            ({"data": (group("mirror", "/a", "/b"),)}, [wanted("mirror", "/c", "/d", "/e")]),
            ({"data": (group("raidz2", *"abcd"),)}, [wanted("mirror", "/x", "/y", role="special")]),
            ({"data": (group("mirror", "/a", "/b"),)}, [wanted("disk", "/x", role="dedup")]),
            ({"data": (leaf("/a"),)}, [wanted("draid1:2d:4c:0s", *"abcd")]),
        ],
    )
    def test_others_do_not(self, tree: Tree, added: list[WantedVdev]) -> None:
        with pytest.raises(Refused, match="would differ in redundancy") as caught:
            check_redundancy("tank", tree, added)
        assert "force: true" in caught.value.hint


class TestArguments:
    def test_roles_in_order_and_single_disks_before_groups(self) -> None:
        vdevs = [
            wanted("disk", "/s", role="spare"),
            wanted("mirror", "/l1", "/l2", role="log"),
            wanted("disk", "/l3", role="log"),
            wanted("mirror", "/a", "/b"),
            wanted("disk", "/c", role="cache"),
            wanted("disk", "/d"),
            wanted("draid1:2d:4c:1s", *"wxyz"),
            wanted("mirror", "/m", "/n", role="special"),
            wanted("disk", "/o", role="dedup"),
        ]
        assert " ".join(argument_list(vdevs)) == (
            "/d mirror /a /b draid1:2d:4c:1s w x y z special mirror /m /n dedup /o log /l3 mirror /l1 /l2 "
            "cache /c spare /s"
        )

    def test_nothing_is_nothing(self) -> None:
        assert argument_list([]) == ()

    @given(
        st.lists(
            st.tuples(st.sampled_from(["data", "special", "log"]), st.sampled_from(["disk", "mirror"])), max_size=8
        )
    )
    def test_zpool_understands_what_was_meant(self, shapes: list[tuple[str, str]]) -> None:
        vdevs = [
            WantedVdev(role, kind, tuple(f"/{number}{letter}" for letter in ("a" if kind == "disk" else "ab")))
            for number, (role, kind) in enumerate(shapes)
        ]
        role, group_now = "data", False
        understood: set[tuple[str, str, tuple[str, ...]]] = set()
        members: list[str] = []
        for word in (*argument_list(vdevs), "end"):
            if word.startswith("/"):
                if group_now:
                    members.append(word)
                else:
                    understood.add((role, "disk", (word,)))
                continue
            if group_now:
                understood.add((role, "mirror", tuple(members)))
            members = []
            group_now = word == "mirror"
            role = role if group_now else word
        assert understood == {(vdev.role, vdev.kind, vdev.disks) for vdev in vdevs}
