# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the suite: some NAS side by side, all cases, a line for each, and a summary."""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import geli_playbook, kills, kmip_pool, sed_pool, sed_role, snapshots
from . import nas as nas_module
from .case import BadCase, Case, Names, load
from .connection import ROOT, Agent, AgentLost
from .keys import KeyRing
from .leaks import Search
from .nas import WHOLE, Nas, NasError
from .over_ssh import THOROUGH, Playbooks
from .runner import CaseRunner, ResetFailed

BUILD = ROOT / ".build" / "vm"
CASES = Path(__file__).with_name("cases")
PLAYBOOKS = "playbooks"
KILLS = "kills"
KMIP = "kmip"
GELI = "geli_playbook"
SED_ROLE = "sed_role"
SNAPSHOTS = "snapshots"
# Each makes a NAS of its own, and so runs when the others are gone.
_ALONE = {SED_ROLE: sed_role.checks, SNAPSHOTS: snapshots.checks}
# Each leaves the NAS as it has found it.
_WITH_PLAYBOOKS = {KMIP: kmip_pool.checks, GELI: geli_playbook.checks}
# What need not run each time.
_LONG = (*_WITH_PLAYBOOKS, *sed_pool.PARTS, *_ALONE)
# How often a worker replaces a NAS that a case has broken.
_REPLACEMENTS = 3

Outcome = tuple[str, float, Sequence[str]]
"""Name of a case, seconds, complaints."""


@dataclass
class Tally:
    """Counts, and prints a line for each case."""

    passed: int = 0
    failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        with self._lock:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def add(self, outcome: Outcome) -> None:
        """One case that has ended."""
        name, seconds, complaints = outcome
        lines = [f"{'FAILED' if complaints else 'ok    '} {name} ({seconds:.1f} s)"]
        with self._lock:
            self.passed += not complaints
            self.failed += bool(complaints)
        self.say("\n         ".join([*lines, *complaints]))


@dataclass
class Session:
    """A NAS with an agent on it; both are replaced when a case leaves them unusable."""

    number: int
    options: argparse.Namespace
    log: Path
    tally: Tally
    keys: KeyRing = field(default_factory=KeyRing)
    made: list[Nas] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    """What was executed on purpose on this NAS, to be found in the record."""
    nas: Nas = field(init=False)
    agent: Agent = field(init=False)
    names: Names = field(init=False)

    def open(self) -> None:
        """Boot the NAS and start the agent."""
        start = time.monotonic()
        self.marks.clear()
        if self.options.vm:
            self.nas = Nas(self.options.vm)
            self.nas.find()
        else:
            self.nas = Nas(f"suite-{os.getpid()}-{self.number}{len(self.made)}")
            self.made.append(self.nas)
            self.nas.start()
        booted = time.monotonic()
        self._begin()
        self.tally.say(
            f"       {self.nas.name} ({self.nas.status.get('accel')}) answers after {booted - start:.0f} s, "
            f"the agent after {time.monotonic() - booted:.0f} s more"
        )

    def _begin(self) -> None:
        """Start the agent, and let it find the disks."""
        self.agent = Agent(self.nas.ssh, self.log)
        found = self.agent.start(self.nas.serials[:WHOLE], self.nas.serials[WHOLE:])
        self.names = Names(found["disks"], found["partitions"], self.keys)

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
            self.tally.say(f"       kept: {self.made[-1].name}")
        self.made.clear()

    def work(self, jobs: queue.SimpleQueue[Case | str], stop: threading.Event) -> Iterator[Outcome]:
        """Cases from the queue until it is empty; at the end the search for keys on this NAS."""
        replacements = 0
        while not stop.is_set():
            try:
                job = jobs.get_nowait()
            except queue.Empty:
                break
            start = time.monotonic()
            try:
                yield from self._job(job)
                continue
            except (AgentLost, ResetFailed) as error:
                yield job if isinstance(job, str) else job.name, time.monotonic() - start, [str(error)]
            replacements += 1
            if replacements > _REPLACEMENTS or self.options.vm:
                raise NasError("too many cases left the NAS unusable")
            self.tally.say(f"       {self.nas.name} is of no use any more, another one is started")
            self.agent.close()
            self.open()
        if stop.is_set():
            return
        CaseRunner(self.agent, self.names).reset()
        start = time.monotonic()
        for name, complaints in Search(self.agent, self.keys, self.log, self.nas.console, self.marks).checks():
            yield f"leaks: {name}, NAS {self.number}", time.monotonic() - start, complaints
            start = time.monotonic()

    def _job(self, job: Case | str) -> Iterator[Outcome]:
        runner = CaseRunner(self.agent, self.names)
        if isinstance(job, Case):
            start = time.monotonic()
            complaints = runner.run(job)
            yield job.name, time.monotonic() - start, complaints
        elif job == KILLS:
            runner.reset()
            yield from kills.checks(self.nas, self.keys)
        elif job in _WITH_PLAYBOOKS:
            runner.reset()
            yield from _WITH_PLAYBOOKS[job](Playbooks(self.nas, self.names, self.log, self.marks))
        else:
            runner.reset()
            playbooks = Playbooks(self.nas, self.names, self.log, self.marks, wanted(self.options))
            yield from sed_pool.checks(playbooks, job) if job in sed_pool.PARTS else playbooks.checks()
            # they have cut its power
            self.agent.close()
            self._begin()


def main() -> int:
    """Run the suite; the exit status tells whether all of it passed."""
    signal.signal(signal.SIGTERM, _terminate)
    options = _options()
    tally = Tally()
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        if not options.vm and not options.list:
            nas_module.prepare(BUILD / "image.txt", tally.say)
        if options.prepare:
            return 0
        known = load(CASES)
        cases = [case for case in known if chosen(options, case.name, case.long)]
    except (NasError, BadCase) as error:
        tally.say(f"{error}\nvm: 0 passed, 1 failed")
        return 1
    if options.list:
        tally.say("\n".join(case.name for case in cases))
        return 0
    log = BUILD / (options.vm or "log")
    shutil.rmtree(log, ignore_errors=True)
    start = time.monotonic()
    jobs: queue.SimpleQueue[Case | str] = queue.SimpleQueue()
    # the longest job first
    names = [
        name for name in (PLAYBOOKS, *sed_pool.PARTS, KILLS, *_WITH_PLAYBOOKS) if chosen(options, name, name in _LONG)
    ]
    ordered: list[Case | str] = [*names, *cases]
    for job in ordered:
        jobs.put(job)
    stop = threading.Event()
    numbers = range(1, options.jobs + 1) if ordered else ()
    sessions = [Session(number, options, log / str(number), tally) for number in numbers]
    workers = [threading.Thread(target=_run, args=(session, jobs, stop)) for session in sessions]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        # whatever ends this program, its workers end their case and take their NAS away
        stop.set()
        for worker in workers:
            worker.join()
    if not jobs.empty():
        tally.add(("all cases were run", 0.0, ["some were not, since no NAS was left"]))
    for name in _ALONE:
        if chosen(options, name, True):
            _run_alone(name, log / name, tally)
    tally.say(f"       {time.monotonic() - start:.0f} s in all; logs are in {log.relative_to(ROOT)}")
    if not options.long and not wanted(options):
        tally.say(f"vm: not run: {left_out(known)}")
    tally.say(f"vm: {tally.passed} passed, {tally.failed} failed")
    return int(bool(tally.failed) or not tally.passed)


def chosen(options: argparse.Namespace, name: str, long: bool) -> bool:
    """Whether something of this name is asked for; what is long need not run every time."""
    if not re.search(options.only, name):
        return False
    return long if options.long else wanted(options) or not long


def left_out(cases: Sequence[Case]) -> str:
    """What does not run every time, in words."""
    jobs = ", ".join(_LONG)
    return f"{sum(case.long for case in cases)} cases, the jobs {jobs}, and {THOROUGH}: all marked long (make vm-all)"


def wanted(options: argparse.Namespace) -> bool:
    """Whether more is wanted than what runs every time."""
    return bool(options.all or options.only)


def _run(session: Session, jobs: queue.SimpleQueue[Case | str], stop: threading.Event) -> None:
    """One worker: its NAS, and its share of the cases."""
    start = time.monotonic()
    try:
        session.log.mkdir(parents=True)
        session.open()
        for outcome in session.work(jobs, stop):
            session.tally.add(outcome)
    except (AgentLost, NasError, ResetFailed) as error:
        session.tally.add((f"NAS {session.number}", time.monotonic() - start, [str(error)]))
    except Exception:  # noqa: BLE001  (a thread has nobody else to tell)
        session.tally.add((f"NAS {session.number}", time.monotonic() - start, [traceback.format_exc()]))
    finally:
        session.close()


def _run_alone(name: str, log: Path, tally: Tally) -> None:
    """What makes its own NAS."""
    start = time.monotonic()
    try:
        for outcome in _ALONE[name](log):
            tally.add(outcome)
    except (NasError, OSError, subprocess.SubprocessError) as error:
        tally.add((name, time.monotonic() - start, [str(error)]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Proves the collection on a NAS with real ZFS.")
    parser.add_argument("--prepare", action="store_true", help="only build the image, or find it in the cache")
    parser.add_argument("--only", default="", metavar="PATTERN", help="run the cases whose names match")
    parser.add_argument("--all", action="store_true", help="also the cases marked as long")
    parser.add_argument("--long", action="store_true", help="only the cases marked as long")
    parser.add_argument("--list", action="store_true", help="only print the names of the cases")
    parser.add_argument("--jobs", type=int, default=2, help="how many NAS to run side by side (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="do not destroy the NAS")
    parser.add_argument("--vm", metavar="NAME", help="use a NAS that runs, and keep it")
    options = parser.parse_args()
    if options.vm:
        options.jobs = 1
    return options


def _terminate(_signal: int, _frame: object) -> None:
    sys.exit(143)
