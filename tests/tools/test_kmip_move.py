# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real ansible-playbook with real KMIP servers: keys go there, to another server, and back, and are seen nowhere."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import yaml

from ansible_collections.nasops.encryption.plugins.module_utils.kmip.fetch import fetch
from ansible_collections.nasops.encryption.plugins.module_utils.kmip.session import Session
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import encodings
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip import kmip_server
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer

# The collection where Ansible finds it.
ROOT = Path(kmip_server.__file__).resolve().parents[5]
NAMES = ["tank", "tank/media", "tank/media/video"]


class Watch:
    """Looks for secrets in arguments, environments and files as long as it is on."""

    def __init__(self, folders: t.Sequence[Path], needles: t.Iterable[str]) -> None:
        self.found: set[str] = set()
        self.looks = 0
        self._folders = folders
        self._needles = [needle.encode() for needle in needles]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_more: object) -> None:
        self._end.set()
        self._thread.join()

    def look(self) -> None:
        """Look once."""
        self.looks += 1
        processes = Path("/proc").glob("[0-9]*")
        paths = [process / name for process in processes for name in ("cmdline", "environ")]
        paths += [path for folder in self._folders for path in folder.rglob("*") if path.is_file()]
        for path in paths:
            try:
                content = path.read_bytes()
            except OSError:
                continue  # it ended, or was removed
            if any(needle in content for needle in self._needles):
                self.found.add(str(path))

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            self.look()


class Controller:
    """Runs playbooks with all temporary files below one folder."""

    def __init__(self, folder: Path, texts: t.Sequence[str]) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        (folder / "no-folder").write_text("Ansible can make no temporary folder in here.")
        self._folder = folder
        written = [spelling for text in texts for spelling in (text, json.dumps(text)[1:-1], repr(text)[1:-1])]
        self._needles = sorted({spelling for text in written for spelling in encodings(text.encode())})
        self._log = folder / "ansible.log"
        self._log.touch()
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "TMPDIR": str(self.temporary),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_LOCAL_TEMP": str(self.temporary / "local"),
            # a module that is not sent through a pipe fails
            "ANSIBLE_REMOTE_TEMP": str(folder / "no-folder" / "tmp"),
            "ANSIBLE_LOG_PATH": str(self._log),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT.parents[2]),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(ROOT.parents[2]), *sys.path]),
            # Meant for another server; what a playbook is told of its own ones has to do.
            "NAS_KMIP_PORT": "1",
            "NAS_KMIP_PRIVATE_KEY": "/nowhere/client.key",
            "NAS_KMIP_TLS_VERSION": "1.3",
        }

    def play(self, play: dict[str, t.Any] | str, variables: dict[str, t.Any], *more: str, fails: bool = False) -> str:
        """What ansible-playbook says at its most verbose; no key is in it, or anywhere else meanwhile."""
        if isinstance(play, str):
            name = play
        else:
            name = str(self._folder / "play.yml")
            Path(name).write_text(yaml.safe_dump([play], allow_unicode=True))
        given = self._folder / "variables.json"
        given.write_text(json.dumps(variables))
        argv = [
            sys.executable,
            "-m",
            "ansible",
            "playbook",
            "-vvvv",
            "--diff",
            "-i",
            "localhost,",
            "-e",
            f"@{given}",
            *more,
            name,
        ]
        with Watch([self.temporary, self._folder / "ansible"], self._needles) as watch:
            done = subprocess.run(
                argv, env=self._environment, cwd=self._folder, capture_output=True, text=True, timeout=300, check=False
            )
        watch.look()
        shown = done.stdout + done.stderr + self._log.read_text()
        assert watch.looks > 3 and watch.found == set()
        assert [needle for needle in self._needles if needle in shown] == []
        assert (done.returncode != 0) is fails, shown
        assert "Traceback" not in shown
        return shown


def connection(server: KmipServer) -> dict[str, t.Any]:
    return {key: value for key, value in server.options().items() if value is not None}


def session(server: KmipServer) -> Session:
    return server.session()


def put(server: KmipServer, texts: t.Mapping[str, str]) -> dict[str, str]:
    """Store keys; returns the uids."""
    client = session(server)
    uids = {name: client.register(name, text) for name, text in texts.items()}
    for uid in uids.values():
        client.activate(uid)
    return uids


def active(server: KmipServer) -> dict[str, str]:
    """The keys of these names that are on the server."""
    names = [*NAMES, f"{NAMES[0]} (previous)"]
    return fetch(session(server), names, "name", False, skip_missing=True)


def test_keys_move_to_another_server_and_a_move_that_was_cut_off_is_finished(kmip: KmipServer, tmp_path: Path) -> None:
    texts = dict(zip(NAMES, [secrets.token_hex(32), secrets.token_urlsafe(32), f"{secrets.token_hex(8)} 'ä' \\ wort"]))
    former = secrets.token_hex(32)
    controller = Controller(tmp_path, [*texts.values(), former])
    second = KmipServer(tmp_path / "second")
    try:
        second.start()
        uids = put(kmip, {**texts, f"{NAMES[0]} (previous)": former})
        servers = {
            "kmip_move_names": NAMES,
            "kmip_move_from": connection(kmip),
            "kmip_move_to": connection(second),
        }
        move, removing = str(ROOT / "playbooks" / "kmip_move.yml"), ("-e", "kmip_move_remove=true")

        # The former key may be what opens the dataset.
        refused = controller.play(move, servers, *removing, fails=True)
        assert "the old server has tank (previous)" in refused
        assert (active(kmip), active(second)) == ({**texts, "tank (previous)": former}, {})
        old = session(kmip)
        old.revoke(uids["tank (previous)"])
        old.destroy(uids["tank (previous)"])

        assert "changed=1" in controller.play(move, servers)
        assert active(kmip) == active(second) == texts

        # A removal that was cut off between two keys, and between revoke and destroy.
        for uid in (uids["tank"], uids["tank/media"]):
            old.revoke(uid)
        old.destroy(uids["tank"])
        assert "changed=1" in controller.play(move, servers, *removing)
        assert [old.locate(name) for name in NAMES] == [()] * 3
        assert active(second) == texts

        # Another run of the same changes nothing, and the play of the docs removes what the NAS has in a file.
        key_file = tmp_path / "tank.key"
        key_file.write_text(texts["tank"])
        play, variables = pull(tmp_path, key_file, second)
        assert "changed=1" in controller.play(play, {**servers, **variables}, *removing, move)
        assert list(active(second)) == NAMES[1:]
    finally:
        second.kill()


def pull(folder: Path, key_file: Path, server: KmipServer) -> tuple[str, dict[str, t.Any]]:
    """The play of the docs without its first task, which needs ZFS: a playbook and its variables."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "kmip.md").read_text(), re.DOTALL)
    start = next(number for number, block in enumerate(blocks) if block.startswith("# pull.yml"))
    play = yaml.safe_load(blocks[start] + blocks[start + 1])[0]
    proof, read, remove = play["tasks"]
    assert (play["any_errors_fatal"], proof["nasops.encryption.zfs_dataset_key"]["rotate"]) == (True, "never")
    assert "keys" in remove["nasops.encryption.kmip_key"] and "names" not in remove["nasops.encryption.kmip_key"]
    play.update(hosts="localhost", connection="local", become=False, tasks=[read, remove])
    play["vars"] = {"ansible_pipelining": True, "key_files": {"tank": str(key_file)}}
    path = folder / "pull.yml"
    path.write_text(yaml.safe_dump([play]))
    return str(path), {f"nas_kmip_{name}": value for name, value in connection(server).items()}


def test_the_watch_finds_a_secret_in_a_file_and_in_arguments(tmp_path: Path) -> None:
    secret = secrets.token_hex(32)
    (tmp_path / "leak").write_text(f"key={secret}")
    watch = Watch([tmp_path], [secret])
    watch.look()
    assert watch.found == {str(tmp_path / "leak")}
    argv = [sys.executable, "-c", "print(flush=True); input()", secret]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # Until it says something, it may not have its arguments yet.
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        watch.look()
        process.communicate(b"\n")
    assert f"/proc/{process.pid}/cmdline" in watch.found


def test_without_pipelining_the_guard_of_these_tests_fails(tmp_path: Path) -> None:
    """The folder for files of modules is none, so that a key that would go through a file is noticed."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [{"name": "Ping", "ansible.builtin.ping": {}}],
    }
    said = Controller(tmp_path, [secrets.token_hex(32)]).play(play, {}, fails=True)
    assert "Failed to create temporary directory" in said
    assert "no-folder" in said
