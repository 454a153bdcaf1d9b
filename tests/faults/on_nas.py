# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the NAS: kills tasks of zfs_dataset_key after each of their effects, and looks at what is left.

    on_nas.py LIBRARY kills [OPERATION...]   one line of JSON for each operation
    on_nas.py LIBRARY programs [OPERATION...]   the same with keys by programs instead of libzfs_core
    on_nas.py LIBRARY prepare COUNT          a pool with that many datasets, for power cuts
    on_nas.py LIBRARY rotate                 rotates all their keys, again and again, until it is stopped
    on_nas.py LIBRARY recover                after a cut: rotates once more; one line of JSON

Standard library only, as the modules themselves.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import typing as t

PLUGINS = "ansible_collections.nasops.encryption.plugins"
POOL = "faults"
IMAGE = "/var/tmp/faults.img"
KEYS = "/etc/zfs/keys"
HEX = tuple(digit * 64 for digit in "abcdef")
PASSPHRASES = ("correct horse", "battery staple")
ITERATIONS = 100_000

Options = dict[str, t.Any]
Result = dict[str, t.Any]


class Wrong(Exception):
    """Something that must not happen, happened."""


class Library:
    """The collection's code."""

    def __init__(self, path: str) -> None:
        sys.path.insert(0, path)
        self.keystore = importlib.import_module(f"{PLUGINS}.module_utils.zfs.keystore")
        self.command = importlib.import_module(f"{PLUGINS}.module_utils.command")
        self.lzc = importlib.import_module(f"{PLUGINS}.module_utils.zfs.lzc")
        self.keys = importlib.import_module(f"{PLUGINS}.module_utils.zfs.keys")
        self.module = importlib.import_module(f"{PLUGINS}.modules.zfs_dataset_key")
        self.testing = importlib.import_module("ansible.module_utils.testing")

    def use_programs(self) -> None:
        """As on a host whose libzfs_core can't be used."""
        self.keys.engine = lambda runner, prefer="auto": self.keys.CommandKeys(runner)  # type: ignore[attr-defined]

    def run(self, options: Options) -> Result:
        """One task in this process."""
        printed = io.StringIO()
        words = {**options, "_ansible_check_mode": False, "_ansible_diff": True}
        with (
            contextlib.suppress(SystemExit),
            contextlib.redirect_stdout(printed),
            self.testing.patch_module_args(words),
        ):
            self.module.main()
        result: Result = json.loads(printed.getvalue())
        return result

    def run_killed(self, options: Options, lives: int) -> bool:
        """One task in a fork that dies right after that many effects; returns whether it lived to the end."""
        pid = os.fork()
        if pid == 0:
            self._die_after(lives)
            with contextlib.suppress(BaseException):
                self.run(options)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return False
        if status:
            raise Wrong(f"the task ended with status {status}")
        return True

    def _die_after(self, lives: int) -> None:
        """Count every effect on ZFS and on the key files, and end this process after the last that is allowed."""
        left = [lives]

        def counted(function: t.Callable[..., t.Any], matters: t.Callable[..., bool]) -> t.Callable[..., t.Any]:
            def wrapper(*words: t.Any, **named: t.Any) -> t.Any:
                if not matters(*words):
                    return function(*words, **named)
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(60)
                result = function(*words, **named)
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(60)
                return result

            return wrapper

        def always(*_words: t.Any) -> bool:
            return True

        def changes(_runner: t.Any, command: t.Any, *_rest: t.Any) -> bool:
            return len(command.argv) > 1 and command.argv[1] not in ("get", "list", "status", "-P")

        for name in ("link", "replace", "unlink", "mkdir", "rename"):
            setattr(os, name, counted(getattr(os, name), always))
        for name in ("load", "unload", "change", "inherit"):
            setattr(self.lzc.LibraryKeys, name, counted(getattr(self.lzc.LibraryKeys, name), always))
        self.command.HostRunner.run = counted(self.command.HostRunner.run, changes)


# --- the pool --------------------------------------------------------------------------------------------------------


def zfs(*words: str, stdin: str = "") -> str:
    done = subprocess.run(["zfs", *words], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"zfs {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def fresh_pool(device: str = "") -> None:
    subprocess.run(["zpool", "destroy", POOL], capture_output=True, check=False)
    for path in glob.glob(f"{KEYS}/*") + glob.glob(f"{KEYS}/.*"):
        os.unlink(path)
    os.makedirs(KEYS, mode=0o700, exist_ok=True)
    if not device:
        with open(IMAGE, "wb") as image:
            image.truncate(256 << 20)
    subprocess.run(["zpool", "create", "-f", POOL, device or IMAGE], check=True)


def dataset(name: str, key_format: str, key: str, file: str = "") -> None:
    """An encryption root made by hand."""
    words = ["create", "-o", "encryption=on", "-o", f"keyformat={key_format}"]
    if key_format == "passphrase":
        words += ["-o", f"pbkdf2iters={ITERATIONS}"]
    if file:
        with open(file, "w", encoding="ascii") as handle:
            handle.write(key + "\n")
        zfs(*words, "-o", f"keylocation=file://{file}", name)
    else:
        zfs(*words, "-o", "keylocation=prompt", name, stdin=key + "\n")


def file_of(name: str) -> str:
    return f"{KEYS}/{name.replace('/', '%2F')}.key"


def check_keys(supplied: t.Sequence[str]) -> None:
    """Every encryption root opens with a key in the keystore, or with one that was supplied or known before."""
    stored = []
    for path in glob.glob(f"{KEYS}/*"):
        with open(path, "rb") as file:
            stored.append(file.read().rstrip(b"\n"))
    for line in zfs(
        "get", "-Hp", "-r", "-t", "filesystem,volume", "-o", "name,value", "encryptionroot", POOL
    ).splitlines():
        name, root = line.split("\t")
        if name == root:
            candidates = [*stored, *(text.encode() for text in supplied)]
            if not any(opens(name, candidate) for candidate in dict.fromkeys(candidates)):
                raise Wrong(f"no key at hand opens {name}")


def opens(name: str, material: bytes) -> bool:
    words = ["zfs", "load-key", "-n", "-L", "prompt", name]
    return not subprocess.run(words, input=material + b"\n", capture_output=True, check=False).returncode


def check_no_leftovers() -> None:
    left = [name for name in os.listdir(KEYS) if not name.endswith(".key")]
    if left:
        raise Wrong(f"left in the keystore: {left}")


# --- operations ------------------------------------------------------------------------------------------------------

A = f"{POOL}/a"


def create() -> Options:
    return {
        "datasets": [
            {"name": A, "key": {"file": "auto", "generate": True}},
            {"name": f"{A}/inherits"},
            {"name": f"{A}/volume", "volsize": "1M"},
        ]
    }


def rotate_given() -> Options:
    dataset(A, "hex", HEX[0], file_of(A))
    return {"name": A, "key": {"value": HEX[1], "file": "auto"}}


def rotate_generated() -> Options:
    dataset(A, "hex", HEX[0], file_of(A))
    return {"name": A, "rotate": "always", "key": {"file": "auto", "generate": True}}


def change_value() -> Options:
    dataset(A, "hex", HEX[0])
    return {"name": A, "key": {"value": HEX[1]}}


def to_passphrase() -> Options:
    dataset(A, "hex", HEX[0], file_of(A))
    return {"name": A, "key": {"format": "passphrase", "value": PASSPHRASES[0], "iterations": ITERATIONS}}


def to_key_file() -> Options:
    dataset(A, "passphrase", PASSPHRASES[0])
    return {"name": A, "key": {"format": "hex", "file": "auto", "generate": True}}


def own_key() -> Options:
    dataset(A, "hex", HEX[0])
    zfs("create", f"{A}/b")
    return {"name": f"{A}/b", "key": {"file": "auto", "generate": True}}


def renamed() -> Options:
    dataset(f"{POOL}/former", "hex", HEX[0], file_of(f"{POOL}/former"))
    zfs("rename", f"{POOL}/former", A)
    return {"name": A, "key": {"file": "auto", "generate": True}}


def inherit() -> Options:
    dataset(A, "hex", HEX[0])
    dataset(f"{A}/b", "hex", HEX[1], file_of(f"{A}/b"))
    return {"name": f"{A}/b", "state": "inherited"}


def lock() -> Options:
    dataset(A, "passphrase", PASSPHRASES[0])
    dataset(f"{A}/b", "passphrase", PASSPHRASES[1])
    zfs("create", f"{A}/c")
    return {"name": A, "state": "locked", "recursive": True}


def unlock() -> Options:
    lock()
    dataset(f"{POOL}/d", "hex", HEX[0], file_of(f"{POOL}/d"))
    for name in (f"{A}/b", f"{A}/c", A, f"{POOL}/d"):
        zfs("unmount", name)
    for name in (f"{A}/b", A, f"{POOL}/d"):
        zfs("unload-key", name)
    keys = {A: PASSPHRASES[0], f"{A}/b": PASSPHRASES[1]}
    return {"name": POOL, "state": "unlocked", "recursive": True, "keys": keys}


OPERATIONS: tuple[t.Callable[[], Options], ...] = (
    create,
    rotate_given,
    rotate_generated,
    change_value,
    to_passphrase,
    to_key_file,
    own_key,
    renamed,
    inherit,
    lock,
    unlock,
)


def kills(library: Library, operation: t.Callable[[], Options]) -> Result:
    """Kill one operation after each of its effects in turn, until it lives to the end."""
    points, losses = 0, []
    lived = False
    while not lived:
        fresh_pool()
        options = operation()
        lived = library.run_killed(options, points + 1)
        points += not lived
        try:
            check_keys((*HEX, *PASSPHRASES))
            finish(library, options)
        except Wrong as wrong:
            losses.append(f"after effect {points}: {wrong}")
    return {"operation": operation.__name__, "points": points, "losses": losses}


def finish(library: Library, options: Options) -> None:
    """The same task again converges, nothing is lost, nothing lies about, and a further one is silent."""
    result = library.run(options)
    if result.get("failed"):
        raise Wrong(result["msg"])
    check_keys((*HEX, *PASSPHRASES))
    check_no_leftovers()
    if options.get("rotate") != "always":
        again = library.run(options)
        if again.get("failed") or again["changed"]:
            raise Wrong(f"not silent: {again.get('msg', again.get('actions'))}")


# --- power cuts ------------------------------------------------------------------------------------------------------


def names() -> list[str]:
    listed = zfs("list", "-H", "-o", "name", "-r", POOL).splitlines()
    return [name for name in listed if name != POOL]


def wanted() -> list[Options]:
    return [{"name": name, "rotate": "always", "key": {"file": "auto", "generate": True}} for name in names()]


def prepare(library: Library, count: int, device: str) -> None:
    fresh_pool(device)
    entries = [
        {"name": f"{POOL}/d{number}", "key": {"file": "auto", "generate": True}, "properties": {"canmount": "noauto"}}
        for number in range(count)
    ]
    result = library.run({"datasets": entries})
    if result.get("failed"):
        raise Wrong(result["msg"])
    os.sync()


def rotate(library: Library) -> t.NoReturn:
    """Rotates for ever; says when each rotation begins, so that a cut can be aimed."""
    while True:
        print("rotation", flush=True)
        result = library.run({"datasets": wanted()})
        if result.get("failed"):
            raise Wrong(result["msg"])


def recover(library: Library) -> Result:
    """After a cut: what is on the disks, and what the next run makes of it."""
    if (
        POOL
        not in subprocess.run(
            ["zpool", "list", "-H", "-o", "name"], capture_output=True, text=True, check=True
        ).stdout.split()
    ):
        subprocess.run(["zpool", "import", "-f", POOL], check=True)
    files = sorted(name for name in os.listdir(KEYS) if not name.endswith(".key"))
    try:
        check_keys(())
        unlocked = library.run({"name": POOL, "state": "unlocked", "recursive": True})
        if unlocked.get("failed"):
            raise Wrong(unlocked["msg"])
        finish(library, {"datasets": wanted(), "rotate": "always"})
        finish(library, {"datasets": [{**one, "rotate": "when_different"} for one in wanted()]})
    except Wrong as wrong:
        return {"half_done": len(files), "loss": str(wrong)}
    return {"half_done": len(files), "loss": ""}


def main() -> int:
    library = Library(sys.argv[1])
    if sys.argv[2] == "programs":
        library.use_programs()
    if sys.argv[2] in ("kills", "programs"):
        for operation in OPERATIONS:
            if len(sys.argv) == 3 or operation.__name__ in sys.argv[3:]:
                print(json.dumps(kills(library, operation)), flush=True)
        subprocess.run(["zpool", "destroy", POOL], check=True)
    elif sys.argv[2] == "prepare":
        prepare(library, int(sys.argv[3]), sys.argv[4])
    elif sys.argv[2] == "rotate":
        rotate(library)
    else:
        print(json.dumps(recover(library)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
