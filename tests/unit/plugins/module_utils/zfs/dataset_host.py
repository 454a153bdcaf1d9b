# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of a host with encrypted datasets: it carries out the commands of zfs, and what is asked of its keys.

It knows nothing of the code it tests. What it does follows the manual pages of OpenZFS; where they refuse, it refuses
with the words of OpenZFS.
"""

from __future__ import annotations

import copy
import typing as t
from dataclasses import dataclass, field

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import StorageError
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keys import Busy, RootKey, WrongKey

INHERITED = ("mountpoint", "compression", "atime", "readonly")
DEFAULTS = {"compression": "on", "atime": "on", "readonly": "off", "canmount": "on", "volmode": "default"}
NATIVE = {
    "type",
    "encryption",
    "encryptionroot",
    "keystatus",
    "keyformat",
    "keylocation",
    "pbkdf2iters",
    "pbkdf2salt",
    "mounted",
    "origin",
    "creation",
    "createtxg",
    "volsize",
}


class Killed(BaseException):
    """The process is gone: nothing that tidies up may run."""


class Refusal(Exception):
    """A command that fails, with its words."""


@dataclass
class Node:
    """One filesystem or volume. ``wrapped`` is the key of an encryption root."""

    name: str
    kind: str = "filesystem"
    cipher: str = "off"
    root: str = ""
    wrapped: Key | None = None
    location: str = "none"
    iterations: int = 0
    salt: int = 0
    loaded: bool = False
    mounted: bool = False
    properties: dict[str, str] = field(default_factory=dict)
    origin: str = "-"
    creation: int = 1000
    createtxg: int = 100
    volsize: int = 0
    snapshots: list[tuple[str, int, int]] = field(default_factory=list)
    received: bool = False
    # Its first stream has not come whole.
    inconsistent: bool = False
    busy: bool = False
    # Where it is mounted, if its mountpoint is legacy.
    place: str = ""


@dataclass
class World:
    """All there is; can be copied and compared."""

    nodes: dict[str, Node] = field(default_factory=dict)
    health: str = "ONLINE"
    read_only: bool = False
    # Pools that do not answer.
    suspended: set[str] = field(default_factory=set)


class DatasetZfs:
    """A runner over such a world, with the engine for keys."""

    name = "model"

    def __init__(self, world: World) -> None:
        self.world = world
        self.commands: list[tuple[str, ...]] = []
        self.keys = self
        # How many effects may happen before the process is killed; None for no kill.
        self.lives: int | None = None
        self.effects = 0
        self.source = "/dev/vda1"
        self.refuses_mounts = False

    def copy(self) -> DatasetZfs:
        return DatasetZfs(copy.deepcopy(self.world))

    def commands_that_change(self) -> list[tuple[str, ...]]:
        """The commands that are more than a look."""
        return [argv for argv in self.commands if argv[0] != "df" and argv[1] not in ("get", "list", "-p")]

    def effect(self) -> None:
        """Called after everything that changes the host."""
        self.effects += 1
        if self.lives is not None and self.effects > self.lives:
            raise Killed

    # --- programs --------------------------------------------------------------------------------------------------

    def has(self, program: str) -> bool:
        return program in ("zfs", "zpool", "df")

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command.argv)
        try:
            result = Result(command.argv, 0, self._run(command), "")
        except Refusal as error:
            result = Result(command.argv, 1, "", f"{error}\n")
        if result.rc not in ok:
            raise CommandError(result)
        return result

    def _run(self, command: Command) -> str:
        words = list(command.argv)
        if words[0] == "df":
            return f"Filesystem 1024-blocks Used Available Capacity Mounted on\n{self.source} 9999 99 9900 1% /\n"
        if words[0] in ("mount", "umount"):
            return self._by_hand(words)
        if words[:2] == ["zpool", "get"]:
            return self._zpool_get(words)
        if words[:2] == ["zfs", "get"]:
            return self._get(words)
        if words[:2] == ["zfs", "list"]:
            return self._snapshots(words)
        handler = {
            "create": self._create,
            "set": self._set,
            "inherit": self._inherit,
            "mount": self._mount,
            "unmount": self._unmount,
            "destroy": self._destroy,
        }[words[1]]
        handler(words[2:], command.stdin)
        self.effect()
        return ""

    def _zpool_get(self, words: list[str]) -> str:
        lines = []
        for pool in sorted({name.split("/")[0] for name in self.world.nodes}):
            health = "SUSPENDED" if pool in self.world.suspended else self.world.health
            facts = {"guid": "1", "health": health, "altroot": "-"}
            facts["readonly"] = "on" if self.world.read_only else "off"
            lines += [f"{pool}\t{name}\t-\t{facts[name]}" for name in words[5].split(",")]
        return "\n".join(lines) + "\n"

    def _get(self, words: list[str]) -> str:
        if words[3:5] == ["-s", "received"]:
            return "".join(f"{name}\n" for name in words[8:] if self.world.nodes[name].received)
        recursive = "-r" in words
        rest = words[words.index("-r") + 1 if recursive else 7 :]
        if rest[0] == "-d":
            rest = rest[2:]
        properties, names = rest[0].split(","), rest[1:]
        if self.world.suspended & {name.split("/")[0] for name in names}:
            raise AssertionError("zfs would hang")
        gone = [name for name in names if name not in self.world.nodes]
        if gone:
            raise Refusal(f"cannot open '{gone[0]}': dataset does not exist")
        lines = []
        for name in sorted(self.world.nodes):
            if not any(name == top or (recursive and name.startswith(top + "/")) for top in names):
                continue
            for word in properties:
                value, source = self._property(self.world.nodes[name], word)
                lines.append(f"{name}\t{word}\t{source}\t{value}")
        return "\n".join(lines) + "\n"

    def _property(self, node: Node, word: str) -> tuple[str, str]:
        root = self.world.nodes.get(node.root, node)
        encrypted = node.cipher != "off"
        volume = node.kind == "volume"
        values = {
            "type": node.kind,
            "encryption": node.cipher,
            "encryptionroot": node.root or "-",
            "keystatus": ("available" if root.loaded else "unavailable") if encrypted else "none",
            "keyformat": root.wrapped.format if encrypted and root.wrapped else "none",
            "keylocation": node.location,
            "pbkdf2iters": str(root.iterations),
            "pbkdf2salt": str(root.salt),
            "mounted": "-" if volume else "yes" if node.mounted else "no",
            "origin": node.origin,
            "creation": str(node.creation),
            "createtxg": str(node.createtxg),
            "inconsistent": str(int(node.inconsistent)),
            "volsize": str(node.volsize) if volume else "-",
            "volblocksize": "16384" if volume else "-",
        }
        if word in values:
            return values[word], "-"
        if word in ("mountpoint", "canmount") and volume:
            return "-", "-"
        if word in node.properties:
            return node.properties[word], "local"
        if word == "mountpoint":
            return self._mountpoint(node), "default"
        if word in INHERITED and "/" in node.name:
            value, source = self._property(self.world.nodes[node.name.rsplit("/", 1)[0]], word)
            return value, source if source == "default" else "inherited from above"
        return (DEFAULTS[word], "default") if word in DEFAULTS else ("-", "-")

    def _mountpoint(self, node: Node) -> str:
        if "/" not in node.name:
            return f"/nasops-test/{node.name}"
        parent, last = node.name.rsplit("/", 1)
        above = self._property(self.world.nodes[parent], "mountpoint")[0]
        return f"{above}/{last}" if above.startswith("/") else above

    def _snapshots(self, words: list[str]) -> str:
        lines = []
        for name in words[words.index("1") + 1 :]:
            if name not in self.world.nodes:
                raise Refusal(f"cannot open '{name}': dataset does not exist")
            for snapshot, creation, txg in self.world.nodes[name].snapshots:
                lines.append(f"{creation}\t{txg}\t{name}@{snapshot}")
        return "\n".join(lines) + "\n" if lines else ""

    def _create(self, words: list[str], stdin: bytes | None) -> None:
        options: dict[str, str] = {}
        node = Node(words[-1])
        index = 0
        while index < len(words) - 1:
            if words[index] == "-o":
                word, value = words[index + 1].split("=", 1)
                options[word] = value
                index += 2
            elif words[index] == "-V":
                node.kind, node.volsize = "volume", -(-int(words[index + 1]) // 16384) * 16384
                index += 2
            else:
                index += 1
        parent = self.world.nodes.get(node.name.rsplit("/", 1)[0])
        if node.name in self.world.nodes or parent is None:
            raise Refusal(f"cannot create '{node.name}': parent does not exist, or dataset does")
        encryption, key_format = options.pop("encryption", ""), options.pop("keyformat", "")
        location, iterations = options.pop("keylocation", ""), options.pop("pbkdf2iters", "")
        inherits = parent.cipher != "off" and encryption != "off"
        if key_format:
            if encryption == "off" or (not encryption and not inherits):
                raise Refusal("Encryption must be turned on to set encryption properties.")
            node.cipher = _cipher(encryption) or parent.cipher
            node.root, node.loaded = node.name, True
            node.wrapped, node.location = self._key(key_format, location, stdin), location
            node.iterations = int(iterations or 350000) if key_format == "passphrase" else 0
            node.salt = len(self.world.nodes) + 7
        elif inherits:
            node.cipher, node.root = _cipher(encryption) or parent.cipher, parent.root
            if not self.world.nodes[parent.root].loaded:
                raise Refusal("encryption root's key is not loaded or provided")
        elif encryption not in ("", "off"):
            raise Refusal("Keyformat required for new encryption root.")
        node.properties = options
        if node.kind == "filesystem" and "-u" not in words:
            node.mounted = True
        self.world.nodes[node.name] = node

    def _key(self, key_format: str, location: str, stdin: bytes | None) -> Key:
        material = stdin or b""
        if location.startswith("file://"):
            with open(location[len("file://") :], "rb") as file:
                material = file.read()
        return Key(key_format, material if key_format == "raw" else material.split(b"\n")[0])

    def _set(self, words: list[str], _stdin: bytes | None) -> None:
        word, value = words[0].split("=", 1)
        node = self._node(words[1])
        if word == "keylocation":
            if node.root != node.name:
                raise Refusal("keylocation may only be set on encryption roots")
            node.location = value
        elif word == "volsize":
            node.volsize = int(value)
        else:
            node.properties[word] = value

    def _inherit(self, words: list[str], _stdin: bytes | None) -> None:
        self._node(words[1]).properties.pop(words[0], None)

    def _mount(self, words: list[str], _stdin: bytes | None) -> None:
        node = self._node(words[-1])
        if self.refuses_mounts:
            raise Refusal(f"cannot mount '{node.name}': permission denied")
        if node.mounted:
            raise Refusal(f"cannot mount '{node.name}': filesystem already mounted")
        if node.cipher != "off" and not self.world.nodes[node.root].loaded:
            raise Refusal(f"cannot mount '{node.name}': encryption key not loaded")
        node.mounted = True

    def _by_hand(self, words: list[str]) -> str:
        """mount(8) and umount(8)."""
        if words[1:] == ["-p"]:
            rows = (
                (one.name, one.place.replace(" ", "\\040"))
                for one in self.world.nodes.values()
                if one.mounted and one.place
            )
            return "".join(f"{name}\t{place}\tzfs\trw,nosuid,xattr 0 0\n" for name, place in rows)
        if words[0] == "mount":
            node = self._node(words[-2])
            node.mounted, node.place = True, words[-1]
        else:
            node = next(one for one in self.world.nodes.values() if words[-1] in (one.name, one.place))
            if node.busy:
                raise Refusal(f"umount: {words[-1]}: target is busy.")
            node.mounted = False
        self.effect()
        return ""

    def _unmount(self, words: list[str], _stdin: bytes | None) -> None:
        node = self._node(words[-1])
        if node.properties.get("mountpoint") == "legacy":
            raise Refusal(f"cannot unmount '{node.name}': legacy mountpoint\nuse umount(8) to unmount this filesystem")
        if node.busy:
            raise Refusal(f"cannot unmount '{node.name}': pool or dataset is busy")
        if not node.mounted:
            raise Refusal(f"cannot unmount '{node.name}': not currently mounted")
        node.mounted = False

    def _destroy(self, words: list[str], _stdin: bytes | None) -> None:
        node = self._node(words[-1])
        below = [name for name in self.world.nodes if name.startswith(node.name + "/")]
        if (below or node.snapshots) and "-r" not in words:
            raise Refusal(f"cannot destroy '{node.name}': filesystem has children")
        for name in [node.name, *below]:
            del self.world.nodes[name]

    def _node(self, name: str) -> Node:
        if name not in self.world.nodes:
            raise Refusal(f"cannot open '{name}': dataset does not exist")
        return self.world.nodes[name]

    # --- keys ------------------------------------------------------------------------------------------------------

    def try_all(self, candidates: t.Sequence[RootKey]) -> list[bool | StorageError]:
        return [self._fits(one) for one in candidates]

    def _fits(self, candidate: RootKey) -> bool:
        node = self.world.nodes[candidate.root]
        if node.wrapped is None:
            raise AssertionError(f"{candidate.root} is no encryption root")
        if candidate.key.format == "passphrase" and (candidate.iterations, candidate.salt) != (
            node.iterations,
            node.salt,
        ):
            raise AssertionError("a passphrase was tried with the wrong salt or iterations")
        return node.wrapped.same_as(candidate.key)

    def load(self, candidate: RootKey) -> None:
        if not self._fits(candidate):
            raise WrongKey(f"wrong key for {candidate.root}")
        self.world.nodes[candidate.root].loaded = True
        self.effect()

    def unload(self, root: str) -> None:
        users = [node for node in self.world.nodes.values() if node.root == root]
        if any(node.mounted or (node.busy and node.kind == "volume") for node in users):
            raise Busy(f"'{root}' is busy")
        self.world.nodes[root].loaded = False
        self.effect()

    def change(self, root: str, key: Key, location: str, iterations: int | None) -> None:
        node = self.world.nodes[root]
        if not self.world.nodes[node.root].loaded:
            raise StorageError("Key must be loaded.")
        if node.root != root:
            self._move(node, root)
        node.wrapped, node.location, node.loaded = key, location, True
        node.iterations = (iterations or node.iterations or 350000) if key.format == "passphrase" else 0
        node.salt += 1
        self.effect()

    def inherit(self, root: str) -> None:
        node = self.world.nodes[root]
        parent = self.world.nodes[root.rsplit("/", 1)[0]]
        if not (node.loaded and self.world.nodes[parent.root].loaded):
            raise StorageError("Parent key must be loaded.")
        self._move(node, parent.root)
        node.wrapped, node.location, node.loaded = None, "none", False
        self.effect()

    def _move(self, top: Node, root: str) -> None:
        before = top.root
        for node in self.world.nodes.values():
            if node.root == before and (node.name == top.name or node.name.startswith(top.name + "/")):
                node.root = root


def _cipher(encryption: str) -> str:
    return "aes-256-gcm" if encryption == "on" else encryption
