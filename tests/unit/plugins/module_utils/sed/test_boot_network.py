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
from ansible_collections.nasops.encryption.plugins.module_utils.sed.boot_network import (
    check_order,
    check_places,
    mounts,
)
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner, said

# What Debian's own packages have, as far as it matters.
ZFS = {
    "zfs-mount.service": ["zfs-import.target"],
    "zfs-import.target": ["zfs-import-cache.service"],
    "local-fs.target": ["zfs-mount.service", "local-fs-pre.target"],
}
NETWORKD = {
    # Nobody waits for what may hang.
    "network-online.target": ["network.target", "systemd-networkd-wait-online.service"],
    "systemd-networkd-wait-online.service": ["zfs-import.target"],
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


def ordered(runner: RecordedRunner, folder: Path, *paths: str, lists: str = "/nowhere") -> bool:
    return check_order(runner, paths, str(folder), lists)


def test_a_network_that_needs_no_local_file_system_will_do(tmp_path: Path) -> None:
    runner = host({**ZFS, **NETWORKD})
    assert ordered(runner, tmp_path)
    assert all(argv[:2] == ("systemctl", "show") for argv in runner.argvs) and len(runner.argvs) < 6


@pytest.mark.parametrize(
    "units,way",
    [
        (
            IFUPDOWN,
            "network.target comes after networking.service, that after local-fs.target, that after zfs-mount",
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
        ordered(host({**ZFS, **units}), tmp_path)
    assert way in str(caught.value)
    # Without ZFS among the local file systems there is no circle.
    assert ordered(host(units), tmp_path)


def test_a_unit_that_is_turned_off_closes_no_circle(tmp_path: Path) -> None:
    both = {**NETWORKD, "networking.service": IFUPDOWN["networking.service"], **ZFS}
    both["network.target"] = [*NETWORKD["network.target"], "networking.service"]
    assert ordered(host(both, off=["networking.service"]), tmp_path)
    with pytest.raises(Refused, match="networking.service"):
        ordered(host(both), tmp_path)


def test_units_that_wait_for_each_other_are_looked_at_once(tmp_path: Path) -> None:
    circle = {"network.target": ["a.service"], "a.service": ["b.service"], "b.service": ["a.service"]}
    assert ordered(host(circle), tmp_path)


def test_where_systemd_does_not_run_nothing_is_asked(tmp_path: Path) -> None:
    runner = host({**ZFS, **IFUPDOWN})
    assert not ordered(runner, tmp_path / "none") and runner.argvs == []


def test_file_systems_that_zfs_may_mount_later_are_in_the_way_too(tmp_path: Path) -> None:
    # Nothing of ZFS is there as yet, but its generator will make units.
    assert ordered(host(IFUPDOWN), tmp_path)
    with pytest.raises(
        Refused, match="networking.service, that after local-fs.target, and with .* OpenZFS makes units"
    ):
        ordered(host(IFUPDOWN), tmp_path, lists=str(tmp_path))
    assert ordered(host(NETWORKD), tmp_path, lists=str(tmp_path))


def test_files_that_are_mounted_after_the_import_are_in_the_way_too(tmp_path: Path) -> None:
    pool = {"srv-a\\x20b.mount": ["zfs-import.target"], "etc.mount": ["local-fs-pre.target"]}
    runner = host({**ZFS, **NETWORKD, **pool})
    assert ordered(runner, tmp_path, "/etc/nas/client.key")
    with pytest.raises(
        Refused, match="file by which .* is not there before .* comes after zfs-import.target"
    ) as caught:
        ordered(runner, tmp_path, "/etc/nas/client.key", "/srv/a b/client.key")
    assert "the network comes up" not in str(caught.value)


def test_units_are_called_as_systemd_does() -> None:
    assert mounts("/") == ("-.mount",)
    assert mounts("/srv/.a-b/c") == (
        "-.mount",
        "srv.mount",
        "srv-.a\\x2db.mount",
        "srv-.a\\x2db-c.mount",
    )
    assert mounts("/.é")[1] == "\\x2e\\xc3\\xa9.mount"


def test_files_in_a_pool_are_refused_but_for_the_root_file_system(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "20 1 0:19 / / rw - zfs rpool/ROOT rw\n"
        "21 20 8:1 / /boot rw shared:1 - ext4 /dev/sda1 rw\n"
        "22 20 0:20 / /srv/a\\040b rw shared:2 master:1 - zfs tank/keys rw\n"
        "23 20 230:0 / /opt rw - ext4 /dev/zd0 rw\n"
    )
    check_places(("/etc/nas/client.key", "/boot/x", "/srv/a", "/optional"), str(table))
    with pytest.raises(Refused, match="/srv/a b/client.key lies on tank/keys, which is in a pool of ZFS"):
        check_places(("/srv/a b/client.key",), str(table))
    with pytest.raises(Refused, match="/opt/x lies on /dev/zd0"):
        check_places(("/opt/x",), str(table))
    check_places(("/srv",), str(tmp_path / "none"))
