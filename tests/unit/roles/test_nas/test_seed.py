# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes one VM different from the next gets into it, with the rights it needs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.paths import Files
from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.seed import build

from .test_cpio import Member, members

UUID = "12345678-1234-5678-1234-567812345678"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A VM's directory with its keys."""
    found = Files(tmp_path)
    for key, text in ((found.client_key, "client"), (found.host_key, "host")):
        key.write_text("%s private\n" % text)
        key.with_suffix(".pub").write_text("%s public\n" % text)
    return found


def seed(files: Files, uuid: str = UUID) -> dict[str, Member]:
    return {member.name: member for member in members(build(files, "box", uuid))}


def test_keys(files: Files) -> None:
    found = seed(files)
    assert found["seed/root/.ssh/authorized_keys"].data == b"client public\n"
    assert found["seed/etc/ssh/ssh_host_ed25519_key"].data == b"host private\n"
    assert found["seed/etc/ssh/ssh_host_ed25519_key.pub"].data == b"host public\n"
    # sshd refuses a key that others may read
    assert found["seed/etc/ssh/ssh_host_ed25519_key"].mode & 0o777 == 0o600
    assert found["seed/root/.ssh"].mode & 0o777 == 0o700
    assert not any(b"client private" in member.data for member in found.values())


def test_name_and_ids(files: Files) -> None:
    found = seed(files)
    assert found["seed/etc/hostname"].data == b"box\n"
    assert b"127.0.1.1 box\n" in found["seed/etc/hosts"].data
    assert found["seed/etc/machine-id"].data == b"12345678123456781234567812345678\n"
    assert struct.unpack("<I", found["seed/etc/hostid"].data) == (0x12345678,)


def test_a_host_id_is_never_zero(files: Files) -> None:
    # ZFS takes 0 for "no host id"
    found = seed(files, "12345678-1234-5678-1234-567800000000")
    assert struct.unpack("<I", found["seed/etc/hostid"].data) == (1,)


def test_directories_come_before_what_is_in_them(files: Files) -> None:
    names = list(seed(files))
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or names.index(parent) < names.index(name)
