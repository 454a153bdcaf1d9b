# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what is sent, in which order, and what is refused. It looks at nothing but what was read."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from ..command import Command
from ..errors import Refused
from ..plan import Change, Plan, Step
from . import keystore
from .names import inherited_mountpoint, lies_below, within
from .property_steps import dataset_property_steps, with_altroot
from .replicate_checks import check_keys, check_new_target, check_pools, check_promise, check_source, in_order
from .replicate_draft import NEW, Draft, overrides
from .replicate_options import ALWAYS, RAW, REENCRYPT, Replication
from .replicate_run import KEY_FD, AtTarget, StoreTargetKey
from .replicate_state import FUTURE, Ends, Snapshot, Token


def plan_replication(wanted: Replication, ends: Ends) -> Plan:
    """The steps that bring the target up to date.

    :raises Refused: the source can't be sent so, or the target is not, or would not be, its replica
    """
    draft = begin(wanted, ends)
    _broken_streams(draft)
    if wanted.source not in draft.replicas:
        check_new_target(wanted, ends)
    for name in draft.names:
        _check_replica(draft, name)
    _check_renamed(draft)
    to = plan_snapshot(draft)
    if wanted.mode == REENCRYPT:
        store_keys(draft)
    _warn_of_keys(draft)
    _send(draft, to)
    _check_roots(draft)
    _key_locations(draft)
    plan_properties(draft)
    _retention(draft)
    warn_of_strangers(draft)
    return Plan(tuple(draft.steps), tuple(draft.warnings))


def begin(wanted: Replication, ends: Ends) -> Draft:
    """A draft without steps, of what is to be replicated.

    :raises Refused: it can't be had of the source, or what is at the target is not encrypted as the mode says
    """
    names = in_order(wanted, ends.source)
    if ends.taken and not wanted.heads:
        # What was made meanwhile is for the next run.
        names = [name for name in names if any(one.name == ends.taken for one in ends.source.of(name))]
    check_source(wanted, ends.source, names)
    check_pools(wanted, ends)
    check_keys(wanted, ends, names)
    draft = Draft(wanted, ends, names)
    if wanted.target in ends.target.datasets:
        check_promise(wanted, ends, names)
    return draft


def whole_tree(draft: Draft) -> bool:
    """Whether streams of the whole tree are used, the only ones that tell the target which datasets have own keys."""
    wanted = draft.wanted
    return wanted.mode == RAW and wanted.recursive and wanted.send_properties and draft.ends.source.can_exclude


def takes_snapshot(plan: Plan) -> bool:
    """Whether a plan takes a snapshot."""
    return any(change.path[0] == "snapshots" and change.after == NEW for step in plan.steps for change in step.changes)


# --- what is there --------------------------------------------------------------------------------------------------


def _broken_streams(draft: Draft) -> None:
    """Go on with what broke off, or take it away if that is asked for."""
    wanted = draft.wanted
    for name in draft.names:
        target = wanted.at_target(name)
        token = draft.ends.target.tokens.get(target)
        if token is None:
            continue
        if wanted.resume and not _went_its_own_way(draft, name):
            _check_token(draft, name, token)
            draft.resume(name, token.value, token.guid)
            continue
        draft.steps.append(
            Step(
                f"Discard what was received of a stream to '{target}' that broke off",
                AtTarget(Command(("zfs", "receive", "-A", target))),
                (Change(("broken_streams", target), "kept", None),),
            )
        )
        if not draft.replicas.get(name):
            draft.replicas.pop(name, None)
            draft.discarded.add(name)


def _went_its_own_way(draft: Draft, name: str) -> bool:
    """Whether the rest of a stream would not fit, since something else was done to the replica meanwhile."""
    has, base, dataset = draft.replicas.get(name), draft.base(name), draft.replica(name)
    if not has:
        return False
    written = dataset is not None and dataset.written
    return base is None or base.snapshot.guid != has[-1].guid or written


def _check_token(draft: Draft, name: str, token: Token) -> None:
    fault = token.stale
    if not fault and token.raw != (draft.wanted.mode == RAW):
        fault = f"it is {'raw' if token.raw else 'not raw'}, and mode is '{draft.wanted.mode}'"
    if not fault and all(one.guid != token.guid for one in draft.snapshots[name]):
        fault = f"'{name}' has no such snapshot any more"
    if fault:
        raise Refused(
            f"A stream to '{draft.wanted.at_target(name)}' broke off and can't be gone on with: {fault}.",
            hint="Set 'resume: false' to discard what was received of it, and send it anew.",
        )


def _check_replica(draft: Draft, name: str) -> None:
    """A dataset at the target has to be the replica it seems to be, and to have nothing that the source has not.

    :raises Refused: it is something else, or has gone its own way and may not be rolled back
    """
    if name not in draft.replicas:
        return
    wanted, target = draft.wanted, draft.wanted.at_target(name)
    has = draft.replicas[name]
    base = draft.base(name)
    if base is None:
        what = "has no snapshot in common with it" if has else "has no snapshots"
        raise Refused(
            f"'{target}' exists, but is no replica of '{name}': it {what}.",
            hint="Choose another target. If this one was a replica, and the snapshots that it had in common with the "
            "source were destroyed, it can't be continued: rename or destroy it, and send anew. If something is being "
            "received into it just now, wait.",
        )
    at_target = next(one for one in has if one.guid == base.snapshot.guid)
    _check_history(draft, name, base.snapshot, at_target)
    newer = has[has.index(at_target) + 1 :]
    dataset = draft.replica(name)
    written = dataset is not None and dataset.written and name not in draft.received
    if not newer and not written:
        return
    found = f"has snapshots of its own ({', '.join('@' + one.name for one in newer)})" if newer else "was written to"
    # A head is nobody's own: it came from here, and the next stream starts from the snapshot before it.
    own_head = wanted.migration and not written and [one.head for one in newer] == [True]
    if own_head:
        found = "was brought up to a state that the source has left since"
    if not wanted.force and not own_head:
        raise Refused(
            f"'{target}' {found} since @{at_target.name}, the last that came from '{name}'.",
            hint="Set 'force: true' to roll it back, which destroys that. Replicas are best kept read-only, without "
            "snapshots of their own.",
        )
    argv = ("zfs", "rollback", "-r", f"{target}@{at_target.name}")
    changes = tuple(Change(("snapshots", f"{target}@{one.name}"), "there", None) for one in newer)
    draft.steps.append(
        Step(
            f"Roll '{target}' back to @{at_target.name}: it {found}",
            AtTarget(Command(argv)),
            changes or (Change(("written", target), "since the last snapshot", None),),
        )
    )
    del has[has.index(at_target) + 1 :]


def _check_renamed(draft: Draft) -> None:
    """What was renamed at the source has to be renamed at the target: sent anew, it would collide with the old one.

    :raises Refused: naming the commands
    """
    wanted = draft.wanted
    lacking = {
        one.guid: wanted.at_target(name)
        for name in draft.names
        if name not in draft.replicas
        for one in draft.snapshots[name]
    }
    moved: dict[str, str] = {}
    for old in _strangers(draft):
        new = next((lacking[one.guid] for one in draft.ends.target.of(old) if one.guid in lacking), None)
        if new is not None:
            moved[old] = new
    if moved:
        commands = [f"'zfs rename {old} {new}'" for old, new in _renames(moved)]
        raise Refused(
            "These were renamed at the source, and their replicas were not: "
            f"{', '.join(repr(old) for old in moved)}. Sent anew, they would collide.",
            hint=f"Rename them at the target{' on ' + repr(wanted.ssh.host) if wanted.ssh else ''}: "
            f"{', then '.join(commands)}. Then run this again.",
        )


def _renames(moved: t.Mapping[str, str]) -> list[tuple[str, str]]:
    """What is to be renamed, one after the other, parents first: what lies below goes along."""
    done: list[tuple[str, str]] = []
    for old, new in moved.items():
        now = old
        for before, after in done:
            if within(now, (before,)):
                now = after + now[len(before) :]
        if now != new:
            done.append((now, new))
    return done


def _check_history(draft: Draft, name: str, ours: Snapshot, theirs: Snapshot) -> None:
    """Raw and other streams can't be mixed: the next raw one would not fit (IV set guid mismatch)."""
    if not ours.ivset or not theirs.ivset:
        return
    target = draft.wanted.at_target(name)
    if draft.wanted.mode == RAW and ours.ivset != theirs.ivset:
        raise Refused(
            f"'{target}' was received decrypted, and encrypted anew; raw increments do not fit to it.",
            hint="Keep to 'mode: reencrypt' for this target, or choose a new one.",
        )
    if draft.wanted.mode != RAW and ours.ivset == theirs.ivset:
        raise Refused(
            f"'{target}' is a raw replica; after an increment that is not raw no raw one would fit to it any more.",
            hint="Keep to 'mode: raw' for this target, or choose a new one.",
        )


# --- what is sent ---------------------------------------------------------------------------------------------------


def plan_snapshot(draft: Draft) -> str:
    """The name of the snapshot to bring the target up to; takes one if there is something new.

    :raises Refused: not all datasets have the one that is asked for
    """
    wanted = draft.wanted
    if wanted.heads:
        return ""
    given = draft.ends.taken or wanted.snapshot
    if given:
        lacking = [name for name in draft.names if draft.named(name, given) is None]
        if lacking:
            raise Refused(
                f"These have no snapshot @{given}: {', '.join(repr(name) for name in lacking)}.",
                hint="Take it of all of them ('zfs snapshot -r'), exclude them, or leave out 'snapshot' to have one "
                "taken.",
            )
        return given
    if not _needs_snapshot(draft):
        return draft.snapshots[wanted.source][-1].name
    new = wanted.new_snapshot
    if any(draft.named(name, new) for name in draft.names):
        raise Refused(f"There is a snapshot @{new} already.", hint="Run this again in a second.")
    whole = wanted.recursive and not wanted.exclude and not wanted.include
    full = (f"{wanted.source}@{new}",) if whole else tuple(f"{name}@{new}" for name in draft.names)
    below = f" and {len(draft.names) - 1} below it" if len(draft.names) > 1 else ""
    draft.steps.append(
        Step(
            f"Take a snapshot of '{wanted.source}'{below}",
            Command(("zfs", "snapshot", *(("-r",) if whole else ()), *full)),
            tuple(Change(("snapshots", name), None, NEW) for name in draft.names),
        )
    )
    for name in draft.names:
        draft.snapshots[name].append(Snapshot(new, f"new of {name}", FUTURE))
    return new


def _needs_snapshot(draft: Draft) -> bool:
    """Whether something has changed since the last snapshot of the task's own."""
    wanted = draft.wanted
    if wanted.snapshot_when == ALWAYS or not draft.snapshots[wanted.source]:
        return True
    last = draft.snapshots[wanted.source][-1].name
    if not wanted.own(last):
        return True
    for name in draft.names:
        if not draft.snapshots[name] or draft.snapshots[name][-1].name != last:
            return True
        if draft.ends.source.datasets[name].written:
            return True
    return wanted.mode == RAW and wanted.source in draft.replicas and _structure_differs(draft)


def _structure_differs(draft: Draft) -> bool:
    """Whether an increment is wanted for the keys alone: they travel with it, even if it holds nothing else."""
    # What a stream of a tree that broke off has left behind can only be sent on its own, as roots.
    behind = bool(draft.received) or any(name not in draft.replicas for name in draft.names)
    if whole_tree(draft) and len(draft.names) > 1 and behind:
        return True
    return any(_key_differs(draft, one) for one in draft.names)


def _key_differs(draft: Draft, name: str) -> bool:
    """Whether it can be seen that a replica is opened in another way than the source. A new hex or raw key can't."""
    replica, dataset = draft.replica(name), draft.ends.source.datasets[name]
    if replica is None:
        return False
    own = dataset.is_root or name == draft.wanted.source
    if replica.is_root != own:
        return whole_tree(draft)
    return dataset.is_root and any(
        replica.value(one) != dataset.value(one) for one in ("keyformat", "pbkdf2salt", "pbkdf2iters")
    )


def _send(draft: Draft, to: str) -> None:
    created = [name for name in draft.names if name not in draft.replicas]
    if whole_tree(draft) and _send_tree(draft, to):
        # The stream brings the structure along, but for what is above the top.
        _warn_of_roots(draft, [name for name in created if name == draft.wanted.source])
        return
    copies = []
    for name in draft.names:
        clone = draft.wanted.migration and draft.ends.source.datasets[name].value("origin") != "-"
        if clone and name not in draft.replicas and draft.origin(name) is None:
            copies.append(name)
        draft.send_one(name, draft.goal(name, to))
    _warn_of_roots(draft, created)
    _warn_of_copies(draft, copies)


def _warn_of_copies(draft: Draft, copies: t.Sequence[str]) -> None:
    """A clone whose origin is not at the target takes its whole space there."""
    if copies:
        shown = ", ".join(f"'{name}'" for name in copies[:10])
        draft.warnings.append(
            f"These are clones whose origin is not sent before them, and become whole copies: {shown}"
            f"{' ...' if len(copies) > 10 else ''}."
        )


def _send_tree(draft: Draft, to: str) -> bool:
    """Plan a stream of the whole tree, after what is needed for it to fit. False if none can fit."""
    wanted = draft.wanted
    if wanted.source not in draft.replicas:
        draft.send_tree(to, None)
        return True
    base = draft.base(wanted.source)
    if base is None or base.bookmark or base.name == f"@{to}":
        return False
    goal = draft.named(wanted.source, to)
    if goal is not None:
        draft.check_order(wanted.source, base, goal)
    start = base.snapshot.name
    for name in draft.names[1:]:
        if name in draft.replicas and draft.named(name, start) is None:
            # It was not there when that snapshot was taken, but its replica is: nothing that all have in common.
            return False
    for name in draft.names[1:]:
        # What broke off in the middle of a tree has left some behind.
        draft.send_one(name, start)
    draft.send_tree(to, base.snapshot)
    return True


def _check_roots(draft: Draft) -> None:
    """A raw increment brings the wrapped key along; only a stream of the tree makes its dataset the root of it.

    :raises Refused: a replica would hold a key that is wrapped for a root of its own, and not be one
    """
    if draft.wanted.mode != RAW or draft.packaged:
        return
    faults = []
    for name in draft.names:
        replica = draft.replica(name)
        if name not in draft.received or replica is None or replica.is_root:
            continue
        if draft.ends.source.datasets[name].is_root:
            faults.append(f"'{name}' has a key of its own, and '{replica.name}' uses that of '{replica.root}'")
    if faults:
        raise Refused(
            f"A raw increment of a single dataset would make these impossible to open: {'; '.join(faults)}.",
            hint="Replicate the whole tree ('recursive: true' and 'send_properties: true', up to a snapshot that is "
            "not there yet), which makes them roots at the target. Or rename such a replica away, to send it anew.",
        )


def _warn_of_roots(draft: Draft, created: t.Sequence[str]) -> None:
    """A dataset that is sent raw on its own has a key of its own at the target."""
    extra = [name for name in created if draft.wanted.mode == RAW and not draft.ends.source.datasets[name].is_root]
    if extra:
        shown = ", ".join(f"'{draft.wanted.at_target(name)}'" for name in extra[:10])
        draft.warnings.append(
            f"These become encryption roots of their own, each opened by the key of its source's root: {shown}"
            f"{' ...' if len(extra) > 10 else ''}. 'roots' in the result names the keys."
        )


def _warn_of_keys(draft: Draft) -> None:
    """Until its next increment a replica is opened by the key that the source had at the last one."""
    for name in draft.names:
        replica, dataset = draft.replica(name), draft.ends.source.datasets[name]
        if draft.wanted.mode != RAW or replica is None or not (dataset.is_root and replica.is_root):
            continue
        if any(replica.value(one) != dataset.value(one) for one in ("keyformat", "pbkdf2salt")):
            draft.warnings.append(
                f"The key of '{name}' was changed since the last increment. '{replica.name}' is opened by the former "
                "one until this one has arrived: keep both until you have seen the replica open."
            )


# --- afterwards -----------------------------------------------------------------------------------------------------


def store_keys(draft: Draft) -> None:
    """Make the key files of new replicas.

    :raises Refused: one is missing, or holds something else
    """
    for name in draft.names:
        if name not in draft.replicas:
            _store_key(draft, name, draft.ends.target.key_files.get(name))


def _store_key(draft: Draft, name: str, file: keystore.KeyFile | None) -> None:
    key, target = draft.wanted.own_key(name), draft.wanted.at_target(name)
    if key is None or key.file is None or file is None:
        return
    there = f"{key.file} {'on ' + repr(draft.wanted.ssh.host) if draft.wanted.ssh else 'on this host'}"
    mountpoint = _mountpoint(draft)
    if mountpoint.startswith("/") and lies_below(key.file, mountpoint):
        raise Refused(
            f"The key file {there} would lie below {mountpoint}, where the replica itself will be mounted.",
            hint=f"Keep it on the system disk, for example in {keystore.DEFAULT_FOLDER}.",
        )
    if not file.exists:
        if key.value is None and not key.generate:
            raise Refused(
                f"The key file {there} does not exist.",
                hint="Put the key there, give it as key.value, or set 'generate: true' for a new random key.",
            )
        if key.value is None:
            keystore.refuse_memory(target, file, there)
        draft.steps.append(
            Step(
                f"Write the {'given' if key.value else 'new random'} {key.format} key of {_where(draft, target)} to "
                f"{key.file}",
                StoreTargetKey(key.file, key.value, key.format, draft.wanted.ssh is not None),
                (Change(("key_files", key.file), None, f"{key.format} key of {target}"),),
            )
        )
        return
    if file.fault:
        raise Refused(f"The key file {there} can't be used: {file.fault}", hint="Correct or remove it.")
    if key.value is not None and file.key is not None and not key.value.same_as(file.key):
        raise Refused(
            f"The key file {there} holds another key than key.value.",
            hint="It may be the only copy of the key of something else, so it is not overwritten. Move it away.",
        )


def _where(draft: Draft, target: str) -> str:
    return f"'{target}'" + (f" on '{draft.wanted.ssh.host}'" if draft.wanted.ssh else "")


def _mountpoint(draft: Draft) -> str:
    """Where the replica is or will be mounted, by its own wish or below what is above it; "" if nobody knows."""
    top = draft.replica(draft.wanted.source)
    if top is not None:
        return top.value("mountpoint")
    above, leaf = draft.wanted.target.rsplit("/", 1)
    parent = draft.ends.target.datasets.get(above)
    inherited = parent.value("mountpoint") if parent is not None else "none"
    given = draft.wanted.properties.get("mountpoint")
    if given is not None:
        return with_altroot(_altroot(draft), given)
    return inherited_mountpoint(inherited, leaf)


def _altroot(draft: Draft) -> str:
    """What stands before every mountpoint of the target's pool, "" for nothing."""
    altroot = draft.ends.target.pool["altroot"].value
    return altroot if altroot.startswith("/") else ""


def _key_locations(draft: Draft) -> None:
    """A replica must not look for its key where the source has it: that file, if any, is another one there."""
    wanted = draft.wanted
    for name in draft.names:
        if wanted.mode == RAW:
            _raw_location(draft, name)
        key, replica = wanted.own_key(name), draft.replica(name)
        handed_over = key is not None and key.file is None and replica is None and name in draft.received
        if handed_over or (replica is not None and replica.is_root and replica.value("keylocation") == KEY_FD):
            _set_location(draft, wanted.at_target(name), None if replica is None else KEY_FD, "prompt")


def _raw_location(draft: Draft, name: str) -> None:
    dataset, replica = draft.ends.source.datasets[name], draft.replica(name)
    theirs = dataset.value("keylocation") if dataset.is_root else "prompt"
    before = replica.value("keylocation") if replica is not None and replica.is_root else None
    # Only streams with properties bring the keylocation along, and only to what has a key of its own in the source.
    brings = name in draft.received and dataset.is_root and draft.wanted.send_properties
    now = theirs if brings else before
    wanted = "prompt" if before is None or before == theirs else before
    if now is not None and now != wanted:
        _set_location(draft, draft.wanted.at_target(name), before, wanted)


def _set_location(draft: Draft, target: str, before: str | None, location: str) -> None:
    draft.steps.append(
        Step(
            f"Set keylocation={location} on '{target}'",
            AtTarget(Command(("zfs", "set", f"keylocation={location}", target))),
            () if before == location else (Change(("keylocation", target), before, location),),
        )
    )


def plan_properties(draft: Draft) -> None:
    """Properties that are asked for, on a replica that is there; a new one gets them with the stream."""
    replica = draft.replica(draft.wanted.source)
    if replica is None or draft.wanted.source not in draft.replicas:
        return
    path = ("properties", replica.name)
    for step in dataset_property_steps(replica, overrides(draft.wanted), path, _altroot(draft)):
        draft.steps.append(replace(step, action=AtTarget(step.action)))


def _retention(draft: Draft) -> None:
    """Destroy the oldest of the task's own snapshots; the newest is what the next increment starts from."""
    keep = draft.wanted.keep
    if keep is None:
        return
    for name in draft.names:
        target = draft.wanted.at_target(name)
        for dataset, snapshots, there in (
            (name, draft.snapshots[name], False),
            (target, draft.replicas.get(name, []), True),
        ):
            doomed = [one.name for one in snapshots if draft.wanted.own(one.name)][:-keep]
            if not doomed:
                continue
            command = Command(("zfs", "destroy", f"{dataset}@{','.join(doomed)}"))
            draft.steps.append(
                Step(
                    f"Destroy {len(doomed)} old snapshots of '{dataset}': {', '.join('@' + one for one in doomed)}",
                    AtTarget(command) if there else command,
                    tuple(Change(("snapshots", f"{dataset}@{one}"), "there", None) for one in doomed),
                )
            )


def warn_of_strangers(draft: Draft) -> None:
    """What is below the target, but not in the source, is left alone."""
    strangers = _strangers(draft)
    if strangers:
        shown = ", ".join(f"'{name}'" for name in strangers[:10])
        draft.warnings.append(
            f"These are below the target, but not among what is sent: {shown}{' ...' if len(strangers) > 10 else ''}. "
            "They were renamed or destroyed at the source, left out, or made at the target, and are left as they are."
        )


def _strangers(draft: Draft) -> list[str]:
    """What is below the target and has no namesake among what is sent."""
    ours = {draft.wanted.at_target(name) for name in draft.names}
    below = f"{draft.wanted.target}/"
    return sorted(name for name in draft.ends.target.datasets if name not in ours and name.startswith(below))
