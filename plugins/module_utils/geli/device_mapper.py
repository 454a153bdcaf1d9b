# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A GELI volume as an exact stack of stock device-mapper targets of Linux; nothing here does I/O.

The tweak of GELI's AES-XTS is the byte offset of a sector, that of dm-crypt the number of one, and neither can be told
to count otherwise. So the address space is stretched until the number of a sector is the byte offset:

* ``err`` is as long as the volume, and every access to it fails.
* ``wide`` has 512 stripes with chunks of one GELI sector. The first is the provider, all others are ``err``. GELI
  sector n thereby begins at 512-byte sector n * S, which is its byte offset.
* ``dec`` is dm-crypt on ``wide``, with a target for each zone of 2^20 GELI sectors, since each has a key of its own.
* the plain device takes the first stripe of ``dec`` out again.

Tables are what ``dmsetup`` reads, in sectors of 512 bytes (kernel: ``admin-guide/device-mapper``). That of ``dec`` has
the keys in it.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..command import Command
from .keys import ZONE_SHIFT, MasterKey, zone_key
from .metadata import AES_XTS, Located, Metadata

_SECTOR = 512
_STRIPES = 512
# The largest sector of dm-crypt, bytes.
_LARGEST = 4096
# Bytes of memory that a zone takes: measured 1.43 to 1.6 MiB, of which dm-crypt keeps 1 MiB in reserve for writes.
ZONE_MEMORY = 1_600_000
# Of the memory that is available, so much may be taken.
MEMORY_SHARE = 0.4

PREFIX = "eli-"
UUID_PREFIX = "NASOPS-GELI-"
# From the bottom up; the plain device has the bare name.
LAYERS = ("err", "wide", "dec")
MODULES = ("dm_mod", "dm_crypt", "dm_unstripe")


@dataclass(frozen=True)
class Layer:
    """A device of the stack. ``table`` may hold keys; ``below`` tells what the names in braces of it stand for."""

    name: str
    uuid: str
    table: str = field(repr=False)
    final: bool = False

    def create(self, numbers: t.Mapping[str, str]) -> Command:
        """The command that makes it, with the table on stdin; numbers are those of the devices below, by name."""
        # Layers that nobody is to look at get no node in /dev/mapper, and no udev rule waits for them.
        rules = () if self.final else ("--noudevrules",)
        argv = ("dmsetup", "create", self.name, "--readonly", "--uuid", self.uuid, *rules)
        return Command(argv, stdin=self.table.format(**numbers).encode("ascii"))


def plain_name(label: str) -> str:
    """Name of the plain device below /dev/mapper."""
    return f"{PREFIX}{label}"


def layer_names(label: str) -> tuple[str, ...]:
    """Names of all devices of a stack, from the bottom up."""
    return (*(f"{PREFIX}{label}-{layer}" for layer in LAYERS), plain_name(label))


def remove(name: str) -> Command:
    """The command that takes away one device of a stack; udev may look at a new device for a moment."""
    return Command(("dmsetup", "remove", "--retry", name))


def suits(metadata: Metadata) -> str:
    """Why device-mapper can't do it, in words; empty when it can."""
    if metadata.authenticated:
        return f"sectors are authenticated ({metadata.authentication})"
    if metadata.algorithm.number != AES_XTS:
        return f"the cipher is {metadata.algorithm.name}, and device-mapper has no such initialization vectors"
    if metadata.version < 5:
        return f"version {metadata.version} of the metadata never had AES-XTS"
    if metadata.sector_size > _LARGEST:
        return f"sectors have {metadata.sector_size} bytes, and those of device-mapper {_LARGEST} at the most"
    return ""


def zones(located: Located) -> int:
    """How many keys a volume has."""
    sectors = located.size // located.metadata.sector_size
    return max(1, -(-sectors // (1 << ZONE_SHIFT)))


def memory(located: Located) -> int:
    """Bytes of memory that the stack takes."""
    return zones(located) * ZONE_MEMORY


def stack(label: str, provider: str, located: Located, master: MasterKey) -> tuple[Layer, ...]:
    """The layers from the bottom up.

    :param provider: number of the encrypted device, as 8:18
    """
    metadata = located.metadata
    step = metadata.sector_size
    chunk = step // _SECTOR
    sectors = located.size // step
    length, wide = sectors * chunk, sectors * step
    names = layer_names(label)
    stripes = f"{provider} 0" + " {err} 0" * (_STRIPES - 1)
    tables = (
        f"0 {length} error\n",
        f"0 {wide} striped {_STRIPES} {chunk} {stripes}\n",
        "".join(_zone(metadata, master, zone, sectors) for zone in range(zones(located))),
        f"0 {length} unstriped {_STRIPES} {chunk} 0 {{dec}} 0\n",
    )
    return tuple(
        Layer(name, f"{UUID_PREFIX}{name}", table, final=name == names[-1]) for name, table in zip(names, tables)
    )


def _zone(metadata: Metadata, master: MasterKey, zone: int, sectors: int) -> str:
    step = metadata.sector_size
    first = zone << ZONE_SHIFT
    count = min(sectors - first, 1 << ZONE_SHIFT)
    start = first * step
    key = zone_key(metadata, master, zone).hex()
    # The default is what is wanted: vectors count in sectors of 512 bytes whatever the sectors are.
    options = "" if step == _SECTOR else f" 1 sector_size:{step}"
    return f"{start} {count * step} crypt aes-xts-plain64 {key} {start} {{wide}} {start}{options}\n"
