# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that the tests of the test NAS share."""

from __future__ import annotations

import pytest

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.description import Description, Disk


@pytest.fixture
def description() -> Description:
    """A VM with a disk on each bus."""
    return Description(
        name="box",
        image="/cache/image/1",
        qemu="/usr/bin/qemu-system-x86_64",
        qemu_img="/usr/bin/qemu-img",
        memory=1024,
        cpus=3,
        accel="tcg",
        disks=(Disk("A1", 1 << 30, "scsi"), Disk("B2", 1 << 29, "sata"), Disk("C3", 1 << 28, "virtio")),
        qemu_args=("-device", "usb-ehci"),
    )
