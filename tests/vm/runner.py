# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one case on the NAS."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import expect
from .case import BadCase, Call, Case, Killed, Names, Script
from .connection import Agent


@dataclass
class CaseRunner:
    """Carries out cases one after another, each on a clean host."""

    agent: Agent
    names: Names

    def run(self, case: Case) -> list[str]:
        """Every complaint about the case; none if it passed."""
        complaints: list[str] = []
        self.names.saved.clear()
        self.names.keys.forget()
        self.reset()
        try:
            if case.setup:
                self._shell(case.setup)
            for number, step in enumerate(case.steps, 1):
                prefix = f"step {number}: " if len(case.steps) > 1 else ""
                found = [prefix + complaint for complaint in self._step(step)]
                complaints += found
                if found:
                    break
        except (Broken, BadCase) as error:
            complaints.append(str(error))
        finally:
            if case.cleanup:
                self.agent.ask("script", script=self.names.fill(case.cleanup))
        return complaints

    def reset(self) -> None:
        """A host with blank disks and nothing left of the case before; new key files are noted for the search."""
        reply = self.agent.ask("reset")
        if "failure" in reply:
            raise ResetFailed(reply["failure"])
        for content in reply["keys"]:
            self.names.keys.note(base64.b64decode(content))

    def _step(self, step: Call | Script | Killed) -> Iterator[str]:
        if isinstance(step, Script):
            printed = self._shell(step.text).strip()
            if step.save:
                self.names.saved[step.save] = printed
            if step.out is not None:
                yield from expect.matches(self.names.fill(step.out), printed, "the output")
        elif isinstance(step, Killed):
            reply = self.agent.ask("module", module=step.module, args=self._args(step.args, False))
            if reply.get("status") != -9:
                yield f"the module was to be killed, but ended with {reply}"
        else:
            filled = replace(
                step,
                **{word: self.names.fill(getattr(step, word)) for word in ("failed", "result", "diff", "warnings")},
                actions=None if step.actions is None else tuple(self.names.fill(step.actions)),
            )
            yield from self._failing(filled) if filled.failed else self._passing(filled)

    def _passing(self, call: Call) -> Iterator[str]:
        before = self._state()
        check = self._run(call, check=True)[0]
        yield from expect.same_state(before, self._state(), "check mode")
        apply = self._run(call)[0]
        complaints = list(expect.first_pair(call, check, apply))
        yield from complaints
        if complaints:
            return
        if not call.repeats:
            yield from expect.unchanged(self._run(call, check=True)[0], "second check")
            result, reply = self._run(call, count=True)
            yield from expect.unchanged(result, "second apply")
            yield from expect.executed(call, reply)
        for number, other in enumerate(call.again, 1):
            # an option that is null there is left out
            args = {name: value for name, value in {**call.args, **other}.items() if value is not None}
            spelt = replace(call, args=args)
            yield from expect.unchanged(self._run(spelt, check=True)[0], f"check of spelling {number}")
            yield from expect.unchanged(self._run(spelt)[0], f"apply of spelling {number}")
        for script, wanted in call.verify:
            printed = self._shell(script).strip()
            yield from expect.matches(self.names.fill(wanted), printed, f"`{script}`")

    def _failing(self, call: Call) -> Iterator[str]:
        before = self._state()
        check = self._run(call, check=True)[0]
        yield from expect.same_state(before, self._state(), "check mode")
        apply = self._run(call)[0]
        yield from expect.failures(call, check, apply)
        yield from expect.same_state(before, self._state(), "the failed run", call.leaves)
        for script, wanted in call.verify:
            printed = self._shell(script).strip()
            yield from expect.matches(self.names.fill(wanted), printed, f"`{script}`")

    def _run(self, call: Call, check: bool = False, count: bool = False) -> tuple[dict[str, Any], Mapping[str, Any]]:
        reply = self.agent.ask(
            "module",
            module=call.module,
            args=self._args(call.args, check),
            uid=call.uid,
            count=count,
            engine=call.engine,
        )
        return expect.parse(reply), reply

    def _args(self, args: Mapping[str, Any], check: bool) -> dict[str, Any]:
        filled = self.names.fill(copy.deepcopy(args))
        return {**filled, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_verbosity": 4}

    def _state(self) -> Mapping[str, Any]:
        reply = self.agent.ask("state")
        if "failure" in reply:
            raise Broken(f"the state can't be read: {reply['failure']}")
        return reply

    def _shell(self, script: str) -> str:
        reply = self.agent.ask("script", script=self.names.fill(script))
        if "failure" in reply or reply["rc"]:
            said = reply.get("failure") or f"status {reply['rc']}: {reply['err'].strip()} {reply['out'].strip()}"
            raise Broken(f"`{script.strip()}` failed: {said}")
        return str(reply["out"])


class Broken(Exception):
    """The case could not be carried out."""


class ResetFailed(Exception):
    """The host can't be brought back; a new one is needed."""
