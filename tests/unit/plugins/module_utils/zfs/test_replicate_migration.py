# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration asks of a replication: clones that stay clones, heads without snapshots, user properties."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Plan
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_options import Replication
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_plan import plan_replication
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import Transfer
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_state import HEAD, HEAD_MARK

from .replicate_model import Host, World, wish


def migrates(**facts: t.Any) -> Replication:
    return wish(**{"source": "old", "target": "new/old", "mode": "reencrypt", "migration": True, **facts})


def world() -> World:
    """A plain pool with one child, and an encrypted one."""
    source, target = Host(guid="1"), Host(guid="2")
    source.add("old", written=1)
    source.add("old/docs", written=1)
    target.add("new", key="new", wrapped="k")
    return World(source, target)


def sends(plan: Plan) -> list[str]:
    return [" ".join(step.action.send.argv) for step in plan.steps if isinstance(step.action, Transfer)]


def receives(plan: Plan) -> list[str]:
    return [" ".join(step.action.receive.argv) for step in plan.steps if isinstance(step.action, Transfer)]


def same_ends(place: World, top: str = "old", heads: bool = False) -> bool:
    """Whether the newest state of each dataset is at the target, encrypted, and clones are clones."""
    for name in place.source.below(top):
        ours, theirs = place.source.nodes[name], place.target.nodes[f"new/{name}"]
        newest = place.source.head(name) if heads and (ours.written or not ours.snapshots) else ours.snapshots[-1]
        if theirs.snapshots[-1].guid != newest.guid or not theirs.key:
            return False
        if not {one.guid for one in ours.snapshots} <= {one.guid for one in theirs.snapshots}:
            return False
    return True


class TestWritable:
    def test_each_dataset_goes_plain_and_is_encrypted_there(self) -> None:
        place = world()
        plan = place.run(migrates())
        assert sends(plan)[0].startswith("zfs send -v -P -L old@nasops-")
        assert all("-x encryption" in one for one in receives(plan))
        assert same_ends(place)

    def test_a_clone_is_made_of_its_origin_again(self) -> None:
        place = world()
        place.source.snapshot(["old", "old/docs"], "a")
        place.source.clone("old/copy", "old/docs@a")
        plan = place.run(migrates())
        (clone,) = [one for one in sends(plan) if "old/copy@" in one]
        assert clone == "zfs send -v -P -L -i old/docs@a old/copy@nasops-20261127T010203Z"
        assert place.target.nodes["new/old/copy"].origin == "new/old/docs@a"
        assert any("a clone of 'old/docs@a'" in title for title in plan.actions)
        assert same_ends(place)

    def test_a_clone_is_sent_behind_its_origin_whatever_the_names(self) -> None:
        place = world()
        place.source.snapshot(["old", "old/docs"], "a")
        place.source.clone("old/a", "old/docs@a")
        place.source.nodes["old/a"].written = 0
        place.source.snapshot(["old/a"], "b")
        place.source.clone("old/a/0", "old/a@b")
        place.run(migrates())
        assert place.target.nodes["new/old/a"].origin == "new/old/docs@a"
        assert place.target.nodes["new/old/a/0"].origin == "new/old/a@b"

    def test_a_parent_that_is_a_clone_of_its_child_becomes_a_copy(self) -> None:
        place = world()
        place.source.snapshot(["old", "old/docs"], "a")
        place.source.clone("old/p", "old/docs@a")
        place.source.add("old/p/child", written=1)
        place.source.snapshot(["old/p/child"], "c")
        place.source.nodes["old/p"].origin = "old/p/child@c"
        plan = place.run(migrates())
        assert place.target.nodes["new/old/p"].origin == ""
        assert any("become whole copies: 'old/p'" in one for one in plan.warnings)

    def test_a_clone_of_what_is_left_out_becomes_a_copy(self) -> None:
        place = world()
        place.source.snapshot(["old", "old/docs"], "a")
        place.source.clone("old/copy", "old/docs@a")
        plan = place.run(migrates(exclude=("old/docs",)))
        assert place.target.nodes["new/old/copy"].origin == ""
        (warning,) = plan.warnings
        assert "become whole copies: 'old/copy'" in warning

    def test_a_list_brings_what_it_lies_in_and_grows_later(self) -> None:
        place = world()
        for name in ("old/home", "old/home/alice", "old/home/alice/mail", "old/home/bob", "old/homework"):
            place.source.add(name, written=1)
        named = ("old/home/alice",)
        place.run(migrates(include=named, exclude=("old/home/alice/mail",)))
        copied = ["new/old", "new/old/home", "new/old/home/alice"]
        assert sorted(name for name in place.target.nodes if name.startswith("new/old")) == copied
        assert place.source.nodes["old/home/bob"].snapshots == []
        assert not place.run(migrates(include=named, exclude=("old/home/alice/mail",))).changed
        place.run(migrates(include=(*named, "old/homework"), stamp="20261128T010203Z"))
        copied += ["new/old/home/alice/mail", "new/old/homework"]
        assert sorted(name for name in place.target.nodes if name.startswith("new/old")) == sorted(copied)
        with pytest.raises(Refused, match="'old/hom' is included, but does not exist"):
            place.run(migrates(include=("old/hom",)))

    def test_a_second_run_is_silent(self) -> None:
        place = world()
        place.source.snapshot(["old", "old/docs"], "a")
        place.source.clone("old/copy", "old/docs@a")
        place.run(migrates())
        plan = place.run(migrates(stamp="20261128T010203Z"))
        assert plan.steps == ()
        assert plan.warnings == ()

    def test_user_properties_come_along_and_our_own_do_not(self) -> None:
        place = world()
        place.source.nodes["old/docs"].own.update({"org.example:who": "me\nand you", "nasops.encryption:head": "1"})
        place.run(migrates())
        own = place.target.nodes["new/old/docs"].own
        assert own["org.example:who"] == "me\nand you"
        assert "nasops.encryption:head" not in own

    def test_a_volume_is_not_asked_to_do_without_what_only_filesystems_have(self) -> None:
        place = world()
        place.source.add("old/vol", kind="volume", written=1)
        plan = place.run(migrates(properties={"atime": "off", "compression": "zstd"}))
        for receive in receives(plan):
            assert ("-x atime" in receive) == receive.endswith("new/old/docs")
            assert ("-x compression" in receive) == (not receive.endswith("new/old"))

    def test_without_a_migration_nothing_of_that_happens(self) -> None:
        place = world()
        place.source.snapshot(["old", "old/docs"], "a")
        place.source.clone("old/copy", "old/docs@a")
        place.source.nodes["old/docs"].own["org.example:who"] = "me"
        plan = place.run(migrates(migration=False))
        assert place.target.nodes["new/old/copy"].origin == ""
        assert "org.example:who" not in place.target.nodes["new/old/docs"].own
        assert all("-L -c" in one for one in sends(plan))


class TestReadOnly:
    def place(self) -> World:
        place = world()
        place.source.snapshot(["old", "old/docs"], "a")
        place.source.snapshot(["old", "old/docs"], "b")
        place.source.nodes["old/docs"].written = 7
        place.source.add("old/bare", written=3)
        place.source.add("old/vol", written=3, kind="volume")
        place.source.clone("old/copy", "old/docs@b")
        place.source.readonly = "on"
        return place

    def test_heads_follow_the_snapshots(self) -> None:
        place = self.place()
        plan = place.run(migrates(heads=True))
        assert [one for one in sends(plan) if "docs" in one and "copy" not in one] == [
            "zfs send -v -P -L old/docs@a",
            "zfs send -v -P -L -I @a old/docs@b",
            "zfs send -L -i @b old/docs",
        ]
        assert [one for one in sends(plan) if "bare" in one] == ["zfs send -L old/bare"]
        assert [one for one in sends(plan) if "copy" in one] == ["zfs send -L -i old/docs@b old/copy"]
        assert [one.name for one in place.target.nodes["new/old/docs"].snapshots] == ["a", "b", HEAD]
        assert [one.name for one in place.target.nodes["new/old"].snapshots] == ["a", "b"]
        assert place.target.nodes["new/old/copy"].origin == "new/old/docs@b"
        assert same_ends(place, heads=True)

    def test_heads_are_not_kept_half(self) -> None:
        plan = self.place().run(migrates(heads=True))
        for send, receive in zip(sends(plan), receives(plan)):
            snapshot = "@" in send.split()[-1]
            assert ("receive -s" in receive) == snapshot
            # zfs can't tell how much there is to send, and fails when it is asked to.
            assert ("-v" in send.split()) == snapshot
        patience = {step.action.stall_timeout for step in plan.steps if isinstance(step.action, Transfer)}
        assert patience == {0.0, 300.0}

    def test_titles_say_that_there_is_no_snapshot(self) -> None:
        plan = self.place().run(migrates(heads=True))
        assert (
            "Send 'old/docs' from @b up to its present state to 'new/old/docs', to be encrypted there" in plan.actions
        )
        assert plan.diff()["after"]["replicas"]["new/old/docs"] == "its present state"

    def test_a_second_run_is_silent(self) -> None:
        place = self.place()
        place.run(migrates(heads=True))
        assert place.run(migrates(heads=True)).steps == ()

    def test_a_head_that_was_written_to_is_sent_anew(self) -> None:
        place = self.place()
        place.run(migrates(heads=True))
        mark = place.target.nodes["new/old/docs"].own[HEAD_MARK]
        place.source.nodes["old/docs"].written = 8
        plan = place.run(migrates(heads=True))
        assert plan.actions == [
            "Roll 'new/old/docs' back to @b: it was brought up to a state that the source has left since",
            "Send 'old/docs' from @b up to its present state to 'new/old/docs', to be encrypted there",
        ]
        assert place.target.nodes["new/old/docs"].own[HEAD_MARK] != mark
        assert place.run(migrates(heads=True)).steps == ()

    def test_a_head_without_a_mark_is_not_believed(self) -> None:
        place = self.place()
        place.run(migrates(heads=True))
        del place.target.nodes["new/old/docs"].own[HEAD_MARK]
        assert place.run(migrates(heads=True)).changed

    def test_a_source_that_is_writable_again_goes_on_with_snapshots(self) -> None:
        place = self.place()
        del place.source.nodes["old/bare"], place.source.nodes["old/vol"], place.source.nodes["old/copy"]
        place.run(migrates(heads=True))
        place.source.readonly = "off"
        place.source.nodes["old/docs"].written = 9
        plan = place.run(migrates())
        assert any(title.startswith("Roll 'new/old/docs' back to @b") for title in plan.actions)
        assert same_ends(place)

    def test_a_target_that_was_written_to_is_refused(self) -> None:
        place = self.place()
        place.run(migrates(heads=True))
        place.target.nodes["new/old/docs"].written = 1
        with pytest.raises(Refused, match="was written to since @--head--"):
            plan_replication(migrates(heads=True), place.ends(migrates(heads=True)))

    def test_snapshots_of_others_at_the_target_are_refused(self) -> None:
        place = self.place()
        place.run(migrates(heads=True))
        place.target.snapshot(["new/old/docs"], "mine")
        with pytest.raises(Refused, match="has snapshots of its own .@mine."):
            plan_replication(migrates(heads=True), place.ends(migrates(heads=True)))


NAMES = ["old", "old/a", "old/b", "old/a/c", "old/d"]


@st.composite
def trees(draw: st.DrawFn) -> World:
    """Pools with any history: snapshots of some, clones of any of these, datasets that have none."""
    place = World(Host(guid="1"), Host(guid="2"))
    place.target.add("new", key="new", wrapped="k")
    place.source.add("old", written=draw(st.integers(0, 1)))
    for number in range(draw(st.integers(0, 8))):
        names = list(place.source.nodes)
        kind = draw(st.sampled_from(["snapshot", "dataset", "clone", "write"]))
        name = draw(st.sampled_from(names))
        if kind == "snapshot":
            place.source.snapshot([name], f"s{number}")
        elif kind == "write":
            place.source.nodes[name].written += 1
        else:
            new = f"{draw(st.sampled_from(names))}/{draw(st.sampled_from('abz'))}{number}"
            snapshots = place.source.nodes[name].snapshots
            if kind == "clone" and snapshots:
                place.source.clone(new, f"{name}@{draw(st.sampled_from(snapshots)).name}")
            else:
                place.source.add(new, written=draw(st.integers(0, 1)))
    return place


@given(trees(), st.booleans(), st.integers(0, 12))
def test_whatever_the_tree_is_and_wherever_it_is_cut_the_next_run_completes_it(
    place: World, read_only: bool, steps: int
) -> None:
    place.source.readonly = "on" if read_only else "off"
    place.run(migrates(heads=read_only), steps)
    place.run(migrates(heads=read_only, stamp="20261128T010203Z"))
    assert same_ends(place, heads=read_only)
    again = place.run(migrates(heads=read_only, stamp="20261129T010203Z"))
    assert again.steps == ()
