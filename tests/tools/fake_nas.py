# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NAS that is a few programs in a folder: what they are asked is written down, and what they say is made up.

Everything else is real: ansible-playbook, the action plugin, the module in a process of its own, and openssl.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import typing as t
from dataclasses import dataclass
from pathlib import Path

import yaml
from compiled import python

ROOT = Path(__file__).resolve().parents[2]

_COMMON = """#!{python} -IS
import json, os, sys
FOLDER = {folder!r}
with open(FOLDER + "/argv.log", "a") as log:
    log.write(json.dumps([sys.argv, sorted(os.environ.items())]) + "\\n")
with open(FOLDER + "/state.json") as file:
    STATE = json.load(file)
"""

_ZFS = """
words = sys.argv[1:]
if words[0] == "load-key":
    root = words[-1]
    if words[1:4] != ["-n", "-L", "prompt"]:
        sys.exit("cannot: this would load a key")
    given = sys.stdin.buffer.read()
    given = given.hex() if STATE["datasets"][root]["keyformat"] == "raw" else given.decode().rstrip("\\n").lower()
    if STATE["keys"][root] != given:
        sys.exit("Key load error: Incorrect key provided for '%s'." % root)
    sys.exit(0)
at = words.index("-o") + 2
rest = words[at:]
names = STATE["datasets"]
shown = None
if rest[0] == "-r":
    rest, shown = rest[1:], lambda name, top: (name + "/").startswith(top + "/")
elif rest[0] == "-d":
    rest, shown = rest[2:], None
properties, tops = rest[0].split(","), rest[1:]
for top in tops:
    if top not in names:
        sys.exit("cannot open '%s': dataset does not exist" % top)
shown = shown or (lambda name, top: name == top)
tops = tops or [name for name in names if "/" not in name]
for name in sorted(names):
    if any(shown(name, top) for top in tops):
        for word in properties:
            print(name, word, "-", names[name].get(word, "-"), sep="\\t")
"""

_ZPOOL = """
for pool, values in STATE["pools"].items():
    for word in sys.argv[-1].split(","):
        print(pool, word, "-", values.get(word, "-"), sep="\\t")
"""

_OPENSSL = """
os.execv({openssl!r}, [{openssl!r}, *sys.argv[1:]])
"""

# Modules want to be root. This is no host that could be harmed.
_AS_ROOT = "import os\nos.geteuid = lambda: 0\n"


@dataclass
class Run:
    """How a playbook ended."""

    status: int
    said: str
    results: list[dict[str, t.Any]]


class FakeNas:
    """Pools and datasets as they are described, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.keys: dict[str, str] = {}
        self.datasets: dict[str, dict[str, str]] = {}
        self.bin.mkdir()
        openssl = shutil.which("openssl")
        assert openssl
        self.openssl = openssl
        for name, body in (("zfs", _ZFS), ("zpool", _ZPOOL), ("openssl", _OPENSSL)):
            text = _COMMON.format(python=sys.executable, folder=str(folder)) + body.replace(
                "{openssl!r}", repr(openssl)
            )
            self.program(name, text)
        # Each process of the module is root for itself.
        self.python = python(folder, _AS_ROOT)
        self.pools = {"tank": {"guid": "9512867134298873421", "health": "ONLINE"}}

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def root(self, name: str, key: str, key_format: str = "hex", file: bool = True, **more: str) -> None:
        """An encryption root, and its key in a key file unless that is not wanted."""
        location = "prompt"
        if file:
            path = self.folder / "keys" / (name.replace("/", "%2F") + ".key")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes.fromhex(key) if key_format == "raw" else key.encode() + b"\n")
            location = f"file://{path}"
        self.keys[name] = key.lower()
        self.datasets[name] = {
            "type": "filesystem",
            "encryption": "aes-256-gcm",
            "encryptionroot": name,
            "keystatus": "available",
            "keyformat": key_format,
            "keylocation": location,
            "mountpoint": "none",
            "mounted": "no",
            **more,
        }

    def save(self, name: str = "state.json") -> Path:
        """Write down how it is; under another name, for a task to put it in place later."""
        state = {"pools": self.pools, "datasets": self.datasets, "keys": self.keys}
        (self.folder / name).write_text(json.dumps(state))
        return self.folder / name

    def argv(self) -> list[list[str]]:
        """The arguments of all programs that were started."""
        lines = (self.folder / "argv.log").read_text().splitlines()
        return [json.loads(line)[0] for line in lines]

    def play(self, *tasks: t.Mapping[str, t.Any], words: t.Sequence[str] = ()) -> Run:
        """Run tasks as a user does, with all that ansible-playbook can say. Each start of it takes its time."""
        self.save()
        names = [f"result_{number}" for number in range(len(tasks))]
        last = {
            "ansible.builtin.copy": {
                "content": f"{{{{ [{', '.join(names)}] | to_json }}}}",
                "dest": f"{self.folder}/results.json",
            },
            "check_mode": False,
            "diff": False,
        }
        registered = [{"ignore_errors": True, **task, "register": name} for task, name in zip(tasks, names)]
        play = [{"hosts": "all", "gather_facts": False, "tasks": [*registered, last]}]
        playbook = self.folder / "playbook.yml"
        playbook.write_text(yaml.safe_dump(play, sort_keys=False))
        argv = [sys.executable, "-m", "ansible", "playbook", "-i", "nas,", "-vvvv", "--diff", *words]
        argv += ["-e", f"ansible_connection=local ansible_python_interpreter={self.python}"]
        done = subprocess.run(
            [*argv, str(playbook)],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        path = self.folder / "results.json"
        assert path.exists(), done.stdout
        results = json.loads(path.read_text())
        path.unlink()
        return Run(done.returncode, done.stdout, results)

    def environment(self) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        # Not the one of whoever runs the tests.
        config = self.folder / "ansible.cfg"
        config.write_text("[defaults]\n")
        link = self.folder / "collections" / "ansible_collections" / "nasops" / "encryption"
        if not link.is_symlink():
            link.parent.mkdir(parents=True)
            link.symlink_to(ROOT)
        return {
            **os.environ,
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "TMPDIR": str(self.temporary),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_LOCAL_TEMP": str(home / "local"),
            "ANSIBLE_REMOTE_TEMP": str(home / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_CONFIG": str(config),
            "LC_ALL": "C.UTF-8",
        }

    @property
    def temporary(self) -> Path:
        path = self.folder / "tmp"
        path.mkdir(exist_ok=True)
        return path
