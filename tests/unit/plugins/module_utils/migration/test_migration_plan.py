# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done from stage to stage, and what is refused."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.migration.compare import Compare, ReadAll
from ansible_collections.nasops.encryption.plugins.module_utils.migration.options import LEVELS, STATES
from ansible_collections.nasops.encryption.plugins.module_utils.migration.plan import SeeQuiet, reached
from ansible_collections.nasops.encryption.plugins.module_utils.migration.result import describe_migration
from ansible_collections.nasops.encryption.plugins.module_utils.migration.state import (
    FINAL_RECORD,
    SOURCE_RECORD,
    VERIFIED_RECORD,
    Member,
    verified_record,
)
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Plan
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_option import WantedKey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import Transfer

from ..recorded import RecordedRunner, answer
from ..zfs.replicate_model import Host, World
from .model import LAST, LATER, Case, Seen, case, changed, wants

LIMITS = {
    "aclmode": "passthrough",
    "nbmand": "on",
    "vscan": "on",
    "filesystem_limit": "7",
    "snapshot_limit": "7",
}


def refused(place: Case, match: str, state: str = "synced", **facts: t.Any) -> list[str]:
    with pytest.raises(Refused, match=match) as caught:
        place.plan(wants(state, **facts))
    return list(caught.value.details.get("refusals", ()))


def told(plan: Plan) -> list[str]:
    return [step.action.title for step in plan.steps if isinstance(step.action, Transfer)]


class TestPlanned:
    @pytest.mark.parametrize("read_only", [False, True])
    def test_it_does_nothing_and_says_what_would_be_done(self, read_only: bool) -> None:
        place = case(read_only)
        wanted = wants("planned")
        plan = place.run(wanted)
        assert plan.steps == ()
        assert "Holds of snapshots are not sent." in plan.warnings
        result = describe_migration(wanted, place.found(wanted))
        assert result["reached"] == "planned"
        assert result["source_read_only"] == read_only
        assert [one["source"] for one in result["datasets"]] == ["old", "old/copy", "old/docs", "old/vol"]
        assert result["datasets"][1]["origin"] == "old/docs@a"
        assert result["datasets"][3]["type"] == "volume"
        assert result["estimated_bytes"] == 4
        assert len(result["streams"]) == (5 if read_only else 8)
        assert all(one["geli"] for one in result["members"])

    def test_a_read_only_source_comes_with_a_word_on_its_log(self) -> None:
        assert any("only in its log" in one for one in case(True).plan(wants("planned")).warnings)
        assert not any("only in its log" in one for one in case().plan(wants("planned")).warnings)

    def test_what_is_not_carried_over_is_named(self) -> None:
        place = case()
        place.place.source.nodes["old/docs"].own.update(sharenfs="on", mountpoint="/elsewhere", **LIMITS)
        warnings = place.plan(wants("planned")).warnings
        assert "Property sharenfs is not carried over. It is set on 'old/docs'." in warnings
        assert "Property mountpoint is not carried over. It is set on 'old/docs'." in warnings
        for one in LIMITS:
            assert f"Property {one} is not carried over. It is set on 'old/docs'." in warnings

    def test_a_pool_without_geli_is_named(self) -> None:
        place = case()
        place.members = (Member("/dev/sda1", "ONLINE", False),)
        assert any(
            "No member of the pool of 'old' is a device of GELI" in one for one in place.plan(wants("planned")).warnings
        )

    def test_all_reasons_come_at_once(self) -> None:
        place = case()
        place.members = (*place.members, Member("/dev/gptid/3.eli", "UNAVAIL", True))
        place.place.target.available = 3
        place.place.target.features.discard("large_dnode")
        place.place.source.features.discard("large_dnode")
        place.place.target.features.discard("encryption")
        reasons = refused(place, "can't be begun", "planned")
        assert len(reasons) == 3
        assert "gptid/3.eli .UNAVAIL." in reasons[0].replace("(", ".").replace(")", ".")
        assert "has room for 3 B, and what is still to be sent takes about 4 B" in reasons[1]
        assert "does not have the feature 'encryption'" in reasons[2]


class TestRefused:
    def test_a_missing_member_unless_it_is_allowed(self) -> None:
        place = case()
        place.members = (Member("/dev/gptid/3.eli", "UNAVAIL", True),)
        refused(place, "partuuid of a disk")
        assert place.run(wants("synced", allow_degraded=True)).changed

    def test_a_target_that_is_not_encrypted(self) -> None:
        place = case()
        place.place.target.nodes["new"].key = ""
        refused(place, "not encrypted")

    def test_a_target_that_holds_something_else(self) -> None:
        place = case()
        place.place.target.add("new/old", key="new")
        place.place.target.snapshot(["new/old"], "theirs")
        refused(place, "no replica of 'old'")

    def test_a_target_of_another_migration(self) -> None:
        place = case()
        place.run(wants("synced"))
        place.own("new/old")[SOURCE_RECORD] = "17:other"
        refused(place, "another source .17:other")

    def test_a_locked_target(self) -> None:
        place = case()
        place.run(wants("synced"))
        place.place.target.nodes["new"].locked = True
        (reason, _engine) = refused(place, "is locked")
        assert "Unlock that first" in reason

    def test_a_snapshot_that_is_not_there(self) -> None:
        refused(case(), "have no snapshot @monday", snapshot="monday")
        refused(case(True), "have no snapshot @monday", snapshot="monday")

    def test_a_proof_without_a_key(self) -> None:
        place = case()
        place.location = "prompt"
        refused(place, "Give it as 'proof_key'", "verified")
        assert place.run(wants("synced")).changed
        key = WantedKey("passphrase", Key("passphrase", b"long enough"))
        place.run(wants("verified", proof_key=key))
        (proof,) = place.proofs
        assert (proof.proof.location, proof.proof.key) == ("prompt", key.value)

    def test_others_that_use_the_key_and_are_mounted_before_anything_is_copied(self) -> None:
        place = case()
        place.place.target.add("new/other", key="new", own={"mounted": "yes", "mountpoint": "/new/other"})
        refused(place, "these use it too, and are mounted: 'new/other'", "verified")
        assert place.run(wants("synced")).changed
        place.own("new/other").clear()
        place.run(wants("verified", LATER))
        # Once it is proven, they may be.
        place.own("new/other").update(mounted="yes", mountpoint="/new/other")
        assert place.run(wants("verified", LAST)).steps == ()

    def test_a_target_without_room_for_the_rest(self) -> None:
        place = case()
        place.place.source.nodes["old/docs"].size = 1 << 41
        refused(place, "has room for 1.0 TiB")


class TestReservations:
    """The target has room for 1 TiB."""

    def case(self, read_only: bool = False, **own: int) -> Case:
        place = case(read_only)
        place.place.source.nodes["old/vol"].own.update({one: str(value) for one, value in own.items()})
        return place

    @pytest.mark.parametrize("read_only", [False, True])
    def test_what_there_is_no_room_for_is_told_before_the_start(self, read_only: bool) -> None:
        place = self.case(read_only, refreservation=2 << 40)
        words = "sets 2.0 TiB aside there, as it is at the source, beside about 4 B that is still to be sent: "
        (note,) = [one for one in place.plan(wants("planned")).warnings if "aside" in one]
        assert f"{words}refreservation of 'old/vol' is 2.0 TiB. Make room" in note
        assert "'properties: {refreservation: null}'" in note
        for state in ("synced", "verified"):
            place.run(wants(state, LATER))
        (reason,) = refused(place, "sets 2.0 TiB aside there, as it is at the source: ", "finalized")
        assert "Make room" in reason
        # Nothing was closed for that.
        assert "readonly" not in place.place.source.nodes["old"].own

    def test_the_way_out_is_open_in_the_end_too(self) -> None:
        place = self.case(refreservation=2 << 40)
        place.run(wants("verified"))
        without = wants("finalized", LATER, properties={"refreservation": None})
        assert not [one for one in describe_migration(without, place.found(without))["notes"] if "aside" in one]
        place.run(without)
        assert "refreservation" not in place.own("new/old/vol")

    @pytest.mark.parametrize(("count", "fits"), [((1 << 40) - 4, True), ((1 << 40) - 3, False)])
    def test_it_comes_on_top_of_the_data(self, count: int, fits: bool) -> None:
        place = self.case(refreservation=count)
        assert (not [one for one in place.plan(wants("planned")).warnings if "aside" in one]) == fits
        if fits:
            place.run(wants("finalized"))
        else:
            refused(place, "aside", "finalized")

    @pytest.mark.parametrize(("count", "fits"), [((1 << 40), True), ((1 << 40) + 1, False)])
    def test_a_reservation_has_the_data_in_it(self, count: int, fits: bool) -> None:
        place = self.case()
        place.place.source.nodes["old"].own["reservation"] = str(count)
        assert (not [one for one in place.plan(wants("planned")).warnings if "aside" in one]) == fits

    def test_one_that_is_in_another_counts_once(self) -> None:
        place = self.case(refreservation=3 << 38, reservation=3 << 38)
        place.place.source.nodes["old"].own["reservation"] = str(1 << 40)
        assert not [one for one in place.plan(wants("planned")).warnings if "aside" in one]

    def test_one_that_the_target_has_already_counts_no_more(self) -> None:
        place = self.case(refreservation=3 << 38)
        place.run(wants("verified"))
        place.own("new/old/vol")["refreservation"] = str(3 << 38)
        place.own("new/old")["used"] = str((3 << 38) + 4)
        place.place.target.available = 1 << 20
        place.run(wants("finalized", LATER))

    def test_what_is_inherited_or_zero_is_none(self) -> None:
        place = self.case(refreservation=0)
        place.place.source.nodes["old/copy"].own["refreservation"] = "-"
        place.place.target.available = 4
        assert not [one for one in place.plan(wants("planned")).warnings if "aside" in one]

    def test_lack_of_room_for_the_data_itself_is_told_alone(self) -> None:
        place = self.case(refreservation=2 << 40)
        place.place.target.available = 3
        (reason,) = refused(place, "has room for 3 B", "finalized")
        assert "aside" not in reason

    def test_rsync_too(self) -> None:
        place = self.case(refreservation=2 << 40)
        assert [one for one in place.plan(wants("planned", streams=False)).warnings if "sets 2.0 TiB aside" in one]
        refused(place, "sets 2.0 TiB aside", "finalized", streams=False)

    def test_it_is_set_before_the_target_can_be_written_to(self) -> None:
        place = self.case(refreservation=4096, reservation=8192)
        place.place.source.nodes["old/vol"].own["volmode"] = "dev"
        plan = place.run(wants("finalized"))
        wanted = [
            "Set property reservation=8192 on 'new/old/vol', as it is at the source",
            "Set property refreservation=4096 on 'new/old/vol', as it is at the source",
            "Let 'new/old' be written to",
            "Unset property volmode of 'new/old'",
            "Set property volmode=dev on 'new/old/vol', as it is at the source",
        ]
        assert [one for one in plan.actions if one in wanted] == wanted
        (step,) = [step for step in plan.steps if "refreservation" in step.title]
        assert "leave this out by 'properties: {refreservation: null}'" in step.hint


class TestSynced:
    @pytest.mark.parametrize("read_only", [False, True])
    def test_it_goes_so_far_and_no_further(self, read_only: bool) -> None:
        place = case(read_only)
        plan = place.run(wants("synced"))
        assert not place.proofs
        assert not place.looked_at
        assert plan.actions[-1] == "Record on 'new/old' that it is a migration of 'old'"
        assert place.own("new/old")[SOURCE_RECORD] == "1:old"
        assert reached(wants("synced", LATER), place.found(wants("synced", LATER))) == "synced"
        assert all(node.key == "new" for name, node in place.place.target.nodes.items())
        assert place.place.target.nodes["new/old/copy"].origin == "new/old/docs@a"
        assert place.run(wants("synced", LATER)).steps == ()

    def test_streams_are_counted(self) -> None:
        plan = case().run(wants("synced"))
        assert [one.split(":")[0] for one in told(plan)] == [f"{number} of 7" for number in range(1, 8)]

    def test_volumes_get_no_nodes_and_nothing_is_written_meanwhile(self) -> None:
        place = case()
        place.run(wants("synced"))
        assert place.own("new/old")["volmode"] == "none"
        assert place.own("new/old")["readonly"] == "on"


class TestVerified:
    @pytest.mark.parametrize("read_only", [False, True])
    @pytest.mark.parametrize("level", LEVELS)
    def test_it_looks_at_what_it_should(self, level: str, read_only: bool) -> None:
        place = case(read_only)
        plan = place.run(wants("verified", verify=level))
        compared = [step.action for step in plan.steps if isinstance(step.action, Compare)]
        read = [step.action for step in plan.steps if isinstance(step.action, ReadAll)]
        assert len(compared) == (0 if level == "streams" else 4)
        assert len(read) == (4 if level == "full" else 0)
        assert len(place.proofs) == 1
        for one in compared:
            # What is compared is the newest that the target has, with the dataset of the same name.
            name = one.target.split("@")[0]
            assert place.place.target.nodes[name].snapshots[-1].name == one.target.split("@")[1]
            assert one.source.split("@")[0] == name[len("new/") :]
        heads = {one.source for one in compared if "@" not in one.source}
        assert heads == ({"old/docs", "old/copy"} if read_only and level != "streams" else set())
        record = verified_record(place.own("new/old")[VERIFIED_RECORD])
        assert record is not None
        assert record.level == level

    def test_the_second_run_is_silent_and_a_weaker_one_too(self) -> None:
        place = case()
        place.run(wants("verified", verify="full"))
        for level in LEVELS:
            assert place.run(wants("verified", LATER, verify=level)).steps == ()

    def test_a_stronger_one_does_it_again(self) -> None:
        place = case()
        place.run(wants("verified", verify="streams"))
        plan = place.run(wants("verified", LATER, verify="checksums"))
        assert plan.actions[0] == "Forget that an earlier state of 'new/old' was verified"
        assert not told(plan)

    @pytest.mark.parametrize("read_only", [False, True])
    @pytest.mark.parametrize("level", LEVELS)
    def test_it_is_done_again_by_each_run_that_is_asked_to(self, level: str, read_only: bool) -> None:
        place = case(read_only)
        place.run(wants("verified", verify="full"))
        place.damaged.add("new/old/vol")
        assert place.run(wants("verified", LATER, verify=level)).steps == ()
        for run in ("one", "two"):
            place.proofs.clear()
            again = wants("verified", LATER, verify=level, again=run)
            if level == "streams":
                plan = place.run(again)
                assert not told(plan)
                assert place.proofs
            else:
                with pytest.raises(Seen, match="new/old/vol"):
                    place.run(again)
                assert VERIFIED_RECORD not in place.own("new/old")
                assert reached(again, place.found(again)) == "synced"
        place.damaged.clear()
        place.run(wants("verified", LATER, verify=level, again="three"))
        for run in ("four", "five"):
            plan = place.run(wants("verified", LATER, verify=level, again=run))
            assert plan.actions[0] == "Forget that an earlier state of 'new/old' was verified"
            assert plan.actions[-1] == f"Record on 'new/old' that it is verified ({level})"
            assert reached(wants("planned"), place.found(wants("planned"))) == "verified"
        # Whoever did it, it counts.
        assert place.run(wants("verified", LATER, verify=level)).steps == ()

    def test_doing_it_again_changes_nothing_before_it_and_nothing_afterwards(self) -> None:
        place = case(True)
        place.run(wants("synced", again="one"))
        assert place.run(wants("synced", LATER, again="two")).steps == ()
        place.run(wants("verified", LATER))
        plan = place.run(wants("finalized", LATER, again="three"))
        assert any(isinstance(step.action, Compare) for step in plan.steps)
        assert place.run(wants("finalized", LAST, again="four")).steps == ()

    def test_it_does_not_count_for_what_came_later(self) -> None:
        place = case()
        place.run(wants("verified"))
        place.place.source.nodes["old/docs"].written = 9
        place.run(wants("synced", LATER))
        later = wants("verified", LAST)
        assert reached(later, place.found(later)) == "synced"
        assert any(isinstance(step.action, Compare) for step in place.run(later).steps)

    def test_what_was_found_to_differ_is_not_verified_any_more(self) -> None:
        place = case()
        place.run(wants("verified", verify="streams"))
        place.damaged.add("new/old/vol")
        with pytest.raises(Seen, match="new/old/vol"):
            place.run(wants("verified", LATER, verify="full"))
        assert VERIFIED_RECORD not in place.own("new/old")
        assert reached(wants("planned"), place.found(wants("planned"))) == "synced"

    @pytest.mark.parametrize("record", ["full", "full:", "full::one", "all:1", "full:0123456789abcdef", ""])
    def test_a_record_that_says_anything_else_is_not_believed(self, record: str) -> None:
        place = case()
        place.run(wants("verified"))
        place.own("new/old")[VERIFIED_RECORD] = record
        assert any(isinstance(step.action, Compare) for step in place.run(wants("verified", LATER)).steps)

    def test_it_is_forgotten_before_the_first_stream(self) -> None:
        place = case()
        place.run(wants("verified"))
        place.place.source.nodes["old/docs"].written = 9
        plan = place.run(wants("synced", LATER), 0)
        first = next(number for number, step in enumerate(plan.steps) if isinstance(step.action, Transfer))
        assert plan.actions.index("Forget that an earlier state of 'new/old' was verified") < first
        place.run(wants("synced", LATER), first + 1)
        assert VERIFIED_RECORD not in place.own("new/old")

    def test_a_lost_older_snapshot_of_the_target_is_missed(self) -> None:
        place = case()
        place.run(wants("verified", verify="full"))
        lost = place.place.target.nodes["new/old/docs"].snapshots.pop(0)
        assert lost.name == "a"
        later = wants("verified", LATER, verify="full")
        assert reached(later, place.found(later)) == "synced"
        assert any(isinstance(step.action, ReadAll) for step in place.plan(later).steps)

    def test_a_head_that_is_another_one_was_not_verified(self) -> None:
        place = case(True)
        place.run(wants("verified"))
        record = place.own("new/old")[VERIFIED_RECORD]
        place.place.source.nodes["old/docs"].size = 7
        place.run(wants("synced", LATER))
        # As a run leaves it that was killed before it forgot.
        place.own("new/old")[VERIFIED_RECORD] = record
        assert reached(wants("planned"), place.found(wants("planned"))) == "synced"

    @pytest.mark.parametrize(("read_only", "stage"), [(True, "synced"), (False, "verified")])
    def test_a_head_may_be_another_one_when_the_source_was_imported_again(self, read_only: bool, stage: str) -> None:
        place = case(read_only)
        place.run(wants("verified"))
        place.imported = "12"
        later = wants("verified", LATER)
        assert reached(later, place.found(later)) == stage
        plan = place.run(later)
        assert not told(plan)
        assert any(isinstance(step.action, Compare) for step in plan.steps) == read_only

    def test_the_key_of_the_replica_itself_is_proven(self) -> None:
        place = case()
        key = WantedKey("hex", Key("hex", b"a1" * 32))
        place.run(wants("verified", key=key, cipher="on"))
        (proof,) = place.proofs
        assert (proof.root, proof.proof.location, proof.proof.key) == ("new/old", "prompt", key.value)

    def test_a_key_file_is_used_as_zfs_will_use_it(self) -> None:
        place = case()
        place.run(wants("verified"))
        (proof,) = place.proofs
        assert (proof.root, proof.proof.location, proof.proof.key) == ("new", "file:///etc/zfs/keys/new.key", None)


class TestFinalized:
    def test_the_source_is_closed_first_and_what_was_written_until_then_comes_along(self) -> None:
        place = case()
        place.run(wants("verified"))
        plan = place.run(wants("finalized", LATER))
        assert plan.actions[0] == "Set readonly=on on 'old', so that nothing is written to the source any more"
        assert plan.actions[1] == "Forget that an earlier state of 'new/old' was verified"
        assert plan.actions[2].startswith("Take a snapshot of 'old'")
        assert plan.actions[-1] == "Record on 'new/old' that it has taken the place of 'old'"
        assert place.place.source.nodes["old"].own["readonly"] == "on"
        assert "readonly" not in place.own("new/old")
        assert "volmode" not in place.own("new/old")

    def test_a_child_with_a_value_of_its_own_is_closed_too(self) -> None:
        place = case()
        place.place.source.nodes["old/vol"].own["readonly"] = "off"
        place.run(wants("finalized"))
        assert place.place.source.nodes["old/vol"].own["readonly"] == "on"

    def test_what_is_left_out_and_closed_with_it_is_named(self) -> None:
        place = case()
        source = place.place.source
        for name in ("old/.system", "old/.system/cores", "old/.other"):
            source.add(name)
        source.nodes["old/.other"].own["readonly"] = "off"
        left_out = ("old/.system", "old/.other")
        warnings = place.plan(wants("finalized", exclude=left_out)).warnings
        closed = [one.split("'")[1] for one in warnings if "inherits readonly=on from 'old'" in one]
        assert closed == ["old/.system", "old/.system/cores"]
        assert not [one for one in place.plan(wants("verified", exclude=left_out)).warnings if "readonly" in one]
        source.nodes["old/.system"].own["readonly"] = "off"
        again = place.plan(wants("finalized", exclude=left_out)).warnings
        assert not [one for one in again if "readonly" in one]

    def test_what_it_closes_is_told_before_whatever_is_asked_for(self) -> None:
        place = case()
        place.place.source.add("old/.system")
        place.place.source.nodes["old/vol"].own["readonly"] = "off"
        for state in STATES:
            wanted = wants(state, exclude=("old/.system",), verify="full")
            told = describe_migration(wanted, place.found(wanted))["closing"]
            plan = place.plan(wants("finalized", exclude=("old/.system",), verify="full"))
            assert told[:2] == plan.actions[:2]
            assert "'old'" in told[0]
            assert "'old/vol'" in told[1]
            assert "the newest state of every dataset is read at both ends as a whole, and all snapshots" in told[2]
            assert told[3].startswith("'old/.system' is left out, and inherits readonly=on from 'old'")
            assert told[3] in plan.warnings
        wanted = wants("finalized", exclude=("old/.system",))
        place.run(wanted)
        assert describe_migration(wanted, place.found(wanted))["closing"] == []

    @pytest.mark.parametrize(("level", "read"), [("streams", False), ("checksums", True), ("full", True)])
    def test_how_long_it_is_closed_depends_on_what_is_compared(self, level: str, read: bool) -> None:
        place, wanted = case(), wants("verified", verify=level)
        place.run(wanted)
        told = " ".join(describe_migration(wanted, place.found(wanted))["closing"])
        assert ("is read at both ends as a whole" in told) == read
        # What was compared before is compared anew, although nothing was written.
        place.looked_at.clear()
        place.run(wants("finalized", LATER, verify=level))
        assert bool(place.looked_at) == read

    @pytest.mark.parametrize("level", LEVELS)
    def test_what_was_written_since_a_snapshot_asked_for_stays_behind(self, level: str) -> None:
        place = case()
        place.place.source.snapshot(["old/copy"], "a")
        facts: dict[str, t.Any] = {"verify": level, "snapshot": "a"}
        place.run(wants("verified", **facts))
        wanted = wants("finalized", LATER, **facts)
        told = describe_migration(wanted, place.found(wanted))["closing"][1]
        assert "What was written since @a stays behind" in told
        assert "written until then" not in told
        assert ("read at both ends" in told) == (level != "streams")
        assert ("all snapshots" in told) == (level == "full")
        place.looked_at.clear()
        plan = place.run(wanted)
        assert not [title for title in plan.actions if "snapshot" in title]
        assert not place.looked_at

    def test_a_source_that_can_not_be_written_to_is_not_closed(self) -> None:
        place, wanted = case(True), wants("planned", exclude=("old/docs",))
        assert describe_migration(wanted, place.found(wanted))["closing"] == []

    def test_a_source_that_is_still_written_to_is_not_given_up(self) -> None:
        place = case()
        place.busy.add("old/vol")
        with pytest.raises(Seen, match="old/vol"):
            place.run(wants("finalized"))
        assert FINAL_RECORD not in place.own("new/old")
        assert place.own("new/old")["readonly"] == "on"
        place.busy.clear()
        place.place.source.nodes["old/vol"].written = 3
        plan = place.run(wants("finalized", LATER))
        assert any("'old/vol'" in one for one in told(plan))
        assert reached(wants("planned"), place.found(wants("planned"))) == "finalized"

    def test_a_read_only_source_is_left_alone(self) -> None:
        place = case(True)
        before = {name: dict(node.own) for name, node in place.place.source.nodes.items()}
        place.run(wants("finalized"))
        assert {name: node.own for name, node in place.place.source.nodes.items()} == before

    def test_what_the_target_had_to_do_without_is_given_to_it(self) -> None:
        place = case()
        place.place.source.nodes["old/vol"].own.update(refreservation="1048576", volmode="dev")
        place.run(wants("verified"))
        assert "refreservation" not in place.own("new/old/vol")
        assert "volmode" not in place.own("new/old/vol")
        place.run(wants("finalized", LATER))
        assert place.own("new/old/vol")["refreservation"] == "1048576"
        assert place.own("new/old/vol")["volmode"] == "dev"

    def test_what_was_asked_for_stays(self) -> None:
        place = case()
        place.run(wants("finalized", properties={"readonly": "on", "volmode": "geom"}))
        assert place.own("new/old")["readonly"] == "on"
        assert place.own("new/old")["volmode"] == "geom"

    def test_it_is_used_from_then_on(self) -> None:
        place = case()
        place.run(wants("finalized"))
        place.place.target.nodes["new/old/docs"].written = 99
        place.place.target.snapshot(["new/old/docs"], "own")
        assert place.run(wants("finalized", LATER, verify="full")).steps == ()
        assert place.plan(wants("planned", LATER)).steps == ()
        for state in ("synced", "verified"):
            refused(place, "the target is in use", state)
        assert reached(wants("planned"), place.found(wants("planned"))) == "finalized"

    def test_something_in_the_clear_is_told_of(self) -> None:
        place = case()
        place.run(wants("finalized"))
        place.place.target.add("new/old/plain")
        refused(place, "NOT ENCRYPTED: 'new/old/plain'", "finalized")

    @pytest.mark.parametrize("record", ["", "0123", "true"])
    def test_a_record_alone_is_not_believed(self, record: str) -> None:
        place = case()
        place.run(wants("verified"))
        place.own("new/old")[FINAL_RECORD] = record
        assert not place.found(wants("planned")).finalized

    def test_a_copied_record_is_not_believed(self) -> None:
        place = case()
        place.run(wants("finalized"))
        place.own("new/old")[SOURCE_RECORD] = "8:old"
        assert not place.found(wants("planned")).finalized


@pytest.mark.parametrize("busy", [(), ("old/vol",), ("old", "old/vol")])
def test_what_was_written_since_is_seen_after_it_is_on_the_disks(busy: tuple[str, ...]) -> None:
    def say(command: Command) -> Result:
        if command.argv[:2] == ("zpool", "sync"):
            return answer(command.argv)
        words = next(one for one in command.argv if one.startswith("written@")).split(",")
        assert words[0] == "written@m"
        lines = [
            f"{name}\t{word}\t-\t{'4096' if name in busy and word == words[0] else '0' if word == words[0] else '-'}\n"
            for name in ("old", "old/vol")
            for word in words
        ]
        return answer(command.argv, "".join(lines))

    recorded = RecordedRunner(default=say)
    see = SeeQuiet("old", {"old": "m", "old/vol": "m"})
    if busy:
        with pytest.raises(Refused, match="is still written to") as caught:
            see(recorded)
        assert caught.value.details["written"] == list(busy)
    else:
        see(recorded)
    assert recorded.argvs[0] == ("zpool", "sync", "old")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any small pool."""
    read_only = draw(st.booleans())
    place = Case(World(Host(guid="1"), Host(guid="2")), read_only)
    place.place.target.add("new", key="new", wrapped="k")
    source = place.place.source
    source.add("old", written=draw(st.integers(0, 1)))
    for number in range(draw(st.integers(0, 5))):
        name = draw(st.sampled_from(list(source.nodes)))
        kind = draw(st.sampled_from(["snapshot", "dataset", "clone"]))
        if kind == "snapshot":
            source.snapshot([name], f"s{number}")
        elif kind == "clone" and source.nodes[name].snapshots:
            source.clone(f"old/{draw(st.sampled_from('az'))}{number}", f"{name}@{source.nodes[name].snapshots[0].name}")
        else:
            source.add(f"{name}/d{number}", written=1)
    source.readonly = "on" if read_only else "off"
    return place


@given(cases(), st.lists(st.tuples(st.sampled_from(STATES[1:]), st.integers(0, 20)), max_size=3), st.booleans())
def test_wherever_runs_are_cut_the_last_one_completes_it(place: Case, cut: list[tuple[str, int]], writes: bool) -> None:
    for number, (state, steps) in enumerate(cut):
        wanted = wants(state, f"2026112{number}T010203Z", verify="full")
        if not place.found(wanted).finalized:
            place.run(wanted, steps)
        if writes and not place.read_only and place.place.source.nodes["old"].own.get("readonly") != "on":
            place.place.source.nodes["old"].written += 1
        if reached(wanted, place.found(wanted)) in ("verified", "finalized"):
            # It is only said of what was compared and proven.
            assert place.proofs
    last = wants("finalized", LAST, verify="full")
    place.run(last)
    assert place.proofs
    assert reached(last, place.found(last)) == "finalized"
    for name, node in place.place.source.nodes.items():
        assert node.snapshots == [] or node.snapshots[-1].guid in {
            one.guid for one in place.place.target.nodes[f"new/{name}"].snapshots
        }
        assert place.place.target.nodes[f"new/{name}"].key == "new"
    assert place.run(wants("finalized", "20261130T010203Z", verify="full")).steps == ()


def test_a_changed_wish_is_another_plan() -> None:
    place = case()
    place.run(wants("synced"))
    assert place.run(changed(wants("synced", LATER), properties={"atime": "off"})).actions == [
        "Set property atime=off on 'new/old'"
    ]
