# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the result of zfs_encryption_info."""

from __future__ import annotations

DOCUMENTATION = r"""
name: encryption_query
short_description: Ask the result of zfs_encryption_info, by JMESPath or by conditions
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Selects from what M(nasops.encryption.zfs_encryption_info) returned.
  - Conditions such as O(locked) or O(inherits_from) select datasets. All of them have to hold. The result is a list
    with one row per dataset, ordered by name, whether it is an encryption root, uses the key of one, or is not
    encrypted.
  - An expression in JMESPath selects anything. It sees the whole result, and with it C(datasets), the same rows of all
    datasets. Together with conditions it sees the list of the selected rows instead.
  - Each row has C(name), C(pool), C(type), C(cipher), C(mountpoint), C(mounted), C(locked), C(encrypted), C(is_root),
    C(encryption_root), C(inherits_from), C(below_encrypted), and from its encryption root C(key_format), C(iterations),
    C(iterations_below_policy), C(key_present), C(valid_key), C(unlock_successful) and C(unlock_error).
requirements:
  - jmespath (Python package on the controller), for expressions only
options:
  _input:
    description:
      - What M(nasops.encryption.zfs_encryption_info) returned.
    type: dict
    required: true
  expression:
    description:
      - An expression in JMESPath, see U(https://jmespath.org). Texts in it stand in single quotes, V(true), V(false),
        V(null) and numbers in backticks.
    type: str
  name:
    description:
      - Name of the dataset, or a list of names.
    type: raw
  below:
    description:
      - Only this dataset and all below it, or a list of such datasets.
    type: raw
  pool:
    description:
      - Name of its pool, or a list of names.
    type: raw
  type:
    description:
      - V(filesystem) or V(volume).
    type: raw
  cipher:
    description:
      - Its cipher, V(off) for none, or a list of ciphers.
    type: raw
  key_format:
    description:
      - Format of the key that opens it, V(hex), V(raw) or V(passphrase), or a list of formats.
    type: raw
  encryption_root:
    description:
      - The dataset whose key opens it, itself included.
    type: raw
  inherits_from:
    description:
      - The dataset whose key it uses, other than itself.
    type: raw
  is_root:
    description:
      - Whether it has a key of its own.
    type: bool
  encrypted:
    description:
      - Whether it is encrypted.
    type: bool
  below_encrypted:
    description:
      - Whether it is in plain text below an encrypted dataset.
    type: bool
  locked:
    description:
      - Whether its key is not loaded.
    type: bool
  mounted:
    description:
      - Whether it is mounted. It is V(null) for a volume.
    type: bool
  iterations_below_policy:
    description:
      - Whether its passphrase has less iterations than the task wanted.
    type: bool
  key_present:
    description:
      - Whether there is a key to try.
    type: bool
  valid_key:
    description:
      - Whether a key that was tried opens it. It is V(null) if that is not known.
    type: bool
  unlock_successful:
    description:
      - Whether an unlock with the keys that were tried would succeed. It is V(null) if none were tried.
    type: bool
seealso:
  - module: nasops.encryption.zfs_encryption_info
notes:
  - V(null) as a condition selects datasets that have no such value.
"""

EXAMPLES = r"""
- name: What is there
  nasops.encryption.zfs_encryption_info:
  register: encryption

- name: Names of the locked encryption roots
  ansible.builtin.debug:
    msg: "{{ encryption | nasops.encryption.encryption_query('roots[?locked].name') }}"
  # => ["tank/clients", "tank/media"]

- name: The same by conditions
  ansible.builtin.debug:
    msg: "{{ encryption | nasops.encryption.encryption_query('[].name', locked=true, is_root=true) }}"
  # => ["tank/clients", "tank/media"]

- name: Everything that opens with the key of tank/media
  ansible.builtin.debug:
    msg: "{{ encryption | nasops.encryption.encryption_query(inherits_from='tank/media') | map(attribute='name') }}"
  # => ["tank/media/audio", "tank/media/disk"]

- name: Locked datasets that need a passphrase, with the dataset to give it for
  ansible.builtin.debug:
    msg: >-
      {{ encryption | nasops.encryption.encryption_query('[].[name, encryption_root]',
                                                         locked=true, key_format='passphrase') }}
  # => [["tank/clients", "tank/clients"], ["tank/clients/a", "tank/clients"]]

- name: Filesystems that are unlocked, but not mounted
  ansible.builtin.debug:
    msg: "{{ encryption | nasops.encryption.encryption_query('[].name', locked=false, encrypted=true, mounted=false) }}"
  # => ["tank/spare"]

- name: Which pools hold something in plain text
  ansible.builtin.debug:
    msg: "{{ encryption | nasops.encryption.encryption_query('[].pool', encrypted=false) | unique }}"
  # => ["boot", "tank"]

- name: Passphrases below the policy, and how many other datasets use them
  ansible.builtin.debug:
    msg: >-
      {{ encryption | nasops.encryption.encryption_query(
           'roots[?iterations_below_policy].{root: name, iterations: iterations, others: length(children)}') }}
  # => [{"root": "tank/clients", "iterations": 350000, "others": 1}]

- name: Fail if something is stored in plain text below an encrypted dataset
  ansible.builtin.assert:
    that: encryption | nasops.encryption.encryption_query(below_encrypted=true, below='tank/media') | length == 0
  # => true
"""

RETURN = r"""
_value:
  description:
    - The rows of the selected datasets, or what the expression yields.
  type: raw
"""

import importlib
import typing as t

from ansible.errors import AnsibleFilterError

Row = dict[str, t.Any]

_TEXTS = ("name", "below", "pool", "type", "cipher", "key_format", "encryption_root", "inherits_from")
_FLAGS = (
    "is_root",
    "encrypted",
    "below_encrypted",
    "locked",
    "mounted",
    "iterations_below_policy",
    "key_present",
    "valid_key",
    "unlock_successful",
)
# What a dataset has from the root whose key opens it.
_OF_ROOT = (
    "key_format",
    "iterations",
    "iterations_below_policy",
    "key_present",
    "valid_key",
    "unlock_successful",
    "unlock_error",
)
_OWN = ("name", "type", "cipher", "mountpoint", "mounted", "locked")


def encryption_query(info: t.Any, expression: t.Any = None, **conditions: t.Any) -> t.Any:
    """The filter.

    :raises AnsibleFilterError: the input is no result of zfs_encryption_info, or the question makes no sense
    """
    if not isinstance(info, t.Mapping) or not isinstance(info.get("roots"), (list, tuple)):
        raise AnsibleFilterError(
            "The input is no result of nasops.encryption.zfs_encryption_info: it has no 'roots'. "
            "Was that task skipped, did it fail, or is the host not the one it ran on?"
        )
    facts: Row = _plain(info)
    rows = list(_table(facts))
    if conditions:
        rows = _select(rows, _plain(conditions))
    if expression is None:
        return rows
    return _search(expression, rows if conditions else {**facts, "datasets": rows})


def _table(facts: Row) -> list[Row]:
    """One row for each dataset."""
    rows: list[Row] = []
    for root in facts["roots"]:
        shared = {name: root.get(name) for name in _OF_ROOT}
        rows.append(_row(root, shared, root["name"]))
        rows += [_row(child, shared, root["name"]) for child in root.get("children", ())]
    none = {**dict.fromkeys(_OF_ROOT), "iterations_below_policy": False}
    rows += [_row(one, none, None) for one in facts.get("unencrypted", ())]
    return sorted(rows, key=lambda row: str(row["name"]))


def _row(dataset: Row, shared: Row, root: str | None) -> Row:
    own = dataset["name"]
    return {
        **{name: dataset.get(name) for name in _OWN},
        "pool": own.split("/")[0],
        "encrypted": root is not None,
        "encryption_root": root,
        "is_root": root == own,
        "inherits_from": None if root == own else root,
        "below_encrypted": dataset.get("below_encrypted", False),
        **shared,
    }


def _select(rows: list[Row], conditions: Row) -> list[Row]:
    for name, wanted in conditions.items():
        choices = wanted if isinstance(wanted, list) else [wanted]
        _check(name, choices)
        if name == "below":
            rows = [row for row in rows if any(f"{row['name']}/".startswith(f"{top}/") for top in choices)]
        else:
            rows = [row for row in rows if row[name] in choices]
    return rows


def _check(name: str, choices: list[t.Any]) -> None:
    if name not in (*_TEXTS, *_FLAGS):
        raise AnsibleFilterError(f"There is no condition '{name}'. There are {', '.join(sorted((*_TEXTS, *_FLAGS)))}.")
    good = str if name in _TEXTS else bool
    bad = [one for one in choices if one is not None and not isinstance(one, good)]
    if bad:
        kind = "a text" if name in _TEXTS else "true or false"
        raise AnsibleFilterError(f"The condition '{name}' is {kind}, not {bad[0]!r}.")


def _search(expression: t.Any, data: t.Any) -> t.Any:
    if not isinstance(expression, str):
        raise AnsibleFilterError(f"The expression is {expression!r}; a text in JMESPath is wanted.")
    try:
        jmespath = importlib.import_module("jmespath")
    except ImportError:
        raise AnsibleFilterError(
            "An expression needs the Python package 'jmespath' on the controller: "
            "pip install jmespath, or apt install python3-jmespath. Conditions such as locked=true work without it."
        ) from None
    try:
        return jmespath.search(str(expression), data)
    except jmespath.exceptions.JMESPathError as error:
        raise AnsibleFilterError(f"The expression '{expression}' is wrong: {error}") from None


def _plain(value: t.Any) -> t.Any:
    """The value in types of Python itself: JMESPath takes the texts and numbers of Ansible for something else."""
    if isinstance(value, t.Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    for kind in (str, float):
        if isinstance(value, kind):
            return kind(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"encryption_query": encryption_query}
