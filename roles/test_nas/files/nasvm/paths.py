# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a test NAS keeps its files."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from .errors import TestNasError


def cache_directory() -> Path:
    """The cache of all test NAS images and, below ``vm``, the default place of the VMs."""
    chosen = os.environ.get("TEST_NAS_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "nasops-encryption" / "test_nas"


def socket_directory(vm: Path) -> Path:
    """A short private directory for ssh's control sockets of this VM: a socket's path is limited to 107 bytes."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    parent = Path(runtime) / "test-nas" if runtime else Path(tempfile.gettempdir()) / ("test-nas-%d" % os.getuid())
    name = hashlib.sha256(os.fsencode(str(vm.resolve()))).hexdigest()[:8]
    for directory in (parent, parent / name):
        directory.mkdir(mode=0o700, parents=directory is parent, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise TestNasError(
                "%s is not a private directory of user %d: remove it, then run this again" % (directory, os.getuid())
            )
    return parent / name


class Files:
    """The names of everything inside one VM's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.description = directory / "vm.json"
        self.run = directory / "run.json"
        self.guest = directory / "guest_id"
        self.initrd = directory / "initrd.img"
        self.root_disk = directory / "root.qcow2"
        self.monitor = directory / "qmp.sock"
        self.console = directory / "console.log"
        self.qemu_log = directory / "qemu.log"
        self.client_key = directory / "id_ed25519"
        self.host_key = directory / "ssh_host_ed25519_key"
        self.known_hosts = directory / "known_hosts"
        self.ssh_config = directory / "ssh_config"
        self.inventory = directory / "inventory.yml"

    def data_disk(self, serial: str) -> Path:
        """The image of the data disk with this serial."""
        return self.directory / ("disk-%s.qcow2" % serial)
