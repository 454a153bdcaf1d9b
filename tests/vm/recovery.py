# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate for backups, and the private key that opens them: made for one run of the suite."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recovery:
    """Where both are, on the machine that runs the suite."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def private_key(self) -> Path:
        return self.folder / "private.pem"

    def make(self) -> None:
        """Make both, by openssl alone."""
        self.folder.mkdir(exist_ok=True)
        argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]
        argv += ["-subj", "/CN=recovery", "-days", "100"]
        argv += ["-keyout", str(self.private_key), "-out", str(self.certificate)]
        subprocess.run(argv, check=True, capture_output=True)

    def open(self, sealed: Path) -> bytes:
        """What is in a backup, by openssl alone; nothing if it can't be opened."""
        argv = ["openssl", "cms", "-decrypt", "-inform", "PEM", "-in", str(sealed), "-inkey", str(self.private_key)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return b"" if done.returncode else done.stdout
