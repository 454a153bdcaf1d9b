# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads all that a migration is decided on: what a replication reads, and two processes more, for rsync up to four."""

from __future__ import annotations

import os
import sys
import typing as t
from dataclasses import replace

from ..command import Runner
from ..geli.places import LINKS
from ..zfs.names import ancestors, within
from ..zfs.replicate_options import Replication
from ..zfs.replicate_read import Pools, read_ends, read_pools, read_target
from ..zfs.replicate_run import ReplicaRunner
from ..zfs.replicate_state import Ends, Side
from ..zfs.state import ENCRYPTION_PROPERTIES, Dataset, NoSuchDataset, read_datasets, read_trees
from ..zfs.status import Tree
from .copy_empty import something_in
from .copy_state import COPY_RECORD, SHAPE, copied_record
from .far import far_end
from .far_ready import lacking_there
from .options import Migration
from .private_mount import PROGRAMS, Mount
from .rsync import fault_of_programs
from .state import RECORDS, Found, KeyRoot, Member

# Of both ends.
ALSO_READ = ("used", "usedbydataset", "usedbysnapshots", "available", "readonly", *RECORDS)
# Settings of the source that are given to the target when it takes its place.
RESERVATIONS = ("reservation", "refreservation")
LATE = (*RESERVATIONS, "volmode")
# Settings that are not carried over: they make sense on one pool at a time, or not on every system.
LEFT_OUT = (
    "sharenfs",
    "sharesmb",
    "dedup",
    "snapdev",
    "special_small_blocks",
    "aclmode",
    "nbmand",
    "vscan",
    "filesystem_limit",
    "snapshot_limit",
)

_LINUX_ONLY = (
    "'method: rsync' is for Linux: on FreeBSD each file has an NFSv4 ACL, which rsync does not carry. Keep to 'method: "
    "zfs_send', or put the disks into a Linux host."
)
_MAPPER = "/dev/mapper/eli-"


def read_migration(runner: ReplicaRunner, wanted: Migration, taken: str = "") -> Found:
    """Both ends as they are now.

    :param taken: the snapshot that this run has brought the target up to, "" before that
    :raises StorageError: one of the ends does not answer, or the source does not exist, and the target has not taken
        its place
    """
    pool = wanted.replication.source.split("/")[0]
    pools = read_pools(runner, "load_guid")
    read_only = pool in pools and pools[pool]["readonly"].value == "on"
    members = members_of(read_trees(runner).get(pool, {})) if pool in pools else ()
    replication = adapted(wanted.replication, read_only)
    try:
        ends = read_ends(runner, replication, taken, pools)
    except NoSuchDataset:
        alone = None if pool in pools else _target_alone(runner, replication, pools)
        if alone is None:
            raise
        return alone
    imported = pools[pool]["load_guid"].value if pool in pools else ""
    found = Found(replication, ends, read_only, members, imported=imported)
    root, roots = _roots(runner, found)
    found = replace(found, root=root, roots=roots)
    return found if replication.streams else _for_rsync(runner, found)


def _target_alone(runner: ReplicaRunner, replication: Replication, pools: Pools) -> Found | None:
    """The target where the source is not imported any more, None unless it has taken its place."""
    # What is left out of a source that nobody sees can't be looked up in it.
    wanted = replace(replication, exclude=(), include=())
    found = Found(wanted, Ends(Side(), read_target(runner, wanted, pools)))
    if not found.finalized:
        return None
    root, roots = _roots(runner, found)
    return replace(found, root=root, roots=roots)


def _for_rsync(runner: ReplicaRunner, found: Found) -> Found:
    lacking = lacking_for_rsync(runner, sys.platform)
    far = far_end(runner)
    if far is not None:
        lacking += lacking_there(far)
    strangers = {} if lacking else dict(_entries(runner, found))
    return replace(found, lacking=lacking, entries=strangers)


def lacking_for_rsync(runner: Runner, system: str) -> tuple[str, ...]:
    """What this host lacks, in words with what to do."""
    if not system.startswith("linux"):
        return (_LINUX_ONLY,)
    missing = [one for one in PROGRAMS if not runner.has(one)]
    faults = [f"The programs {', '.join(missing)} are missing on this host: install util-linux."] if missing else []
    fault = fault_of_programs(runner)
    return tuple(faults + ([fault] if fault else []))


def _entries(runner: ReplicaRunner, found: Found) -> t.Iterator[tuple[str, str]]:
    """Something that is in each filesystem of the target which rsync has not made, "" for one that is empty."""
    wanted, ends = found.wanted, found.ends
    for name in ends.source.datasets:
        replica = ends.target.datasets.get(wanted.at_target(name))
        if not wanted.takes(name):
            continue
        if replica is None or replica.locked or replica.value("type") != "filesystem":
            continue
        if copied_record(replica) is not None or ends.target.of(replica.name):
            continue
        # The same dataset can't be mounted once for reading, and once for writing.
        mount = Mount(replica.name, write=replica.mounted and not _read_only(replica))
        yield replica.name, something_in(runner, mount)


def _read_only(dataset: Dataset) -> bool:
    return dataset.value("readonly") == "on"


def adapted(replication: Replication, read_only: bool) -> Replication:
    """What is asked for, as the source pool allows it.

    No volume gets a device node before the end: while a volume with snapshots is received, ZFS on Linux can lock up
    with udev, see https://github.com/openzfs/zfs/issues/17923.
    """
    also = ALSO_READ if replication.streams else (*ALSO_READ, COPY_RECORD, *SHAPE)
    return replace(
        replication,
        heads=read_only and not replication.snapshot,
        properties={"volmode": "none", **replication.properties},
        also_read=(*also, *LATE, *LEFT_OUT),
    )


def members_of(tree: Tree) -> tuple[Member, ...]:
    """The devices of a pool."""
    return tuple(
        Member(leaf.path, leaf.state, is_geli(leaf.path))
        for role, vdevs in tree.items()
        # These hold nothing that is not elsewhere, too.
        if role not in ("cache", "spare")
        for vdev in vdevs
        for leaf in vdev.leaves()
    )


def is_geli(path: str) -> bool:
    """Whether a device is a decrypted one of GELI, by its name on FreeBSD or on Linux."""
    return path.endswith(".eli") or path.startswith(_MAPPER) or os.path.dirname(path) == LINKS


def _roots(runner: ReplicaRunner, found: Found) -> tuple[KeyRoot | None, dict[str, KeyRoot]]:
    """The encryption root of the target, None if there is none yet, and those below the target."""
    name = _root_name(found.ends, found)
    if not name:
        return None, {}
    users = read_datasets(runner.target, (name,), ENCRYPTION_PROPERTIES, recursive=True)
    below = [one.name for one in users.values() if one.is_root and found.wanted.target in ancestors(one.name)]
    return key_root(name, users), {one: key_root(one, users) for one in below}


def key_root(name: str, datasets: t.Mapping[str, Dataset]) -> KeyRoot:
    """An encryption root, and what lies at and below it."""
    root = datasets[name]
    here = [one for one in datasets.values() if within(one.name, (name,))]
    return KeyRoot(
        name,
        root.value("keylocation"),
        root.locked,
        tuple(one for one in here if one.root == name),
        tuple(one for one in here if one.root != name),
    )


def _root_name(ends: Ends, found: Found) -> str:
    if found.target is not None:
        return found.target.root
    if found.wanted.key is not None:
        return ""
    above = ends.target.datasets.get(found.wanted.above)
    return "" if above is None else above.root


def size(values: t.Mapping[str, t.Any], name: str) -> int:
    """A size in bytes, 0 for one that does not apply."""
    found = values.get(name)
    return int(found.value) if found is not None and found.value.isdigit() else 0
