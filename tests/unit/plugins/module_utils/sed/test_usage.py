# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which uses of a drive keep its host from starting without it."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev import content
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.host import Host
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import (
    BlockDevice,
    DeviceTable,
    Mount,
)
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.signatures import Signature
from ansible_collections.nasops.encryption.plugins.module_utils.sed.drive import drives
from ansible_collections.nasops.encryption.plugins.module_utils.sed.usage import usage
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner

TABLE = DeviceTable(
    (
        BlockDevice("sda", "/dev/sda", serial="A", wwn="naa.0a", number="8:0"),
        BlockDevice("sda1", "/dev/sda1", kind="partition", parent="sda", partition=1, number="8:1"),
        BlockDevice("sda2", "/dev/sda2", kind="partition", parent="sda", partition=2, number="8:2", holders=("md0",)),
        BlockDevice("md0", "/dev/md0", kind="md", number="9:0", holders=("dm-0",)),
        BlockDevice("dm-0", "/dev/dm-0", ("/dev/mapper/vg-root",), kind="lvm", number="253:0"),
    )
)


class Uses:
    """A host with these mounts and swaps, on which these devices are held."""

    def __init__(self, mounts: t.Sequence[Mount], swaps: t.Sequence[str], held: t.Sequence[str]) -> None:
        self._mounts, self._swaps, self._held = tuple(mounts), tuple(swaps), held

    def mounts(self, _runner: t.Any) -> tuple[Mount, ...]:
        return self._mounts

    def swaps(self, _runner: t.Any) -> tuple[str, ...]:
        return self._swaps

    def is_free(self, path: str) -> bool:
        return path not in self._held


@pytest.mark.parametrize(
    "mounts,swaps,held,system",
    [
        ([Mount("8:1", "/dev/sda1", "/")], [], [], ["mounted on / (/dev/sda1)"]),
        ([Mount("8:1", "/dev/sda1", "/boot/efi")], [], [], ["mounted on /boot/efi (/dev/sda1)"]),
        ([Mount("8:1", "/dev/sda1", "/srv"), Mount("8:99", "/dev/sdz1", "/")], [], [], []),
        ([], ["/dev/sda1"], [], ["active swap (/dev/sda1)"]),
        # A volume on an array on the drive.
        ([Mount("253:0", "/dev/mapper/vg-root", "/var")], [], [], ["mounted on /var (/dev/dm-0)"]),
        ([], ["/dev/mapper/vg-root"], [], ["active swap (/dev/dm-0)"]),
        # A root pool, beside a partition that is mounted; and a pool of data, which may begin with the same letters.
        (
            [Mount("0:30", "rpool/ROOT/os", "/"), Mount("8:2", "/dev/sda2", "/srv")],
            [],
            ["/dev/sda1", "/dev/sda2"],
            ['member of the imported pool "rpool" (/dev/sda1)'],
        ),
        ([Mount("0:30", "rpool2/ROOT/os", "/"), Mount("0:31", "rpool", "/srv")], [], ["/dev/sda1"], []),
    ],
)
def test_what_the_host_needs_to_start(
    monkeypatch: pytest.MonkeyPatch,
    mounts: list[Mount],
    swaps: list[str],
    held: list[str],
    system: list[str],
) -> None:
    label = Signature("zfs_member", "ZFS", pool="rpool", pool_guid="1")
    monkeypatch.setattr(content, "_own_signatures", lambda _path: (0, (label,)))
    host = t.cast(Host, Uses(mounts, swaps, held))
    found = usage(RecordedRunner(), TABLE, drives(TABLE)[0], host)
    assert list(found.system) == system
