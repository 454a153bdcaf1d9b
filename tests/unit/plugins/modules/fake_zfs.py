# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for zfs and zpool: pools in a file next to it, and streams that carry them from one to the other.

It knows as much of the two programs as a migration makes use of, and fails at everything else. What it refuses, it
refuses with the words of OpenZFS. The path of the file with the pools is the first argument, then the program's name.

A test starts it dozens of times, so it imports nothing that takes longer than it does itself.
"""

from __future__ import annotations

import marshal
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing as t

    Node = dict[str, t.Any]

MARK = b"-- for the other end --"
INHERITED = ("readonly", "volmode")
DEFAULTS = {"readonly": "off", "volmode": "default", "mountpoint": "none", "canmount": "on", "quota": "0"}


def say(*lines: str) -> None:
    """Print lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


class Refusal(Exception):
    """What the program says before it fails."""


class Pools:
    """All that there is."""

    def __init__(self, path: str, stdin: str = "") -> None:
        self.path = path
        self.stdin = stdin
        with open(path, "rb") as file:
            self.state: dict[str, t.Any] = marshal.load(file)
        self.nodes: dict[str, Node] = self.state["datasets"]

    def save(self) -> None:
        with open(self.path, "wb") as file:
            marshal.dump(self.state, file)

    def number(self) -> int:
        self.state["clock"] += 1
        return int(self.state["clock"])

    def node(self, name: str) -> Node:
        if name not in self.nodes:
            raise Refusal(f"cannot open '{name}': dataset does not exist")
        return self.nodes[name]

    def writable(self, name: str) -> Node:
        if self.state["pools"][name.split("/")[0]]["readonly"] == "on":
            raise Refusal(f"cannot change '{name}': pool is read-only")
        return self.node(name)

    def loaded(self, node: Node) -> bool:
        return not node["key"] or bool(self.nodes[node["key"]]["loaded"])

    def below(self, top: str) -> list[str]:
        self.node(top)
        return sorted(name for name in self.nodes if f"{name}/".startswith(f"{top}/"))

    # --- looks -----------------------------------------------------------------------------------------------------

    def zpool(self, words: list[str]) -> None:
        pools = self.state["pools"]
        if words[0] == "get":
            for name, pool in pools.items():
                for one in words[-1].split(","):
                    value = pool.get(one, "enabled" if one.startswith("feature@") else "-")
                    say(f"{name}\t{one}\t-\t{value}")
        elif words[0] == "status":
            for name, pool in pools.items():
                say(f"  pool: {name}\n state: ONLINE\nconfig:\n\n\t{'NAME':40}  STATE     READ WRITE CKSUM")
                say(f"\t{name:40}  ONLINE       0     0     0")
                say(*(f"\t  {path:38}  ONLINE       0     0     0" for path in pool["disks"]), "")
                say("errors: No known data errors\n")
        elif words[0] == "list":
            say(*pools)
        elif words[0] != "sync" or pools.get(words[1], {}).get("readonly") != "off":
            raise Refusal(f"cannot {words[0]}")

    def version(self, _words: list[str]) -> None:
        say("zfs-2.3.2-2", "zfs-kmod-2.3.2-2")

    def get(self, words: list[str]) -> None:
        top, asked = words[-1], words[self._asked_at(words)].split(",")
        names = self.below(top) if "-r" in words else [top]
        if "snapshot,bookmark" in words:
            for name in names:
                for one in self.node(name)["snapshots"]:
                    for prop in asked:
                        say(f"{name}@{one['name']}\t{prop}\t-\t{one.get(prop, '-')}")
            return
        if asked == ["all"]:
            sys.stdout.write("".join(f"{prop}\n" for name in names for prop in self.nodes[name]["own"]))
            return
        for name in names if "-r" in words else self._listed(words):
            for prop in asked:
                value, source = self.value(name, prop)
                if "value" in words:
                    say(*([value] if source == "local" else []))
                else:
                    say(f"{name}\t{prop}\t{source}\t{value}")

    @staticmethod
    def _asked_at(words: list[str]) -> int:
        """Where the properties are: behind them come names, of which there may be many."""
        if "-r" in words or words[-2] == "all":
            return len(words) - 2
        return max(number for number, word in enumerate(words) if "," in word or ":" in word)

    def _listed(self, words: list[str]) -> list[str]:
        """The names behind the properties."""
        names = words[self._asked_at(words) + 1 :]
        for name in names:
            self.node(name)
        return names

    def value(self, name: str, prop: str) -> tuple[str, str]:
        node = self.nodes[name]
        if prop in node["own"]:
            return node["own"][prop], "local"
        encrypted = bool(node["key"])
        facts = {
            "type": node["type"],
            "encryption": "aes-256-gcm" if encrypted else "off",
            "encryptionroot": node["key"] or "-",
            "keystatus": ("available" if self.loaded(node) else "unavailable") if encrypted else "none",
            "keyformat": "hex" if encrypted else "none",
            "keylocation": node.get("location", "none"),
            "mounted": "-" if node["type"] == "volume" else "yes" if node["mounted"] else "no",
            "written": str(node["written"]),
            "guid": str(node["guid"]),
            "origin": node["origin"] or "-",
            "referenced": str(len(node["data"])),
            "logicalreferenced": str(len(node["data"])),
            "usedbydataset": str(len(node["data"])),
            "usedbysnapshots": "0",
            "available": "1000000",
        }
        if prop in facts:
            return facts[prop], "-"
        if prop.startswith("written@"):
            newest = [one["name"] for one in node["snapshots"][-1:]]
            return facts["written"] if newest == [prop.partition("@")[2]] else "-", "-"
        if (prop in INHERITED or ":" in prop) and "/" in name:
            value, source = self.value(name.rsplit("/", 1)[0], prop)
            return value, "inherited from above" if source == "local" else source
        return (DEFAULTS[prop], "default") if prop in DEFAULTS else ("-", "-")

    # --- changes ---------------------------------------------------------------------------------------------------

    def snapshot(self, words: list[str]) -> None:
        names = [word.split("@")[0] for word in words if "@" in word]
        txg = self.number()
        for name in self.below(names[0]) if "-r" in words else names:
            node = self.writable(name)
            one = {
                "name": words[-1].split("@")[1],
                "guid": str(self.number()),
                "createtxg": str(txg),
                "data": node["data"],
            }
            node["snapshots"].append(one)
            node["written"] = 0

    def set(self, words: list[str]) -> None:
        prop, value = words[0].split("=", 1)
        self.writable(words[1])["own"][prop] = value

    def inherit(self, words: list[str]) -> None:
        self.writable(words[1])["own"].pop(words[0], None)

    def rollback(self, words: list[str]) -> None:
        name, snapshot = words[-1].split("@")
        node = self.writable(name)
        place = [one["name"] for one in node["snapshots"]].index(snapshot)
        del node["snapshots"][place + 1 :]
        node["data"], node["written"] = node["snapshots"][-1]["data"], 0

    def mount(self, words: list[str]) -> None:
        self.node(words[-1])["mounted"] = True

    def unmount(self, words: list[str]) -> None:
        self.node(words[-1])["mounted"] = False

    def load_key(self, words: list[str]) -> None:
        node, location = self.node(words[-1]), words[words.index("-L") + 1]
        key = self.stdin
        if location != "prompt":
            with open(location[len("file://") :], encoding="ascii") as file:
                key = file.read()
        key = key.strip()
        if key != node["secret"]:
            raise Refusal(f"Key load error: Incorrect key provided for '{words[-1]}'.")
        if "-n" not in words:
            node["loaded"] = True

    def unload_key(self, words: list[str]) -> None:
        if any(node["mounted"] for node in self.nodes.values() if node["key"] == words[-1]):
            raise Refusal(f"Key unload error: '{words[-1]}' is busy.")
        self.node(words[-1])["loaded"] = False

    # --- streams ---------------------------------------------------------------------------------------------------

    def send(self, words: list[str]) -> None:
        name, _at_sign, last = words[-1].partition("@")
        node = self.node(name)
        if not self.loaded(node):
            raise Refusal(f"cannot send '{words[-1]}': dataset key must be loaded")
        head = {"name": "--head--", "guid": str(node["guid"]), "createtxg": str(1 << 60), "data": node["data"]}
        states = [*node["snapshots"], head]
        goal = next(number for number, one in enumerate(states) if one["name"] == (last or "--head--"))
        start = next((words[words.index(flag) + 1] for flag in ("-i", "-I") if flag in words), "")
        first, origin = 0, ""
        if start.startswith("@"):
            first = [one["name"] for one in states].index(start[1:]) + 1
        elif start:
            dataset, snapshot = start.split("@")
            origin = next(one["guid"] for one in self.nodes[dataset]["snapshots"] if one["name"] == snapshot)
        sent = states[first : goal + 1] if start.startswith("@") else [states[goal]]
        if node.get("damaged"):
            raise Refusal(f"warning: cannot send '{words[-1]}': Input/output error")
        if "-v" in words and not last:
            # OpenZFS works out the length of the stream first, and can't for what is no snapshot.
            raise Refusal(f"cannot estimate space for '{words[-1]}': Invalid argument")
        if "-v" in words:
            sys.stderr.write(f"size\t{sum(len(one['data']) for one in sent)}\n")
        after = states[first - 1]["guid"] if first else ""
        # What is behind its last record is for the other end of this stand-in.
        parts = [contents(one["data"], int(one["guid"])) for one in sent]
        tail = {"type": node["type"], "after": after, "origin": origin, "snapshots": sent}
        sys.stdout.buffer.write(b"".join(parts) + MARK + marshal.dumps(tail))

    def receive(self, words: list[str]) -> None:
        stream: dict[str, t.Any] = marshal.loads(self.stdin.encode("latin-1").rpartition(MARK)[2])
        target = words[-1]
        above = self.writable(target.rsplit("/", 1)[0])
        if target not in self.nodes:
            if stream["after"] or ("-x", "encryption") not in zip(words, words[1:]):
                raise Refusal(f"cannot receive '{target}': it does not exist, or would be in the clear")
            if not self.loaded(above):
                raise Refusal("inherited key must be loaded")
            origin = [
                f"{name}@{one['name']}"
                for name, node in self.nodes.items()
                for one in node["snapshots"]
                if one["guid"] == stream["origin"] and node["key"]
            ]
            if stream["origin"] and not origin:
                raise Refusal("local origin for clone does not exist")
            self.nodes[target] = new(stream["type"], self.number(), above["key"], origin[0] if origin else "")
        node = self.nodes[target]
        has = [one["guid"] for one in node["snapshots"]]
        if has[-1:] != ([stream["after"]] if stream["after"] else []) or node["written"]:
            raise Refusal(f"cannot receive: most recent snapshot of {target} does not match incremental source")
        node["snapshots"] += [{**one, "createtxg": str(self.number())} for one in stream["snapshots"]]
        node["data"] = stream["snapshots"][-1]["data"]
        node["own"].update(dict(word.split("=", 1) for flag, word in zip(words, words[1:]) if flag == "-o"))


def new(kind: str, guid: int, key: str = "", origin: str = "") -> Node:
    """A filesystem or volume without anything in it."""
    facts: Node = {"type": kind, "guid": guid, "key": key, "origin": origin, "data": "", "written": 0}
    return {**facts, "own": {}, "snapshots": [], "mounted": False}


def contents(data: str, noise: int) -> bytes:
    """A stream with one object that holds this, in the form of zfs."""
    begin = struct.pack("<IIQQQIIQQ", 0, 0, 0x2F5BACBAC, 1, noise, 2, 0, noise, 0)
    thing = struct.pack("<IIQIIIIBBBBIQ", 1, 0, 7, 19, 44, 512, 0, noise % 7, 0, 1, 0, 0, noise)
    body = data.encode("utf-8")
    write = struct.pack("<IIQIIQQQ", 3, 0, 7, 19, 0, 0, len(body), noise)
    end = struct.pack("<II", 5, 0)
    return begin.ljust(312, b"\0") + thing.ljust(312, b"\0") + write.ljust(312, b"\0") + body + end.ljust(312, b"\0")


def run(path: str, program: str, words: list[str], stdin: str = "") -> int:
    """Run one of the programs; what it prints goes to standard output and error. Returns its exit status."""
    pools = Pools(path, stdin)
    try:
        if program == "zpool":
            pools.zpool(words)
        else:
            getattr(pools, words[0].replace("-", "_"))(words[1:])
    except Refusal as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if program == "zfs" and words[0] not in ("get", "send"):
        pools.save()
    return 0


def main() -> int:
    stdin = "" if sys.argv[3] == "send" else sys.stdin.buffer.read().decode("latin-1")
    return run(sys.argv[1], sys.argv[2], sys.argv[3:], stdin)


if __name__ == "__main__":
    sys.exit(main())
