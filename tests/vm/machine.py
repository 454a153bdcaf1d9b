# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NAS of one of the long proofs, with an agent on it that runs scripts and modules."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .connection import Agent
from .expect import parse
from .nas import WHOLE, Nas

# A program of a proof gives up after these seconds; what takes longer says so.
PATIENCE = 170


class Failed(Exception):
    """The proof does not hold."""


@dataclass
class Machine:
    """A NAS with an agent on it.

    ``names`` are the names of its blank disks (d1 to d12) and partitions (p1 to p4), and their other names (d1:wwn).
    """

    nas: Nas
    log: Path
    agent: Agent = field(init=False)
    names: dict[str, str] = field(default_factory=dict)

    def open(self) -> None:
        """Boot it, and let the agent blank its disks."""
        self.log.mkdir(parents=True)
        self.nas.start()
        self.agent = Agent(self.nas.ssh, self.log)
        found = self.agent.start(self.nas.serials[:WHOLE], self.nas.serials[WHOLE:])
        self.reset()
        for letter, ones in (("d", found["disks"]), ("p", found["partitions"])):
            for number, one in enumerate(ones, 1):
                self.names[f"{letter}{number}"] = str(one["id"])
                self.names[f"{letter}{number}:wwn"] = str(one["wwn"])

    def reset(self) -> None:
        """Destroy all pools, and blank the disks.

        :raises Failed: something is still in use
        """
        reply = self.agent.ask("reset")
        if "failure" in reply:
            raise Failed(f"on {self.nas.name}, the disks are not blank: {reply['failure']}")

    def open_again(self) -> None:
        """Boot it after a power cut; nothing on its disks is touched."""
        self.agent.close()
        self.nas.start()
        self.agent = Agent(self.nas.ssh, self.log)
        self.agent.start(self.nas.serials[:WHOLE], ())

    def shell(self, script: str, seconds: float = PATIENCE, /, **words: str) -> str:
        """What a script prints; names in braces are filled in.

        :raises Failed: it ended with an error
        """
        for name, value in {**self.names, **words}.items():
            script = script.replace("{" + name + "}", value)
        reply = self.agent.ask("script", script=script, timeout=seconds)
        if "failure" in reply or reply["rc"]:
            raise Failed(f"on {self.nas.name}, a script failed: {reply.get('failure') or reply['err']}")
        return str(reply["out"]).strip()

    def module(self, module: str, /, **options: Any) -> dict[str, Any]:
        """The result of a module."""
        return parse(self.agent.ask("module", module=module, args=_arguments(options), timeout=PATIENCE))

    def begin(self, module: str, /, **options: Any) -> None:
        """Start a module, and do not wait for it.

        :raises Failed: it can't be started
        """
        reply = self.agent.ask("begin", module=module, args=_arguments(options))
        if "failure" in reply:
            raise Failed(f"on {self.nas.name}, {module} was not started: {reply['failure']}")

    def runs(self) -> bool:
        """Whether that module still runs."""
        return bool(self.agent.ask("running")["running"])

    def strike(self, whom: str, *words: str) -> list[str]:
        """Kill the ``module``, or ``all`` that it has started with it, or a ``program`` of these words; tells whom."""
        return [str(one) for one in self.agent.ask("strike", whom=whom, words=list(words))["struck"]]

    def end(self, seconds: float = PATIENCE) -> dict[str, Any] | None:
        """The result of the module that was begun, None if it was killed.

        :raises Failed: it did not end in time
        """
        reply = self.agent.ask("end", timeout=seconds)
        if reply.get("status", 0) is None:
            raise Failed(f"on {self.nas.name}, the module did not end within {seconds:.0f} seconds")
        return None if reply.get("status") == -9 else parse(reply)


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "_ansible_check_mode": False, "_ansible_diff": True, "_ansible_verbosity": 4}
