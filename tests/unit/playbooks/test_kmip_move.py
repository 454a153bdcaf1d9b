# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real ansible-playbook with real KMIP servers: keys go there, to another server, and back, and are seen nowhere."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.nasops.encryption.plugins.module_utils.secrets import encodings
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.kmip.kmip_server import KmipServer

ROOT = Path(__file__).resolve().parents[3]
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
        while not self._end.wait(0.02):
            self.look()


class Controller:
    """Runs playbooks with all temporary files below one folder."""

    def __init__(self, folder: Path, texts: t.Sequence[str]) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        (folder / "no-folder").write_text("Ansible can make no temporary folder in here.")
        self._folder = folder
        self._log = folder / "ansible.log"
        self._log.touch()
        self._needles = [spelling for text in texts for spelling in encodings(text.encode())]
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
            "PYTHONPATH": os.pathsep.join([str(ROOT.parents[2]), *sys.path]),
        }

    def play(self, play: dict[str, t.Any] | str, variables: dict[str, t.Any], fails: bool = False) -> str:
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


def test_keys_of_a_pool_go_to_a_server_and_to_another_one_and_back(kmip: KmipServer, tmp_path: Path) -> None:
    texts = dict(zip(NAMES, [secrets.token_hex(32), secrets.token_urlsafe(32), f"{secrets.token_hex(8)} 'ä' \\ wort"]))
    controller = Controller(tmp_path, list(texts.values()))
    vault = tmp_path / "manifest.json"
    vault.write_text(json.dumps(texts))
    second = KmipServer(tmp_path / "second")
    try:
        second.start()
        push = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_pipelining": True},
            "module_defaults": {"group/nasops.encryption.kmip": connection(kmip)},
            "tasks": [
                {
                    "name": "Push",
                    "nasops.encryption.kmip_key": {
                        "keys": f"{{{{ lookup('ansible.builtin.file', '{vault}') | from_json }}}}"
                    },
                }
            ],
        }
        assert "changed=1" in controller.play(push, {})
        assert "changed=0" in controller.play(push, {})

        servers = {
            "kmip_move_names": NAMES,
            "kmip_move_from": connection(kmip),
            "kmip_move_to": connection(second),
        }
        move = str(ROOT / "playbooks" / "kmip_move.yml")
        assert "changed=1" in controller.play(move, servers)
        assert "changed=1" in controller.play(move, {**servers, "kmip_move_remove": True})

        there = "lookup('nasops.encryption.kmip_key', names, as_dict=true)"
        pull: dict[str, t.Any] = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Pull",
                    "ansible.builtin.assert": {
                        "that": f"{there} == lookup('ansible.builtin.file', '{vault}') | from_json",
                        "quiet": True,
                    },
                }
            ],
        }
        here = {f"nas_kmip_{name}": value for name, value in connection(second).items()}
        controller.play(pull, {**here, "names": NAMES})
        gone = {f"nas_kmip_{name}": value for name, value in connection(kmip).items()}
        assert "There is no key" in controller.play(pull, {**gone, "names": NAMES}, fails=True)
    finally:
        second.kill()


def test_the_watch_finds_a_secret_in_a_file_and_in_arguments(tmp_path: Path) -> None:
    secret = secrets.token_hex(32)
    (tmp_path / "leak").write_text(f"key={secret}")
    watch = Watch([tmp_path], [secret])
    watch.look()
    assert watch.found == {str(tmp_path / "leak")}
    with subprocess.Popen([sys.executable, "-c", "input()", secret], stdin=subprocess.PIPE) as process:
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
    Controller(tmp_path, [secrets.token_hex(32)]).play(play, {}, fails=True)


@pytest.fixture
def kmip(tmp_path: Path) -> t.Iterator[KmipServer]:
    server = KmipServer(tmp_path / "kmip")
    try:
        server.start()
        yield server
    finally:
        server.kill()
