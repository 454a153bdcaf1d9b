# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that a module documents are those that it takes, down to the last default."""

from __future__ import annotations

import importlib
import types
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule

PACKAGE = "ansible_collections.nasops.encryption.plugins"
FOLDER = Path(__file__).resolve().parents[4] / "plugins" / "modules"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))

Options = dict[str, dict[str, t.Any]]


class Captured(Exception):
    """Ends a module where it would begin to work."""


def load(name: str) -> types.ModuleType:
    return importlib.import_module(f"{PACKAGE}.modules.{name}")


def taken(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, t.Any]:
    """What a module calls AnsibleModule with."""
    found: dict[str, t.Any] = {}

    def capture(_self: AnsibleModule, argument_spec: dict[str, t.Any], **more: t.Any) -> None:
        found.update(more, argument_spec=argument_spec)
        raise Captured

    monkeypatch.setattr(AnsibleModule, "__init__", capture)
    with pytest.raises(Captured):
        load(name).main()
    return found


def documented(name: str) -> tuple[dict[str, t.Any], Options]:
    """The documentation of a module, and all its options with those of its fragments."""
    documentation = yaml.safe_load(load(name).DOCUMENTATION)
    options: Options = dict(documentation.get("options") or {})
    for reference in documentation.get("extends_documentation_fragment", ()):
        fragment, _dot, part = reference[len("nasops.encryption.") :].partition(".")
        holder = importlib.import_module(f"{PACKAGE}.doc_fragments.{fragment}").ModuleDocFragment
        text = getattr(holder, part.upper() if part else "DOCUMENTATION")
        options.update(yaml.safe_load(text).get("options") or {})
    return documentation, options


FIELDS = ("type", "elements", "required", "default", "choices", "aliases")
IMPLIED = {"type": "str", "required": False}


def compare(where: str, spec: t.Mapping[str, t.Any], options: Options) -> list[str]:
    """Every difference between a specification and the documentation of it, in words."""
    problems = [f"{where}{name} is not documented" for name in spec if name not in options]
    problems += [f"{where}{name} is documented, but not taken" for name in options if name not in spec]
    for name in set(spec) & set(options):
        for field in FIELDS:
            took, told = (one.get(field, IMPLIED.get(field)) for one in (spec[name], options[name]))
            if took != told or type(took) is not type(told):
                problems.append(f"{where}{name}: {field} is {took!r}, documented is {told!r}")
        inside = spec[name].get("options") or {}
        problems += compare(f"{where}{name}.", inside, options[name].get("suboptions") or {})
        if not options[name].get("description"):
            problems.append(f"{where}{name} has no description")
    return problems


ROLES = FOLDER.parents[1] / "roles"


def as_documented(role: Options) -> Options:
    """The options of a role as a module would document them."""
    return {name: {**one, "suboptions": as_documented(one.get("options") or {})} for name, one in role.items()}


def described(where: str, role: Options, module: Options) -> list[str]:
    """Every difference between what a role and a module say of the same options, in words."""
    problems: list[str] = []
    for name in set(role) & set(module):
        # In the documentation of a role, O() would be an option of the role.
        says = [line.replace("O(", "C(") for line in module[name]["description"]]
        if role[name]["description"] != says:
            problems.append(f"{where}{name} is described as {role[name]['description']}, in the module as {says}")
        problems += described(f"{where}{name}.", role[name]["suboptions"], module[name].get("suboptions") or {})
    return problems


def test_the_pools_of_the_role_have_the_options_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = yaml.safe_load((ROLES / "encrypted_pools" / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    given = specs["argument_specs"]["main"]["options"]["nas_pools"]["options"]
    # The datasets have the options of another module.
    given = {name: one for name, one in given.items() if name != "datasets"}
    role = as_documented(given)
    spec = taken("zfs_encrypted_pool", monkeypatch)["argument_spec"]["pools"]["options"]
    assert compare("", spec, role) == []
    assert described("", role, documented("zfs_encrypted_pool")[1]["pools"]["suboptions"]) == []
    for options in (spec, given):
        assert [place for place, one in secrets(options) if one.get("no_log")] == ["key.value"]


def test_there_are_modules() -> None:
    assert {"zfs_encrypted_pool", "zfs_encryption_info"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_options_are_the_documented_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _documentation, options = documented(name)
    assert compare("", taken(name, monkeypatch)["argument_spec"], options) == []


@pytest.mark.parametrize("name", MODULES)
def test_check_mode_is_supported_as_promised(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(name, monkeypatch)["supports_check_mode"] is True
    documentation, _options = documented(name)
    assert any("attributes" in one for one in documentation["extends_documentation_fragment"])


def secrets(spec: t.Mapping[str, t.Any], where: str = "") -> t.Iterator[tuple[str, t.Mapping[str, t.Any]]]:
    """Every option with its place."""
    for name, one in spec.items():
        yield where + name, one
        yield from secrets(one.get("options") or {}, f"{where}{name}.")


@pytest.mark.parametrize("name", MODULES)
def test_every_option_with_a_suspicious_name_says_whether_it_is_secret(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("key", "pass", "secret", "token", "psid", "value")
    for place, one in secrets(taken(name, monkeypatch)["argument_spec"]):
        if any(word in place.rsplit(".", 1)[-1] for word in words):
            assert isinstance(one.get("no_log"), bool), place


@pytest.mark.parametrize("name", MODULES)
def test_examples_use_only_options_that_exist(name: str) -> None:
    _documentation, options = documented(name)
    tasks = yaml.safe_load(load(name).EXAMPLES)
    used = [task[f"nasops.encryption.{name}"] for task in tasks if f"nasops.encryption.{name}" in task]
    assert used
    for arguments in used:
        assert unknown(arguments or {}, options) == []


def unknown(arguments: t.Mapping[str, t.Any], options: Options, where: str = "") -> list[str]:
    """The names in an example that are no options."""
    found = [where + name for name in arguments if name not in options]
    for name in set(arguments) & set(options):
        inside = options[name].get("suboptions")
        values = arguments[name] if isinstance(arguments[name], list) else [arguments[name]]
        for value in values:
            if inside and isinstance(value, dict):
                found += unknown(value, inside, f"{where}{name}.")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_what_is_returned_is_documented_with_type_and_condition(name: str) -> None:
    returned = yaml.safe_load(load(name).RETURN)
    assert returned

    def check(values: Options, where: str = "") -> None:
        for key, one in values.items():
            assert one.get("type"), where + key
            assert one.get("description"), where + key
            assert where or one.get("returned"), key
            check(one.get("contains") or {}, f"{where}{key}.")

    check(returned)
