# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the NAS: makes a pool with many encryption roots, and measures.

on_nas.py LIBRARY DATASETS PASSPHRASES
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import secrets as random_source
import shutil
import subprocess
import sys
import time
import typing as t

POOL = "benchmark"
IMAGE = "/var/tmp/benchmark.img"
MOUNTPOINT = "/var/tmp/benchmark"
KEYS = "/etc/zfs/keys"
# Where the shell loop finds the keys that it changes to.
PREPARED = "/root/benchmark-keys"
COUNTING = "/var/tmp/benchmark-counting"
PLUGINS = "ansible_collections.nasops.encryption.plugins"
# More than the default of OpenZFS, so that deriving is what takes the time.
ITERATIONS = 1_000_000
# How often what takes minutes is measured; the shortest time counts.
SAMPLES = 2
# What is run in place of a program of ZFS to count its processes.
COUNTER = """#!/bin/sh
echo "$(basename "$0") $1" >>{log}
exec {program} "$@"
"""

Result = dict[str, t.Any]


class Limit(t.NamedTuple):
    """A ratio, or a number, that has to stay at or below (or above) a bound."""

    what: str
    ratio: float
    bound: float
    at_least: bool

    @property
    def held(self) -> bool:
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound


class Bench:
    """The pool, the modules, and the clock."""

    def __init__(self, library: str, count: int) -> None:
        sys.path.insert(0, library)
        self.count = count
        self.names = [f"{POOL}/d{number}" for number in range(count)]
        self.state = importlib.import_module(f"{PLUGINS}.module_utils.zfs.state")
        self.keys = importlib.import_module(f"{PLUGINS}.module_utils.zfs.keys")
        self.secrets = importlib.import_module(f"{PLUGINS}.module_utils.secrets")
        self.module = importlib.import_module(f"{PLUGINS}.modules.zfs_dataset_key")
        self.testing = importlib.import_module("ansible.module_utils.testing")
        self.runner = self.keys.ZfsRunner(self.secrets.Mask())
        self.limits: list[Limit] = []

    def clock(self, title: str, work: t.Callable[[], t.Any]) -> float:
        """Seconds that something takes."""
        begun = time.monotonic()
        work()
        seconds = time.monotonic() - begun
        print(f"  {title:<64} {seconds:9.2f} s", flush=True)
        return seconds

    def best(
        self, title: str, prepare: t.Callable[[], t.Any], work: t.Callable[[], t.Any], samples: int = SAMPLES
    ) -> float:
        """The shortest of several times; what prepares each is not counted."""
        found = []
        for _sample in range(samples):
            prepare()
            found.append(self.clock(title, work))
        return min(found)

    def count_programs(self, work: t.Callable[[], t.Any]) -> int:
        """How many processes of zfs and zpool something starts, whoever starts them: something stands before both."""
        log, path = f"{COUNTING}/log", os.environ["PATH"]
        os.makedirs(COUNTING)
        for name in ("zfs", "zpool"):
            with open(f"{COUNTING}/{name}", "w", encoding="ascii") as file:
                file.write(COUNTER.format(log=log, program=shutil.which(name)))
            os.chmod(f"{COUNTING}/{name}", 0o755)
        os.environ["PATH"] = f"{COUNTING}:{path}"
        try:
            work()
        finally:
            os.environ["PATH"] = path
        with open(log, encoding="ascii") as file:
            started = file.read().splitlines()
        shutil.rmtree(COUNTING)
        print(f"  {'processes of zfs and zpool: ' + ', '.join(started):<64} {len(started):9}", flush=True)
        return len(started)

    def limit(self, what: str, ratio: float, bound: float, at_least: bool = False) -> None:
        self.limits.append(Limit(what, ratio, bound, at_least))

    def task(self, **options: t.Any) -> Result:
        """One task, from its options to its result, in this process."""
        printed = io.StringIO()
        words = {**options, "_ansible_check_mode": False, "_ansible_diff": True}
        with (
            contextlib.suppress(SystemExit),
            contextlib.redirect_stdout(printed),
            self.testing.patch_module_args(words),
        ):
            self.module.main()
        result: Result = json.loads(printed.getvalue())
        if result.get("failed"):
            raise RuntimeError(result["msg"])
        return result

    def read(self) -> t.Any:
        return self.state.read_datasets(self.runner, (POOL,), self.state.ENCRYPTION_PROPERTIES, recursive=True)

    def candidates(self) -> list[t.Any]:
        found = []
        for name in self.names:
            with open(key_file(name), "rb") as file:
                found.append(self.keys.RootKey(name, self.secrets.Key("hex", file.read().strip())))
        return found

    def lock(self, names: t.Sequence[str] = ()) -> None:
        for name in names or self.names:
            self.runner.keys.unload(name)

    def unlock(self, count: int, **options: t.Any) -> None:
        """A task that unlocks so many."""
        result = self.task(state="unlocked", **options)
        if len(result["unlocked"]) != count:
            raise RuntimeError(f"{len(result['unlocked'])} were unlocked")


def key_file(name: str) -> str:
    return f"{KEYS}/{name.replace('/', '%2F')}.key"


def shell(script: str, names: t.Sequence[str]) -> None:
    """A shell loop over the datasets, which it reads from its standard input."""
    done = subprocess.run(
        ["sh", "-eu", "-c", script], input="\n".join(names) + "\n", text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


def mount(names: t.Sequence[str]) -> None:
    words = ["xargs", "-n", "1", "-P", str(os.cpu_count()), "zfs", "mount"]
    subprocess.run(words, input="\n".join(names), text=True, check=True)


def make_pool() -> None:
    subprocess.run(["zpool", "destroy", POOL], capture_output=True, check=False)
    shutil.rmtree(KEYS, ignore_errors=True)
    with open(IMAGE, "wb") as image:
        image.truncate(4 << 30)
    options = ["-O", f"mountpoint={MOUNTPOINT}", "-O", "canmount=off"]
    subprocess.run(["zpool", "create", *options, POOL, IMAGE], check=True)


def prepare(bench: Bench) -> list[Result]:
    """Create the datasets; none is mounted, so that keys are what is measured."""
    wanted = [
        {"name": name, "key": {"file": "auto", "generate": True}, "properties": {"canmount": "noauto"}}
        for name in bench.names
    ]
    bench.clock(
        f"create {bench.count} datasets, each with a random key, in one task", lambda: bench.task(datasets=wanted)
    )
    return wanted


def measure_unlock(bench: Bench) -> None:
    print("\nUnlock", flush=True)
    candidates = bench.candidates()
    loop = bench.best(
        "shell loop of zfs load-key",
        bench.lock,
        lambda: shell("while read -r name; do zfs load-key $name </dev/null; done", bench.names),
    )
    bare = bench.best(
        "bare lzc_load_key calls", bench.lock, lambda: [bench.runner.keys.load(one) for one in candidates]
    )
    state = bench.best("one read of the state", lambda: None, bench.read)
    ours = bench.best("one task", bench.lock, lambda: bench.unlock(bench.count, name=POOL, recursive=True))
    bench.limit("unlock: shell loop / one task", loop / ours, 6.0, at_least=True)
    bench.limit("unlock: one task / (bare calls + one read)", ours / (bare + state), 1.5)


def measure_no_op(bench: Bench, wanted: list[Result]) -> None:
    print("\nNothing to do", flush=True)
    words = ["zfs", "get", "-Hp", "-t", "filesystem,volume", "-o", "name,property,source,value", "-r"]
    words += [",".join(bench.state.ENCRYPTION_PROPERTIES), POOL]
    tasks: dict[str, t.Callable[[], None]] = {
        "recursive": lambda: silent(bench.task(name=POOL, state="unlocked", recursive=True)),
        f"{bench.count} entries": lambda: silent(bench.task(datasets=wanted)),
    }
    candidates = bench.candidates()
    times: dict[str, list[float]] = {"bare": [], "tries": [], **{shape: [] for shape in tasks}}
    # in turn, so that all see the same moods of the machine
    for _sample in range(3):
        bare = bench.clock("one recursive zfs get", lambda: subprocess.run(words, stdout=subprocess.PIPE, check=True))
        times["bare"].append(bare)
        tries = bench.clock(
            "bare dry runs of lzc_load_key", lambda: [bench.runner.keys.try_all([c]) for c in candidates]
        )
        times["tries"].append(tries)
        for shape, task in tasks.items():
            times[shape].append(bench.clock(f"one task, {shape}", task))
    read, tried = min(times["bare"]), min(times["tries"])
    recursive, entries = tasks
    bench.limit(f"nothing to do, {recursive}: one task / one recursive zfs get", min(times[recursive]) / read, 1.3)
    # Each key is described, and ZFS is asked whether it is the present one.
    what = f"nothing to do, {entries}: one task / (one recursive zfs get + bare dry runs)"
    bench.limit(what, min(times[entries]) / (read + tried), 1.3)
    for shape, task in tasks.items():
        started = bench.count_programs(task)
        bench.limit(f"nothing to do, {shape}: processes of zfs and zpool", started, 3)


def silent(result: Result) -> None:
    if result["changed"]:
        raise RuntimeError(f"it changed something: {result['actions'][:3]}")


def measure_rotation(bench: Bench, wanted: list[Result]) -> None:
    """One sample of each: it takes minutes. The task first, as it leaves the keys where they are expected.

    The filesystems are mounted, as those of a NAS in use are.
    """
    print("\nRotation", flush=True)
    bench.clock("mount them", lambda: mount(bench.names))
    rotated = [{**one, "rotate": "always"} for one in wanted]
    ours = bench.clock("one task", lambda: bench.task(datasets=rotated))
    wrong = [answer for answer in bench.runner.keys.try_all(bench.candidates()) if answer is not True]
    if wrong:
        raise RuntimeError(f"{len(wrong)} keys do not open their datasets")
    shutil.rmtree(PREPARED, ignore_errors=True)
    os.mkdir(PREPARED, 0o700)
    for name in bench.names:
        with open(f"{PREPARED}/{name.rsplit('/', 1)[1]}", "w", encoding="ascii") as file:
            file.write(random_source.token_hex(32) + "\n")
    script = f"while read -r name; do zfs change-key -o keylocation=file://{PREPARED}/${{name##*/}} $name; done"
    loop = bench.clock("shell loop of zfs change-key, keys prepared", lambda: shell(script, bench.names))
    bench.limit("rotation: shell loop / one task", loop / ours, 2.0, at_least=True)


def measure_passphrases(bench: Bench, count: int) -> None:
    """A task that may use one processor, and the same with all of them."""
    print(f"\n{count} passphrases of {ITERATIONS} iterations", flush=True)
    key = {"format": "passphrase", "value": random_source.token_hex(16)}
    names = [f"{POOL}/p{number}" for number in range(count)]
    entries = [{"name": name, "key": {**key, "iterations": ITERATIONS}} for name in names]
    bench.task(datasets=[{**entry, "properties": {"canmount": "noauto"}} for entry in entries])
    unlock = [{"name": name, "key": key} for name in names]
    processors = os.sched_getaffinity(0)
    times = []
    for usable in ({min(processors)}, processors):
        bench.lock(names)
        os.sched_setaffinity(0, usable)
        title = f"one task that unlocks them, on {len(usable)} of {len(processors)} processors"
        times.append(bench.clock(title, lambda: bench.unlock(count, datasets=unlock)))
    what = f"passphrases: one task on 1 processor / on {len(processors)}"
    bench.limit(what, times[0] / times[1], 0.7 * len(processors), at_least=True)


def main() -> int:
    bench = Bench(sys.argv[1], int(sys.argv[2]))
    with open("/sys/module/zfs/version", encoding="ascii") as file:
        version = file.read().strip()
    setting = f"N = {bench.count} datasets, {os.cpu_count()} processors, OpenZFS {version}, {bench.runner.keys.name}"
    print(setting, flush=True)
    make_pool()
    wanted = prepare(bench)
    measure_unlock(bench)
    measure_no_op(bench, wanted)
    measure_rotation(bench, wanted)
    measure_passphrases(bench, int(sys.argv[3]))
    subprocess.run(["zpool", "destroy", POOL], check=True)
    os.unlink(IMAGE)
    shutil.rmtree(PREPARED)
    print(f"\n{setting}\n\n| what | measured | limit | |\n| --- | --- | --- | --- |")
    for limit in bench.limits:
        bound = f"at {'least' if limit.at_least else 'most'} {limit.bound:g}"
        print(f"| {limit.what} | {limit.ratio:.2f} | {bound} | {'held' if limit.held else 'MISSED'} |")
    return int(not all(limit.held for limit in bench.limits))


if __name__ == "__main__":
    sys.exit(main())
