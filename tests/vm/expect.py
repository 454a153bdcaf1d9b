# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what came out with what a case expects. Pure functions that return complaints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .case import Call


def matches(expected: Any, actual: Any, where: str) -> Iterator[str]:
    """Complaints about every place where a value is not as expected.

    A text that begins with ``~`` is a regular expression to be found in the value. Of a mapping only the given entries
    are compared; a list has to be the same, entry by entry.
    """
    if isinstance(expected, str) and expected.startswith("~"):
        if not isinstance(actual, str) or not re.search(expected[1:].strip(), actual, re.DOTALL):
            yield f"{where} is {actual!r}, wanted was something like {expected[1:].strip()!r}"
    elif isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            yield f"{where} is {actual!r}, wanted was {expected!r}"
            return
        for name, value in expected.items():
            if name not in actual:
                yield f"{where} has no {name!r}: {actual!r}"
            else:
                yield from matches(value, actual[name], f"{where}.{name}")
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(actual, Sequence) or isinstance(actual, str) or len(actual) != len(expected):
            yield f"{where} is {actual!r}, wanted was {expected!r}"
            return
        for index, value in enumerate(expected):
            yield from matches(value, actual[index], f"{where}[{index}]")
    elif expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
        yield f"{where} is {actual!r}, wanted was {expected!r}"


def parse(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a module, or a complaint in place of one under ``crash``."""
    if reply.get("failure"):
        return {"crash": f"the agent failed: {reply['failure']}"}
    try:
        result = json.loads(reply["out"])
    except ValueError:
        said = f"{reply['out']}{reply['err']}".strip()
        return {"crash": f"no JSON came out (status {reply['status']}): {said}"}
    if not isinstance(result, dict):
        return {"crash": f"the result is no object: {result!r}"}
    if reply["err"].strip():
        return {"crash": f"something was written to standard error: {reply['err'].strip()}"}
    return result


def first_pair(call: Call, check: Mapping[str, Any], apply: Mapping[str, Any]) -> Iterator[str]:
    """The first check and apply: the same story, and the expected one."""
    for name, result in (("check", check), ("apply", apply)):
        yield from _no_failure(name, result)
    if "crash" in check or "crash" in apply or check.get("failed") or apply.get("failed"):
        return
    if call.reveals:
        if apply.get("actions", [])[: len(check.get("actions", []))] != check.get("actions"):
            yield f"apply did not do first what check announced: {check.get('actions')} and {apply.get('actions')}"
    else:
        for word in ("changed", "actions", "diff"):
            if check.get(word) != apply.get(word):
                yield f"{word} of check and apply differ: {check.get(word)!r} and {apply.get(word)!r}"
    yield from matches(call.changed, apply.get("changed"), "changed")
    if call.actions is not None:
        yield from matches(call.actions, apply.get("actions"), "actions")
    if call.diff is not None:
        yield from matches(call.diff, apply.get("diff"), "diff")
    if call.result is not None:
        yield from matches(call.result, apply, "result")
    yield from _warnings(call, apply)


def _warnings(call: Call, result: Mapping[str, Any]) -> Iterator[str]:
    yield from matches(call.warnings, warnings_of(result), "warnings")


def warnings_of(result: Mapping[str, Any]) -> list[str]:
    """The warnings in the result of a module; ansible-core 2.19 and later wrap each into an event."""
    return [_warning_text(warning) for warning in result.get("warnings", [])]


def _warning_text(warning: Any) -> str:
    if not isinstance(warning, Mapping):
        return str(warning)
    event = warning.get("event", warning)
    return str(event.get("msg", event)) if isinstance(event, Mapping) else str(event)


def unchanged(result: Mapping[str, Any], which: str) -> Iterator[str]:
    """A run that must find nothing to do."""
    complaints = list(_no_failure(which, result))
    yield from complaints
    if complaints:
        return
    if result.get("changed") is not False:
        yield f"{which}: changed is {result.get('changed')!r}: {result.get('actions')}"
    if result.get("actions", []) != []:
        yield f"{which}: actions are {result.get('actions')}"
    if result.get("diff", {"before": {}, "after": {}}) != {"before": {}, "after": {}}:
        yield f"{which}: diff is {result.get('diff')}"


def _no_failure(which: str, result: Mapping[str, Any]) -> Iterator[str]:
    if "crash" in result:
        yield f"{which}: {result['crash']}"
    elif result.get("failed"):
        yield f"{which} failed: {result.get('msg')}"


def executed(call: Call, reply: Mapping[str, Any]) -> Iterator[str]:
    """How many processes of ZFS a run with nothing to do has started."""
    programs = [" ".join(words) for words in reply.get("executed", []) if words and words[0] in ("zfs", "zpool")]
    if len(programs) > call.executes:
        yield f"{len(programs)} processes of ZFS were started, at most {call.executes} were wanted: {programs}"
    # Modules that have nothing to do with ZFS say that they start none.
    if not programs and call.executes:
        yield "no process of ZFS was seen at all, so they are not counted rightly"


def failures(call: Call, check: Mapping[str, Any], apply: Mapping[str, Any]) -> Iterator[str]:
    """An expected failure."""
    for name, result in (("check", check), ("apply", apply)):
        if name == "check" and call.apply_only:
            yield from _no_failure(name, result)
            continue
        if "crash" in result:
            yield f"{name}: {result['crash']}"
        elif not result.get("failed"):
            yield f"{name} did not fail: {result.get('actions')}"
        else:
            yield from matches("~" + call.failed, result.get("msg"), f"{name}.msg")
            if "Traceback" in str(result):
                yield f"{name}: there is a traceback in the result: {result}"
    if not call.apply_only and check.get("msg") != apply.get("msg"):
        yield f"check says {check.get('msg')!r}, apply says {apply.get('msg')!r}"
    if call.result is not None:
        yield from matches(call.result, apply, "result")


def same_state(
    before: Mapping[str, Any], after: Mapping[str, Any], which: str, but: Sequence[str] = ()
) -> Iterator[str]:
    """Nothing of the host was changed, apart from what is named."""
    for part in before:
        if part not in but and before[part] != after[part]:
            yield f"{which} changed {part}: before {before[part]!r}, after {after[part]!r}"
