# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the entry point of every module shares: masking, one place where errors become results, the result's shape."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from .command import Runner
from .errors import BadInput, StorageError
from .lock import exclusive
from .masking import register
from .misplaced import misplaced, of_unknown
from .plan import Outcome, Plan, State, converge
from .secrets import Key, Mask


class Module(AnsibleModule):
    """An AnsibleModule that writes no option values to the system log.

    AnsibleModule logs its options as ``repr`` text and hides secrets in it by their plain text, so that a passphrase
    with a quote or backslash would be logged in full.
    """

    def __init__(self, argument_spec: dict[str, t.Any]) -> None:
        super().__init__(argument_spec=argument_spec, supports_check_mode=True)

    def _load_params(self) -> None:
        """Say what is wrong where it may be a secret, before Ansible says it and names what was given."""
        super()._load_params()
        register(self, of_unknown(self.argument_spec, self.params))
        problems = list(misplaced(self.argument_spec, self.params))
        if problems:
            # Ansible shows them with the error.
            self.params = {}
            fail(
                self,
                BadInput(
                    f"{'; '.join(one.problem for one in problems)}. What was given is not shown, since it may be a "
                    "secret.",
                    hint=" ".join(dict.fromkeys(one.hint for one in problems if one.hint)),
                ),
            )

    def _log_invocation(self) -> None:
        given = sorted(name for name, value in self.params.items() if value is not None)
        self.log(f"Invoked with the options {', '.join(given)}")


# Ansible compares each text of a result with each secret in turn, so that thousands of both would take minutes.
_MOST_REGISTERED = 64


def protect(module: AnsibleModule, mask: Mask, keys: t.Iterable[Key | None]) -> None:
    """Hide key material in everything this task prints or returns.

    The words of programs, the only ones that are not our own, are masked whatever the number of keys. So are options
    with keys, by Ansible itself.
    """
    for number, key in enumerate(key for key in keys if key is not None):
        spellings = mask.add(key)
        if number < _MOST_REGISTERED:
            register(module, spellings)


def finish(
    module: AnsibleModule,
    outcome: Outcome[State],
    describe: t.Callable[[Outcome[State]], dict[str, t.Any]],
) -> t.NoReturn:
    """End the module with what the plan says; branches that failed make the task fail after all others were done."""
    plan = outcome.plan
    for warning in plan.warnings:
        module.warn(warning)
    result = {"changed": plan.changed, "actions": plan.actions, "diff": plan.diff(), **describe(outcome)}
    if plan.failures:
        module.fail_json(msg=_failures(plan), **{**_details(plan), **result})
    module.exit_json(**result)
    raise AssertionError("exit_json returned")


def _failures(plan: Plan) -> str:
    """What went wrong in each branch, and what was not attempted because of that."""
    faults = [one for one in plan.failures if not one.because]
    held_up = [one.branch for one in plan.failures if one.because]
    lines = [str(one) if len(plan.failures) == 1 else f"{one.branch}: {one}" for one in faults]
    if held_up:
        lines.append(f"Not attempted because of that: {', '.join(held_up)}.")
    return "\n".join(lines)


def _details(plan: Plan) -> dict[str, t.Any]:
    """What a program said about the first fault."""
    return next((dict(one.details) for one in plan.failures if one.details), {})


def fail(module: AnsibleModule, error: StorageError) -> t.NoReturn:
    """End the module with an error a person can act on."""
    module.fail_json(msg=str(error), **error.details)
    raise AssertionError("fail_json returned")


def run(
    module: AnsibleModule,
    runner: Runner,
    read: t.Callable[[], State],
    decide: t.Callable[[State], Plan],
    describe: t.Callable[[Outcome[State]], dict[str, t.Any]],
    read_again: t.Callable[[State, Plan], State] | None = None,
) -> t.NoReturn:
    """Read, plan, apply, and end the module. Unless in check mode, no other task changes the host meanwhile."""
    try:
        with contextlib.nullcontext() if module.check_mode else exclusive():
            outcome = converge(read, decide, runner, module.check_mode, read_again)
    except StorageError as error:
        fail(module, error)
    finish(module, outcome, describe)
