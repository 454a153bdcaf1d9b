# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration on the two ends of the replication's model, which carries out what is planned."""

from __future__ import annotations

import functools
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.nasops.encryption.plugins.module_utils.command import Runner
from ansible_collections.nasops.encryption.plugins.module_utils.migration.compare import Compare, ReadAll, SeeHealthy
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_compare import CompareTree
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_plan import not_copied
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_run import Pass
from ansible_collections.nasops.encryption.plugins.module_utils.migration.copy_state import (
    COPY_RECORD,
    PARTIAL,
    PARTIAL_SNAPSHOT,
    Copied,
    named,
    under_way,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.far_alone import Alone
from ansible_collections.nasops.encryption.plugins.module_utils.migration.options import Migration
from ansible_collections.nasops.encryption.plugins.module_utils.migration.plan import (
    RecordFinal,
    RecordVerified,
    SeeCopied,
    SeeQuiet,
    SeeSnapshots,
    missing_snapshots,
    plan_migration,
)
from ansible_collections.nasops.encryption.plugins.module_utils.migration.proof import LockProof
from ansible_collections.nasops.encryption.plugins.module_utils.migration.read import adapted, key_root
from ansible_collections.nasops.encryption.plugins.module_utils.migration.rsync import CopyFailed
from ansible_collections.nasops.encryption.plugins.module_utils.migration.state import (
    FINAL_RECORD,
    VERIFIED_RECORD,
    Found,
    Member,
    Verified,
    fingerprint,
    verified_record,
)
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Action, Plan
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_plan import takes_snapshot
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import AtTarget

from ..zfs.replicate_model import Host, World, wish

MEMBERS = (Member("/run/nasops-geli/eli-1", "ONLINE", True), Member("/run/nasops-geli/eli-2", "ONLINE", True))
LATER = "20261128T010203Z"
LAST = "20261129T010203Z"


class Seen(Exception):
    """A comparison has found a difference."""


@dataclass
class Case:
    """Two pools, and what was looked at up to now."""

    place: World
    read_only: bool = False
    location: str = "file:///etc/zfs/keys/new.key"
    members: tuple[Member, ...] = MEMBERS
    damaged: set[str] = field(default_factory=set)
    """Datasets at the target whose data is another one than was sent."""
    proofs: list[LockProof] = field(default_factory=list)
    looked_at: list[str] = field(default_factory=list)
    imported: str = "11"
    busy: set[str] = field(default_factory=set)
    """Datasets of the source that are written to as long as the run takes."""
    entries: dict[str, str] = field(default_factory=dict)
    """What is in filesystems of the target that nobody has made for a migration."""
    lacking: tuple[str, ...] = ()
    fails: set[str] = field(default_factory=set)
    """Datasets of the source that rsync can't copy."""
    holds: dict[str, str] = field(default_factory=dict)
    """What rsync has copied last into each dataset of the target."""

    def found(self, wanted: Migration, taken: str = "") -> Found:
        replication = adapted(wanted.replication, self.read_only)
        ends = self.place.ends(replication, taken)
        top = self.place.target.nodes.get(replication.target)
        root = top.key if top is not None else "" if replication.key is not None else "new"
        users = self.place.target.side(root, True, False).datasets if root else {}
        return Found(
            replication,
            ends,
            self.read_only,
            self.members,
            replace(key_root(root, users), location=self.location) if root else None,
            self.imported,
            {
                one.name: key_root(one.name, users)
                for one in users.values()
                if one.is_root and one.name.startswith(f"{replication.target}/")
            },
            self.lacking,
            self.entries,
        )

    def plan(self, wanted: Migration) -> Plan:
        return plan_migration(wanted, self.found(wanted))

    def run(self, wanted: Migration, steps: int | None = None) -> Plan:
        """Plan and carry out, all or so many steps; then nothing is left to do, unless it was cut short."""
        found = self.found(wanted)
        plan = plan_migration(wanted, found)
        for step in plan.steps[:steps]:
            self.act(step.action)
        if steps is None and plan.steps:
            ours = found.ends.source.of(found.wanted.source)
            newest = wanted.replication.new_snapshot if takes_snapshot(plan) else ours[-1].name if ours else ""
            rest = plan_migration(wanted, self.found(wanted, "" if found.wanted.heads else newest))
            assert rest.actions == [], rest.actions
        return plan

    def acting(self, plan: Plan) -> Plan:
        """The same plan for who carries it out by calling its actions."""
        return replace(
            plan, steps=tuple(replace(step, action=functools.partial(self._act, step.action)) for step in plan.steps)
        )

    def _act(self, action: Action, _runner: Runner) -> None:
        self.act(action)

    def act(self, action: Action) -> None:
        action = action.action if isinstance(action, Alone) else action
        inner = action.action if isinstance(action, AtTarget) else action
        if isinstance(inner, SeeSnapshots):
            ends = self.place.ends(inner.wanted)
            assert missing_snapshots(inner.wanted, ends, inner.goal) == []
        elif isinstance(inner, SeeCopied):
            ends = self.place.ends(inner.replication, inner.goal)
            assert not_copied(inner.wanted, inner.replication, ends, inner.imported, inner.goal) == []
        elif isinstance(inner, Pass):
            self.copy(inner)
        elif isinstance(inner, (Compare, CompareTree, ReadAll)):
            self.looked_at.append(inner.target)
            if inner.target.split("@")[0] in self.damaged:
                raise Seen(inner.target)
        elif isinstance(inner, SeeHealthy):
            self.looked_at.append(inner.pool)
        elif isinstance(inner, LockProof):
            assert not any(node.locked for node in self.place.target.nodes.values())
            assert self.place.target.nodes[inner.target].key == inner.root
            name, snapshot = inner.snapshot.split("@")
            assert [one.name for one in self.place.target.nodes[name].snapshots][-1] == snapshot
            self.proofs.append(inner)
        elif isinstance(inner, RecordVerified):
            snapshots = {name: self.place.target.nodes[name].snapshots for name in inner.newest}
            assert {name: ones[-1].name for name, ones in snapshots.items()} == inner.newest
            datasets = self.place.target.side("new", True, False).datasets
            state = fingerprint(inner.newest, datasets, snapshots, inner.source_id, inner.imported)
            self.own(inner.target)[VERIFIED_RECORD] = Verified(inner.level, state, inner.run).text()
        elif isinstance(inner, SeeQuiet):
            if self.busy & set(inner.goal):
                raise Seen(*self.busy)
            for name, goal in inner.goal.items():
                node = self.place.source.nodes[name]
                assert (node.written, node.snapshots[-1].name) == (0, goal), name
        elif isinstance(inner, RecordFinal):
            verified = verified_record(self.own(inner.target)[VERIFIED_RECORD])
            assert verified is not None
            self.own(inner.target)[FINAL_RECORD] = verified.fingerprint
        else:
            self.place.act(action)

    def copy(self, one: Pass) -> None:
        """One pass of rsync."""
        node = self.place.target.nodes[one.target]
        name, at_sign, snapshot = one.source.partition("@")
        assert name not in self.damaged, f"status 23: {name}"
        assert not node.mounted
        assert not one.empty or not self.entries.get(one.target)
        assert one.volume == (node.kind == "volume")
        assert set(one.doomed) == {have.name for have in node.snapshots}
        if name in self.fails:
            self.broken(one)
        node.own.update(one.settings)
        state = one.state
        if at_sign:
            guid = next(have.guid for have in self.place.source.nodes[name].snapshots if have.name == snapshot)
            assert state in ("", guid)
            state = guid
        self.closed(one, one.snapshot, named(state, one.skip))
        self.holds[one.target] = one.source

    def broken(self, one: Pass) -> None:
        """What is left of a pass that breaks off."""
        self.closed(one, PARTIAL_SNAPSHOT, PARTIAL)
        raise CopyFailed(f"rsync ended with status 23: {one.source}.")

    def closed(self, one: Pass, snapshot: str, state: str) -> None:
        """A pass has come to an end."""
        node = self.place.target.nodes[one.target]
        node.snapshots.clear()
        self.snapshot(one.target, snapshot)
        self.inherit(one)
        node.own[COPY_RECORD] = Copied(one.guid, node.snapshots[0].guid, state).text()

    def killed(self, one: Pass, after: int) -> None:
        """What is left of a pass that is killed after so many of its steps; all of them leave it whole."""
        node = self.place.target.nodes[one.target]
        mark = Copied(one.guid, one.before, under_way(one.snapshot, one.afterwards)).text()
        steps: list[t.Callable[[], object]] = [
            lambda: node.own.update({**one.settings, COPY_RECORD: mark}),
            node.snapshots.clear,
            lambda: setattr(node, "written", 9),
            lambda: self.snapshot(one.target, one.snapshot),
            lambda: self.inherit(one),
        ]
        for step in steps[:after]:
            step()

    def snapshot(self, target: str, snapshot: str) -> None:
        """A snapshot of the target, with another GUID than any before."""
        self.place.target.snapshot([target], snapshot)
        snapshots = self.place.target.nodes[target].snapshots
        snapshots[-1] = replace(snapshots[-1], guid=f"pass-{self.place.target.clock}")

    def inherit(self, one: Pass) -> None:
        """What a pass had to change is as it was."""
        node = self.place.target.nodes[one.target]
        for prop, value in one.afterwards.items():
            node.own.pop(prop, None)
            if value is not None:
                node.own[prop] = value

    def own(self, name: str) -> dict[str, str]:
        """The properties that were set on a dataset of the target."""
        return self.place.target.nodes[name].own


def wants(state: str, stamp: str = "20261127T010203Z", **facts: t.Any) -> Migration:
    """A migration of the pool old to new/old."""
    ours = {one: facts.pop(one) for one in ("verify", "proof_key", "allow_degraded", "skip", "again") if one in facts}
    base = wish(
        **{
            "source": "old",
            "target": "new/old",
            "mode": "reencrypt",
            "migration": True,
            "prefix": "migrate-",
            "stamp": stamp,
            **facts,
        }
    )
    return Migration(state, base, **ours)


def case(read_only: bool = False) -> Case:
    """A pool with snapshots, a volume and a clone, and an encrypted one."""
    source, target = Host(guid="1", readonly="on" if read_only else "off"), Host(guid="2")
    source.add("old", written=1)
    source.add("old/docs", written=1)
    source.add("old/vol", written=1, kind="volume")
    source.snapshot(["old", "old/docs", "old/vol"], "a")
    source.clone("old/copy", "old/docs@a")
    source.nodes["old/docs"].written = 5
    target.add("new", key="new", wrapped="k")
    return Case(World(source, target), read_only)


def changed(wanted: Migration, **facts: t.Any) -> Migration:
    """The same with another replication."""
    return replace(wanted, replication=replace(wanted.replication, **facts))
