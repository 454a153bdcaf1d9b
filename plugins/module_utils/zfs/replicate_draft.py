# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan of a replication knows while it is made: both ends as they will be after the steps up to now."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from ..command import Command
from ..errors import Refused
from ..plan import Change, Step
from ..secrets import Key
from .replicate_guard import StillEncrypted
from .replicate_options import PLAINTEXT, RAW, REENCRYPT, Replication
from .replicate_read import CARRIED, OWN_PROPERTIES
from .replicate_run import KEY_FD, WITH_KEY, Transfer
from .replicate_state import HEAD, HEAD_MARK, Ends, Snapshot, head_mark
from .state import Dataset

# What a snapshot that is still to be taken is called in the diff; its name holds the time, which check mode can't know.
NEW = "a new snapshot"


# Properties that only filesystems have (zfsprops(7)).
FILESYSTEM_ONLY = frozenset(
    (
        "aclinherit",
        "aclmode",
        "acltype",
        "atime",
        "canmount",
        "devices",
        "dnodesize",
        "exec",
        "filesystem_limit",
        "jailed",
        "nbmand",
        "overlay",
        "quota",
        "recordsize",
        "refquota",
        "relatime",
        "setuid",
        "sharenfs",
        "sharesmb",
        "snapdir",
        "special_small_blocks",
        "vscan",
        "xattr",
        "zoned",
    )
)


@dataclass(frozen=True)
class Base:
    """What an increment starts from: a snapshot of the source that the replica has, or a bookmark of it.

    ``origin`` is the whole name of a snapshot of another dataset, of which a clone is made.
    """

    snapshot: Snapshot
    bookmark: bool = False
    origin: str = ""

    @property
    def name(self) -> str:
        return ("#" if self.bookmark else "@") + self.snapshot.name


class Draft:
    """The snapshots of both ends by dataset of the source, oldest first, and the steps."""

    def __init__(self, wanted: Replication, ends: Ends, names: t.Sequence[str]) -> None:
        self.wanted = wanted
        self.ends = ends
        self.names = names
        self.steps: list[Step] = []
        self.warnings: list[str] = []
        self.snapshots: dict[str, list[Snapshot]] = {name: list(ends.source.of(name)) for name in names}
        self.replicas: dict[str, list[Snapshot]] = {
            name: list(ends.target.of(wanted.at_target(name)))
            for name in names
            if wanted.at_target(name) in ends.target.datasets
        }
        for name in self.names:
            self._note_changed_head(name)
        self.received: set[str] = set()
        """The datasets that a stream was planned for."""
        self.discarded: set[str] = set()
        """The datasets whose replica goes with what was received of its first stream."""
        self.packaged = False
        """Whether one of the streams is that of a whole tree, which brings the structure of keys along."""

    def replica(self, name: str) -> Dataset | None:
        """The replica of a dataset as it was read, if it stays."""
        return None if name in self.discarded else self.ends.target.datasets.get(self.wanted.at_target(name))

    def _note_changed_head(self, name: str) -> None:
        """Another name for a head that was written to since it was sent: its GUID stays the same."""
        newest, dataset = self.snapshots[name][-1:], self.ends.target.datasets.get(self.wanted.at_target(name))
        if not newest or not newest[0].head or dataset is None:
            return
        mark = dataset.properties.get(HEAD_MARK)
        if mark is None or not mark.own or mark.value != head_mark(self.ends.source.datasets[name]):
            self.snapshots[name][-1] = replace(newest[0], guid=f"the present state of {newest[0].guid}")

    def goal(self, name: str, to: str) -> str:
        """What a replica is brought up to: the snapshot of all, or, where none can be taken, the newest there is."""
        return self.snapshots[name][-1].name if self.wanted.heads else to

    def origin(self, name: str) -> Base | None:
        """The snapshot that a clone was made of, if the target has that, too."""
        whole = self.ends.source.datasets[name].value("origin") if self.wanted.migration else "-"
        dataset, at_sign, snapshot = whole.partition("@")
        if not at_sign or dataset not in self.snapshots:
            return None
        found = self.named(dataset, snapshot)
        if found is None or all(one.guid != found.guid for one in self.replicas.get(dataset, ())):
            return None
        return Base(found, origin=whole)

    def named(self, dataset: str, snapshot: str) -> Snapshot | None:
        """A snapshot of a dataset of the source by its name."""
        return next((one for one in self.snapshots[dataset] if one.name == snapshot), None)

    def base(self, name: str) -> Base | None:
        """The newest snapshot of the replica that the source knows."""
        known = {one.guid: Base(one, True) for one in self.ends.source.bookmarks.get(name, ())}
        known.update({one.guid: Base(one) for one in self.snapshots[name]})
        for one in reversed(self.replicas.get(name, [])):
            if one.guid in known:
                return known[one.guid]
        return None

    def check_order(self, name: str, base: Base | None, goal: Snapshot) -> None:
        """:raises Refused: the replica is newer than what it is to be brought up to"""
        if base is not None and base.snapshot.createtxg > goal.createtxg:
            raise Refused(
                f"The replica of '{name}' has {base.name}, which is newer than @{goal.name}.",
                hint="Name a newer snapshot, or roll the replica back by hand.",
            )

    def title_of(self, snapshot: str) -> str:
        """A snapshot in the words of a plan."""
        if snapshot == HEAD:
            return "its present state"
        return NEW if snapshot == self.wanted.new_snapshot and not self.ends.taken else f"@{snapshot}"

    # --- streams -----------------------------------------------------------------------------------------------

    def send_tree(self, to: str, base: Snapshot | None) -> None:
        """One stream of all datasets, which brings along which of them have keys of their own."""
        top = self.wanted.source
        argv = ["zfs", "send", "-v", "-P", "-w", "-R"]
        if self.wanted.exclude:
            # What is left out has no such snapshot, which zfs would complain of (-s) before it leaves it out.
            argv += ["-s", "-X", ",".join(self.wanted.exclude)]
        if base is not None:
            argv += ["-I", f"@{base.name}"]
        changes = [self._change(name, to) for name in self.names]
        below = f" and {len(self.names) - 1} below it" if len(self.names) > 1 else ""
        title = (
            f"Send '{top}'{below}{self._from(base)} up to {self.title_of(to)} to {self.wanted.where}, still encrypted"
        )
        guard = StillEncrypted(top, to, self.wanted.exclude)
        self._stream(title, top, (*argv, f"{top}@{to}"), base is None, changes, guard=guard)
        for name in self.names:
            self._arrived(name, to)
        self.packaged = True

    def send_one(self, name: str, to: str) -> None:
        """What a replica lacks up to a snapshot, as one or two streams of this dataset alone.

        :raises Refused: the replica is newer than that
        """
        goal = self.named(name, to)
        if goal is None or any(one.guid == goal.guid for one in self.replicas.get(name, ())):
            return
        snapshots = self.snapshots[name][: self.snapshots[name].index(goal) + 1]
        base = self.base(name)
        self.check_order(name, base, goal)
        if base is None:
            self._one(name, self.origin(name), snapshots[0])
            base = Base(snapshots[0])
        elif base.bookmark:
            first = next(one for one in snapshots if one.createtxg > base.snapshot.createtxg)
            self._one(name, base, first)
            base = Base(first)
        if goal.head and len(snapshots) > 1 and base.snapshot.guid not in (goal.guid, snapshots[-2].guid):
            self._one(name, base, snapshots[-2])
            base = Base(snapshots[-2])
        if base.snapshot.guid != goal.guid:
            self._one(name, base, goal)

    def _one(self, name: str, base: Base | None, to: Snapshot) -> None:
        wanted = self.wanted
        # How long the stream of a head will be is what zfs refuses to say, and to send it then.
        argv = ["zfs", "send"] if to.head else ["zfs", "send", "-v", "-P"]
        if wanted.mode == RAW:
            argv += ["-w", "-p"] if wanted.send_properties else ["-w"]
        else:
            # A migration writes everything anew, as the target compresses it.
            argv += ["-L"] if wanted.migration else ["-L", "-c"]
        if base is not None and base.origin:
            argv += ["-i", base.origin]
        elif base is not None:
            single = base.bookmark or to.head
            argv += ["-i" if single else "-I", (f"{name}#" if base.bookmark else "@") + base.snapshot.name]
        how = {RAW: "still encrypted", REENCRYPT: "to be encrypted there", PLAINTEXT: "IN THE CLEAR"}[wanted.mode]
        where = f"'{wanted.at_target(name)}'" + (f" on '{wanted.ssh.host}'" if wanted.ssh else "")
        start = self._from(None if base is None else base.snapshot)
        new = base is None
        if base is not None and base.origin:
            start, new = f", a clone of '{base.origin}',", True
        title = f"Send '{name}'{start} up to {self.title_of(to.name)} to {where}, {how}"
        send = (*argv, name if to.head else f"{name}@{to.name}")
        self._stream(title, name, send, new, [self._change(name, to.name)], head=to.head)
        self._arrived(name, to.name)

    def resume(self, name: str, token: str, guid: str) -> None:
        """Go on with a stream that broke off."""
        arriving = next(one for one in self.snapshots[name] if one.guid == guid)
        title = f"Go on with the stream of '{name}' up to @{arriving.name}, which broke off"
        change = self._change(name, arriving.name)
        # Whatever the token says, which comes from the target: nothing leaves this host decrypted.
        raw = ("-w",) if self.wanted.mode == RAW else ()
        self._stream(title, name, ("zfs", "send", "-v", "-P", *raw, "-t", token), False, [change], resumed=True)
        self.replicas.setdefault(name, []).append(arriving)
        self.received.add(name)

    def _stream(
        self,
        title: str,
        name: str,
        send: tuple[str, ...],
        new: bool,
        changes: list[Change],
        resumed: bool = False,
        head: bool = False,
        guard: StillEncrypted | None = None,
    ) -> None:
        wanted, target = self.wanted, self.wanted.at_target(name)
        key: Key | None = None
        # What is kept of a head that broke off can't be gone on with: zfs finds no snapshot of that name.
        receive: tuple[str, ...] = ("zfs", "receive", *(() if head else ("-s",)), "-u", *_words(self.settings(name)))
        if head:
            receive += ("-o", f"{HEAD_MARK}={head_mark(self.ends.source.datasets[name])}")
        if new and wanted.mode == REENCRYPT:
            own = wanted.own_key(name)
            if own is not None:
                key = own.by_hand
                handed_over = {} if key is None else {"keylocation": KEY_FD}
                receive += _words({**own.properties(wanted.cipher), **handed_over})
            else:
                receive += ("-x", "encryption")
        receive += (target,)
        if key is not None:
            receive = ("sh", "-c", WITH_KEY, "sh", *receive)
        # Of a stream that does not tell how far it is, nobody can say that it stands still.
        patience = 0.0 if head else wanted.stall_timeout
        transfer = Transfer(title, name, target, Command(send), Command(receive), key, patience, resumed)
        self.steps.append(Step(title, transfer, tuple(changes), guard=guard))

    def settings(self, name: str) -> dict[str, str | None]:
        """Which properties the replica gets, whatever the stream says; None for what it does not get from there."""
        wanted, dataset = self.wanted, self.ends.source.datasets[name]
        given: dict[str, str | None] = {**overrides(wanted)}
        if name != wanted.source:
            # They are those of the top, and inherited.
            given = dict.fromkeys(given)
        if dataset.value("type") == "filesystem":
            given.setdefault("mountpoint", None)
        else:
            given.pop("mountpoint", None)
            if name != wanted.source:
                # Those of the top that a volume does not have can't even be left out of it.
                given = {one: value for one, value in given.items() if one not in FILESYSTEM_ONLY}
        if wanted.mode != RAW and wanted.send_properties:
            for one in CARRIED:
                found = dataset.properties.get(one)
                if found is not None and found.own and found.value != "-":
                    given.setdefault(
                        one, "none" if one in ("quota", "refquota") and found.value == "0" else found.value
                    )
        if wanted.migration:
            for one, found in dataset.properties.items():
                if ":" in one and found.own and not one.startswith(OWN_PROPERTIES):
                    given.setdefault(one, found.value)
        return given

    def _from(self, base: Snapshot | None) -> str:
        return "" if base is None else f" from @{base.name}"

    def _change(self, name: str, to: str) -> Change:
        has = self.replicas.get(name, [])
        title = self.title_of(to)
        before = self.title_of(has[-1].name) if has and has[-1].head else f"@{has[-1].name}" if has else None
        return Change(("replicas", self.wanted.at_target(name)), before, title)

    def _arrived(self, name: str, to: str) -> None:
        """The replica has all snapshots of the source from the newest common one up to this one."""
        goal = self.named(name, to)
        if goal is None:
            return
        has = self.replicas.setdefault(name, [])
        base = self.base(name)
        for one in self.snapshots[name]:
            newer = base is None or one.createtxg > base.snapshot.createtxg
            if newer and one.createtxg <= goal.createtxg and all(one.guid != other.guid for other in has):
                has.append(one)
        self.received.add(name)


def _words(settings: t.Mapping[str, str | None]) -> tuple[str, ...]:
    words: list[str] = []
    for one, value in settings.items():
        words += ["-x", one] if value is None else ["-o", f"{one}={value}"]
    return tuple(words)


def overrides(wanted: Replication) -> dict[str, str | None]:
    """The properties that the top of the replica has, unless others are asked for: it is not to be written to."""
    return {"readonly": "on", **wanted.properties}
