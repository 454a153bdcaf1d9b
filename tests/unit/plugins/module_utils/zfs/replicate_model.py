# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two ends of a replication that obey ZFS's rules for streams, and carry out what is planned.

A rule that a plan breaks is an AssertionError: a full stream onto something that is there, an increment that does not
fit to the newest snapshot, a raw one onto something with another history, and so on.
"""

from __future__ import annotations

import copy
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Action, Plan
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_options import Replication
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_plan import (
    plan_replication,
    takes_snapshot,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_read import (
    CARRIED,
    FEATURES,
    with_heads,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import (
    AtTarget,
    StoreTargetKey,
    Transfer,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_state import (
    FUTURE,
    HEAD,
    Ends,
    Side,
    Snapshot,
    Token,
)
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import Dataset

STAMP = "20261127T010203Z"
OLD = "nasops-20261126T010203Z"
NEW = f"nasops-{STAMP}"


@dataclass
class Node:
    """A filesystem or volume. ``key`` is the root whose key opens it, "" for none; ``wrapped`` with which key it is."""

    key: str = ""
    wrapped: str = ""
    keyformat: str = "hex"
    salt: str = "0"
    locked: bool = False
    kind: str = "filesystem"
    location: str = "prompt"
    written: int = 0
    snapshots: list[Snapshot] = field(default_factory=list)
    token: str = ""
    origin: str = ""
    size: int = 1
    mounted: bool = False
    own: dict[str, str] = field(default_factory=dict)


@dataclass
class Host:
    """The datasets of one pool."""

    nodes: dict[str, Node] = field(default_factory=dict)
    guid: str = "1"
    features: set[str] = field(default_factory=lambda: set(FEATURES))
    clock: int = 100
    available: int = 1 << 40
    readonly: str = "off"

    def add(self, name: str, **facts: t.Any) -> Node:
        self.nodes[name] = Node(**facts)
        return self.nodes[name]

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def snapshot(self, names: t.Iterable[str], snapshot: str) -> None:
        at = self.tick()
        for name in names:
            node = self.nodes[name]
            assert all(one.name != snapshot for one in node.snapshots), f"{name}@{snapshot} exists"
            guid = f"{self.guid}/{name}@{snapshot}"
            size = str(node.size) if node.kind == "volume" else ""
            node.snapshots.append(Snapshot(snapshot, guid, at, f"iv {guid}" if node.key else "", size))
            node.written = 0

    def head(self, name: str) -> Snapshot:
        """What was written to a dataset since its last snapshot, as it is sent."""
        return Snapshot(HEAD, f"{self.guid}/{name}/its-head", FUTURE)

    def clone(self, name: str, origin: str) -> Node:
        """A clone of a snapshot."""
        dataset, snapshot = origin.split("@")
        node = self.nodes[dataset]
        assert any(one.name == snapshot for one in node.snapshots), f"there is no {origin}"
        return self.add(name, key=node.key, kind=node.kind, origin=origin, written=1)

    def below(self, top: str) -> list[str]:
        return [name for name in self.nodes if f"{name}/".startswith(f"{top}/")]

    def side(self, top: str, recursive: bool, above: bool) -> Side:
        names = self.below(top) if recursive else [name for name in (top,) if name in self.nodes]
        if above:
            names += [name for name in (top.rsplit("/", 1)[0],) if name in self.nodes]
        pool = {"guid": self.guid, "readonly": self.readonly, "health": "ONLINE", "altroot": "-"}
        pool.update({f"feature@{one}": "enabled" if one in self.features else "disabled" for one in FEATURES})
        return Side(
            {name: self._dataset(name) for name in names},
            {name: tuple(self.nodes[name].snapshots) for name in names},
            tokens={
                name: Token(self.nodes[name].token, self.nodes[name].token, self.nodes[name].key != "")
                for name in names
                if self.nodes[name].token
            },
            pool={name: Property(value, "-") for name, value in pool.items()},
        )

    def _dataset(self, name: str) -> Dataset:
        node = self.nodes[name]
        is_root = node.key == name
        format_ = self.nodes[node.key] if node.key else node
        values = {
            "type": node.kind,
            "encryption": "aes-256-gcm" if node.key else "off",
            "encryptionroot": node.key or "-",
            "keystatus": ("unavailable" if format_.locked else "available") if node.key else "none",
            "keyformat": format_.keyformat if node.key else "none",
            "keylocation": node.location if is_root else "none",
            "pbkdf2iters": "0",
            "pbkdf2salt": format_.salt,
            "written": str(node.written),
            "receive_resume_token": node.token or "-",
            "readonly": "off",
            "mounted": "yes" if node.mounted else "no",
            "volsize": str(node.size) if node.kind == "volume" else "-",
            "volblocksize": "8192" if node.kind == "volume" else "-",
            "casesensitivity": "sensitive" if node.kind == "filesystem" else "-",
            "acltype": "off" if node.kind == "filesystem" else "-",
            "mountpoint": f"/{name}" if node.kind == "filesystem" else "-",
            "origin": node.origin or "-",
            "guid": self.head(name).guid,
            "referenced": str(node.size),
            "logicalreferenced": str(node.size),
            "usedbydataset": str(node.size),
            "usedbysnapshots": "0",
            "available": str(self.available),
        }
        found = {one: Property(value, "-") for one, value in values.items()}
        found.update({one: Property("-", "-") for one in CARRIED if one not in values})
        found.update({one: Property(value, "local") for one, value in node.own.items()})
        return Dataset(name, found)


@dataclass
class World:
    """Source and target, and what becomes of them."""

    source: Host
    target: Host
    keys: dict[str, str] = field(default_factory=dict)
    """The key files that were written at the target."""

    def ends(self, wanted: Replication, taken: str = "", **facts: t.Any) -> Ends:
        source = self.source.side(wanted.source, wanted.recursive, False)
        if wanted.heads:
            source = replace(source, snapshots=with_heads(source.datasets, source.snapshots))
        target = self.target.side(wanted.target, wanted.recursive, True)
        return Ends(source, replace(target, **facts) if facts else target, taken)

    def run(self, wanted: Replication, steps: int | None = None, **facts: t.Any) -> Plan:
        """Plan and carry out, all or so many steps; then there is nothing left to do, unless it was cut short."""
        ends = self.ends(wanted, **facts)
        plan = plan_replication(wanted, ends)
        for step in plan.steps[:steps]:
            self.act(step.action)
        if steps is None:
            taken = wanted.new_snapshot if takes_snapshot(plan) else ends.source.of(wanted.source)[-1].name
            taken = "" if wanted.heads else taken
            rest = plan_replication(wanted, self.ends(wanted, taken))
            assert rest.actions == [], rest.actions
        return plan

    def act(self, action: Action, host: Host | None = None) -> None:
        host = host or self.source
        if isinstance(action, AtTarget):
            self.act(action.action, self.target)
        elif isinstance(action, Transfer):
            self.carry(action)
        elif isinstance(action, StoreTargetKey):
            self.keys[action.path] = action.key_format
        elif isinstance(action, Command):
            self.command(action.argv, host)
        else:
            raise AssertionError(f"nothing is known of {action}")

    def command(self, argv: tuple[str, ...], host: Host) -> None:
        assert argv[0] == "zfs"
        verb, last = argv[1], argv[-1]
        if verb == "snapshot":
            assert host.readonly == "off", "pool is read-only"
            names = [word.split("@")[0] for word in argv[2:] if "@" in word]
            if "-r" in argv:
                names = host.below(names[0])
            host.snapshot(names, last.split("@")[1])
        elif verb == "rollback":
            name, snapshot = last.split("@")
            node = host.nodes[name]
            place = [one.name for one in node.snapshots].index(snapshot)
            del node.snapshots[place + 1 :]
            node.written = 0
        elif verb == "receive":
            assert argv[2] == "-A"
            assert host.nodes[last].token
            host.nodes[last].token = ""
            if not host.nodes[last].snapshots:
                del host.nodes[last]
        elif verb == "destroy":
            name, snapshots = last.split("@")
            doomed = snapshots.split(",")
            node = host.nodes[name]
            assert {one.name for one in node.snapshots} >= set(doomed)
            node.snapshots = [one for one in node.snapshots if one.name not in doomed]
        elif verb == "set":
            prop, value = argv[2].split("=", 1)
            if prop == "volsize":
                host.nodes[last].size = int(value)
                return
            if prop == "keylocation":
                assert host.nodes[last].key == last, "keylocation may only be set on encryption roots"
                host.nodes[last].location = value
            else:
                host.nodes[last].own[prop] = value
        elif verb == "inherit":
            host.nodes[last].own.pop(argv[2], None)
        elif verb == "create":
            self._create(argv, host)
        elif verb == "unmount":
            assert host.nodes[last].mounted, f"{last} is not mounted"
            for one in host.below(last):
                host.nodes[one].mounted = False
        else:
            raise AssertionError(f"nothing is known of {argv}")

    def _create(self, argv: tuple[str, ...], host: Host) -> None:
        """An encrypted dataset that is made empty, and not mounted."""
        *words, name = argv[2:]
        above = host.nodes.get(name.rsplit("/", 1)[0])
        assert name not in host.nodes, f"{name} exists"
        assert above is not None, f"parent of {name} does not exist"
        values = dict(words[place + 1].split("=", 1) for place, word in enumerate(words) if word == "-o")
        node = host.add(name, kind="volume" if "-V" in words else "filesystem", key=above.key)
        assert node.kind == "volume" or "-u" in words
        if "-V" in words:
            node.size = int(words[words.index("-V") + 1])
        if "encryption" in values:
            node.key, node.keyformat, node.location = name, values["keyformat"], values["keylocation"]
        node.own.update({one: value for one, value in values.items() if "key" not in one and one != "encryption"})

    # --- streams -----------------------------------------------------------------------------------------------

    def carry(self, transfer: Transfer, parts: int | None = None) -> None:
        """One stream, or only so many of its snapshots; then the next one is kept as a token."""
        send, receive = transfer.send.argv, transfer.receive.argv
        receive = receive[receive.index("zfs") :]
        assert send[:2] == ("zfs", "send")
        head = "-t" not in send and "@" not in send[-1]
        # What is kept of a head can't be resumed.
        words = ("zfs", "receive", "-u") if head else ("zfs", "receive", "-s", "-u")
        assert receive[: len(words)] == words
        options = _pairs(receive[len(words) : -1])
        if "-t" in send:
            self._resume(send[-1], receive[-1])
            return
        raw, tree = "-w" in send, "-R" in send
        top, to = (send[-1], HEAD) if head else send[-1].split("@")
        start = next((send[send.index(one) + 1] for one in ("-I", "-i") if one in send), "")
        excluded = send[send.index("-X") + 1].split(",") if "-X" in send else []
        names = self.source.below(top) if tree else [top]
        names = [one for one in names if not any(f"{one}/".startswith(f"{other}/") for other in excluded)]
        pieces = [
            (name, piece)
            for name in sorted(names, key=lambda one: one.split("/"))
            for piece in self._pieces(name, start, to, tree)
        ]
        for number, (name, piece) in enumerate(pieces):
            target = receive[-1] + name[len(top) :]
            if parts is not None and number >= parts and head:
                return
            if parts is not None and number >= parts:
                self._new(target, name, raw, options, name == top)
                self.target.nodes[target].token = piece.guid
                return
            self._receive(target, name, piece, raw, tree, options, name == top)
            if not tree:
                self.target.nodes[target].own.update(
                    {one: value for one, value in options.items() if ":" in one and value}
                )
                self._make_clone(target, name, start)
        if tree and raw:
            self._structure(top, receive[-1], names)
        elif raw and "-p" in send and self.source.nodes[top].key == top:
            self.target.nodes[receive[-1]].location = self.source.nodes[top].location

    def _make_clone(self, target: str, name: str, start: str) -> None:
        """A stream from a snapshot of another dataset makes a clone of that, which has to be there."""
        dataset, _at_sign, snapshot = start.partition("@")
        if not dataset or start.startswith(f"{name}#"):
            return
        assert self.source.nodes[name].origin == start
        guid = next(one.guid for one in self.source.nodes[dataset].snapshots if one.name == snapshot)
        homes = [other for other, node in self.target.nodes.items() for one in node.snapshots if one.guid == guid]
        assert homes, f"local origin for clone {target} does not exist"
        self.target.nodes[target].origin = f"{homes[0]}@{snapshot}"

    def _pieces(self, name: str, start: str, to: str, tree: bool) -> list[Snapshot]:
        snapshots = [*self.source.nodes[name].snapshots, self.source.head(name)]
        names = [one.name for one in snapshots]
        assert to in names, f"{name} has no @{to}"
        if start.startswith(f"{name}#") or "@" in start[1:]:
            return [snapshots[names.index(to)]]
        begin = start.lstrip("@")
        if begin and begin not in names:
            assert tree, f"{name} has no {start}"
            begin = ""
        first = names.index(begin) + 1 if begin else 0
        assert not begin or first <= names.index(to)
        if not tree and not begin:
            return [snapshots[names.index(to)]]
        assert to != HEAD or first == names.index(to), f"{name}: a head is sent from the newest snapshot alone"
        return snapshots[first : names.index(to) + 1]

    def _receive(
        self, target: str, name: str, piece: Snapshot, raw: bool, tree: bool, options: dict[str, str | None], top: bool
    ) -> None:
        origin = self.source.nodes[name]
        assert raw or not origin.key or not self.source.nodes[origin.key].locked, "source key must be loaded"
        if target not in self.target.nodes:
            older = _older(origin, piece)
            if not older or not any(
                one.guid == other.guid
                for one in older
                for node in self.target.nodes.values()
                for other in node.snapshots
            ):
                self._new(target, name, raw, options, top)
        node = self.target.nodes[target]
        assert not node.token, f"{target} contains partially-complete state"
        if any(one.guid == piece.guid for one in node.snapshots):
            assert tree, f"{target}@{piece.name} exists"
            return
        newest = node.snapshots[-1].guid if node.snapshots else None
        before = [one.guid for one in _older(origin, piece)]
        assert newest is None or newest in before, f"{target}: most recent snapshot does not match"
        assert node.written == 0, f"{target} was modified"
        if raw and origin.key and newest is not None:
            mine = next(one for one in origin.snapshots if one.guid == newest)
            assert mine.ivset == node.snapshots[-1].ivset, "IV set guid mismatch"
        self._wrap(target, name, raw)
        node.snapshots.append(piece if raw else replace(piece, ivset=f"iv {target}@{piece.name}" if node.key else ""))

    def _new(self, target: str, name: str, raw: bool, options: dict[str, str | None], top: bool) -> None:
        if target in self.target.nodes:
            return
        above = self.target.nodes.get(target.rsplit("/", 1)[0])
        assert above is not None, f"nothing above {target}"
        origin = self.source.nodes[name]
        node = self.target.add(target, kind=origin.kind)
        if raw:
            node.key = target if origin.key else ""
        elif options.get("encryption") is None:
            node.key = above.key
        else:
            node.key = target
            node.keyformat, node.location = str(options["keyformat"]), str(options["keylocation"])
        assert raw or not node.key or not self.target.nodes[node.key].locked, "inherited key must be loaded"
        node.own.update(
            {one: value for one, value in options.items() if top and value is not None and "key" not in one}
        )
        node.own.pop("encryption", None)
        self._wrap(target, name, raw)

    def _wrap(self, target: str, name: str, raw: bool) -> None:
        """What a raw stream does to the wrapped key of a replica."""
        origin, node = self.source.nodes[name], self.target.nodes[target]
        if raw and origin.key:
            root = self.source.nodes[origin.key]
            node.wrapped = root.wrapped
            if node.key == target:
                node.keyformat, node.salt, node.locked = root.keyformat, root.salt, True

    def _structure(self, top: str, target: str, names: list[str]) -> None:
        """Which datasets have keys of their own, after a stream of a tree."""
        for name in names:
            replica = target + name[len(top) :]
            node, origin = self.target.nodes[replica], self.source.nodes[name]
            if origin.key == name:
                node.key, node.location = replica, origin.location
                node.keyformat, node.salt, node.locked = origin.keyformat, origin.salt, True
            elif origin.key and name != top:
                node.key = self.target.nodes[replica.rsplit("/", 1)[0]].key

    def _resume(self, token: str, target: str) -> None:
        node = self.target.nodes[target]
        assert node.token == token
        node.token = ""
        piece = next(one for origin in self.source.nodes.values() for one in origin.snapshots if one.guid == token)
        node.snapshots.append(piece)

    def opens(self, target: str) -> bool:
        """Whether the key that the root of a replica asks for is the one that the replica is wrapped with."""
        node = self.target.nodes[target]
        return self.target.nodes[node.key].wrapped == node.wrapped

    def copy(self) -> World:
        return copy.deepcopy(self)


def _older(node: Node, piece: Snapshot) -> list[Snapshot]:
    return [one for one in node.snapshots if one.createtxg < piece.createtxg]


def _pairs(words: tuple[str, ...]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for flag, word in zip(words[::2], words[1::2]):
        assert flag in ("-o", "-x"), words
        name, _equals, value = word.partition("=")
        found[name] = value if flag == "-o" else None
    return found


def world() -> World:
    """tank with a child of its key and one of its own, and an unencrypted pool for backups."""
    source = Host(guid="1")
    source.add("tank", key="tank", wrapped="k1", location="file:///etc/zfs/keys/tank.key", written=1)
    source.add("tank/docs", key="tank", written=1)
    source.add("tank/media", key="tank/media", wrapped="k2", keyformat="passphrase", salt="7", written=1)
    source.add("tank/media/vol", key="tank/media", kind="volume", written=1)
    target = Host(guid="2")
    target.add("backup")
    target.add("backup/vault", key="backup/vault", wrapped="kv")
    return World(source, target)


def wish(**facts: t.Any) -> Replication:
    return Replication(**{"source": "tank", "target": "backup/tank", "stamp": STAMP, **facts})
