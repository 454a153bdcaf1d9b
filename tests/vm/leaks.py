# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Searches everything that was left behind for every key of the run."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .connection import Agent
from .keys import KeyRing, letters

PLACES = {
    "argv": "arguments of every process",
    "journal": "the journal",
    "zpool-history": "zpool history",
    "environ": "environments of processes",
    "files": "/tmp, /var/tmp, /var/log, /run, /dev/shm and /root/.ansible",
}


# The marks that are left where a key must not be, and in which part of the evidence they are found.
_PLANTED = {
    "argv": "argv",
    "hex": "argv",
    "file": "files",
    "run": "files",
    "journal": "journal",
    "environ": "environ",
}


def search(data: bytes, needles: Mapping[bytes, str]) -> list[str]:
    """What of the needles is in the data, with a bit of what stands around it, itself left out."""
    found: list[str] = []
    for needle, meaning in needles.items():
        at = data.find(needle)
        if at >= 0:
            before, after = data[max(0, at - 80) : at], data[at + len(needle) : at + len(needle) + 10]
            found.append(f"{meaning}: {before!r} >here< {after!r}")
    return found


@dataclass
class Search:
    """Looks through what the NAS kept, and through the logs and temporary files of the suite itself."""

    agent: Agent
    keys: KeyRing
    log: Path
    console: Path
    """What the kernel of the NAS has printed."""
    marks: Sequence[str] = field(default=())
    """Arguments that processes had before, and that must be in the record."""

    def checks(self) -> Iterator[tuple[str, list[str]]]:
        """Name and complaints of each check."""
        planted = {place: letters(20) for place in (*_PLANTED, "answers.jsonl")}
        self._plant(planted)
        parts, executions, lost = self._collect()
        yield "every execve was recorded", self._recorded(executions, lost)
        yield "a planted key is found", self._found(planted, parts)
        yield "a mark in the suite's own log is found", self._in_log(planted["answers.jsonl"])
        needles = self.keys.needles()
        for place, title in PLACES.items():
            yield f"no key in {title}", search(parts[place], needles)
        yield "no key on the console", search(self.console.read_bytes(), needles)
        for path in sorted(self.log.rglob("*")):
            if path.is_file():
                yield f"no key in {path.relative_to(self.log)}", search(path.read_bytes(), needles)

    def _plant(self, planted: Mapping[str, str]) -> None:
        """Leave marks where a key must not be. They are made of letters, so no needle is in them."""
        script = (
            f"/bin/true --key={planted['argv']}\n"
            f"/bin/true 'an argument that is recorded in hex: {planted['hex']}'\n"
            f"printf %s {planted['file']} >/var/tmp/planted\n"
            f"printf %s {planted['run']} >/run/planted\n"
            f"printf '<13>suite: %s\\n' {planted['journal']} >/dev/kmsg\n"
            f"export PLANTED={planted['environ']}\n"
            "sleep 120 >/dev/null 2>&1 & disown\n"
            f"printf %s {planted['answers.jsonl']}\n"
        )
        reply = self.agent.ask("script", script=script)
        if reply.get("rc"):
            raise ValueError(f"the marks could not be left: {reply}")

    def _found(self, planted: Mapping[str, str], parts: Mapping[str, bytes]) -> list[str]:
        complaints = [
            f"the mark left in {PLACES[part]} was not found, so a key would not be found there either"
            for place, part in _PLANTED.items()
            if not search(parts[part], {planted[place].encode(): place})
        ]
        if not all(search(parts["argv"], {mark.encode(): "argv"}) for mark in self.marks):
            complaints.append("what was executed when the NAS had booted again is not in the record")
        return complaints

    def _in_log(self, mark: str) -> list[str]:
        said = (self.log / "answers.jsonl").read_bytes()
        return [] if search(said, {mark.encode(): "answers.jsonl"}) else ["the last answer of the agent is missing"]

    def _recorded(self, executions: int, lost: int) -> list[str]:
        complaints = [] if lost == 0 else [f"the kernel dropped {lost} records"]
        return complaints + ([] if executions > 100 else [f"only {executions} records"])

    def _collect(self) -> tuple[dict[str, bytes], int, int]:
        reply = self.agent.ask("evidence")
        if "failure" in reply:
            raise ValueError(f"the evidence can't be collected: {reply['failure']}")
        parts = dict.fromkeys(PLACES, b"")
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(reply["tar"]))) as archive:
            for member in archive:
                place = member.name.split("/", 1)[0]
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    parts[place] += member.name.encode() + b"\n" + file.read() + b"\n"
        return parts, int(reply["executions"]), int(reply["lost"])
