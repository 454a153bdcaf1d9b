# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Datasets below the target that have keys of their own, by streams and by rsync."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.nasops.encryption.plugins.module_utils.migration.options import (
    Migration,
    arguments,
    keys_to_hide,
    parse,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.plan import plan_migration, reached
from ansible_collections.nasops.encryption.plugins.module_utils.migration.result import describe_migration
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_option import WantedKey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keystore import KeyFile

from .model import LATER, Case, case, wants

DOCS = WantedKey("passphrase", Key("passphrase", b"a long passphrase"))
VOL = WantedKey("hex", Key("hex", b"a1" * 32))
FILE = WantedKey("hex", None, "/etc/zfs/keys/vol.key", True)


def wish(state: str, streams: bool, keys: t.Mapping[str, WantedKey], **facts: t.Any) -> Migration:
    return wants(state, streams=streams, keys=keys, **facts)


def refused(place: Case, match: str, keys: t.Mapping[str, WantedKey], streams: bool = True, **facts: t.Any) -> None:
    with pytest.raises(Refused, match=match):
        place.plan(wish("synced", streams, keys, **facts))


@pytest.mark.parametrize("streams", [True, False])
class TestBoth:
    def test_they_become_roots_of_their_own(self, streams: bool) -> None:
        place = case(True)
        keys = {"old/docs": DOCS, "old/vol": VOL}
        place.place.source.nodes["old/copy"].origin = ""
        place.run(wish("verified", streams, keys))
        nodes = place.place.target.nodes
        assert {name: nodes[name].key for name in ("new/old", "new/old/copy", "new/old/docs", "new/old/vol")} == {
            "new/old": "new",
            "new/old/copy": "new",
            "new/old/docs": "new/old/docs",
            "new/old/vol": "new/old/vol",
        }
        assert (nodes["new/old/docs"].keyformat, nodes["new/old/docs"].location) == ("passphrase", "prompt")
        assert reached(wish("verified", streams, keys), place.found(wish("verified", streams, keys))) == "verified"
        assert not place.run(wish("verified", streams, keys, stamp=LATER)).changed

    def test_each_key_is_proven(self, streams: bool) -> None:
        place = case(True)
        place.run(wish("verified", streams, {"old/docs": DOCS, "old/vol": VOL}))
        assert [(one.root, one.snapshot.split("@")[0]) for one in place.proofs] == [
            ("new", "new/old"),
            ("new/old/docs", "new/old/docs"),
            ("new/old/vol", "new/old/vol"),
        ]
        assert [one.proof.key for one in place.proofs] == [None, DOCS.value, VOL.value]

    def test_all_of_them_are_worth_a_backup(self, streams: bool) -> None:
        place = case(True)
        place.run(wish("synced", streams, {"old/docs": DOCS}))
        wanted = wish("synced", streams, {"old/docs": DOCS})
        manifest = describe_migration(wanted, place.found(wanted))["manifest"]
        assert [(one["name"], one["keyformat"], one["keylocation"]) for one in manifest] == [
            ("new", "hex", place.location),
            ("new/old/docs", "passphrase", "prompt"),
        ]

    def test_a_key_file_is_written_before(self, streams: bool) -> None:
        place = case(True)
        wanted = wish("synced", streams, {"old/vol": FILE})
        found = place.found(wanted)
        target = replace(found.ends.target, key_files={"old/vol": KeyFile("/etc/zfs/keys/vol.key", False)})
        plan = plan_migration(wanted, replace(found, ends=replace(found.ends, target=target)))
        words = "Write the new random hex key of 'new/old/vol' to /etc/zfs/keys/vol.key"
        uses = next(place for place, one in enumerate(plan.actions) if "'new/old/vol'" in one and one != words)
        assert plan.actions.index(words) < uses

    def test_a_key_file_that_is_missing(self, streams: bool) -> None:
        place = case(True)
        key = WantedKey("hex", None, "/etc/zfs/keys/vol.key")
        found = place.found(wish("synced", streams, {"old/vol": key}))
        target = replace(found.ends.target, key_files={"old/vol": KeyFile("/etc/zfs/keys/vol.key", False)})
        with pytest.raises(Refused, match="The key file /etc/zfs/keys/vol.key on this host does not exist"):
            plan_migration(
                wish("synced", streams, {"old/vol": key}), replace(found, ends=replace(found.ends, target=target))
            )

    def test_no_key_on_the_host_below_a_passphrase(self, streams: bool) -> None:
        passphrase = WantedKey("passphrase", Key("passphrase", b"another passphrase"))
        words = "'new/old/vol' would have a hex key below 'new/old', which is opened by a passphrase"
        refused(case(), words, {"old/vol": VOL}, streams, key=passphrase)
        place = case()
        place.place.target.nodes["new"].keyformat = "passphrase"
        refused(place, "a hex key below 'new', which is opened by a passphrase", {"old/vol": VOL}, streams)
        place.run(wish("synced", streams, {"old/docs": DOCS}))

    def test_what_is_there_keeps_its_root(self, streams: bool) -> None:
        place = case(True)
        place.run(wish("synced", streams, {}))
        refused(place, "'new/old/docs' has another encryption root, 'new'", {"old/docs": DOCS}, streams)

    def test_nothing_that_is_not_migrated(self, streams: bool) -> None:
        refused(case(), "not among what is sent: 'old/gone'", {"old/gone": DOCS}, streams)


def test_a_clone_has_the_key_of_its_origin() -> None:
    refused(case(), "A clone is opened by the key of what it was made of.*'old/copy'", {"old/copy": DOCS})
    # rsync makes whole copies of them.
    place = case()
    place.run(wish("synced", False, {"old/copy": DOCS}))
    assert place.place.target.nodes["new/old/copy"].key == "new/old/copy"


def test_a_key_that_is_handed_over_is_asked_for_from_then_on() -> None:
    plan = case().plan(wish("synced", True, {"old/docs": DOCS}))
    assert "Set keylocation=prompt on 'new/old/docs'" in plan.actions


class TestOptions:
    def parsed(self, *keys: t.Mapping[str, t.Any]) -> Migration:
        given = {"source": "old", "target": "new/old", "dataset_keys": list(keys)}
        checked = ArgumentSpecValidator(arguments()).validate(given)
        assert checked.error_messages == []
        return parse(checked.validated_parameters, "20261127T010203Z", "beef")

    def test_they_are_understood_and_hidden(self) -> None:
        wanted = self.parsed(
            {"name": "old/docs", "value": "a1" * 32}, {"name": "old/a b", "file": "auto", "generate": True}
        )
        assert wanted.replication.keys["old/docs"].value == Key("hex", b"a1" * 32)
        # After the dataset at the target, which is what the key opens.
        assert wanted.replication.keys["old/a b"].file == "/etc/zfs/keys/new%2Fold%2Fa%20b.key"
        assert list(keys_to_hide(wanted)) == [Key("hex", b"a1" * 32)]

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ([{"name": "old", "file": "auto"}], "'old', which does not lie below the source"),
            ([{"name": "older/x", "file": "auto"}], "'older/x', which does not lie below the source"),
            ([{"name": "old/x", "file": "auto"}, {"name": "old/x", "file": "/k"}], "names 'old/x' twice"),
            ([{"name": "old/x"}], "has neither a value nor a file"),
            ([{"name": "old/x", "format": "raw", "value": "YWFh" * 10 + "YWE="}], "raw key of 'old/x' has no file"),
        ],
    )
    def test_what_can_not_be_meant(self, keys: list[dict[str, t.Any]], message: str) -> None:
        with pytest.raises(BadInput, match=message):
            self.parsed(*keys)
