# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unlocks drives when a host starts, before pools are imported; it runs without Ansible.

It is the program in the archive that the module sed_boot installs. It reads a file that only root can read, unlocks
what is locked, and prints a line for each drive. Drives whose passwords are in the file come first; only then, and only
if one of the others is locked, a KMIP server is asked.

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
from ..secrets import Key, Mask
from .boot_keys import Password, collect
from .boot_options import KEYS, Kmip, lock_params, parse_sources
from .boot_refused import Refusals
from .drive import drives, find
from .link import require_linux
from .native import Native
from .options import Wish, argument_spec, parse_wishes, secrets
from .read import Survey
from .state import FOREIGN, UNLOCKED, DriveState
from .task import Task

SETTINGS = "/etc/zfs/nasops-drives.json"
# Seconds in which drives are to show themselves.
_PATIENCE = 30.0
_PAUSE = 1.0
_LONGEST = 1 << 20

Say = t.Callable[[str], None]


def main(path: str = SETTINGS) -> None:
    """Unlock, and end the process."""
    try:
        require_linux()
        failures = unlock(load(path), _say)
    except StorageError as error:
        _say(f"no drive was unlocked: {error}")
        raise SystemExit(1) from None
    raise SystemExit(1 if failures else 0)


def _say(line: str) -> None:
    sys.stdout.write(f"nasops-unlock-drives: {line}\n")
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


def unlock(params: dict[str, t.Any], say: Say, refusals: Refusals | None = None) -> list[str]:
    """Unlock the drives, and tell of each; returns those that stay locked or can't be used yet.

    :raises StorageError: nothing could be done
    """
    sources = parse_sources(params)
    mask = Mask()
    for text in secrets(params):
        mask.add(Key("passphrase", text.encode("utf-8")))
    opening = _Opening(HostRunner(mask), mask, Native(params["hash"]), params["hash"], say)
    _wait(opening.runner, params["devices"])
    if sources.kmip is None:
        return opening.open(parse_wishes(params))
    locked: list[str] = []
    if sources.filed:
        wishes = parse_wishes(lock_params(params, sources.filed))
        locked += opening.tried(sources.filed, lambda: opening.open(wishes))
    kmip, notes = sources.kmip, refusals or Refusals()
    return [*locked, *opening.tried(tuple(kmip.objects), lambda: opening.open_by(kmip, notes))]


class _Opening:
    """What is used to open drives, and who is told of it."""

    def __init__(self, runner: Runner, mask: Mask, hand: Native, kind: str, say: Say) -> None:
        self.runner = runner
        self._mask = mask
        self._hand = hand
        self._kind = kind
        self._say = say

    def open(self, wishes: tuple[Wish, ...]) -> list[str]:
        """Open drives with the passwords in their wishes."""
        return self._open(wishes)[0]

    def open_by(self, kmip: Kmip, refusals: Refusals) -> list[str]:
        """Open drives with passwords from a server. It is asked for those of locked drives alone."""
        bare = {device: Wish(device, UNLOCKED) for device in kmip.objects}
        seen = Task(self.runner, self._hand, tuple(bare.values()), check_mode=True, trying=False).read()
        rows = dict(zip(bare, seen.rows))
        closed = {device: row for device, row in rows.items() if isinstance(row, DriveState) and _is_closed(row)}
        # Not within the lock: a person who is at the drives meanwhile need not wait for the server.
        fetched = collect(kmip, closed, self._kind, self._mask, kmip.wait, self._say) if closed else None
        passwords = dict(fetched.passwords) if fetched else {}
        faults = dict(fetched.faults) if fetched else {}
        for device, row in closed.items():
            if device in passwords and refusals.has(row.key, passwords[device].origin):
                faults[device] = _refused_before(passwords.pop(device), refusals.path)
        left = self.tell(Failure(device, error.message, error.hint) for device, error in faults.items())
        wishes = tuple(
            self._wish(device, passwords[device]) if device in passwords else wish
            for device, wish in bare.items()
            if device not in faults
        )
        if not wishes:
            return left
        locked, found = self._open(wishes)
        for wish, one in zip(wishes, found.rows):
            if wish.address in passwords and isinstance(one, DriveState) and FOREIGN in one.holders.values():
                origin = passwords[wish.address].origin
                self._say(f"what '{one.drive.label}' did not take is {origin}")
                refusals.add(one.key, origin)
        return [*left, *locked]

    def tried(self, devices: t.Sequence[str], work: t.Callable[[], list[str]]) -> list[str]:
        """Do this for some of the drives; what keeps all of them locked holds up no others."""
        try:
            return work()
        except StorageError as error:
            return self.tell(Failure(device, error.message, error.hint) for device in devices)

    def tell(self, failures: t.Iterable[Failure], found: Survey | None = None) -> list[str]:
        """Name the drives that stay locked or can't be used yet, with the reasons."""
        rows = found.rows if found is not None else ()
        opened = [row.drive.label for row in rows if isinstance(row, DriveState) and not _is_closed(row)]
        told: list[str] = []
        for failure in failures:
            self._say(f"'{failure.branch}' {'IS OPEN, BUT' if failure.branch in opened else 'STAYS LOCKED'}: {failure}")
            told.append(failure.branch)
        return told

    def _wish(self, device: str, password: Password) -> Wish:
        return parse_wishes(lock_params({"password": password.text, "hash": self._kind}, (device,)))[0]

    def _open(self, wishes: tuple[Wish, ...]) -> tuple[list[str], Survey]:
        task = Task(self.runner, self._hand, wishes)
        with exclusive():
            outcome = converge(task.read, task.plan, self.runner, False, task.read_again)
        for action in outcome.plan.actions:
            self._say(f"done: {action}")
        return self.tell(outcome.plan.failures, outcome.state), outcome.state


def _is_closed(state: DriveState) -> bool:
    """Whether it takes a password to open it."""
    found = state.found
    return found.enabled and (found.locked or found.shadowed)


def _refused_before(password: Password, path: str) -> StorageError:
    return Refused(
        f"It has refused {password.origin} since the host started, so that was not offered again.",
        hint=f"Put the right password there, as another object, or unlock the drive by the playbook unlock. {path} "
        "holds what was refused; remove it to offer the same once more.",
    )


def _wait(runner: Runner, addresses: t.Sequence[str]) -> None:
    """Until all drives are there, or for a while: what is missing then is told of as missing."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        table = read_table(runner)
        known = drives(table)
        try:
            for address in addresses:
                find(table, known, address)
            return
        except BadInput:
            time.sleep(_PAUSE)
