# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the suite: one NAS, all cases, a line for each, and a summary."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import nas as nas_module
from .case import BadCase, Case, Names, load
from .connection import ROOT, Agent, AgentLost
from .keys import KeyRing
from .leaks import Search
from .nas import WHOLE, Nas, NasError
from .over_ssh import Playbooks
from .runner import CaseRunner, ResetFailed

BUILD = ROOT / ".build" / "vm"
CASES = Path(__file__).with_name("cases")
# How often a NAS that a case has broken is replaced by a new one.
_REPLACEMENTS = 3


def say(text: str) -> None:
    """A line for the person who watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Tally:
    """Counts, and prints a line for each case."""

    passed: int = 0
    failed: int = 0

    def add(self, name: str, seconds: float, complaints: Sequence[str]) -> None:
        """One case that has ended."""
        self.passed += not complaints
        self.failed += bool(complaints)
        say(f"{'FAILED' if complaints else 'ok    '} {name} ({seconds:.1f} s)")
        for complaint in complaints:
            say(f"         {complaint}")


@dataclass
class Session:
    """A NAS with an agent on it; both are replaced when a case leaves them unusable."""

    options: argparse.Namespace
    keys: KeyRing
    log: Path
    nas: Nas = field(init=False)
    agent: Agent = field(init=False)
    names: Names = field(init=False)
    made: list[Nas] = field(default_factory=list)

    def open(self) -> None:
        """Boot the NAS and start the agent."""
        self.nas = Nas(self.options.vm or f"suite-{os.getpid()}-{len(self.made)}")
        start = time.monotonic()
        if self.options.vm:
            self.nas.find()
        else:
            self.made.append(self.nas)
            self.nas.start()
            say(f"       the NAS answers after {time.monotonic() - start:.0f} s ({self.nas.status.get('accel')})")
        start = time.monotonic()
        self.agent = Agent(self.nas.ssh, self.log)
        found = self.agent.start(self.nas.serials[:WHOLE], self.nas.serials[WHOLE:])
        self.names = Names(found["disks"], found["partitions"], self.keys)
        say(f"       the agent answers after {time.monotonic() - start:.0f} s")

    def close(self) -> None:
        """End the agent, keep what the kernel printed, and destroy what was made."""
        if hasattr(self, "agent"):
            self.agent.close()
        for nas in self.made:
            with contextlib.suppress(OSError, KeyError):
                shutil.copy(nas.console, self.log / f"console-{nas.name}.txt")
            if not self.options.keep:
                nas.destroy()
        if self.made and self.options.keep:
            say(f"       kept: {self.made[-1].name}")
        self.made.clear()


def main() -> int:
    """Run the suite; the exit status tells whether all of it passed."""
    signal.signal(signal.SIGTERM, _terminate)
    options = _options()
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        nas_module.prepare(BUILD / "image.txt")
        if options.prepare:
            return 0
        cases = [case for case in load(CASES) if re.search(options.only, case.name)]
    except (NasError, BadCase) as error:
        say(str(error))
        say("vm: 0 passed, 1 failed")
        return 1
    if options.list:
        say("\n".join(case.name for case in cases))
        return 0
    log = BUILD / (options.vm or "log")
    shutil.rmtree(log, ignore_errors=True)
    log.mkdir(parents=True)
    tally = Tally()
    start = time.monotonic()
    session = Session(options, KeyRing(), log)
    try:
        session.open()
        for name, seconds, complaints in _everything(session, cases):
            tally.add(name, seconds, complaints)
    except (AgentLost, NasError, ResetFailed) as error:
        tally.add("the NAS", time.monotonic() - start, [str(error)])
    finally:
        session.close()
    say(f"       {time.monotonic() - start:.0f} s in all; logs are in {log.relative_to(ROOT)}")
    say(f"vm: {tally.passed} passed, {tally.failed} failed")
    return int(bool(tally.failed) or not tally.passed)


def _everything(session: Session, cases: Sequence[Case]) -> Iterator[tuple[str, float, Sequence[str]]]:
    yield from _cases(session, cases)
    runner = CaseRunner(session.agent, session.names)
    runner.reset()
    if re.search(session.options.only, "playbooks"):
        for name, seconds, complaints in Playbooks(session.nas, session.names, session.log).checks():
            yield f"playbooks: {name}", seconds, complaints
        runner.reset()
    start = time.monotonic()
    for name, complaints in Search(session.agent, session.keys, session.log).checks():
        yield f"leaks: {name}", time.monotonic() - start, complaints
        start = time.monotonic()


def _cases(session: Session, cases: Sequence[Case]) -> Iterator[tuple[str, float, Sequence[str]]]:
    """All cases; a NAS that does not come back from one is replaced."""
    replacements = 0
    for case in cases:
        start = time.monotonic()
        try:
            complaints = CaseRunner(session.agent, session.names).run(case)
            yield case.name, time.monotonic() - start, complaints
            continue
        except (AgentLost, ResetFailed) as error:
            yield case.name, time.monotonic() - start, [str(error)]
        replacements += 1
        if replacements > _REPLACEMENTS or session.options.vm:
            raise NasError("too many cases left the NAS unusable")
        say("       this NAS is of no use any more, another one is started")
        session.agent.close()
        session.open()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Proves the collection on a NAS with real ZFS.")
    parser.add_argument("--prepare", action="store_true", help="only build the image, or find it in the cache")
    parser.add_argument("--only", default="", metavar="PATTERN", help="run the cases whose names match")
    parser.add_argument("--list", action="store_true", help="only print the names of the cases")
    parser.add_argument("--keep", action="store_true", help="do not destroy the NAS")
    parser.add_argument("--vm", metavar="NAME", help="use a NAS that runs, and keep it")
    return parser.parse_args()


def _terminate(_signal: int, _frame: object) -> None:
    sys.exit(143)
