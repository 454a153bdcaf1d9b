# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a copy by rsync from being made, and what a person should know of it."""

from __future__ import annotations

import typing as t

from ..zfs.replicate_checks import selected
from ..zfs.state import Dataset
from .copy_state import copied_record, state_of
from .options import Migration
from .read import size
from .state import Found


def copy_refusals(wanted: Migration, found: Found) -> list[str]:
    """Every reason not to begin, or not to go on, that can be seen; none where streams are sent."""
    if found.wanted.streams:
        return []
    return [*found.lacking, *_acls(found), *_without_acls(found), *_unknown(wanted, found)]


def _acls(found: Found) -> t.Iterator[str]:
    """rsync knows POSIX ACLs alone."""
    if "acltype" in found.wanted.properties:
        return
    datasets = found.ends.source.datasets
    with_them = [name for name in _filesystems(found) if datasets[name].value("acltype") == "nfsv4"]
    if with_them:
        yield (
            f"These have NFSv4 ACLs (acltype=nfsv4), which rsync does not carry: {_shown(with_them)}. Keep to 'method: "
            "zfs_send', exclude them, or say that the mode of each file is enough, with an acltype of the target in "
            "'properties'."
        )


def _without_acls(found: Found) -> t.Iterator[str]:
    """A target that was there before, and would lose the ACLs of its source."""
    ends, asked = found.ends, found.wanted.properties.get("acltype")
    lacking = []
    for name in _filesystems(found):
        replica = ends.target.datasets.get(found.wanted.at_target(name))
        here = ends.source.datasets[name].value("acltype")
        if replica is not None and asked is None and here == "posix" and replica.value("acltype") == "off":
            lacking.append(replica.name)
    if lacking:
        yield (
            f"The source has POSIX ACLs, and these of the target have acltype=off: {_shown(lacking)}. Set "
            "acltype=posix on them, or name it in 'properties'."
        )


def _unknown(wanted: Migration, found: Found) -> t.Iterator[str]:
    migrated = _filesystems(found)
    others = [name for name in sorted(wanted.skip) if name not in migrated]
    if others:
        yield f"'exclude_files' names what is no filesystem that is migrated: {_shown(others)}."


def copy_notes(wanted: Migration, found: Found) -> list[str]:
    """What rsync leaves behind."""
    source, names = found.ends.source, selected(found.wanted, found.ends.source)
    left = sum(not one.head for name in names for one in source.of(name))
    told = [
        f"rsync copies the newest state only: {left} snapshots of the source stay behind, as do bookmarks and holds.",
        "rsync does not carry times of access and creation, file flags, and quotas of users, groups and projects.",
    ]
    clones = [name for name in names if source.datasets[name].value("origin") != "-"]
    if clones:
        told.append(f"These are clones, and become whole copies: {_shown(clones)}.")
    if any(one.geli for one in found.members):
        told.append(
            "Each file of FreeBSD has an NFSv4 ACL, which Linux does not show and rsync does not carry: the mode is "
            "what comes along. Where ACLs were set, keep to 'method: zfs_send'."
        )
    left_out = [f"'{name}': {', '.join(paths)}" for name, paths in sorted(wanted.skip.items())]
    if left_out:
        told.append(f"These files are left out: {'; '.join(left_out)}.")
    return told


def still_to_copy(wanted: Migration, found: Found, name: str) -> int:
    """Bytes of a dataset that are still to be copied, as they are counted at the source.

    Of one that was copied already, the target may take more or less for the same. So it is no matter of their sizes.
    """
    ends, dataset = found.ends, found.ends.source.datasets[name]
    replica = ends.target.datasets.get(found.wanted.at_target(name))
    has = ends.source.of(name)
    whole = size(dataset.properties, "usedbydataset")
    record = None if replica is None else copied_record(replica)
    if replica is None or not has:
        return whole
    if record is not None and record.state == state_of(dataset, has[-1], found.imported, wanted.skipped(name)):
        return 0 if has[-1].head else size(dataset.properties, "written")
    return max(0, whole - size(replica.properties, "usedbydataset"))


def surely_needed(wanted: Migration, found: Found) -> int:
    """Bytes of all that was never copied, 0 where nobody can say how much room that takes at the target."""
    ends, names = found.ends, selected(found.wanted, found.ends.source)
    rest = 0
    for name in names:
        replica = ends.target.datasets.get(found.wanted.at_target(name))
        record = None if replica is None else copied_record(replica)
        if record is not None and record.whole:
            continue
        if wanted.skipped(name) or _same(ends.source.datasets[name].value("compression")) != _same(
            _compression(found, name)
        ):
            return 0
        rest += still_to_copy(wanted, found, name)
    return rest


def _compression(found: Found, name: str) -> str:
    """How a dataset of the source is, or will be, compressed at the target."""
    wanted, ends = found.wanted, found.ends
    target, own = wanted.at_target(name), ends.source.datasets[name].properties["compression"]
    above = target.rsplit("/", 1)[0]
    if target in ends.target.datasets:
        return ends.target.datasets[target].value("compression")
    if "compression" not in wanted.properties and own.own:
        return own.value
    if name != wanted.source:
        return _compression(found, name.rsplit("/", 1)[0])
    asked = wanted.properties.get("compression")
    if asked is not None:
        return asked
    return ends.target.datasets[above].value("compression") if above in ends.target.datasets else ""


def _same(compression: str) -> str:
    return "lz4" if compression == "on" else compression


def _filesystems(found: Found) -> list[str]:
    return [name for name in selected(found.wanted, found.ends.source) if _is(found, name, "filesystem")]


def _is(found: Found, name: str, kind: str) -> bool:
    dataset: Dataset | None = found.ends.source.datasets.get(name)
    return dataset is not None and dataset.value("type") == kind


def _shown(names: t.Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:10]) + (" ..." if len(names) > 10 else "")
