# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as the contents of a stream, and what does not."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.zfs.stream_digest import (
    RECORD,
    WRITE_EMBEDDED,
    Contents,
    NotAStream,
    contents_of,
)

from .streams import Maker, file

HERE, THERE = Maker(), Maker(noise=3)
BLOCKS = {0: b"a" * 4096, 4096: b"b" * 4096, 8192: b"c" * 512}


def read(data: bytes) -> Contents:
    counted: list[int] = []
    found = contents_of(io.BytesIO(data), counted.append)
    assert sum(counted) <= len(data)
    return found


def test_names_times_and_checksums_do_not_count() -> None:
    ours = HERE.stream(file(HERE, BLOCKS), HERE.spill(7, b"x" * 512), HERE.free(7, 8704, 10**9))
    theirs = THERE.stream(THERE.free_objects(9, 20), file(THERE, BLOCKS), THERE.spill(7, b"x" * 512))
    assert read(ours) == read(theirs)
    assert read(ours).objects == 1
    assert read(ours).data == 4096 * 2 + 512 + 512


def test_a_block_of_zeros_is_a_hole() -> None:
    zeros = {**BLOCKS, 1 << 20: bytes(1 << 20), 1 << 22: bytes(3_000_000)}
    assert read(HERE.stream(file(HERE, zeros))) == read(HERE.stream(file(HERE, BLOCKS)))


def test_a_block_that_ends_in_something_is_none() -> None:
    almost = {**BLOCKS, 1 << 20: bytes((1 << 21) - 1) + b"1"}
    assert read(HERE.stream(file(HERE, almost))) != read(HERE.stream(file(HERE, BLOCKS)))


def test_the_order_of_blocks_does_not_count() -> None:
    other = dict(reversed(BLOCKS.items()))
    assert read(HERE.stream(file(HERE, other))) == read(HERE.stream(file(HERE, BLOCKS)))


def test_the_other_byte_order_is_understood() -> None:
    big = Maker(">")
    assert read(big.stream(file(big, BLOCKS))) == read(HERE.stream(file(HERE, BLOCKS)))


@pytest.mark.parametrize(
    "changed",
    [
        HERE.object(7, b"attributez") + b"".join(HERE.write(7, at, data) for at, data in BLOCKS.items()),
        HERE.object(7, kind=20) + b"".join(HERE.write(7, at, data) for at, data in BLOCKS.items()),
        file(HERE, {**BLOCKS, 4096: b"b" * 4095 + b"B"}),
        file(HERE, {0: BLOCKS[0], 4096: BLOCKS[4096]}),
        file(HERE, {0: BLOCKS[4096], 4096: BLOCKS[0], 8192: BLOCKS[8192]}),
        file(HERE, BLOCKS, number=8),
        file(HERE, BLOCKS) + HERE.spill(7, b"x" * 512),
        file(HERE, BLOCKS) + HERE.object(8, b""),
        file(HERE, BLOCKS) + HERE.write(7, 8192, BLOCKS[8192]),
    ],
    ids=["attribute", "kind", "bit", "missing", "swapped", "other file", "spill", "more", "twice"],
)
def test_everything_else_counts(changed: bytes) -> None:
    assert read(HERE.stream(changed)).digest != read(HERE.stream(file(HERE, BLOCKS))).digest


@given(st.integers(0, 4096 * 2 + 511), st.integers(0, 7))
def test_each_bit_of_a_file_counts(place: int, bit: int) -> None:
    data = bytearray(b"".join(BLOCKS.values()))
    data[place] ^= 1 << bit
    blocks = {at: bytes(data[at : at + 4096]) for at in (0, 4096, 8192)}
    assert read(HERE.stream(file(HERE, blocks))).digest != read(HERE.stream(file(HERE, BLOCKS))).digest


@pytest.mark.parametrize("features", [1 << 22, 1 << 24])
def test_a_stream_that_is_not_plain_is_refused(features: int) -> None:
    with pytest.raises(NotAStream, match="compressed or encrypted"):
        read(HERE.stream(begin=HERE.begin(features)))


def test_other_features_are_fine() -> None:
    assert read(HERE.stream(begin=HERE.begin(1 << 19 | 1 << 23 | 1 << 16))).objects == 0


def test_words_behind_the_first_record_are_passed_over() -> None:
    assert read(HERE.stream(file(HERE, BLOCKS), begin=HERE.begin(after=b"w" * 64))) == read(
        HERE.stream(file(HERE, BLOCKS))
    )


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "in the middle of its first record"),
        (b"x" * RECORD, "does not begin as a stream does"),
        (HERE.begin(kind=2) + HERE.end(), "several snapshots"),
        (HERE.end(), "does not begin"),
        (HERE.begin() + HERE.record(WRITE_EMBEDDED, b""), "of the kind 8"),
        (HERE.begin() + HERE.record(200, b""), "of the kind 200"),
        (HERE.begin() + HERE.object(1, raw=64), "encrypted object"),
        (HERE.begin() + HERE.write(1, 0, b"z" * 512, compressed=15), "compressed block"),
        (HERE.begin() + HERE.spill(1, b"z" * 512, compressed=15), "compressed block"),
        (HERE.begin() + HERE.write(1, 0, b"", length=1 << 40), "a block has 16777216 at most"),
    ],
)
def test_what_is_no_plain_stream_is_told(data: bytes, match: str) -> None:
    with pytest.raises(NotAStream, match=match):
        read(data)


@given(st.integers(0, len(HERE.stream(file(HERE, BLOCKS))) - 1))
def test_a_stream_that_is_cut_anywhere_is_none(length: int) -> None:
    with pytest.raises(NotAStream):
        read(HERE.stream(file(HERE, BLOCKS))[:length])
