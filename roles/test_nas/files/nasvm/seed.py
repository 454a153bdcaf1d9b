# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes one VM different from the next: keys, name and ids, put into the root disk by the initial RAM disk."""

from __future__ import annotations

import struct
import uuid as uuid_module

from .cpio import Archive
from .paths import Files


def build(files: Files, name: str, uuid: str) -> bytes:
    """An archive to append to the image's initial RAM disk."""
    identity = uuid_module.UUID(uuid)
    archive = Archive()
    for directory, mode in (
        ("seed", 0o755),
        ("seed/etc", 0o755),
        ("seed/etc/ssh", 0o755),
        ("seed/root", 0o700),
        ("seed/root/.ssh", 0o700),
    ):
        archive.directory(directory, mode)
    public = files.host_key.with_suffix(".pub").read_bytes()
    archive.file("seed/root/.ssh/authorized_keys", files.client_key.with_suffix(".pub").read_bytes(), 0o600)
    archive.file("seed/etc/ssh/ssh_host_ed25519_key", files.host_key.read_bytes(), 0o600)
    archive.file("seed/etc/ssh/ssh_host_ed25519_key.pub", public, 0o644)
    archive.file("seed/etc/hostname", name.encode("ascii") + b"\n")
    archive.file("seed/etc/hosts", ("127.0.0.1 localhost\n127.0.1.1 %s\n" % name).encode("ascii"))
    archive.file("seed/etc/machine-id", identity.hex.encode("ascii") + b"\n", 0o444)
    # ZFS refuses to import a pool that another host id used last
    archive.file("seed/etc/hostid", struct.pack("<I", identity.int & 0xFFFFFFFF or 1))
    return archive.to_bytes()
