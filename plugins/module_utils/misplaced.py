# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds secrets that stand where the option for them does not: Ansible's own errors would print them.

``key: <the key>`` in place of ``key: {value: <the key>}`` is a text where a mapping is wanted. Ansible splits such a
text at its "=", as in the padding of base64, and names what is before it in the error about options it does not know.
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible.module_utils.common.validation import check_type_dict

Spec = t.Mapping[str, t.Mapping[str, t.Any]]

# No key and no passphrase is shorter.
_SHORTEST = 8


def misplaced(spec: Spec, params: t.Mapping[str, t.Any], prefix: str = "") -> t.Iterator[str]:
    """What is wrong with options that hold a secret, in words without it.

    :param params: the options as they were given, before Ansible has looked at them
    """
    for name, option in spec.items():
        given, within = params.get(name), option.get("options")
        if given is None or "dict" not in (option.get("type"), option.get("elements")):
            continue
        many = option["type"] == "list"
        secret = option.get("no_log") or any(one.get("no_log") for one in (within or {}).values())
        for number, entry in enumerate(given if many and isinstance(given, list) else [given]):
            path = f"{prefix}{name}[{number}]" if many else f"{prefix}{name}"
            mapping = _mapping(entry, within)
            if mapping is None:
                if secret:
                    yield f"{path} is no mapping"
            elif within is not None:
                unknown = sorted(_shown(str(word)) for word in set(mapping) - set(within))
                if secret and unknown:
                    yield f"{path} holds {', '.join(unknown)}, but its options are {', '.join(sorted(within))}"
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
            for entry in given if isinstance(given, list) else [given]:
                mapping = _mapping(entry, within)
                yield from () if mapping is None else of_unknown(within, mapping)


def _texts(value: t.Any) -> t.Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _shown(name: str) -> str:
    return f"'{name}'" if len(name) < _SHORTEST else f"a name of {len(name)} characters"


def _mapping(entry: t.Any, within: Spec | None) -> t.Mapping[str, t.Any] | None:
    """The mapping that was given, in Ansible's other ways to write one too; None for anything else."""
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
