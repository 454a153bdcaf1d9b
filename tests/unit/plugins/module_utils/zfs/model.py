# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of zfs and zpool: it carries out their commands on values in memory, and prints what they print.

It knows nothing of the code it tests. What it does with a command follows the manual pages of OpenZFS; where they
refuse, it refuses with the words of OpenZFS.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, CommandError, Result
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.zfs.zpool_text import Row, status_text

ROLES = ("special", "dedup", "log", "cache", "spare")
HEADINGS = {"special": "special\t", "dedup": "dedup\t", "log": "logs\t", "cache": "cache", "spare": "spares"}
GROUP = re.compile(r"mirror|raidz[123]?|draid[123]?(?::\S+)?")
UNITS = {unit: 1024**power for power, unit in enumerate("BKMGTPE")}
# How ZFS reads back what was set in another way.
ALIASES = {
    "compression": {"gzip-6": "gzip", "zstd-3": "zstd"},
    "acltype": {"posixacl": "posix", "noacl": "off"},
    "quota": {"none": "0"},
    "reservation": {"none": "0"},
}
SIZES = ("quota", "recordsize", "reservation", "special_small_blocks")
DATASET_DEFAULTS = {
    "type": "filesystem",
    "canmount": "on",
    "compression": "on",
    "acltype": "off",
    "atime": "on",
    "copies": "1",
    "quota": "0",
    "reservation": "0",
    "recordsize": "131072",
    "special_small_blocks": "0",
    "casesensitivity": "sensitive",
    "zoned": "off",
}
NATIVE = frozenset(DATASET_DEFAULTS)
COMPUTED = ("type", "encryption", "encryptionroot", "keystatus", "keyformat", "keylocation", "pbkdf2iters", "mounted")
POOL_DEFAULTS = {
    "altroot": "-",
    "autotrim": "off",
    "autoexpand": "off",
    "comment": "-",
    "cachefile": "-",
    "failmode": "wait",
    "readonly": "off",
    "ashift": "0",
}


@dataclass
class Group:
    """A top-level vdev: its kind in the words of zpool status, and its disks."""

    role: str
    kind: str
    disks: tuple[str, ...]


@dataclass
class Zpool:
    """A pool with its root dataset, and the datasets below it."""

    name: str
    guid: str
    groups: list[Group]
    cipher: str = "off"
    key_format: str = "none"
    key: bytes = b""
    location: str = "none"
    iterations: str = "0"
    loaded: bool = False
    mounted: bool = False
    imported: bool = True
    foreign: bool = False
    options: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    children: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def locked(self) -> bool:
        return self.cipher != "off" and not self.loaded


class Refusal(Exception):
    """A command of zfs or zpool that fails, with its words."""


class ZfsModel:
    """A host with ZFS."""

    def __init__(self) -> None:
        self.pools: list[Zpool] = []
        self.commands: list[Command] = []
        self.inputs: list[bytes] = []
        # Called with each command before and after it is carried out; an error they raise is that of the command.
        self.before: Callable[[Command], None] = lambda command: None
        self.after: Callable[[Command], None] = lambda command: None
        self._guids = itertools.count(10**18 + 7)

    # --- what the product sees ---------------------------------------------------------------------------------

    def has(self, program: str) -> bool:
        return program in ("zfs", "zpool", "df")

    def run(self, command: Command, ok: Sequence[int] = (0,)) -> Result:
        self.commands.append(command)
        if command.stdin is not None:
            self.inputs.append(command.stdin)
        try:
            self.before(command)
            result = Result(command.argv, 0, self._run(command), "")
            self.after(command)
        except Refusal as error:
            result = Result(command.argv, 1, "", f"{error}\n")
        if result.rc not in ok:
            raise CommandError(result)
        return result

    # --- for tests ---------------------------------------------------------------------------------------------

    def imported(self) -> list[Zpool]:
        return sorted((pool for pool in self.pools if pool.imported), key=lambda pool: pool.name)

    def named(self, name: str) -> Zpool:
        for pool in self.pools:
            if pool.imported and pool.name == name:
                return pool
        raise Refusal(f"cannot open '{name}': no such pool")

    def used(self) -> set[str]:
        return {disk for pool in self.pools for group in pool.groups for disk in group.disks}

    def copy(self) -> ZfsModel:
        other = ZfsModel()
        other._guids = itertools.count(2 * 10**18)
        other.pools = [
            replace(
                pool,
                groups=list(pool.groups),
                options=dict(pool.options),
                properties=dict(pool.properties),
                children={name: dict(values) for name, values in pool.children.items()},
            )
            for pool in self.pools
        ]
        return other

    def state(self) -> list[Zpool]:
        """All there is, to be compared."""
        return sorted(self.copy().pools, key=lambda pool: pool.guid)

    # --- the programs ------------------------------------------------------------------------------------------

    def _run(self, command: Command) -> str:
        words = list(command.argv)
        if words[0] == "df":
            return "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 9999 99 9900 1% /\n"
        handler = {
            ("zpool", "get"): self._zpool_get,
            ("zpool", "status"): self._zpool_status,
            ("zpool", "import"): self._zpool_import,
            ("zpool", "create"): self._zpool_create,
            ("zpool", "add"): self._zpool_add,
            ("zpool", "set"): self._zpool_set,
            ("zpool", "export"): self._zpool_export,
            ("zpool", "destroy"): self._zpool_destroy,
            ("zpool", "list"): self._zpool_list,
            ("zfs", "get"): self._zfs_get,
            ("zfs", "set"): self._zfs_set,
            ("zfs", "inherit"): self._zfs_inherit,
            ("zfs", "load-key"): self._zfs_load_key,
            ("zfs", "mount"): self._zfs_mount,
        }[words[0], words[1]]
        return handler(words[2:], command.stdin) or ""

    def _zpool_get(self, words: list[str], _stdin: bytes | None) -> str:
        names, *_pools = _after(words, "-Hp", "-o", "name,property,source,value")
        if not self.imported():
            raise Refusal("no pools available")
        lines = []
        for pool in self.imported():
            facts = {"guid": pool.guid, "health": "ONLINE"}
            for name in names.split(","):
                if name in facts:
                    lines.append(f"{pool.name}\t{name}\t-\t{facts[name]}")
                elif name in pool.options:
                    lines.append(f"{pool.name}\t{name}\tlocal\t{pool.options[name]}")
                elif ":" in name:
                    lines.append(f"{pool.name}\t{name}\t-\t-")
                else:
                    lines.append(f"{pool.name}\t{name}\tdefault\t{POOL_DEFAULTS[name]}")
        return "".join(f"{line}\n" for line in lines)

    def _zpool_status(self, words: list[str], _stdin: bytes | None) -> str:
        _after(words, "-P")
        return "\n".join(status_text(pool.name, list(self._rows(pool))) for pool in self.imported())

    def _rows(self, pool: Zpool) -> Iterator[Row]:
        number = 0
        for role in ("data", *ROLES):
            groups = [group for group in pool.groups if group.role == role]
            if groups and role != "data":
                yield Row(0, HEADINGS[role])
            for group in groups:
                if group.kind == "disk":
                    yield Row(1, group.disks[0])
                else:
                    yield Row(1, f"{group.kind}-{number}")
                    for disk in group.disks:
                        yield Row(2, disk)
                number += 1

    def _zpool_list(self, words: list[str], _stdin: bytes | None) -> str:
        _after(words, "-H", "-o", "name")
        return "".join(f"{pool.name}\n" for pool in self.imported())

    def _zpool_import(self, words: list[str], _stdin: bytes | None) -> str:
        if "-N" not in words:
            return self._importable()
        words.remove("-N")
        options, words = _options(words, "-o", "-d")
        force = "-f" in words
        (guid,) = [word for word in words if word != "-f"]
        (pool,) = [pool for pool in self.pools if pool.guid == guid and not pool.imported]
        if pool.foreign and not force:
            raise Refusal(f"cannot import '{pool.name}': pool was previously in use from another system.")
        if any(other.name == pool.name for other in self.imported()):
            raise Refusal(f"cannot import '{pool.name}': a pool with that name already exists")
        pool.imported, pool.foreign, pool.loaded, pool.mounted = True, False, False, False
        for word in options["-o"]:
            self._option(pool, word)
        return ""

    def _importable(self) -> str:
        texts = []
        for pool in self.pools:
            if not pool.imported:
                lines = [f"   pool: {pool.name}", f"     id: {pool.guid}", "  state: ONLINE"]
                if pool.foreign:
                    lines.append("status: The pool was last accessed by another system.")
                lines += [" action: The pool can be imported using its name or numeric identifier.", " config:", ""]
                texts.append("\n".join([*lines, f"\t{pool.name}  ONLINE", ""]))
        if not texts:
            raise Refusal("no pools available to import")
        return "\n".join(texts)

    def _zpool_create(self, words: list[str], stdin: bytes | None) -> str:
        options, words = _options(words, "-o", "-O")
        name, *vdevs = [word for word in words if word != "-f"]
        if any(pool.name == name for pool in self.imported()):
            raise Refusal(f"cannot create '{name}': pool already exists")
        pool = Zpool(name, str(next(self._guids)), [])
        properties = dict(word.split("=", 1) for word in options["-O"])
        self._encrypt(pool, properties, stdin)
        for word in options["-o"]:
            if ":" in word.split("=")[0]:
                raise Refusal(f"property '{word.split('=')[0]}' is not a valid pool or vdev property")
            self._option(pool, word)
        for key, value in properties.items():
            pool.properties[key] = _read_back(key, value)
        self._grow(pool, vdevs)
        pool.mounted = self._mountable(pool)
        self.pools.append(pool)
        return ""

    def _encrypt(self, pool: Zpool, properties: dict[str, str], stdin: bytes | None) -> None:
        cipher = properties.pop("encryption", "off")
        key_format = properties.pop("keyformat", "")
        location = properties.pop("keylocation", "prompt")
        iterations = properties.pop("pbkdf2iters", "")
        if cipher == "off":
            if key_format or iterations:
                raise Refusal("Encryption must be turned on to set encryption properties.")
            return
        if not key_format:
            raise Refusal("Keyformat required for new encryption root.")
        if iterations and key_format != "passphrase":
            raise Refusal("Cannot specify pbkdf2iters with a non-passphrase keyformat.")
        pool.cipher, pool.key_format, pool.location, pool.loaded = cipher, key_format, location, True
        pool.iterations = iterations or ("350000" if key_format == "passphrase" else "0")
        pool.key = self._key(key_format, location, stdin)

    @staticmethod
    def _key(key_format: str, location: str, stdin: bytes | None) -> bytes:
        """The key as ZFS reads it from stdin or from a file."""
        if location == "prompt":
            if stdin is None:
                raise Refusal("Failed to read key material: end of input")
            content = stdin
        else:
            try:
                content = Path(location[len("file://") :]).read_bytes()
            except OSError as error:
                raise Refusal(f"Failed to open key material file: {error.strerror}") from None
        if key_format == "raw":
            if len(content) != 32:
                raise Refusal("Raw key too long (expected 32).")
            return content
        content = content.split(b"\n", 1)[0]
        if key_format == "passphrase":
            if not 8 <= len(content) <= 512:
                raise Refusal("Passphrase too short (min 8).")
            return content
        try:
            found = bytes.fromhex(content.decode("ascii"))
        except ValueError:
            raise Refusal("Invalid hex character detected.") from None
        if len(content) != 64:
            raise Refusal("Hex key too short (expected 64).")
        return found

    def _zpool_add(self, words: list[str], _stdin: bytes | None) -> str:
        _options_found, words = _options(words, "-o")
        name, *vdevs = [word for word in words if word != "-f"]
        self._grow(self.named(name), vdevs)
        return ""

    def _grow(self, pool: Zpool, words: Sequence[str]) -> None:
        role, group = "data", None
        added: list[Group] = []
        for word in words:
            if word in ROLES:
                role, group = word, None
            elif GROUP.fullmatch(word):
                group = Group(role, _kind(word), ())
                added.append(group)
            elif group is not None:
                group.disks += (word,)
            else:
                added.append(Group(role, "disk", (word,)))
        taken = self.used()
        for disk in (disk for one in added for disk in one.disks):
            if disk in taken:
                raise Refusal(f"{disk} is part of active pool")
            taken.add(disk)
        for one in added:
            least = {"disk": 1, "mirror": 2}.get(one.kind) or int(one.kind[5]) + 1
            if len(one.disks) < least:
                raise Refusal(f"invalid vdev specification: {one.kind} requires at least {least} devices")
        pool.groups += added

    @staticmethod
    def _option(pool: Zpool, word: str) -> None:
        name, value = word.split("=", 1)
        if value in ("", POOL_DEFAULTS.get(name)):
            pool.options.pop(name, None)
        else:
            pool.options[name] = value

    def _zpool_set(self, words: list[str], _stdin: bytes | None) -> str:
        assignment, name = words
        if assignment.split("=")[0] in ("altroot", "readonly"):
            raise Refusal(f"cannot set property for '{name}': property can only be set at import time")
        self._option(self.named(name), assignment)
        return ""

    def _zpool_export(self, words: list[str], _stdin: bytes | None) -> str:
        (name,) = words
        pool = self.named(name)
        pool.imported = pool.loaded = pool.mounted = False
        pool.options.pop("altroot", None)
        pool.options.pop("readonly", None)
        return ""

    def _zpool_destroy(self, words: list[str], _stdin: bytes | None) -> str:
        (name,) = words
        self.pools.remove(self.named(name))
        return ""

    def _zfs_get(self, words: list[str], _stdin: bytes | None) -> str:
        rest = _after(words, "-Hp", "-t", "filesystem,volume", "-o", "name,property,source,value")
        recursive = rest[0] == "-r"
        rest = rest[1:] if recursive else rest[2:] if rest[:2] == ["-d", "0"] else rest
        properties, *names = rest
        lines = []
        for name in names or [pool.name for pool in self.imported()]:
            pool = self.named(name.split("/")[0])
            if name != pool.name and name not in pool.children:
                raise Refusal(f"cannot open '{name}': dataset does not exist")
            below = [child for child in sorted(pool.children) if child.startswith(name + "/")] if recursive else []
            for dataset in (name, *below):
                for one in properties.split(","):
                    value, source = self._property(pool, dataset, one)
                    lines.append(f"{dataset}\t{one}\t{source}\t{value}")
        return "".join(f"{line}\n" for line in lines)

    def _property(self, pool: Zpool, dataset: str, name: str) -> tuple[str, str]:
        child = pool.children.get(dataset)
        if child is not None and name in child:
            return child[name], "local"
        facts = {
            "encryption": pool.cipher,
            "encryptionroot": pool.name if pool.cipher != "off" else "-",
            "keystatus": "-" if pool.cipher == "off" else "available" if pool.loaded else "unavailable",
            "keyformat": pool.key_format,
            "keylocation": pool.location if child is None else "none",
            "pbkdf2iters": pool.iterations,
            "mounted": "yes" if pool.mounted and child is None else "no",
        }
        if name in facts:
            return facts[name], "-"
        if name == "mountpoint":
            return self._mountpoint(pool, dataset), "local" if name in pool.properties else "default"
        if name in pool.properties:
            return pool.properties[name], "local"
        if ":" in name:
            return "-", "-"
        if name not in DATASET_DEFAULTS:
            raise Refusal(f"bad property list: invalid property '{name}'")
        return DATASET_DEFAULTS[name], "default"

    @staticmethod
    def _mountpoint(pool: Zpool, dataset: str) -> str:
        own = pool.properties.get("mountpoint", f"/{pool.name}")
        if not own.startswith("/"):
            return own
        path = own.rstrip("/") + dataset[len(pool.name) :]
        altroot = pool.options.get("altroot", "").rstrip("/")
        return (altroot + path).rstrip("/") or "/"

    def _mountable(self, pool: Zpool) -> bool:
        canmount = pool.properties.get("canmount", "on")
        return canmount == "on" and self._mountpoint(pool, pool.name).startswith("/")

    def _zfs_set(self, words: list[str], _stdin: bytes | None) -> str:
        assignment, name = words
        pool = self.named(name)
        key, value = assignment.split("=", 1)
        if key in ("encryption", "keyformat", "pbkdf2iters", "casesensitivity", "utf8only", "normalization"):
            raise Refusal(f"cannot set property for '{name}': '{key}' is readonly")
        if key == "keylocation":
            pool.location = value
        else:
            pool.properties[key] = _read_back(key, value)
        self._remount(pool, key)
        return ""

    def _zfs_inherit(self, words: list[str], _stdin: bytes | None) -> str:
        key, name = words
        pool = self.named(name)
        if key in ("quota", "reservation", "canmount"):
            raise Refusal(f"'{key}' property cannot be inherited")
        pool.properties.pop(key, None)
        self._remount(pool, key)
        return ""

    def _remount(self, pool: Zpool, key: str) -> None:
        """A new mountpoint is taken at once, canmount=off as well; canmount=on does not mount by itself."""
        if key == "mountpoint":
            pool.mounted = self._mountable(pool) and not pool.locked
        elif key == "canmount" and pool.properties.get("canmount") == "off":
            pool.mounted = False

    def _zfs_load_key(self, words: list[str], stdin: bytes | None) -> str:
        options, words = _options(words, "-L")
        dry = "-n" in words
        (name,) = [word for word in words if word != "-n"]
        pool = self.named(name)
        if pool.cipher == "off":
            raise Refusal(f"Key load error: '{name}' is not encrypted.")
        if pool.loaded and not dry:
            raise Refusal(f"Key load error: Key already loaded for '{name}'.")
        (location,) = options["-L"] or [pool.location]
        if self._key(pool.key_format, location, stdin) != pool.key:
            raise Refusal(f"Key load error: Incorrect key provided for '{name}'.")
        pool.loaded = pool.loaded or not dry
        return ""

    def _zfs_mount(self, words: list[str], _stdin: bytes | None) -> str:
        (name,) = words
        pool = self.named(name.split("/")[0])
        if pool.locked:
            raise Refusal(f"cannot mount '{name}': encryption key not loaded")
        if name != pool.name:
            pool.children[name]["mounted"] = "yes"
            return ""
        if pool.mounted:
            raise Refusal(f"cannot mount '{name}': filesystem already mounted")
        pool.mounted = True
        return ""


def _after(words: Sequence[str], *expected: str) -> list[str]:
    """What follows on options that are always the same."""
    if tuple(words[: len(expected)]) != expected:
        raise Refusal(f"invalid option in {' '.join(words)}")
    return list(words[len(expected) :])


def _options(words: Sequence[str], *flags: str) -> tuple[dict[str, list[str]], list[str]]:
    """The values of options that have one, and the other words."""
    found: dict[str, list[str]] = {flag: [] for flag in flags}
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word in found:
            found[word].append(next(remaining))
        else:
            rest.append(word)
    return found, rest


def _kind(word: str) -> str:
    return {"raidz": "raidz1", "draid": "draid1"}.get(word, word)


def _read_back(name: str, value: str) -> str:
    value = ALIASES.get(name, {}).get(value, value)
    if name in SIZES and not value.isdigit():
        return str(int(float(value[:-1]) * UNITS[value[-1].upper()]))
    return value
