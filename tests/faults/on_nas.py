# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the NAS: kills tasks of zfs_dataset_key after each of their effects, and looks at what is left.

    on_nas.py LIBRARY kills [OPERATION...]     one line of JSON for each operation
    on_nas.py LIBRARY programs [OPERATION...]  the same with keys by programs instead of libzfs_core
    on_nas.py LIBRARY sample [OPERATION...]    as "kills", but a restart of the host follows on each kill
    on_nas.py LIBRARY prepare COUNT DEVICE     a pool with that many datasets, for power cuts
    on_nas.py LIBRARY rotate COUNT             rotates all their keys, again and again, until it is stopped
    on_nas.py LIBRARY recover COUNT [unlock]   after a cut: rotates once more; one line of JSON
    on_nas.py LIBRARY destroy                  takes the pool and its keys away

If there is a file "prefix" beside this one, all keys begin with its content, random ones too, so that whoever searches
for keys finds them. Standard library only, as the modules themselves.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import io
import json
import os
import secrets as random_source
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

PLUGINS = "ansible_collections.nasops.encryption.plugins"
POOL = "faults"
# A folder of its own, where the pool is looked for.
FOLDER = Path("/var/tmp/faults")
KEYS = Path("/etc/zfs/keys")
PREFIX = Path(__file__).with_name("prefix")
ITERATIONS = 100_000
MARKER = "marker"
# Seconds for what a killed task has started to end, and for a busy pool to be let go of.
PATIENCE = 30

Options = dict[str, t.Any]
Result = dict[str, t.Any]


class Wrong(Exception):
    """Something that must not happen, happened."""


class Task(t.NamedTuple):
    """What is asked of the module, and the keys that somebody knows besides the keystore.

    Those are the keys the task is given, and those that a person types. A key that was only in the keystore is not
    among them, so losing it is a loss.
    """

    options: Options
    known: tuple[str, ...] = ()


def random_hex() -> str:
    """A key in hex, with the prefix if there is one."""
    prefix = PREFIX.read_text("ascii").strip() if PREFIX.exists() else ""
    return (prefix + random_source.token_hex(32))[:64]


HEX = (random_hex(), random_hex())
PASSPHRASES = (random_hex()[:40], random_hex()[:40])


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
        if PREFIX.exists():
            self._begin_keys_with_prefix()

    def _begin_keys_with_prefix(self) -> None:
        """All random keys of these tests are hex keys."""
        actions = importlib.import_module(f"{PLUGINS}.module_utils.zfs.dataset_actions")
        key = importlib.import_module(f"{PLUGINS}.module_utils.secrets").Key
        actions.generate = lambda key_format: key(key_format, random_hex().encode())  # type: ignore[attr-defined]

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
    for path in stored():
        path.unlink()
    KEYS.mkdir(mode=0o700, parents=True, exist_ok=True)
    FOLDER.mkdir(exist_ok=True)
    if not device:
        with open(FOLDER / "image", "wb") as image:
            image.truncate(256 << 20)
    subprocess.run(["zpool", "create", "-f", POOL, device or FOLDER / "image"], check=True)


def stored() -> list[Path]:
    """The files of the keystore that are about this pool, and those that nobody could tell whose they are."""
    return sorted(path for path in KEYS.glob("*") if path.name.startswith((f"{POOL}%2F", ".")))


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
    put_markers([name])


def child(name: str) -> None:
    """A filesystem that uses the key of the one above."""
    zfs("create", name)
    put_markers([name])


def file_of(name: str) -> str:
    return f"{KEYS}/{name.replace('/', '%2F')}.key"


class Facts(t.NamedTuple):
    """What ZFS says of a dataset. One that was destroyed and made anew has another ``guid``."""

    guid: str
    type: str
    encryptionroot: str
    keystatus: str
    keylocation: str
    mounted: str
    mountpoint: str


def datasets(*names: str) -> dict[str, Facts]:
    """All datasets of the pool but its root, parents first; or only these."""
    where = names or ("-r", "-t", "filesystem,volume", POOL)
    options, last = (where[:-1], where[-1:]) if not names else ((), names)
    lines = zfs("get", "-Hp", *options, "-o", "name,value", ",".join(Facts._fields), *last).splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        name, word = line.split("\t")
        found.setdefault(name, []).append(word)
    return {name: Facts(*words) for name, words in found.items() if name != POOL}


def guids() -> dict[str, str]:
    return {name: facts.guid for name, facts in datasets().items()}


@contextlib.contextmanager
def mounted(name: str, facts: Facts) -> t.Iterator[Path]:
    """Where a filesystem is mounted, for the time being if it is not."""
    was = facts.mounted == "yes"
    if not was:
        zfs("mount", name)
    try:
        yield Path(facts.mountpoint)
    finally:
        if not was:
            zfs("unmount", name)


def put_markers(names: t.Iterable[str]) -> None:
    """Something to lose: in each filesystem a file that says which one it is in."""
    for name, facts in datasets(*names).items():
        if facts.type == "filesystem":
            with mounted(name, facts) as place:
                (place / MARKER).write_text(facts.guid, "ascii")


def read_markers() -> None:
    """Every filesystem can be read, and holds what was written into it."""
    for name, facts in datasets().items():
        if facts.keystatus != "available":
            raise Wrong(f"{name} is still locked")
        if facts.type != "filesystem":
            continue
        with mounted(name, facts) as place:
            try:
                said = (place / MARKER).read_text("ascii")
            except OSError as error:
                raise Wrong(f"the file in {name} can't be read: {error.strerror}") from None
        if said != facts.guid:
            raise Wrong(f"the file in {name} is another one: {said!r}")


def settle() -> None:
    """Wait until what a killed task had started is at its end: programs outlive the task that started them."""
    end = time.monotonic() + PATIENCE
    while any(name in ("zfs", "zpool", "mount.zfs") for name in running()):
        if time.monotonic() > end:
            raise Wrong("programs that a killed task started do not end")
        time.sleep(0.05)


def running() -> t.Iterator[str]:
    """The names of the programs that run."""
    for path in glob.glob("/proc/[0-9]*/comm"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
            yield file.read().strip()


def restart() -> None:
    """As a restart of the host: no key is loaded, and nothing of the pool but its root dataset is mounted."""
    end = time.monotonic() + PATIENCE
    while subprocess.run(["zpool", "export", POOL], capture_output=True, check=False).returncode:
        if time.monotonic() > end:
            raise Wrong("the pool can't be exported")
        # udev may still look at a volume
        subprocess.run(["udevadm", "settle"], check=False)
        time.sleep(0.1)
    subprocess.run(["zpool", "import", "-d", FOLDER, POOL], check=True)


def roots() -> dict[str, str]:
    """Encryption roots with their keylocations, parents first."""
    return {name: facts.keylocation for name, facts in datasets().items() if facts.encryptionroot == name}


def check_keys(known: t.Sequence[str]) -> dict[str, bytes]:
    """Every encryption root opens with a key that is in the keystore, or that somebody knows; returns those."""
    candidates = [*(path.read_bytes().rstrip(b"\n") for path in stored()), *(text.encode() for text in known)]
    found: dict[str, bytes] = {}
    for name in roots():
        # its own files first, since each try takes a process
        own = [path.read_bytes().rstrip(b"\n") for path in stored() if path.name.startswith(name.replace("/", "%2F"))]
        fitting = (one for one in dict.fromkeys([*own, *candidates]) if opens(name, one))
        found[name] = next(fitting, b"")
        if not found[name]:
            raise Wrong(f"no key at hand opens {name}")
    return found


def opens(name: str, material: bytes, dry: bool = True) -> bool:
    words = ["zfs", "load-key", *(["-n"] if dry else []), "-L", "prompt", name]
    return not subprocess.run(words, input=material + b"\n", capture_output=True, check=False).returncode


def check_data(known: t.Sequence[str]) -> None:
    """After a restart all opens, what has a key file with that file, and all data is there."""
    found = check_keys(known)
    restart()
    for name, location in roots().items():
        if location != "prompt":
            zfs("load-key", name)
        elif not opens(name, found[name], dry=False):
            raise Wrong(f"{name} does not open any more")
    read_markers()


def check_no_leftovers() -> None:
    left = [path.name for path in stored() if path.suffix != ".key"]
    if left:
        raise Wrong(f"left in the keystore: {left}")


# --- operations ------------------------------------------------------------------------------------------------------

A = f"{POOL}/a"
GENERATED = {"file": "auto", "generate": True}
# The owner of A, at whose prompt its key is typed; a task below it opens it first, if it has to.
OWNER = {"name": A, "key": {"value": HEX[0]}}


def create() -> Task:
    entries = [{"name": A, "key": GENERATED}, {"name": f"{A}/inherits"}, {"name": f"{A}/volume", "volsize": "1M"}]
    return Task({"datasets": entries})


def rotate_given() -> Task:
    dataset(A, "hex", HEX[0], file_of(A))
    return Task({"name": A, "key": {"value": HEX[1], "file": "auto"}}, (HEX[1],))


def rotate_generated() -> Task:
    dataset(A, "hex", HEX[0], file_of(A))
    return Task({"name": A, "rotate": "always", "key": GENERATED})


def change_value() -> Task:
    dataset(A, "hex", HEX[0])
    return Task({"name": A, "key": {"value": HEX[1]}, "keys": {A: HEX[0]}}, (HEX[0], HEX[1]))


def to_passphrase() -> Task:
    dataset(A, "hex", HEX[0], file_of(A))
    key = {"format": "passphrase", "value": PASSPHRASES[0], "iterations": ITERATIONS}
    return Task({"name": A, "key": key}, (PASSPHRASES[0],))


def to_key_file() -> Task:
    dataset(A, "passphrase", PASSPHRASES[0])
    return Task({"name": A, "key": {"format": "hex", **GENERATED}, "keys": {A: PASSPHRASES[0]}}, (PASSPHRASES[0],))


def to_passphrase_in_its_file() -> Task:
    dataset(A, "hex", HEX[0], file_of(A))
    key = {"format": "passphrase", "value": PASSPHRASES[0], "iterations": ITERATIONS, "file": "auto"}
    return Task({"name": A, "key": key}, (PASSPHRASES[0],))


def to_hex_in_its_file() -> Task:
    dataset(A, "passphrase", PASSPHRASES[0], file_of(A))
    return Task({"name": A, "key": {"format": "hex", **GENERATED}})


def own_key() -> Task:
    dataset(A, "hex", HEX[0])
    child(f"{A}/b")
    return Task({"datasets": [OWNER, {"name": f"{A}/b", "key": GENERATED}]}, (HEX[0],))


def renamed() -> Task:
    dataset(f"{POOL}/former", "hex", HEX[0], file_of(f"{POOL}/former"))
    zfs("rename", f"{POOL}/former", A)
    return Task({"name": A, "key": GENERATED})


def rotate_to_key_file() -> Task:
    """As rotate_keys does with a dataset whose key is not in its key file yet."""
    return always(to_key_file())


def rotate_own_key() -> Task:
    return always(own_key())


def rotate_renamed() -> Task:
    return always(renamed())


def rotate_prompt() -> Task:
    dataset(A, "hex", HEX[0])
    return always(Task({"name": A, "key": GENERATED, "keys": {A: HEX[0]}}, (HEX[0],)))


def always(task: Task) -> Task:
    """With a new random key at each run, for the last of its datasets."""
    options = dict(task.options)
    if "datasets" in options:
        *others, last = options["datasets"]
        options["datasets"] = [*others, {**last, "rotate": "always"}]
    else:
        options["rotate"] = "always"
    return Task(options, task.known)


def inherit() -> Task:
    dataset(A, "hex", HEX[0])
    dataset(f"{A}/b", "hex", HEX[1], file_of(f"{A}/b"))
    return Task({"datasets": [OWNER, {"name": f"{A}/b", "state": "inherited"}]}, (HEX[0],))


def inherit_locked() -> Task:
    task = inherit()
    for name in (f"{A}/b", A):
        zfs("unmount", name)
        zfs("unload-key", name)
    return task


def lock() -> Task:
    dataset(A, "passphrase", PASSPHRASES[0])
    dataset(f"{A}/b", "passphrase", PASSPHRASES[1])
    child(f"{A}/c")
    return Task({"name": A, "state": "locked", "recursive": True}, PASSPHRASES)


def unlock() -> Task:
    lock()
    dataset(f"{POOL}/d", "hex", HEX[0], file_of(f"{POOL}/d"))
    for name in (f"{A}/b", f"{A}/c", A, f"{POOL}/d"):
        zfs("unmount", name)
    for name in (f"{A}/b", A, f"{POOL}/d"):
        zfs("unload-key", name)
    keys = {A: PASSPHRASES[0], f"{A}/b": PASSPHRASES[1]}
    return Task({"name": POOL, "state": "unlocked", "recursive": True, "keys": keys}, PASSPHRASES)


OPERATIONS: tuple[t.Callable[[], Task], ...] = (
    create,
    rotate_given,
    rotate_generated,
    change_value,
    to_passphrase,
    to_key_file,
    to_passphrase_in_its_file,
    to_hex_in_its_file,
    own_key,
    renamed,
    rotate_to_key_file,
    rotate_own_key,
    rotate_renamed,
    rotate_prompt,
    inherit,
    inherit_locked,
    lock,
    unlock,
)


def kills(library: Library, operation: t.Callable[[], Task], ways: t.Sequence[bool]) -> Result:
    """Kill one operation after each of its effects in turn, until it lives to the end.

    :param ways: whether the host is restarted before the next run; each of them is tried
    """
    points, losses = 0, []
    for restarted in ways:
        lives, lived = 0, False
        while not lived:
            lives += 1
            fresh_pool()
            task = operation()
            before = guids()
            lived = library.run_killed(task.options, lives)
            points += not lived
            try:
                settle()
                after_kill(library, task, before, restarted)
            except Wrong as wrong:
                when = "the end" if lived else f"effect {lives}"
                losses.append(f"after {when}{', restarted' if restarted else ''}: {wrong}")
    return {"operation": operation.__name__, "points": points, "losses": losses}


def after_kill(library: Library, task: Task, before: dict[str, str], restarted: bool) -> None:
    """Nothing is lost, neither now nor after the next run."""
    check_keys(task.known)
    check_same(before, guids())
    if restarted:
        restart()
    finish(library, task)
    now = guids()
    check_same(before, now)
    wanted = {one["name"] for one in task.options.get("datasets", ())} | set(before)
    if set(now) != wanted:
        raise Wrong(f"there are {sorted(now)}, wanted were {sorted(wanted)}")
    new = wanted - set(before)
    if new:
        put_markers(sorted(new))
    check_data(task.known)


def check_same(before: dict[str, str], now: dict[str, str]) -> None:
    lost = [name for name, guid in before.items() if now.get(name) != guid]
    if lost:
        raise Wrong(f"these datasets are gone: {lost}")


def finish(library: Library, task: Task) -> None:
    """The same task again converges, nothing is lost, nothing lies about, and a further one is silent."""
    result = library.run(task.options)
    if result.get("failed"):
        raise Wrong(result["msg"])
    check_keys(task.known)
    check_no_leftovers()
    if not any(one.get("rotate") == "always" for one in (task.options, *task.options.get("datasets", ()))):
        again = library.run(task.options)
        if again.get("failed") or again["changed"]:
            raise Wrong(f"not silent: {again.get('msg', again.get('actions'))}")


# --- power cuts ------------------------------------------------------------------------------------------------------


def names_of(count: int) -> list[str]:
    return [f"{POOL}/d{number}" for number in range(count)]


def wanted(count: int, rotate_when: str) -> Task:
    return Task({"datasets": [{"name": name, "rotate": rotate_when, "key": GENERATED} for name in names_of(count)]})


def prepare(library: Library, count: int, device: str) -> None:
    fresh_pool(device)
    entries = [{"name": name, "key": GENERATED, "properties": {"canmount": "noauto"}} for name in names_of(count)]
    result = library.run({"datasets": entries})
    if result.get("failed"):
        raise Wrong(result["msg"])
    put_markers(names_of(count))
    # what was written so far outlives a power cut
    subprocess.run(["zpool", "sync", POOL], check=True)
    os.sync()


def rotate(library: Library, count: int) -> t.NoReturn:
    """Rotates for ever; says when each rotation begins, so that a cut can be aimed."""
    while True:
        print("rotation", flush=True)
        result = library.run(wanted(count, "always").options)
        if result.get("failed"):
            raise Wrong(result["msg"])


def recover(library: Library, count: int, unlock_first: bool) -> Result:
    """After a cut: what is on the disks, and what the next run makes of it.

    :param unlock_first: unlock, then rotate; otherwise the rotation itself finds everything locked
    """
    if POOL not in imported():
        subprocess.run(["zpool", "import", "-f", POOL], check=True)
    half_done = sum(path.suffix != ".key" for path in stored())
    try:
        check_names(count)
        check_keys(())
        if unlock_first:
            unlocked = library.run({"name": POOL, "state": "unlocked", "recursive": True})
            if unlocked.get("failed"):
                raise Wrong(unlocked["msg"])
        finish(library, Task({**wanted(count, "always").options, "rotate": "always"}))
        finish(library, wanted(count, "when_different"))
        check_names(count)
        read_markers()
    except Wrong as wrong:
        return {"half_done": half_done, "loss": str(wrong)}
    return {"half_done": half_done, "loss": ""}


def imported() -> list[str]:
    words = ["zpool", "list", "-H", "-o", "name"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def check_names(count: int) -> None:
    found = sorted(guids())
    if found != sorted(names_of(count)):
        raise Wrong(f"there are {found}, wanted were {names_of(count)}")


def destroy() -> None:
    """Take away the pool, its image, and the keys."""
    subprocess.run(["zpool", "destroy", POOL], check=True)
    shutil.rmtree(FOLDER)
    for path in stored():
        path.unlink()


def main() -> int:
    library = Library(sys.argv[1])
    word, words = sys.argv[2], sys.argv[3:]
    if word == "programs":
        library.use_programs()
    if word in ("kills", "programs", "sample"):
        for operation in OPERATIONS:
            if not words or operation.__name__ in words:
                ways = (True,) if word == "sample" else (False, True)
                print(json.dumps(kills(library, operation, ways)), flush=True)
        destroy()
    elif word == "prepare":
        prepare(library, int(words[0]), words[1])
    elif word == "rotate":
        rotate(library, int(words[0]))
    elif word == "destroy":
        destroy()
    else:
        print(json.dumps(recover(library, int(words[0]), "unlock" in words)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
