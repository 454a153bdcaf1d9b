# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import threading
import typing as t
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result, Runner
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.plan import (
    Change,
    Failure,
    NotConverged,
    Plan,
    Step,
    StepFailed,
    Work,
    apply,
    converge,
    join,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, said

Model = dict[str, int]


def succeed(*_args: t.Any) -> None:
    """An action that does nothing and does not fail."""


def failing(message: str, hint: str = "", **details: t.Any) -> Work:
    def work(_runner: Runner) -> None:
        raise Refused(message, hint=hint, **details)

    return work


def noting(notes: list[str], note: str) -> Work:
    def work(_runner: Runner) -> None:
        notes.append(note)

    return work


def runner() -> RecordedRunner:
    return RecordedRunner(default=said)


def plan_towards(wanted: Model, state: Model, writable: Model) -> Plan:
    """A planner for a state that is a dictionary: one step per value that differs, written to ``writable``."""

    def assign(name: str, value: int | None) -> Work:
        def work(_runner: Runner) -> None:
            if value is None:
                del writable[name]
            else:
                writable[name] = value

        return work

    steps = []
    for name in sorted({*wanted, *state}):
        before, after = state.get(name), wanted.get(name)
        if before != after:
            steps.append(Step(f"Set {name}", assign(name, after), (Change(("values", name), before, after),)))
    return Plan(tuple(steps))


class TestPlan:
    def test_an_empty_plan_changes_nothing(self) -> None:
        assert not Plan().changed
        assert Plan().actions == []
        assert Plan().diff() == {"before": {}, "after": {}}

    def test_one_step_is_a_change_even_if_it_has_no_diff(self) -> None:
        plan = Plan((Step("Write it", succeed),))
        assert plan.changed
        assert plan.actions == ["Write it"]
        assert plan.diff() == {"before": {}, "after": {}}

    def test_the_diff_is_nested_by_path_and_holds_only_what_changes(self) -> None:
        plan = Plan(
            (
                Step("Create", succeed, (Change(("pools", "tank", "state"), "absent", "present"),)),
                Step(
                    "Set",
                    succeed,
                    (
                        Change(("pools", "tank", "properties", "comment"), None, "a"),
                        Change(("pools", "vault", "vdevs"), ("x",), ("x", "y")),
                    ),
                ),
            )
        )
        assert plan.diff() == {
            "before": {
                "pools": {"tank": {"state": "absent", "properties": {"comment": None}}, "vault": {"vdevs": ["x"]}}
            },
            "after": {
                "pools": {"tank": {"state": "present", "properties": {"comment": "a"}}, "vault": {"vdevs": ["x", "y"]}}
            },
        }

    def test_several_changes_of_one_value_show_the_first_before_and_the_last_after(self) -> None:
        path = ("pools", "tank", "state")
        plan = Plan(
            (
                Step("Import", succeed, (Change(path, "exported", "present"),)),
                Step("Destroy", succeed, (Change(path, "present", "absent"),)),
            )
        )
        assert plan.diff() == {
            "before": {"pools": {"tank": {"state": "exported"}}},
            "after": {"pools": {"tank": {"state": "absent"}}},
        }

    def test_falsy_values_before_are_kept_as_well(self) -> None:
        plan = Plan(
            (
                Step("One", succeed, (Change(("mounted",), False, True), Change(("note",), None, "x"))),
                Step("Two", succeed, (Change(("mounted",), True, False), Change(("note",), "x", "y"))),
            )
        )
        assert plan.diff() == {"before": {"mounted": False, "note": None}, "after": {"mounted": False, "note": "y"}}


class TestJoin:
    def test_steps_follow_each_other_and_warnings_come_once(self) -> None:
        first = Plan((Step("A", succeed), Step("B", succeed)), ("careful",), "inside")
        second = Plan((Step("C", succeed),), ("careful", "slow"), "inside")
        joined = join((first, Plan(), second))
        assert joined.actions == ["A", "B", "C"]
        assert joined.warnings == ("careful", "slow")
        assert joined.reveals == "inside"

    def test_different_blind_spots_are_all_told(self) -> None:
        assert join((Plan(reveals="one"), Plan(), Plan(reveals="two"))).reveals == "one; two"

    def test_nothing_joined_is_the_empty_plan(self) -> None:
        assert join(()) == Plan()


class TestApply:
    def test_programs_and_functions_run_in_order(self) -> None:
        notes: list[str] = []

        def start(command: Command) -> Result:
            notes.append(command.line())
            return said(command)

        recorded = RecordedRunner(default=start)
        apply(
            Plan(
                (
                    Step("One", Command(("zpool", "create", "tank"))),
                    Step("Two", noting(notes, "two")),
                    Step("Three", Command(("zfs", "mount", "tank"))),
                )
            ),
            recorded,
        )
        assert notes == ["zpool create tank", "two", "zfs mount tank"]

    def test_it_stops_at_the_first_failure_and_tells_what_was_done(self) -> None:
        notes: list[str] = []
        plan = Plan(
            (
                Step("Write the key", noting(notes, "key")),
                Step("Create the pool", failing("no such disk", hint="Plug it in.", disk="sdx"), hint="Key kept."),
                Step("Mount", noting(notes, "mount")),
                Step("Set", noting(notes, "set")),
            )
        )
        with pytest.raises(StepFailed) as caught:
            apply(plan, runner())
        error = caught.value
        assert notes == ["key"]
        assert error.message == "Failed to create the pool: no such disk"
        assert error.hint == "Plug it in. Key kept."
        assert error.details == {
            "disk": "sdx",
            "changed": True,
            "actions_done": ["Write the key"],
            "action_failed": "Create the pool",
            "actions_not_started": ["Mount", "Set"],
            "undo_errors": [],
        }

    def test_a_failure_of_the_first_step_has_changed_nothing(self) -> None:
        with pytest.raises(StepFailed) as caught:
            apply(Plan((Step("Create", failing("broken")), Step("Mount", succeed))), runner())
        assert caught.value.details["changed"] is False

    def test_a_failed_program_is_told_with_its_output(self) -> None:
        recorded = RecordedRunner(default=lambda command: said(command, stderr="cannot create: busy\n", rc=1))
        with pytest.raises(StepFailed) as caught:
            apply(Plan((Step("Create it", Command(("zpool", "create", "tank"))),)), recorded)
        assert "Failed to create it: 'zpool create tank' ended with exit status 1: cannot create: busy." in str(
            caught.value
        )
        assert caught.value.details["stderr"] == "cannot create: busy\n"
        assert caught.value.details["cmd"] == ["zpool", "create", "tank"]

    def test_a_failed_step_is_undone_in_order_and_the_others_are_not(self) -> None:
        notes: list[str] = []
        plan = Plan(
            (
                Step("First", succeed, undo=(noting(notes, "undo first"),)),
                Step("Second", failing("broken"), undo=(noting(notes, "one"), noting(notes, "two"))),
                Step("Third", succeed, undo=(noting(notes, "undo third"),)),
            )
        )
        with pytest.raises(StepFailed):
            apply(plan, runner())
        assert notes == ["one", "two"]

    def test_what_goes_wrong_in_the_undo_is_told_and_does_not_stop_it(self) -> None:
        notes: list[str] = []
        step = Step(
            "Create", failing("broken"), undo=(failing("pool is busy"), noting(notes, "wiped"), failing("again"))
        )
        with pytest.raises(StepFailed) as caught:
            apply(Plan((step,)), runner())
        assert notes == ["wiped"]
        assert caught.value.details["undo_errors"] == ["pool is busy", "again"]
        assert caught.value.message == "Failed to create: broken"

    def test_without_a_failure_nothing_is_undone(self) -> None:
        notes: list[str] = []
        apply(Plan((Step("Create", succeed, undo=(noting(notes, "undone"),)),)), runner())
        assert notes == []

    @pytest.mark.parametrize(("failures", "tries"), [(0, 1), (1, 2), (2, 3), (3, 3)])
    def test_what_passes_by_itself_is_tried_again_once_all_is_taken_back(self, failures: int, tries: int) -> None:
        notes: list[str] = []

        def work(_runner: Runner) -> None:
            notes.append("try")
            if notes.count("try") <= failures:
                raise StorageError("away for a moment")

        step = Step(
            "Create", work, undo=(noting(notes, "undo"),), guard=noting(notes, "guard"), passes=lambda _error: True
        )
        if failures < 3:
            assert apply(Plan((step,)), runner()).actions == ["Create"]
        else:
            with pytest.raises(StepFailed, match="away for a moment"):
                apply(Plan((step,)), runner())
        assert notes == [*["guard", "try", "undo"] * failures, "guard", "try"][: tries * 3]
        assert notes.count("try") == tries

    def test_another_error_is_not_tried_again(self) -> None:
        notes: list[str] = []
        step = Step("Create", failing("no"), undo=(noting(notes, "undo"),), passes=lambda error: "away" in str(error))
        with pytest.raises(StepFailed):
            apply(Plan((step,)), runner())
        assert notes == ["undo"]

    def test_nothing_is_tried_again_on_top_of_what_could_not_be_taken_back(self) -> None:
        notes: list[str] = []
        step = Step(
            "Create", failing("away"), undo=(failing("busy"), noting(notes, "undo")), passes=lambda _error: True
        )
        with pytest.raises(StepFailed) as caught:
            apply(Plan((step,)), runner())
        assert notes == ["undo"]
        assert caught.value.details["undo_errors"] == ["busy"]

    def test_a_defect_of_the_code_is_not_taken_for_a_failed_step(self) -> None:
        def work(_runner: Runner) -> None:
            raise KeyError("defect")

        with pytest.raises(KeyError):
            apply(Plan((Step("Do", work),)), runner())


class TestConverge:
    def test_nothing_to_do_reads_once_and_runs_nothing(self) -> None:
        reads: list[int] = []
        recorded = RecordedRunner()

        def read() -> int:
            reads.append(1)
            return 7

        outcome = converge(read, lambda _state: Plan(warnings=("old",)), recorded, False)
        assert (outcome.state, outcome.plan.changed, outcome.plan.warnings) == (7, False, ("old",))
        assert len(reads) == 1
        assert recorded.commands == []

    def test_check_mode_returns_the_plan_and_the_state_and_applies_nothing(self) -> None:
        state: Model = {"a": 1}
        wanted: Model = {"a": 2, "b": 3}
        outcome = converge(lambda: dict(state), lambda read: plan_towards(wanted, read, state), runner(), True)
        assert state == {"a": 1}
        assert outcome.state == {"a": 1}
        assert outcome.plan.actions == ["Set a", "Set b"]

    def test_a_state_that_does_not_take_is_an_error_that_tells_what_is_left(self) -> None:
        state: Model = {"a": 1}
        lost: Model = {"a": 1}
        with pytest.raises(NotConverged) as caught:
            converge(lambda: state, lambda read: plan_towards({"a": 2, "b": 3}, read, lost), runner(), False)
        error = caught.value
        assert "left to do: Set a; Set b" in error.message
        assert error.details["actions"] == ["Set a", "Set b"]
        assert error.details["actions_left"] == ["Set a", "Set b"]
        assert error.details["diff_left"] == {
            "before": {"values": {"a": 1, "b": None}},
            "after": {"values": {"a": 2, "b": 3}},
        }

    def test_what_comes_to_light_is_done_in_a_second_round(self) -> None:
        state = {"imported": 0, "comment": 0}
        outcome = converge(lambda: dict(state), lambda read: self._two_rounds(read, state), runner(), False)
        assert state == {"imported": 1, "comment": 1}
        assert outcome.plan.actions == ["Import", "Set comment"]
        assert outcome.plan.diff() == {
            "before": {"imported": 0, "comment": 0},
            "after": {"imported": 1, "comment": 1},
        }
        assert outcome.state == state

    def test_check_mode_warns_that_it_can_not_look_that_far(self) -> None:
        state = {"imported": 0, "comment": 0}
        outcome = converge(lambda: dict(state), lambda read: self._two_rounds(read, state), runner(), True)
        assert state == {"imported": 0, "comment": 0}
        assert outcome.plan.actions == ["Import"]
        assert outcome.plan.warnings == ("Check mode can't see everything: the inside shows after the import.",)

    def test_check_mode_does_not_warn_where_everything_can_be_seen(self) -> None:
        outcome = converge(lambda: 0, lambda _state: Plan((Step("Do", succeed),)), runner(), True)
        assert outcome.plan.warnings == ()

    def test_warnings_of_the_second_plan_are_told_too(self) -> None:
        state = {"imported": 0}

        def decide(read: Model) -> Plan:
            if read["imported"]:
                return Plan(warnings=("It is DEGRADED.",))
            return Plan((Step("Import", lambda _runner: state.update(imported=1)),), ("It is old.",))

        outcome = converge(lambda: dict(state), decide, runner(), False)
        assert outcome.plan.warnings == ("It is old.", "It is DEGRADED.")
        assert outcome.plan.actions == ["Import"]

    def test_there_is_no_third_round(self) -> None:
        state = {"rounds": 0}

        def count(_runner: Runner) -> None:
            state["rounds"] += 1

        with pytest.raises(NotConverged):
            converge(lambda: dict(state), lambda _state: Plan((Step("Again", count),), reveals="more"), runner(), False)
        assert state["rounds"] == 2

    def test_there_is_no_second_round_without_a_reason(self) -> None:
        state = {"rounds": 0}

        def count(_runner: Runner) -> None:
            state["rounds"] += 1

        with pytest.raises(NotConverged):
            converge(lambda: dict(state), lambda _state: Plan((Step("Again", count),)), runner(), False)
        assert state["rounds"] == 1

    def test_an_error_while_reading_goes_through(self) -> None:
        def read() -> int:
            raise StorageError("no ZFS here")

        with pytest.raises(StorageError, match="no ZFS here"):
            converge(read, lambda _state: Plan(), runner(), False)

    @staticmethod
    def _two_rounds(read: Model, state: Model) -> Plan:
        def assign(name: str) -> Work:
            return lambda _runner: state.update({name: 1})

        if not read["imported"]:
            step = Step("Import", assign("imported"), (Change(("imported",), 0, 1),))
            return Plan((step,), reveals="the inside shows after the import")
        if not read["comment"]:
            return Plan((Step("Set comment", assign("comment"), (Change(("comment",), 0, 1),)),))
        return Plan()


models = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3))


@given(models, models)
def test_applying_a_plan_leaves_an_empty_plan(wanted: Model, before: Model) -> None:
    state = dict(before)
    outcome = converge(lambda: dict(state), lambda read: plan_towards(wanted, read, state), runner(), False)
    assert state == wanted
    assert not plan_towards(wanted, state, state).changed
    assert outcome.plan.changed == (wanted != before)


@given(models, models)
def test_the_diff_is_what_the_state_was_and_became(wanted: Model, before: Model) -> None:
    state = dict(before)
    plan = plan_towards(wanted, before, state)
    apply(plan, runner())
    diff = plan.diff()
    touched = {name for name in {*before, *wanted} if before.get(name) != wanted.get(name)}
    if touched:
        assert diff["before"]["values"] == {name: before.get(name) for name in touched}
        assert diff["after"]["values"] == {name: state.get(name) for name in touched}
    else:
        assert diff == {"before": {}, "after": {}}


@given(models, models)
def test_check_mode_tells_what_the_run_then_does(wanted: Model, before: Model) -> None:
    state = dict(before)
    checked = converge(lambda: dict(state), lambda read: plan_towards(wanted, read, state), runner(), True).plan
    done = converge(lambda: dict(state), lambda read: plan_towards(wanted, read, state), runner(), False).plan
    assert (checked.actions, checked.diff(), checked.changed) == (done.actions, done.diff(), done.changed)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_a_value_changed_often_is_shown_from_its_first_to_its_last(changes: list[tuple[str, int, int]]) -> None:
    plan = Plan(tuple(Step("Set", succeed, (Change((name,), before, after),)) for name, before, after in changes))
    first: Model = {}
    last: Model = {}
    for name, before, after in changes:
        first.setdefault(name, before)
        last[name] = after
    assert plan.diff() == {"before": first, "after": last}


@given(st.integers(1, 6).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))))
def test_every_step_is_either_done_or_failed_or_not_started(place: tuple[int, int]) -> None:
    size, broken = place
    done: list[str] = []
    steps = tuple(
        Step(f"Step {number}", failing("broken") if number == broken else noting(done, f"Step {number}"))
        for number in range(size)
    )
    with pytest.raises(StepFailed) as caught:
        apply(Plan(steps), runner())
    details = caught.value.details
    assert details["actions_done"] == done
    told = [*details["actions_done"], details["action_failed"], *details["actions_not_started"]]
    assert told == [step.title for step in steps]


class TestBranches:
    """Steps that belong to branches: one that fails does not hold up the others."""

    @staticmethod
    def fail(_runner: Runner) -> None:
        raise StorageError("broken", hint="Mend it.")

    def test_only_the_rest_of_the_branch_and_what_comes_after_it_is_given_up(self) -> None:
        done: list[str] = []

        def step(title: str, branch: str, *after: str) -> Step:
            return Step(title, lambda _runner: done.append(title), branch=branch, after=after)

        plan = Plan(
            (
                step("Do a1", "a"),
                Step("Do a2", self.fail, branch="a"),
                step("Do a3", "a"),
                step("Do b1", "b", "a"),
                step("Do c1", "c"),
                step("Do d1", "d", "b"),
            )
        )
        applied = apply(plan, RecordedRunner(default=said))
        assert sorted(done) == ["Do a1", "Do c1"]
        assert applied.actions == ["Do a1", "Do c1"]
        assert [(one.branch, one.because) for one in applied.failures] == [("a", ""), ("b", "a"), ("d", "b")]
        assert str(applied.failures[0]) == "Failed to do a2: broken Mend it."

    def test_a_branch_waits_for_those_it_comes_after(self) -> None:
        done: list[str] = []

        def step(name: str) -> Step:
            return Step(f"Do {name}", lambda _runner: done.append(name), branch=name)

        steps = [step(str(number)) for number in range(40)]
        chain = [replace(step, after=(str(number - 1),)) for number, step in enumerate(steps)]
        apply(Plan(tuple(chain)), RecordedRunner(default=said))
        assert done == [str(number) for number in range(40)]

    def test_they_can_be_asked_to_go_one_after_another(self) -> None:
        busy: list[str] = []
        seen: list[tuple[str, ...]] = []

        def work(name: str) -> Work:
            def does(_runner: Runner) -> None:
                busy.append(name)
                seen.append(tuple(busy))
                busy.remove(name)
                assert threading.current_thread() is threading.main_thread()
                if name == "b":
                    raise Refused("No.")

            return does

        steps = tuple(Step(f"Do {name}", work(name), branch=name) for name in "abcd")
        last = Step("Do last", work("last"), branch="last", after=("a", "b", "c", "d"))
        applied = apply(Plan((*steps, last), in_order=True), runner())
        assert seen == [("a",), ("b",), ("c",), ("d",)]
        assert [(one.branch, one.because) for one in applied.failures] == [("b", ""), ("last", "b")]
        assert join((Plan(), Plan(in_order=True))).in_order
        assert not join((Plan(), Plan())).in_order

    def test_a_defect_in_one_branch_ends_the_run(self) -> None:
        def defect(_runner: Runner) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            apply(
                Plan((Step("Do a", defect, branch="a"), Step("Do b", lambda _runner: None, branch="b"))),
                RecordedRunner(default=said),
            )

    def test_a_branch_that_failed_is_no_reason_not_to_converge(self) -> None:
        plan = Plan((Step("Do a", self.fail, branch="a"),))
        outcome = converge(lambda: 0, lambda _state: plan, RecordedRunner(default=said), check_mode=False)
        assert not outcome.plan.changed
        assert [one.branch for one in outcome.plan.failures] == ["a"]

    def test_a_branch_that_does_not_converge_is_told(self) -> None:
        state = {"b": 0}

        def decide(read: Model) -> Plan:
            steps = (Step("Do b", lambda _runner: state.update(b=1), branch="b"),) if not read["b"] else ()
            return Plan((Step("Do a", lambda _runner: None, branch="a"), *steps))

        outcome = converge(lambda: dict(state), decide, RecordedRunner(default=said), check_mode=False)
        assert outcome.state == {"b": 1} and outcome.plan.actions == ["Do a", "Do b"]
        (failure,) = outcome.plan.failures
        assert failure.branch == "a" and "left to do: Do a." in failure.message
        assert failure.details == {"actions_left": ["Do a"]}

    def test_what_belongs_to_no_branch_has_to_converge(self) -> None:
        plan = Plan((Step("Do a", lambda _runner: None, branch="a"), Step("Do all", lambda _runner: None)))
        with pytest.raises(NotConverged, match="left to do: Do a; Do all"):
            converge(lambda: 0, lambda _state: plan, RecordedRunner(default=said), check_mode=False)

    def test_a_branch_that_failed_before_is_told_too(self) -> None:
        steps = (
            Step("Do a", self.fail, branch="a"),
            Step("Do b", lambda _runner: None, branch="b", after=("a",)),
            Step("Do all", lambda _runner: None),
        )
        with pytest.raises(NotConverged, match="left to do: Do all. Before that, 'a': Failed to do a: ") as caught:
            converge(lambda: 0, lambda _state: Plan(steps), RecordedRunner(default=said), check_mode=False)
        assert [one["branch"] for one in caught.value.details["failures"]] == ["a", "b"]
        assert "'b'" not in caught.value.message

    def test_a_branch_that_failed_before_the_second_look_does(self) -> None:
        plans = iter((Plan((Step("Do a", self.fail, branch="a"),)),))

        def decide(_state: int) -> Plan:
            plan = next(plans, None)
            if plan is None:
                raise Refused("No.")
            return plan

        with pytest.raises(Refused, match="No. Before that, 'a': Failed to do a: ") as caught:
            converge(lambda: 0, decide, RecordedRunner(default=said), check_mode=False)
        assert [one["branch"] for one in caught.value.details["failures"]] == ["a"]

    def test_what_only_the_second_look_refuses_is_a_failure_too(self) -> None:
        plans = iter((Plan((Step("Do a", lambda _runner: None, branch="a"),)), Plan(failures=(Failure("a", "No."),))))
        outcome = converge(lambda: 0, lambda _state: next(plans), RecordedRunner(default=said), check_mode=False)
        assert outcome.plan.changed and [str(one) for one in outcome.plan.failures] == ["No."]

    def test_what_was_refused_when_planning_stays_a_failure(self) -> None:
        plan = Plan(failures=(Failure("a", "It is locked."),))
        for check_mode in (True, False):
            outcome = converge(lambda: 0, lambda _state: plan, RecordedRunner(default=said), check_mode)
            assert outcome.plan.failures == plan.failures
