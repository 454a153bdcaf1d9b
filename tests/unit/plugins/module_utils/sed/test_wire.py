# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's own encoding against the drive's, which was written apart from it."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.nasops.encryption.plugins.module_utils.sed import discovery, packets, pin, tokens, uids
from ansible_collections.nasops.encryption.tests.opal import names
from ansible_collections.nasops.encryption.tests.opal import packets as their_packets
from ansible_collections.nasops.encryption.tests.opal import tokens as their_tokens
from ansible_collections.nasops.encryption.tests.opal.discovery import level0
from ansible_collections.nasops.encryption.tests.opal.drive import KINDS, Drive, Spec

ATOMS = st.integers(0, (1 << 64) - 1) | st.binary(max_size=40) | st.binary(min_size=2040, max_size=2060)
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


def theirs(value: t.Any) -> t.Any:
    """A value as the emulated drive has it."""
    if isinstance(value, tokens.Named):
        return their_tokens.Named(value.name, theirs(value.value))
    return [theirs(one) for one in value] if isinstance(value, list) else value


@given(VALUES, st.integers(0, 300))
def test_the_drive_reads_what_the_client_writes_and_the_other_way_round(value: t.Any, name: int) -> None:
    named = tokens.Named(name, value)
    data = tokens.encode(named)
    assert their_tokens.decode(data) == [theirs(named)]
    assert tokens.decode(their_tokens.encode(theirs(named))) == [named]


@given(st.binary(max_size=30))
def test_nonsense_is_an_error_and_never_a_crash(data: bytes) -> None:
    try:
        tokens.decode(data)
        packets.parse(data)
    except tokens.BadAnswer as error:
        assert "drive's answer" in error.message


def test_a_credential_never_shows() -> None:
    assert "geheim" not in repr(tokens.Named(3, b"geheim"))


@given(st.binary(min_size=1, max_size=1200))
def test_a_packet_arrives_whole(payload: bytes) -> None:
    data = packets.build(0x1004, 7, 105, payload)
    assert len(data) % 512 == 0
    assert their_packets.parse(data) == their_packets.Packet(0x1004, 7, 105, payload)
    assert packets.parse(their_packets.build(their_packets.Packet(0x1004, 7, 105, payload))).tokens == payload


def test_an_answer_that_is_not_ready_or_too_large() -> None:
    assert packets.parse(their_packets.empty(1, outstanding=1).ljust(512, b"\0")) == packets.Answer(waiting=True)
    assert packets.parse(their_packets.empty(1).ljust(512, b"\0")) == packets.Answer()
    large = bytes(8) + (4096).to_bytes(4, "big") * 2 + bytes(496)
    assert packets.parse(large) == packets.Answer(needs=4096)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_apart(kind: str) -> None:
    drive = Drive(Spec("S1", kind=kind, tells_owner=True))
    found = discovery.parse(level0(drive))
    assert (found.kind, found.com_id, found.locking, found.owned) == (kind, 0x1004, True, False)
    assert (found.enabled, found.enterprise) == (kind == "enterprise",) * 2
    assert found.encrypts == (not kind.startswith("pyrite"))
    assert found.granularity == (1 if kind == "pyrite1" else 8)
    assert discovery.parse(level0(Drive(Spec("S1", kind=kind)))).owned is None


@given(st.binary(max_size=120))
def test_discovery_of_nonsense_is_no_drive_or_some_drive(data: bytes) -> None:
    assert discovery.parse(data).kind in discovery.KIND_WORDS


def test_the_names_of_things_are_those_of_the_drive() -> None:
    for enterprise in (False, True):
        for number in range(3):
            assert uids.range_uid(number, enterprise) == names.locking_range(number, enterprise)
    assert uids.authority_uid("BandMaster2") == names.band_master(2)
    assert uids.pin_uid("BandMaster2") == names.pin_of(names.band_master(2))
    assert uids.pin_uid(uids.SID) == names.PIN_SID
    assert uids.pin_uid(uids.ADMIN1) == names.pin_of(names.admin(1))


def test_a_password_becomes_what_sedutil_makes_of_it() -> None:
    # What sedutil-cli 1.20.0 stored in a drive of this serial number.
    # The others are those of its forks, computed by OpenSSL.
    salt = b"S8EMUNVME0000001    "
    assert pin.derive(b"passw0rd", salt, "sha1").hex() == (
        "aee6b4a95a18ff0fae7d0ca4bb4814f51da0929227d4209e00c08e4994c9db9b"
    )
    assert pin.derive(b"passw0rd", salt, "sha512").hex() == (
        "a11cebac9e3e1a406ff2c740f9933c95047376994600ef3bc3556b7942aa87df"
    )
    assert pin.derive(b"passw0rd", salt, "sha512_500k").hex() == (
        "d6e2cd6168dd59e126162939f379117e0e42cf05af70a80e970ed5fa50e1829d"
    )
    assert pin.derive(b"x", salt, "raw") == b"x"
