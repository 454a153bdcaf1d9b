# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulated self-encrypting drives in the NAS: on a port of this machine, to which the kernel of the NAS connects."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .connection import ROOT
from .nas import Nas

PACKAGE = "ansible_collections.nasops.encryption.tests.opal"
_GUEST = ROOT / "tests" / "opal" / "guest"
_FOLDER = "/opt/opal-drives"
_SERVICE = "opal-drives.service"
_UNIT = f"/etc/systemd/system/{_SERVICE}"
_SETTINGS = "/etc/opal-drives"
# The host, as QEMU's user network shows it to a guest.
_HOST = "10.0.2.2"
_FIRMWARE = {"model": "EMU OPAL", "firmware": "1.0"}


class Drives:
    """Drives of one NAS, and what its kernel calls them. Their package must be where Python finds it."""

    def __init__(self, nas: Nas, serials: Sequence[str], size: int, kinds: Mapping[str, str] | None = None) -> None:
        """
        :param size: bytes
        :param kinds: of what is not Opal 2, by serial number
        """
        self._nas = nas
        self._target = importlib.import_module(f"{PACKAGE}.nvme_tcp").Target()
        spec = importlib.import_module(f"{PACKAGE}.drive").Spec
        self._name_of = importlib.import_module(f"{PACKAGE}.nvme_tcp").name_of
        self.by_serial: dict[str, Any] = {
            serial: self._target.plug(spec(serial, blocks=size // 512, **_FIRMWARE, **kind))
            for serial in serials
            for kind in [{"kind": kinds[serial]} if kinds and serial in kinds else {}]
        }

    def plug(self) -> None:
        """Let the NAS have them, now and whenever it starts."""
        names = " ".join(self._name_of(serial) for serial in self.by_serial)
        settings = f"ADDRESS={_HOST}\nPORT={self._target.port}\nNAMES='{names}'\n"
        for path, content in (
            (f"{_FOLDER}/connect.sh", _read(_GUEST / "connect.sh")),
            (_UNIT, _read(_GUEST / _SERVICE)),
            (_SETTINGS, settings),
        ):
            self._nas.shell(f"mkdir -p $(dirname {path}) && cat >{path}", content)
        # A service that brought drives before may still count as started.
        self._nas.shell(
            f"systemctl daemon-reload && systemctl enable {_SERVICE} && systemctl restart {_SERVICE} && udevadm settle"
        )

    def unplug(self) -> None:
        """Take them away for good."""
        everything = "for one in /sys/class/nvme/*/delete_controller; do echo 1 >$one; done"
        self._nas.shell(f"systemctl disable --now {_SERVICE}; rm -rf {_UNIT} {_SETTINGS} {_FOLDER}; {everything}")

    def power_cycle(self, *serials: str) -> None:
        """Off and on; all if none is named. The kernel of the NAS then looks for them anew."""
        self._target.power_cycle(*(self.by_serial[serial] for serial in serials or self.by_serial))

    def pull_and_plug(self, serial: str) -> None:
        """Out of the running NAS, which takes the power from it, and in again."""
        name = self._name_of(serial)
        pull = f"echo 1 >$(dirname $(grep -lxF {name} /sys/class/nvme/*/subsysnqn))/delete_controller"
        self._nas.shell(pull)
        self.power_cycle(serial)
        self._nas.shell(f"systemctl restart {_SERVICE} && udevadm settle")

    def path(self, serial: str) -> str:
        """What udev calls the disk."""
        return f"/dev/disk/by-id/nvme-{_FIRMWARE['model'].replace(' ', '_')}_{serial}"

    def close(self) -> None:
        self._target.close()


def _read(path: Path) -> str:
    return path.read_text("utf-8")
