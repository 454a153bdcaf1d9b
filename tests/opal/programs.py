# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that run on a host with emulated drives."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .host import Emulator

# Where set-up unpacked Debian's package; without it the tests that need it are not collected.
SEDUTIL_ROOT = "NASOPS_SEDUTIL_ROOT"


def build_shim(folder: Path) -> Path:
    """Compile the library."""
    source = Path(__file__).with_name("shim.c")
    library = folder / "shim.so"
    compiler = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(source), "-ldl"]
    subprocess.run(compiler, check=True)
    return library


def sedutil_argv(root: Path, shim: Path) -> list[str]:
    """How to start the unpacked sedutil-cli: by the dynamic loader it was built for."""
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    libraries = root / "usr/lib/x86_64-linux-gnu"
    program = root / "usr/sbin/sedutil-cli"
    return [str(loader), "--library-path", str(libraries), "--preload", str(shim), str(program)]


def install_sedutil(shim: Path, folder: Path) -> Path | None:
    """A program sedutil-cli in a folder of its own, for PATH; None where there is none."""
    root = os.environ.get(SEDUTIL_ROOT)
    if not root:
        return None
    program = folder / "sedutil-cli"
    words = " ".join(f"'{word}'" for word in sedutil_argv(Path(root), shim))
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    return folder


@dataclass(frozen=True)
class Sedutil:
    """Debian's sedutil-cli, unmodified."""

    host: Emulator
    shim: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to the end, whatever that is."""
        argv = [*sedutil_argv(Path(os.environ[SEDUTIL_ROOT]), self.shim), *words]
        environment = {"OPAL_EMULATOR": str(self.host.folder), "LC_ALL": "C"}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    def ok(self, *words: str) -> str:
        """What it prints when it succeeds."""
        done = self.run(*words)
        assert done.returncode == 0, (words[0], done.returncode, done.stdout, done.stderr)
        return done.stdout
