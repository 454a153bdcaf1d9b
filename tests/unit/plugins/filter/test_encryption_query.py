# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import re
import sys
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from jinja2.nativetypes import NativeEnvironment

from ansible_collections.nasops.encryption.plugins.filter import encryption_query as plugin
from ansible_collections.nasops.encryption.plugins.filter.encryption_query import FilterModule, encryption_query
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import Dataset
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.summary import summarize, unencrypted
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.unlock_preview import columns


class Text(str):
    """A text as Ansible has it: a type of its own."""


class Number(int):
    """A number as Ansible has it."""


def dataset(name: str, root: str = "", locked: bool = False, key_format: str = "hex", **values: str) -> Dataset:
    facts = {"type": "filesystem", "mountpoint": f"/{name}", "mounted": "no" if locked else "yes", "encryption": "off"}
    if root:
        facts.update(
            encryption="aes-256-gcm",
            encryptionroot=root,
            keystatus="unavailable" if locked else "available",
            keyformat=key_format,
            keylocation="prompt" if name == root else "none",
            pbkdf2iters="350000" if key_format == "passphrase" else "0",
        )
    return Dataset(name, {key: Property(value, "local") for key, value in {**facts, **values}.items()})


def info() -> dict[str, t.Any]:
    """What the module returns for a NAS with a bit of everything."""
    found = [
        dataset("boot"),
        dataset("tank", "tank"),
        dataset("tank/clients", "tank/clients", True, "passphrase"),
        dataset("tank/clients/a", "tank/clients", True, "passphrase"),
        dataset("tank/media", "tank/media", True),
        dataset("tank/media/audio", "tank/media", True),
        dataset("tank/media/disk", "tank/media", True, type="volume", mounted="-", mountpoint="-"),
        dataset("tank/mediation"),
        dataset("tank/spare", "tank", mounted="no"),
    ]
    datasets = {one.name: one for one in found}
    rows = summarize(datasets)
    for row in rows:
        row.update(columns(row["locked"], None, None, row["name"] == "tank"))
    return {"changed": False, "failed": False, "roots": rows, "unencrypted": unencrypted(datasets), "unused_keys": []}


def names(**conditions: t.Any) -> list[str]:
    return [row["name"] for row in encryption_query(info(), **conditions)]


class TestConditions:
    @pytest.mark.parametrize(
        "conditions,wanted",
        [
            ({"locked": True, "is_root": True}, ["tank/clients", "tank/media"]),
            ({"locked": True, "key_format": "passphrase"}, ["tank/clients", "tank/clients/a"]),
            ({"inherits_from": "tank"}, ["tank/spare"]),
            ({"inherits_from": ["tank", "tank/clients"]}, ["tank/clients/a", "tank/spare"]),
            ({"encryption_root": "tank"}, ["tank", "tank/spare"]),
            ({"encryption_root": None}, ["boot", "tank/mediation"]),
            ({"encrypted": False}, ["boot", "tank/mediation"]),
            ({"below_encrypted": True}, ["tank/mediation"]),
            ({"below": "tank/media"}, ["tank/media", "tank/media/audio", "tank/media/disk"]),
            ({"below": ["tank/media", "boot"], "encrypted": False}, ["boot"]),
            ({"type": "volume"}, ["tank/media/disk"]),
            ({"mounted": None}, ["tank/media/disk"]),
            ({"mounted": [None, False], "locked": False}, ["tank/spare"]),
            ({"pool": "boot"}, ["boot"]),
            ({"name": ["boot", "tank", "gone"]}, ["boot", "tank"]),
            ({"cipher": "off"}, ["boot", "tank/mediation"]),
            ({"key_present": True}, ["tank", "tank/spare"]),
            ({"iterations_below_policy": True}, ["tank/clients", "tank/clients/a"]),
            ({"unlock_successful": True}, ["tank", "tank/spare"]),
            ({"valid_key": True}, []),
            ({"name": []}, []),
        ],
    )
    def test_they_select_datasets(self, conditions: dict[str, t.Any], wanted: list[str]) -> None:
        assert names(**conditions) == wanted

    def test_without_any_question_all_datasets_come_in_one_table(self) -> None:
        rows = encryption_query(info())
        assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
        assert len(rows) == 9
        assert rows[6] == {
            "name": "tank/media/disk",
            "pool": "tank",
            "type": "volume",
            "cipher": "aes-256-gcm",
            "mountpoint": None,
            "mounted": None,
            "locked": True,
            "encrypted": True,
            "encryption_root": "tank/media",
            "is_root": False,
            "inherits_from": "tank/media",
            "below_encrypted": False,
            "key_format": "hex",
            "iterations": None,
            "iterations_below_policy": False,
            "key_present": False,
            "valid_key": None,
            "unlock_successful": None,
            "unlock_error": None,
        }

    def test_every_row_has_the_same_columns(self) -> None:
        assert len({tuple(sorted(row)) for row in encryption_query(info())}) == 1

    def test_a_condition_that_does_not_exist_is_told_with_those_that_do(self) -> None:
        with pytest.raises(
            AnsibleFilterError, match="no condition 'lockd'. There are .*key_format, key_present, locked"
        ):
            names(lockd=True)

    @pytest.mark.parametrize(
        "conditions", [{"locked": "true"}, {"locked": [True, 1]}, {"key_format": True}, {"below": 5}]
    )
    def test_a_condition_of_another_type_would_never_hold(self, conditions: dict[str, t.Any]) -> None:
        with pytest.raises(AnsibleFilterError, match="The condition '.*' is (a text|true or false), not "):
            names(**conditions)


class TestExpressions:
    def test_they_see_the_whole_result(self) -> None:
        assert encryption_query(info(), "roots[?locked].name") == ["tank/clients", "tank/media"]
        assert encryption_query(info(), "unencrypted[].name") == ["boot", "tank/mediation"]

    def test_they_see_the_table_of_datasets(self) -> None:
        assert encryption_query(info(), "datasets[?inherits_from=='tank'].name") == ["tank/spare"]

    def test_with_conditions_they_see_the_selected_rows(self) -> None:
        assert encryption_query(info(), "[].name", locked=True, type="volume") == ["tank/media/disk"]
        assert encryption_query(info(), "length(@)", locked=True) == 5

    def test_the_types_of_ansible_are_no_obstacle(self) -> None:
        data = {Text("roots"): [{Text("name"): Text("tank/a"), "iterations": Number(5), "children": ()}]}
        assert encryption_query(data, "roots[?contains(name, 'tank')].name") == ["tank/a"]
        assert encryption_query(data, Text("sum(roots[].iterations)")) == 5
        assert not isinstance(encryption_query(data, "roots[0].name"), Text)

    @pytest.mark.parametrize("expression", ["roots[?locked", "nonsense(@)", "length(`5`)", ""])
    def test_a_wrong_one_is_told(self, expression: str) -> None:
        with pytest.raises(AnsibleFilterError) as caught:
            encryption_query(info(), expression)
        assert f"The expression '{expression}' is wrong: " in str(caught.value)

    def test_something_else_than_a_text_is_told(self) -> None:
        with pytest.raises(AnsibleFilterError, match="a text in JMESPath is wanted"):
            encryption_query(info(), ["roots"])

    def test_without_the_package_one_is_told_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # None in sys.modules makes the import fail.
        monkeypatch.setitem(sys.modules, "jmespath", t.cast(t.Any, None))
        with pytest.raises(AnsibleFilterError, match="pip install jmespath, or apt install python3-jmespath"):
            encryption_query(info(), "roots")
        assert names(pool="boot") == ["boot"]


@pytest.mark.parametrize(
    "value", [None, "roots", [], {}, {"roots": "x"}, {"skipped": True}, {"msg": "no", "failed": True}]
)
def test_something_else_than_the_result_of_the_module_is_told(value: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match="no result of nasops.encryption.zfs_encryption_info"):
        encryption_query(value, "roots")


def test_an_older_result_without_the_newer_columns_is_fine() -> None:
    rows = encryption_query({"roots": [{"name": "tank"}]})
    assert (rows[0]["name"], rows[0]["is_root"], rows[0]["valid_key"]) == ("tank", True, None)


def examples() -> list[tuple[str, str, t.Any]]:
    """Title, expression and announced result of each example."""
    found: list[tuple[str, str, t.Any]] = []
    for part in re.split(r"(?m)^(?=- name: )", plugin.EXAMPLES.strip())[2:]:
        (task,) = yaml.safe_load(part)
        (announced,) = re.findall(r"(?m)^  # => (.*)$", part)
        debug = task.get("ansible.builtin.debug")
        text = debug["msg"] if debug else "{{ %s }}" % task["ansible.builtin.assert"]["that"]
        found.append((task["name"], text, json.loads(announced)))
    return found


@pytest.mark.parametrize("title,text,announced", examples())
def test_the_examples_give_what_they_say(title: str, text: str, announced: t.Any) -> None:
    environment = NativeEnvironment()
    for name, function in FilterModule().filters().items():
        environment.filters[f"nasops.encryption.{name}"] = function
    found = environment.from_string(text.strip()).render(encryption=info())
    assert (list(found) if isinstance(announced, list) else found) == announced, title


def test_all_examples_but_the_first_are_run() -> None:
    assert len(examples()) == plugin.EXAMPLES.count("- name: ") - 1 == 8


def test_every_condition_is_documented() -> None:
    documented = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    with pytest.raises(AnsibleFilterError) as caught:
        names(other=True)
    taken = str(caught.value).split("There are ")[1].rstrip(".").split(", ")
    assert sorted(documented) == sorted([*taken, "_input", "expression"])
