# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives have the form that the kernel's documentation of initial RAM disks gives (cpio, "newc")."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.cpio import Archive


@dataclass(frozen=True)
class Member:
    name: str
    mode: int
    data: bytes
    inode: int
    owner: tuple[int, int]


def members(archive: bytes) -> list[Member]:
    """An archive read as the kernel does: header, name and data, each on a multiple of 4."""
    found: list[Member] = []
    place = 0
    while True:
        header = archive[place : place + 110]
        assert header[:6] == b"070701"
        inode, mode, uid, gid, _links, _mtime, size, _a, _b, _c, _d, length, checksum = (
            int(header[at : at + 8], 16) for at in range(6, 110, 8)
        )
        assert checksum == 0
        name = archive[place + 110 : place + 110 + length]
        assert name[-1:] == b"\0"
        place += 110 + length + -(110 + length) % 4
        data = archive[place : place + size]
        place += size + -size % 4
        if name == b"TRAILER!!!\0":
            # more zeros, up to a block, so that another archive may follow
            assert len(archive) % 512 == 0 and not archive[place:].strip(b"\0")
            return found
        found.append(Member(name[:-1].decode(), mode, data, inode, (uid, gid)))


def test_directories_files_and_links() -> None:
    archive = Archive()
    archive.directory("etc")
    archive.directory("root", 0o700)
    archive.file("etc/hostid", b"\1\2\3\4\5")
    archive.file("etc/key", b"", 0o600)
    archive.link("bin", "usr/bin")
    found = {member.name: (member.mode, member.data) for member in members(archive.to_bytes())}
    assert found == {
        "etc": (stat.S_IFDIR | 0o755, b""),
        "root": (stat.S_IFDIR | 0o700, b""),
        "etc/hostid": (stat.S_IFREG | 0o644, b"\1\2\3\4\5"),
        "etc/key": (stat.S_IFREG | 0o600, b""),
        "bin": (stat.S_IFLNK | 0o777, b"usr/bin"),
    }


NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.dictionaries(NAMES.filter(lambda name: name != "TRAILER!!!"), st.binary(max_size=40)))
def test_every_file_comes_out_as_it_went_in(files: dict[str, bytes]) -> None:
    archive = Archive()
    for name, data in files.items():
        archive.file(name, data)
    found = members(archive.to_bytes())
    assert [(member.name, member.data) for member in found] == list(files.items())
    # files that share an inode would become links of each other
    assert len({member.inode for member in found}) == len(files)
    assert all(member.owner == (0, 0) for member in found)
