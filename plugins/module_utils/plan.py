# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One plan behind check mode, diff, actions and apply.

A module reads the state, a pure function makes the :class:`Plan`, and :func:`converge` carries it out. After that the
state is read and planned once more: this second plan has to be empty. ``changed``, ``diff`` and ``actions`` all come
from the same plan, so check mode can't tell another story than the run.
"""

from __future__ import annotations

import functools
import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from .command import Command, Runner
from .errors import StorageError

Value = t.Union[None, bool, int, str, tuple[str, ...]]
Path = tuple[str, ...]

# An action that is not one program. It gets the runner, and raises StorageError when it fails.
Work = t.Callable[[Runner], None]
Action = t.Union[Command, Work]


@dataclass(frozen=True)
class Change:
    """One value that a step changes; ``None`` stands for absent. Never a secret."""

    path: Path
    before: Value
    after: Value


@dataclass(frozen=True)
class Step:
    """One thing to do, in words a person can read, with what it changes.

    ``guard`` is called right before the action; what it raises stops the step before anything is done. ``undo`` is run,
    in order, when the action itself fails, to take back what it may have left half-done, unless ``left_nothing`` says
    of the error that it came before anything was done. ``passes`` says of an error that its cause goes by itself; then,
    once all is taken back, the step is tried again, three times at most. ``hint`` is what the person should do next.

    A step that fails ends the whole plan, unless it belongs to a ``branch``: then only the rest of that branch is given
    up, and the branches that come ``after`` it.
    """

    title: str
    action: Action
    changes: tuple[Change, ...] = ()
    undo: tuple[Action, ...] = ()
    hint: str = ""
    guard: Work | None = None
    left_nothing: t.Callable[[StorageError], bool] | None = None
    passes: t.Callable[[StorageError], bool] | None = None
    branch: str = ""
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A branch that can't be carried out while others can.

    ``because``: the branch that held it up, "" for its own fault. ``details`` are plain JSON values for the result,
    such as what a program wrote to standard error.
    """

    branch: str
    message: str
    hint: str = ""
    because: str = ""
    details: t.Mapping[str, t.Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


@dataclass(frozen=True)
class Plan:
    """The steps from the state that was read to the state that is wanted; none when they are the same.

    ``reveals`` tells what can't be known before the steps are done, such as the inside of an exported pool; then what
    the second plan finds is done too, and check mode warns that it could not look that far. If what is revealed is
    refused, ``retreat`` puts things back as they were. ``failures`` are branches that were refused when the plan was
    made, ``postponed`` those that may well succeed once what ``reveals`` tells of is known. ``in_order``: the branches
    run one after another, as where each keeps the disks busy by itself. ``unseen`` are warnings for check mode alone,
    of what shows only while the steps are carried out.
    """

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    reveals: str = ""
    retreat: tuple[Action, ...] = ()
    failures: tuple[Failure, ...] = ()
    in_order: bool = False
    unseen: tuple[str, ...] = ()
    postponed: tuple[Failure, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def actions(self) -> list[str]:
        """The titles of the steps, in order."""
        return [step.title for step in self.steps]

    def diff(self) -> dict[str, dict[str, t.Any]]:
        """``before`` and ``after`` as nested dictionaries that hold only what changes.

        When several steps change one value, it is shown as it was before the first and as it is after the last.
        """
        before: dict[str, t.Any] = {}
        after: dict[str, t.Any] = {}
        for step in self.steps:
            for change in step.changes:
                _store(before, change.path, change.before, keep=True)
                _store(after, change.path, change.after, keep=False)
        return {"before": before, "after": after}


def join(plans: t.Iterable[Plan]) -> Plan:
    """One plan that does the plans one after another."""
    parts = list(plans)
    return Plan(
        tuple(step for part in parts for step in part.steps),
        tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
        "; ".join(dict.fromkeys(part.reveals for part in parts if part.reveals)),
        tuple(action for part in reversed(parts) for action in part.retreat),
        tuple(failure for part in parts for failure in part.failures),
        any(part.in_order for part in parts),
        tuple(dict.fromkeys(warning for part in parts for warning in part.unseen)),
    )


class StepFailed(StorageError):
    """A step failed; tells which were done before it and which were not started."""


class NotConverged(StorageError):
    """All steps ended well, yet the state is still not the wanted one."""


State = t.TypeVar("State")


@dataclass(frozen=True)
class Outcome(t.Generic[State]):
    """What was done (or would be, in check mode), and the state that was read last.

    ``plan.failures`` holds the branches that were refused as well as those that failed on the way.
    """

    plan: Plan
    state: State


_UNMOVED = "All steps ended without an error, but the state is still not the wanted one; left to do: "
_OTHERS = "Another process may be changing the same objects, or a value reads back otherwise than it was set."


def converge(
    read: t.Callable[[], State],
    decide: t.Callable[[State], Plan],
    runner: Runner,
    check_mode: bool,
    read_again: t.Callable[[State, Plan], State] | None = None,
) -> Outcome[State]:
    """Read, plan, and apply unless in check mode; then read and plan again, which must find nothing left to do.

    :param read_again: how to read afterwards, given what was read before and the plan that was carried out; for a
        state that is large, or of which something is to be changed every time
    :raises StepFailed: a step failed; those before it stay done
    :raises NotConverged: the second plan is not empty. What is left of a branch is a failure of that branch instead
    """
    state = read()
    plan = decide(state)
    if not plan.steps:
        return Outcome(plan, state)
    if check_mode:
        return Outcome(join((plan, _blind_spot(plan))), state)
    plan = apply(plan, runner)
    if read_again is not None:
        read = functools.partial(read_again, state, plan)
    state, rest = _look_again(read, decide, plan, runner)
    rest = _without_given_up(rest, plan)
    # It ends when nothing was revealed that was waited for.
    waiting = len(plan.postponed) + 1
    while rest.steps and plan.reveals and len(rest.postponed) < waiting:
        waiting = len(rest.postponed)
        plan = replace(join((plan, apply(rest, runner))), retreat=())
        if read_again is not None:
            read = functools.partial(read_again, state, replace(plan, postponed=rest.postponed))
        state, rest = _look_again(read, decide, plan, runner)
        rest = _without_given_up(rest, plan)
    if not all(step.branch for step in rest.steps):
        raise NotConverged(
            " ".join((f"{_UNMOVED}{'; '.join(rest.actions)}.", *_told(plan.failures))),
            hint=_OTHERS,
            failures=[_row(failure) for failure in plan.failures],
            actions=plan.actions,
            actions_left=rest.actions,
            diff_left=rest.diff(),
        )
    # What the second look refuses was not seen, or not so, by the first one. What it postpones was waited for.
    late = (*rest.failures, *rest.postponed)
    return Outcome(join((plan, Plan(warnings=rest.warnings, failures=(*late, *_left_behind(rest))))), state)


def _without_given_up(rest: Plan, plan: Plan) -> Plan:
    """What is left to do, without the branches that failed, and those that come after them."""
    given_up = {failure.branch for failure in plan.failures}
    held_up: dict[str, Failure] = {}
    for step in rest.steps:
        by = next((name for name in step.after if name in given_up or name in held_up), "")
        if by and step.branch not in given_up:
            held_up.setdefault(step.branch, _not_attempted(step.branch, by))
    known = given_up | held_up.keys()
    return replace(
        rest,
        steps=tuple(step for step in rest.steps if not step.branch or step.branch not in known),
        failures=(*(one for one in rest.failures if one.branch not in known), *held_up.values()),
        postponed=tuple(one for one in rest.postponed if one.branch not in known),
    )


def _not_attempted(branch: str, by: str) -> Failure:
    return Failure(branch, f"Not attempted, since '{by}' failed.", because=by)


def _told(failures: t.Sequence[Failure]) -> t.Iterator[str]:
    """Branches that failed by their own fault, which may be why nothing more was done."""
    for failure in failures:
        if not failure.because:
            yield f"Before that, '{failure.branch}': {failure}"


def _row(failure: Failure) -> dict[str, t.Any]:
    return {"branch": failure.branch, "message": failure.message, "details": dict(failure.details)}


def _left_behind(rest: Plan) -> t.Iterator[Failure]:
    """The branches that did not come to what is wanted of them, which is no fault of the others."""
    for branch in dict.fromkeys(step.branch for step in rest.steps):
        actions = [step.title for step in rest.steps if step.branch == branch]
        yield Failure(branch, f"{_UNMOVED}{'; '.join(actions)}.", _OTHERS, details={"actions_left": actions})


def _look_again(
    read: t.Callable[[], State],
    decide: t.Callable[[State], Plan],
    plan: Plan,
    runner: Runner,
) -> tuple[State, Plan]:
    """The state after a plan was carried out, and what is left to do; an error tells what was done before it."""
    try:
        state = read()
        return state, decide(state)
    except StorageError as error:
        undone = _run_all(plan.retreat, runner)
        error.message = " ".join((error.message, *_told(plan.failures)))
        error.details.update(
            failures=[_row(failure) for failure in plan.failures],
            changed=not plan.retreat or bool(undone),
            actions_done=plan.actions,
            actions_taken_back=bool(plan.retreat) and not undone,
            undo_errors=undone,
        )
        raise


def _blind_spot(plan: Plan) -> Plan:
    revealed = (f"Check mode can't see everything: {plan.reveals}.",) if plan.reveals else ()
    return Plan(warnings=(*revealed, *plan.unseen))


def apply(plan: Plan, runner: Runner) -> Plan:
    """Carry out the steps in order; return the plan as it was carried out, with the branches that failed.

    If all steps belong to branches, these run side by side, as far as none comes after another, unless the plan says
    otherwise.

    :raises StepFailed: a step without a branch failed; with ``actions_done``, ``action_failed``,
        ``actions_not_started``
    """
    branches: dict[str, list[Step]] = {}
    for step in plan.steps:
        branches.setdefault(step.branch, []).append(step)
    if "" in branches or plan.in_order:
        return _one_by_one(plan, runner)
    return _side_by_side(plan, branches, runner)


def _one_by_one(plan: Plan, runner: Runner) -> Plan:
    progress = _Progress()
    for index, step in enumerate(plan.steps):
        error = progress.carry_out(step, runner)
        if error is None or step.branch:
            continue
        done = [one.title for one in plan.steps[:index] if progress.did(one)]
        details = dict(error.details)
        details.update(
            changed=bool(done),
            actions_done=done,
            action_failed=step.title,
            actions_not_started=plan.actions[index + 1 :],
        )
        raise StepFailed(_message(step, error), hint=_hint(step, error), **details) from error
    return progress.result(plan)


# Most branches wait for the disks: ZFS answers when a transaction group is written, and writes many changes in one.
_MOST_AT_ONCE = 16


def _side_by_side(plan: Plan, branches: t.Mapping[str, t.Sequence[Step]], runner: Runner) -> Plan:
    progress = _Progress()
    ends = {name: threading.Event() for name in branches}
    order = {name: number for number, name in enumerate(branches)}

    def work(name: str) -> None:
        try:
            for step in branches[name]:
                for other in step.after:
                    # A branch waits for earlier ones only, which were started before it: no two wait for each other.
                    if other in order and order[other] < order[name]:
                        ends[other].wait()
                progress.carry_out(step, runner)
        finally:
            ends[name].set()

    if len(branches) < 2:
        for name in branches:
            work(name)
        return progress.result(plan)
    with ThreadPoolExecutor(min(len(branches), _MOST_AT_ONCE)) as pool:
        for future in [pool.submit(work, name) for name in branches]:
            future.result()
    return progress.result(plan)


class _Progress:
    """Which steps were done, and which branches failed."""

    def __init__(self) -> None:
        self._done: set[int] = set()
        self._failures: dict[str, Failure] = {}

    def carry_out(self, step: Step, runner: Runner) -> StorageError | None:
        """Do a step, unless its branch failed or comes after one that did; returns what went wrong with it."""
        if step.branch in self._failures:
            return None
        held_up = next((name for name in step.after if name in self._failures), "")
        if held_up:
            self._failures[step.branch] = _not_attempted(step.branch, held_up)
            return None
        error = _carry_out(step, runner)
        if error is None:
            self._done.add(id(step))
        elif step.branch:
            self._failures[step.branch] = Failure(
                step.branch, _message(step, error), _hint(step, error), details=error.details
            )
        return error

    def did(self, step: Step) -> bool:
        return id(step) in self._done

    def result(self, plan: Plan) -> Plan:
        """The plan as it was carried out, its failures in the order of the plan."""
        steps = tuple(step for step in plan.steps if self.did(step))
        failed = (self._failures[step.branch] for step in plan.steps if step.branch in self._failures)
        return replace(plan, steps=steps, failures=(*plan.failures, *{one.branch: one for one in failed}.values()))


def _message(step: Step, error: StorageError) -> str:
    return f"Failed to {_lower(step.title)}: {error.message}"


def _hint(step: Step, error: StorageError) -> str:
    return " ".join(part for part in (error.hint, step.hint) if part)


# How often a step is tried whose error passes by itself.
_TRIES = 3


def _carry_out(step: Step, runner: Runner) -> StorageError | None:
    """The error of a step that failed, at its last try; what keeps it from another try is in the details."""
    error: StorageError | None = None
    for _number in range(_TRIES):
        refusal = None if step.guard is None else _caught(step.guard, runner)
        if refusal is not None:
            if error is not None:
                # Why another try was needed is the cause; the guard only tells what that has led to.
                error.details["not_tried_again"] = refusal.message
                return error
            refusal.details["undo_errors"] = []
            return refusal
        error = _try(step, runner)
        if error is None or step.passes is None or not step.passes(error) or error.details["undo_errors"]:
            return error
    return error


def _try(step: Step, runner: Runner) -> StorageError | None:
    """The error of an action that failed; what it may have left half-done is taken back as far as possible."""
    error = _caught(step.action, runner)
    if error is not None:
        leaves = step.left_nothing is None or not step.left_nothing(error)
        error.details["undo_errors"] = _run_all(step.undo, runner) if leaves else []
    return error


def _caught(action: Action, runner: Runner) -> StorageError | None:
    """The error of an action, None if it ended well."""
    try:
        act(action, runner)
    except StorageError as error:
        return error
    return None


def _run_all(actions: t.Sequence[Action], runner: Runner) -> list[str]:
    """Take back as much as possible; what went wrong with that is told, not raised."""
    errors: list[str] = []
    for action in actions:
        try:
            act(action, runner)
        except StorageError as error:
            errors.append(error.message)
    return errors


def act(action: Action, runner: Runner) -> None:
    """Carry out one action."""
    if isinstance(action, Command):
        runner.run(action)
    else:
        action(runner)


def _store(tree: dict[str, t.Any], path: Path, value: Value, keep: bool) -> None:
    """Put a value at its place in nested dictionaries; with ``keep``, what stands there already stays."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    if path[-1] in tree and keep:
        return
    tree[path[-1]] = list(value) if isinstance(value, tuple) else value


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]
