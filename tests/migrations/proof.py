# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interruptions, one after the other, and what is looked at after each."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vm.connection import AgentLost
from vm.machine import Failed
from vm.nas import NasError

from .interruptions import PATIENCE, Kind, boot, kinds
from .source import NEW, OLD, Source

PROGRESS = "/root/work/progress.json"
VERIFIED = "nasops.encryption:migration-verified"
_LOOK = 0.1
# The part of the time of a run that the streams take, and how often one that has sent them all is left alone.
_STREAMS = 0.5
_FINISHED = 0.5


@dataclass(frozen=True)
class Interruption:
    """One that happened. ``moment``: seconds since the run began, ``amid``: what it was at."""

    kind: str
    moment: float
    amid: str
    struck: str
    said: str
    resumed: int
    lost: tuple[str, ...]
    false_claims: tuple[str, ...]


@dataclass
class Tally:
    """What was seen."""

    interruptions: list[Interruption] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    claims: int = 0
    """How often it was told that all is verified, which was compared file by file each time."""
    facts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return self.failures + [fault for one in self.interruptions for fault in (*one.lost, *one.false_claims)]

    def table(self) -> Iterator[str]:
        """What happened how often, and what came of it."""
        yield "| what happened | times | at seconds | went on amid a stream | lost | falsely verified |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for name in dict.fromkeys(one.kind for one in self.interruptions):
            ones = [one for one in self.interruptions if one.kind == name]
            moments = ", ".join(f"{one.moment:.1f}" for one in sorted(ones, key=lambda one: one.moment))
            yield (
                f"| {name} | {len(ones)} | {moments} | {sum(one.resumed for one in ones)} | "
                f"{sum(len(one.lost) for one in ones)} | {sum(len(one.false_claims) for one in ones)} |"
            )
        if self.facts:
            yield "\n| what | |\n| --- | --- |"
            for what, value in self.facts:
                yield f"| {what} | {value} |"


class Proof:
    """Migrates again and again while things happen to it, each time until all has arrived."""

    def __init__(self, source: Source, tally: Tally, seed: int, say: Callable[[str], None]) -> None:
        self.source = source
        self.machine = source.machine
        self.tally = tally
        self.say = say
        self.options: dict[str, Any] = {"source": OLD, "target": NEW, "state": "verified", "progress_file": PROGRESS}
        self._chance = random.Random(seed)
        self._kinds = kinds(source.keys.hex("wrong"))
        self._span = 0.0

    # --- rounds ------------------------------------------------------------------------------------------------

    def interrupt(self, count: int) -> None:
        """So many interruptions, of each kind in turn.

        :raises Failed: in the end not all is there, or nothing can be done any more
        """
        for kind in self._order(count):
            try:
                self._bring_about(kind)
            except (Failed, AgentLost, NasError) as error:
                self.tally.failures.append(f"{kind.name}: {error}")
                self.say(f"migrations: FAULT: {kind.name}: {error}")
                self._start_over()
        self.complete(self._run())

    def _bring_about(self, kind: Kind) -> None:
        """Let something happen; as often as the run is through before."""
        arrived = self.source.arrived()
        if len(arrived) == len(self.source.snapshots()) and self._chance.random() < _FINISHED:
            self.complete(self._run())
            self.begin_anew()
        while not self._disturbed(kind):
            self.begin_anew()

    def _start_over(self) -> None:
        """Whatever state a fault has left: as after a power cut, and without a target."""
        self.machine.nas.cut()
        boot(self.source)
        self.machine.shell("zfs set quota=none new; ! zfs list new/eater 2>/dev/null || zfs destroy new/eater")
        if self.machine.shell(f"zfs list -H -o name {NEW} 2>/dev/null || true"):
            self.begin_anew()

    def _order(self, count: int) -> list[Kind]:
        """Each kind as often as the others, in an order that the seed decides."""
        order: list[Kind] = []
        while len(order) < count:
            order += self._chance.sample(self._kinds, len(self._kinds))
        return order[:count]

    def undisturbed(self) -> None:
        """How long it takes when nothing happens: moments are drawn within that time.

        :raises Failed: not all is there
        """
        begun = time.monotonic()
        result = self._run()
        self._span = time.monotonic() - begun
        self.complete(result)
        self.say(f"migrations: undisturbed it takes {self._span:.1f} s")
        self.tally.facts.append(("seconds of a migration that nothing happens to", f"{self._span:.1f}"))

    def begin_anew(self) -> None:
        """Without a target."""
        # udev may still look at what was just there.
        self.machine.shell(f"for _try in $(seq 20); do zfs destroy -R {NEW} && break; sleep 0.5; done; zpool sync new")
        if self.source.arrived():
            raise Failed(f"{NEW} could not be destroyed")

    # --- runs --------------------------------------------------------------------------------------------------

    def run(self, **options: Any) -> dict[str, Any]:
        """A run to its end, however it ends."""
        self.machine.begin("geli_migrate", **{**self.options, **options})
        result = self.machine.end(PATIENCE)
        if result is None or "crash" in result:
            raise Failed(f"the module ended without a result: {result}")
        return result

    def _run(self) -> dict[str, Any]:
        """A run to its end.

        :raises Failed: it fails
        """
        result = self.run()
        if "reached" not in result:
            raise Failed(f"a run that nothing happened to failed: {_said(result)}")
        return result

    def _disturbed(self, kind: Kind) -> bool:
        """A run that something happens to; False if it had ended before."""
        if kind.at_end and self._recorded() != "-":
            # It would have nothing to do.
            self.begin_anew()
        before = self.source.arrived()
        # A run that was killed has left its last words.
        self.machine.shell(f"rm -f {PROGRESS}")
        moment = self._chance.uniform(0.0, self._span * (1 - _STREAMS * len(before) / len(self.source.snapshots())))
        self.machine.begin("geli_migrate", **self.options, **kind.options)
        begun = time.monotonic()
        while not kind.at_end and time.monotonic() - begun < moment and self.machine.runs():
            time.sleep(_LOOK)
        amid = "the proof of the key" if kind.at_end else self._amid()
        struck = kind.strike(self.source) if kind.at_end or self.machine.runs() else ""
        moment = time.monotonic() - begun
        result = None if struck and kind.cuts_power else self.machine.end(kind.patience)
        moment = time.monotonic() - begun if kind.at_end else moment
        if not struck or (kind.kills and result is not None):
            # It had ended a moment before.
            if not struck and result is not None and "reached" not in result:
                raise Failed(f"{kind.name}: a run that nothing had happened to yet failed: {_said(result)}")
            self.complete(self._run() if result is None or "reached" not in result else result)
            return False
        if kind.at_once:
            result = self.machine.module("geli_migrate", **self.options)
        kind.mend(self.source)
        self._judge(kind, result)
        unhurt = result is not None and "reached" in result
        if not unhurt or kind.bearable:
            self._note(kind, moment, amid, struck, result, before)
        if unhurt:
            # It did not need any more what was taken from it; so all has to be there.
            self.complete(self._run())
        if unhurt and kind.bearable:
            self.begin_anew()
        return not unhurt or kind.bearable

    def _amid(self) -> str:
        """What the run is at, by its own words."""
        said = self.machine.shell(f"cat {PROGRESS} 2>/dev/null || true")
        try:
            found = json.loads(said)
        except ValueError:
            return "between streams"
        return f"{found['what']}, {found['bytes']} bytes"

    def _judge(self, kind: Kind, result: dict[str, Any] | None) -> None:
        """:raises Failed: the run ended in another way than it should"""
        if result is None:
            return
        if "crash" in result:
            raise Failed(f"{kind.name}: the module crashed: {result['crash']}")
        if kind.at_end and "reached" in result:
            raise Failed(f"{kind.name}: it was not refused, and {result['reached']} was reached")
        if kind.expects and kind.expects not in str(result.get("msg", "")) and "reached" not in result:
            raise Failed(f"{kind.name}: it failed for another reason: {_said(result)}")

    def _note(
        self,
        kind: Kind,
        moment: float,
        amid: str,
        struck: str,
        result: dict[str, Any] | None,
        before: dict[str, str],
    ) -> None:
        """See what is left, and that the next run would go on with it.

        :raises Failed: it would not
        """
        self.source.check_untouched()
        now = self.source.arrived()
        wanted = self.source.snapshots()
        lost = [f"{kind.name}: {name} had arrived, and is gone" for name in before if now.get(name) != before[name]]
        lost += [f"{kind.name}: {name} arrived as another one" for name in now if wanted.get(name) != now[name]]
        plan = self.machine.module("geli_migrate", **{**self.options, "state": "planned"})
        if "reached" not in plan:
            raise Failed(f"{kind.name}: the next run does not go on: {_said(plan)}")
        broken = self._half_received()
        streams = [str(one) for one in plan["streams"]]
        going_on = [one for one in broken if any(f"Go on with the stream of '{one}'" in text for text in streams)]
        lost += [
            f"{kind.name}: the stream of {one} broke off, and is not gone on with"
            for one in broken
            if one not in going_on
        ]
        there = {name.partition("@")[0] for name in now}
        lost += [f"{kind.name}: {one} is sent anew" for one in there if f"Send '{one}' up to" in "\n".join(streams)]
        false_claims = self._claims(kind, plan)
        one = Interruption(
            kind.name, moment, amid, struck, _said(result), len(going_on), tuple(lost), tuple(false_claims)
        )
        self.tally.interruptions.append(one)
        self.say(
            f"migrations: {len(self.tally.interruptions)}: {kind.name} after {moment:.1f} s, amid: {amid}; struck: "
            f"{struck}; it said: {one.said}; {len(now)} of {len(wanted)} snapshots are there, "
            f"{len(broken)} streams half"
        )
        for fault in (*lost, *false_claims):
            self.say(f"migrations: FAULT: {fault}")

    def _half_received(self) -> list[str]:
        """The datasets of the source of which ZFS keeps a part of a stream, by its own words."""
        get = f"zfs get -H -r -t filesystem,volume -o name,value receive_resume_token {NEW}"
        script = f"! zfs list {NEW} >/dev/null 2>&1 || {get}"
        rows = (line.split("\t") for line in self.machine.shell(script).splitlines())
        return [name[len("new/") :] for name, value in rows if value != "-"]

    def _claims(self, kind: Kind, plan: dict[str, Any]) -> list[str]:
        """What is not there although it is told, or recorded, that all is verified."""
        if plan["reached"] != "verified" and self._recorded() == "-":
            return []
        self.tally.claims += 1
        return [f"{kind.name}: verified is told, and {fault}" for fault in self.source.differences()]

    def _recorded(self) -> str:
        return self.machine.shell(f"zfs get -H -o value {VERIFIED} {NEW} 2>/dev/null || echo -")

    # --- the end -----------------------------------------------------------------------------------------------

    def all_is_there(self) -> None:
        """:raises Failed: it is told that all was verified, and something is not there, or another one"""
        self.tally.claims += 1
        faults = self.source.differences()
        if faults:
            raise Failed(f"verified was told, and not all is there: {'; '.join(faults)}")

    def finalize(self) -> None:
        """Let the target take the place of the source; that is done once.

        :raises Failed: it is not so
        """
        reached(self.run(state="finalized", verify="full"), "finalized")
        again = self.run(state="finalized", verify="full")
        if again.get("changed") is not False:
            raise Failed(f"a second run found something to do after the target was finalized: {_said(again)}")
        self.all_is_there()
        self.say("migrations: finalized, and all is there")

    def close(self) -> None:
        """See that the source is what it was.

        :raises Failed: it is not
        """
        self.source.close()
        self.source.check_digest()
        self.tally.facts.append(("states told as verified, each compared file by file", str(self.tally.claims)))
        self.tally.facts.append(("source disks, every byte, before and after", "the same"))

    def complete(self, result: dict[str, Any]) -> None:
        """Everything is there, and a further run finds nothing to do.

        :raises Failed: it is not so
        """
        if result["reached"] != "verified":
            raise Failed(f"a run that was asked to verify ended, and {result['reached']} was reached")
        self.all_is_there()
        self.source.check_untouched()
        again = self._run()
        if again["changed"]:
            raise Failed(f"a second run found something to do: {again['actions']}")


def _said(result: dict[str, Any] | None) -> str:
    if result is None:
        return "nothing"
    if "reached" in result:
        return f"{result['reached']} is reached"
    return " ".join(str(result.get("msg", result)).split())[:200]


def refused(result: dict[str, Any], *words: str) -> None:
    """:raises Failed: a run did not fail, or not for one of these reasons"""
    if not result.get("failed") or not any(one in str(result.get("msg")) for one in words):
        raise Failed(f"wanted was a failure with one of {words!r}: {_said(result)}")


def reached(result: dict[str, Any], stage: str) -> None:
    """:raises Failed: a run did not come to this stage"""
    if result.get("reached") != stage:
        raise Failed(f"wanted was that {stage} is reached: {_said(result)}")
