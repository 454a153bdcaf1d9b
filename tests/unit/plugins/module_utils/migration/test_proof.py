# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of the key on a model of a host: what it proves, and that it leaves everything as it was."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused, StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.migration import proof as proof_file
from ansible_collections.nasops.encryption.plugins.module_utils.migration.proof import LockProof, ProofKey
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key

from ..zfs.dataset_host import DatasetZfs, Node, Refusal, World

KEY, OTHER = Key("hex", b"a1" * 32), Key("hex", b"b2" * 32)
PROOF = LockProof("new", "new/a/old", "new/a/old@x", ProofKey("prompt", KEY))


class Host(DatasetZfs):
    """A host that also loads and unloads keys by commands, and sends."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.files = {"file:///keys/new.key": KEY}
        self.busy_for = 0
        self.leaks = False
        self.breaks = False
        self.closed_and_read = 0

    def _run(self, command: Command) -> str:
        words = list(command.argv)
        if words[0] == "sh":
            return self._send(words[-1])
        if words[:2] == ["zfs", "load-key"]:
            self._load(words, command.stdin)
            return ""
        if words[:2] == ["zfs", "unload-key"]:
            self._unload(words[2])
            return ""
        return super()._run(command)

    def _send(self, snapshot: str) -> str:
        root = self.world.nodes[self.world.nodes[snapshot.split("@")[0]].root]
        self.closed_and_read += not root.loaded
        reads = self.leaks if not root.loaded else not self.breaks
        # FreeBSD's wc puts blanks in front.
        return "   65536\n" if reads else "       0\n"

    def _load(self, words: list[str], stdin: bytes | None) -> None:
        location = words[words.index("-L") + 1]
        key = Key("hex", (stdin or b"").rstrip(b"\n")) if location == "prompt" else self.files.get(location)
        node = self.world.nodes[words[-1]]
        if key is None or node.wrapped is None or not key.same_as(node.wrapped):
            raise Refusal(f"Key load error: Incorrect key provided for '{node.name}'.")
        if "-n" not in words:
            assert not node.loaded
            node.loaded = True
            self.effect()

    def _unload(self, name: str) -> None:
        users = [node for node in self.world.nodes.values() if node.root == name]
        if any(node.mounted for node in users) or self.busy_for > 0:
            self.busy_for -= 1
            raise Refusal(f"Key unload error: '{name}' is busy.")
        self.world.nodes[name].loaded = False
        self.effect()


def host(**mounted: bool) -> Host:
    """A pool with the target in it, and something else."""
    world = World()
    world.nodes["new"] = Node("new", cipher="aes-256-gcm", root="new", wrapped=KEY, loaded=True, location="prompt")
    for name in ("new/a", "new/a/old", "new/a/old/docs", "new/other"):
        world.nodes[name] = Node(name, cipher="aes-256-gcm", root="new")
    world.nodes["new/a/old/vol"] = Node("new/a/old/vol", "volume", "aes-256-gcm", "new")
    for name, value in mounted.items():
        world.nodes[
            {"new": "new", "docs": "new/a/old/docs", "old": "new/a/old", "other": "new/other"}[name]
        ].mounted = value
    return Host(world)


def mounts(zfs: Host) -> set[str]:
    return {name for name, node in zfs.world.nodes.items() if node.mounted}


def test_it_is_locked_seen_to_be_closed_and_opened_again() -> None:
    zfs = host(new=True, old=True, docs=True)
    PROOF(zfs)
    assert zfs.commands_that_change() == [
        ("zfs", "load-key", "-n", "-L", "prompt", "new"),
        ("zfs", "unmount", "new/a/old/docs"),
        ("zfs", "unmount", "new/a/old"),
        ("zfs", "unmount", "new"),
        ("zfs", "unload-key", "new"),
        ("sh", "-c", proof_file._TRY, "sh", "new/a/old@x"),
        ("zfs", "load-key", "-L", "prompt", "new"),
        ("zfs", "mount", "new"),
        ("zfs", "mount", "new/a/old"),
        ("zfs", "mount", "new/a/old/docs"),
        ("sh", "-c", proof_file._TRY, "sh", "new/a/old@x"),
    ]
    assert zfs.closed_and_read == 1
    assert zfs.world.nodes["new"].loaded
    assert mounts(zfs) == {"new", "new/a/old", "new/a/old/docs"}


def test_a_key_file_is_read_where_it_is_kept() -> None:
    zfs = host()
    dataclasses.replace(PROOF, proof=ProofKey("file:///keys/new.key"))(zfs)
    assert ("zfs", "load-key", "-L", "file:///keys/new.key", "new") in zfs.commands
    assert zfs.world.nodes["new"].loaded


@pytest.mark.parametrize("wrong", [ProofKey("prompt", OTHER), ProofKey("file:///keys/other.key")])
def test_what_could_not_be_opened_again_is_not_locked(wrong: ProofKey) -> None:
    zfs = host(docs=True)
    zfs.files["file:///keys/other.key"] = OTHER
    with pytest.raises(Refused, match="is not the one that opens 'new'. It was not locked"):
        dataclasses.replace(PROOF, proof=wrong)(zfs)
    assert zfs.effects == 0
    assert mounts(zfs) == {"new/a/old/docs"}


def test_others_are_not_unmounted() -> None:
    zfs = host(other=True, docs=True)
    with pytest.raises(Refused, match="these use it too, and are mounted: 'new/other'"):
        PROOF(zfs)
    assert zfs.effects == 0


def with_own_key(name: str) -> Host:
    """A pool with something in it that has another key, and is mounted below what is to be unmounted."""
    zfs = host(new=True, old=True)
    zfs.world.nodes[name] = Node(
        name, cipher="aes-256-gcm", root=name, wrapped=OTHER, loaded=True, location="prompt", mounted=True
    )
    return zfs


def test_others_with_a_key_of_their_own_are_not_taken_along() -> None:
    zfs = with_own_key("new/private")
    with pytest.raises(Refused, match="lie below what does, and are mounted: 'new/private'"):
        PROOF(zfs)
    assert zfs.effects == 0


def test_a_part_of_the_target_with_a_key_of_its_own_is_mounted_again() -> None:
    zfs = with_own_key("new/a/old/private")
    PROOF(zfs)
    assert ("zfs", "unmount", "new/a/old/private") in zfs.commands
    assert mounts(zfs) == {"new", "new/a/old", "new/a/old/private"}


def test_what_is_mounted_by_hand_is_not_unmounted() -> None:
    zfs = host(docs=True)
    zfs.world.nodes["new/a/old/docs"].properties["mountpoint"] = "legacy"
    with pytest.raises(Refused, match="by hand"):
        PROOF(zfs)
    assert zfs.effects == 0


def test_what_is_in_use_is_mounted_again() -> None:
    zfs = host(new=True, old=True, docs=True)
    zfs.world.nodes["new"].busy = True
    with pytest.raises(CommandError, match="busy"):
        PROOF(zfs)
    assert mounts(zfs) == {"new", "new/a/old", "new/a/old/docs"}
    assert zfs.world.nodes["new"].loaded


def test_a_busy_key_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_file, "_PAUSE", 0.0)
    zfs = host(docs=True)
    zfs.busy_for = 3
    PROOF(zfs)
    assert zfs.closed_and_read == 1
    zfs.busy_for = 1000
    with pytest.raises(CommandError, match="busy") as caught:
        PROOF(zfs)
    assert "such as a volume or a clone" in caught.value.hint
    assert zfs.world.nodes["new"].loaded
    assert mounts(zfs) == {"new/a/old/docs"}


@pytest.mark.parametrize(("fault", "match"), [("leaks", "can still be read"), ("breaks", "can't be read")])
def test_what_is_not_as_it_should_be_fails_and_is_open_again(fault: str, match: str) -> None:
    zfs = host(docs=True)
    setattr(zfs, fault, True)
    with pytest.raises(StorageError, match=match):
        PROOF(zfs)
    assert zfs.world.nodes["new"].loaded
    assert mounts(zfs) == {"new/a/old/docs"}


def test_a_part_that_stays_open_fails() -> None:
    zfs = host()

    class Stays(Host):
        def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
            result = super().run(command, ok)
            # Only one dataset is asked for by its name alone.
            if command.argv[:2] == ("zfs", "get") and "-r" not in command.argv:
                return dataclasses.replace(result, stdout=result.stdout.replace("unavailable", "available"))
            return result

    stays = Stays(zfs.world)
    with pytest.raises(Refused, match="these are not locked: new/a/old"):
        PROOF(stays)
    assert stays.world.nodes["new"].loaded


def test_the_key_is_in_no_argument_and_no_text() -> None:
    zfs = host()
    PROOF(zfs)
    assert "a1a1" not in str(zfs.commands)
    assert "a1a1" not in repr(PROOF)
