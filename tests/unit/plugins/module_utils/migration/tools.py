# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs in the place of those that mount and copy; each writes down what it was asked for."""

from __future__ import annotations

import sys
from pathlib import Path


class Tools:
    """What is mounted shows as a file of its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Where the folders for mounts are, here and on the other host.
        self.base = folder / "base" / "fs"
        self.there = folder / "there" / "fs"
        self.program("unshare", '[ "$*" != "${*#--mount --propagation slave sh -c}" ] || exit 9; shift 3; exec "$@"')
        self.mount_by(
            'touch -d @0 "$last/$(basename "$9")" "$last"; ' + f"exit $(cat {folder}/status)",
        )
        self.program("umount", 'rm -f "$1"/*')
        self.program("nsenter", 'shift 2; exec "$@"')
        self.program("setpriv", 'shift 2; exec "$@"')
        self.program("rsync", f"exit $(cat {folder}/rsync.status)")
        send = f"cat {folder}/stream; exit $(cat {folder}/send.status)"
        self.program("zfs", f"[ $1 != get ] || echo 77; [ $1 != send ] || {{ {send}; }}")
        self.program("python3", f'exec {sys.executable} "$@"')
        # What is mounted on the other host is elsewhere, and its path is not that of this test.
        self.program(
            "ssh",
            'for last; do :; done; case " $* " in *" -O exit "*) exit 0;; esac; '
            f"[ ! -e {folder}/ssh.broken ] || {{ echo 'Connection closed by nas2' >&2; exit 255; }}; "
            f'exec sh -c "$(printf %s "$last" | sed \'s,PATH=[^ ]*,PATH={folder}:/usr/bin:/bin,; '
            f"s,{self.base.parent},{self.there.parent},g')\"",
        )
        for name in ("status", "rsync.status", "send.status"):
            (folder / name).write_text("0")
        (folder / "stream").write_bytes(b"")

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.folder}/log\n{script}\n')
        path.chmod(0o755)

    def mount_by(self, script: str) -> None:
        """What mounts a filesystem; the folder is ``$last``."""
        self.program("mount", f"for last; do :; done; [ $4 != tmpfs ] || exit 0; {script}")

    @property
    def mounts(self) -> list[str]:
        """What was mounted, without that which the folders for it lie in."""
        return [line for line in self.log if line.startswith("mount ") and " tmpfs " not in line]

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()
