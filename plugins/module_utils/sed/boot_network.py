# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the network of a host can be up before pools are imported.

A unit that waits for the network, and that the import of pools waits for, closes a circle where the network itself
waits for local file systems: those of ZFS are among them. systemd then leaves out one of these units when the host
starts, whichever it finds first.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from ..command import Command, Runner
from ..errors import Refused

ONLINE = "network-online.target"
IMPORTS = ("zfs-import-cache.service", "zfs-import-scan.service", "zfs-import.target")
_PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "After")


@dataclass(frozen=True)
class Unit:
    """What a unit comes after, if it is started at all."""

    after: tuple[str, ...] = ()
    starts: bool = True


Read = t.Callable[[t.Sequence[str]], t.Mapping[str, Unit]]


def check_order(runner: Runner, folder: str = "/run/systemd/system") -> None:
    """Refuses where the network comes after what it would have to come before.

    :raises Refused: it does; the message names the units
    """
    if not os.path.isdir(folder):
        # systemd does not run, as in a container that is being built: nothing can be asked.
        return
    found = chain(lambda names: read_units(runner, names), ONLINE, IMPORTS)
    if found:
        way = f"{found[0]} comes after {', that after '.join(found[1:])}"
        raise Refused(
            f"On this host the network comes up after pools are imported, so no password can be fetched before: {way}. "
            "Nothing was installed, since systemd would leave out one of these units when the host starts.",
            hint="systemd-networkd needs no local file systems; networking.service (ifupdown), NetworkManager and some "
            "firewalls do. Otherwise leave kmip out and unlock the drives by the playbook unlock.",
        )


def chain(read: Read, start: str, goals: t.Collection[str]) -> tuple[str, ...]:
    """The shortest way from a unit over what it comes after to one of the goals; empty if there is none."""
    ways: dict[str, tuple[str, ...]] = {start: (start,)}
    level = [start]
    while level:
        units = read(level)
        following: list[str] = []
        for name in level:
            unit = units.get(name, Unit(starts=False))
            if not unit.starts and name != start:
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
