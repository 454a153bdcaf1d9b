# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rsync is asked to do from stage to stage, and what is refused."""

from __future__ import annotations

import copy
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.migration.compare import Compare, ReadAll
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_compare import CompareTree
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_run import Pass
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_state import (
    COPY_RECORD,
    Copied,
    copied_record,
    under_way,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.far_alone import Alone
from ansible_collections.nasops.encryption.plugins.module_utils.migration.plan import plan_migration, reached
from ansible_collections.nasops.encryption.plugins.module_utils.migration.result import describe_migration
from ansible_collections.nasops.encryption.plugins.module_utils.migration.state import SOURCE_RECORD, Found
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Plan, converge
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_option import WantedKey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import AtTarget

from ..recorded import RecordedRunner
from .model import LAST, LATER, Case, case, changed, wants

NEW = "migrate-20261127T010203Z"


def wish(state: str, stamp: str = "20261127T010203Z", **facts: t.Any) -> t.Any:
    return wants(state, stamp, streams=False, **facts)


def refused(place: Case, match: str, state: str = "synced", **facts: t.Any) -> None:
    with pytest.raises(Refused, match=match):
        place.plan(wish(state, **facts))


def passes(plan: Plan) -> dict[str, Pass]:
    """The passes of a plan by dataset of the target."""
    return {step.action.target: step.action for step in plan.steps if isinstance(step.action, Pass)}


def created(plan: Plan, target: str) -> Command:
    """The command that makes a dataset of the target."""
    actions = [step.action.action for step in plan.steps if isinstance(step.action, AtTarget)]
    return next(
        one for one in actions if isinstance(one, Command) and one.argv[1] == "create" and one.argv[-1] == target
    )


def values(command: Command) -> dict[str, str]:
    words = command.argv
    return dict(words[place + 1].split("=", 1) for place, word in enumerate(words) if word == "-o")


class TestPlanned:
    @pytest.mark.parametrize("read_only", [False, True])
    def test_it_tells_what_stays_behind(self, read_only: bool) -> None:
        place = case(read_only)
        plan = place.run(wish("planned"))
        assert plan.steps == ()
        told = " ".join(plan.warnings)
        assert "newest state only: 3 snapshots of the source stay behind" in told
        assert "become whole copies: 'old/copy'" in told
        assert "NFSv4 ACL, which Linux does not show" in told
        assert "Holds of snapshots are not sent" not in told
        result = describe_migration(wish("planned"), place.found(wish("planned")))
        assert result["reached"] == "planned"
        assert len(result["streams"]) == (8 if read_only else 9)

    def test_snapshots_need_no_room(self) -> None:
        place = case()
        place.place.source.nodes["old"].own["usedbysnapshots"] = "1000"
        assert describe_migration(wish("planned"), place.found(wish("planned")))["estimated_bytes"] == 4
        assert describe_migration(wants("planned"), place.found(wants("planned")))["estimated_bytes"] == 1004


class TestRoom:
    def big(self, place: Case, **there: str) -> None:
        """A copy of three datasets, of which the target has room for one."""
        for name in ("old", "old/docs", "old/copy", "old/vol"):
            place.place.source.nodes[name].own["usedbydataset"] = "1000"
        place.place.target.available = 2000
        place.place.source.nodes["old"].own["compression"] = "lz4"
        place.place.target.nodes["new"].own.update(there)

    def test_too_little(self) -> None:
        place = case()
        self.big(place, compression="on")
        for name in ("old/docs", "old/copy", "old/vol"):
            place.place.source.nodes[name].own["compression"] = "lz4"
        refused(place, "has room for 2.0 KiB, and what is still to be sent takes about 3.9 KiB", "planned")
        place.place.target.available = 4000
        assert place.run(wish("synced")).changed

    @pytest.mark.parametrize(
        "facts",
        [
            {"properties": {"compression": "zstd"}},
            {"skip": {"old/docs": ("broken",)}},
        ],
    )
    def test_what_may_fit_all_the_same(self, facts: dict[str, t.Any]) -> None:
        place = case()
        self.big(place, compression="lz4")
        told = " ".join(place.plan(wish("planned", **facts)).warnings)
        assert "takes about 3.9 KiB at the source. It may fit all the same" in told
        assert place.run(wish("synced", **facts)).changed

    def test_what_a_target_above_compresses_otherwise(self) -> None:
        place = case()
        self.big(place, compression="zstd")
        for name in ("old/docs", "old/copy", "old/vol"):
            place.place.source.nodes[name].own["compression"] = "lz4"
        # They are set for each of them, so they are compressed there as here.
        refused(place, "has room for 2.0 KiB", "planned")
        for name in ("old", "old/docs", "old/copy", "old/vol"):
            del place.place.source.nodes[name].own["compression"]
        assert any("may fit all the same" in one for one in place.plan(wish("planned")).warnings)

    @pytest.mark.parametrize("read_only", [False, True])
    def test_a_complete_copy_needs_none_however_much_smaller_it_is(self, read_only: bool) -> None:
        place = case(read_only)
        place.run(wish("synced"))
        self.big(place)
        assert place.run(wish("verified")).changed
        assert describe_migration(wish("planned"), place.found(wish("planned")))["estimated_bytes"] == 0
        place.place.source.nodes["old/docs"].written = 1
        result = describe_migration(wish("planned", LATER), place.found(wish("planned", LATER)))
        assert result["estimated_bytes"] == (999 if read_only else 1)
        # It may be a few bytes that are new, in a dataset that takes less there.
        place.own("new/old")["compression"] = "lz4"
        place.place.target.available = 0
        assert place.run(wish("synced", LATER)).changed


class TestRefused:
    def test_all_that_the_host_lacks(self) -> None:
        place = case()
        place.lacking = ("The programs rsync are missing on this host",)
        refused(place, "programs rsync are missing", "planned")

    def test_acls_that_rsync_does_not_carry_unless_that_is_wanted(self) -> None:
        place = case()
        place.place.source.nodes["old/docs"].own["acltype"] = "nfsv4"
        refused(place, r"These have NFSv4 ACLs \(acltype=nfsv4\), which rsync does not carry: 'old/docs'")
        assert place.run(wish("synced", properties={"acltype": "posix"})).changed

    def test_a_target_without_acls(self) -> None:
        place = case()
        place.place.source.nodes["old/docs"].own["acltype"] = "posix"
        place.place.target.add("new/old", key="new")
        place.place.target.add("new/old/docs", key="new")
        refused(place, "these of the target have acltype=off: 'new/old/docs'")
        place.place.target.nodes["new/old/docs"].own["acltype"] = "posix"
        assert place.run(wish("synced")).changed

    def test_a_target_that_was_begun_with_streams(self) -> None:
        place = case()
        place.run(wants("synced"))
        refused(place, "'new/old' exists, and was not made by 'method: rsync': it has the snapshot")

    def test_a_stream_that_broke_off(self) -> None:
        place = case()
        place.place.target.add("new/old", key="new", token="x")
        refused(place, "a stream into it broke off")

    def test_a_target_that_is_not_empty(self) -> None:
        place = case()
        place.place.target.add("new/old", key="new")
        place.entries = {"new/old": "photos/one"}
        refused(place, "it holds 'photos/one'")
        refused(place, "it holds 'photos/one'", force=True)

    def test_a_volume_of_which_nobody_knows(self) -> None:
        place = case()
        place.place.target.add("new/old", key="new")
        place.place.target.add("new/old/vol", key="new", kind="volume")
        refused(place, "it is a volume, of which nobody can say that it is empty")

    def test_a_target_of_another_kind(self) -> None:
        place = case()
        place.place.target.add("new/old", key="new")
        place.place.target.add("new/old/vol", key="new")
        refused(place, "'new/old/vol' is a filesystem, and 'old/vol' is a volume")

    def test_a_target_that_is_not_encrypted(self) -> None:
        place = case()
        place.place.target.nodes["new"].key = ""
        refused(place, "which is not encrypted")
        place.place.target.add("new/old")
        refused(place, "'new/old' is NOT ENCRYPTED")

    def test_what_is_left_out_of_what_is_not_there(self) -> None:
        refused(
            case(),
            "'exclude_files' names what is no filesystem.*'old/gone', 'old/vol'",
            skip={"old/vol": ("x",), "old/gone": ("x",), "old/docs": ("x",)},
        )
        refused(
            case(),
            "'exclude_files' names what is no filesystem that is migrated: 'old/copy'",
            include=("old/docs",),
            skip={"old/copy": ("x",), "old/docs": ("x",)},
        )

    def test_a_pool_without_features_that_only_streams_need(self) -> None:
        place = case()
        place.place.target.features.discard("large_dnode")
        assert place.run(wish("synced")).changed


class TestSynced:
    def test_a_pool_in_use(self) -> None:
        place = case()
        plan = place.run(wish("synced"))
        assert plan.actions[:3] == [
            "Take a snapshot of 'old' and 3 below it",
            "Create 'new/old', encrypted with the key of 'new'",
            "Copy 'old' up to a new snapshot to 'new/old', file by file",
        ]
        assert plan.in_order
        assert {step.branch for step in plan.steps} == {"", "old", "old/docs", "old/copy", "old/vol"}
        assert place.holds == {f"new/{name}": f"{name}@{NEW}" for name in ("old", "old/docs", "old/copy", "old/vol")}
        assert [one.title[:6] for one in passes(plan).values()] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
        assert reached(wish("synced"), place.found(wish("synced"))) == "synced"
        assert place.own("new/old")[SOURCE_RECORD] == "1:old"

    def test_a_pool_that_is_imported_read_only(self) -> None:
        place = case(True)
        plan = place.run(wish("synced"))
        assert place.holds == {
            "new/old": "old@a",
            "new/old/docs": "old/docs",
            "new/old/copy": "old/copy",
            "new/old/vol": "old/vol@a",
        }
        assert passes(plan)["new/old/vol"].volume
        assert not place.run(wish("synced", LATER)).changed

    def test_one_that_is_imported_anew_is_looked_at_again(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        place.imported = "12"
        # What is in a snapshot can't have changed.
        assert sorted(passes(place.run(wish("synced", LATER)))) == ["new/old/copy", "new/old/docs"]

    def test_only_what_was_written_to_is_copied_again(self) -> None:
        place = case()
        place.run(wish("synced"))
        place.place.source.nodes["old/docs"].written = 1
        plan = place.run(wish("synced", LATER))
        # Each of them has a new snapshot, of which nobody knows what is in it before.
        assert set(passes(plan)) == {"new/old", "new/old/docs", "new/old/copy", "new/old/vol"}
        assert passes(plan)["new/old/docs"].doomed == (NEW,)
        assert not place.run(wish("synced", LAST)).changed

    def test_the_datasets_are_encrypted_from_the_first_byte_on(self) -> None:
        place = case()
        key = WantedKey("passphrase", Key("passphrase", b"a long passphrase"), None, False, 200000)
        command = created(place.plan(wish("synced", key=key, cipher="aes-128-gcm")), "new/old")
        assert {one: values(command)[one] for one in ("encryption", "keyformat", "keylocation", "pbkdf2iters")} == {
            "encryption": "aes-128-gcm",
            "keyformat": "passphrase",
            "keylocation": "prompt",
            "pbkdf2iters": "200000",
        }
        assert command.stdin is not None
        assert b"a long passphrase" in command.stdin
        assert "a long passphrase" not in " ".join(command.argv)
        place.run(wish("synced", key=key))
        assert place.place.target.nodes["new/old/docs"].key == "new/old"

    def test_a_key_file_is_written_first(self) -> None:
        place = case()
        key = WantedKey("hex", None, "/etc/zfs/keys/old.key", True)
        place.place.target.side("new", True, False)
        command = created(place.plan(wish("synced", key=key)), "new/old")
        assert command.stdin is None
        assert values(command)["keylocation"] == "file:///etc/zfs/keys/old.key"

    def test_the_properties_that_streams_carry_too(self) -> None:
        place = case()
        place.place.source.nodes["old/docs"].own.update(
            {"recordsize": "1048576", "org.example:owner": "me and you", "mountpoint": "/x", "casesensitivity": "mixed"}
        )
        plan = place.plan(wish("synced", properties={"compression": "zstd", "volmode": "none"}))
        docs = values(created(plan, "new/old/docs"))
        assert docs["recordsize"] == "1048576"
        assert docs["org.example:owner"] == "me and you"
        assert docs["casesensitivity"] == "mixed"
        assert not {"mountpoint", "compression", "readonly"} & set(docs)
        top = values(created(plan, "new/old"))
        assert (top["readonly"], top["compression"], top["volmode"]) == ("on", "zstd", "none")
        volume = created(plan, "new/old/vol")
        assert volume.argv[2:5] == ("-s", "-V", "1")
        assert values(volume)["volblocksize"] == "8192"

    def test_acls_of_a_source_that_has_them_from_above(self) -> None:
        place = case()
        place.place.source.nodes["old/docs"].own["acltype"] = "posix"
        wanted = changed(wish("synced"), source="old/docs", target="new/docs")
        assert values(created(place.plan(wanted), "new/docs"))["acltype"] == "posix"

    def test_a_target_may_have_properties_of_its_own(self) -> None:
        place = case()
        for name in ("new/old", "new/old/docs"):
            place.place.target.add(name, key="new", mounted=True, own={"recordsize": "16384"})
        plan = place.run(wish("synced"))
        assert "Unmount 'new/old/docs', which is not to be used before it is finalized" in plan.actions
        assert "Set property readonly=on on 'new/old'" in plan.actions
        assert "Record on 'new/old' that it is a migration of 'old'" in plan.actions
        assert place.own("new/old/docs")["recordsize"] == "16384"
        assert passes(plan)["new/old/docs"].empty
        assert not passes(plan)["new/old/copy"].empty
        # The deepest is unmounted first.
        order = [one for one in plan.actions if one.startswith("Unmount")]
        assert [one.split("'")[1] for one in order] == ["new/old/docs", "new/old"]

    def test_what_it_has_to_have_meanwhile_it_does_not_keep(self) -> None:
        place = case()
        plan = place.run(wish("synced"))
        assert passes(plan)["new/old/vol"].settings == {"readonly": "off", "volmode": "dev"}
        assert not {"readonly", "volmode"} & set(place.own("new/old/vol"))
        assert place.own("new/old")["readonly"] == "on"

    def test_a_dataset_that_is_there_is_closed_as_long_as_it_is_a_copy(self) -> None:
        place = case()
        place.place.target.add("new/old", key="new")
        place.place.target.add("new/old/docs", key="new", own={"readonly": "off"})
        place.place.target.add("new/old/copy", key="new", own={"readonly": "on"})
        place.run(wish("synced"))
        assert "readonly" not in place.own("new/old/docs")
        assert place.own("new/old/copy")["readonly"] == "on"
        place.place.source.nodes["old/docs"].written = 1
        place.run(wish("synced", LATER))
        assert place.own("new/old/copy")["readonly"] == "on"

    def test_a_new_dataset_is_known_as_a_copy_of_its_source(self) -> None:
        place = case()
        place.run(wish("synced"), 4)
        replica = place.place.target.side("new/old", True, False).datasets["new/old/docs"]
        record = copied_record(replica)
        assert record is not None
        assert (record.source, record.snapshot, record.goal) == ("1/old/docs/its-head", "-", NEW)
        assert record.under_way

    def test_a_volume_that_grew(self) -> None:
        place = case()
        place.run(wish("synced"))
        place.place.source.nodes["old/vol"].size = 7
        place.place.source.nodes["old/vol"].written = 1
        plan = place.plan(wish("synced", LATER))
        assert "Set volsize=7 on 'new/old/vol', as it is at the source" in plan.actions

    def test_a_volume_that_grew_since_the_snapshot_that_is_copied(self) -> None:
        place = case(True)
        place.place.source.nodes["old/vol"].size = 7
        place.run(wish("synced"))
        assert place.place.target.nodes["new/old/vol"].size == 1
        assert place.holds["new/old/vol"] == "old/vol@a"
        place.place.source.nodes["old/vol"].written = 1
        place.run(wish("synced"))
        assert (place.holds["new/old/vol"], place.place.target.nodes["new/old/vol"].size) == ("old/vol", 7)

    def test_what_is_left_out_makes_another_state(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        plan = place.run(wish("synced", skip={"old/docs": ("broken",)}))
        assert {name: one.skip for name, one in passes(plan).items()} == {"new/old/docs": ("broken",)}
        assert not place.run(wish("synced", skip={"old/docs": ("broken",)})).changed
        assert set(passes(place.run(wish("synced")))) == {"new/old/docs"}

    def test_what_others_have_below_a_target_that_is_there_keeps_it_from_being_one(self) -> None:
        place = case()
        place.place.target.add("new/old", key="new", mounted=True)
        place.place.target.add("new/old/apps", key="new", mounted=True)
        refused(
            place, "'new/old' exists, is no migration of 'old' yet, and has below it .*: 'new/old/apps'.*readonly=on"
        )
        refused(place, "has below it what is not migrated: 'new/old/apps'", recursive=False)
        refused(place, "has below it what is not migrated: 'new/old/apps'", force=True)

    def test_what_is_below_the_target_and_not_at_the_source_is_left_alone(self) -> None:
        place = case()
        place.run(wish("synced"))
        place.place.target.add("new/old/own", key="new", mounted=True)
        place.place.source.nodes["old/docs"].written = 1
        refused(place, "below the target, are not migrated, and are mounted: 'new/old/own'", stamp=LATER)
        place.place.target.nodes["new/old/own"].mounted = False
        plan = place.run(wish("synced", LATER))
        assert any("'new/old/own'" in one for one in plan.warnings)
        assert any("inherit from 'new/old' that it can't be written to" in one for one in plan.warnings)
        assert "new/old/own" not in place.holds

    def test_what_inherits_from_the_top_is_not_mounted_while_that_can_be_written_to(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        place.place.target.nodes["new/old/docs"].mounted = True
        assert not place.run(wish("synced")).changed
        # Only what is in the top has changed.
        place.place.source.nodes["old"].written = 1
        plan = place.run(wish("synced"))
        assert set(passes(plan)) == {"new/old"}
        assert [one for one in plan.actions if one.startswith("Unmount")] == [
            "Unmount 'new/old/docs', which is not to be used before it is finalized"
        ]


class TestMeanwhile:
    def test_somebody_wrote_to_the_target(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        place.place.target.nodes["new/old/docs"].written = 1
        refused(place, "'new/old/docs' was written to since it was copied from 'old/docs'")
        assert set(passes(place.run(wish("synced", force=True)))) == {"new/old/docs"}

    def test_somebody_took_a_snapshot_of_the_target(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        place.place.target.snapshot(["new/old/docs"], "mine")
        refused(place, "has snapshots of its own .@mine.")
        plan = place.run(wish("synced", force=True))
        assert passes(plan)["new/old/docs"].doomed == ("--head--", "mine")

    def test_somebody_destroyed_what_stands_for_what_was_copied(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        place.place.target.nodes["new/old/docs"].snapshots.clear()
        assert set(passes(place.run(wish("synced")))) == {"new/old/docs"}

    def killed(self, place: Case, name: str, goal: str = "--head--", **kept: str) -> str:
        """A pass that was killed after it had marked a dataset; returns the GUID of the snapshot before it."""
        node = place.place.target.nodes[name]
        guid, source = node.snapshots[0].guid, node.own[COPY_RECORD].split()[0]
        node.own.update({COPY_RECORD: Copied(source, guid, under_way(goal, kept)).text(), "readonly": "off"})
        return guid

    def test_a_pass_that_was_killed(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        guid = self.killed(place, "new/old/docs")
        node = place.place.target.nodes["new/old/docs"]
        node.snapshots.clear()
        node.written = 9
        plan = place.run(wish("synced"))
        # What was left writable is closed before anything else is done.
        assert plan.actions[0].startswith("Give 'new/old/docs' back its readonly")
        # Not before what that run may have left at work on another host is ended.
        assert isinstance(plan.steps[0].action, Alone)
        assert plan.steps[0].action.dataset == "new/old/docs"
        (one,) = passes(plan).values()
        assert (one.target, one.resumed, one.before, one.doomed) == ("new/old/docs", True, guid, ())
        assert "readonly" not in node.own

    @given(
        first=st.booleans(), target=st.sampled_from(["new/old", "new/old/docs", "new/old/vol"]), after=st.integers(0, 5)
    )
    def test_wherever_it_is_killed_the_next_run_ends_it(self, first: bool, target: str, after: int) -> None:
        place = case()
        if not first:
            place.run(wish("synced"))
            place.place.source.nodes["old"].written = 1
        plan = place.plan(wish("synced", LATER))
        one = next(step for step in plan.steps if isinstance(step.action, Pass) and step.action.target == target)
        for step in plan.steps[: plan.steps.index(one)]:
            place.act(step.action)
        place.killed(t.cast("Pass", one.action), after)
        others = copy.deepcopy(place)
        place.run(wish("verified", LAST))
        assert {
            name: node.own["readonly"] for name, node in place.place.target.nodes.items() if "readonly" in node.own
        } == {"new/old": "on"}
        # Whenever it was, what others have done there is not destroyed. What they write while rsync does is not told.
        others.snapshot(target, "mine")
        refused(others, "has snapshots of its own .@mine.", stamp=LAST)

    def test_what_was_its_own_before_it_was_killed(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        self.killed(place, "new/old/docs", readonly="on")
        plan = place.run(wish("synced"))
        assert passes(plan)["new/old/docs"].afterwards == {"readonly": "on"}
        assert place.own("new/old/docs")["readonly"] == "on"

    def test_the_top_that_was_left_writable(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        self.killed(place, "new/old")
        plan = place.run(wish("synced"))
        assert plan.actions[0] == "Set property readonly=on on 'new/old'"
        assert plan.steps[0].branch == "old"
        assert isinstance(plan.steps[0].action, Alone)
        assert plan.steps[0].action.dataset == "new/old"

    def test_snapshots_of_others_since_one_that_was_killed(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        self.killed(place, "new/old/docs", "later")
        node = place.place.target.nodes["new/old/docs"]
        node.snapshots.clear()
        place.place.target.snapshot(["new/old/docs"], "later")
        place.place.target.snapshot(["new/old/docs"], "mine")
        refused(place, "has snapshots of its own .@mine. since it was copied")
        assert passes(place.run(wish("synced", force=True)))["new/old/docs"].doomed == ("later", "mine")

    @pytest.mark.parametrize("goal", ["--head--", "later"])
    def test_written_since_one_that_was_killed_before_or_after_it_wrote(self, goal: str) -> None:
        place = case(True)
        place.run(wish("synced"))
        self.killed(place, "new/old/docs", goal)
        place.place.target.nodes["new/old/docs"].written = 1
        refused(place, "'new/old/docs' was written to since it was copied")

    def test_a_pass_that_broke_off_by_itself(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        node = place.place.target.nodes["new/old/docs"]
        node.snapshots.clear()
        place.place.target.snapshot(["new/old/docs"], "--partial--")
        source = node.own[COPY_RECORD].split()[0]
        node.own[COPY_RECORD] = Copied(source, node.snapshots[0].guid, "partial").text()
        node.written = 1
        refused(place, "'new/old/docs' was written to since it was copied")
        node.written = 0
        (one,) = passes(place.run(wish("synced"))).values()
        assert (one.target, one.resumed, one.doomed) == ("new/old/docs", True, ("--partial--",))

    def test_a_copy_of_another_source(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        node = place.place.target.nodes["new/old/docs"]
        node.own[COPY_RECORD] = node.own[COPY_RECORD].replace("1/old/docs/its-head", "9/old/docs/its-head", 1)
        refused(place, "'new/old/docs' is a copy of another dataset than the present 'old/docs'")
        refused(place, "'new/old/docs' is a copy of another dataset than the present 'old/docs'", force=True)

    def test_the_verified_copy_of_another_migration_below_an_empty_target(self) -> None:
        place = case()
        place.place.target.add("new/old", key="new")
        place.place.source.nodes["old/vol"].written = 0
        # old/docs has been migrated to new/old/docs by itself, from another pool.
        own = {SOURCE_RECORD: "77:other/docs", COPY_RECORD: "77 78 79"}
        place.place.target.add("new/old/docs", key="new", own=own)
        refused(place, "'new/old/docs' is the target of another migration, or a part of it .77:other/docs.")
        refused(place, "'new/old/docs' is the target of another migration", force=True)

    def test_a_record_that_is_inherited_is_nobodys(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        del place.own("new/old/docs")[COPY_RECORD]
        refused(place, "'new/old/docs' exists, and was not made by 'method: rsync'")

    def test_a_part_of_another_migration(self) -> None:
        place = case()
        place.run(wish("finalized"))
        # The same source, and a copy of it, but one that is in use.
        wanted = changed(wish("synced", LATER), source="old/docs", target="new/old/docs")
        with pytest.raises(Refused, match="'new/old/docs' is the target of another migration, or a part of it"):
            place.plan(wanted)

    def test_what_was_left_writable_is_closed_before_the_source_is_touched(self) -> None:
        place = case()
        place.run(wish("synced"))
        self.killed(place, "new/old/docs")
        place.place.source.nodes["old"].written = 1
        actions = place.plan(wish("synced", LATER)).actions
        assert actions[0].startswith("Give 'new/old/docs' back its readonly")
        assert actions[1].startswith("Take a snapshot of 'old'")

    @pytest.mark.parametrize("read_only", [False, True])
    @given(steps=st.integers(0, 20))
    def test_wherever_it_is_cut_short_the_next_run_ends_it(self, read_only: bool, steps: int) -> None:
        place = case(read_only)
        place.run(wish("verified"), steps)
        place.run(wish("finalized", LATER))
        assert reached(wish("planned"), place.found(wish("planned"))) == "finalized"
        assert all(one.split("@")[0] == name.split("/", 1)[1] for name, one in place.holds.items())


class TestVerified:
    def test_files_and_blocks_are_compared(self) -> None:
        place = case(True)
        plan = place.run(wish("verified"))
        looks = [step.action for step in plan.steps if isinstance(step.action, (Compare, CompareTree, ReadAll))]
        assert [(type(one).__name__, one.target) for one in looks] == [
            ("CompareTree", "new/old@a"),
            ("CompareTree", "new/old/copy@--head--"),
            ("CompareTree", "new/old/docs@--head--"),
            ("Compare", "new/old/vol@a"),
        ]
        assert [one.source for one in looks if not isinstance(one, ReadAll)] == [
            "old@a",
            "old/copy",
            "old/docs",
            "old/vol@a",
        ]
        assert all(one.volumes for one in looks if isinstance(one, Compare))
        assert reached(wish("verified"), place.found(wish("verified"))) == "verified"
        assert len(place.proofs) == 1

    def test_full_reads_the_one_snapshot_that_there_is(self) -> None:
        place = case(True)
        plan = place.run(wish("verified", verify="full"))
        reads = {step.action.target: step.action for step in plan.steps if isinstance(step.action, ReadAll)}
        assert all(one.copied for one in reads.values())
        assert (reads["new/old/docs"].first, reads["new/old/docs"].last) == ("--head--", "--head--")

    def test_what_is_left_out_is_not_compared(self) -> None:
        plan = case(True).run(wish("verified", skip={"old/docs": ("broken",)}))
        skips = {one.action.target: one.action.skip for one in plan.steps if isinstance(one.action, CompareTree)}
        assert skips["new/old/docs@--head--"] == ("broken",)

    def test_it_waits_for_every_dataset(self) -> None:
        plan = case(True).plan(wish("finalized"))
        last = [step for step in plan.steps if step.branch == "state=finalized"]
        assert last[0].title == "See that everything at 'new/old' is encrypted, and was copied"
        assert plan.steps[-len(last) :] == tuple(last)
        assert all(set(step.after) == {"old", "old/docs", "old/copy", "old/vol"} for step in last)

    def test_what_is_done_to_the_top_fails_with_it(self) -> None:
        # Left over in the second look, it would say that the run did not come to its end, and not why.
        place = case(True)
        place.place.target.add("new/old", key="new", mounted=True)
        plan = place.plan(wish("synced"))
        assert {step.branch for step in plan.steps if "'new/old'" in step.title} == {"old"}
        place.fails = {"old"}

        def decide(found: Found) -> Plan:
            return place.acting(plan_migration(wish("synced"), found))

        outcome = converge(lambda: place.found(wish("synced")), decide, RecordedRunner(), False)
        (failure,) = outcome.plan.failures
        assert failure.branch == "old" and "status 23" in failure.message

    def test_where_nothing_is_to_be_copied_it_waits_for_nothing(self) -> None:
        place = case(True)
        place.run(wish("synced"))
        steps = place.plan(wish("verified")).steps
        # In a branch all the same: what fails there must not be looked for elsewhere by the second look.
        assert {(step.branch, step.after) for step in steps} == {("state=verified", ())}

    def test_a_new_import_has_to_be_compared_again(self) -> None:
        place = case(True)
        place.run(wish("verified"))
        place.imported = "12"
        assert reached(wish("verified"), place.found(wish("verified"))) == "planned"
        assert place.run(wish("verified")).changed


class TestFinalized:
    def test_a_source_in_use(self) -> None:
        place = case()
        place.run(wish("synced"))
        place.place.source.nodes["old/docs"].written = 3
        plan = place.run(wish("finalized", LATER))
        assert plan.actions[0].startswith("Set readonly=on on 'old'")
        assert "readonly" not in place.own("new/old")
        assert place.holds["new/old/docs"] == "old/docs@migrate-20261128T010203Z"
        assert not place.run(wish("finalized", LAST)).changed
        refused(place, "the target is in use", stamp=LAST)
