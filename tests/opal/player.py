# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays tasks against emulated drives, and sees to it that what they print holds no password."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ansible_collections.nasops.encryption.tests.unit.plugins.four_runs import four_runs

from .host import Emulator
from .programs import install_sedutil

Result = dict[str, t.Any]


class Worker:
    """A process that sees the drives of whatever emulator it is told.

    :param path: where alone it finds programs, in place of where this one does
    """

    def __init__(self, shim: Path, path: Path | None = None) -> None:
        search = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": search}
        folder = install_sedutil(shim, shim.parent)
        if path is not None:
            environment["PATH"] = str(path)
        elif folder is not None:
            environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), *(() if path is None else ("bare",))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, host: Emulator, module: str, arguments: Result) -> tuple[str, list[str]]:
        """What a module prints, and the programs it starts."""
        if self.process.stdin is None or self.process.stdout is None:
            raise ValueError("pipes were asked for and are not there")
        task = {"emulator": str(host.folder), "module": module, "arguments": arguments}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        printed, started = json.loads(self.process.stdout.readline())
        return printed, started

    def is_bare(self, secret: str) -> bool:
        """Whether a secret is in the process list or the environment of the process."""
        folder = Path(f"/proc/{self.process.pid}")
        return any(secret.encode() in (folder / name).read_bytes() for name in ("cmdline", "environ"))

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(60)


class Player:
    """Tasks on one host. ``hash``: how passwords are stretched if the task does not say; "raw" costs no time."""

    def __init__(self, host: Emulator, worker: Worker) -> None:
        self.host = host
        self.hash = "raw"
        self.backend = "auto"
        self._worker = worker

    def info(self, **options: t.Any) -> list[Result]:
        printed, started = self._worker.run(self.host, "sed_info", options)
        assert not started, "it starts no program"
        shown = json.loads(printed)
        return t.cast("list[Result]", shown["drives"])

    def run(self, check_mode: bool = False, **options: t.Any) -> Result:
        """One run of sed_lock."""
        defaults = {"hash": self.hash, "backend": self.backend, "_ansible_diff": True}
        arguments = {**defaults, **options, "_ansible_check_mode": check_mode}
        shown, started = self._worker.run(self.host, "sed_lock", arguments)
        assert "Traceback" not in shown, shown
        secrets = [options.get(name) for name in ("password", "new_password", "psid")]
        secrets += (options.get("passwords") or {}).values()
        # Options that are refused before they are used have secrets of one letter.
        for secret in (one for one in secrets if one and len(str(one)) > 1):
            data = str(secret).encode()
            for spelling in (data.decode(), data.hex(), base64.b64encode(data).decode()):
                assert spelling not in shown
                if arguments["backend"] != "sedutil":
                    assert not any(spelling in one for one in started)
                    assert not self._worker.is_bare(spelling)
        return t.cast(Result, json.loads(shown))

    def four_runs(self, changes: bool = True, **options: t.Any) -> Result:
        """Check, apply, check, apply: the first two tell the same, the other two that nothing is left to do.

        :param changes: whether there is something to do at first
        """
        return four_runs(lambda check_mode: self.run(check_mode, **options), changes)

    def fails(self, **options: t.Any) -> str:
        """The message of a run that fails, which is the same in check mode with the password tried."""
        done = self.run(**options)
        assert done.get("failed"), done
        return t.cast(str, done["msg"])


def at_once(*tasks: t.Callable[[], object]) -> None:
    """Run these side by side until all have ended; what goes wrong in one of them goes wrong here."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for running in [pool.submit(task) for task in tasks]:
            running.result()
