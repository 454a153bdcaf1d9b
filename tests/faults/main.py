# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the fault tests: some NAS side by side, a line for each operation and cut, and a table."""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vm.connection import bundle
from vm.nas import Nas, NasError, prepare

FOLDER = "/opt/faults"
# Seconds from the beginning of a rotation within which the power is cut; a rotation of 20 keys takes a little less.
SPAN = 8.0
# So many cuts hit a rotation at least once; if none did, they were not aimed well, and prove nothing.
MANY = 20
# Seconds. Booting and recovering takes a minute or two without KVM.
PATIENCE = 900


@dataclass
class Report:
    """What was seen, line by line."""

    kills: list[dict[str, Any]] = field(default_factory=list)
    cuts: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        with self._lock:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def table(self) -> None:
        """Operations and cuts, with what was lost."""
        self.say(f"\n{'operation':<30} {'kill points':>11} {'losses':>7}")
        for row in self.kills:
            self.say(f"{row['operation']:<30} {row['points']:>11} {len(row['losses']):>7}")
        lost = [row["loss"] for row in self.cuts if row["loss"]]
        half = sum(1 for row in self.cuts if row["half_done"])
        self.say(f"{'power cut':<30} {len(self.cuts):>11} {len(lost):>7}   ({half} of them found keys half rotated)")
        for row in self.kills:
            if not row["points"]:
                self.say(f"NEVER KILLED: {row['operation']}")
        if self.missed:
            self.say(f"MISSED: none of {len(self.cuts)} cuts found a key half rotated")
        for loss in [loss for row in self.kills for loss in row["losses"]] + lost + self.errors:
            self.say(f"LOSS: {loss}")

    @property
    def missed(self) -> bool:
        return len(self.cuts) >= MANY and not any(row["half_done"] for row in self.cuts)

    @property
    def failed(self) -> bool:
        lost = any(row["losses"] for row in self.kills) or any(row["loss"] for row in self.cuts)
        idle = not all(row["points"] for row in self.kills) or not (self.kills or self.cuts)
        return lost or idle or self.missed or bool(self.errors)


class Victim:
    """A NAS that things are done to."""

    def __init__(self, name: str, cpus: int) -> None:
        self.nas = Nas(name, cpus)

    def start(self) -> None:
        """Boot it, again if it was cut off."""
        self.nas.start()

    def send(self) -> None:
        """Put there what is needed."""
        unpack = f"rm -rf {FOLDER} && mkdir -p {FOLDER} && tar -C {FOLDER} -xzf -"
        subprocess.run([*self.nas.ssh, unpack], input=bundle(), check=True, timeout=PATIENCE)
        program = Path(__file__).with_name("on_nas.py").read_bytes()
        subprocess.run([*self.nas.ssh, f"cat >{FOLDER}/on_nas.py && sync"], input=program, check=True, timeout=PATIENCE)

    def command(self, *words: str) -> list[str]:
        return [*self.nas.ssh, f"python3 -u {FOLDER}/on_nas.py {FOLDER}/lib {' '.join(words)}"]

    def lines(self, *words: str) -> Iterator[dict[str, Any]]:
        """Run a part of the program there; its answers, one by one."""
        with subprocess.Popen(self.command(*words), stdout=subprocess.PIPE, text=True) as process:
            if process.stdout is None:
                raise ValueError("started without a pipe")
            for line in process.stdout:
                yield json.loads(line)
        if process.returncode:
            raise NasError(f"'{' '.join(words)}' ended with {process.returncode} on {self.nas.name}")

    def cut_during_rotation(self, datasets: int, moment: float) -> None:
        """Let a rotation begin, and cut the power so many seconds later."""
        words = self.command("rotate", str(datasets))
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            if process.stdout is None or not process.stdout.readline():
                raise NasError(f"no rotation began on {self.nas.name}")
            time.sleep(moment)
            self.nas.cut()
        finally:
            process.kill()
            process.wait()

    def disk(self) -> str:
        """A data disk to put the pool on."""
        return f"/dev/disk/by-id/*{self.nas.serials[0]}"

    def destroy(self) -> None:
        """Take it away, if it is there."""
        with contextlib.suppress(NasError):
            self.nas.destroy()


def main() -> int:
    """Run what was asked for; the exit status tells whether nothing was lost."""
    options = _options()
    report = Report()
    log = Path(".build") / "faults.txt"
    log.parent.mkdir(exist_ok=True)
    try:
        prepare(log, report.say)
    except NasError as error:
        report.say(str(error))
        return 1
    report.say(f"faults: {options.cuts} power cuts at moments drawn with the seed {options.seed}")
    source = random.Random(options.seed)
    jobs: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    if not options.no_kills:
        jobs.put(None)
    for _number in range(options.cuts):
        jobs.put(source.uniform(0.0, SPAN))
    workers = [
        threading.Thread(target=_work, args=(f"faults-{options.seed}-{number}", jobs, options, report))
        for number in range(options.jobs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    report.table()
    return int(report.failed)


def _work(name: str, jobs: queue.SimpleQueue[float | None], options: argparse.Namespace, report: Report) -> None:
    victim = Victim(name, options.cpus)
    prepared = False
    try:
        victim.start()
        victim.send()
        while True:
            moment = jobs.get_nowait()
            if moment is None:
                _kills(victim, options, report)
                prepared = False
                continue
            if not prepared:
                list(victim.lines("prepare", str(options.datasets), victim.disk()))
                prepared = True
            _cut(victim, moment, options.datasets, report)
    except queue.Empty:
        pass
    except Exception:  # noqa: BLE001  (a thread has nobody else to tell)
        report.errors.append(traceback.format_exc())
    finally:
        victim.destroy()


def _kills(victim: Victim, options: argparse.Namespace, report: Report) -> None:
    for engine, also in (("kills", ""), ("programs", " (programs)")):
        if options.engine not in ("both", engine):
            continue
        for row in victim.lines(engine, *options.operations):
            row["operation"] += also
            report.kills.append(row)
            report.say(f"{row['operation']}: killed after each of {row['points']} effects, {len(row['losses'])} losses")


def _cut(victim: Victim, moment: float, datasets: int, report: Report) -> None:
    victim.cut_during_rotation(datasets, moment)
    victim.start()
    # By the moment, so that the same seed does the same: every other time the rotation itself finds all locked.
    first = ["unlock"] if int(moment * 1000) % 2 else []
    for row in victim.lines("recover", str(datasets), *first):
        report.cuts.append(row)
        told = row["loss"] or "nothing lost"
        report.say(f"cut {len(report.cuts)}: power cut after {moment:.2f} s, {row['half_done']} keys half done: {told}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kills tasks and cuts the power, and looks at what is left.")
    parser.add_argument("operations", nargs="*", help="operations to kill; all if none is named")
    parser.add_argument("--cuts", type=int, default=50, help="how often to cut the power (%(default)s)")
    parser.add_argument("--datasets", type=int, default=20, help="how many keys are rotated (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="how many NAS to use side by side (%(default)s)")
    parser.add_argument("--cpus", type=int, default=2, help="processors of each of them (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what the moments are drawn with (%(default)s)")
    parser.add_argument(
        "--engine",
        choices=("both", "kills", "programs"),
        default="both",
        help="kill it with keys by libzfs_core (kills), by the programs of ZFS, or both in turn (%(default)s)",
    )
    parser.add_argument("--no-kills", action="store_true", help="only cut the power")
    return parser.parse_args()
