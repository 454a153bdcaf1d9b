# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures that are read here directly, because libblkid and fstyp don't know them or tell too little.

* ZFS labels: four of 256 KiB, two at each end. The configuration starts 16 KiB into a label as an XDR-encoded nvlist;
  it names the pool even when the ring of uberblocks behind it, which libblkid looks for, is empty (OpenZFS
  ``vdev_impl.h``, ``nvpair.c``).
* GEOM metadata of FreeBSD, GELI's among it: in the last sector, whatever the sector's size is.
* GPT, its backup at the end too: without the primary libblkid takes a disk for empty, FreeBSD does not.
* MBR, for FreeBSD only, where no libblkid tells.
"""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass

# Gives ``length`` bytes at an offset, fewer only at the end.
Reader = t.Callable[[int, int], bytes]
# Offset and length in bytes of something to overwrite.
Span = tuple[int, int]

KIB = 1024
ZFS_LABEL = 256 * KIB
_ZFS_CONFIG_AT = 16 * KIB
_ZFS_CONFIG_SIZE = 112 * KIB
_ZFS_STATES = {0: "", 1: "exported ", 2: "destroyed "}
_ZFS_SPARE = 3
_ZFS_CACHE = 4

_XDR = 1
_NV_UINT64 = 8
_NV_STRING = 9

# FreeBSD raw disks are read in whole sectors only; none has sectors larger than this.
_EDGE = 8 * KIB
_SECTORS = (512, 1024, 2048, 4096, 8192)
_GEOM = b"GEOM::"
_GEOM_NAME = 16
_GPT = b"EFI PART"
_MBR_MAGIC = b"\x55\xaa"
_MBR_TABLE = 446
_MBR_ENTRY = 16


@dataclass(frozen=True)
class Signature:
    """Something that was recognised. ``type`` is libblkid's name where it has one (zfs_member, gpt, dos, ext4)."""

    type: str
    what: str
    # What to overwrite, for those that no program takes away; the others are left to wipefs.
    spans: tuple[Span, ...] = ()
    pool: str = ""
    pool_guid: str = ""


def find(read: Reader, size: int) -> tuple[Signature, ...]:
    """The ZFS labels, GEOM metadata and GPT in ``size`` bytes.

    :raises OSError: from ``read``
    """
    head = read(0, min(size, _EDGE))
    tail_at = max(0, size - _EDGE)
    tail = read(tail_at, size - tail_at)
    found = [_gpt(head, tail, size), *_geom(tail, size), zfs_label(read, size)]
    return tuple(signature for signature in found if signature is not None)


def zfs_spans(size: int) -> tuple[Span, ...]:
    """Where the four labels of a ZFS device of ``size`` bytes are; none when it is too small for them."""
    end = size // ZFS_LABEL * ZFS_LABEL
    if end < 4 * ZFS_LABEL:
        return ()
    return tuple((offset, ZFS_LABEL) for offset in (0, ZFS_LABEL, end - 2 * ZFS_LABEL, end - ZFS_LABEL))


def zfs_label(read: Reader, size: int) -> Signature | None:
    """The first readable one of the four ZFS labels."""
    spans = zfs_spans(size)
    for offset, _length in spans:
        config = nvlist(read(offset + _ZFS_CONFIG_AT, _ZFS_CONFIG_SIZE))
        # Every label tells its version first, those of spares and cache devices too.
        if "version" in config and "state" in config:
            name, guid = str(config.get("name", "")), config.get("pool_guid", "")
            return Signature("zfs_member", _zfs_words(config), spans, name, str(guid))
    return None


def nvlist(data: bytes) -> dict[str, int | str]:
    """The strings and 64-bit numbers at the top of an XDR nvlist; what follows a damaged place is left out."""
    found: dict[str, int | str] = {}
    if len(data) < 12 or data[0] != _XDR:
        return found
    # Encoding, byte order and two reserved bytes; then version and flags.
    at = 12
    try:
        while True:
            size, _decoded = struct.unpack_from(">II", data, at)
            if size < 20 or at + size > len(data):
                return found
            name, value_at = _xdr_string(data, at + 8)
            kind, count = struct.unpack_from(">II", data, value_at)
            if count == 1 and kind == _NV_UINT64:
                found[name] = struct.unpack_from(">Q", data, value_at + 8)[0]
            elif count == 1 and kind == _NV_STRING:
                found[name] = _xdr_string(data, value_at + 8)[0]
            at += size
    except struct.error:
        return found


def mbr(read: Reader, size: int) -> Signature | None:
    """An MBR partition table with at least one entry; the boot sector of FAT ends in the same two bytes."""
    sector = read(0, min(size, _EDGE))[:512]
    if len(sector) < 512 or sector[510:] != _MBR_MAGIC:
        return None
    entries = [sector[_MBR_TABLE + _MBR_ENTRY * index :][:_MBR_ENTRY] for index in range(4)]
    if not any(entry[4] for entry in entries) or any(entry[0] not in (0, 0x80) for entry in entries):
        return None
    return Signature("dos", "MBR partition table")


def _zfs_words(config: t.Mapping[str, int | str]) -> str:
    state = config.get("state")
    if state == _ZFS_SPARE:
        return "ZFS label of a spare"
    if state == _ZFS_CACHE:
        return "ZFS label of a cache device"
    words = _ZFS_STATES.get(int(state), "") if isinstance(state, int) else ""
    text = f'ZFS label of {words}pool "{config.get("name", "")}"'
    # An exported pool belongs to no host; any other does, until it is imported elsewhere by force.
    if state == 0 and config.get("hostname"):
        text += f' (last used by host "{config["hostname"]}")'
    return text


def _xdr_string(data: bytes, at: int) -> tuple[str, int]:
    """A string and where the next value starts: the length, the bytes, padding to four."""
    (length,) = struct.unpack_from(">I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise struct.error("the string ends behind the data")
    return data[at + 4 : end].decode("utf-8", "replace"), end + -length % 4


def _geom(tail: bytes, size: int) -> list[Signature]:
    """Metadata of GEOM classes at the start of the last sector."""
    found: list[Signature] = []
    for sector in _SECTORS:
        if sector > len(tail):
            break
        name = tail[-sector:][:_GEOM_NAME]
        if name.startswith(_GEOM):
            words = name.split(b"\0")[0][len(_GEOM) :].decode("ascii", "replace")
            what = "GELI metadata" if words == "ELI" else f"GEOM {words} metadata"
            kind = "geli" if words == "ELI" else f"geom_{words.lower()}"
            found.append(Signature(kind, what, ((size - sector, sector),)))
    return found


def _gpt(head: bytes, tail: bytes, size: int) -> Signature | None:
    primary = [sector for sector in (512, 4096) if head[sector:].startswith(_GPT)]
    backup = [sector for sector in (512, 4096) if sector <= len(tail) and tail[-sector:].startswith(_GPT)]
    if not primary and not backup:
        return None
    # wipefs finds both copies by the primary one, and neither without it.
    spans = [] if primary else [(size - sector, 512) for sector in backup]
    words = "" if primary and backup else " (primary copy only)" if primary else " (backup copy only)"
    return Signature("gpt", f"GPT partition table{words}", tuple(spans))
