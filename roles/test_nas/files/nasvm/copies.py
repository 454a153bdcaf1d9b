# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM made as a copy of one that is off, with its disks, its snapshots and its keys."""

from __future__ import annotations

import dataclasses
import subprocess

from .description import Description
from .errors import TestNasError
from .paths import Files


def copy(source: Files, description: Description, target: Files, name: str, guest: str) -> None:
    """Fills the target's directory; the description comes last and makes it a VM.

    :param guest: the ids that the guest of the source has, and that the pools on its disks know
    """
    files = [source.root_disk, *(source.data_disk(disk.serial) for disk in description.disks)]
    for key in (source.client_key, source.host_key):
        files += [key, key.with_suffix(".pub")]
    target.directory.mkdir(mode=0o700)
    command = ["cp", "--preserve=mode,timestamps", "--reflink=auto", "--", *map(str, files), str(target.directory)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise TestNasError("cannot copy %s: %s. Destroy %s, then try again" % (description.name, words, name))
    target.guest.write_text(guest + "\n", "ascii")
    temporary = target.description.with_name("vm.json.new")
    temporary.write_text(dataclasses.replace(description, name=name).to_json(), "utf-8")
    temporary.replace(target.description)
