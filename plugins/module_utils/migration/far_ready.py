# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another host needs so that files and volumes can be copied to it, and whether it has that."""

from __future__ import annotations

import typing as t

from ..command import Command
from ..remote import RemoteRunner
from .rsync import fault_of_version

# By the package that brings them, as Debian calls it.
_PACKAGES = {
    "rsync": "rsync",
    "python3": "python3",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "umount": "mount",
}
_OLDEST = (3, 9)
# One process for all of it, and one line, since the login shell there may be any.
_LOOK = (
    'echo "system $(uname -s)"; echo "user $(id -u)"; for one; do command -v "$one" >/dev/null || '
    'echo "missing $one"; done; '
    # BusyBox has programs of these names, too, which can't do what is asked of them.
    'said=$(unshare --mount --propagation slave true 2>&1) && said=ready; echo "unshare $said" | head -n 1; '
    'echo "mount $(mount --version 2>&1)" | head -n 1; '
    "python3 -I -c 'import sys; print(\"python\", *sys.version_info[:2])' 2>/dev/null; rsync --version 2>&1; exit 0"
)


def lacking_there(far: RemoteRunner) -> tuple[str, ...]:
    """What the host of the target lacks, in words with what to do.

    :raises Unreachable: it can't be asked
    """
    said = far.run(Command(("sh", "-c", _LOOK, "sh", *_PACKAGES))).stdout
    return tuple(f"On the target host '{far.host}': {fault}" for fault in faults_of(said))


def faults_of(said: str) -> t.Iterator[str]:
    """The same, by what that host has said."""
    lines = said.splitlines()
    system, user, python = (_after(word, lines) for word in ("system", "user", "python"))
    if system != "Linux":
        yield (
            f"it runs {system or 'an unknown system'}, and 'method: rsync' copies to Linux alone. Keep to 'method: "
            "zfs_send'."
        )
        return
    if user != "0":
        yield (
            "who logs in there is not root, who alone can mount. Log in as root ('ssh.user'), or have sudo without a "
            "password ('ssh.sudo')."
        )
    missing = [one for one in _PACKAGES if f"missing {one}" in lines]
    if missing:
        packages = dict.fromkeys(_PACKAGES[one] for one in missing)
        several = "s" if len(missing) > 1 else ""
        yield (
            f"the program{several} {', '.join(missing)} {'are' if several else 'is'} missing. Install "
            f"{', '.join(packages)}."
        )
    yield from _not_of_util_linux(missing, user, lines)
    if "python3" not in missing:
        version = tuple(int(word) for word in python.split() if word.isdigit())
        if len(version) != len(_OLDEST) or version < _OLDEST:
            yield (
                f"its python3 is {'.'.join(str(one) for one in version) or 'of no known version'}; wanted is "
                f"{'.'.join(str(one) for one in _OLDEST)} or later."
            )
    if "rsync" not in missing:
        fault = fault_of_version(said, "that host")
        if fault:
            yield fault


def _not_of_util_linux(missing: t.Sequence[str], user: str, lines: t.Sequence[str]) -> t.Iterator[str]:
    said = _after("unshare", lines)
    if user == "0" and "unshare" not in missing and said != "ready":
        yield (
            f"its unshare can't make a mount namespace ({said.rstrip('.') or 'it says nothing'}). It has to be that of "
            "util-linux, and a container has to allow it."
        )
    if "mount" not in missing and "util-linux" not in _after("mount", lines):
        yield "its mount is not that of util-linux. Install the package that has it (mount or util-linux)."


def _after(word: str, lines: t.Sequence[str]) -> str:
    """What stands behind a word at the beginning of a line, "" if there is none."""
    return next((line[len(word) + 1 :] for line in lines if line.startswith(f"{word} ")), "")
