# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done to attach or detach GELI devices: a pure function of what is wanted and what is there."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput, Refused
from ..plan import Action, Change, Plan, Step
from . import device_mapper
from .device_mapper import MEMORY_SHARE
from .places import LINKS
from .provider import Provider
from .trial import Verdict

GELI, DEVICE_MAPPER, NBD = "geli", "device_mapper", "nbd"
BACKENDS = (GELI, DEVICE_MAPPER, NBD)


@dataclass(frozen=True)
class Attachment:
    """A decrypted device of a provider."""

    backend: str
    # The device that is to be used: /dev/mapper/eli-…, /dev/nbd0 or /dev/….eli.
    path: str
    read_only: bool = True
    # Something has it open, such as an imported pool.
    busy: bool = False


@dataclass(frozen=True)
class Member:
    """A provider that was asked for."""

    provider: Provider
    attachment: Attachment | None = None
    # Names of what an interrupted run has left of a stack, from the bottom up.
    leftovers: tuple[str, ...] = ()
    # What came of the keys; None if there was nothing to try.
    verdict: Verdict | None = field(default=None, repr=False)


@dataclass(frozen=True)
class HostState:
    """What this host can do. ``missing`` gives the reason why a backend can't be used, in words."""

    missing: t.Mapping[str, str] = field(default_factory=dict)
    # Bytes of memory that programs could still get.
    memory: int = 0

    def has(self, backend: str) -> bool:
        return backend not in self.missing


@dataclass(frozen=True)
class State:
    """All that is decided on."""

    members: tuple[Member, ...]
    host: HostState


@dataclass(frozen=True)
class Desired:
    """What the task asks for."""

    attached: bool
    read_only: bool = True
    backend: str = "auto"


class Workshop(t.Protocol):
    """Makes the actions of the steps, which are not decided here."""

    def attach(self, member: Member, backend: str, read_only: bool) -> Action:
        """What attaches a provider whose key was found."""

    def clear(self, member: Member) -> Action:
        """What takes away the device of a provider, and all that is left of one."""


def decide(desired: Desired, state: State, workshop: Workshop) -> Plan:
    """The plan.

    :raises Refused: a provider can't be attached so, or is in use
    :raises BadInput: no key opens it, or it is no GELI provider
    """
    if desired.attached:
        return _attach_all(desired, state, workshop)
    return _detach_all(state, workshop)


def _detach_all(state: State, workshop: Workshop) -> Plan:
    there = [member for member in state.members if member.attachment or member.leftovers]
    busy = [member for member in there if member.attachment and member.attachment.busy]
    if busy:
        raise Refused(
            "\n".join(f"{one.provider.path}: {one.attachment.path} is in use." for one in busy if one.attachment),
            hint="Export the pool first: zpool export NAME. Nothing was detached.",
        )
    steps = [
        Step(
            f"Detach {member.attachment.path} from {member.provider.path}"
            if member.attachment
            else f"Remove what was left of a device on {member.provider.path}",
            workshop.clear(member),
            (_change(member, member.attachment.path, None),) if member.attachment else (),
        )
        for member in there
    ]
    return Plan(tuple(steps))


def _attach_all(desired: Desired, state: State, workshop: Workshop) -> Plan:
    _check_mode_of(desired, state)
    wanted = [member for member in state.members if member.attachment is None]
    problems = [problem for problem in (_problem(member) for member in wanted) if problem]
    if problems:
        raise BadInput("\n".join(problems), hint="Nothing was attached.")
    backend = choose(desired, state.host, wanted)
    steps: list[Step] = []
    for member in wanted:
        if member.leftovers:
            title = f"Remove what an interrupted task left of a device on {member.provider.path}"
            steps.append(Step(title, workshop.clear(member)))
        how = "read-only" if desired.read_only else "for writing"
        path = path_of(member.provider, backend)
        steps.append(
            Step(
                f"Attach {member.provider.path} {how} as {path} by {backend}",
                workshop.attach(member, backend, desired.read_only),
                (_change(member, None, path),),
                # geli attaches as a whole or not at all.
                undo=() if backend == GELI else (workshop.clear(member),),
            )
        )
    return Plan(tuple(steps))


def _check_mode_of(desired: Desired, state: State) -> None:
    """What is attached can't be changed while it is."""
    for member in state.members:
        found = member.attachment
        if found is None:
            continue
        if found.read_only != desired.read_only:
            is_now = "read-only" if found.read_only else "for writing"
            raise Refused(
                f"{member.provider.path} is attached {is_now} already, as {found.path}.",
                hint="Export the pool, detach it with 'state: detached', and attach it anew.",
            )


def _problem(member: Member) -> str:
    """Why a provider can't be attached, in words."""
    provider, verdict = member.provider, member.verdict
    if provider.state != "geli" or provider.problem:
        return f"{provider.path}: {provider.problem}"
    if provider.holders and not member.leftovers:
        return f"{provider.path} is a part of {', '.join(provider.holders)} already."
    if verdict is None:
        return f"{provider.path}: no key is given to open it."
    return "" if verdict.opens else f"{provider.path}: {verdict.error}"


def choose(desired: Desired, host: HostState, wanted: t.Sequence[Member]) -> str:
    """The backend for all that is to be attached.

    :raises Refused: none can do it, or the one that was asked for can't
    """
    if not wanted:
        return desired.backend
    if desired.backend != "auto":
        problem = _unfit(desired, desired.backend, host, wanted)
        if problem:
            raise Refused(f"backend '{desired.backend}' can't be used: {problem}.", hint=_way_out(desired.backend))
        return desired.backend
    problems = {backend: _unfit(desired, backend, host, wanted) for backend in BACKENDS}
    for backend, problem in problems.items():
        if not problem:
            return backend
    raise Refused(
        "The disks can't be attached on this host. "
        + " ".join(f"{backend}: {problem}." for backend, problem in problems.items()),
        hint="Attach them on FreeBSD (TrueNAS CORE), if they are not to be read here.",
    )


def _unfit(desired: Desired, backend: str, host: HostState, wanted: t.Sequence[Member]) -> str:
    """Why a backend can't do it, in words."""
    if not host.has(backend):
        return host.missing[backend]
    if backend == GELI:
        return ""
    if not desired.read_only:
        return "on Linux these disks are only read, so that FreeBSD finds them as it left them (read_only: true)"
    located = [member.provider.located for member in wanted if member.provider.located is not None]
    for one in located:
        if one.metadata.authenticated:
            return f"sectors are authenticated ({one.metadata.authentication}), which only FreeBSD reads"
    if backend == NBD:
        return ""
    file = next((member.provider.path for member in wanted if not member.provider.number), "")
    if file:
        return f"{file} is no block device"
    unsuited = next((problem for problem in (device_mapper.suits(one.metadata) for one in located) if problem), "")
    if unsuited:
        return unsuited
    needed, most = sum(device_mapper.memory(one) for one in located), int(host.memory * MEMORY_SHARE)
    if needed > most:
        zones = sum(device_mapper.zones(one) for one in located)
        return (
            f"{zones} zones of these disks would take {needed >> 20} MiB of memory; "
            f"{host.memory >> 20} MiB are available, of which {int(MEMORY_SHARE * 100)} % may be taken"
        )
    return ""


def _way_out(backend: str) -> str:
    return "Leave 'backend' out, or take 'nbd', which needs no memory." if backend == DEVICE_MAPPER else ""


def path_of(provider: Provider, backend: str) -> str:
    """By which name the decrypted device will be found; that of nbd is a link."""
    if backend == GELI:
        return f"{provider.handle}.eli"
    name = device_mapper.plain_name(provider.label)
    return f"/dev/mapper/{name}" if backend == DEVICE_MAPPER else f"{LINKS}/{name}"


def _change(member: Member, before: str | None, after: str | None) -> Change:
    return Change(("devices", member.provider.path, "attached_as"), before, after)
