# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput
from ansible_collections.nasops.encryption.plugins.module_utils.migration.options import (
    Migration,
    arguments,
    keys_to_hide,
    parse,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.read import adapted

HEX = "0f" * 32


def parsed(**given: t.Any) -> Migration:
    checked = ArgumentSpecValidator(arguments()).validate({"source": "old", "target": "new/old", **given})
    assert checked.error_messages == []
    return parse(checked.validated_parameters, "20261127T010203Z", "beef")


def test_nothing_but_two_names_only_looks() -> None:
    wanted = parsed()
    assert wanted.state == "planned"
    assert wanted.verify == "checksums"
    assert wanted.again == ""
    assert parsed(verify_again=True).again == "beef"
    assert wanted.replication.migration
    assert wanted.replication.mode == "reencrypt"
    assert wanted.replication.new_snapshot == "migrate-20261127T010203Z"
    assert not wanted.replication.force
    assert not wanted.allow_degraded


def test_how_far_a_state_goes() -> None:
    assert [parsed(state="verified").reaches(one) for one in ("planned", "synced", "verified", "finalized")] == [
        True,
        True,
        True,
        False,
    ]


def test_a_read_only_pool_takes_no_snapshots() -> None:
    assert adapted(parsed().replication, True).heads
    assert not adapted(parsed().replication, False).heads
    assert not adapted(parsed(snapshot="monday").replication, True).heads


def test_volumes_get_no_nodes_unless_that_is_asked_for() -> None:
    assert adapted(parsed().replication, False).properties == {"volmode": "none"}
    assert adapted(parsed(properties={"volmode": "dev"}).replication, False).properties == {"volmode": "dev"}


def test_both_keys_are_hidden() -> None:
    passphrase = {"format": "passphrase", "value": "correct horse"}
    wanted = parsed(key={"value": HEX}, proof_key=passphrase)
    assert [one.format for one in keys_to_hide(wanted)] == ["hex", "passphrase"]
    assert HEX not in repr(wanted)
    assert "correct horse" not in repr(wanted)


BAD: list[tuple[dict[str, t.Any], str]] = [
    ({"target": "new"}, "root of a pool"),
    ({"target": "old/copy"}, "lies in the other"),
    ({"cipher": "on"}, "cipher is set without a key"),
    ({"key": {"format": "raw", "value": "QUFB" * 11}}, "raw"),
    ({"exclude": ["elsewhere/a"]}, "does not lie below the source"),
    ({"include": ["older/a"]}, "'older/a' in include does not lie below the source"),
    ({"include": []}, "include is an empty list, which would be nothing"),
    ({"include": ["old"]}, "'old' in include does not lie below the source"),
    ({"include": ["old/a"], "recursive": False}, "include is set, but recursive is false"),
    ({"include": ["old/a/b"], "exclude": ["old/a"]}, "'old/a/b' is in include, and exclude leaves it out"),
    ({"proof_key": {"generate": True, "file": "auto"}}, "a new key opens nothing"),
    ({"proof_key": {"value": HEX, "file": "/k"}}, "only be one of both"),
    ({"proof_key": {"format": "passphrase", "value": "long enough", "iterations": 100000}}, "that is kept counts"),
    ({"proof_key": {"value": HEX[1:]}}, "63 characters"),
    ({"proof_key": {}}, "neither a value nor a file"),
    ({"ssh": {"user": "me"}}, "target_host is not"),
    ({"snapshot": "a/b"}, "no name of a snapshot"),
    ({"stall_timeout": -1}, "wanted are seconds"),
]


@pytest.mark.parametrize(("given", "match"), BAD)
def test_what_can_not_be_right_is_refused(given: dict[str, t.Any], match: str) -> None:
    with pytest.raises(BadInput, match=match) as caught:
        parsed(**given)
    assert HEX[1:] not in str(caught.value)


class TestRsync:
    def test_streams_are_what_is_sent_unless_it_is_asked_for(self) -> None:
        assert parsed().replication.streams
        wanted = parsed(method="rsync")
        assert not wanted.replication.streams
        assert wanted.verify == "checksums"
        # More is read then: what can't be set later.
        assert "casesensitivity" in adapted(wanted.replication, False).also_read
        assert "casesensitivity" not in adapted(parsed().replication, False).also_read

    def test_the_target_may_be_on_another_host(self) -> None:
        ssh = parsed(method="rsync", target_host="nas2", ssh={"user": "me"}).replication.ssh
        assert ssh is not None
        assert (ssh.host, ssh.user) == ("nas2", "me")

    def test_no_guid_says_that_it_is_the_same(self) -> None:
        with pytest.raises(BadInput, match="verify is 'streams', but method is 'rsync'"):
            parsed(method="rsync", verify="streams")

    def test_what_is_left_out(self) -> None:
        wanted = parsed(method="rsync", exclude_files={"old/docs": ["b/c", "a", "a"], "old": []})
        assert wanted.skip == {"old/docs": ("a", "b/c")}
        assert wanted.skipped("old/docs") == ("a", "b/c")
        assert wanted.skipped("old") == ()

    @pytest.mark.parametrize("path", ["/a", "a/", "", ".", "..", "../a", "a/../b", "a//b", "./a"])
    def test_paths_that_are_none(self, path: str) -> None:
        with pytest.raises(BadInput, match="wanted is a path from the root of that dataset"):
            parsed(method="rsync", exclude_files={"old/docs": [path]})

    @pytest.mark.parametrize("given", ["a", [7], {"a": "b"}])
    def test_something_that_is_no_list_of_paths(self, given: t.Any) -> None:
        with pytest.raises(BadInput, match="is no list of paths"):
            parsed(method="rsync", exclude_files={"old/docs": given})

    def test_datasets_that_are_not_migrated(self) -> None:
        with pytest.raises(BadInput, match="'older/docs', which does not lie in the source 'old'"):
            parsed(method="rsync", exclude_files={"older/docs": ["a"]})

    def test_streams_leave_nothing_out(self) -> None:
        with pytest.raises(BadInput, match="exclude_files is set, but method is 'zfs_send'"):
            parsed(exclude_files={"old/docs": ["a"]})
