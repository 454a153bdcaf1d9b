# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds secrets that stand where the option for them does not: Ansible's own errors would print them.

``key: <the key>`` in place of ``key: {value: <the key>}`` is a text where a mapping is wanted. Ansible splits such a
text at its "=", as in the padding of base64, and names what is before it in the error about options it does not know.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass

from ansible.module_utils.common.validation import check_type_bool, check_type_dict, check_type_int

Option = t.Mapping[str, t.Any]
Spec = t.Mapping[str, Option]

# No key and no passphrase is shorter.
_SHORTEST = 8

# What the name of an option looks like. A key has digits or capitals, and most passphrases have blanks.
_NAME = re.compile("[a-z_]{1,30}")

# Ansible's own checks of a type, and what is said of a value that fails one.
_CHECKS: t.Mapping[str, tuple[t.Callable[[t.Any], t.Any], str]] = {
    "bool": (check_type_bool, "neither yes nor no"),
    "int": (check_type_int, "no whole number"),
}


@dataclass(frozen=True)
class Misplaced:
    """What is wrong with an option, and how it is written, both in words without what was given."""

    problem: str
    hint: str = ""


def misplaced(spec: Spec, params: t.Mapping[str, t.Any], prefix: str = "") -> t.Iterator[Misplaced]:
    """Everything that stands where it may be a secret and Ansible would print it.

    :param params: the options as they were given, before Ansible has looked at them
    """
    if spec.get("value", {}).get("no_log"):
        yield from _beside_a_secret(spec, params, prefix)
    for name, option in spec.items():
        given, within = params.get(name), option.get("options")
        if given is None or "dict" not in (option.get("type"), option.get("elements")):
            continue
        many = option["type"] == "list"
        for number, entry in enumerate(_entries(option, given)):
            path = f"{prefix}{name}[{number}]" if many else f"{prefix}{name}"
            mapping = _mapping(entry, within)
            if mapping is None:
                # A text for all pools may hold their keys, and one for the vdevs of a pool may be meant for its key.
                if within is not None or option.get("no_log"):
                    yield Misplaced(f"{path} is no mapping", _spelling(name, option))
            elif within is not None:
                unknown = _unknown(within, mapping)
                if unknown:
                    problem = f"{path} holds {', '.join(unknown)}, but its options are {', '.join(sorted(within))}"
                    yield Misplaced(problem, _spelling(name, option))
                yield from misplaced(within, mapping, f"{path}.")


def of_unknown(spec: Spec, params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """All texts in options that do not exist: Ansible shows with its error what was given for a misspelled ``key``."""
    for name, given in params.items():
        if name.startswith("_ansible_"):
            continue
        within = spec[name].get("options") if name in spec else None
        if name not in spec:
            yield from _texts(given)
        elif within is not None:
            for entry in _entries(spec[name], given):
                mapping = _mapping(entry, within)
                yield from () if mapping is None else of_unknown(within, mapping)


def _texts(value: t.Any) -> t.Iterator[str]:
    """All texts in a value. A number is one too: a passphrase of digits, which YAML reads so without quotes."""
    if isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _entries(option: Option, given: t.Any) -> list[t.Any]:
    """What is checked against the options of a mapping, where a list is wanted one by one as Ansible splits it."""
    if option["type"] != "list":
        return [given]
    if isinstance(given, str):
        return list(given.split(","))
    return given if isinstance(given, list) else [given]


def _beside_a_secret(spec: Spec, params: t.Mapping[str, t.Any], prefix: str) -> t.Iterator[Misplaced]:
    """Options next to the value of a key that can't be what is given for them, as when two lines were mixed up."""
    for name, option in spec.items():
        given, choices = params.get(name), option.get("choices")
        if given is None or option.get("no_log"):
            continue
        if choices:
            wrong = "" if str(given) in map(str, choices) else f"none of {', '.join(map(str, choices))}"
        else:
            wrong = _not_of_type(option.get("type", "str"), given)
        if wrong:
            yield Misplaced(f"{prefix}{name} is {wrong}")


def _not_of_type(kind: str, given: t.Any) -> str:
    """What a value should have been, "" if it can be."""
    check, words = _CHECKS.get(kind, (str, ""))
    try:
        check(given)
    except (TypeError, ValueError):
        return words
    return ""


def _unknown(within: Spec, mapping: t.Mapping[str, t.Any]) -> list[str]:
    """The names that are no options, as far as Ansible must not show them."""
    names = sorted(str(word) for word in set(mapping) - set(within))
    if not any(option.get("no_log") for option in within.values()):
        # Here they are misspelled options, for which Ansible has the better words.
        names = [name for name in names if not _NAME.fullmatch(name)]
    return [f"'{name}'" if len(name) < _SHORTEST else f"a name of {len(name)} characters" for name in names]


def _spelling(name: str, option: Option) -> str:
    """How an option that is a mapping is written."""
    within: Spec | None = option.get("options")
    if within is None:
        return f"Write for example '{name}: {{NAME: ...}}', or the same as JSON."
    first = next((one for wish in ("no_log", "required") for one in within if within[one].get(wish)), min(within))
    example = f"{{{first}: ...}}"
    return f"Write for example '{name}: {f'[{example}]' if option['type'] == 'list' else example}'."


def _mapping(entry: t.Any, within: Spec | None) -> t.Mapping[str, t.Any] | None:
    """The mapping that was given, in those of Ansible's other ways to write one that no key looks like, else None."""
    if isinstance(entry, Mapping):
        return entry
    if not isinstance(entry, str):
        return None
    try:
        found: t.Any = check_type_dict(entry)
    except TypeError:
        return None
    # "a=b" is as likely to be the text of a key.
    known = isinstance(found, Mapping) and (entry.startswith("{") or (within is not None and set(found) <= set(within)))
    return found if known else None
