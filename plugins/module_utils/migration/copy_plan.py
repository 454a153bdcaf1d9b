# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what rsync copies, in which order, and what is refused. It looks at nothing but what was read."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ..command import Command
from ..errors import Refused
from ..plan import Change, Plan, Step
from ..zfs.replicate_checks import check_new_target, in_order
from ..zfs.replicate_draft import FILESYSTEM_ONLY, Draft, overrides
from ..zfs.replicate_options import Replication
from ..zfs.replicate_plan import begin, plan_properties, plan_snapshot, store_keys, warn_of_strangers
from ..zfs.replicate_run import AtTarget
from ..zfs.replicate_state import FUTURE, Ends, Snapshot
from ..zfs.state import Dataset
from .copy_run import Pass
from .copy_state import (
    COPY_RECORD,
    FIXED,
    NONE,
    Copied,
    copied_record,
    is_current,
    state_of,
    state_of_head,
    under_way,
)
from .far_alone import Alone
from .options import Migration
from .state import SOURCE_RECORD, Found

# What the target must not have while it is written to. A volume needs a device then.
_WRITTEN_TO = {"filesystem": {"readonly": "off"}, "volume": {"readonly": "off", "volmode": "dev"}}


def plan_copies(wanted: Migration, replication: Replication, found: Found) -> Plan:
    """The steps that bring the target up to date. Each dataset is a branch: where one fails, the others go on.

    :raises Refused: the source can't be read so, or the target is not, or would not be, a copy of it
    """
    draft = begin(replication, found.ends)
    if replication.source not in draft.replicas:
        check_new_target(replication, found.ends)
    for name in draft.names:
        _check_target(draft, found, name)
    strangers = _strangers(draft, found)
    _check_begun(draft, found, strangers)
    _close(draft)
    to = plan_snapshot(draft)
    store_keys(draft)
    due = [_Due(wanted, draft, found, name, _goal(draft, name, to)) for name in draft.names]
    due = [one for one in due if not one.done]
    if due:
        _check_unmounted(strangers)
    _unmount(draft, due)
    _record(draft, found)
    for one in due:
        draft.steps += one.steps()
    _warn(draft, strangers)
    return Plan(tuple(draft.steps), tuple(draft.warnings), in_order=True)


def not_copied(wanted: Migration, replication: Replication, ends: Ends, imported: str, to: str) -> list[str]:
    """The datasets of the target that do not hold what the source has, or had in a snapshot of this name."""
    faults = []
    for name in in_order(replication, ends.source):
        target = replication.at_target(name)
        replica, dataset = ends.target.datasets.get(target), ends.source.datasets[name]
        goal = next((one for one in ends.source.of(name) if one.name == to), None)
        if replication.heads:
            goal = ends.source.of(name)[-1]
        if goal is None:
            faults.append(f"'{name}' has no snapshot @{to}")
        elif replica is None:
            faults.append(f"'{target}' is missing")
        elif not is_current(replica, ends.target.of(target), state_of(dataset, goal, imported, wanted.skipped(name))):
            faults.append(f"'{target}' does not hold what '{name}' holds")
    return faults


def _goal(draft: Draft, name: str, to: str) -> Snapshot:
    goal = draft.named(name, draft.goal(name, to))
    if goal is None:
        raise Refused(f"'{name}' has no snapshot @{to}.")
    return goal


def _close(draft: Draft) -> None:
    """What a run that was killed has left writable comes first, and what is asked for.

    Each belongs to its dataset: where that fails, its own error is told, and not what is left of this. What that run
    has left at work on another host is ended before, or it could not put what it has got of a file into its place.
    """
    planned = len(draft.steps)
    plan_properties(draft)
    draft.steps[planned:] = [
        replace(step, branch=draft.wanted.source, action=Alone(draft.wanted.target, step.action))
        for step in draft.steps[planned:]
    ]
    for name in draft.names:
        replica = draft.replica(name)
        record = None if replica is None else copied_record(replica)
        if replica is None or record is None or not record.under_way or name == draft.wanted.source:
            continue
        for one in _WRITTEN_TO[replica.value("type")]:
            now, kept = replica.properties.get(one), record.kept.get(one)
            if now is None or not now.own or now.value == kept:
                continue
            words = ("inherit", one) if kept is None else ("set", f"{one}={kept}")
            draft.steps.append(
                Step(
                    f"Give '{replica.name}' back its {one}, which a run that was killed has changed",
                    Alone(replica.name, AtTarget(Command(("zfs", *words, replica.name)))),
                    (Change(("properties", replica.name, one), now.value, kept),),
                    branch=name,
                )
            )


def _check_target(draft: Draft, found: Found, name: str) -> None:
    """What is at the target has to be empty, or a copy that was made by such a task, and by nobody else since.

    :raises Refused: it is something else
    """
    replica = draft.replica(name)
    if replica is None:
        return
    kind, theirs = draft.ends.source.datasets[name].value("type"), replica.value("type")
    if kind != theirs:
        raise Refused(f"'{replica.name}' is a {theirs}, and '{name}' is a {kind}.", hint="Choose another target.")
    record, has = copied_record(replica), draft.replicas[name]
    other = replica.properties.get(SOURCE_RECORD)
    own = other is not None and other.source == "local"
    if (name == draft.wanted.source and record is not None and not own) or (name != draft.wanted.source and own):
        raise Refused(
            f"'{replica.name}' is the target of another migration, or a part of it"
            f"{f' ({other.value})' if other is not None else ''}.",
            hint="Choose another target, or exclude what would go there.",
        )
    if record is None:
        fault = _fault_of_stranger(found, replica, has)
        if fault:
            raise Refused(
                f"'{replica.name}' exists, and was not made by 'method: rsync': {fault}.",
                hint="A target has to be empty, or not there. One that was begun with 'method: zfs_send' is gone on "
                "with by that. Choose another target, or destroy this one.",
            )
        return
    if record.source != draft.ends.source.datasets[name].value("guid"):
        raise Refused(
            f"'{replica.name}' is a copy of another dataset than the present '{name}', by the GUID of that.",
            hint="Choose another target, or destroy this one yourself.",
        )
    if draft.wanted.force:
        return
    others = [f"@{one.name}" for one in has if not record.explains(one)]
    # What a pass itself has written before it was killed can't be told from what others have.
    written = replica.written and (bool(has) or not record.under_way)
    what = f"has snapshots of its own ({', '.join(others)})" if others else "was written to"
    if others or written:
        raise Refused(
            f"'{replica.name}' {what} since it was copied from '{name}'.",
            hint="Set 'force: true' to make it what the source is, which destroys that. It is best kept unmounted, "
            "without snapshots of its own: even a mount that is read-only writes some KiB to it.",
        )


def _fault_of_stranger(found: Found, replica: Dataset, has: t.Sequence[Snapshot]) -> str:
    if has:
        return f"it has the snapshot @{has[-1].name}"
    if replica.value("receive_resume_token") != "-":
        return "a stream into it broke off"
    if replica.value("type") == "volume":
        return "it is a volume, of which nobody can say that it is empty"
    entry = found.entries.get(replica.name, "")
    return f"it holds '{entry}'" if entry else ""


def _strangers(draft: Draft, found: Found) -> list[Dataset]:
    """What lies below the target, and is no copy of what is asked for."""
    wanted, root = draft.wanted, found.root
    # Those of the root of its key are all that there are, also where only the top is asked for.
    there = {one.name: one for one in (*root.users, *root.others)} if root is not None else {}
    there.update(draft.ends.target.datasets)
    ours = {wanted.at_target(name) for name in draft.names}
    return [there[name] for name in sorted(there) if name not in ours and name.startswith(f"{wanted.target}/")]


def _check_begun(draft: Draft, found: Found, strangers: t.Sequence[Dataset]) -> None:
    """Whatever is below a target loses much by that it becomes one: nothing of others may be there then.

    :raises Refused: something is
    """
    top = draft.replica(draft.wanted.source)
    if top is None or not strangers or found.record(SOURCE_RECORD) == found.source_id:
        return
    raise Refused(
        f"'{top.name}' exists, is no migration of '{draft.wanted.source}' yet, and has below it what is not migrated: "
        f"{_shown(strangers)}. All of it would inherit readonly=on and volmode=none, so nobody could write to it, and "
        "volumes would lose their devices.",
        hint="Choose another target, such as a new dataset beside it.",
    )


def _check_unmounted(strangers: t.Sequence[Dataset]) -> None:
    """:raises Refused: something that is not migrated is in use where datasets are unmounted, and opened for a while"""
    mounted = [one for one in strangers if one.mounted]
    if mounted:
        raise Refused(
            f"These are below the target, are not migrated, and are mounted: {_shown(mounted)}. The target is "
            "unmounted while it is copied to, with all that is mounted below it.",
            hint="Unmount them until the migration is finalized, or rename them to somewhere else.",
        )


def _warn(draft: Draft, strangers: t.Sequence[Dataset]) -> None:
    warn_of_strangers(draft)
    if strangers:
        draft.warnings.append(
            f"They inherit from '{draft.wanted.target}' that it can't be written to until it is finalized, and that "
            "volumes have no devices, unless they have values of their own."
        )


def _shown(datasets: t.Sequence[Dataset]) -> str:
    return ", ".join(f"'{one.name}'" for one in datasets[:10]) + (" ..." if len(datasets) > 10 else "")


def _unmount(draft: Draft, due: t.Sequence[_Due]) -> None:
    """Nobody else may write to what is copied to. The deepest comes first: what is mounted below goes along.

    What is below the top can be written to while the top is, since it inherits that.
    """
    names = draft.names if any(one.top for one in due) else [one.name for one in due]
    found = {name: draft.replica(name) for name in names}
    replicas = {name: replica for name, replica in found.items() if replica is not None and replica.mounted}
    depth = {name: replica.value("mountpoint").rstrip("/").count("/") for name, replica in replicas.items()}
    for name in sorted(replicas, key=lambda name: (-depth[name], name)):
        target = replicas[name].name
        draft.steps.append(
            Step(
                f"Unmount '{target}', which is not to be used before it is finalized",
                AtTarget(Command(("zfs", "unmount", target))),
                (Change(("mounted", target), True, False),),
                hint="It is in use: see 'fuser -m'.",
                branch=name,
            )
        )


def _record(draft: Draft, found: Found) -> None:
    """On a target that was there before; a new one gets it when it is made."""
    top, before = draft.replica(draft.wanted.source), found.record(SOURCE_RECORD)
    if top is None or before == found.source_id:
        return
    draft.steps.append(
        Step(
            f"Record on '{top.name}' that it is a migration of '{draft.wanted.source}'",
            AtTarget(Command(("zfs", "set", f"{SOURCE_RECORD}={found.source_id}", top.name))),
            (Change(("migration", top.name, "source"), before or None, found.source_id),),
            branch=draft.wanted.source,
        )
    )


@dataclass(frozen=True)
class _Due:
    """A dataset, and what it is to be brought up to."""

    wanted: Migration
    draft: Draft
    found: Found
    name: str
    goal: Snapshot

    @property
    def replica(self) -> Dataset | None:
        return self.draft.replica(self.name)

    @property
    def dataset(self) -> Dataset:
        return self.draft.ends.source.datasets[self.name]

    @property
    def target(self) -> str:
        return self.draft.wanted.at_target(self.name)

    @property
    def guid(self) -> str:
        return self.dataset.value("guid")

    @property
    def size(self) -> str:
        """The size of a volume in the state that is copied. Since then it may have got another one."""
        return self.goal.volsize or self.dataset.value("volsize")

    @property
    def skip(self) -> tuple[str, ...]:
        return self.wanted.skipped(self.name)

    @property
    def top(self) -> bool:
        return self.name == self.draft.wanted.source

    @property
    def done(self) -> bool:
        """Whether the target holds that. What is still to be taken has no GUID that a record could have."""
        if self.replica is None:
            return False
        state = state_of(self.dataset, self.goal, self.found.imported, self.skip)
        return is_current(self.replica, self.draft.replicas[self.name], state)

    def steps(self) -> t.Iterator[Step]:
        if self.replica is None:
            yield self._create()
        elif self._other_size():
            yield Step(
                f"Set volsize={self.size} on '{self.target}', as it is at the source",
                AtTarget(Command(("zfs", "set", f"volsize={self.size}", self.target))),
                (Change(("properties", self.target, "volsize"), self.replica.value("volsize"), self.size),),
                branch=self.name,
            )
        yield self._copy()

    def _other_size(self) -> bool:
        return self.replica is not None and self.replica.value("volsize") != self.size

    # --- the dataset itself ----------------------------------------------------------------------------------------

    def _create(self) -> Step:
        """A dataset that is encrypted from its first byte on, and is known as ours."""
        wanted = self.draft.wanted
        key = wanted.own_key(self.name)
        record = Copied(self.guid, NONE, under_way(self.goal.name, {}))
        values = {COPY_RECORD: record.text(), **self._settings()}
        argv = ["zfs", "create"]
        if self.dataset.value("type") == "volume":
            argv += ["-s", "-V", self.size]
            values["volblocksize"] = self.dataset.value("volblocksize")
        else:
            argv += ["-u"]
        changes = [Change(("datasets", self.target), None, self.dataset.value("type"))]
        stdin = None
        if self.top:
            values[SOURCE_RECORD] = self.found.source_id
            changes.append(Change(("migration", self.target, "source"), None, self.found.source_id))
        if key is not None:
            values.update(key.properties(wanted.cipher))
            stdin = key.by_hand.stdin() if key.by_hand is not None else None
        for one, value in values.items():
            argv += ["-o", f"{one}={value}"]
        how = f"with a key of its own ({key.format})" if key is not None else f"with the key of '{self._root()}'"
        return Step(
            f"Create '{self.target}', encrypted {how}",
            AtTarget(Command((*argv, self.target), stdin=stdin)),
            tuple(changes),
            branch=self.name,
        )

    def _root(self) -> str:
        """The dataset whose key a new one uses."""
        wanted = self.draft.wanted
        above = self.draft.ends.target.datasets.get(wanted.above)
        return wanted.root_of(self.name, "" if above is None else above.root)

    def _settings(self) -> dict[str, str]:
        """The properties that streams carry, too, and those that can't be set later."""
        filesystem = self.dataset.value("type") == "filesystem"
        given = dict(self.draft.settings(self.name))
        if filesystem:
            for one in FIXED:
                given.setdefault(one, self.dataset.value(one))
            if self.top and self.dataset.value("acltype") == "posix":
                # It may have it from a dataset above, of which nothing is copied.
                given.setdefault("acltype", "posix")
        return {
            one: value
            for one, value in given.items()
            if value is not None and value != "-" and (filesystem or one not in FILESYSTEM_ONLY)
        }

    # --- what it holds ---------------------------------------------------------------------------------------------

    def _copy(self) -> Step:
        draft, goal, replica = self.draft, self.goal, self.replica
        kind = self.dataset.value("type")
        record = None if replica is None else copied_record(replica)
        has = draft.replicas.get(self.name, [])
        head = state_of_head(self.dataset, self.found.imported) if goal.head else ""
        how = "block by block" if kind == "volume" else "file by file"
        title = f"Copy '{self.name}' up to {draft.title_of(goal.name)} to '{self.target}', {how}"
        estimate = self.dataset.value("usedbydataset")
        one = Pass(
            title,
            self.name if goal.head else f"{self.name}@{goal.name}",
            self.target,
            goal.name,
            kind == "volume",
            head or ("" if goal.createtxg == FUTURE else goal.guid),
            NONE if record is None else record.snapshot,
            tuple(one.name for one in has),
            _WRITTEN_TO[kind],
            {one: self._afterwards(one, record) for one in _WRITTEN_TO[kind]},
            self.skip,
            self.guid,
            int(estimate) if estimate.isdigit() else 0,
            draft.wanted.stall_timeout,
            new=replica is None,
            empty=replica is not None and record is None,
            resumed=record is not None and not record.whole,
        )
        before = f"@{has[-1].name}" if has else None
        change = Change(("replicas", self.target), before, draft.title_of(goal.name))
        return Step(title, one, (change,), branch=self.name)

    def _afterwards(self, one: str, record: Copied | None) -> str | None:
        """What a property is set to when the data is there; None for what it inherits."""
        if self.top:
            return overrides(self.draft.wanted).get(one)
        if record is not None and record.under_way:
            # What it has now is what the pass has set that was killed.
            return record.kept.get(one)
        own = None if self.replica is None else self.replica.properties.get(one)
        # Nobody is to write to it before it is finalized, and then it inherits that one may.
        return own.value if own is not None and own.own and (one, own.value) != ("readonly", "off") else None
