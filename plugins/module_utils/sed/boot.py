# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unlocks drives when a host starts, before pools are imported; it runs without Ansible.

It is the program in the archive that the module sed_boot installs. It reads a file that only root can read, unlocks
what is locked, and prints a line for each drive.

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
from ..plan import converge
from ..secrets import Key, Mask
from .discovery import Discovery
from .drive import drives, find
from .link import require_linux
from .native import Native
from .options import argument_spec, parse_wishes, secrets
from .state import UNLOCKED, DriveState
from .task import Task

SETTINGS = "/etc/zfs/nasops-drives.json"
# What the file holds, by the names of the options of the module sed_lock.
KEYS = ("devices", "password", "passwords", "hash")
# Seconds in which drives are to show themselves.
_PATIENCE = 30.0
_PAUSE = 1.0
_LONGEST = 1 << 20


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
    """The settings, as options of the module sed_lock.

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
    return {**defaults, **found, "state": UNLOCKED}


def unlock(params: dict[str, t.Any], say: t.Callable[[str], None]) -> list[str]:
    """Unlock the drives, and tell of each; returns those that stay locked or can't be used yet.

    :raises StorageError: nothing could be done
    """
    wishes = parse_wishes(params)
    mask = Mask()
    for text in secrets(params):
        mask.add(Key("passphrase", text.encode("utf-8")))
    runner = HostRunner(mask)
    _wait(runner, [wish.address for wish in wishes])
    task = Task(runner, Native(params["hash"]), wishes)
    with exclusive():
        outcome = converge(task.read, task.plan, runner, False, task.read_again)
    for action in outcome.plan.actions:
        say(f"done: {action}")
    opened = [row.drive.label for row in outcome.state.rows if isinstance(row, DriveState) and _is_open(row.found)]
    for failure in outcome.plan.failures:
        say(f"'{failure.branch}' {'IS OPEN, BUT' if failure.branch in opened else 'STAYS LOCKED'}: {failure}")
    return [failure.branch for failure in outcome.plan.failures]


def _is_open(found: Discovery) -> bool:
    """Whether a drive shows itself as one that can be read, which one that is no such drive for its host does not."""
    return found.locking and not found.locked and not found.shadowed


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
