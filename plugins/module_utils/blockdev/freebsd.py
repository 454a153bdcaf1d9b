# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The block devices of a FreeBSD host, from GEOM's own description of its graph.

:class:`FreeBSD` is the :class:`.host.Host` of FreeBSD.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree

from ..command import Command, Runner
from ..errors import Refused, StorageError
from . import signatures
from .identity import BlockDevice, DeviceTable, Mount, number_of
from .signatures import Signature, Span

_CONFXML = Command(("sysctl", "-b", "kern.geom.confxml"))
_MOUNTS = Command(("mount", "-p"))
_POOLS = Command(("zpool", "list", "-Hp", "-o", "name,guid"))
_SWAPS = Command(("swapctl", "-l"))

_KINDS = {
    "DISK": "disk",
    "PART": "partition",
    "MULTIPATH": "multipath",
    "ELI": "crypt",
    "MD": "loop",
    "MIRROR": "md",
    "STRIPE": "md",
    "CONCAT": "md",
    "RAID": "md",
    "RAID3": "md",
}
# Classes that give a provider another name and nothing else.
_NAMING = ("LABEL", "DEV")
# In use by these is found from mount and swapctl, which know the mount point.
_TOLD_ELSEWHERE = ("VFS", "SWAP")
# Overwritten at both ends: ZFS labels (512 KiB, and up to 256 KiB of rest), superblocks of UFS (64 KiB) and all other
# filesystems FreeBSD knows, GEOM metadata (last sector), partition tables. A multiple of every sector size.
_EDGE = 1024 * 1024
_FSTYP = {
    "ufs": "UFS filesystem",
    "msdosfs": "FAT filesystem",
    "zfs": "remains of a ZFS label",
    "geli": "GELI metadata",
}
_FSTYP_TYPES = {"zfs": "zfs_member", "msdosfs": "vfat"}


class FreeBSD:
    """FreeBSD (TrueNAS CORE), with fstyp for filesystems."""

    def read_table(self, runner: Runner) -> DeviceTable:
        return read(runner)

    def mounts(self, runner: Runner) -> tuple[Mount, ...]:
        return mounts(runner)

    def swaps(self, runner: Runner) -> tuple[str, ...]:
        return swaps(runner)

    def imported_pools(self, runner: Runner) -> t.Mapping[str, str]:
        if not runner.has("zpool"):
            return {}
        rows = (line.split("\t") for line in runner.run(_POOLS).stdout.splitlines())
        return {row[0]: row[1] for row in rows if len(row) == 2}

    def probe(self, runner: Runner, paths: t.Sequence[str]) -> dict[str, tuple[Signature, ...] | str]:
        """fstyp looks at one device at a time; 1 is its exit status for a content it does not know."""
        found: dict[str, tuple[Signature, ...] | str] = {}
        for path in paths:
            result = runner.run(Command(("fstyp", "-u", path)), ok=(0, 1))
            found[path] = filesystem(result.stdout) or _mbr(path)
        return found

    def is_free(self, path: str) -> bool:
        # GEOM lists every consumer, imported pools too; opening for writing would make it taste the disk again.
        return True

    def erase(self, runner: Runner, path: str, number: str, spans: t.Sequence[Span], whole: bool) -> None:
        # GEOM refuses to open for writing what is mounted or imported (EPERM), and so does gpart.
        name = path[len("/dev/") :] if path.startswith("/dev/") else ""
        untouched = "Nothing was written to it."
        if whole and name and runner.run(Command(("gpart", "show", name)), ok=(0, 1)).rc == 0:
            # gpart goes by the name alone, and wants the disk to itself.
            os.close(_open_same(path, number, untouched))
            runner.run(Command(("gpart", "destroy", "-F", name)))
            untouched = "Its partition table was destroyed; nothing else was written to it."
        descriptor = _open_same(path, number, untouched)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            for offset, length in ((0, min(size, _EDGE)), (max(0, size - _EDGE), min(size, _EDGE))):
                os.pwrite(descriptor, bytes(length), offset)
            os.fsync(descriptor)
        except OSError as error:
            raise StorageError(
                f"Writing to {path} failed: {error.strerror}.", hint="See dmesg for the state of the disk."
            ) from None
        finally:
            os.close(descriptor)

    def forget_partition(self, runner: Runner, path: str) -> None:
        """GEOM removes partitions together with their table."""

    def settle(self, runner: Runner) -> None:
        """GEOM has tasted the disk again before the writer's close returns."""


def _open_same(path: str, number: str, untouched: str) -> int:
    """Open a device for writing, if it is still the one that was examined.

    :param untouched: what was done to it so far, in words
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(
            f"{path} was not opened for writing: {error.strerror}. {untouched}",
            hint="Unmount, export or stop what uses it, if it is the right disk.",
        ) from None
    if number_of(os.fstat(descriptor)) != number:
        os.close(descriptor)
        raise Refused(
            f"{path} is not the device any more that was examined. {untouched}",
            hint="Disks were added or removed meanwhile; run the task again.",
        )
    return descriptor


def filesystem(text: str) -> tuple[Signature, ...]:
    """The filesystem that ``fstyp -u`` prints, if any."""
    kind = text.strip()
    if not kind:
        return ()
    return (Signature(_FSTYP_TYPES.get(kind, kind), _FSTYP.get(kind, f"{kind} filesystem")),)


def _mbr(path: str) -> tuple[Signature, ...] | str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return str(error.strerror)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        found = signatures.mbr(lambda offset, length: os.pread(descriptor, length, offset), size)
        return () if found is None else (found,)
    except OSError as error:
        return str(error.strerror)
    finally:
        os.close(descriptor)


@dataclass
class _Provider:
    """One provider while the graph is read."""

    name: str
    geom_class: str
    size: int
    config: dict[str, str]
    below: tuple[str, ...]
    aliases: list[str] = field(default_factory=list)
    holders: list[str] = field(default_factory=list)
    parent: str = ""


def read(runner: Runner) -> DeviceTable:
    """All GEOM providers that can hold data, with every label that leads to them.

    :raises StorageError: the kernel's description can't be understood
    """
    return parse(runner.run(_CONFXML).stdout)


def parse(text: str) -> DeviceTable:
    """The devices in the text of ``kern.geom.confxml``.

    :raises StorageError: it is not the XML that is expected
    """
    try:
        mesh = ElementTree.fromstring(text.rstrip("\0\n "))
    except ElementTree.ParseError as error:
        raise StorageError(
            f"kern.geom.confxml is not well-formed XML: {error}.",
            hint="See 'sysctl -b kern.geom.confxml' on the host.",
        ) from None
    providers, unnamed = _providers(mesh)
    for consumer, holder in unnamed:
        if consumer in providers:
            providers[consumer].holders.append(holder)
    for key, provider in providers.items():
        _relate(providers, key, provider)
    found = {provider.name: _device(provider) for provider in providers.values() if provider.geom_class not in _NAMING}
    for device in list(found.values()):
        if device.kind == "partition" and device.parent in found:
            whole = found[device.parent]
            found[device.name] = replace(device, serial=whole.serial, wwn=whole.wwn)
    return DeviceTable(tuple(found.values()))


def mounts(runner: Runner) -> tuple[Mount, ...]:
    """The mounted filesystems; ``mount -p`` writes them as fstab lines, with blanks as octal numbers."""
    lines = (line.split() for line in runner.run(_MOUNTS).stdout.splitlines())
    return tuple(
        Mount("", words[0], words[1].replace("\\040", " ").replace("\\011", "\t")) for words in lines if len(words) >= 3
    )


def swaps(runner: Runner) -> tuple[str, ...]:
    """The devices that are swapped to; the first line of ``swapctl -l`` is a heading."""
    lines = runner.run(_SWAPS).stdout.splitlines()[1:]
    return tuple(line.split()[0] for line in lines if line.strip())


def _providers(mesh: ElementTree.Element) -> tuple[dict[str, _Provider], list[tuple[str, str]]]:
    """The providers by their id, and (provider id, user) for geoms that use one without providing anything."""
    found: dict[str, _Provider] = {}
    users: list[tuple[str, str]] = []
    for geom_class in mesh.findall("class"):
        class_name = geom_class.findtext("name", "")
        for geom in geom_class.findall("geom"):
            below = tuple(
                reference.get("ref", "")
                for consumer in geom.findall("consumer")
                for reference in consumer.findall("provider")
            )
            above = geom.findall("provider")
            for provider in above:
                found[provider.get("id", "")] = _Provider(
                    provider.findtext("name", ""),
                    class_name,
                    _number(provider.findtext("mediasize", "")),
                    _config(provider),
                    below,
                )
            if not above and class_name not in _NAMING + _TOLD_ELSEWHERE + ("PART",):
                users.extend((key, f"{class_name} {geom.findtext('name', '')}") for key in below)
    return found, users


def _relate(providers: dict[str, _Provider], key: str, provider: _Provider) -> None:
    """Tell the providers below one about it."""
    for below_key in provider.below:
        below = providers.get(below_key)
        if below is None:
            continue
        if provider.geom_class in _NAMING:
            base = _without_labels(providers, below)
            base.aliases.append(f"/dev/{provider.name}")
        elif provider.geom_class == "PART":
            provider.parent = _without_labels(providers, below).name
        else:
            base = _without_labels(providers, below)
            base.holders.append(provider.name)
            if provider.geom_class == "MULTIPATH":
                base.parent = provider.name


def _without_labels(providers: t.Mapping[str, _Provider], provider: _Provider) -> _Provider:
    """The provider a label stands on, through any number of labels; itself when it is no label."""
    seen = 0
    while provider.geom_class in _NAMING and provider.below and seen < len(providers):
        below = providers.get(provider.below[0])
        if below is None:
            break
        provider, seen = below, seen + 1
    return provider


def _device(provider: _Provider) -> BlockDevice:
    config = provider.config
    aliases = list(provider.aliases)
    kind = _KINDS.get(provider.geom_class, "other")
    # GEOM takes the labels away while the partition is open by its own name, as ZFS often does, and makes none where
    # kern.geom.label says so: they still name it.
    if kind == "partition":
        if config.get("rawuuid"):
            aliases.append(f"/dev/gptid/{config['rawuuid'].lower()}")
            if config.get("label"):
                aliases.append(f"/dev/gpt/{config['label']}")
    elif kind == "disk" and config.get("ident"):
        aliases.append(f"/dev/diskid/DISK-{config['ident']}")
    return BlockDevice(
        name=provider.name,
        path=f"/dev/{provider.name}",
        aliases=tuple(dict.fromkeys(aliases)),
        hidden=tuple(dict.fromkeys(alias for alias in aliases if alias not in provider.aliases)),
        kind=kind,
        parent=provider.parent,
        partition=_number(config.get("index", "")) if kind == "partition" else 0,
        size=provider.size,
        serial=config.get("ident", "").strip(),
        wwn=config.get("lunid", "").strip(),
        holders=tuple(dict.fromkeys(provider.holders)),
        backing=config.get("file", ""),
    )


def _config(element: ElementTree.Element) -> dict[str, str]:
    config = element.find("config")
    return {} if config is None else {child.tag: (child.text or "").strip() for child in config}


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
