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
KEYS = "/etc/zfs/keys"
PLUGINS = "ansible_collections.nasops.encryption.plugins"
# More than the default of OpenZFS, so that deriving is what takes the time.
ITERATIONS = 1_000_000

Result = dict[str, t.Any]


class Limit(t.NamedTuple):
    """A ratio that has to stay at or below (or above) a bound."""

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

    def lock(self) -> None:
        for name in self.names:
            self.runner.keys.unload(name)


def key_file(name: str) -> str:
    return f"{KEYS}/{name.replace('/', '%2F')}.key"


def shell(script: str, names: t.Sequence[str]) -> None:
    """A shell loop over the datasets, which it reads from its standard input."""
    done = subprocess.run(
        ["sh", "-eu", "-c", script], input="\n".join(names) + "\n", text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


def make_pool() -> None:
    subprocess.run(["zpool", "destroy", POOL], capture_output=True, check=False)
    shutil.rmtree(KEYS, ignore_errors=True)
    with open(IMAGE, "wb") as image:
        image.truncate(4 << 30)
    subprocess.run(["zpool", "create", "-O", "mountpoint=none", POOL, IMAGE], check=True)


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
    bench.lock()
    loop = bench.clock(
        "shell loop of zfs load-key",
        lambda: shell("while read -r name; do zfs load-key $name </dev/null; done", bench.names),
    )
    bench.lock()
    candidates = bench.candidates()
    bare = bench.clock("bare lzc_load_key calls", lambda: [bench.runner.keys.load(one) for one in candidates])
    state = bench.clock("one read of the state", bench.read)
    bench.lock()

    def task() -> None:
        result = bench.task(name=POOL, state="unlocked", recursive=True)
        if len(result["unlocked"]) != bench.count:
            raise RuntimeError(f"{len(result['unlocked'])} were unlocked")

    ours = bench.clock("one task", task)
    bench.limit("unlock: shell loop / one task", loop / ours, 6.0, at_least=True)
    bench.limit("unlock: one task / (bare calls + one read)", ours / (bare + state), 1.5)


def measure_no_op(bench: Bench) -> None:
    print("\nNothing to do", flush=True)
    words = ["zfs", "get", "-Hp", "-t", "filesystem,volume", "-o", "name,property,source,value", "-r"]
    words += [",".join(bench.state.ENCRYPTION_PROPERTIES), POOL]
    bare, ours = [], []
    for _time in range(3):
        bare.append(
            bench.clock("one recursive zfs get", lambda: subprocess.run(words, stdout=subprocess.PIPE, check=True))
        )
        ours.append(bench.clock("one task", lambda: silent(bench.task(name=POOL, state="unlocked", recursive=True))))
    bench.limit("nothing to do: one task / one recursive zfs get", min(ours) / min(bare), 1.3)


def silent(result: Result) -> None:
    if result["changed"]:
        raise RuntimeError(f"it changed something: {result['actions'][:3]}")


def measure_rotation(bench: Bench, wanted: list[Result]) -> None:
    print("\nRotation", flush=True)
    script = """while read -r name; do
        file=/etc/zfs/keys/$(echo $name | sed s,/,%2F,g).key
        head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' >$file.next
        zfs change-key -o keyformat=hex -o keylocation=file://$file.next $name
        mv $file.next $file
        zfs set keylocation=file://$file $name
    done"""
    loop = bench.clock("shell loop of zfs change-key", lambda: shell(script, bench.names))
    rotated = [{**one, "rotate": "always"} for one in wanted]
    ours = bench.clock("one task", lambda: bench.task(datasets=rotated))
    wrong = [answer for answer in bench.runner.keys.try_all(bench.candidates()) if answer is not True]
    if wrong:
        raise RuntimeError(f"{len(wrong)} keys do not open their datasets")
    bench.limit("rotation: shell loop / one task", loop / ours, 2.0, at_least=True)


def measure_passphrases(bench: Bench, count: int) -> None:
    print(f"\n{count} passphrases of {ITERATIONS} iterations", flush=True)
    text = random_source.token_hex(16)
    key = {"format": "passphrase", "value": text, "iterations": ITERATIONS}
    names = [f"{POOL}/p{number}" for number in range(count)]
    bench.task(datasets=[{"name": name, "key": key, "properties": {"canmount": "noauto"}} for name in names])
    datasets = bench.state.read_datasets(bench.runner, names, ("pbkdf2iters", "pbkdf2salt"))
    candidates = [
        bench.keys.RootKey(
            name,
            bench.secrets.Key("passphrase", text.encode()),
            int(datasets[name].value("pbkdf2iters")),
            int(datasets[name].value("pbkdf2salt")),
        )
        for name in names
    ]
    one = bench.clock(
        "one after another", lambda: [bench.keys.engine(bench.runner).try_all([each]) for each in candidates]
    )
    cores = os.cpu_count() or 1
    many = bench.clock(f"together, on {cores} cores", lambda: bench.keys.engine(bench.runner).try_all(candidates))
    bench.limit(f"passphrases: one after another / together on {cores} cores", one / many, 0.7 * cores, at_least=True)


def main() -> int:
    bench = Bench(sys.argv[1], int(sys.argv[2]))
    print(f"{bench.count} datasets, engine {bench.runner.keys.name}", flush=True)
    make_pool()
    wanted = prepare(bench)
    measure_unlock(bench)
    measure_no_op(bench)
    measure_rotation(bench, wanted)
    measure_passphrases(bench, int(sys.argv[3]))
    subprocess.run(["zpool", "destroy", POOL], check=True)
    os.unlink(IMAGE)
    print(f"\n{'ratio':<64} {'measured':>9}    limit")
    for limit in bench.limits:
        bound = f"{'>=' if limit.at_least else '<='} {limit.bound:.1f}"
        print(f"{limit.what:<64} {limit.ratio:9.2f}   {bound}   {'held' if limit.held else 'MISSED'}")
    return int(not all(limit.held for limit in bench.limits))


if __name__ == "__main__":
    sys.exit(main())
