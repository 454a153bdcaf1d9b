# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: one NAS, the parts of the proof in turn, and tables."""

from __future__ import annotations

import argparse
import random
import shutil
import time
import traceback

from vm.connection import ROOT, AgentLost
from vm.keys import KeyRing
from vm.leaks import Search
from vm.machine import Failed, Machine
from vm.nas import Nas, NasError, prepare

from . import damage
from .proof import Proof, Tally
from .ratios import Ratios
from .source import Source

BUILD = ROOT / ".build" / "migrations"
REPORT = BUILD.with_suffix(".txt")


def main() -> int:
    """Boot a NAS, prove, print tables."""
    options = _options()
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    REPORT.write_text("", "utf-8")
    begun = time.monotonic()
    machine = Machine(Nas(options.vm or "migrations", cpus=options.cpus), BUILD / "log")
    source, tally = Source(machine, KeyRing()), Tally()
    ratios = Ratios(source, say)
    faults: list[str] = []
    try:
        prepare(BUILD / "image.txt", say)
        say(f"migrations: booting a NAS; without KVM all of it takes half an hour; seed {options.seed}")
        machine.open()
        if not options.only_ratios:
            _prove(Proof(source, tally, options.seed, say), options)
            _search(source, tally)
        if options.ratios or options.only_ratios:
            machine.reset()
            ratios.measure()
    except (Failed, AgentLost, NasError) as error:
        faults.append(str(error))
    except Exception:  # noqa: BLE001  (what was seen until then is told all the same)
        faults.append(traceback.format_exc())
    finally:
        if hasattr(machine, "agent"):
            machine.agent.close()
        if not options.vm:
            machine.nas.destroy()
    faults += tally.faults
    faults += [f"{one.what} is {one.value:.2f}; wanted is {one.limit:.2f}" for one in ratios.missed]
    _tell(options.seed, tally, ratios, faults, time.monotonic() - begun)
    return int(bool(faults))


def _prove(proof: Proof, options: argparse.Namespace) -> None:
    begun = time.monotonic()
    proof.source.make()
    proof.source.open()
    proof.say(f"migrations: the disks are made after {time.monotonic() - begun:.0f} s")
    proof.undisturbed()
    if not options.no_damage:
        damage.check(proof)
        proof.finalize()
    proof.begin_anew()
    proof.interrupt(options.interruptions)
    proof.close()


def _search(source: Source, tally: Tally) -> None:
    """:raises Failed: a key is somewhere it must not be"""
    machine = source.machine
    search = Search(machine.agent, source.keys, machine.log, machine.nas.console)
    found = [f"{name}: {complaint}" for name, complaints in search.checks() for complaint in complaints]
    if found:
        raise Failed("\n".join(found))
    tally.facts.append(("keys in arguments, logs, journals, environments, files", "0"))


def _tell(seed: int, tally: Tally, ratios: Ratios, faults: list[str], seconds: float) -> None:
    say(f"\nseed {seed}\n")
    if tally.interruptions:
        for line in tally.table():
            say(line)
    if ratios.found:
        say("")
        for line in ratios.table():
            say(line)
    for fault in faults:
        say(f"migrations: FAILED: {fault}")
    say(f"\nmigrations: {'all of it holds' if not faults else f'{len(faults)} faults'}; {seconds:.0f} s in all")


def say(text: str) -> None:
    """A line for the person who watches, and for the report."""
    print(text, flush=True)
    with REPORT.open("a", encoding="utf-8") as report:
        report.write(f"{text}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Proves geli_migrate on a NAS with real ZFS and disks of GELI.")
    parser.add_argument("--interruptions", type=int, default=30, help="how often a run is interrupted (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16), help="of the moments")
    parser.add_argument("--no-damage", action="store_true", help="only interrupt it")
    parser.add_argument("--ratios", action="store_true", help="measure, too")
    parser.add_argument("--only-ratios", action="store_true", help="only measure")
    parser.add_argument("--cpus", type=int, default=2, help="processors of the NAS (%(default)s)")
    parser.add_argument(
        "--vm", metavar="NAME", help="use this NAS, made if need be, and keep it (its disks are erased)"
    )
    return parser.parse_args()
