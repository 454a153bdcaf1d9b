# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup of the configuration of FreeNAS, made anew: the two tables that matter, and the key files."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import tarfile
import typing as t
from pathlib import Path

# provider, pool, vol_encrypt, key
Row = tuple[str, str, int, str]


def database(path: Path, rows: t.Sequence[Row]) -> bytes:
    """A database with these disks; each pool has a GUID made of its name."""
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as found:
        found.execute(
            "CREATE TABLE storage_volume (id INTEGER PRIMARY KEY, vol_name VARCHAR(120), vol_guid VARCHAR(50), "
            "vol_encrypt INTEGER, vol_encryptkey VARCHAR(50))"
        )
        found.execute(
            "CREATE TABLE storage_encrypteddisk (id INTEGER PRIMARY KEY, encrypted_volume_id INTEGER, "
            "encrypted_disk_id VARCHAR(100), encrypted_provider VARCHAR(120))"
        )
        pools: dict[str, int] = {}
        for provider, pool, encrypt, key in rows:
            if pool not in pools:
                pools[pool] = len(pools) + 1
                values = (pools[pool], pool, f"17{len(pool)}", encrypt, key)
                found.execute("INSERT INTO storage_volume VALUES (?, ?, ?, ?, ?)", values)
            found.execute(
                "INSERT INTO storage_encrypteddisk (encrypted_volume_id, encrypted_disk_id, encrypted_provider) "
                "VALUES (?, ?, ?)",
                (pools[pool], "{serial}X", provider),
            )
        found.commit()
    return path.read_bytes()


def archive(path: Path, members: t.Mapping[str, bytes]) -> Path:
    """A tar file."""
    with tarfile.open(path, "w") as found:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            found.addfile(member, io.BytesIO(content))
    return path
