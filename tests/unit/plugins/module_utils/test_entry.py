# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point with a real AnsibleModule, and a state that is a dictionary."""

from __future__ import annotations

import json
import sys
import typing as t

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from ansible_collections.nasops.encryption.plugins.module_utils.command import HostRunner
from ansible_collections.nasops.encryption.plugins.module_utils.entry import Module, fail, protect, run
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Change, Plan, Step
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key, Mask, encodings

Ending = dict[str, t.Any]


def ended(capsys: pytest.CaptureFixture[str], call: t.Callable[[], object]) -> tuple[int, Ending]:
    """Exit status and result of a module."""
    with pytest.raises(SystemExit) as caught:
        call()
    result: Ending = json.loads(capsys.readouterr().out)
    return int(caught.value.code or 0), result


def play(state: dict[str, int], check_mode: bool, warnings: tuple[str, ...] = ()) -> None:
    """A module that wants ``a`` to be 2."""

    def decide(read: dict[str, int]) -> Plan:
        if read["a"] == 2:
            return Plan(warnings=warnings)
        step = Step("Set a", lambda _runner: state.update(a=2), (Change(("a",), read["a"], 2),))
        return Plan((step,), warnings)

    with patch_module_args({"_ansible_check_mode": check_mode}):
        module = AnsibleModule(argument_spec={}, supports_check_mode=True)
        run(module, HostRunner(Mask()), lambda: dict(state), decide, lambda done: {"value": done.state["a"]})


def test_the_result_is_what_the_plan_says_and_the_state_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    state = {"a": 1}
    status, result = ended(capsys, lambda: play(state, check_mode=False))
    assert (status, state) == (0, {"a": 2})
    assert result["changed"] is True
    assert result["actions"] == ["Set a"]
    assert result["diff"] == {"before": {"a": 1}, "after": {"a": 2}}
    assert result["value"] == 2


def test_the_second_time_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    status, result = ended(capsys, lambda: play({"a": 2}, check_mode=False))
    assert (status, result["changed"], result["actions"]) == (0, False, [])
    assert result["diff"] == {"before": {}, "after": {}}


def test_check_mode_tells_the_same_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    state = {"a": 1}
    _status, checked = ended(capsys, lambda: play(state, check_mode=True))
    assert state == {"a": 1}
    _status, done = ended(capsys, lambda: play(state, check_mode=False))
    assert [checked[name] for name in ("changed", "actions", "diff")] == [
        done[name] for name in ("changed", "actions", "diff")
    ]
    assert checked["value"] == 1


def test_warnings_of_the_plan_become_warnings_of_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    _status, result = ended(capsys, lambda: play({"a": 2}, check_mode=False, warnings=("The pool is DEGRADED.",)))
    assert "The pool is DEGRADED." in json.dumps(result["warnings"])


def test_an_error_ends_the_module_with_message_hint_and_details(capsys: pytest.CaptureFixture[str]) -> None:
    def play_failing() -> None:
        def read() -> int:
            raise Refused("Disk in use.", hint="Take another.", refused_disks=["sda"])

        with patch_module_args({}):
            module = AnsibleModule(argument_spec={})
            run(module, HostRunner(Mask()), read, lambda _state: Plan(), lambda _state: {})

    status, result = ended(capsys, play_failing)
    assert status != 0
    assert result["failed"] is True
    assert result["msg"] == "Disk in use. Take another."
    assert result["refused_disks"] == ["sda"]


@pytest.mark.parametrize(
    "key", [Key("passphrase", b"correct horse battery"), Key("hex", b"0F" * 32), Key("raw", bytes(range(100, 132)))]
)
def test_a_protected_key_does_not_get_out_in_any_encoding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: Key
) -> None:
    # The older way of hiding, which works within this process alone.
    monkeypatch.setitem(sys.modules, "ansible.module_utils.secrets", t.cast(t.Any, None))

    def leak() -> None:
        with patch_module_args({}):
            module = AnsibleModule(argument_spec={})
            protect(module, Mask(), (None, key))
            fail(module, Refused("It said: " + " ".join(encodings(key.material)), output=list(encodings(key.material))))

    with pytest.raises(SystemExit):
        leak()
    shown = capsys.readouterr().out
    for spelling in encodings(key.material):
        assert spelling not in shown


def test_protected_keys_are_known_to_the_mask_of_the_programs() -> None:
    mask = Mask()
    with patch_module_args({}):
        protect(AnsibleModule(argument_spec={}), mask, (None, Key("passphrase", b"correct horse battery")))
    assert mask.hides("correct horse battery")


@pytest.mark.parametrize(
    "secret", ["correct horse battery", "with 'quotes' and \"more\"", "back\\slash and $HOME", "schlüssel wort"]
)
def test_the_system_log_gets_names_of_options_and_no_values(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        AnsibleModule, "log", lambda _self, message, log_args=None: logged.append(f"{message} {log_args}")
    )
    spec = {"name": {"type": "str"}, "key": {"type": "dict", "no_log": False, "options": {"value": {"no_log": True}}}}
    with patch_module_args({"name": "tank-7", "key": {"value": secret}}):
        Module(spec)
    assert "Invoked with the options key, name" in logged[0]
    text = "\n".join(logged)
    assert "tank-7" not in text
    for spelling in (*encodings(secret.encode()), repr(secret), repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        assert spelling not in text
