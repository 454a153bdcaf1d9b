# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unlocks drives when a host starts, before pools are imported; it runs without Ansible.

It is the program in the archive that the module sed_boot installs. It reads a file that only root can read, unlocks
what is locked, and prints a line for each drive. Drives whose passwords are in the file are for one start of it, those
whose passwords are on a KMIP server for another one, side by side: the first one knows no network. The server is asked
only if a drive is locked, or is not there.

Exit status: 0 if every drive is open, 1 if one is not.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
import typing as t

from ..blockdev.host import read_table
from ..command import HostRunner, Runner
from ..errors import BadInput, Refused, StorageError
from ..lock import exclusive
from ..plan import Failure, converge
from ..secrets import Mask
from .boot_careful import Careful
from .boot_keys import Fetched, collect
from .boot_options import KEYS, Kmip, lock_params, parse_sources
from .boot_refused import Refusals
from .discovery import Discovery
from .drive import drives, find
from .link import require_linux
from .options import Wish, argument_spec, parse_wishes
from .read import Row
from .state import FOREIGN, UNLOCKED, DriveState, Fault
from .task import Task

SETTINGS = "/etc/zfs/nasops-drives.json"
# The argument by which the drives are meant whose passwords are on a server.
BY_SERVER = "--kmip"
# Seconds in which drives are to show themselves.
PATIENCE = 30.0
# Seconds in which another task is to end: a boot does not wait for a person's.
LOCK_PATIENCE = 240.0
_PAUSE = 1.0
_LONGEST = 1 << 20

Say = t.Callable[[str], None]


def main(*arguments: str) -> None:
    """Unlock, and end the process.

    :param arguments: the file with the settings, and :data:`BY_SERVER`, or either of them, or neither
    """
    path = next((one for one in arguments if one != BY_SERVER), SETTINGS)
    try:
        require_linux()
        failures = unlock(load(path), _say, BY_SERVER in arguments)
    except StorageError as error:
        _say(f"no drive was unlocked: {error}")
        raise SystemExit(1) from None
    raise SystemExit(1 if failures else 0)


def _say(line: str) -> None:
    # Drives and servers have a part in it; it stays one line.
    plain = "".join(one if one.isprintable() else " " for one in line)
    sys.stdout.write(f"nasops-unlock-drives: {plain}\n")
    sys.stdout.flush()


def load(path: str) -> dict[str, t.Any]:
    """The settings, as options of the module sed_lock, and what is of the module sed_boot alone.

    :raises Refused: others than root could read the passwords, or change them
    :raises BadInput: it is no such file
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise StorageError(f"{path} can't be opened: {error.strerror}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise Refused(
                f"{path} holds passwords, and others than root may read or change it.",
                hint=f"Set them anew if somebody may have read it; then: chown root {path}; chmod 600 {path}.",
            )
        found = json.loads(os.read(descriptor, _LONGEST))
    except ValueError:
        raise BadInput(f"{path} is not JSON.", hint="Run the playbook provision, which writes it.") from None
    finally:
        os.close(descriptor)
    if not isinstance(found, dict) or set(found) - set(KEYS):
        raise BadInput(f"{path} holds something else than {', '.join(KEYS)}.", hint="Run the playbook provision.")
    defaults = {name: one.get("default") for name, one in argument_spec().items()}
    return {**defaults, "kmip": None, **found, "state": UNLOCKED}


def unlock(params: dict[str, t.Any], say: Say, by_server: bool = False, refusals: Refusals | None = None) -> list[str]:
    """Unlock drives, and tell of each; returns those that stay locked or can't be used yet.

    :param by_server: those whose passwords are on the server, in place of the others
    :raises StorageError: nothing could be done
    """
    sources = parse_sources(params)
    opening = _Opening(params["hash"], refusals or Refusals(), say)
    if not by_server:
        return opening.by_file(params, sources.filed) if sources.filed else []
    if sources.kmip is None:
        return []
    try:
        return opening.by_server(sources.kmip)
    except StorageError as error:
        return opening.tell(Failure(device, error.message, error.hint) for device in sources.kmip.objects)


class _Opening:
    """What is used to open drives, and who is told of it."""

    def __init__(self, kind: str, refusals: Refusals, say: Say) -> None:
        # No program is given a password. A mask that has a short one would let no program be started at all.
        self._runner = HostRunner(Mask())
        self._kind = kind
        self._refusals = refusals
        self._say = say

    def by_file(self, params: dict[str, t.Any], devices: t.Sequence[str]) -> list[str]:
        """Open drives with passwords from the file."""
        wishes = parse_wishes(lock_params(params, devices))
        _wait(self._runner, devices)
        return self._open(wishes, dict.fromkeys(devices, "the password in the file"))

    def by_server(self, kmip: Kmip) -> list[str]:
        """Open drives with passwords from a server. It is asked for those of drives that are not open alone."""
        bare = {device: Wish(device, UNLOCKED) for device in kmip.objects}
        _wait(self._runner, list(bare))
        hand = Careful(self._kind, self._refusals)
        seen = Task(self._runner, hand, tuple(bare.values()), check_mode=True, trying=False).read()
        # One that is not there may show itself while the server is waited for.
        due = {device: row for device, row in zip(bare, seen.rows) if isinstance(row, Fault) or _is_closed(row)}
        # Not within the lock: a person who is at the drives meanwhile need not wait for the server.
        fetched = collect(kmip, due, self._kind, self._say) if due else Fetched({}, {})
        left = self.tell(_unfetched(device, due[device], error) for device, error in fetched.faults.items())
        origins = {device: password.origin for device, password in fetched.passwords.items()}
        wishes = tuple(
            self._wish(device, fetched.passwords[device].text) if device in origins else wish
            for device, wish in bare.items()
            if device not in fetched.faults
        )
        return [*left, *(self._open(wishes, origins) if wishes else ())]

    def tell(self, failures: t.Iterable[Failure], opened: t.Collection[str] = ()) -> list[str]:
        """Name the drives that stay locked or can't be used yet, with the reasons."""
        told: list[str] = []
        for failure in failures:
            self._say(f"'{failure.branch}' {'IS OPEN, BUT' if failure.branch in opened else 'STAYS LOCKED'}: {failure}")
            told.append(failure.branch)
        return told

    def _wish(self, device: str, text: str) -> Wish:
        return parse_wishes(lock_params({"password": text, "hash": self._kind}, (device,)))[0]

    def _open(self, wishes: tuple[Wish, ...], origins: t.Mapping[str, str]) -> list[str]:
        """:param origins: by drive, where its password came from"""
        hand = Careful(self._kind, self._refusals)
        task = Task(self._runner, hand, wishes)
        with exclusive(patience=LOCK_PATIENCE):
            outcome = converge(task.read, task.plan, self._runner, False, task.read_again)
        for action in outcome.plan.actions:
            self._say(f"done: {action}")
        # A drive that showed itself only now is called otherwise than when it was not there.
        rows = {
            name: (wish, row)
            for wish, row in zip(wishes, outcome.state.rows)
            for name in (wish.address, row.drive.label)
        }
        opened = [name for name, (_wish, row) in rows.items() if isinstance(row, DriveState) and _is_open(row.found)]
        failures: list[Failure] = []
        for failure in outcome.plan.failures:
            wish, row = rows[failure.branch]
            if failure.branch in hand.withheld:
                failure = _withheld(failure.branch, origins[wish.address], self._refusals.path)
            elif isinstance(row, DriveState) and FOREIGN in row.holders.values():
                self._say(f"what '{failure.branch}' did not take is {origins[wish.address]}")
            elif wish.ours is None and _is_closed(row):
                failure = _bare(failure)
            failures.append(failure)
        return self.tell(failures, opened)


def _is_closed(row: Row) -> bool:
    """Whether it takes a password to open it."""
    return isinstance(row, DriveState) and row.found.enabled and (row.found.locked or row.found.shadowed)


def _unfetched(device: str, row: Row, error: StorageError) -> Failure:
    if isinstance(row, Fault):
        return Failure(device, f"{row.error.message} Nor could its password be fetched: {error.message}", error.hint)
    return Failure(device, error.message, error.hint)


def _withheld(label: str, origin: str, path: str) -> Failure:
    return Failure(
        label,
        f"It was offered {origin} since the host started, and did not take it as far as is known, so that was not "
        "offered again.",
        f"Put the right password there, or unlock the drive by the playbook unlock. {path} holds what was offered; "
        "remove it to offer the same once more.",
    )


def _bare(failure: Failure) -> Failure:
    return Failure(
        failure.branch,
        "Its password was not fetched, since it was open before; nothing was offered to it.",
        "Start this again.",
    )


def _is_open(found: Discovery) -> bool:
    """Whether a drive shows itself as one that can be read, which one that is no such drive for its host does not."""
    return found.locking and not found.locked and not found.shadowed


def _wait(runner: Runner, addresses: t.Sequence[str]) -> None:
    """Until all drives are there, or for a while: what is missing then is told of as missing."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        table = read_table(runner)
        known = drives(table)
        try:
            for address in addresses:
                find(table, known, address)
            return
        except BadInput:
            time.sleep(_PAUSE)
