# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to the agent on the NAS: its files are sent in one go, then it answers line by line."""

from __future__ import annotations

import io
import json
import queue
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible

ROOT = Path(__file__).resolve().parents[2]
REMOTE = "/opt/suite"
MODULES = (
    "geli_device",
    "geli_info",
    "geli_migrate",
    "zfs_dataset_key",
    "zfs_encrypted_pool",
    "zfs_encryption_info",
    "zfs_key_manifest",
    "zfs_replicate",
)

# More than a module may take on a busy machine, see the agent.
_SECONDS = 360.0
# Not needed by modules written in Python, and most of the size.
_NOT_SENT = ("powershell", "csharp", "facts", "__pycache__")


class AgentLost(Exception):
    """The agent ended or does not answer, so the NAS is of no use any more."""


def bundle() -> bytes:
    """What the agent needs on the NAS as a tar file: itself, the collection's module code, ansible.module_utils."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for source, target in _files():
            archive.add(source, target, recursive=False)
        for package in ("ansible", "ansible_collections", "ansible_collections/nasops"):
            archive.addfile(tarfile.TarInfo(f"lib/{package}/__init__.py"), io.BytesIO())
    return buffer.getvalue()


def _files() -> Iterator[tuple[Path, str]]:
    yield Path(__file__).with_name("agent.py"), "agent.py"
    # for cases that need disks of a FreeNAS
    yield ROOT / "tests" / "unit" / "plugins" / "module_utils" / "geli" / "writer.py", "geli_writer.py"
    core = Path(ansible.__file__).parent / "module_utils"
    for path in sorted(core.rglob("*.py")):
        relative = path.relative_to(core)
        if relative.parts[0] not in _NOT_SENT:
            yield path, f"lib/ansible/module_utils/{relative}"
    plugins = ROOT / "plugins"
    for folder in ("modules", "module_utils"):
        for path in sorted((plugins / folder).rglob("*.py")):
            yield (
                path,
                f"lib/ansible_collections/nasops/encryption/plugins/{folder}/{path.relative_to(plugins / folder)}",
            )


class Agent:
    """Asks the agent, and keeps all its answers in a log."""

    def __init__(self, ssh: Sequence[str], log: Path) -> None:
        """:param ssh: the command to which words to run on the NAS are appended"""
        self._log = (log / "answers.jsonl").open("a", encoding="utf-8")
        self._errors = (log / "agent.log").open("ab")
        unpack = f"rm -rf {REMOTE} && mkdir -p {REMOTE} && tar -C {REMOTE} -xzf -"
        done = subprocess.run([*ssh, unpack], input=bundle(), capture_output=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise AgentLost(f"the agent could not be sent: {done.stderr.decode(errors='replace')}")
        self._process = subprocess.Popen(
            [*ssh, f"exec python3 -u {REMOTE}/agent.py {REMOTE}/lib"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        if self._process.stdout is None:
            raise ValueError("the agent was started without a pipe")
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, operation: str, **details: Any) -> dict[str, Any]:
        """One request, one answer.

        :raises AgentLost: there is no answer within six minutes
        """
        if self._process.stdin is None:
            raise ValueError("the agent was started without a pipe")
        try:
            self._process.stdin.write(json.dumps({"op": operation, **details}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=_SECONDS)
        except (OSError, queue.Empty) as error:
            raise AgentLost(f"the agent does not answer to '{operation}': {error!r}") from error
        if not line:
            raise AgentLost(f"the agent ended during '{operation}'; see agent.log and the console of the NAS")
        # Neither keys that the agent found nor the evidence itself belong into the log that is searched for keys.
        if operation not in ("reset", "evidence"):
            self._log.write(line)
            self._log.flush()
        reply = json.loads(line)
        if not isinstance(reply, dict):
            raise AgentLost(f"the agent answered something else than an object: {line[:200]}")
        return reply

    def start(self, whole: Sequence[str], partitioned: Sequence[str]) -> Mapping[str, list[Mapping[str, Any]]]:
        """Let the agent begin to record.

        :param whole: serial numbers of disks that are used as they are
        :param partitioned: serial numbers of disks that get one partition each
        :returns: all names of ``disks`` and ``partitions``
        """
        reply = self.ask("start", whole=list(whole), partitioned=list(partitioned), modules=MODULES)
        if "failure" in reply:
            raise AgentLost(str(reply["failure"]))
        return reply

    def close(self) -> None:
        """End the agent."""
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._errors.close()
