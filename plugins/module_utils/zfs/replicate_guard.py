# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last look at the source before a stream of a whole tree."""

from __future__ import annotations

from dataclasses import dataclass

from ..command import Command, Runner
from ..errors import Refused
from .names import within
from .state import parse_properties, run_zfs


@dataclass(frozen=True)
class StillEncrypted:
    """Looks once more for a dataset that a raw stream of a tree would carry over in the clear.

    Between the first look and the snapshot somebody may have made one, and ``zfs send -w -R`` sends it without a word.
    What is made after the snapshot has none of that name, so it can't be in the stream.
    """

    top: str
    snapshot: str
    exclude: tuple[str, ...] = ()

    def __call__(self, runner: Runner) -> None:
        """:raises Refused: something that would be sent is not encrypted"""
        argv = ("zfs", "get", "-Hp", "-r", "-t", "filesystem,volume", "-o", "name,property,source,value")
        text = run_zfs(runner, Command((*argv, "encryption", self.top)))
        plain = [
            f"{name}@{self.snapshot}"
            for name, found in parse_properties(text, ("encryption",))
            if found["encryption"].value == "off" and not within(name, self.exclude)
        ]
        if not plain:
            return
        # It complains of those that have no such snapshot, and prints the others.
        listed = runner.run(Command(("zfs", "list", "-H", "-o", "name", "-t", "snapshot", *plain)), ok=(0, 1))
        sent = [line.split("@")[0] for line in listed.stdout.splitlines() if line in plain]
        if sent:
            raise Refused(
                "Mode 'raw' promises that nothing is readable at the target, but these are not encrypted; they were "
                f"made while this was being prepared: {', '.join(repr(name) for name in sent)}.",
                hint="Nothing of this stream was sent. Name them in 'exclude', or make them anew with encryption.",
            )
