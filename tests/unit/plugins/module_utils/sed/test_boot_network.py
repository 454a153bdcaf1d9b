# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the network can be up before pools are imported, from what systemd tells of its units."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.command import Command, Result
from ansible_collections.nasops.encryption.plugins.module_utils.errors import Refused
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_network import check_order
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, said

# What Debian's own packages have, as far as it matters.
ZFS = {
    "zfs-mount.service": ["zfs-import.target"],
    "zfs-import.target": ["zfs-import-cache.service"],
    "local-fs.target": ["zfs-mount.service", "local-fs-pre.target"],
}
NETWORKD = {
    "network-online.target": ["network.target", "systemd-networkd-wait-online.service"],
    "systemd-networkd-wait-online.service": ["systemd-networkd.service"],
    "network.target": ["systemd-networkd.service", "network-pre.target"],
    "systemd-networkd.service": ["systemd-udevd.service", "network-pre.target"],
    "network-pre.target": [],
    "systemd-udevd.service": [],
}
IFUPDOWN = {
    "network-online.target": ["network.target", "networking.service"],
    "network.target": ["networking.service"],
    "networking.service": ["local-fs.target", "network-pre.target"],
    "network-pre.target": [],
}
MANAGER = {
    "network-online.target": ["network.target", "NetworkManager-wait-online.service"],
    "NetworkManager-wait-online.service": ["NetworkManager.service"],
    "network.target": ["NetworkManager.service"],
    "NetworkManager.service": ["dbus.service", "basic.target", "sysinit.target"],
    "basic.target": ["sysinit.target"],
    "sysinit.target": ["local-fs.target"],
}


def host(units: t.Mapping[str, t.Sequence[str]], off: t.Sequence[str] = ()) -> RecordedRunner:
    """A host with these units, in the words of systemctl."""

    def show(command: Command) -> Result:
        names = command.argv[command.argv.index("--") + 1 :]
        blocks = []
        for name in names:
            there = name in units
            blocks.append(
                f"LoadState={'loaded' if there else 'not-found'}\n"
                f"ActiveState={'inactive' if name in off or not there else 'active'}\n"
                f"After={' '.join(units.get(name, ()))}\n"
                f"UnitFileState={'disabled' if name in off else 'enabled' if there else ''}\n"
            )
        return said(command, "\n".join(blocks))

    return RecordedRunner(default=show)


def test_a_network_that_needs_no_local_file_system_will_do(tmp_path: Path) -> None:
    runner = host({**ZFS, **NETWORKD})
    check_order(runner, str(tmp_path))
    assert all(argv[:2] == ("systemctl", "show") for argv in runner.argvs) and len(runner.argvs) < 6


@pytest.mark.parametrize(
    "units,way",
    [
        (
            IFUPDOWN,
            "network-online.target comes after networking.service, that after local-fs.target, that after zfs-mount",
        ),
        (
            MANAGER,
            "NetworkManager.service, that after sysinit.target, that after local-fs.target, that after zfs-mount",
        ),
    ],
)
def test_one_that_comes_after_them_is_refused_with_the_units(
    units: t.Mapping[str, t.Sequence[str]], way: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="the network comes up after pools are imported") as caught:
        check_order(host({**ZFS, **units}), str(tmp_path))
    assert way in str(caught.value)
    # Without ZFS among the local file systems there is no circle.
    check_order(host(units), str(tmp_path))


def test_a_unit_that_is_turned_off_closes_no_circle(tmp_path: Path) -> None:
    both = {**NETWORKD, "networking.service": IFUPDOWN["networking.service"], **ZFS}
    both["network.target"] = [*NETWORKD["network.target"], "networking.service"]
    check_order(host(both, off=["networking.service"]), str(tmp_path))
    with pytest.raises(Refused, match="networking.service"):
        check_order(host(both), str(tmp_path))


def test_units_that_wait_for_each_other_are_looked_at_once(tmp_path: Path) -> None:
    check_order(
        host({"network-online.target": ["a.service"], "a.service": ["b.service"], "b.service": ["a.service"]}),
        str(tmp_path),
    )


def test_where_systemd_does_not_run_nothing_is_asked(tmp_path: Path) -> None:
    runner = host({**ZFS, **IFUPDOWN})
    check_order(runner, str(tmp_path / "none"))
    assert runner.argvs == []
