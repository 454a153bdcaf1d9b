# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens between the plan and the disk: the last look, and what is taken back after a failure."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.content import DiskContent, Finding
from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result, Runner
from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.nasops.encryption.plugins.module_utils.plan import (
    Plan,
    Step,
    StepFailed,
    apply,
    converge,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs import pool_create, pool_disks
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool import plan_pools
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_state import PoolHost
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import filesystem_type, pool_type, same
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.hosts import (
    HEX,
    TABLE,
    blank,
    content,
    host,
    ids,
    mirror,
    plain,
    pool,
    root,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.options import parse

GPT = Finding("GPT partition table", "/dev/sda", type="gpt")
MIRROR = [{"type": "mirror", "disks": ids("ab")}]
NEW = {"name": "tank", "vdevs": MIRROR, "key": {"value": HEX.material.decode("ascii")}}


class Failing:
    """A runner on which everything fails with one message; what was started is kept."""

    def __init__(self, stderr: str) -> None:
        self.stderr = stderr
        self.started: list[tuple[str, ...]] = []

    def has(self, program: str) -> bool:
        return True

    def run(self, command: Command, ok: Sequence[int] = (0,)) -> Result:
        self.started.append(command.argv)
        if command.argv[:2] in (("zpool", "create"), ("zpool", "add")):
            raise CommandError(Result(command.argv, 1, "", self.stderr))
        return Result(command.argv, 0, "", "")


def label(pool_name: str, guid: str = "17") -> Finding:
    return Finding(f"ZFS label of {pool_name}", "/dev/sda1", type="zfs_member", pool=pool_name, pool_guid=guid)


def planned(options: dict[str, t.Any], on: PoolHost | None = None) -> Plan:
    return plan_pools(parse(options), on or host(contents=blank()))


def finds(monkeypatch: pytest.MonkeyPatch, looks: Sequence[Sequence[DiskContent]]) -> None:
    """What each further look at the disks finds; the last one goes on."""
    left = list(looks)

    def look(runner: Runner, contents: Sequence[DiskContent]) -> tuple[DiskContent, ...]:
        return tuple(left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr(pool_disks, "look_again", look)


def wiped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The disks that would be wiped."""
    paths: list[str] = []

    class Wipe:
        def __init__(self, found: DiskContent) -> None:
            self.found = found

        @property
        def action(self) -> t.Callable[[Runner], None]:
            return lambda runner: paths.append(self.found.path)

    monkeypatch.setattr(pool_disks, "wipe_step", Wipe)
    return paths


@pytest.mark.parametrize("forced", [False, True])
def test_a_disk_that_is_not_blank_any_more_is_not_written(monkeypatch: pytest.MonkeyPatch, forced: bool) -> None:
    finds(monkeypatch, [[content("a", GPT), content("b")]])
    runner, paths = Failing("never reached"), wiped(monkeypatch)
    with pytest.raises(StepFailed, match="not blank any more"):
        apply(planned({**NEW, "force": forced}), runner)
    assert runner.started == []
    assert paths == []


def test_another_disk_under_the_same_name_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    finds(monkeypatch, [[content("a", serial="OTHER"), content("b")]])
    runner = Failing("never reached")
    with pytest.raises(StepFailed, match="not the disk any more"):
        apply(planned(NEW), runner)
    assert runner.started == []


def test_a_pool_that_somebody_else_made_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    after = [content("a", GPT, label("tank")), content("b", GPT, label("tank"))]
    finds(monkeypatch, [[content("a"), content("b")], after])
    runner, paths = Failing("cannot create 'tank': pool already exists"), wiped(monkeypatch)
    with pytest.raises(StepFailed, match="already exists"):
        apply(planned(NEW), runner)
    assert [argv[:2] for argv in runner.started] == [("zpool", "create")]
    assert paths == []


@pytest.mark.parametrize(
    ("left", "taken_back"),
    [
        ([GPT], True),
        ([GPT, label("tank")], True),
        ([GPT, label("")], True),
        ([GPT, label("other")], False),
        ([Finding("ext4 filesystem", "/dev/sda", type="ext4")], False),
        ([GPT, Finding("LUKS", "/dev/sda1", type="crypto_LUKS")], False),
        ([GPT, Finding("mounted on /srv", "/dev/sda1", in_use=True, type="mount")], False),
    ],
)
def test_only_traces_of_the_failed_pool_are_taken_back(
    monkeypatch: pytest.MonkeyPatch, left: list[Finding], taken_back: bool
) -> None:
    monkeypatch.setattr(pool_create, "read_table", lambda runner: TABLE)
    finds(monkeypatch, [[content("a"), content("b")], [content("a", *left), content("b")]])
    paths = wiped(monkeypatch)
    with pytest.raises(StepFailed):
        apply(planned(NEW), Failing("cannot create 'tank': invalid property value"))
    assert paths == (ids("a") if taken_back else [])


def test_a_label_of_another_pool_with_the_same_name_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    existing = host(pool(tree={"data": (mirror("ab"),)}), contents=blank())
    options = {"name": "tank", "vdevs": [*MIRROR, {"type": "mirror", "disks": ids("cd")}]}
    for guid, expected in (("17", ids("c")), ("18", [])):
        finds(monkeypatch, [[content("c"), content("d")], [content("c", GPT, label("tank", guid)), content("d")]])
        paths = wiped(monkeypatch)
        with pytest.raises(StepFailed):
            apply(planned(options, existing), Failing("cannot add"))
        assert paths == expected


@pytest.mark.parametrize(
    "comment", ["is part of shelf 3", "pool already exists", "one or more devices is currently unavailable"]
)
def test_what_a_property_says_is_not_taken_for_what_zpool_says(monkeypatch: pytest.MonkeyPatch, comment: str) -> None:
    monkeypatch.setattr(pool_create, "read_table", lambda runner: TABLE)
    clean = [content("a"), content("b")]
    finds(monkeypatch, [clean, [content("a", GPT), content("b", GPT)], clean])
    runner, paths = Failing("cannot create 'tank': out of space"), wiped(monkeypatch)
    with pytest.raises(StepFailed, match="out of space"):
        apply(planned({**NEW, "properties": {"comment": comment}}), runner)
    assert paths == ids("ab")
    assert [argv[:2] for argv in runner.started].count(("zpool", "create")) == 1


AWAY = "cannot create 'tank': one or more devices is currently unavailable"


@pytest.mark.parametrize("said", [AWAY, "cannot add to 'tank': no such pool or dataset"])
@pytest.mark.parametrize(
    ("options", "on", "new"),
    [
        (NEW, host(contents=blank()), "ab"),
        (
            {"name": "tank", "vdevs": [*MIRROR, {"type": "mirror", "disks": ids("cd")}]},
            host(pool(tree={"data": (mirror("ab"),)}), contents=blank()),
            "cd",
        ),
    ],
)
def test_a_disk_that_was_away_for_a_moment_is_tried_again_when_all_names_are_there(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, t.Any], on: PoolHost, new: str, said: str
) -> None:
    monkeypatch.setattr(pool_create, "read_table", lambda runner: TABLE)
    finds(monkeypatch, [[content(letter) for letter in new]])

    class Settling:
        def settle(self, runner: Runner) -> None:
            runner.run(Command(("udevadm", "settle")))

    monkeypatch.setattr(pool_disks, "this_host", Settling)
    runner = Failing(said)
    with pytest.raises(StepFailed, match=said):
        apply(planned(options, on), runner)
    written = [argv[:2] for argv in runner.started if argv[0] == "udevadm" or argv[1] in ("create", "add")]
    assert written[::2] == [written[0]] * 3
    assert written[1::2] == [("udevadm", "settle")] * 3


def test_a_pool_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_create, "read_table", lambda runner: TABLE)
    finds(monkeypatch, [[content("c")]])
    existing = host(pool(tree={"data": (mirror("ab"),)}), contents=blank())
    runner = Failing("cannot open 'tank': no such pool")
    with pytest.raises(StepFailed, match="no such pool"):
        apply(planned({"name": "tank", "vdevs": [*MIRROR, {"disks": ids("c")}], "force": True}, existing), runner)
    assert [argv[:2] for argv in runner.started].count(("zpool", "add")) == 1


def test_a_disk_that_something_was_written_to_meanwhile_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_create, "read_table", lambda runner: TABLE)
    foreign = [content("a", GPT, label("other")), content("b")]
    finds(monkeypatch, [[content("a"), content("b")], foreign])
    runner = Failing(AWAY)
    with pytest.raises(StepFailed, match="currently unavailable") as caught:
        apply(planned(NEW), runner)
    assert "not blank any more" in caught.value.details["not_tried_again"]
    assert [argv[:2] for argv in runner.started].count(("zpool", "create")) == 1


def test_a_given_guid_has_to_be_there() -> None:
    with pytest.raises(Refused, match="GUID 18"):
        planned({**NEW, "confirm_guid": "18"})
    with pytest.raises(Refused, match="GUID 17"):
        planned({"name": "tank", "state": "exported", "confirm_guid": "18"}, host(pool()))


@pytest.mark.parametrize("facts", [{"canmount": "off"}, {"canmount": "noauto"}, {"mountpoint": "none"}])
def test_children_are_mounted_after_unlocking_even_if_the_root_is_not(facts: dict[str, str]) -> None:
    locked = root(**{"keystatus": "unavailable", "mounted": "no", "keylocation": "file:///k", **facts})
    made = planned({"name": "tank"}, host(pool(dataset=locked)))
    assert made.actions == ["Unlock 'tank' with the key from file:///k", "Mount the filesystems of 'tank'"]
    assert "mounted" not in made.diff()["after"]["pools"]["tank"]


def test_a_path_that_changes_with_every_start_names_no_disk_to_erase() -> None:
    links = ("/dev/disk/by-diskseq/7", "/dev/disk/by-path/pci-0", "/dev/disk/by-loop-ref/x")
    for path in (*links, "/dev/sda", "//dev/sda", "/./dev/sda", "/dev/disk/by-id/../../sda"):
        with pytest.raises(BadInput, match="wipe_disks names"):
            planned({**NEW, "wipe_disks": [path]})


def test_a_plain_pool_without_a_key_is_not_guarded_less(monkeypatch: pytest.MonkeyPatch) -> None:
    finds(monkeypatch, [[content("c", GPT)]])
    existing = host(pool(dataset=plain()), contents=blank())
    runner = Failing("never reached")
    with pytest.raises(StepFailed, match="not blank any more"):
        apply(planned({"name": "tank", "vdevs": [*MIRROR, {"disks": ids("c")}], "force": True}, existing), runner)
    assert runner.started == []


def test_what_is_refused_after_an_import_is_exported_again() -> None:
    """The inside of an exported pool shows only after its import."""
    started: list[tuple[str, ...]] = []

    class Recording(Failing):
        def run(self, command: Command, ok: Sequence[int] = (0,)) -> Result:
            started.append(command.argv)
            return Result(command.argv, 0, "", "")

    import_plan = Plan(
        (Step("Import pool 'tank'", Command(("zpool", "import", "17"))),),
        reveals="the inside",
        retreat=(Command(("zpool", "export", "tank")),),
    )
    plans = [import_plan]

    def decide(state: None) -> Plan:
        if not plans:
            raise Refused("It should be encrypted otherwise.")
        return plans.pop()

    with pytest.raises(Refused) as caught:
        converge(lambda: None, decide, Recording(""), check_mode=False)
    assert started == [("zpool", "import", "17"), ("zpool", "export", "tank")]
    assert caught.value.details["changed"] is False
    assert caught.value.details["actions_done"] == ["Import pool 'tank'"]
    assert caught.value.details["actions_taken_back"] is True


@pytest.mark.parametrize(
    ("name", "wanted", "actual", "equal"),
    [
        ("xattr", "on", "sa", True),
        ("xattr", "on", "dir", True),
        ("xattr", "dir", "on", True),
        ("xattr", "sa", "dir", False),
        ("xattr", "off", "sa", False),
        ("userquota@bob", "1G", "1073741824", True),
        ("userquota@bob", "none", "0", True),
        ("userquota@bob", "2G", "1073741824", False),
        ("groupobjquota@users", "100", "100", True),
    ],
)
def test_values_that_read_back_otherwise(name: str, wanted: str, actual: str, equal: bool) -> None:
    assert same(wanted, actual, filesystem_type(name)) is equal


def test_the_usual_cachefile_reads_back_as_unset() -> None:
    assert same("/etc/zfs/zpool.cache", "-", pool_type("cachefile"))
    assert not same("/etc/other.cache", "-", pool_type("cachefile"))
    assert not same("none", "-", pool_type("cachefile"))
