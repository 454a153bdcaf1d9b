# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the network of a host can be up before pools are imported, and what is needed to ask a server by it.

A unit that comes after the network, and that the import of pools waits for, closes a circle where the network itself
waits for local file systems: those of ZFS are among them. So does one that waits for a file which is on ZFS. systemd
then leaves out one of these units when the host starts, whichever it finds first.
"""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass

from .. import mountinfo
from ..command import Command, Runner
from ..errors import Refused

# What comes after that which sets up the network; nothing waits there until it works.
NETWORK = "network.target"
IMPORTS = ("zfs-import-cache.service", "zfs-import-scan.service", "zfs-import.target")
_LOCAL = "local-fs.target"
# What tells the generator of OpenZFS which file systems to make units for, so that a later boot has other ones.
_LISTS = "/etc/zfs/zfs-list.cache"
_PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "After")
_PLAIN = re.compile(rb"[A-Za-z0-9:_]")
# Devices of volumes in pools.
_VOLUMES = ("/dev/zd", "/dev/zvol/")


@dataclass(frozen=True)
class Unit:
    """What a unit comes after, if it is started at all."""

    after: tuple[str, ...] = ()
    starts: bool = True


Read = t.Callable[[t.Sequence[str]], t.Mapping[str, Unit]]


def check_order(
    runner: Runner, paths: t.Iterable[str] = (), folder: str = "/run/systemd/system", lists: str = _LISTS
) -> bool:
    """Refuses where the network, or a file that is needed, comes after what it would have to come before.

    :param paths: those that are to be mounted, and those behind their links
    :return: False where systemd does not run, as in a container that is being built: nothing can be asked then
    :raises Refused: it does; the message names the units
    """
    if not os.path.isdir(folder):
        return False
    goals = (*IMPORTS, _LOCAL) if os.path.isdir(lists) else IMPORTS
    starts = (NETWORK, *dict.fromkeys(mount for path in paths for mount in mounts(path)))
    found = chain(lambda names: read_units(runner, names), starts, goals)
    if not found:
        return True
    way = f"{found[0]} comes after {', that after '.join(found[1:])}"
    if found[-1] == _LOCAL:
        way += f", and with {lists} OpenZFS makes units that mount file systems before that"
    again = "systemd would leave out one of these units when the host starts."
    if found[0] != NETWORK:
        raise Refused(
            f"A file by which the host asks the KMIP server is not there before pools are imported: {way}. {again}",
            hint="Put the files of the connection on the root file system, such as into /etc.",
        )
    raise Refused(
        "On this host the network comes up after pools are imported, so no password can be fetched before: "
        f"{way}. {again}",
        hint="systemd-networkd needs no local file systems; networking.service (ifupdown), NetworkManager and some "
        "firewalls do. Otherwise leave kmip out and unlock the drives by the playbook unlock.",
    )


def check_places(paths: t.Iterable[str], table: str = mountinfo.TABLE) -> None:
    """Refuses files that are in a pool: they are not there before it is imported.

    What is on the root file system is there before all of that, also if it is of ZFS.

    :param paths: as for :func:`check_order`
    :raises Refused: one is
    """
    try:
        # What was mounted last is above the others.
        mounted = {one.place: one for one in mountinfo.read(table)}
    except OSError:
        # No /proc: then it is no host that starts by systemd either.
        return
    for path in paths:
        place = max((one for one in mounted if _is_below(path, one)), key=len, default="/")
        there = mounted.get(place)
        if there is not None and place != "/" and (there.kind == "zfs" or there.source.startswith(_VOLUMES)):
            raise Refused(
                f"{path} lies on {there.source}, which is in a pool of ZFS and not there before pools are imported.",
                hint="Put it on the root file system, such as into /etc.",
            )


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def mounts(path: str) -> tuple[str, ...]:
    """The units that mount a path and what is above it, as far as there are such."""
    parts = [one for one in path.split("/") if one]
    return tuple(_mount("/".join(parts[:count])) for count in range(len(parts) + 1))


def _mount(path: str) -> str:
    """The name of the unit, as systemd-escape makes it of a path without the first slash."""
    if not path:
        return "-.mount"
    raw = os.fsencode(path)
    name = ""
    for at in range(len(raw)):
        one = raw[at : at + 1]
        if one == b"/":
            name += "-"
        elif _PLAIN.match(one) or (one == b"." and at):
            name += one.decode("ascii")
        else:
            name += f"\\x{one[0]:02x}"
    return f"{name}.mount"


def chain(read: Read, starts: t.Sequence[str], goals: t.Collection[str]) -> tuple[str, ...]:
    """The shortest way from one of these units over what it comes after to one of the goals; empty if there is none."""
    ways: dict[str, tuple[str, ...]] = {start: (start,) for start in starts}
    level = list(ways)
    while level:
        units = read(level)
        following: list[str] = []
        for name in level:
            unit = units.get(name, Unit(starts=False))
            if not unit.starts and name not in starts:
                continue
            for other in unit.after:
                if other in goals:
                    return (*ways[name], other)
                if other not in ways:
                    ways[other] = (*ways[name], other)
                    following.append(other)
        level = following
    return ()


def read_units(runner: Runner, names: t.Sequence[str]) -> dict[str, Unit]:
    """What systemd knows of these units."""
    options = (f"--property={name}" for name in _PROPERTIES)
    printed = runner.run(Command(("systemctl", "show", *options, "--", *names))).stdout
    blocks = [block for block in printed.split("\n\n") if block.strip()]
    return {name: _unit(block) for name, block in zip(names, blocks)}


def _unit(block: str) -> Unit:
    found = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    # What is turned off comes after nothing. What only runs now and then may well run at boot.
    off = found.get("UnitFileState") in ("disabled", "masked") and found.get("ActiveState") == "inactive"
    starts = found.get("LoadState") == "loaded" and not off
    return Unit(tuple(found.get("After", "").split()), starts)
