# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Searches everything that was left behind for every key of the run."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from .connection import Agent
from .keys import KeyRing, letters

PLACES = {
    "argv": "arguments of every process",
    "journal": "the journal",
    "zpool-history": "zpool history",
    "files": "/tmp, /var/tmp and /var/log",
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


class Search:
    """Looks through what the NAS kept, and through the logs of the suite itself."""

    def __init__(self, agent: Agent, keys: KeyRing, log: Path) -> None:
        self._agent = agent
        self._keys = keys
        self._log = log

    def checks(self) -> Iterator[tuple[str, list[str]]]:
        """Name and complaints of each check."""
        planted = {place: letters(20) for place in ("argv", "file", "journal", "hex")}
        self._plant(planted)
        parts, executions, lost = self._collect()
        yield "every execve was recorded", self._recorded(executions, lost)
        yield "a planted key is found", self._found(planted, parts)
        needles = self._keys.needles()
        for place, title in PLACES.items():
            yield f"no key in {title}", search(parts[place], needles)
        for path in sorted(self._log.glob("*")):
            if path.is_file() and path.suffix in (".jsonl", ".log"):
                yield f"no key in {path.name}", search(path.read_bytes(), needles)

    def _plant(self, planted: Mapping[str, str]) -> None:
        """Leave marks where a key must not be. They are made of letters, so no needle is in them."""
        script = (
            f"/bin/true --key={planted['argv']}\n"
            f"/bin/true 'an argument that is recorded in hex: {planted['hex']}'\n"
            f"printf %s {planted['file']} >/var/tmp/planted\n"
            f"printf '<13>suite: %s\\n' {planted['journal']} >/dev/kmsg\n"
        )
        reply = self._agent.ask("script", script=script)
        if reply.get("rc"):
            raise ValueError(f"the marks could not be left: {reply}")

    def _found(self, planted: Mapping[str, str], parts: Mapping[str, bytes]) -> list[str]:
        where = {"argv": "argv", "hex": "argv", "file": "files", "journal": "journal"}
        return [
            f"the mark left in {PLACES[where[place]]} was not found, so a key would not be found there either"
            for place, mark in planted.items()
            if not search(parts[where[place]], {mark.encode(): place})
        ]

    def _recorded(self, executions: int, lost: int) -> list[str]:
        complaints = [] if lost == 0 else [f"the kernel dropped {lost} records"]
        return complaints + ([] if executions > 100 else [f"only {executions} records"])

    def _collect(self) -> tuple[dict[str, bytes], int, int]:
        reply = self._agent.ask("evidence")
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
