# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_options import (
    Replication,
    arguments,
    key_to_hide,
    parse,
)

HEX = "0f" * 32


def parsed(**given: t.Any) -> Replication:
    checked = ArgumentSpecValidator(arguments()).validate({"source": "tank", "target": "backup/tank", **given})
    assert checked.error_messages == []
    return parse(checked.validated_parameters, "20261127T010203Z")


def test_nothing_but_two_names_is_raw_and_strict() -> None:
    wanted = parsed(target_host="nas2")
    assert wanted.ssh is not None
    assert (wanted.mode, wanted.ssh.host_keys, wanted.force, wanted.keep) == ("raw", "strict", False, None)
    assert wanted.where == "'backup/tank' on 'nas2'"
    assert wanted.new_snapshot == "nasops-20261127T010203Z"


def test_which_snapshots_are_its_own() -> None:
    wanted = parsed()
    assert wanted.own("nasops-20261127T010203Z")
    for name in ("nasops-weekly", "x-20261127T010203Z", "nasops-20261127T010203Z-kept", "20261127T010203Z"):
        assert not wanted.own(name)


def test_a_key_is_for_hiding_and_not_shown() -> None:
    wanted = parsed(mode="reencrypt", key={"value": HEX})
    assert [one.material for one in key_to_hide(wanted)] == [HEX.encode()]
    assert HEX not in repr(wanted)


def test_properties_are_understood_by_their_type() -> None:
    wanted = parsed(properties={"readonly": False, "quota": "1G", "compression": None, "a:b": "x"})
    assert wanted.properties == {"readonly": "off", "quota": "1073741824", "compression": None, "a:b": "x"}


BAD: list[tuple[dict[str, t.Any], str]] = [
    ({"target": "backup"}, "the root of a pool.*'backup/tank'"),
    ({"target": "tank/copy"}, "one lies in the other"),
    ({"source": "tank/a", "target": "tank/a"}, "are the same"),
    ({"source": "backup/tank/a"}, "one lies in the other"),
    ({"source": "tank@a"}, "names a snapshot or bookmark"),
    ({"ssh": {"port": 22}}, "target_host is not"),
    ({"target_host": "-oProxyCommand=x"}, "no name of a host"),
    ({"target_host": "root@nas"}, "the user is an option of its own"),
    ({"target_host": "nas", "ssh": {"user": "-l"}}, "no name of a user"),
    ({"key": {"value": HEX}}, "opened by the key of its source"),
    ({"mode": "plaintext", "cipher": "on"}, "nothing is encrypted"),
    ({"mode": "reencrypt", "cipher": "on"}, "cipher is set without a key"),
    ({"mode": "reencrypt", "key": {"format": "raw", "value": "A" * 43 + "="}}, "whose standard input is the stream"),
    ({"mode": "reencrypt", "key": {"generate": True}}, "would exist nowhere"),
    ({"mode": "reencrypt", "key": {"value": HEX[1:]}}, "63 characters"),
    ({"exclude": ["tank/a"], "recursive": False}, "nothing below the source is sent anyway"),
    ({"exclude": ["tank"]}, "does not lie below the source"),
    ({"exclude": ["other/a"]}, "does not lie below the source"),
    ({"snapshot": "a", "keep": 2}, "keep is set together with snapshot"),
    ({"snapshot": "tank@a"}, "what stands behind the @"),
    ({"keep": 0}, "at least 1"),
    ({"stall_timeout": -1}, "seconds, or 0 for none"),
    ({"snapshot_prefix": ""}, "no name of a snapshot can begin"),
    ({"snapshot_prefix": "a@"}, "no name of a snapshot can begin"),
    ({"properties": {"encryption": "off"}}, "follows from mode"),
    ({"properties": {"keylocation": "prompt"}}, "follows from mode"),
    ({"properties": {"volsize": "1G"}}, "comes with the data"),
    ({"properties": {"a": []}}, "no name and value"),
]


@pytest.mark.parametrize(("given", "match"), BAD)
def test_what_can_not_be_right_is_refused(given: dict[str, t.Any], match: str) -> None:
    with pytest.raises(BadInput, match=match) as caught:
        parsed(**given)
    assert HEX[1:] not in str(caught.value)


def test_the_same_names_on_another_host_are_two_things() -> None:
    assert parsed(source="tank/a", target="tank/a", target_host="nas2").ssh is not None
