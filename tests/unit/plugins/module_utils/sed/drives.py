# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulated drives in this very process: the native client talks to them without a kernel in between."""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable
from ansible_collections.nasops.encryption.plugins.module_utils.command import Runner
from ansible_collections.nasops.encryption.plugins.module_utils.plan import Outcome, Plan, Work, converge
from ansible_collections.nasops.encryption.plugins.module_utils.sed.decide import Tools, decide
from ansible_collections.nasops.encryption.plugins.module_utils.sed.drive import Drive as Seen
from ansible_collections.nasops.encryption.plugins.module_utils.sed.hold import Hold
from ansible_collections.nasops.encryption.plugins.module_utils.sed.journal import Journal
from ansible_collections.nasops.encryption.plugins.module_utils.sed.link import (
    Gone,
    Identity,
    Link,
    Unsupported,
)
from ansible_collections.nasops.encryption.plugins.module_utils.sed.native import Native
from ansible_collections.nasops.encryption.plugins.module_utils.sed.options import argument_spec, parse_wishes
from ansible_collections.nasops.encryption.plugins.module_utils.sed.read import Eyes, Survey, after, survey
from ansible_collections.nasops.encryption.plugins.module_utils.sed.usage import Usage
from ansible_collections.nasops.encryption.tests.opal.drive import Drive, MethodError, Spec
from ansible_collections.nasops.encryption.tests.opal.tper import TPer, Vanished
from ansible_collections.nasops.encryption.tests.unit.plugins.module_utils.recorded import RecordedRunner


@contextlib.contextmanager
def _translated() -> t.Iterator[None]:
    try:
        yield
    except MethodError as error:
        raise Unsupported(str(error)) from None
    except Vanished:
        raise Gone("It does not answer any more.") from None


class Direct:
    """A link to an emulated drive."""

    def __init__(self, drive: Drive, tper: TPer) -> None:
        self._drive = drive
        self._tper = tper

    def identify(self) -> Identity:
        spec = self._drive.spec
        salt = spec.serial.encode().ljust(20)
        return Identity(spec.transport, spec.serial, spec.model, spec.firmware, salt, spec.wwn)

    def send(self, protocol: int, specific: int, data: bytes) -> None:
        with _translated():
            self._tper.send(protocol, specific, data)

    def receive(self, protocol: int, specific: int, length: int) -> bytes:
        with _translated():
            return self._tper.receive(protocol, specific, length)


class Host:
    """Drives by their nodes, and tasks on them."""

    def __init__(self, *specs: Spec) -> None:
        self.drives = [Drive(spec) for spec in specs]
        self._tpers = [TPer(drive) for drive in self.drives]
        self.runner: Runner = RecordedRunner()
        self.usage = Usage()
        # What the host remembers, and the locks of the drives.
        self.journal = Journal(path="")
        self._holds: dict[str, Hold] = {}
        # How often a drive was opened, and from when on another one is where the first was.
        self.opened = 0
        self.exchange: tuple[int, Drive] | None = None

    def table(self) -> DeviceTable:
        return DeviceTable(
            tuple(
                BlockDevice(
                    f"nvme{number}n1",
                    f"/dev/nvme{number}n1",
                    serial=drive.spec.serial,
                    wwn=f"naa.{drive.spec.wwn}" if drive.spec.wwn else "",
                    size=10**12,
                )
                for number, drive in enumerate(self.drives)
            )
        )

    @contextlib.contextmanager
    def open(self, node: str, exclusive: bool = True) -> t.Iterator[Link]:
        number = int(node[len("/dev/nvme") : -len("n1")])
        drive, tper = self.drives[number], self._tpers[number]
        if self.exchange is not None and self.opened >= self.exchange[0]:
            drive = self.exchange[1]
            tper = TPer(drive)
        self.opened += 1
        if drive.gone:
            raise Gone(f"{node} can't be opened.")
        yield Direct(drive, tper)

    @contextlib.contextmanager
    def hold(self, node: str) -> t.Iterator[Hold]:
        yield self._holds.setdefault(node, Hold())

    def play(self, check_mode: bool = False, twice: t.Sequence[bytes] = (), **options: t.Any) -> Outcome[Survey]:
        """One run of a task, as the module does it, which is wrong at most once with each authority of a drive.

        :param twice: the credentials that are an exception to that, and of which two are wrong
        """
        before = [len(drive.wrong) for drive in self.drives]
        done = self._play(check_mode, **options)
        for drive, count in zip(self.drives, before):
            wrong = drive.wrong[count:]
            assert all(wrong.count(uid) == 1 + (uid in twice) for uid in {*wrong, *twice}), [one.hex() for one in wrong]
        return done

    def _play(self, check_mode: bool, **options: t.Any) -> Outcome[Survey]:
        defaults = {name: one.get("default") for name, one in argument_spec().items()}
        wishes = parse_wishes({**defaults, "hash": "raw", **options})
        hand = Native("raw", self.open, self.hold)
        # What one task knows besides what it leaves to the next one ends with it.
        self.journal = Journal(path="", writes=not check_mode, kept=self.journal.kept)
        tools = Tools(hand, self.journal, _nothing, _nothing)
        trying = not check_mode or bool(options.get("check_password"))

        def read() -> Survey:
            eyes = Eyes(hand, self.journal, lambda _drive: self.usage, lambda _drive: False, trying)
            return survey(eyes, self.table(), wishes)

        def plan(found: Survey) -> Plan:
            return decide(tools, wishes, found)

        return converge(read, plan, self.runner, check_mode, lambda _before, done: after(read(), done))


def _nothing(_drive: Seen) -> Work:
    def work(_runner: Runner) -> None:
        return

    return work
