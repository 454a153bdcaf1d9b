# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures that are read directly, in images made here byte by byte."""

from __future__ import annotations

import struct
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev import signatures
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.signatures import KIB, Signature

MIB = 1024 * KIB
Value = t.Union[int, str, tuple[int, ...]]


def find(image: bytes) -> tuple[Signature, ...]:
    return signatures.find(lambda offset, length: image[offset : offset + length], len(image))


def xdr_text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data + b"\0" * (-len(data) % 4)


def xdr_nvlist(values: t.Mapping[str, Value]) -> bytes:
    """An nvlist as OpenZFS packs it: header, version, flags, pairs, and two zeros at the end."""
    packed = b"\x01\x01\0\0" + struct.pack(">iI", 0, 1)
    for name, value in values.items():
        if isinstance(value, int):
            body = struct.pack(">iiQ", 8, 1, value)
        elif isinstance(value, str):
            body = struct.pack(">ii", 9, 1) + xdr_text(value)
        else:
            body = struct.pack(f">ii{len(value)}Q", 16, len(value), *value)
        body = xdr_text(name) + body
        packed += struct.pack(">ii", len(body) + 8, 0) + body
    return packed + bytes(8)


def disk(size: int, *parts: tuple[int, bytes]) -> bytes:
    image = bytearray(size)
    for offset, data in parts:
        image[offset : offset + len(data)] = data
    return bytes(image)


def zfs_disk(size: int, config: t.Mapping[str, Value], labels: t.Sequence[int] = (0, 1, 2, 3)) -> bytes:
    spans = signatures.zfs_spans(size)
    return disk(size, *((spans[label][0] + 16 * KIB, xdr_nvlist(config)) for label in labels))


def config(state: int, **more: Value) -> dict[str, Value]:
    base: dict[str, Value] = {"version": 5000, "name": "tänk", "state": state, "txg": 4, "pool_guid": 2**64 - 2}
    return {**base, "holes": (1, 2), "hostname": "nas1", **more}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (0, 'ZFS label of pool "tänk" (last used by host "nas1")'),
        (1, 'ZFS label of exported pool "tänk"'),
        (2, 'ZFS label of destroyed pool "tänk"'),
    ],
)
@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_a_pool_is_named_by_any_of_its_labels(state: int, words: str, label: int) -> None:
    (found,) = find(zfs_disk(4 * MIB + 12345, config(state), (label,)))
    assert (found.type, found.what) == ("zfs_member", words)
    assert (found.pool, found.pool_guid) == ("tänk", "18446744073709551614")
    assert found.spans == (
        (0, 256 * KIB),
        (256 * KIB, 256 * KIB),
        (3 * MIB + 512 * KIB, 256 * KIB),
        (3 * MIB + 768 * KIB, 256 * KIB),
    )


@pytest.mark.parametrize(("state", "words"), [(3, "ZFS label of a spare"), (4, "ZFS label of a cache device")])
def test_spares_and_cache_devices_name_no_pool(state: int, words: str) -> None:
    (found,) = find(zfs_disk(8 * MIB, {"version": 5000, "state": state, "guid": 7}))
    assert (found.what, found.pool, found.pool_guid) == (words, "", "")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 8191, MIB - 1, MIB, 4 * MIB])
def test_zeros_hold_nothing_whatever_the_size(size: int) -> None:
    assert find(bytes(size)) == ()


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096, 8192])
def test_geli_metadata_is_in_the_last_sector_of_any_size(sector: int) -> None:
    size = 2 * MIB + 8192
    (found,) = find(disk(size, (size - sector, b"GEOM::ELI".ljust(16, b"\0") + b"\7\0\0\0")))
    assert found == Signature("geli", "GELI metadata", ((size - sector, sector),))


def test_other_geom_metadata() -> None:
    (found,) = find(disk(MIB, (MIB - 512, b"GEOM::MIRROR\0\0\0\0")))
    assert found == Signature("geom_mirror", "GEOM MIRROR metadata", ((MIB - 512, 512),))


def test_geom_magic_elsewhere_is_data() -> None:
    assert find(disk(MIB, (MIB - 511, b"GEOM::ELI"), (MIB - 513, b"GEOM::ELI"), (0, b"GEOM::ELI"))) == ()


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt_copies(sector: int) -> None:
    size = 4 * MIB
    primary, backup = (sector, b"EFI PART"), (size - sector, b"EFI PART")
    assert find(disk(size, primary, backup)) == (Signature("gpt", "GPT partition table"),)
    assert find(disk(size, primary)) == (Signature("gpt", "GPT partition table (primary copy only)"),)
    assert find(disk(size, backup)) == (
        Signature("gpt", "GPT partition table (backup copy only)", ((size - sector, 512),)),
    )


def mbr(*entries: bytes) -> Signature | None:
    image = disk(MIB, (446, b"".join(entries)), (510, b"\x55\xaa"))
    return signatures.mbr(lambda offset, length: image[offset : offset + length], len(image))


def test_mbr() -> None:
    linux = b"\0\x20\x21\0\x83\x82\x03\0\0\x08\0\0\0\0\x20\0"
    assert mbr(linux) == Signature("dos", "MBR partition table")
    assert mbr(b"\x80" + linux[1:]) is not None
    # The code of a FAT boot sector.
    assert mbr(b"No system disk. Press a key to re") is None
    assert mbr(b"\0" * 16) is None
    assert signatures.mbr(lambda offset, length: b"", 0) is None


@given(st.binary(max_size=400))
def test_no_damage_makes_the_reader_fail(junk: bytes) -> None:
    assert isinstance(signatures.nvlist(b"\x01\x01\0\0" + junk), dict)


@given(st.binary(min_size=0, max_size=60), st.integers(0, 300))
def test_what_stands_before_the_damage_is_read(junk: bytes, at: int) -> None:
    whole = xdr_nvlist(config(1))
    read = signatures.nvlist(whole[: 12 + at] + junk)
    assert at < 36 or read.get("version") == 5000


NAMES = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.dictionaries(NAMES, st.one_of(st.integers(0, 2**64 - 1), NAMES)))
def test_every_name_and_value_is_read_back(values: dict[str, Value]) -> None:
    assert signatures.nvlist(xdr_nvlist(values)) == values
