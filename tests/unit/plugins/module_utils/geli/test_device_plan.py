# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to attach and detach, decided on plain values."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.nasops.encryption.plugins.module_utils.errors import BadInput, Refused
from ansible_collections.nasops.encryption.plugins.module_utils.geli.device_plan import (
    DEVICE_MAPPER,
    GELI,
    NBD,
    Attachment,
    Desired,
    HostState,
    Member,
    State,
    decide,
)
from ansible_collections.nasops.encryption.plugins.module_utils.geli.metadata import locate
from ansible_collections.nasops.encryption.plugins.module_utils.geli.provider import Provider
from ansible_collections.nasops.encryption.plugins.module_utils.geli.trial import Verdict
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Action, Plan
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.geli.writer import CBC, Secret, Shape, Volume

TIB = 1 << 40
LINUX = HostState({GELI: "there is no geli(8) on Linux"}, memory=16 << 30)
FREEBSD = HostState({DEVICE_MAPPER: "it is a part of Linux", NBD: "it is a part of Linux"})
OPENS = Verdict(True)
ATTACHED, DETACHED = Desired(True), Desired(False)


class Workshop:
    """Actions that only tell what they would be."""

    def attach(self, member: Member, backend: str, read_only: bool) -> Action:
        return lambda _runner: None

    def clear(self, member: Member) -> Action:
        return lambda _runner: None


USUAL = Shape()


def provider(name: str = "sdb2", size: int = TIB, shape: Shape = USUAL, **more: t.Any) -> Provider:
    last = Volume(size, shape, (Secret((bytes(64),)),), aalgo=18).last_sector()
    located = locate(lambda _offset, length: last.rjust(length, b"\0"), size)
    facts = {"partuuid": f"uuid-{name}", "number": "8:18", "size": size, "state": "geli", "located": located}
    return Provider(f"/dev/{name}", f"/dev/{name}", **{**facts, **more})


def plan(desired: Desired, *members: Member, host: HostState = LINUX) -> Plan:
    return decide(desired, State(members, host), Workshop())


def test_attach_and_nothing_the_second_time() -> None:
    found = plan(ATTACHED, Member(provider(), verdict=OPENS), Member(provider("sdc2"), verdict=OPENS))
    assert found.actions == [
        "Attach /dev/sdb2 read-only as /dev/mapper/eli-uuid-sdb2 by device_mapper",
        "Attach /dev/sdc2 read-only as /dev/mapper/eli-uuid-sdc2 by device_mapper",
    ]
    assert found.diff()["after"]["devices"]["/dev/sdb2"] == {"attached_as": "/dev/mapper/eli-uuid-sdb2"}
    assert all(step.undo for step in found.steps)
    there = Attachment(DEVICE_MAPPER, "/dev/mapper/eli-uuid-sdb2", busy=True)
    # No key is needed any more, and it does not matter how it was attached.
    assert plan(ATTACHED, Member(provider(), there), host=HostState()) == Plan()
    assert plan(Desired(True, backend=NBD), Member(provider(), there), host=HostState()) == Plan()


def test_one_is_there_already() -> None:
    there = Member(provider(), Attachment(NBD, "/run/nasops-geli/eli-uuid-sdb2"))
    assert len(plan(ATTACHED, there, Member(provider("sdc2"), verdict=OPENS)).steps) == 1


def test_detach_and_nothing_the_second_time() -> None:
    found = plan(DETACHED, Member(provider(), Attachment(NBD, "/run/x")), Member(provider("sdc2")))
    assert found.actions == ["Detach /run/x from /dev/sdb2"]
    assert found.diff()["before"]["devices"]["/dev/sdb2"] == {"attached_as": "/run/x"}
    assert plan(DETACHED, Member(provider()), host=HostState()) == Plan()


def test_what_is_in_use_is_not_detached() -> None:
    members = (
        Member(provider(), Attachment(NBD, "/run/x", busy=True)),
        Member(provider("sdc2"), Attachment(NBD, "/y")),
    )
    with pytest.raises(Refused, match="/dev/sdb2: /run/x is in use") as caught:
        plan(DETACHED, *members)
    assert "Nothing was detached" in caught.value.hint


def test_what_an_interrupted_task_left_is_removed_first() -> None:
    left = Member(provider(holders=("dm-3",)), leftovers=("eli-uuid-sdb2-err", "eli-uuid-sdb2-wide"), verdict=OPENS)
    assert plan(ATTACHED, left).actions[0] == "Remove what an interrupted task left of a device on /dev/sdb2"
    assert plan(DETACHED, left).actions == ["Remove what was left of a device on /dev/sdb2"]


@pytest.mark.parametrize(
    "member,message",
    [
        (Member(provider()), "/dev/sdb2: no key is given to open it."),
        (Member(provider(), verdict=Verdict(False, error="The key file does not open it.")), "does not open it"),
        (Member(provider(), verdict=Verdict(None, error="It would take hours.")), "It would take hours"),
        (Member(provider(state="none", located=None, problem="There is no GELI metadata.")), "no GELI metadata"),
        (Member(provider(problem="but did not begin here"), verdict=OPENS), "but did not begin here"),
        (Member(provider(holders=("md0",)), verdict=OPENS), "is a part of md0 already"),
    ],
)
def test_one_that_can_not_be_attached_keeps_all_from_it(member: Member, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        plan(ATTACHED, Member(provider("sdc2"), verdict=OPENS), member)
    assert caught.value.hint == "Nothing was attached."


def test_every_disk_that_does_not_open_is_named() -> None:
    wrong = Verdict(False, error="No.")
    with pytest.raises(BadInput) as caught:
        plan(ATTACHED, Member(provider(), verdict=wrong), Member(provider("sdc2"), verdict=wrong))
    assert caught.value.message == "/dev/sdb2: No.\n/dev/sdc2: No."


def test_memory_decides() -> None:
    members = [Member(provider(f"sd{letter}2", 4 * TIB), verdict=OPENS) for letter in "bcdefg"]
    found = plan(ATTACHED, *members, host=dataclasses.replace(LINUX, memory=64 << 30))
    assert all("device_mapper" in action for action in found.actions)
    found = plan(ATTACHED, *members)
    assert found.actions[0] == "Attach /dev/sdb2 read-only as /run/nasops-geli/eli-uuid-sdb2 by nbd"
    with pytest.raises(
        Refused, match="6144 zones of these disks would take 9375 MiB of memory; 16384 MiB are"
    ) as caught:
        plan(Desired(True, backend=DEVICE_MAPPER), *members)
    assert "take 'nbd'" in caught.value.hint


@pytest.mark.parametrize("shape", [Shape(cipher=CBC), Shape(version=4, cipher=CBC)])
def test_other_ciphers_are_for_the_server(shape: Shape) -> None:
    member = Member(provider(shape=shape), verdict=OPENS)
    assert plan(ATTACHED, member).actions[0].endswith("by nbd")
    with pytest.raises(Refused, match="the cipher is AES-CBC"):
        plan(Desired(True, backend=DEVICE_MAPPER), member)


def test_a_file_is_for_the_server() -> None:
    member = Member(provider(number="", partuuid=""), verdict=OPENS)
    assert plan(ATTACHED, member).actions == ["Attach /dev/sdb2 read-only as /run/nasops-geli/eli-sdb2 by nbd"]


def test_authenticated_sectors_are_for_freebsd() -> None:
    member = Member(provider(shape=Shape(flags=0x10)), verdict=OPENS)
    with pytest.raises(Refused, match="which only FreeBSD reads"):
        plan(ATTACHED, member)
    assert plan(ATTACHED, member, host=FREEBSD).actions[0].endswith("by geli")


def test_nothing_is_written_on_linux() -> None:
    member = Member(provider(), verdict=OPENS)
    for backend in ("auto", DEVICE_MAPPER, NBD):
        with pytest.raises(Refused, match="on Linux these disks are only read"):
            plan(Desired(True, read_only=False, backend=backend), member)


def test_freebsd() -> None:
    names = ("/dev/gptid/uuid-sdb2",)
    member = Member(provider(names=names), verdict=OPENS)
    found = plan(Desired(True, read_only=False), member, host=FREEBSD)
    assert found.actions == ["Attach /dev/sdb2 for writing as /dev/gptid/uuid-sdb2.eli by geli"]
    assert found.steps[0].undo == ()
    with pytest.raises(Refused, match="backend 'nbd' can't be used: it is a part of Linux"):
        plan(Desired(True, backend=NBD), member, host=FREEBSD)


@pytest.mark.parametrize("now,wanted,word", [(True, False, "read-only"), (False, True, "for writing")])
def test_what_is_attached_stays_as_it_is(now: bool, wanted: bool, word: str) -> None:
    there = Member(provider(), Attachment(GELI, "/dev/ada1p2.eli", now))
    with pytest.raises(Refused, match=f"is attached {word} already, as /dev/ada1p2.eli"):
        plan(Desired(True, read_only=wanted), there)


def test_a_host_that_can_not_do_it() -> None:
    host = HostState({GELI: "no", DEVICE_MAPPER: "the program dmsetup is not installed", NBD: "no module nbd"})
    with pytest.raises(Refused, match="dmsetup is not installed. nbd: no module nbd"):
        plan(ATTACHED, Member(provider(), verdict=OPENS), host=host)
