# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulls a disk out of a NAS that runs, and puts it back."""

from __future__ import annotations

import subprocess
import sys

from vm.nas import PROGRAMS, Nas, NasError


def pull(nas: Nas, serial: str) -> None:
    """Whatever is on its way to the disk or from it fails; its kernel finds out by itself."""
    _monitor(nas, f"device_del data-{serial}-device")


def plug_in(nas: Nas, serial: str, wwn: str) -> None:
    """The same disk again: serial number, world wide name and content are what they were."""
    drive = f"data-{serial}"
    file = f"if=none,id={drive},file=disk-{serial}.qcow2,format=qcow2,cache=unsafe,discard=unmap"
    _monitor(nas, f"drive_add 0 {file}", "OK")
    names = f"drive={drive},id={drive}-device,serial={serial},wwn={wwn}"
    _monitor(nas, f"device_add scsi-hd,bus=scsi.0,{names},logical_block_size=512,physical_block_size=4096")


def _monitor(nas: Nas, words: str, wanted: str = "") -> None:
    argv = [sys.executable, str(PROGRAMS / "vm.py"), "hmp", nas.name, "--", words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    if done.returncode or said != wanted:
        raise NasError(f"the monitor of {nas.name} does not do '{words}': {said}")
