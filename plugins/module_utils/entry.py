# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the entry point of every module shares: masking, one place where errors become results, the result's shape."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

from .command import HostRunner
from .errors import StorageError
from .masking import register
from .plan import Outcome, Plan, State, converge
from .secrets import Key, Mask


class Module(AnsibleModule):
    """An AnsibleModule that writes no option values to the system log.

    AnsibleModule logs its options as ``repr`` text and hides secrets in it by their plain text, so that a passphrase
    with a quote or backslash would be logged in full.
    """

    def __init__(self, argument_spec: dict[str, t.Any]) -> None:
        super().__init__(argument_spec=argument_spec, supports_check_mode=True)

    def _log_invocation(self) -> None:
        given = sorted(name for name, value in self.params.items() if value is not None)
        self.log(f"Invoked with the options {', '.join(given)}")


def protect(module: AnsibleModule, mask: Mask, keys: t.Iterable[Key | None]) -> None:
    """Hide key material in everything this task prints or returns."""
    for key in keys:
        if key is not None:
            register(module, mask.add(key))


def finish(
    module: AnsibleModule,
    outcome: Outcome[State],
    describe: t.Callable[[State], dict[str, t.Any]],
) -> t.NoReturn:
    """End the module with what the plan says."""
    for warning in outcome.plan.warnings:
        module.warn(warning)
    module.exit_json(
        changed=outcome.plan.changed,
        actions=outcome.plan.actions,
        diff=outcome.plan.diff(),
        **describe(outcome.state),
    )
    raise AssertionError("exit_json returned")


def fail(module: AnsibleModule, error: StorageError) -> t.NoReturn:
    """End the module with an error a person can act on."""
    module.fail_json(msg=str(error), **error.details)
    raise AssertionError("fail_json returned")


def run(
    module: AnsibleModule,
    runner: HostRunner,
    read: t.Callable[[HostRunner], State],
    decide: t.Callable[[State], Plan],
    describe: t.Callable[[State], dict[str, t.Any]],
) -> t.NoReturn:
    """Read, plan, apply, and end the module."""
    try:
        outcome = converge(lambda: read(runner), decide, runner, module.check_mode)
    except StorageError as error:
        fail(module, error)
    finish(module, outcome, describe)
