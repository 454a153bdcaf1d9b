# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian 13's sedutil-cli with the libraries it was built for, unpacked and never installed.

Neither the packages of this machine nor its apt sources are touched, so it is the same program on any Debian.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SUITE = "trixie"
PACKAGES = ("sedutil", "libc6", "libstdc++6", "libgcc-s1")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NEEDS = ("apt-get", "dpkg-deb")


class Unobtainable(Exception):
    """It can't be had on this machine; the message says why."""


def unpack(place: Path) -> None:
    """Fetch and unpack it, unless that was done before.

    :raises Unobtainable: this machine has no way to Debian's archive
    """
    if (place / "usr/sbin/sedutil-cli").exists():
        return
    absent = [name for name in NEEDS if not shutil.which(name)]
    if absent or not KEYRING.exists():
        raise Unobtainable(f"{absent[0] if absent else KEYRING} is not there to fetch Debian's package sedutil with")
    work = place.with_name(f"{place.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("state/lists/partial", "cache/archives/partial", "debs", "root"):
        (work / folder).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {SUITE} main\n")
    options = [
        f"Dir::Etc::SourceList={work}/sources.list",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State={work}/state",
        "Dir::State::status=/dev/null",
        f"Dir::Cache={work}/cache",
        "Acquire::Languages=none",
        "APT::Architecture=amd64",
        # the folder is the user's own, which apt's sandbox can't enter
        "APT::Sandbox::User=",
    ]
    apt_get = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    run([*apt_get, "update"], work)
    run([*apt_get, "download", *PACKAGES], work / "debs")
    for package in sorted((work / "debs").glob("*.deb")):
        run(["dpkg-deb", "-x", str(package), str(work / "root")], work)
    shutil.rmtree(place, ignore_errors=True)
    (work / "root").rename(place)
    shutil.rmtree(work)


def run(argv: Sequence[str], folder: Path) -> str:
    done = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unobtainable(f"`{argv[0]}` failed with status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def mirror() -> str:
    """Debian's archive as this machine already reaches it."""
    given = os.environ.get("TEST_NAS_MIRROR", "")
    if given:
        return given
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], Path("/"))
    found = re.search(r"^https?://\S*/debian/?$", targets, re.M)
    return found.group() if found else "http://deb.debian.org/debian"
