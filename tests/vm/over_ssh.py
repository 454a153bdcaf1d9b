# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same through ansible-playbook over ssh, as users do it: modules, role and playbook."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .case import Names
from .connection import ROOT
from .nas import Nas

_RECAP = re.compile(r"ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)")
# Four times as long as it takes without KVM.
_SECONDS = 600


@dataclass
class Playbooks:
    """Runs playbooks against the NAS."""

    nas: Nas
    names: Names
    log: Path

    def checks(self) -> Iterator[tuple[str, float, Sequence[str]]]:
        """Name, seconds and complaints of each check."""
        keys = self.names.keys
        disks = [disk["id"] for disk in self.names.disks]
        variables: dict[str, Any] = {
            "disks": disks,
            "passphrase": keys.passphrase("playbook", 40),
            "raw_key": base64.b64encode(keys.raw("playbook")).decode("ascii"),
            "wrong_key": base64.b64encode(keys.raw("wrong")).decode("ascii"),
        }
        yield self._run("modules over ssh", "tests/vm/playbooks/modules.yml", variables, None)
        pools = [
            {
                "name": "fleet",
                "vdevs": [
                    {"type": "raidz2", "disks": disks[6:10]},
                    {"role": "spare", "disks": disks[10:11]},
                ],
                "key": {"value": keys.hex("role"), "file": "auto"},
                "properties": {"autotrim": True},
            },
            {"name": "plain", "cipher": "off", "vdevs": [{"disks": disks[11:12]}]},
        ]
        role = {"nas_pools": pools, "nas_hosts": "all"}
        for number, (words, changed) in enumerate(((["--check"], 1), ([], 1), (["--check"], 0), ([], 0)), 1):
            name = f"provision, run {number} of check, apply, check, apply"
            yield self._run(name, "nasops.encryption.provision", role, changed, words)

    def _run(
        self, name: str, playbook: str, variables: Mapping[str, Any], changed: int | None, words: Sequence[str] = ()
    ) -> tuple[str, float, list[str]]:
        """One run with all that ansible-playbook can say, kept for the search for keys."""
        start = time.monotonic()
        path = self.log / f"playbook-{re.sub('[^a-z0-9]+', '-', name)}.log"
        # Neither the arguments nor the log hold a key: they come in a file that is gone afterwards.
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file, path.open("w", encoding="utf-8") as log:
            json.dump(variables, file)
            file.flush()
            argv = ["ansible-playbook", "-vvvv", "--diff", "-i", str(self.nas.inventory), "-e", f"@{file.name}"]
            done = subprocess.run(
                [*argv, *words, playbook],
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            )
        said = path.read_text("utf-8")
        complaints: list[str] = []
        recap = _RECAP.findall(said)
        if done.returncode or len(recap) != 1:
            complaints.append(f"ansible-playbook ended with {done.returncode}; see {path.relative_to(ROOT)}")
            complaints += re.findall(r"^(?:fatal: .*|\[ERROR\]: .*|ERROR! .*)$", said, re.M)[-3:]
        elif changed is not None and int(recap[0][1]) != changed:
            complaints.append(f"changed={recap[0][1]}, wanted was {changed}; see {path.relative_to(ROOT)}")
        return name, time.monotonic() - start, complaints

    def _environment(self) -> dict[str, str]:
        """With the collection of this work tree."""
        collections = ROOT / ".build" / "vm" / "collections"
        link = collections / "ansible_collections" / "nasops" / "encryption"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(ROOT)
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_DEPRECATION_WARNINGS": "1",
            "LC_ALL": "C.UTF-8",
        }
