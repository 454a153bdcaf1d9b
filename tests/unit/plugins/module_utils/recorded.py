# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A runner that starts nothing: it gives recorded answers and remembers what it was asked to run."""

from __future__ import annotations

import typing as t

from ansible_collections.nasops.encryption.plugins.module_utils.command import (
    Command,
    CommandError,
    ProgramMissing,
    Result,
)

Argv = tuple[str, ...]


class RecordedRunner:
    """Answers by argv. A command without an answer fails the test, unless ``default`` is given."""

    def __init__(
        self,
        answers: t.Mapping[Argv, Result] | None = None,
        default: t.Callable[[Command], Result] | None = None,
        missing: t.Container[str] = (),
    ) -> None:
        self.answers = dict(answers or {})
        self.default = default
        self.missing = missing
        self.commands: list[Command] = []

    @property
    def argvs(self) -> list[Argv]:
        return [command.argv for command in self.commands]

    def has(self, program: str) -> bool:
        return program not in self.missing

    def run(self, command: Command, ok: t.Sequence[int] = (0,)) -> Result:
        self.commands.append(command)
        if command.argv[0] in self.missing:
            raise ProgramMissing(f"The program '{command.argv[0]}' was not found on this host.")
        if command.argv in self.answers:
            result = self.answers[command.argv]
        elif self.default is not None:
            result = self.default(command)
        else:
            raise AssertionError(f"no recorded answer for {command.argv}")
        if result.rc not in ok:
            raise CommandError(result)
        return result


def answer(argv: t.Sequence[str], stdout: str = "", stderr: str = "", rc: int = 0) -> Result:
    """A recorded end of a program."""
    return Result(tuple(argv), rc, stdout, stderr)


def said(command: Command, stdout: str = "", stderr: str = "", rc: int = 0) -> Result:
    """A recorded end of the program that a command starts."""
    return Result(command.argv, rc, stdout, stderr)
