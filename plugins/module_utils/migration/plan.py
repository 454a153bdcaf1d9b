# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what is done to come from one stage of a migration to the next. It looks at nothing but what was read."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ..command import Command, Runner
from ..errors import Refused
from ..plan import Change, Plan, Step
from ..zfs.names import within
from ..zfs.properties import filesystem_type, same
from ..zfs.replicate_checks import check_promise, selected
from ..zfs.replicate_options import ALWAYS, Replication
from ..zfs.replicate_plan import plan_replication, takes_snapshot
from ..zfs.replicate_read import read_ends, read_snapshots
from ..zfs.replicate_run import AtTarget, Transfer, replica_runner
from ..zfs.replicate_state import HEAD, HEAD_MARK, Ends
from ..zfs.state import read_datasets, run_zfs
from .checks import notes, refusals
from .compare import Compare, ReadAll, SeeHealthy
from .copy_compare import CompareTree
from .copy_plan import not_copied, plan_copies
from .copy_run import Pass
from .options import CHECKSUMS, FINALIZED, FULL, PLANNED, STREAMS, SYNCED, VERIFIED, Migration
from .proof import LockProof, ProofKey, key_of_proof, order_to_unmount, own_keys_of_proof
from .read import RESERVATIONS, size
from .state import (
    FINAL_RECORD,
    SOURCE_RECORD,
    VERIFIED_RECORD,
    Found,
    Verified,
    fingerprint,
    verified_record,
)

# What tells how far it is while it runs, under its title.
_TOLD = (Transfer, Compare, ReadAll, Pass, CompareTree)
# What a step of a replication changes when it changes the data of the target.
_DATA = ("replicas", "snapshots", "broken_streams", "written")
_NO_ROOM = (
    "If it is room that the target lacks: make some, or leave this out by 'properties: {{{0}: null}}', and run it "
    "again. The target is as it was verified, and can't be written to yet."
)
# What a source that can be written to is closed for in the end, by what is compared.
_CLOSED_FOR = {
    STREAMS: "From then on nobody can write to the source. What was written until then is brought to the target before "
    "that one can be written to.",
    CHECKSUMS: "From then on nobody can write to the source. Before the target can be written to, what was written "
    "until then is brought there, and the newest state of every dataset is read at both ends as a whole, which may "
    "take hours.",
    FULL: "From then on nobody can write to the source. Before the target can be written to, what was written until "
    "then is brought there, the newest state of every dataset is read at both ends as a whole, and all snapshots of "
    "the target are read, which may take hours.",
}
# The same, where the target is brought up to a snapshot that was asked for by its name.
_STAYS = "From then on nobody can write to the source. What was written since @{} stays behind, and is in it alone. "
_CLOSED_AT = {
    STREAMS: _STAYS + "What is lacking up to there is brought to the target before that one can be written to.",
    CHECKSUMS: _STAYS + "Before the target can be written to, what is lacking up to there is brought to it. Unless it "
    "is verified already, every dataset is then read at both ends as a whole, as it was at that time, which may take "
    "hours.",
    FULL: _STAYS + "Before the target can be written to, what is lacking up to there is brought to it. Unless it is "
    "verified already, every dataset is then read at both ends as a whole, as it was at that time, and all snapshots "
    "of the target are read, which may take hours.",
}


def plan_migration(wanted: Migration, found: Found) -> Plan:
    """The steps up to the stage that is asked for, and none beyond it.

    :raises Refused: it can't be begun, or gone on with; every reason that can be seen is in the message
    """
    if found.finalized:
        return _finished(wanted, found)
    replication = _replication(wanted, found)
    streams, problems = _streams(wanted, replication, found)
    problems = [*refusals(wanted, found), *problems]
    if problems:
        raise Refused("The migration can't be begun or gone on with: " + " / ".join(problems), refusals=problems)
    if wanted.state == PLANNED:
        return Plan(warnings=(*notes(wanted, found), *streams.warnings))
    goal = _goal(replication, found.ends, streams)
    verify = _verify(wanted, found, goal, _brings_data(streams)) if wanted.reaches(VERIFIED) else []
    steps = _source_readonly(wanted, found)
    if verify or _brings_data(streams):
        steps += _forget(found)
    steps += _numbered(streams.steps)
    if replication.streams:
        steps += _record_source(found)
    last = [*verify, *(_finalize(wanted, found, goal) if wanted.reaches(FINALIZED) else [])]
    steps += last if replication.streams else _behind_all(wanted, streams, last)
    return Plan(tuple(steps), (*_closed_too(wanted, found), *streams.warnings), in_order=streams.in_order)


def _behind_all(wanted: Migration, streams: Plan, steps: t.Sequence[Step]) -> list[Step]:
    """What is only done when every dataset has come over, since they fail one by one."""
    branches = tuple(dict.fromkeys(step.branch for step in streams.steps if step.branch))
    return [replace(step, branch=f"state={wanted.state}", after=branches) for step in steps]


def planned_streams(wanted: Migration, found: Found) -> Plan:
    """What bringing the target up to date takes, as far as it can be seen."""
    if found.finalized:
        return Plan()
    return _streams(wanted, _replication(wanted, found), found)[0]


def reached(wanted: Migration, found: Found) -> str:
    """The last stage of which all can be seen to be done."""
    if found.finalized:
        return FINALIZED
    if found.target is None:
        return PLANNED
    streams, problems = _streams(wanted, found.wanted, found)
    if problems or _brings_data(streams) or found.record(SOURCE_RECORD) != found.source_id:
        return PLANNED
    record = verified_record(found.record(VERIFIED_RECORD))
    return VERIFIED if record is not None and record.covers(STREAMS, _fingerprint(found)) else SYNCED


def closing(wanted: Migration, found: Found) -> list[str]:
    """What FINALIZED does to a source that can be written to, whatever is asked for now; nothing to another one."""
    if found.finalized:
        return []
    last = replace(wanted, state=FINALIZED)
    closed = [step.title for step in _source_readonly(last, found)]
    at = found.wanted.snapshot
    closed_for = _CLOSED_AT[wanted.verify].format(at) if at else _CLOSED_FOR[wanted.verify]
    return [*closed, closed_for, *_closed_too(last, found)] if closed else []


# --- what is asked of the replication -------------------------------------------------------------------------------


def _replication(wanted: Migration, found: Found) -> Replication:
    """What is written while the source is made read-only has to come along, too."""
    if wanted.reaches(FINALIZED) and _writable(found) and not found.wanted.snapshot:
        return replace(found.wanted, snapshot_when=ALWAYS)
    return found.wanted


def _streams(wanted: Migration, replication: Replication, found: Found) -> tuple[Plan, list[str]]:
    try:
        if replication.streams:
            return plan_replication(replication, found.ends), []
        return plan_copies(wanted, replication, found), []
    except Refused as error:
        return Plan(), [str(error)]


def _brings_data(streams: Plan) -> bool:
    return any(change.path[0] in _DATA for step in streams.steps for change in step.changes)


def _numbered(steps: t.Sequence[Step]) -> list[Step]:
    """The same steps; what is told while they run says how many streams or readings there are."""
    total = sum(isinstance(step.action, _TOLD) for step in steps)
    done: list[Step] = []
    number = 0
    for step in steps:
        if isinstance(step.action, _TOLD):
            number += 1
            step = replace(step, action=replace(step.action, title=f"{number} of {total}: {step.action.title}"))
        done.append(step)
    return done


def _goal(replication: Replication, ends: Ends, streams: Plan) -> dict[str, str]:
    """The snapshot that each dataset is brought up to, by its name at the source."""
    names = selected(replication, ends.source)
    if replication.heads:
        return {name: ends.source.of(name)[-1].name for name in names}
    if takes_snapshot(streams):
        newest = replication.new_snapshot
    else:
        newest = ends.taken or replication.snapshot or ends.source.of(replication.source)[-1].name
    return dict.fromkeys(names, newest)


# --- the source -----------------------------------------------------------------------------------------------------


def _writable(found: Found) -> list[str]:
    """The datasets that have to be made read-only: the top, and what has a value of its own."""
    if found.read_only:
        return []
    wanted, datasets = found.wanted, found.ends.source.datasets
    return [
        name
        for name in selected(wanted, found.ends.source)
        if datasets[name].value("readonly") != "on"
        and (name == wanted.source or datasets[name].properties["readonly"].own)
    ]


def _source_readonly(wanted: Migration, found: Found) -> list[Step]:
    if not wanted.reaches(FINALIZED):
        return []
    return [
        Step(
            f"Set readonly=on on '{name}', so that nothing is written to the source any more",
            Command(("zfs", "set", "readonly=on", name)),
            (Change(("source", name, "readonly"), "off", "on"),),
        )
        for name in _writable(found)
    ]


def _closed_too(wanted: Migration, found: Found) -> list[str]:
    """Warnings of what is not migrated, and inherits that it can't be written to any more."""
    if not wanted.reaches(FINALIZED):
        return []
    closed, datasets = _writable(found), found.ends.source.datasets
    chosen = set(selected(found.wanted, found.ends.source))
    told = []
    for name in sorted(set(datasets) - chosen):
        above = name
        while above in datasets and above not in closed and not datasets[above].properties["readonly"].own:
            above = above.rpartition("/")[0]
        if above in closed:
            told.append(
                f"'{name}' is left out, and inherits readonly=on from '{above}': what uses it can't write there any "
                f"more. To keep it as it is, 'zfs set readonly=off {name}' before."
            )
    if closed and not found.wanted.recursive:
        told.append(f"What lies below '{found.wanted.source}' is left out, and inherits readonly=on from it.")
    return told


def _record_source(found: Found) -> list[Step]:
    before, after = found.record(SOURCE_RECORD), found.source_id
    if before == after:
        return []
    target = found.wanted.target
    return [
        _set(
            f"Record on '{target}' that it is a migration of '{found.wanted.source}'",
            target,
            SOURCE_RECORD,
            after,
            Change(("migration", target, "source"), before or None, after),
        )
    ]


# --- verified -------------------------------------------------------------------------------------------------------


def _fingerprint(found: Found) -> str:
    wanted = found.wanted
    names = [wanted.at_target(name) for name in selected(wanted, found.ends.source)]
    target = found.ends.target
    return fingerprint(names, target.datasets, target.snapshots, found.source_id, found.imported)


def _forget(found: Found) -> list[Step]:
    """Before the first stream, so that a run that is cut short leaves no record that fits."""
    target = found.wanted.target
    if not found.record(VERIFIED_RECORD):
        return []
    return [
        Step(
            f"Forget that an earlier state of '{target}' was verified",
            AtTarget(Command(("zfs", "inherit", VERIFIED_RECORD, target))),
        )
    ]


def _verify(wanted: Migration, found: Found, goal: t.Mapping[str, str], brings_data: bool) -> list[Step]:
    target = found.wanted.target
    record = verified_record(found.record(VERIFIED_RECORD))
    if not brings_data and record is not None and record.covers(wanted.verify, _fingerprint(found), wanted.again):
        return []
    proof = key_of_proof(wanted, found)
    if proof is None:
        raise Refused(f"Nothing is known of the key of '{target}'.", hint="Give it as 'proof_key'.")
    root = found.root.name if found.root is not None else target
    if found.root is not None:
        # Better now than after hours of copying.
        for one in (found.root, *found.roots.values()):
            order_to_unmount(one.users, one.others, target)
    steps = [_see_arrived(wanted, found, "" if found.wanted.heads else goal[found.wanted.source])]
    if wanted.verify != STREAMS:
        steps += _numbered(_comparisons(wanted, found, goal))
    if wanted.verify == FULL:
        steps += _numbered(_readings(found, goal))
    if wanted.verify != STREAMS:
        pool = target.split("/")[0]
        steps.append(Step(f"See that the pool '{pool}' knows of no damage", AtTarget(SeeHealthy(pool))))
    steps.append(_proof(root, target, goal[found.wanted.source], proof))
    for name, key in own_keys_of_proof(found).items():
        own = found.wanted.at_target(name)
        steps.append(_proof(own, own, goal[name], key))
    newest = {found.wanted.at_target(name): one for name, one in goal.items()}
    before = f"{record.level}, of another {'run' if wanted.again else 'state or less'}" if record else None
    steps.append(
        Step(
            f"Record on '{target}' that it is verified ({wanted.verify})",
            RecordVerified(target, newest, found.source_id, wanted.verify, found.imported, wanted.again),
            (Change(("migration", target, "verified"), before, wanted.verify),),
        )
    )
    return steps


def _proof(root: str, target: str, snapshot: str, proof: ProofKey) -> Step:
    return Step(
        f"Lock '{root}' for a moment, see that '{target}' can't be read, and unlock it with the key that is kept",
        AtTarget(LockProof(root, target, f"{target}@{snapshot}", proof)),
    )


def _see_arrived(wanted: Migration, found: Found, goal: str) -> Step:
    where = found.wanted.where
    if found.wanted.streams:
        return Step(
            f"See that everything at {where} is encrypted, and has the snapshots of the source by GUID",
            SeeSnapshots(found.wanted, goal),
        )
    return Step(
        f"See that everything at {where} is encrypted, and was copied",
        SeeCopied(wanted, found.wanted, goal, found.imported),
    )


def _comparisons(wanted: Migration, found: Found, goal: t.Mapping[str, str]) -> list[Step]:
    replication = found.wanted
    patience, streams = replication.stall_timeout, replication.streams
    steps = []
    for name, snapshot in goal.items():
        dataset, target = found.ends.source.datasets[name], replication.at_target(name)
        volume = dataset.value("type") == "volume"
        how = "block by block" if streams or volume else "file by file"
        title = f"Compare the newest state of '{target}' with '{name}', {how}"
        source, copy = name if snapshot == HEAD else f"{name}@{snapshot}", f"{target}@{snapshot}"
        estimate = size(dataset.properties, "usedbydataset")
        if streams or volume:
            steps.append(Step(title, Compare(title, source, copy, estimate, patience, volumes=not streams)))
        else:
            skip = wanted.skipped(name)
            steps.append(Step(title, CompareTree(title, source, copy, skip, estimate, patience)))
    return steps


def _readings(found: Found, goal: t.Mapping[str, str]) -> list[Step]:
    wanted = found.wanted
    steps = []
    for name, newest in goal.items():
        target = wanted.at_target(name)
        title = f"Read all snapshots of '{target}'"
        # Where no stream was sent, there is none but the newest.
        first = next((one.name for one in found.ends.source.of(name) if wanted.streams), newest)
        estimate = size(found.ends.source.datasets[name].properties, "usedbysnapshots")
        steps.append(
            Step(title, ReadAll(title, target, first, newest, estimate, wanted.stall_timeout, not wanted.streams))
        )
    return steps


@dataclass(frozen=True)
class SeeSnapshots:
    """Looks at both ends as they are now: all is encrypted, and no snapshot of the source is missing or another one.

    ``goal`` is the last snapshot that counts, "" for all there is.
    """

    wanted: Replication
    goal: str

    def __call__(self, runner: Runner) -> None:
        _see_all(
            runner,
            self.wanted,
            self.goal,
            lambda ends: missing_snapshots(self.wanted, ends, self.goal),
            "A snapshot that was taken or destroyed meanwhile is one reason. Run this again.",
        )


def missing_snapshots(wanted: Replication, ends: Ends, goal: str) -> list[str]:
    """What the target lacks of the source, up to a snapshot; "" for all there is."""
    faults: list[str] = []
    for name in selected(wanted, ends.source):
        target = wanted.at_target(name)
        has = {one.guid for one in ends.target.of(target)}
        if target not in ends.target.datasets:
            faults.append(f"'{target}' is missing")
            continue
        ours = ends.source.of(name)
        newest = next((one.createtxg for one in ours if one.name == goal), None)
        if goal and newest is None:
            faults.append(f"'{name}' has no snapshot @{goal}")
            continue
        faults += [
            f"'{target}' has no @{one.name} of the source"
            for one in ours
            if one.guid not in has and (newest is None or one.createtxg <= newest)
        ]
    return faults


@dataclass(frozen=True)
class SeeCopied:
    """Looks at both ends as they are now: all is encrypted, and every dataset holds what the source had at ``goal``.

    ``goal`` is the snapshot that was copied, "" for all there is. ``imported`` as in Found.
    """

    wanted: Migration
    replication: Replication
    goal: str
    imported: str

    def __call__(self, runner: Runner) -> None:
        _see_all(
            runner,
            self.replication,
            self.goal,
            lambda ends: not_copied(self.wanted, self.replication, ends, self.imported, self.goal),
            "A dataset that was made or written to meanwhile is one reason. Run this again.",
        )


def _see_all(runner: Runner, wanted: Replication, goal: str, lacking: t.Callable[[Ends], list[str]], hint: str) -> None:
    """Read both ends anew.

    :raises Refused: something at the target is not encrypted, or is lacking
    """
    ends = read_ends(replica_runner(runner), wanted, goal)
    check_promise(wanted, ends, selected(wanted, ends.source))
    faults = lacking(ends)
    if faults:
        raise Refused(
            f"Not everything has arrived at {wanted.where}: {'; '.join(faults[:20])}.", hint=hint, missing=faults
        )


@dataclass(frozen=True)
class RecordVerified:
    """Records that just this state was verified, by the GUIDs of the snapshots that were compared.

    ``newest`` has their names by dataset of the target, ``run`` is this one if it has to be known by its name.
    """

    target: str
    newest: t.Mapping[str, str]
    source_id: str
    level: str
    imported: str
    run: str = ""

    def __call__(self, runner: Runner) -> None:
        there = replica_runner(runner).target
        snapshots, _bookmarks = read_snapshots(there, self.target, True)
        other = [
            name for name, goal in self.newest.items() if [one.name for one in snapshots.get(name, ())][-1:] != [goal]
        ]
        if other:
            raise Refused(
                f"Somebody took or destroyed snapshots of {', '.join(repr(name) for name in other)} meanwhile.",
                hint="Nothing was recorded. Destroy those, and run this again.",
            )
        datasets = read_datasets(there, (self.target,), (HEAD_MARK,), True)
        state = fingerprint(self.newest, datasets, snapshots, self.source_id, self.imported)
        record = Verified(self.level, state, self.run)
        run_zfs(there, Command(("zfs", "set", f"{VERIFIED_RECORD}={record.text()}", self.target)))


# --- finalized ------------------------------------------------------------------------------------------------------


def _finished(wanted: Migration, found: Found) -> Plan:
    """The target is in use; nothing is sent to it any more.

    :raises Refused: that is asked for, or something of it is not encrypted
    """
    clear = [
        one.name
        for one in found.ends.target.datasets.values()
        if within(one.name, (found.wanted.target,)) and not one.encrypted
    ]
    if clear:
        raise Refused(
            f"The migration was finished, and these at the target are NOT ENCRYPTED: "
            f"{', '.join(repr(name) for name in clear)}."
        )
    there = found.ends.target.datasets
    lacking = [name for name in found.wanted.include if found.wanted.at_target(name) not in there]
    if lacking:
        raise Refused(
            f"The migration to {found.wanted.where} was finished without what 'include' names: "
            f"{', '.join(repr(name) for name in lacking)}. Nothing is sent there any more.",
            hint="Migrate these with a 'source' and a 'target' of their own.",
        )
    if wanted.state in (SYNCED, VERIFIED):
        raise Refused(
            f"The migration to {found.wanted.where} was finished, and the target is in use: nothing is sent there any "
            "more, and it can't be compared with what it was.",
            hint="To migrate once more, choose another target.",
        )
    return Plan()


def _finalize(wanted: Migration, found: Found, goal: t.Mapping[str, str]) -> list[Step]:
    """Let the target be written to, give it what it had to do without, and record that it is in use."""
    top, given = found.wanted.target, wanted.replication.properties
    steps: list[Step] = []
    # What was written since a snapshot that was asked for by its name is to stay behind.
    if not found.read_only and not found.wanted.snapshot:
        steps.append(
            Step(
                f"See that nothing was written to '{found.wanted.source}' since what the target has",
                SeeQuiet(found.wanted.source, goal),
            )
        )
    # There may be no room for them. As long as the target can't be written to, all of this can be done again.
    for name in selected(found.wanted, found.ends.source):
        for one in RESERVATIONS:
            if one not in given:
                steps += _late(found, name, one, _NO_ROOM.format(one))
    if "readonly" not in given:
        steps.append(
            Step(
                f"Let '{top}' be written to",
                AtTarget(Command(("zfs", "inherit", "readonly", top))),
                (Change(("properties", top, "readonly"), "on", None),),
            )
        )
    # With its nodes a volume would be found read-only by whoever opens it before that.
    for name in selected(found.wanted, found.ends.source):
        if "volmode" not in given:
            steps += _late(found, name, "volmode")
    steps.append(
        Step(
            f"Record on '{top}' that it has taken the place of '{found.wanted.source}'",
            RecordFinal(top),
            (Change(("migration", top, "finalized"), False, True),),
        )
    )
    return steps


def _late(found: Found, name: str, one: str, hint: str = "") -> t.Iterator[Step]:
    """A setting of the source that the target could not have before."""
    target = found.wanted.at_target(name)
    own, replica = found.ends.source.datasets[name].properties.get(one), found.ends.target.datasets.get(target)
    if own is not None and own.own and own.value not in ("-", "0"):
        now = None if replica is None else replica.properties.get(one)
        if now is None or not now.own or not same(own.value, now.value, filesystem_type(one)):
            yield _set(
                f"Set property {one}={own.value} on '{target}', as it is at the source",
                target,
                one,
                own.value,
                Change(("properties", target, one), None, own.value),
                hint,
            )
    elif one == "volmode" and name == found.wanted.source:
        yield Step(
            f"Unset property volmode of '{target}'",
            AtTarget(Command(("zfs", "inherit", one, target))),
            (Change(("properties", target, one), "none", None),),
        )


@dataclass(frozen=True)
class SeeQuiet:
    """Nothing was written to the source since these snapshots, by dataset.

    That it is read-only is not enough: who has opened a volume before may go on writing to it.
    """

    source: str
    goal: t.Mapping[str, str]

    def __call__(self, runner: Runner) -> None:
        # What was written a moment ago does not show before it is on the disks.
        run_zfs(runner, Command(("zpool", "sync", self.source.split("/")[0])))
        busy: list[str] = []
        for snapshot in sorted(set(self.goal.values())):
            written = f"written@{snapshot}"
            names = sorted(name for name, one in self.goal.items() if one == snapshot)
            found = read_datasets(runner, names, (written,))
            busy += [name for name in names if found[name].value(written) != "0"]
        if busy:
            raise Refused(
                f"The source is read-only, and is still written to: {', '.join(repr(name) for name in busy)}.",
                hint="Close what uses it, such as an iSCSI target or a virtual machine that has a volume open. Nothing "
                "is lost: run this again, and what was written comes along.",
                written=busy,
            )


@dataclass(frozen=True)
class RecordFinal:
    """Records that the target is in use, by what it was verified as."""

    target: str

    def __call__(self, runner: Runner) -> None:
        there = replica_runner(runner).target
        text = run_zfs(there, Command(("zfs", "get", "-H", "-s", "local", "-o", "value", VERIFIED_RECORD, self.target)))
        record = verified_record(text.strip())
        if record is None:
            raise Refused(f"'{self.target}' is not recorded as verified.")
        run_zfs(there, Command(("zfs", "set", f"{FINAL_RECORD}={record.fingerprint}", self.target)))


def _set(title: str, target: str, name: str, value: str, change: Change, hint: str = "") -> Step:
    return Step(title, AtTarget(Command(("zfs", "set", f"{name}={value}", target))), (change,), hint=hint)
