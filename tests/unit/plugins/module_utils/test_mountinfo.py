# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's table of mounts, as a text in its form."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.nasops.encryption.plugins.module_utils.mountinfo import MountLine, parse, read

BIND = r"60 23 0:42 /a\040b /jail/p\134ub rw,nosuid shared:7 master:2 - zfs tank/a\040b ro,xattr"


def test_every_field_and_no_escapes_are_left() -> None:
    wanted = MountLine("0:42", "/a b", "/jail/p\\ub", "rw,nosuid", "zfs", "tank/a b", "ro,xattr")
    assert parse([BIND]) == [wanted]
    # Without any of the optional fields, and with a source that is empty.
    assert parse(["23 1 0:5 / / rw - tmpfs  rw,size=1k"]) == [
        MountLine("0:5", "/", "/", "rw", "tmpfs", "", "rw,size=1k")
    ]


def test_what_is_no_line_of_the_table() -> None:
    assert parse(["", "\n", "23 1 0:5 / / rw", "23 1 0:5 / - tmpfs tmpfs rw", "23 1 0:5 / / rw - tmpfs tmpfs"]) == []


def test_a_carriage_return_in_a_name_is_no_end_of_a_line(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(b"23 1 0:5 / /a\rb rw - ext4 /dev/sda1 rw\n" + BIND.encode() + b"\n")
    assert [one.place for one in read(str(table))] == ["/a\rb", "/jail/p\\ub"]
