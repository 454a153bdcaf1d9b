# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest does to have its emulated drives, on a tree that stands for its kernel's."""

from __future__ import annotations

import subprocess
import typing as t
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "guest" / "connect.sh"
NAME, OTHER = "nqn.test:S1", "nqn.test:S10"
WANTED = f"nqn={NAME},transport=tcp,traddr=10.0.2.2,trsvcid=4420,"


class Guest:
    """The files of a kernel that the script reads and writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "sys/class/nvme").mkdir(parents=True)
        (folder / "dev").mkdir()
        modprobe = folder / "modprobe"
        modprobe.write_text("#!/bin/sh\n")
        modprobe.chmod(0o755)
        self._script = folder / "connect.sh"
        text = SCRIPT.read_text("utf-8").replace("/sys/", f"{folder}/sys/").replace("/dev/nvme", f"{folder}/dev/nvme")
        self._script.write_text(text, "utf-8")

    def controller(self, number: int, name: str, address: str) -> Path:
        """One that the kernel has; what it is told is in the file that is given."""
        folder = self._folder / "sys/class/nvme" / f"nvme{number}"
        folder.mkdir()
        (folder / "subsysnqn").write_text(f"{name}\n")
        (folder / "address").write_text(f"{address}\n")
        return folder / "delete_controller"

    def connect(self) -> str:
        """What the kernel is told to connect to."""
        argv = ["/bin/sh", str(self._script), "10.0.2.2", "4420", NAME]
        path = f"{self._folder}:/usr/bin:/bin:/usr/sbin:/sbin"
        subprocess.run(argv, env={"PATH": path}, timeout=60, check=True)
        told = self._folder / "dev/nvme-fabrics"
        return told.read_text() if told.exists() else ""


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


@pytest.mark.parametrize("address", ["traddr=10.0.2.2,trsvcid=4420", "traddr=10.0.2.2,trsvcid=4420,src_addr=10.0.2.15"])
def test_a_drive_that_is_connected_is_left_alone(guest: Guest, address: str) -> None:
    told = guest.controller(0, NAME, address)
    assert guest.connect() == "" and not told.exists()


@pytest.mark.parametrize("port", ["442", "44200", "39999"])
def test_a_drive_on_another_port_is_replaced(guest: Guest, port: str) -> None:
    told = guest.controller(0, NAME, f"traddr=10.0.2.2,trsvcid={port},src_addr=10.0.2.15")
    assert guest.connect().startswith(WANTED) and told.read_text() == "1\n"


@pytest.mark.parametrize("others", [(), (OTHER,)])
def test_a_drive_that_is_not_there_is_connected(guest: Guest, others: t.Sequence[str]) -> None:
    told = [guest.controller(number, name, "traddr=10.0.2.2,trsvcid=9") for number, name in enumerate(others)]
    assert guest.connect().startswith(WANTED) and not any(one.exists() for one in told)
