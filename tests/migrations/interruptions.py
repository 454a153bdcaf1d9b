# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to a migration: how it is brought about, what it has to lead to, and how a person mends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vm.machine import Failed, Machine

from .hotplug import plug_in, pull
from .source import LINE_KEY, LINE_KNOWN, LINKS, WRONG_GELI_KEY, Source

# Seconds for a run that nothing happens to, or that something happened to: it has to end in this time.
PATIENCE = 200
# A command that only looks is waited for ten minutes, also by a run whose pool does not answer any more.
_PATIENCE_WITHOUT_POOL = 700
# Seconds without anything that moves, after which a stream counts as broken.
STALL = 20
# A program that a run starts again and again is waited for so long.
_PATIENCE = 60.0
_HURRY = 0.05

# Both leave room for what is on its way, and hardly more. What arrives meanwhile may have taken it already.
_QUOTA = """
for _try in $(seq 20); do
  ! zfs set quota=$(($(zfs get -Hp -o value used new) + 1500000)) new 2>/dev/null || exit 0
done
exit 1
"""
_EATER = """
for _try in $(seq 20); do
  room=$(($(zfs get -Hp -o value available new) - 1500000))
  ! zfs create -o canmount=off -o refreservation=$room new/eater 2>/dev/null || exit 0
done
exit 1
"""
# The maps as they are now fail whatever comes, as those of disks that are gone.
_BOTH_GONE = """
for name in $(dmsetup ls | cut -f 1 | grep '^eli-' | grep -v -e '-err$' -e '-wide$' -e '-dec$'); do
  dmsetup wipe_table --noflush --nolockfs $name
done
"""
# The kernel resets the connection of the NAS to itself, as a router does that was restarted. Prints what was cut.
_CUT_LINE = """
line='src 127.0.0.1 dst 127.0.0.1 dport = :22'
[ -n "$(ss -Htn state established $line)" ] || exit 0
ss -KHtn state established $line
"""
_NOTHING_ATTACHED = f"""
dmsetup ls | grep '^eli-' || true
ls {LINKS} 2>/dev/null || true
"""


# The target is where it always is, and the run reaches it as it would another host.
_OVER_SSH = {
    "target_host": "127.0.0.1",
    "ssh": {"user": "root", "identity_file": LINE_KEY, "known_hosts_file": LINE_KNOWN},
}


@dataclass(frozen=True)
class Kind:
    """One thing that goes wrong.

    ``strike`` does it to a run that goes on, and tells how; "" if there was nothing to be struck any more. ``mend``
    does what a person would do then. ``options`` are given to the run. ``expects``: what a run that fails says, "" for
    anything. ``at_end``: it happens by itself, at the end of the run. ``kills``: the run says nothing any more.
    ``at_once``: it is run again before anything is mended. ``bearable``: it counts also where the run ends well.
    ``patience``: seconds in which the run has to end.
    """

    name: str
    strike: Callable[[Source], str]
    mend: Callable[[Source], None] = lambda _source: None
    options: Mapping[str, Any] = field(default_factory=dict)
    expects: str = ""
    at_end: bool = False
    kills: bool = False
    cuts_power: bool = False
    at_once: bool = False
    bearable: bool = False
    patience: float = PATIENCE


def kinds(wrong_key: str) -> tuple[Kind, ...]:
    """All of them.

    :param wrong_key: in hex, opens nothing
    """
    proof_key = {"proof_key": {"value": wrong_key}}
    return (
        Kind("module killed", _kill_module, settle, kills=True),
        Kind("module killed, run again at once", _kill_module, settle, kills=True, at_once=True, bearable=True),
        Kind("module killed with all it started", _kill_all, settle, kills=True),
        Kind("power cut", _cut_power, boot, cuts_power=True),
        Kind("target full: quota", _fill(_QUOTA), _make_room("zfs set quota=none new")),
        Kind("target full: another dataset", _fill(_EATER), _make_room("zfs destroy new/eater")),
        Kind("zfs send killed", lambda source: _kill_program(source.machine, "zfs", "send")),
        Kind("zfs receive killed", lambda source: _kill_program(source.machine, "zfs", "receive")),
        Kind("line to the target cut", _cut_line, settle, _OVER_SSH),
        Kind("wrong key for the disks", _kill_all, _offer_wrong_key, kills=True),
        Kind(
            "wrong key for the proof", _no_strike, options=proof_key, expects="is not the one that opens", at_end=True
        ),
        Kind("one disk pulled", _pull_one, _plug_in_again, bearable=True),
        Kind(
            "both disks gone",
            _both_gone,
            _reopen_somehow,
            {"stall_timeout": STALL},
            patience=_PATIENCE_WITHOUT_POOL,
        ),
    )


def _struck(whom: list[str]) -> str:
    return ", ".join(" ".join(one.split()[:2]) for one in whom)


def _no_strike(_source: Source) -> str:
    return "nothing"


def _kill_module(source: Source) -> str:
    return _struck(source.machine.strike("module"))


def _kill_all(source: Source) -> str:
    return _struck(source.machine.strike("all"))


def _as_soon_as_there_is_one(machine: Machine, strike: Callable[[], str]) -> str:
    """What was struck; "" if the run ended, or was waited for long enough, before there was anything."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and machine.runs():
        struck = strike()
        if struck:
            return struck
        time.sleep(_HURRY)
    return ""


def _kill_program(machine: Machine, *words: str) -> str:
    return _as_soon_as_there_is_one(machine, lambda: _struck(machine.strike("program", *words)))


def _cut_line(source: Source) -> str:
    """The connection of a run to its target."""
    machine = source.machine
    return _as_soon_as_there_is_one(machine, lambda: "the connection" if machine.shell(_CUT_LINE) else "")


def settle(source: Source) -> None:
    """Wait until what a killed module has left behind is at its end: a stream goes on without it."""
    source.machine.shell(
        "for _try in $(seq 400); do pgrep -x zfs >/dev/null || exit 0; sleep 0.2; done; echo 'zfs does not end' >&2; "
        "exit 1"
    )
    source.open_target()


def _cut_power(source: Source) -> str:
    source.machine.nas.cut()
    return "the NAS"


def boot(source: Source) -> None:
    """After a power cut, all that a person does."""
    source.machine.open_again()
    source.lay_line()
    source.open_target()
    source.open()


def _fill(script: str) -> Callable[[Source], str]:
    def strike(source: Source) -> str:
        source.machine.shell(script)
        return "the room"

    return strike


def _make_room(script: str) -> Callable[[Source], None]:
    def mend(source: Source) -> None:
        source.machine.shell(script)
        source.machine.shell("zpool sync new")

    return mend


def _offer_wrong_key(source: Source) -> None:
    """Close the disks, and see that a wrong key opens none and leaves nothing; then open them again.

    :raises Failed: it does
    """
    settle(source)
    source.close()
    result = source.attach(WRONG_GELI_KEY)
    if not result.get("failed") or "The key file does not open it" not in str(result.get("msg")):
        raise Failed(f"a wrong key was not refused: {result.get('msg', result)}")
    left = source.machine.shell(_NOTHING_ATTACHED)
    if left:
        raise Failed(f"a wrong key left these devices: {left}")
    source.open()


def _pull_one(source: Source) -> str:
    pull(source.machine.nas, source.machine.nas.serials[1])
    return "the second disk"


def _plug_in_again(source: Source) -> None:
    wwn = source.machine.names["d2:wwn"].rpartition("wwn-")[2]
    plug_in(source.machine.nas, source.machine.nas.serials[1], wwn)
    path = source.members[1]
    source.machine.shell(f"for _try in $(seq 100); do [ -e {path} ] && exit 0; sleep 0.2; done; exit 1")
    source.machine.shell("udevadm settle")
    source.close()
    source.open()


def _both_gone(source: Source) -> str:
    source.machine.shell(_BOTH_GONE)
    return "both devices"


def _reopen_somehow(source: Source) -> None:
    """Close what is gone, and open it again. If the pool can't be exported any more, only a restart helps."""
    try:
        source.close()
    except Failed:
        source.machine.nas.cut()
        boot(source)
        return
    source.open()
