# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another host lacks is told with its name, and with the package that brings it."""

from __future__ import annotations

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.migration.far import far_end
from ansible_collections.nasops.encryption.plugins.module_utils.migration.far_ready import faults_of, lacking_there
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.replicate_run import ReplicaRunner

from .tools import Tools

FINE = """system Linux
user 0
unshare ready
mount from util-linux 2.38.1 (libmount 2.38.1: btrfs, namespaces)
python 3 9
rsync  version 3.2.7  protocol version 31
    socketpairs, symlinks, symtimes, hardlinks, hardlink-specials,
    append, ACLs, xattrs, optional secluded-args, iconv, prealloc
"""


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("", "", []),
        ("Linux", "FreeBSD", ["it runs FreeBSD, and 'method: rsync' copies to Linux alone"]),
        ("user 0", "user 1000", ["is not root, who alone can mount"]),
        # That only root may do so needs no second word.
        (
            "user 0\nunshare ready",
            "user 1000\nunshare unshare: unshare failed: Operation not permitted",
            ["is not root, who alone can mount"],
        ),
        (
            "unshare ready",
            "unshare unshare: unrecognized option: propagation",
            ["its unshare can't make a mount namespace (unshare: unrecognized option: propagation)"],
        ),
        ("unshare ready", "unshare", ["its unshare can't make a mount namespace (it says nothing)"]),
        (
            "mount from util-linux 2.38.1 (libmount 2.38.1: btrfs, namespaces)",
            "mount mount: unrecognized option: version",
            ["its mount is not that of util-linux"],
        ),
        ("python 3 9", "missing python3", ["the program python3 is missing. Install python3."]),
        (
            "python 3 9",
            "missing unshare\nmissing nsenter\npython 3 13",
            ["unshare, nsenter are missing. Install util-l"],
        ),
        ("python 3 9", "python 3 8", ["its python3 is 3.8; wanted is 3.9 or later"]),
        ("python 3 9\n", "", ["its python3 is of no known version"]),
        ("3.2.7", "3.1.2", ["The version of rsync on that host is 3.1.2; wanted is 3.1.3"]),
        (" ACLs,", " no ACLs,", ["built without ACLs"]),
        (
            FINE,
            "system Linux\nuser 0\nunshare ready\nmissing rsync\nmissing python3\nmissing mount\nsh: rsync: not found",
            ["the programs rsync, python3, mount are missing. Install rsync, python3, mount."],
        ),
        (FINE, "", ["it runs an unknown system"]),
    ],
)
def test_each_fault_is_told(before: str, after: str, told: list[str]) -> None:
    found = list(faults_of(FINE.replace(before, after) if before else FINE))
    assert len(found) == len(told)
    for fault, words in zip(found, told):
        assert words in fault


def test_it_is_asked_there(tools: Tools, across: ReplicaRunner) -> None:
    far = far_end(across)
    assert far is not None
    tools.program("id", "echo 0")
    tools.program("rsync", "echo 'rsync  version 3.0.9  protocol version 30'")
    tools.program("unshare", '[ "$*" = "--mount --propagation slave true" ]')
    tools.program("mount", '[ "$*" = --version ] && echo "mount from util-linux 2.41"')
    (fault,) = lacking_there(far)
    assert fault.startswith("On the target host 'nas2': ")
    assert "3.0.9; wanted is 3.1.3" in fault


def test_busybox_is_told(tools: Tools, across: ReplicaRunner) -> None:
    far = far_end(across)
    assert far is not None
    tools.program("id", "echo 0")
    tools.program("rsync", "echo 'rsync  version 3.2.7  protocol version 31'")
    for one in ("unshare", "mount"):
        tools.program(one, f"printf '{one}: unrecognized option\\nBusyBox v1.36.1 multi-call binary.\\n' >&2; exit 1")
    unshare, mount = lacking_there(far)
    assert "its unshare can't make a mount namespace (unshare: unrecognized option)" in unshare
    assert "its mount is not that of util-linux" in mount
