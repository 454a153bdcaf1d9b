# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every drive of a host, without a password."""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..blockdev.identity import DeviceTable
from ..command import Runner
from ..errors import StorageError
from .drive import Drive, drives, find
from .link import libata_passes, open_link
from .read import MOST_AT_ONCE
from .result import Result, plain
from .session import discover
from .usage import in_words, users


def rows(runner: Runner, table: DeviceTable, addresses: t.Sequence[str] | None) -> list[Result]:
    """A row for each drive that is meant, for all if none is named.

    :raises BadInput: a drive that is named is not there
    """
    known = drives(table)
    meant = list(known) if addresses is None else [find(table, known, one) for one in addresses]
    if not meant:
        return []
    with ThreadPoolExecutor(min(len(meant), MOST_AT_ONCE)) as pool:
        return list(pool.map(lambda drive: _row(runner, table, drive), meant))


def _row(runner: Runner, table: DeviceTable, drive: Drive) -> Result:
    uses = users(runner, table, drive)
    shown = {"uses": [in_words(one) for one in uses], "pool": next((one.pool for one in uses if one.pool), None)}
    try:
        with open_link(drive.node, exclusive=False) as link:
            identity, found = link.identify(), discover(link)
    except StorageError as error:
        return {**plain(drive, None, None), **shown, "error": str(error)}
    problem = None
    if not found.kind and identity.bus == "sata" and libata_passes() is False:
        problem = "libata.allow_tpm is 0: if this is a self-encrypting drive, the kernel keeps it from telling so."
    return {**plain(drive, identity, found), **shown, "error": problem}
