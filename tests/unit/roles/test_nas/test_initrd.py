# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The initial RAM disk loads each driver after what it needs."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.roles.test_nas.files.nasvm.initrd import build, load_order

DEPENDENCIES = """\
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko
kernel/fs/jbd2/jbd2.ko: kernel/lib/crc32c.ko
kernel/fs/mbcache.ko:
kernel/lib/crc16.ko:
kernel/lib/crc32c.ko:
kernel/drivers/virtio/virtio-pci.ko.xz: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
"""


def test_what_a_module_needs_comes_first() -> None:
    order = load_order(["ext4"], DEPENDENCIES, "")
    assert order[-1] == "kernel/fs/ext4/ext4.ko"
    assert order.index("kernel/lib/crc32c.ko") < order.index("kernel/fs/jbd2/jbd2.ko")
    assert sorted(order) == sorted(line.split(":")[0] for line in DEPENDENCIES.splitlines()[:5])


def test_dashes_and_compression_are_part_of_no_name() -> None:
    assert load_order(["virtio_pci"], DEPENDENCIES, "") == [
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/virtio/virtio-pci.ko.xz",
    ]


def test_what_is_built_in_needs_no_loading() -> None:
    assert load_order(["virtio_blk"], DEPENDENCIES, "kernel/drivers/block/virtio_blk.ko\n") == []


def test_a_kernel_without_a_driver_is_no_kernel_for_a_nas() -> None:
    with pytest.raises(ValueError, match="the kernel has no module virtio_blk"):
        load_order(["virtio_blk"], DEPENDENCIES, "kernel/drivers/block/other.ko\n")


@given(st.lists(st.sets(st.integers(0, 11), max_size=4), min_size=1, max_size=12))
def test_no_module_is_loaded_before_what_it_needs_or_twice(needed: list[set[int]]) -> None:
    # a module needs only those before it, as in any kernel that loads at all; depmod names all that is needed
    direct = [{other for other in others if other < number} for number, others in enumerate(needed)]
    whole: list[set[int]] = []
    for others in direct:
        whole.append(others.union(*(whole[other] for other in others)))
    text = "".join(
        "m%d.ko: %s\n" % (number, " ".join("m%d.ko" % other for other in sorted(others, reverse=True)))
        for number, others in enumerate(whole)
    )
    order = load_order(["m%d" % number for number in range(len(needed))], text, "")
    assert sorted(order) == sorted("m%d.ko" % number for number in range(len(needed)))
    for number, others in enumerate(whole):
        assert all(order.index("m%d.ko" % other) < order.index("m%d.ko" % number) for other in others)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root folder with one kernel."""
    modules = tmp_path / "usr/lib/modules/6.12"
    modules.mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin/busybox").write_bytes(b"the busybox")
    (modules / "modules.dep").write_text("fs/ext4.ko.xz: lib/crc16.ko\nlib/crc16.ko:\n")
    (modules / "modules.builtin").write_text("virtio/virtio_pci.ko\nblock/virtio_blk.ko\n")
    for folder in ("fs", "lib"):
        (modules / folder).mkdir()
    (modules / "fs/ext4.ko.xz").write_bytes(lzma.compress(b"the ext4"))
    (modules / "lib/crc16.ko").write_bytes(b"the crc16")
    return tmp_path


def test_modules_are_unpacked_and_listed_in_order(root: Path) -> None:
    archive = build(root, b"#!/bin/sh\n")
    for content in (b"the busybox", b"the ext4", b"the crc16", b"#!/bin/sh\n", b"crc16.ko\next4.ko\n"):
        assert content in archive


def test_two_kernels_are_one_too_many(root: Path) -> None:
    (root / "usr/lib/modules/6.13").mkdir()
    with pytest.raises(ValueError, match=r"one kernel is wanted in .*, found: 6\.12, 6\.13"):
        build(root, b"")
