# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task on drives, from what it wants to what was done: for a playbook, and when a host starts."""

from __future__ import annotations

from ..blockdev.host import read_table, this_host
from ..command import Command, Runner
from ..errors import Refused, StorageError
from ..plan import Plan, Work
from .boot_refused import Refusals
from .decide import Tools, decide
from .drive import Drive
from .journal import Journal
from .link import reread_partitions
from .options import Wish
from .partitions import unread
from .read import Eyes, Survey, after, survey
from .state import Backend, DriveState
from .usage import in_words, usage, users


class Task:
    """What is read, and what is planned.

    :param check_mode: nothing is written, not even a note of what was refused
    :param trying: credentials may be tried
    """

    def __init__(
        self, runner: Runner, hand: Backend, wishes: tuple[Wish, ...], check_mode: bool = False, trying: bool = True
    ) -> None:
        self._runner = runner
        self._wishes = wishes
        self._hand = hand
        self._trying = trying
        self._writes = not check_mode
        self._journal = Journal(writes=self._writes)

    def read(self) -> Survey:
        """The drives as they are."""
        table = read_table(self._runner)
        eyes = Eyes(
            self._hand,
            self._journal,
            lambda drive: usage(self._runner, table, drive),
            lambda drive: unread(table, drive),
            self._trying,
        )
        found = survey(eyes, table, self._wishes)
        if self._writes:
            # A password that was not taken at boot may be given to a drive while it is open.
            Refusals().forget(row.key for row in found.rows if isinstance(row, DriveState) and not row.found.locked)
        return found

    def plan(self, found: Survey) -> Plan:
        """What is to be done."""
        return decide(Tools(self._hand, self._journal, unused, rescan), self._wishes, found)

    def read_again(self, _before: Survey, done: Plan) -> Survey:
        """The drives as they are when that was done."""
        return after(self.read(), done)


def unused(drive: Drive) -> Work:
    """Refuses when something began to use the drive since the plan was made."""

    def work(runner: Runner) -> None:
        uses = [in_words(one) for one in users(runner, read_table(runner), drive)]
        if uses:
            raise Refused(f"It is in use by now: {', '.join(uses)}.", hint="Nothing was done to it.")

    return work


def rescan(drive: Drive) -> Work:
    """Partitions and links of a drive that can be read again. An error if the kernel does not know of them after that.

    Whether it does is seen by what it knows: it refuses to read a table while something holds a partition, which says
    nothing about those that are missing.
    """

    def work(runner: Runner) -> None:
        nodes = [f"/dev/{name}" for name in drive.members]
        refused = [node for node in nodes if not reread_partitions(node)]
        if runner.has("udevadm"):
            # What udev could not read when the drive was found: filesystems and labels, and the links made of them.
            runner.run(Command(("udevadm", "trigger", "--action=change", *nodes)), ok=range(256))
        this_host().settle(runner)
        if unread(read_table(runner), drive):
            why = f", which refused to read {', '.join(refused)} again" if refused else ""
            raise StorageError(
                f"The drive can be read, but the partitions on it are not known to the kernel{why}.",
                hint="Something may hold the drive; see the kernel log. The next run of the task reads them again.",
            )

    return work
