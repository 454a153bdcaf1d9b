# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys
import types
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.masking import occurs, register, release

NAME = "ansible.module_utils.secrets"


class Module:
    """The one thing of AnsibleModule that older versions of ansible-core hide values with."""

    def __init__(self) -> None:
        self.no_log_values: set[str] = {"before"}


def test_with_the_interface_of_ansible_core_2_22_it_alone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    interface = types.ModuleType(NAME)
    monkeypatch.setattr(interface, "register_secrets", told.extend, raising=False)
    monkeypatch.setitem(sys.modules, NAME, interface)
    module = Module()
    register(t.cast(t.Any, module), iter(("longenough", "Zm9vYmFyYmF6")))
    assert told == ["longenough", "Zm9vYmFyYmF6"]
    assert module.no_log_values == {"before"}


def test_without_it_the_module_hides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules makes the import fail, whatever this ansible-core has.
    monkeypatch.setitem(sys.modules, NAME, t.cast(t.Any, None))
    module = Module()
    register(t.cast(t.Any, module), iter(("longenough", "Zm9vYmFyYmF6")))
    assert module.no_log_values == {"before", "longenough", "Zm9vYmFyYmF6"}


@pytest.mark.parametrize("new", [True, False])
def test_a_short_text_would_blank_out_words_and_is_left_alone(monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    told: list[str] = []
    interface = types.ModuleType(NAME)
    monkeypatch.setattr(interface, "register_secrets", told.extend, raising=False)
    monkeypatch.setitem(sys.modules, NAME, t.cast(t.Any, interface if new else None))
    module = Module()
    register(t.cast(t.Any, module), ["", "seven77", "eight888"])
    assert set(told) | module.no_log_values == {"before", "eight888"}


@pytest.mark.parametrize("new", [True, False])
def test_a_plugin_of_the_controller_hides_where_there_is_an_interface_for_it(
    monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    told: list[str] = []
    interface = types.ModuleType(NAME)
    monkeypatch.setattr(interface, "register_secrets", told.extend, raising=False)
    monkeypatch.setitem(sys.modules, NAME, t.cast(t.Any, interface if new else None))
    register(None, ["longenough"])
    assert told == (["longenough"] if new else [])


def test_what_is_no_secret_is_shown_again() -> None:
    module = Module()
    release(t.cast(t.Any, module), ["before", "never there"])
    assert module.no_log_values == set()
    release(t.cast(t.Any, object()), ["before"])


@pytest.mark.parametrize(
    "names,spoilt",
    [(["tank", "tank/before"], True), (["tank/a-before-b"], True), (["tank/be", "fore"], False), ([], False)],
)
def test_a_name_that_holds_what_is_hidden_is_found(names: list[str], spoilt: bool) -> None:
    module = Module()
    module.no_log_values.add("")
    assert occurs(t.cast(t.Any, module), iter(names)) is spoilt
    assert occurs(t.cast(t.Any, object()), names) is False
