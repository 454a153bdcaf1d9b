# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the data of a volume to another one, be it on this host or not."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ..errors import StorageError
from ..zfs.replicate_run import ReplicaRunner
from . import device
from .far import far_end
from .far_volume import far_writer

Blocks = t.Iterable[tuple[int, bytes]]
Writer = t.Callable[[Blocks], None]


@contextlib.contextmanager
def writer(own: ReplicaRunner, volume: str, fresh: bool, stall_timeout: float) -> t.Iterator[Writer]:
    """What makes the data of a volume of the target that of these blocks.

    :param fresh: whether nothing was ever written to it
    :raises StorageError: it has no device, or that can't be written
    """
    far = far_end(own)
    if far is not None:
        with far_writer(own, far, volume, fresh, stall_timeout) as write:
            yield write
        return
    try:
        with device.opened(volume) as descriptor:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            yield lambda blocks: device.write_blocks(descriptor, size, blocks, fresh)
    except device.NoDevice as error:
        raise StorageError(str(error)) from None
