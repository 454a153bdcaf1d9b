# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads pools and datasets: a constant number of processes, whatever the number of pools and datasets.

Only where many datasets are named is there one process for each core.

Only ``-Hp`` output is used, which OpenZFS 2.1 to 2.4 print alike on Linux and FreeBSD. The value is asked for as the
last column and properties by name, so that a user property with tabs or line breaks can't pass for another one.
"""

from __future__ import annotations

import os
import secrets as random_source
import sys
import typing as t
from dataclasses import dataclass

from ..command import Command, CommandError, ProgramMissing, Runner
from ..errors import BadInput, Refused, StorageError
from ..parallel import cores, side_by_side
from .names import lies_below
from .properties import Property
from .status import ImportablePool, Tree, parse_importable, parse_status

# A pool of this health answers no question about its datasets: it would hang.
SILENT_HEALTH = ("SUSPENDED", "UNAVAIL", "FAULTED")

_COLUMNS = "name,property,source,value"

# Names of datasets; the kernel takes as long for them as it takes to start a process.
_WORTH_A_PROCESS = 50

# Native properties that ZFS lets hold a line break.
_FREE_TEXT = ("altroot", "bootfs", "cachefile", "comment", "keylocation", "mountpoint")

# What every reader of pools needs.
POOL_PROPERTIES = ("guid", "health", "altroot")

# What every reader of datasets needs.
ENCRYPTION_PROPERTIES = (
    "type",
    "encryption",
    "encryptionroot",
    "keystatus",
    "keyformat",
    "keylocation",
    "pbkdf2iters",
    "mountpoint",
    "canmount",
    "mounted",
)


def _handed_over() -> str:
    """The property of what is handed to a jail or zone; each platform has a name for it, and refuses the other's."""
    return "jailed" if sys.platform.startswith("freebsd") else "zoned"


# What every reader of datasets of this very host needs that may be mounted.
MOUNT_PROPERTIES = (*ENCRYPTION_PROPERTIES, _handed_over())


@dataclass(frozen=True)
class Dataset:
    """A filesystem or volume with the properties that were asked for."""

    name: str
    properties: t.Mapping[str, Property]

    def value(self, name: str) -> str:
        """The value of a property, "-" when it does not apply."""
        found = self.properties.get(name)
        return found.value if found else "-"

    @property
    def encrypted(self) -> bool:
        return self.value("encryption") not in ("off", "-")

    @property
    def root(self) -> str:
        """The encryption root, "" for a dataset that is not encrypted."""
        return self.value("encryptionroot") if self.encrypted else ""

    @property
    def is_root(self) -> bool:
        return self.root == self.name

    @property
    def locked(self) -> bool:
        return self.value("keystatus") == "unavailable"

    @property
    def mounted(self) -> bool:
        return self.value("mounted") == "yes"

    @property
    def written(self) -> bool:
        """Whether something was written to it since its last snapshot, if that property was asked for."""
        return self.value("written") not in ("0", "-")

    def mountable(self) -> bool:
        """Whether its own properties ask for it to be mounted by itself. What belongs to a jail is mounted there."""
        return (
            self.value("type") == "filesystem"
            and self.value("canmount") == "on"
            and self.value("mountpoint").startswith("/")
            and "on" not in (self.value("jailed"), self.value("zoned"))
        )


@dataclass(frozen=True)
class Pool:
    """An imported pool. ``tree`` holds the top-level vdevs by role; ``guid`` is decimal, as zpool takes it.

    ``below``: its filesystems and volumes below the root dataset, as far as they were read.
    """

    name: str
    guid: str
    health: str
    properties: t.Mapping[str, Property]
    tree: Tree
    dataset: Dataset | None = None
    below: tuple[Dataset, ...] = ()

    @property
    def altroot(self) -> str:
        value = self.properties.get("altroot")
        return value.value if value and value.value.startswith("/") else ""

    def devices(self) -> t.Iterator[tuple[str, str]]:
        """Path and role of every device in the pool."""
        for role, vdevs in self.tree.items():
            for vdev in vdevs:
                for leaf in vdev.leaves():
                    if leaf.path.startswith("/"):
                        yield leaf.path, role


class ZfsUnavailable(StorageError):
    """ZFS itself can't be asked: not installed, its module not loaded, or no permission."""


class NoSuchDataset(StorageError):
    """The dataset, or its pool, does not exist on this host."""


def require_root() -> None:
    """ZFS shows a part of its state to everybody, so a missing privilege must not pass for "nothing there".

    :raises ZfsUnavailable: not root
    """
    if os.geteuid() != 0:
        raise ZfsUnavailable(
            f"This module runs as user {os.geteuid()}; pools, keys and disks need root.",
            hint="Set 'become: true' for the task.",
        )


def run_zfs(runner: Runner, command: Command, ok: t.Sequence[int] = (0,)) -> str:
    """Run zfs or zpool and return what it printed.

    :raises ZfsUnavailable: told apart from a failure of the command itself
    """
    try:
        return runner.run(command, ok).stdout
    except ProgramMissing as error:
        raise ZfsUnavailable(
            f"There is no ZFS on this host: the program '{command.argv[0]}' was not found.",
            hint="Install it first: zfsutils-linux on Debian and Ubuntu (Debian: from contrib, with zfs-dkms); "
            "on FreeBSD it belongs to the base system.",
        ) from error
    except CommandError as error:
        raise _unavailable(error) or error from None


def _unavailable(error: CommandError) -> ZfsUnavailable | None:
    said = error.result.stderr + error.result.stdout
    if "modules cannot be auto-loaded" in said or "modules are not loaded" in said or "initialize the libzfs" in said:
        return ZfsUnavailable(
            "The ZFS kernel module is not loaded, so nothing can be known about pools.",
            hint="Run 'modprobe zfs' (on FreeBSD 'kldload zfs'); if that fails, the module was not built for the "
            "running kernel: see 'dkms status'.",
            **error.details,
        )
    if "/dev/zfs" in said or "must be run as root" in said:
        return ZfsUnavailable(
            "ZFS refuses to answer: no access to /dev/zfs.", hint="Set 'become: true'.", **error.details
        )
    return None


def read_pool_properties(runner: Runner, properties: t.Iterable[str] = ()) -> dict[str, dict[str, Property]]:
    """Identity and health of all imported pools, and the wanted properties, in one process.

    :raises BadInput: this version of OpenZFS has no such property
    """
    ordered = _request((*POOL_PROPERTIES, *properties))
    if ":" in ordered[-1]:
        # Not asked for otherwise: before OpenZFS 2.2 pools have no user properties.
        ordered.append(_end_mark())
    command = Command(("zpool", "get", "-Hp", "-o", _COLUMNS, ",".join(ordered)))
    try:
        text = run_zfs(runner, command)
    except CommandError as error:
        if "no pools available" in error.result.stderr:
            return {}
        raise _explain(error) from None
    return _records(text, ordered)


def _request(properties: t.Iterable[str]) -> list[str]:
    """The properties in the order to ask for them: those whose values can hold line breaks come last."""
    return sorted(dict.fromkeys(properties), key=lambda name: (":" in name, name in _FREE_TEXT))


def _end_mark() -> str:
    """A user property with an unpredictable name, set nowhere.

    Asked for as the last one, it is where a record ends: no value with line breaks can then pass for another record.
    """
    return f"nasops.encryption:{random_source.token_hex(8)}"


def _records(text: str, properties: t.Sequence[str]) -> dict[str, dict[str, Property]]:
    """Properties by name of pool or dataset.

    :raises StorageError: a name that is there twice, so that one of the two is not what it seems
    """
    records: dict[str, dict[str, Property]] = {}
    for name, found in parse_properties(text, properties):
        if name in records:
            raise StorageError(f"ZFS lists '{name}' twice; a property with line breaks may pretend to be another one.")
        records[name] = found
    return records


def read_trees(runner: Runner) -> dict[str, Tree]:
    """The vdev trees of all imported pools, in one process. Answers even when a pool is suspended."""
    return parse_status(run_zfs(runner, Command(("zpool", "status", "-P"))))


def read_importable(runner: Runner, folders: t.Sequence[str] = ()) -> tuple[ImportablePool, ...]:
    """The pools on attached disks that are not imported.

    :param folders: searched instead of the system's device folders, for pools made of files
    """
    argv = ["zpool", "import"]
    for folder in folders:
        argv += ["-d", folder]
    try:
        text = run_zfs(runner, Command(tuple(argv)))
    except CommandError as error:
        if "no pools available" not in error.result.stderr:
            raise
        return ()
    return parse_importable(text, tuple(folders))


def read_datasets(
    runner: Runner,
    names: t.Sequence[str],
    properties: t.Sequence[str],
    recursive: bool = False,
    at_once: bool = False,
) -> dict[str, Dataset]:
    """The wanted properties of filesystems and volumes, in one process or, for many names, one for each core.

    :param names: datasets to read; with none, those of all pools (with ``recursive``) or the pools' root datasets
    :param at_once: in one process, however many names there are
    :raises NoSuchDataset: one of them does not exist
    :raises BadInput: this version of OpenZFS has no such property
    """
    ordered = [*_request(properties), _end_mark()]
    argv: tuple[str, ...] = ("zfs", "get", "-Hp", "-t", "filesystem,volume", "-o", _COLUMNS)
    argv += ("-r",) if recursive else ("-d", "0") if not names else ()

    def read(part: t.Sequence[str]) -> dict[str, dict[str, Property]]:
        try:
            text = run_zfs(runner, Command((*argv, ",".join(ordered), *part)))
        except CommandError as error:
            raise _explain(error) from None
        return _records(text, ordered)

    parts = side_by_side(read, [names] if recursive or at_once else _shares(names))
    return {name: Dataset(name, found) for part in parts for name, found in part.items()}


def lines_of_many(runner: Runner, argv: tuple[str, ...], names: t.Sequence[str]) -> list[str]:
    """What a command prints of many datasets, which are its last arguments: for each core, one process has a share."""
    parts = side_by_side(lambda part: run_zfs(runner, Command((*argv, *part))).splitlines(), _shares(names))
    return [line for part in parts for line in part]


def _shares(names: t.Sequence[str]) -> list[t.Sequence[str]]:
    """Equal shares of the names, one for each core. The kernel takes its time for each dataset that is not mounted."""
    number = max(1, min(cores(), len(names) // _WORTH_A_PROCESS))
    size = -(-len(names) // number) or 1
    return [names[start : start + size] for start in range(0, len(names), size)] or [names]


def parse_properties(text: str, properties: t.Sequence[str]) -> t.Iterator[tuple[str, dict[str, Property]]]:
    """Names and properties from ``zfs get`` or ``zpool get``, which print them in the order they were asked for."""
    name = ""
    found: dict[str, Property] = {}
    last = ""
    # Most datasets share most values, and making a value takes longer than all the rest.
    known: dict[str, Property] = {}
    for line in text.split("\n"):
        fields = line.split("\t", 2)
        starts = len(found) in (0, len(properties))
        expected = properties[0 if starts else len(found)]
        if len(fields) == 3 and fields[1] == expected and (starts or fields[0] == name) and "\t" in fields[2]:
            if starts and found:
                yield name, found
                found = {}
            name, last, rest = fields
            if rest not in known:
                source, value = rest.split("\t", 1)
                known[rest] = Property(value, _source(source))
            found[last] = known[rest]
        elif last and not starts:
            # The value goes on after a line break.
            found[last] = Property(f"{found[last].value}\n{line}", found[last].source)
    if found:
        yield name, found


def key_opens(runner: Runner, root: str, stdin: bytes | None, location: str) -> bool:
    """Whether a key is the current one of an encryption root; a dry run that loads nothing.

    :param stdin: the key, when ``location`` is "prompt"
    :raises StorageError: anything other than a wrong key, such as an I/O error
    """
    argv = ("zfs", "load-key", "-n", "-L", location, root)
    try:
        run_zfs(runner, Command(argv, stdin=stdin))
    except CommandError as error:
        if "Incorrect key provided" in error.result.stderr:
            return False
        raise
    return True


def way_back(pool: str) -> str:
    """What to do about a pool of a SILENT_HEALTH."""
    return f"Bring its devices back, then run 'zpool clear {pool}'."


def wrong_key(root: str, origin: str, doubt: str = "") -> Refused:
    """The error for a key that is valid, but not the one of this encryption root.

    :param doubt: what strikes the eye about the key
    """
    return Refused(
        f"The key from {origin} is not the one that opens '{root}'; nothing was changed.",
        hint=f"{doubt} ".lstrip()
        + "Take the key from the last backup of this pool. A passphrase or key of another pool or an older one "
        "from before a change of keys does not fit.",
    )


def mount_tree(runner: Runner, top: str) -> None:
    """Mount every filesystem at and below ``top`` that wants to be mounted and is not locked, parents first.

    Nothing is mounted in the bare folder of one that could not be mounted: it would be in the way of that one later.

    :raises StorageError: some could not be mounted; the others are
    """
    datasets = read_datasets(runner, (top,), MOUNT_PROPERTIES, recursive=True)
    wanted = [one for one in datasets.values() if one.mountable() and not one.locked and not one.mounted]
    failed: list[str] = []
    blocked: list[str] = []
    for dataset in sorted(wanted, key=lambda one: (one.value("mountpoint"), one.name)):
        mountpoint = dataset.value("mountpoint")
        over = [path for path in blocked if lies_below(mountpoint, path)]
        reason = f"nothing could be mounted at {over[0]}" if over else _mount(dataset, runner)
        if reason:
            failed.append(f"{dataset.name}: {reason}")
            blocked.append(mountpoint)
    if failed:
        raise StorageError(f"Not mounted: {'; '.join(failed)}.", not_mounted=failed)


def _mount(dataset: Dataset, runner: Runner) -> str:
    """Why a filesystem could not be mounted, "" if it is."""
    obstacle = mount_obstacle(dataset.value("mountpoint"))
    if obstacle:
        return obstacle
    try:
        run_zfs(runner, Command(("zfs", "mount", dataset.name)))
    except CommandError as error:
        return error.result.stderr.strip()
    return ""


def mount_obstacle(mountpoint: str) -> str:
    """What is in the way of a mount, "" if nothing; OpenZFS on Linux would hide it below the mount."""
    try:
        # The first entry is enough; there may be a million.
        with os.scandir(mountpoint) as entries:
            empty = next(entries, None) is None
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        return f"there is a file at the mountpoint {mountpoint}"
    except OSError as error:
        return f"the mountpoint {mountpoint} can't be read ({error.strerror})"
    return "" if empty else f"the mountpoint {mountpoint} is not empty"


def _source(text: str) -> str:
    return "inherited" if text.startswith("inherited") else "none" if text == "-" else text


def _explain(error: CommandError) -> StorageError:
    said = error.result.stderr
    if "dataset does not exist" in said or "no such pool" in said:
        return NoSuchDataset(said.strip().split("\n")[0] + ".", **error.details)
    if "invalid property" in said or "bad property list" in said:
        return BadInput(
            f"{said.strip().splitlines()[0]}.", hint="This version of OpenZFS has no such property.", **error.details
        )
    return error
