# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent and what is refused, on ends that obey ZFS's rules."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Plan
from ansible_collections.nasops.encryption.plugins.module_utils.remote import Ssh
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.key_option import WantedKey
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keystore import KeyFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_guard import StillEncrypted
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_options import Replication
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_plan import plan_replication
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_result import describe_ends
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import KEY_FD, AtTarget, Transfer
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_state import Token

from ..recorded import RecordedRunner, answer
from .replicate_model import NEW, OLD, STAMP, Host, World, wish, world

HEX = Key("hex", b"a1" * 32)


def later(**facts: t.Any) -> Replication:
    """The same wish a day later."""
    return wish(**{"stamp": "20261128T010203Z", **facts})


def sends(plan: Plan) -> list[str]:
    return [" ".join(step.action.send.argv) for step in plan.steps if isinstance(step.action, Transfer)]


def receives(plan: Plan) -> list[str]:
    return [" ".join(step.action.receive.argv) for step in plan.steps if isinstance(step.action, Transfer)]


def refused(place: World, wanted: Replication, match: str, **facts: t.Any) -> None:
    with pytest.raises(Refused, match=match):
        plan_replication(wanted, place.ends(wanted, **facts))


def unlock(place: World) -> World:
    for node in (*place.source.nodes.values(), *place.target.nodes.values()):
        node.locked = False
    return place


class TestRaw:
    def test_a_tree_goes_in_one_stream_that_brings_its_keys_along(self) -> None:
        place = world()
        plan = place.run(wish())
        assert plan.actions == [
            "Take a snapshot of 'tank' and 3 below it",
            "Send 'tank' and 3 below it up to a new snapshot to 'backup/tank', still encrypted",
            "Set keylocation=prompt on 'backup/tank'",
        ]
        assert sends(plan) == [f"zfs send -v -P -w -R tank@{NEW}"]
        assert receives(plan) == ["zfs receive -s -u -o readonly=on -x mountpoint backup/tank"]
        nodes = place.target.nodes
        assert [nodes[f"backup/{one}"].key for one in ("tank", "tank/docs", "tank/media", "tank/media/vol")] == [
            "backup/tank",
            "backup/tank",
            "backup/tank/media",
            "backup/tank/media",
        ]
        assert nodes["backup/tank"].location == "prompt"

    def test_nothing_new_is_nothing_to_do(self) -> None:
        place = world()
        place.run(wish())
        plan = place.run(later())
        assert plan.steps == ()
        assert plan.warnings == ()

    def test_something_new_is_an_increment(self) -> None:
        place = world()
        place.run(wish())
        place.source.nodes["tank/docs"].written = 5
        plan = place.run(later())
        assert sends(plan) == [f"zfs send -v -P -w -R -I @{NEW} tank@nasops-20261128T010203Z"]
        assert plan.diff()["after"]["replicas"]["backup/tank/docs"] == "a new snapshot"
        assert plan.diff()["before"]["replicas"]["backup/tank/docs"] == f"@{NEW}"

    def test_a_snapshot_taken_by_others_is_something_new(self) -> None:
        place = world()
        place.run(wish())
        place.source.snapshot(["tank/docs"], "by-hand")
        assert place.run(later()).changed

    def test_always_means_always(self) -> None:
        place = world()
        place.run(wish())
        assert place.run(later(snapshot_when="always")).changed

    def test_a_locked_source_is_fine(self) -> None:
        place = world()
        for node in place.source.nodes.values():
            node.locked = True
        assert place.run(wish()).changed

    def test_a_new_child_comes_with_the_next_increment(self) -> None:
        place = world()
        place.run(wish())
        place.source.add("tank/new", key="tank", written=1)
        place.run(later())
        assert place.target.nodes["backup/tank/new"].key == "backup/tank"

    def test_a_child_of_the_same_key_sent_alone_is_told_to_be_a_root(self) -> None:
        place = world()
        plan = place.run(wish(source="tank/docs", target="backup/docs", recursive=False))
        (warning,) = plan.warnings
        assert warning == (
            "These become encryption roots of their own, each opened by the key of its source's root: 'backup/docs'. "
            "'roots' in the result names the keys."
        )
        assert sends(plan) == [f"zfs send -v -P -w -p tank/docs@{NEW}"]
        wanted = wish(source="tank/docs", target="backup/docs", recursive=False)
        assert describe_ends(wanted, place.ends(wanted))["roots"] == [
            {"name": "backup/docs", "opened_by": "tank", "keyformat": "hex", "extra": True}
        ]

    def test_so_is_the_top_of_a_tree_below_a_root(self) -> None:
        plan = world().run(wish(source="tank/docs", target="backup/docs"))
        assert "'backup/docs'. 'roots' in the result" in plan.warnings[0]

    def test_without_properties_each_goes_alone_and_is_a_root(self) -> None:
        place = world()
        plan = place.run(wish(send_properties=False))
        assert sends(plan)[0] == f"zfs send -v -P -w tank@{NEW}"
        assert len(sends(plan)) == 4
        assert "'backup/tank/docs', 'backup/tank/media/vol'" in plan.warnings[0]
        assert not place.run(later(send_properties=False)).changed

    def test_what_is_excluded_stays_here(self) -> None:
        place = world()
        plan = place.run(wish(exclude=("tank/media",)))
        assert sends(plan) == [f"zfs send -v -P -w -R -s -X tank/media tank@{NEW}"]
        assert "backup/tank/media" not in place.target.nodes
        assert place.source.nodes["tank/media"].snapshots == []
        assert not place.run(later(exclude=("tank/media",))).changed

    def test_a_zfs_that_cannot_exclude_gets_streams_of_single_datasets(self) -> None:
        place = world()
        wanted = wish(exclude=("tank/media",))
        ends = place.ends(wanted)
        ends = dataclasses.replace(ends, source=dataclasses.replace(ends.source, can_exclude=False))
        assert sends(plan_replication(wanted, ends)) == [
            f"zfs send -v -P -w -p tank@{NEW}",
            f"zfs send -v -P -w -p tank/docs@{NEW}",
        ]

    def test_a_history_is_sent_from_its_beginning(self) -> None:
        place = world()
        for name in ("a", "b"):
            place.source.snapshot(place.source.nodes, name)
        plan = place.run(wish(recursive=False, snapshot="b"))
        assert sends(plan) == ["zfs send -v -P -w -p tank@a", "zfs send -v -P -w -p -I @a tank@b"]

    def test_an_unencrypted_dataset_is_refused(self) -> None:
        place = world()
        place.source.add("tank/plain")
        refused(place, wish(), "not encrypted: 'tank/plain'.*mode: reencrypt")
        assert place.run(wish(exclude=("tank/plain",))).changed

    def test_the_key_of_the_target_side_is_no_obstacle(self) -> None:
        place = world()
        place.target.nodes["backup/vault"].locked = True
        place.run(wish(target="backup/vault/tank"))
        assert place.target.nodes["backup/vault/tank"].key == "backup/vault/tank"


class TestKeyChanges:
    def test_a_new_passphrase_is_something_new_and_told(self) -> None:
        place = world()
        place.run(wish())
        place.source.nodes["tank/media"].salt = "8"
        place.source.nodes["tank/media"].wrapped = "k3"
        plan = place.run(later())
        assert plan.warnings[0].startswith("The key of 'tank/media' was changed since the last increment.")
        assert place.target.nodes["backup/tank/media"].wrapped == "k3"
        assert all(place.opens(name) for name in place.target.below("backup/tank"))

    def test_a_child_that_gets_or_loses_a_key_of_its_own(self) -> None:
        place = world()
        place.run(wish())
        place.source.nodes["tank/docs"].key = "tank/docs"
        place.source.nodes["tank/docs"].wrapped = "k4"
        place.run(later())
        assert place.target.nodes["backup/tank/docs"].key == "backup/tank/docs"
        place.source.nodes["tank/docs"].key = "tank"
        place.run(later(stamp="20261129T010203Z"))
        assert place.target.nodes["backup/tank/docs"].key == "backup/tank"
        assert all(place.opens(name) for name in place.target.below("backup/tank"))

    def test_a_child_that_got_a_key_of_its_own_is_not_sent_alone(self) -> None:
        place = world()
        place.run(wish())
        node = place.source.nodes["tank/docs"]
        node.key, node.wrapped, node.written = "tank/docs", "k4", 1
        refused(
            place,
            later(send_properties=False),
            "'tank/docs' has a key of its own, and 'backup/tank/docs' uses that of 'backup/tank'.*whole tree",
        )
        place.run(later())
        assert all(place.opens(name) for name in place.target.below("backup/tank"))
        node.written = 1
        assert place.run(wish(stamp="20261129T010203Z", send_properties=False)).changed, "now it is a root"
        assert all(place.opens(name) for name in place.target.below("backup/tank"))

    def test_nor_is_the_rest_of_its_stream_gone_on_with_alone(self) -> None:
        place = world()
        place.run(wish())
        node = place.source.nodes["tank/docs"]
        node.key, node.wrapped = "tank/docs", "k4"
        place.source.snapshot(place.source.nodes, "more")
        place.target.nodes["backup/tank/docs"].token = node.snapshots[-1].guid
        refused(place, later(send_properties=False, snapshot="more"), "'tank/docs' has a key of its own")
        assert place.run(later()).changed
        assert all(place.opens(name) for name in place.target.below("backup/tank"))

    def test_a_replica_that_was_made_to_inherit_is_refused(self) -> None:
        place = world()
        place.run(wish(target="backup/vault/tank"))
        place.target.nodes["backup/vault/tank"].key = "backup/vault"
        place.source.nodes["tank"].written = 1
        refused(place, later(target="backup/vault/tank"), "uses the key of 'backup/vault'.*12614")

    def test_a_keylocation_of_the_replica_itself_is_kept(self) -> None:
        place = world()
        place.run(wish())
        place.target.nodes["backup/tank"].location = "file:///root/replica.key"
        place.source.nodes["tank"].written = 1
        plan = place.run(later())
        assert plan.actions[-1] == "Set keylocation=file:///root/replica.key on 'backup/tank'"
        assert place.target.nodes["backup/tank"].location == "file:///root/replica.key"
        assert not place.run(later(stamp="20261129T010203Z")).changed

    def test_the_place_of_the_key_at_the_source_is_taken_back_after_a_crash(self) -> None:
        place = world()
        place.run(wish(), steps=2)
        assert place.target.nodes["backup/tank"].location == "file:///etc/zfs/keys/tank.key"
        assert place.run(later()).actions == ["Set keylocation=prompt on 'backup/tank'"]


class TestReencrypt:
    def test_under_the_key_of_what_is_above(self) -> None:
        place = world()
        wanted = wish(target="backup/vault/tank", mode="reencrypt", send_properties=False)
        plan = place.run(wanted)
        assert len(sends(plan)) == 4
        assert sends(plan)[0] == f"zfs send -v -P -L -c tank@{NEW}"
        assert receives(plan)[0] == ("zfs receive -s -u -o readonly=on -x mountpoint -x encryption backup/vault/tank")
        assert receives(plan)[3] == "zfs receive -s -u -x readonly -x encryption backup/vault/tank/media/vol"
        assert {node.key for name, node in place.target.nodes.items() if "tank" in name} == {"backup/vault"}
        assert not place.run(later(target="backup/vault/tank", mode="reencrypt", send_properties=False)).changed

    def test_an_unencrypted_source_never_lands_in_the_clear(self) -> None:
        place = world()
        place.source.nodes = {"tank": place.source.nodes["tank"]}
        place.source.nodes["tank"].key = ""
        plan = place.run(wish(target="backup/vault/tank", mode="reencrypt"))
        assert "-x encryption" in receives(plan)[0]
        assert place.target.nodes["backup/vault/tank"].key == "backup/vault"

    def test_under_a_key_of_its_own_from_a_file(self) -> None:
        place = world()
        key = WantedKey("hex", None, "/etc/zfs/keys/b.key", True)
        wanted = wish(mode="reencrypt", key=key)
        plan = place.run(wanted, key_files={"tank": KeyFile("/etc/zfs/keys/b.key", False)})
        assert plan.actions[:2] == [
            "Take a snapshot of 'tank' and 3 below it",
            "Write the new random hex key of 'backup/tank' to /etc/zfs/keys/b.key",
        ]
        assert receives(plan)[0].endswith(
            "-o encryption=on -o keyformat=hex -o keylocation=file:///etc/zfs/keys/b.key backup/tank"
        )
        assert receives(plan)[1].endswith("-x encryption backup/tank/docs")
        assert {node.key for name, node in place.target.nodes.items() if "tank" in name} == {"backup/tank"}

    def test_under_a_key_that_is_kept_nowhere(self) -> None:
        place = world()
        plan = place.run(wish(mode="reencrypt", key=WantedKey("hex", HEX)))
        first = next(step.action for step in plan.steps if isinstance(step.action, Transfer))
        assert first.key == HEX
        assert f"keylocation={KEY_FD}" in first.receive.argv
        assert HEX.material.decode() not in repr(plan)
        assert plan.actions[-1] == "Set keylocation=prompt on 'backup/tank'"
        assert place.target.nodes["backup/tank"].location == "prompt"

    def test_the_place_of_a_key_that_was_handed_over_is_corrected_after_a_crash(self) -> None:
        place = world()
        wanted = wish(mode="reencrypt", key=WantedKey("hex", HEX))
        place.run(wanted, steps=5)
        assert place.target.nodes["backup/tank"].location == KEY_FD
        assert place.run(later(mode="reencrypt", key=WantedKey("hex", HEX))).actions[-1] == (
            "Set keylocation=prompt on 'backup/tank'"
        )

    def test_settings_of_the_source_are_carried_over(self) -> None:
        place = world()
        place.source.nodes["tank/docs"].own = {"compression": "zstd", "quota": "0", "readonly": "off"}
        plan = place.run(wish(target="backup/vault/tank", mode="reencrypt", properties={"compression": "lz4"}))
        assert "-o compression=lz4" in receives(plan)[0]
        assert "-x compression -x mountpoint -o quota=none" in receives(plan)[1]

    def test_what_has_to_be_unlocked(self) -> None:
        place = world()
        place.source.nodes["tank/media"].locked = True
        refused(
            place, wish(mode="reencrypt", target="backup/vault/t"), "locked: 'tank/media', 'tank/media/vol'.*mode: raw"
        )
        place = world()
        place.target.nodes["backup/vault"].locked = True
        refused(place, wish(mode="reencrypt", target="backup/vault/t"), "key of 'backup/vault', which is locked")
        refused(place, wish(mode="reencrypt"), "uses that of 'backup', which is not encrypted")

    def test_a_replica_that_is_locked_can_take_no_increment(self) -> None:
        place = world()
        place.run(wish(mode="reencrypt", key=WantedKey("hex", HEX)))
        place.target.nodes["backup/tank"].locked = True
        refused(place, later(mode="reencrypt", key=WantedKey("hex", HEX)), "'backup/tank' is locked")

    @pytest.mark.parametrize(
        ("file", "key", "match"),
        [
            (KeyFile("/k", False), WantedKey("hex", None, "/k"), "does not exist"),
            (
                KeyFile("/k", False, memory="tmpfs"),
                WantedKey("hex", None, "/k", generate=True),
                "key of 'backup/tank' would exist in /k on this host only. That is in memory",
            ),
            (
                KeyFile("/backup/tank/k", False),
                WantedKey("hex", HEX, "/backup/tank/k"),
                "would lie below /backup/tank, where the replica itself",
            ),
            (KeyFile("/k", True, fault="it is a poem"), WantedKey("hex", None, "/k"), "can't be used: it is a poem"),
            (KeyFile("/k", True, Key("hex", b"b2" * 32)), WantedKey("hex", HEX, "/k"), "holds another key"),
        ],
    )
    def test_a_key_file_that_can_not_be_used(self, file: KeyFile, key: WantedKey, match: str) -> None:
        refused(world(), wish(mode="reencrypt", key=key), match, key_files={"tank": file})

    def test_a_given_key_may_be_in_memory(self) -> None:
        key = WantedKey("hex", HEX, "/k")
        wanted = wish(mode="reencrypt", key=key)
        files = {"tank": KeyFile("/k", False, memory="tmpfs")}
        actions = plan_replication(wanted, world().ends(wanted, key_files=files)).actions
        assert "Write the given hex key of 'backup/tank' to /k" in actions


class TestPlaintext:
    def test_it_lies_in_the_clear_and_says_so(self) -> None:
        place = world()
        plan = place.run(wish(mode="plaintext"))
        assert "IN THE CLEAR" in plan.actions[1]
        assert {node.key for name, node in place.target.nodes.items() if "tank" in name} == {""}

    def test_not_inside_of_something_encrypted(self) -> None:
        refused(world(), wish(mode="plaintext", target="backup/vault/t"), "in the clear inside 'backup/vault'")


class TestWhatIsThere:
    def test_something_else_is_never_overwritten(self) -> None:
        place = world()
        place.target.add("backup/tank", key="backup/tank")
        refused(place, wish(), "no replica of 'tank': it has no snapshots")
        place.target.snapshot(["backup/tank"], "mine")
        for force in (False, True):
            refused(place, wish(force=force), "no snapshot in common")

    def test_a_replica_with_snapshots_of_its_own(self) -> None:
        place = world()
        place.run(wish())
        place.target.snapshot(["backup/tank/docs"], "mine")
        place.source.nodes["tank"].written = 1
        refused(place, later(), f"has snapshots of its own .@mine. since @{NEW}.*force: true")
        plan = place.run(later(force=True))
        assert plan.actions[0].startswith(f"Roll 'backup/tank/docs' back to @{NEW}")
        assert plan.diff()["before"]["snapshots"]["backup/tank/docs@mine"] == "there"

    def test_a_replica_that_was_written_to(self) -> None:
        place = world()
        place.run(wish())
        place.target.nodes["backup/tank"].written = 512
        refused(place, later(), "'backup/tank' was written to")
        assert place.run(later(force=True)).actions[0].startswith("Roll 'backup/tank' back")

    def test_raw_and_other_streams_are_not_mixed(self) -> None:
        place = world()
        place.run(wish(mode="reencrypt", target="backup/vault/tank"))
        # as if it had been made an encryption root since
        for name in place.target.below("backup/vault/tank"):
            place.target.nodes[name].key = "backup/vault/tank"
        refused(place, later(target="backup/vault/tank"), "received decrypted.*mode: reencrypt")
        place = world()
        place.run(wish())
        unlock(place)
        key = WantedKey("hex", HEX)
        for name in place.target.below("backup/tank"):
            place.target.nodes[name].key = "backup/tank"
        refused(place, later(mode="reencrypt", key=key), "is a raw replica")

    def test_what_is_not_as_promised_is_named(self) -> None:
        place = world()
        place.run(wish())
        place.target.nodes["backup/tank/docs"].key = ""
        refused(place, later(), "'backup/tank/docs' is NOT ENCRYPTED")
        place = world()
        place.run(wish(mode="plaintext"))
        place.target.nodes["backup/tank/docs"].key = "backup/tank/docs"
        refused(place, later(mode="plaintext"), "'backup/tank/docs' is encrypted")

    def test_parents_are_not_made(self) -> None:
        refused(world(), wish(target="backup/none/tank"), "there is no 'backup/none'")
        place = world()
        place.target.add("backup/vol", kind="volume")
        refused(place, wish(target="backup/vol/tank"), "'backup/vol' is a volume")

    def test_pools(self) -> None:
        place = world()
        place.target.features -= {"encryption"}
        refused(place, wish(), "does not have the feature 'encryption'")
        place = world()
        refused(place, wish(), "no pool 'backup'", pool={})
        place = world()
        refused(
            place,
            wish(),
            "imported read-only",
            pool={**place.ends(wish()).target.pool, "readonly": Property("on", "-")},
        )
        place.target.guid = "1"
        place.target.add("tank")
        refused(place, wish(target="tank/copy", ssh=Ssh("localhost")), "the same pool")

    def test_what_is_only_at_the_target_is_told_and_left(self) -> None:
        place = world()
        place.run(wish())
        del place.source.nodes["tank/docs"]
        place.source.nodes["tank"].written = 1
        plan = place.run(later())
        assert "not among what is sent: 'backup/tank/docs'" in plan.warnings[0]
        assert "backup/tank/docs" in place.target.nodes

    @pytest.mark.parametrize("mode", ["raw", "plaintext"])
    def test_what_was_renamed_at_the_source_is_to_be_renamed_at_the_target(self, mode: str) -> None:
        place = world()
        place.source.add("tank/docs/deep", key="tank", written=1)
        place.run(wish(mode=mode))
        for end, top in ((place.source, "tank"), (place.target, "backup/tank")):
            for name in (f"{top}/docs", f"{top}/docs/deep"):
                end.nodes[name.replace("docs", "papers")] = end.nodes.pop(name)
            if end is place.source:
                refused(
                    place,
                    later(mode=mode),
                    "renamed at the source.*: 'zfs rename backup/tank/docs backup/tank/papers'. Then run this again",
                )
        place.source.nodes["tank/papers"].written = 1
        assert "backup/tank/papers" in str(place.run(later(mode=mode)).diff())
        assert "backup/tank/docs" not in place.target.nodes

    def test_each_rename_is_named(self) -> None:
        place = world()
        place.source.add("tank/docs/deep", key="tank", written=1)
        place.run(wish())
        place.source.nodes["tank/papers"] = place.source.nodes.pop("tank/docs")
        place.source.nodes["tank/papers/flat"] = place.source.nodes.pop("tank/docs/deep")
        refused(
            place,
            later(ssh=Ssh("nas2")),
            "at the target on 'nas2': 'zfs rename backup/tank/docs backup/tank/papers', then "
            "'zfs rename backup/tank/papers/deep backup/tank/papers/flat'",
        )

    def test_a_snapshot_that_not_all_have(self) -> None:
        place = world()
        place.source.snapshot(["tank"], "one")
        refused(place, wish(snapshot="one"), "no snapshot @one: 'tank/docs'")

    def test_a_replica_that_is_newer_than_what_is_asked_for(self) -> None:
        place = world()
        for name in ("a", "b"):
            place.source.snapshot(place.source.nodes, name)
        place.run(wish(snapshot="b"))
        place.target.nodes["backup/tank"].snapshots.pop(0)
        refused(place, wish(snapshot="a"), "has @b, which is newer than @a")

    def test_an_excluded_dataset_exists(self) -> None:
        refused(world(), wish(exclude=("tank/mistyped",)), "does not exist")


class TestBookmarks:
    def test_an_increment_from_a_bookmark(self) -> None:
        place = world()
        place.source.snapshot(["tank"], OLD)
        wanted = wish(recursive=False)
        place.source.nodes["tank"].written = 0
        place.run(wanted)
        old = place.source.nodes["tank"].snapshots.pop(0)
        place.source.snapshot(["tank"], "x")
        place.source.nodes["tank"].written = 1
        ends = place.ends(later(recursive=False))
        ends = dataclasses.replace(
            ends, source=dataclasses.replace(ends.source, bookmarks={"tank": (dataclasses.replace(old, name="mark"),)})
        )
        plan = plan_replication(later(recursive=False), ends)
        assert sends(plan) == [
            "zfs send -v -P -w -p -i tank#mark tank@x",
            "zfs send -v -P -w -p -I @x tank@nasops-20261128T010203Z",
        ]

    def test_no_tree_is_sent_from_a_bookmark(self) -> None:
        place = world()
        place.run(wish())
        ends = place.ends(later(snapshot_when="always"))
        marks = {
            name: tuple(dataclasses.replace(one, name="m") for one in ones)
            for name, ones in ends.source.snapshots.items()
        }
        source = dataclasses.replace(ends.source, bookmarks=marks, snapshots={})
        plan = plan_replication(later(snapshot_when="always"), dataclasses.replace(ends, source=source))
        assert all("-R" not in one and "-i tank" in one for one in sends(plan))


class TestBrokenStreams:
    def broken(self, parts: int = 1) -> World:
        place = world()
        for step in plan_replication(wish(), place.ends(wish())).steps:
            if isinstance(step.action, Transfer):
                place.carry(step.action, parts)
                return place
            place.act(step.action)
        raise AssertionError("nothing was sent")

    @pytest.mark.parametrize("parts", [0, 1, 2, 3])
    def test_it_is_gone_on_with(self, parts: int) -> None:
        place = self.broken(parts)
        plan = place.run(later())
        assert plan.actions[0].endswith("which broke off")
        assert sends(plan)[0].startswith("zfs send -v -P -w -t ")
        assert place.target.nodes["backup/tank/docs"].key == "backup/tank"
        assert not place.run(later(stamp="20261130T010203Z")).changed

    def test_or_discarded(self) -> None:
        place = self.broken(0)
        plan = place.run(later(resume=False))
        assert plan.actions[0] == "Discard what was received of a stream to 'backup/tank' that broke off"

    @pytest.mark.parametrize(
        ("token", "match"),
        [
            (Token("t", "1", True, "it is too old"), "it is too old.*resume: false"),
            (Token("t", "1", False), "it is not raw, and mode is 'raw'"),
            (Token("t", "no such", True), "'tank' has no such snapshot any more"),
        ],
    )
    def test_or_refused(self, token: Token, match: str) -> None:
        refused(self.broken(0), later(), match, tokens={"backup/tank": token})

    @pytest.mark.parametrize("what", ["written", "snapshot"])
    def test_or_given_up_if_the_replica_went_its_own_way(self, what: str) -> None:
        place = world()
        place.run(wish())
        place.source.snapshot(place.source.nodes, "more")
        place.target.nodes["backup/tank"].token = place.source.nodes["tank"].snapshots[-1].guid
        assert place.copy().run(later()).actions[0].endswith("which broke off")
        if what == "written":
            place.target.nodes["backup/tank"].written = 5
        else:
            place.target.snapshot(["backup/tank"], "mine")
        refused(place, later(), f"'backup/tank' .* since @{NEW}.*force: true")
        plan = place.run(later(force=True))
        assert plan.actions[0] == "Discard what was received of a stream to 'backup/tank' that broke off"
        assert plan.actions[1].startswith(f"Roll 'backup/tank' back to @{NEW}")
        assert not any("-t" in one.split() for one in sends(plan))

    def broken_anew(self, key: WantedKey, **facts: t.Any) -> World:
        """The first stream of a replica that is encrypted anew has broken off at its beginning."""
        place, wanted = world(), wish(mode="reencrypt", key=key)
        for step in plan_replication(wanted, place.ends(wanted, **facts)).steps:
            if isinstance(step.action, Transfer):
                place.carry(step.action, 0)
                return place
            place.act(step.action)
        raise AssertionError("nothing was sent")

    def test_what_is_made_anew_is_made_under_the_key_that_is_given(self) -> None:
        place = self.broken_anew(WantedKey("hex", HEX))
        wanted = later(mode="reencrypt", key=WantedKey("hex", HEX, "/k"), resume=False)
        other = KeyFile("/k", True, Key("hex", b"b2" * 32))
        refused(place, wanted, "holds another key than key.value", key_files={"tank": other})
        plan = place.run(wanted, key_files={"tank": KeyFile("/k", False)})
        assert plan.actions[0].startswith("Discard")
        assert place.keys == {"/k": "hex"}
        assert place.target.nodes["backup/tank"].location == "file:///k"

    def test_and_does_not_look_for_a_key_that_was_handed_over(self) -> None:
        file = KeyFile("/k", True, HEX)
        place = self.broken_anew(WantedKey("hex", HEX, "/k"), key_files={"tank": file})
        place.run(later(mode="reencrypt", key=WantedKey("hex", HEX), resume=False))
        assert place.target.nodes["backup/tank"].location == "prompt"

    def test_and_not_where_none_can_be_made(self) -> None:
        place = self.broken_anew(WantedKey("hex", HEX))
        refused(place, later(mode="reencrypt", resume=False), "uses that of 'backup', which is not encrypted")


class TestRetention:
    def test_the_oldest_of_our_own_go_at_both_ends(self) -> None:
        place = world()
        for day in range(4):
            place.source.nodes["tank"].written = 1
            place.run(wish(stamp=f"2026112{day}T010203Z", keep=2))
        place.source.snapshot(place.source.nodes, "nasops-by-hand")
        place.source.nodes["tank"].written = 1
        place.run(wish(stamp="20261125T010203Z", keep=2))
        names = ["nasops-20261123T010203Z", "nasops-by-hand", "nasops-20261125T010203Z"]
        assert [one.name for one in place.source.nodes["tank"].snapshots] == names
        assert [one.name for one in place.target.nodes["backup/tank/docs"].snapshots] == names

    def test_not_those_of_another_prefix(self) -> None:
        place = world()
        place.run(wish(prefix="other-"))
        place.source.nodes["tank"].written = 1
        plan = place.run(later(keep=1))
        assert not any(one.startswith("Destroy") for one in plan.actions)


class TestProperties:
    def test_a_property_that_was_changed_at_the_replica_is_set_again(self) -> None:
        place = world()
        place.run(wish())
        place.target.nodes["backup/tank"].own["readonly"] = "off"
        plan = place.run(later())
        assert plan.actions == ["Set property readonly=on on 'backup/tank'"]
        assert isinstance(plan.steps[0].action, AtTarget)

    def test_null_takes_a_value_of_its_own_back(self) -> None:
        place = world()
        plan = place.run(wish(properties={"compression": None, "readonly": "off", "mountpoint": "/x"}))
        assert "-o readonly=off -x compression -o mountpoint=/x" in receives(plan)[0]
        place.target.nodes["backup/tank"].own["compression"] = "gzip"
        assert place.run(later(properties={"compression": None, "readonly": "off"})).actions == [
            "Unset property compression of 'backup/tank'"
        ]


def test_a_mountpoint_that_is_given_lies_below_the_altroot_of_the_pool() -> None:
    place = world()
    wanted = wish(mode="reencrypt", key=WantedKey("hex", HEX, "/x/k"), properties={"mountpoint": "/x"})
    pool = {**place.ends(wanted).target.pool, "altroot": Property("/mnt", "-")}
    below = dataclasses.replace(wanted, key=WantedKey("hex", HEX, "/mnt/x/k"))
    message = "would lie below /mnt/x, where the replica itself"
    refused(unlock(place), below, message, pool=pool, key_files={"tank": KeyFile("/mnt/x/k", False)})
    ends = place.ends(wanted, pool=pool, key_files={"tank": KeyFile("/x/k", False)})
    assert plan_replication(wanted, ends).changed


class TestMeanwhile:
    """What somebody else does to the source while its streams are under way."""

    def test_what_was_made_after_the_snapshot_is_for_the_next_run(self) -> None:
        place = world()
        wanted = wish()
        for step in plan_replication(wanted, place.ends(wanted)).steps:
            place.act(step.action)
        place.source.add("tank/plain", written=1)
        assert plan_replication(wanted, place.ends(wanted, wanted.new_snapshot)).actions == []
        refused(place, later(), "these are not encrypted: 'tank/plain'")

    def test_a_stream_of_a_tree_is_guarded_by_its_snapshot(self) -> None:
        place = world()
        for made, wanted in ((None, wish()), ("tank/new", later(exclude=("tank/docs",)))):
            if made:
                place.source.add(made, key=made, wrapped="k3", written=1)
            streams = [step for step in place.run(wanted).steps if isinstance(step.action, Transfer)]
            assert [step.guard for step in streams] == [StillEncrypted("tank", wanted.new_snapshot, wanted.exclude)]


class TestStillEncrypted:
    GUARD = StillEncrypted("tank", "a", ("tank/cache",))
    GET = (
        *("zfs", "get", "-Hp", "-r", "-t", "filesystem,volume", "-o", "name,property,source,value"),
        *("encryption", "tank"),
    )

    def look(self, encryption: dict[str, str], snapshots: str = "") -> RecordedRunner:
        text = "".join(f"{name}\tencryption\t-\t{value}\n" for name, value in encryption.items())
        plain = [f"{name}@a" for name, value in encryption.items() if value == "off" and "cache" not in name]
        listed = ("zfs", "list", "-H", "-o", "name", "-t", "snapshot", *plain)
        lost = bool(set(plain) - set(snapshots.splitlines()))
        runner = RecordedRunner({self.GET: answer(self.GET, text), listed: answer(listed, snapshots, rc=int(lost))})
        self.GUARD(runner)
        return runner

    def test_nothing_to_say(self) -> None:
        runner = self.look({"tank": "aes-256-gcm", "tank/a": "aes-256-ccm", "tank/cache": "off", "tank/cache/b": "off"})
        assert runner.argvs == [self.GET]

    def test_made_after_the_snapshot(self) -> None:
        self.look({"tank": "aes-256-gcm", "tank/late": "off"})

    def test_made_before_it(self) -> None:
        with pytest.raises(Refused, match="made while this was being prepared: 'tank/a b', 'tank/early'"):
            self.look(
                {"tank": "aes-256-gcm", "tank/a b": "off", "tank/early": "off", "tank/late": "off"},
                "tank/a b@a\ntank/early@a\n",
            )


@st.composite
def histories(draw: st.DrawFn) -> tuple[World, list[tuple[str, int]]]:
    """A tree of any shape, and a list of what happens to it: something is written, or a stream breaks off."""
    place = World(Host(guid="1"), Host(guid="2"))
    place.target.add("backup")
    place.source.add("tank", key="tank", wrapped="k")
    names = ["tank"]
    for number in range(draw(st.integers(0, 4))):
        above = draw(st.sampled_from(names))
        name = f"{above}/d{number}"
        key = name if draw(st.booleans()) else place.source.nodes[above].key
        place.source.add(name, key=key, wrapped=f"k{number}")
        names.append(name)
    events = draw(
        st.lists(st.tuples(st.sampled_from(["write", "rekey", "new", "break", "run"]), st.integers(0, 6)), max_size=8)
    )
    return place, events


@settings(max_examples=40)
@given(histories())
def test_whatever_happens_two_runs_later_all_is_well(history: tuple[World, list[tuple[str, int]]]) -> None:
    place, events = history
    for number, (event, detail) in enumerate(events):
        names = list(place.source.nodes)
        node = place.source.nodes[names[detail % len(names)]]
        wanted = wish(stamp=f"2026{number + 10}01T010203Z")
        if event == "write":
            node.written = 1
        elif event == "rekey":
            node.wrapped, node.salt = f"new {number}", str(number + 1)
        elif event == "new":
            place.source.add(f"{names[detail % len(names)]}/n{number}", key=node.key, written=1)
        elif event == "run":
            place.run(wanted)
        else:
            for step in plan_replication(wanted, place.ends(wanted)).steps:
                if isinstance(step.action, Transfer) and "-t" not in step.action.send.argv:
                    place.carry(step.action, detail)
                    break
                place.act(step.action)
    place.run(wish(stamp="20270101T010203Z"))
    place.run(wish(stamp="20270102T010203Z"))
    assert not place.run(wish(stamp="20270103T010203Z")).changed
    for name, node in place.source.nodes.items():
        replica = place.target.nodes["backup" + f"/{name}"]
        assert replica.snapshots[-1].guid == node.snapshots[-1].guid
        assert (replica.key == f"backup/{name}") == (node.key == name)
        assert place.opens(f"backup/{name}")
        assert STAMP not in replica.snapshots[-1].name
