# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads both ends of a replication: six processes, or eight for two hosts, more only where there is more to know."""

from __future__ import annotations

import re
import time
import typing as t
import zlib

from ..command import Command, CommandError, Runner
from ..errors import BadInput, Refused, StorageError
from ..filesystem import memory_there
from ..secrets import parse_file
from . import keystore
from .names import ancestors
from .properties import Property
from .replicate_options import RAW, REENCRYPT, Replication
from .replicate_run import ReplicaRunner
from .replicate_state import FUTURE, HEAD, HEAD_MARK, HEAD_SIZES, Ends, Side, Snapshot, Token
from .state import (
    ENCRYPTION_PROPERTIES,
    SILENT_HEALTH,
    Dataset,
    NoSuchDataset,
    parse_properties,
    read_datasets,
    read_pool_properties,
    run_zfs,
)

# Features that a stream can make use of, and that the pool it is received into has to have then.
FEATURES = (
    "encryption",
    "bookmark_v2",
    "large_blocks",
    "large_dnode",
    "lz4_compress",
    "zstd_compress",
    "embedded_data",
)

# Settings of a dataset that are carried over by hand where a stream can't carry them.
CARRIED = (
    "aclinherit",
    "acltype",
    "atime",
    "canmount",
    "checksum",
    "compression",
    "copies",
    "devices",
    "dnodesize",
    "exec",
    "logbias",
    "overlay",
    "primarycache",
    "quota",
    "recordsize",
    "redundant_metadata",
    "refquota",
    "relatime",
    "secondarycache",
    "setuid",
    "snapdir",
    "sync",
    "volmode",
    "xattr",
)

Properties = t.Mapping[str, Property]

# User properties that this collection itself keeps; they say something of the dataset that they are set on.
OWN_PROPERTIES = "nasops.encryption:"

_SNAPSHOT = ("guid", "createtxg", "ivsetguid")
# The token comes from the target, and its strings may hold lines that look like these.
_TOKEN_GUID = re.compile(r"^\ttoguid = (.*)$", re.MULTILINE)
_TOKEN_NAME = re.compile(r"^\ttoname = (.*)$", re.MULTILINE)
_TOKEN_RAW = re.compile(r"^\trawok = (.*)$", re.MULTILINE)
_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19}")
_SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9_.: -]+")
_FORGED = re.compile(rb"[\r\n]\s*\w+ = ")
_MOST_TOKEN_BYTES = 1 << 16
_VERSION = re.compile(r"zfs(?:-kmod)?-(\d+)\.(\d+)")
_MOST_KEY_BYTES = 2048
# Looks at a replica into which something seems to be received, and seconds between them.
_PATIENCE, _PAUSE = 8, 1.0


Pools = t.Mapping[str, Properties]


def read_ends(runner: ReplicaRunner, wanted: Replication, taken: str = "", pools: Pools | None = None) -> Ends:
    """Both ends as they are now.

    :param pools: those of this host, if they have been read a moment ago
    :raises StorageError: the source does not exist, or one of the ends does not answer
    """
    if not wanted.snapshot and not taken and not wanted.heads:
        # What was written a moment ago does not show before it is on the disks.
        runner.run(Command(("zpool", "sync", wanted.source.split("/")[0])), ok=(0, 1, 2))
    if pools is None:
        pools = read_pools(runner)
    source = _source(runner, wanted, _pool(pools, wanted.source))
    return Ends(source, read_target(runner, wanted, pools), taken)


def read_target(runner: ReplicaRunner, wanted: Replication, pools: Pools) -> Side:
    """The target as it is now.

    :param pools: those of this host
    """
    if wanted.ssh is None:
        return _target(runner, wanted, _pool(pools, wanted.target))
    return _far_target(runner, wanted)


def _far_target(runner: ReplicaRunner, wanted: Replication) -> Side:
    """The target on another host, which is named in what goes wrong there."""
    try:
        return _target(runner, wanted, _pool(read_pools(runner.target), wanted.target))
    except StorageError as error:
        if wanted.ssh is not None and f"'{wanted.ssh.host}'" not in error.message:
            error.message = f"On the target host '{wanted.ssh.host}': {error.message}"
        raise


def _source(runner: Runner, wanted: Replication, pool: Properties) -> Side:
    properties = [*ENCRYPTION_PROPERTIES, "pbkdf2salt", "written"]
    if wanted.mode != RAW and wanted.send_properties:
        properties += CARRIED
    if wanted.migration:
        properties += ["origin", *wanted.also_read, *_user_properties(runner, wanted)]
    if wanted.heads:
        properties += ["guid", *HEAD_SIZES]
    datasets = read_datasets(runner, (wanted.source,), properties, wanted.recursive)
    # A stream brings the size of a volume along.
    also = () if wanted.streams else ("volsize",)
    snapshots, bookmarks = read_snapshots(runner, wanted.source, wanted.recursive, also)
    if wanted.heads:
        snapshots = with_heads(datasets, snapshots)
    can_exclude = not wanted.exclude or _can_exclude(runner)
    return Side(datasets, snapshots, bookmarks, pool=pool, can_exclude=can_exclude)


def with_heads(
    datasets: t.Mapping[str, Dataset], snapshots: t.Mapping[str, tuple[Snapshot, ...]]
) -> dict[str, tuple[Snapshot, ...]]:
    """The snapshots, and behind them what was written since the last one, under the GUID that it is received with."""
    found: dict[str, tuple[Snapshot, ...]] = {}
    for name, dataset in datasets.items():
        has = snapshots.get(name, ())
        if not has or dataset.written:
            has = (*has, Snapshot(HEAD, dataset.value("guid"), FUTURE))
        found[name] = has
    return found


def _user_properties(runner: Runner, wanted: Replication) -> list[str]:
    """The names of the user properties that something of the source was given. Their values may hold line breaks."""
    depth = ("-r",) if wanted.recursive else ()
    argv = ("zfs", "get", "-H", *depth, "-t", "filesystem,volume", "-s", "local,received", "-o", "property", "all")
    try:
        text = run_zfs(runner, Command((*argv, wanted.source)))
    except CommandError:
        # What is wrong with the source is told by the next question, in better words.
        return []
    names = {line.strip() for line in text.splitlines()}
    return sorted(one for one in names if ":" in one and not one.startswith(OWN_PROPERTIES))


def _target(runner: ReplicaRunner, wanted: Replication, pool: Properties) -> Side:
    there = runner.target
    properties = (
        *ENCRYPTION_PROPERTIES,
        "pbkdf2salt",
        "written",
        "receive_resume_token",
        "readonly",
        *wanted.properties,
        *((HEAD_MARK, *wanted.also_read) if wanted.migration else ()),
    )
    found = _settled(there, wanted, properties)
    if found is None:
        above = _above(there, wanted, properties)
        return Side(above, pool=pool, key_files=_key_files(runner, wanted, {}))
    datasets, snapshots = found
    tokens = {
        name: _token(runner, dataset.value("receive_resume_token"), wanted.source + name[len(wanted.target) :])
        for name, dataset in datasets.items()
        if dataset.value("receive_resume_token") != "-"
    }
    # What was received of a first stream may be discarded, and the replica made anew.
    if wanted.mode == REENCRYPT or not snapshots.get(wanted.target):
        datasets = {**_above(there, wanted, properties), **datasets}
    return Side(datasets, snapshots, tokens=tokens, pool=pool, key_files=_key_files(runner, wanted, snapshots))


def _settled(
    runner: Runner, wanted: Replication, properties: t.Sequence[str]
) -> tuple[dict[str, Dataset], dict[str, tuple[Snapshot, ...]]] | None:
    """The replica as it is when nothing is being received any more, None if there is none.

    Where a line was cut, the receiving end takes a moment to notice, and only then is there a token to go on with.
    """
    for left in reversed(range(_PATIENCE)):
        try:
            datasets = read_datasets(runner, (wanted.target,), properties, wanted.recursive)
        except NoSuchDataset:
            return None
        snapshots, _bookmarks = read_snapshots(runner, wanted.target, wanted.recursive)
        # Nothing but a stream that is under way makes a dataset that has neither.
        empty = [
            one.name
            for one in datasets.values()
            if not snapshots.get(one.name) and one.value("receive_resume_token") == "-"
        ]
        if not empty or not left or not wanted.streams:
            return datasets, snapshots
        time.sleep(_PAUSE)
    return None


def read_pools(runner: Runner, *also: str) -> Pools:
    """The pools of a host, with what a stream has to know of them, and these properties."""
    return read_pool_properties(runner, ("readonly", *(f"feature@{one}" for one in FEATURES), *also))


def _pool(pools: Pools, dataset: str) -> Properties:
    """The properties of the pool of a dataset; none if there is no such pool.

    :raises Refused: it does not answer, so that all that follows would hang
    """
    name = dataset.split("/")[0]
    found = pools.get(name, {})
    if found and found["health"].value in SILENT_HEALTH:
        raise Refused(
            f"The pool '{name}' is {found['health'].value}: it answers no question about its datasets.",
            hint="See 'zpool status'.",
        )
    return found


def _above(runner: Runner, wanted: Replication, properties: t.Sequence[str]) -> dict[str, Dataset]:
    """What lies directly above the target, nothing if it does not exist."""
    try:
        return read_datasets(runner, (next(ancestors(wanted.target)),), properties)
    except NoSuchDataset:
        return {}


def read_snapshots(
    runner: Runner, top: str, recursive: bool, also: t.Sequence[str] = ()
) -> tuple[dict[str, tuple[Snapshot, ...]], ...]:
    """Snapshots and bookmarks by dataset, oldest first.

    :param also: a property to be read that not everybody needs: volsize
    """
    properties = (*_SNAPSHOT, *also)
    depth = ("-r",) if recursive else ("-d", "1")
    argv = ("zfs", "get", "-Hp", *depth, "-t", "snapshot,bookmark", "-o", "name,property,source,value")
    text = run_zfs(runner, Command((*argv, ",".join(properties), top)))
    found: dict[str, dict[str, list[Snapshot]]] = {"@": {}, "#": {}}
    for full, values in parse_properties(text, properties):
        mark = "@" if "@" in full else "#"
        dataset, name = full.split(mark, 1)
        ivset = values["ivsetguid"].value
        size = values["volsize"].value if "volsize" in values else "-"
        one = Snapshot(
            name,
            values["guid"].value,
            int(values["createtxg"].value),
            "" if ivset in ("-", "0", "none") else ivset,
            "" if size == "-" else size,
        )
        found[mark].setdefault(dataset, []).append(one)
    return tuple(
        {dataset: tuple(sorted(ones, key=lambda one: one.createtxg)) for dataset, ones in found[mark].items()}
        for mark in "@#"
    )


def _token(runner: Runner, value: str, dataset: str) -> Token:
    """What a token stands for, as the source understands it.

    :param dataset: the dataset of the source that it has to be of
    """
    result = runner.run(Command(("zfs", "send", "-nvP", "-t", value)), ok=tuple(range(256)))
    said = result.stdout + result.stderr
    guids, names, raws = (one.findall(said) for one in (_TOKEN_GUID, _TOKEN_NAME, _TOKEN_RAW))
    if result.rc or not guids:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip() and "=" not in line]
        stale = (lines or ["zfs does not understand it"])[-1].rstrip(".")
        return Token(value, stale=stale)
    if (
        _forged(value)
        or len(guids) != 1
        or not _NUMBER.fullmatch(guids[0])
        or len(names) != 1
        or raws not in ([], ["1"])
    ):
        return Token(value, stale="its contents are not as zfs makes them")
    origin, at_sign, snapshot = names[0].partition("@")
    if origin != dataset or not at_sign or not _SNAPSHOT_NAME.fullmatch(snapshot):
        return Token(value, stale=f"it is not of a snapshot of '{dataset}'")
    return Token(value, str(int(guids[0], 0)), raws == ["1"])


def _forged(value: str) -> bool:
    """Whether a string in a token breaks the line and goes on with what would be read as another value."""
    try:
        packed = bytes.fromhex(value.split("-")[3])
        contents = zlib.decompressobj().decompress(packed, _MOST_TOKEN_BYTES)
    except (IndexError, ValueError, zlib.error):
        # Such a one is for zfs to refuse.
        return False
    return _FORGED.search(contents) is not None


def _can_exclude(runner: Runner) -> bool:
    """Whether ``zfs send -R`` can leave datasets out: since OpenZFS 2.2."""
    match = _VERSION.search(run_zfs(runner, Command(("zfs", "version"))))
    return match is not None and (int(match.group(1)), int(match.group(2))) >= (2, 2)


# The file is printed in hexadecimal digits, since a raw key is no text. 3: there is none.
_READ_KEY = 'test -e "$1" || exit 3; od -An -v -tx1 -N ' + str(_MOST_KEY_BYTES) + ' "$1"'


def _key_files(
    runner: ReplicaRunner, wanted: Replication, snapshots: t.Mapping[str, t.Sequence[Snapshot]]
) -> dict[str, keystore.KeyFile]:
    """The key files of replicas that are still to be made, by the names of their datasets at the source."""
    found = {}
    for name in (wanted.source, *wanted.keys):
        if not snapshots.get(wanted.at_target(name)):
            file = read_key_file(runner, wanted, name)
            if file is not None:
                found[name] = file
    return found


def read_key_file(runner: ReplicaRunner, wanted: Replication, name: str) -> keystore.KeyFile | None:
    """The key file that a new replica is to have, None if it is to have none.

    :param name: its dataset at the source
    """
    key = wanted.own_key(name)
    if key is None or key.file is None:
        return None
    if wanted.ssh is None:
        return keystore.read(runner, key.file, key.format)
    try:
        result = runner.target.run(Command(("sh", "-c", _READ_KEY, "sh", key.file)), ok=(0, 3))
    except CommandError as error:
        # What it printed is a key.
        raise StorageError(
            f"The key file {key.file} can't be read: exit status {error.result.rc}.", hint="Is ssh.user root there?"
        ) from None
    if result.rc == 3:
        # Only of a key that will be nowhere else it matters whether the file outlasts a restart.
        memory = memory_there(runner.target, key.file) if key.value is None and key.generate else ""
        return keystore.KeyFile(key.file, False, memory=memory)
    content = bytes.fromhex("".join(result.stdout.split()))
    try:
        return keystore.KeyFile(key.file, True, parse_file(key.format, content, f"The key file {key.file}"))
    except BadInput as error:
        return keystore.KeyFile(key.file, True, fault=str(error))
