# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this package needs to ask a host, in one interface for Linux and FreeBSD."""

from __future__ import annotations

import sys
import typing as t

from ..command import Runner
from .identity import DeviceTable, Mount
from .signatures import Signature, Span

# The signatures on a path, or why it could not be read.
Probed = t.Union[tuple[Signature, ...], str]


class Host(t.Protocol):
    """The questions about disks that Linux and FreeBSD answer differently."""

    def read_table(self, runner: Runner) -> DeviceTable:
        """All block devices."""

    def mounts(self, runner: Runner) -> tuple[Mount, ...]:
        """The mounted filesystems."""

    def swaps(self, runner: Runner) -> tuple[str, ...]:
        """What is swapped to."""

    def imported_pools(self, runner: Runner) -> t.Mapping[str, str]:
        """The GUIDs (decimal, empty if not known) of the imported ZFS pools by name."""

    def probe(self, runner: Runner, paths: t.Sequence[str]) -> dict[str, Probed]:
        """The signatures the system's own tools recognise, in as few processes as possible."""

    def is_free(self, path: str) -> bool:
        """False when the kernel says that something holds this device; opens it for reading only."""

    def erase(self, runner: Runner, path: str, number: str, spans: t.Sequence[Span], whole: bool) -> None:
        """Overwrite the signatures on one device or file, but only while nothing else uses it.

        :param number: what the opened device must turn out to be (see DiskContent.number)
        :param spans: places to overwrite besides those that the system's own tools find
        :param whole: it may carry a partition table, which the kernel has to forget
        """

    def forget_partition(self, runner: Runner, path: str) -> None:
        """Remove the device of an erased partition, where it does not go with the partition table by itself."""

    def settle(self, runner: Runner) -> None:
        """Wait until the names of devices in /dev are up to date."""


def this_host() -> Host:
    """The host this runs on."""
    if sys.platform.startswith("freebsd"):
        from .freebsd import FreeBSD

        return FreeBSD()
    from .linux import Linux

    return Linux()


def read_table(runner: Runner) -> DeviceTable:
    """All block devices of this host."""
    return this_host().read_table(runner)
