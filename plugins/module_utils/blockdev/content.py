# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk, partition or file holds, and what uses it: a blank disk is one on which nothing is found.

Looking never writes. A finding that is ``in_use`` can never be wiped; the others are what someone left behind.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t
from dataclasses import dataclass, field, replace

from ..command import Runner
from . import signatures
from .host import Host, Probed, this_host
from .identity import BlockDevice, DeviceTable, Mount, number_of
from .signatures import Signature, Span, zfs_spans

# How far a disk can be used. "unsuitable" is what is no block device and no regular file.
ACCESS = ("write", "read_only", "unreadable", "missing", "unsuitable")


@dataclass(frozen=True)
class Finding:
    """One thing that a disk holds, or one use of it, in words.

    ``type`` is for programs: libblkid's name of a signature (gpt, dos, ext4, LVM2_member, linux_raid_member,
    crypto_LUKS, zfs_member, swap), ``geli``, ``geom_…``, or of a use: ``mount``, ``swapping``, ``holder``, ``busy``,
    ``pool`` (a file in an imported pool).
    ``pool`` and ``pool_guid`` (decimal) are those in a ZFS label.
    """

    what: str
    # Path of the disk or the partition of it.
    where: str
    in_use: bool = False
    type: str = ""
    pool: str = ""
    pool_guid: str = ""
    # What to overwrite, besides what the system's own tools take away.
    spans: tuple[Span, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class DiskContent:
    """What was found behind one path."""

    # As it was asked for.
    path: str
    identity: str
    access: str
    # Why it can't be used, in words; empty when it can be written.
    problem: str = ""
    # BlockDevice.kind, "file", or empty for what is missing or unsuitable.
    kind: str = ""
    # The kernel's path, or the path of the file.
    device: str = ""
    # Bytes.
    size: int = 0
    serial: str = ""
    wwn: str = ""
    # Number of the device ("8:17"); file system and inode of a file.
    number: str = ""
    # Kernel paths of the partitions on it.
    partitions: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def exists(self) -> bool:
        return self.access != "missing"

    @property
    def readable(self) -> bool:
        return self.access in ("write", "read_only")

    @property
    def blank(self) -> bool:
        """It was read, and nothing was found on it."""
        return self.readable and not self.findings

    @property
    def used(self) -> tuple[Finding, ...]:
        """What uses it now."""
        return tuple(finding for finding in self.findings if finding.in_use)

    @property
    def dead(self) -> tuple[Finding, ...]:
        """What was left on it and can be wiped."""
        return tuple(finding for finding in self.findings if not finding.in_use)

    def words(self) -> str:
        """All findings in one line, those on partitions with their path."""
        return ", ".join(
            finding.what if finding.where in (self.path, self.device) else f"{finding.what} on {finding.where}"
            for finding in self.findings
        )


def probe(runner: Runner, table: DeviceTable, path: str, host: Host | None = None) -> DiskContent:
    """What one disk, partition or file holds.

    :raises ProgramMissing: wipefs (Linux) or fstyp (FreeBSD) is not installed
    """
    return probe_all(runner, table, (path,), host)[0]


def probe_all(
    runner: Runner, table: DeviceTable, paths: t.Sequence[str], host: Host | None = None
) -> tuple[DiskContent, ...]:
    """What each of the paths holds, in their order; as few processes for all of them as for one (Linux).

    :raises ProgramMissing: wipefs (Linux) or fstyp (FreeBSD) is not installed
    """
    host = this_host() if host is None else host
    targets = [_target(table, path) for path in paths]
    places = [place for target in targets if target.readable for place in (target.device,) + target.partitions]
    places = list(dict.fromkeys(places))
    if not places:
        return tuple(targets)
    probed = host.probe(runner, places)
    mounts, swaps = host.mounts(runner), host.swaps(runner)
    found: list[DiskContent] = []
    for target in targets:
        if target.readable:
            uses = _uses(table, target, mounts, swaps)
            target = _with_findings(target, probed, uses or _busy(table, target, host))
            if target.kind == "file" and any(finding.pool_guid for finding in target.findings):
                target = _with_imported(target, host.imported_pools(runner))
        found.append(target)
    return tuple(found)


def uses_of(runner: Runner, table: DeviceTable, device: BlockDevice, host: Host | None = None) -> tuple[Finding, ...]:
    """What uses a device or a partition of it now, found out without its content, which may be locked."""
    host = this_host() if host is None else host
    device = table.canonical(device)
    parts = tuple(part.path for part in table.partitions(device))
    target = DiskContent(device.path, device.path, "read_only", kind=device.kind, device=device.path, partitions=parts)
    found = _uses(table, target, host.mounts(runner), host.swaps(runner))
    told = [finding.where for finding in found]
    # One partition may be mounted, and another one be of a pool.
    found += [one for one in _busy(table, target, host) if not told or (one.where in parts and one.where not in told)]
    return tuple(_with_pool(finding) for finding in found)


def _with_pool(finding: Finding) -> Finding:
    """The same, with the pool that a ZFS label names, where the kernel does not say what holds it."""
    if finding.type != "busy":
        return finding
    try:
        signatures_there = _own_signatures(finding.where)[1]
    except OSError:
        return finding
    for signature in signatures_there:
        if signature.pool:
            return replace(finding, what=f'member of the imported pool "{signature.pool}"', pool=signature.pool)
    return finding


def _target(table: DeviceTable, path: str) -> DiskContent:
    """What stands behind a path, before its content is read."""
    device = table.find(path)
    node = device.path if device is not None else path if path.startswith("/") else f"/dev/{path}"
    identity = table.identity(path)
    try:
        status = os.stat(node)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return DiskContent(path, identity, "missing", f"{path} does not exist.")
        return DiskContent(path, identity, "unreadable", f"{path} can't be examined: {error.strerror}.")
    if device is None and (stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        # A link from outside /dev, or one that was made after the table was read.
        device = table.numbered(number_of(status)) or table.find(os.path.realpath(node))
    if device is not None:
        return _device_target(table, path, table.canonical(device))
    if stat.S_ISREG(status.st_mode):
        return _access(
            DiskContent(
                path, identity, "write", kind="file", device=node, size=status.st_size, number=number_of(status)
            ),
            read_only=False,
        )
    words = "a directory" if stat.S_ISDIR(status.st_mode) else "neither a block device nor a regular file"
    return DiskContent(path, identity, "unsuitable", f"{path} is {words}.")


def _device_target(table: DeviceTable, path: str, device: BlockDevice) -> DiskContent:
    try:
        number = number_of(os.stat(device.path))
    except OSError as error:
        return DiskContent(path, device.path, "missing", f"{device.path} ({path}) does not exist: {error.strerror}.")
    parts = () if device.kind == "partition" else table.partitions(device)
    target = DiskContent(
        path,
        device.path,
        "write",
        kind=device.kind,
        device=device.path,
        size=device.size,
        serial=device.serial,
        wwn=device.wwn,
        number=number,
        partitions=tuple(part.path for part in parts),
    )
    return _access(target, device.read_only)


def _access(target: DiskContent, read_only: bool) -> DiskContent:
    """The same with its access found out by opening it for reading; opening for writing would wake udev and GEOM."""
    if not target.size:
        empty = "is empty (0 bytes)" if target.kind == "file" else "has no medium or no size (0 bytes)"
        return _but(target, "unsuitable", f"{target.path} {empty}.")
    try:
        descriptor = os.open(target.device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.pread(descriptor, min(target.size, 4096), 0)
        finally:
            os.close(descriptor)
    except PermissionError:
        return _but(target, "unreadable", f"{target.path} can't be read: permission denied. Run the task as root.")
    except OSError as error:
        return _but(target, "unreadable", f"{target.path} can't be read: {error.strerror}.")
    if read_only or not os.access(target.device, os.W_OK):
        return _but(target, "read_only", f"{target.path} is read-only.")
    return target


def _but(target: DiskContent, access: str, problem: str) -> DiskContent:
    return replace(target, access=access, problem=problem)


def _with_findings(target: DiskContent, probed: t.Mapping[str, Probed], uses: t.Sequence[Finding]) -> DiskContent:
    findings: list[Finding] = []
    for place in (target.device,) + target.partitions:
        theirs = probed[place]
        if isinstance(theirs, str):
            return _but(target, "unreadable", f"{place} can't be read: {theirs.rstrip('.')}.")
        try:
            size, ours = _own_signatures(place)
        except OSError as error:
            return _but(target, "unreadable", f"{place} can't be read: {error.strerror}.")
        for signature in merge(theirs, ours):
            findings.append(
                Finding(
                    signature.what,
                    place,
                    type=signature.type,
                    pool=signature.pool,
                    pool_guid=signature.pool_guid,
                    # libblkid goes by the uberblocks, which outlive the configuration in a damaged label.
                    spans=signature.spans or (zfs_spans(size) if signature.type == "zfs_member" else ()),
                )
            )
    return replace(target, findings=tuple(uses) + tuple(findings))


def _with_imported(target: DiskContent, pools: t.Mapping[str, str]) -> DiskContent:
    """The same, with the imported pool that a file belongs to: the kernel holds disks exclusively, but never files."""
    members = [
        Finding(f'member of the imported pool "{finding.pool}"', finding.where, True, "pool", finding.pool)
        for finding in target.findings
        # Older OpenZFS does not tell the GUID here; then the name has to do.
        if finding.pool in pools and pools[finding.pool] in (finding.pool_guid, "")
    ]
    return replace(target, findings=tuple(members) + target.findings)


def merge(theirs: t.Iterable[Signature], ours: t.Iterable[Signature]) -> tuple[Signature, ...]:
    """Both, each type once; what was read here tells more, and partition tables come first."""
    types = {signature.type: signature for signature in theirs}
    types.update({signature.type: signature for signature in ours})
    if "gpt" in types:
        types.pop("PMBR", None)
    return tuple(sorted(types.values(), key=lambda signature: signature.type not in ("gpt", "dos", "PMBR")))


def _own_signatures(path: str) -> tuple[int, tuple[Signature, ...]]:
    """The size, and the signatures that this collection reads itself."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        return size, signatures.find(lambda offset, length: os.pread(descriptor, length, offset), size)
    finally:
        os.close(descriptor)


def _uses(table: DeviceTable, target: DiskContent, mounts: t.Iterable[Mount], swaps: t.Iterable[str]) -> list[Finding]:
    """Who uses it or a partition of it, as far as the system tells by name."""
    if target.kind == "file":
        return _uses_of_file(table, target, swaps)
    found: list[Finding] = []
    places = (target.device,) + target.partitions
    for mount in mounts:
        # The source of a ZFS or overlay mount is any word, and may well be the name of a disk or its label.
        device = table.numbered(mount.number) or (table.find(mount.source) if mount.source.startswith("/") else None)
        if device is not None and table.canonical(device).path in places:
            place = table.canonical(device).path
            found.append(Finding(f"mounted on {mount.target}", place, True, "mount"))
    for path in swaps:
        if table.identity(path) in places:
            found.append(Finding("active swap", table.identity(path), True, "swapping"))
    for place in places:
        device = table.find(place)
        for name in () if device is None else device.holders:
            holder = table.named(name)
            # Its own partitions (a map's are maps themselves) are looked at one by one.
            if holder is None or holder.path not in target.partitions:
                found.append(Finding(f"part of {_holder_words(name, holder)}", place, True, "holder"))
    return list(dict.fromkeys(found))


def _uses_of_file(table: DeviceTable, target: DiskContent, swaps: t.Iterable[str]) -> list[Finding]:
    real = os.path.realpath(target.device)
    found = [
        Finding(f"shown as loop device {device.name}", target.device, True, "holder")
        for device in table.devices
        if device.backing and os.path.realpath(device.backing) == real
    ]
    if real in [os.path.realpath(path) for path in swaps]:
        found.append(Finding("active swap", target.device, True, "swapping"))
    return found


def _holder_words(name: str, holder: BlockDevice | None) -> str:
    kinds = {"md": "RAID", "lvm": "LVM", "crypt": "encryption", "multipath": "multipath"}
    words = kinds.get(holder.kind, "") if holder is not None else ""
    alias = next((path for path in holder.aliases if path.startswith("/dev/mapper/")), "") if holder is not None else ""
    inside = " ".join(part for part in (words, alias) if part)
    return f"{name} ({inside})" if inside else name


def _busy(table: DeviceTable, target: DiskContent, host: Host) -> list[Finding]:
    """What the kernel holds without saying for whom: members of imported pools, of mounted btrfs, of other users."""
    if target.kind == "file":
        return []
    what = "held by the kernel (an imported ZFS pool, a mounted filesystem of several disks, or another program)"
    held = [part for part in target.partitions if not host.is_free(part)]
    # A partition that is held makes the whole disk look held, and so does any partition of a multipath map.
    device = table.find(target.device)
    stacked = device is not None and device.holders and target.partitions
    if not held and not stacked and not host.is_free(target.device):
        held = [target.device]
    return [Finding(what, place, True, "busy") for place in held]
