# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task that sends streams does around its plan, whatever it sends them for."""

from __future__ import annotations

import contextlib
import datetime
import typing as t

from ..entry import Module, fail, finish, protect
from ..errors import StorageError
from ..lock import exclusive, lock_of
from ..plan import Plan, State, converge
from ..remote import connected
from ..secrets import Key, Mask
from .replicate_options import STAMP, Replication
from .replicate_plan import takes_snapshot
from .replicate_progress import ProgressFile
from .replicate_reader import ended_with_its_reader
from .replicate_run import ReplicaRunner, end_in_order
from .replicate_state import Ends
from .state import require_root

# Seconds. Whoever else sends to the same target may be at it for a day.
_PATIENCE = 10.0


def stamp() -> str:
    """The present time, for the name of a snapshot."""
    return datetime.datetime.now(datetime.timezone.utc).strftime(STAMP)


def run(
    module: Module,
    wanted: Replication,
    keys: t.Iterable[Key],
    look: t.Callable[[ReplicaRunner, str], State],
    seen: t.Callable[[State], tuple[Replication, Ends]],
    decide: t.Callable[[State], Plan],
    describe: t.Callable[[State], dict[str, t.Any]],
) -> t.NoReturn:
    """Read both ends, plan, send, and end the module. Unless in check mode, nobody else sends to the target meanwhile.

    :param keys: what must not show up anywhere
    :param look: reads what is decided on; is told the name of the snapshot that was sent, "" before that
    :param seen: both ends in it, and what is wanted of them as things are
    :param describe: the result, but for the snapshot and the streams
    """
    try:
        require_root()
        progress = ProgressFile(None if module.check_mode else module.params["progress_file"])
    except StorageError as error:
        fail(module, error)
    mask = Mask()
    protect(module, mask, keys)
    runner = ReplicaRunner(mask, progress)
    end_in_order()

    def read(taken: str = "") -> State:
        state = look(runner, taken)
        protect(module, mask, [file.key for file in seen(state)[1].target.key_files.values()])
        return state

    def read_again(before: State, done: Plan) -> State:
        # What is written to the source meanwhile is for the next run.
        return read(_goal(*seen(before), done))

    try:
        with ended_with_its_reader(), contextlib.ExitStack() as held:
            held.callback(progress.close)
            if not module.check_mode:
                runner.lock = _lock_file(wanted)
                held.enter_context(exclusive(runner.lock, _PATIENCE))
            if wanted.ssh is not None:
                runner.target = held.enter_context(connected(runner, wanted.ssh))
            outcome = converge(read, decide, runner, module.check_mode, read_again)
            described = {"snapshot": _newest(*seen(outcome.state), outcome.plan), **describe(outcome.state)}
    except StorageError as error:
        error.details["sent"] = _sent(runner)
        fail(module, error)
    finish(module, outcome, lambda _outcome: {**described, "sent": _sent(runner)})


def _sent(runner: ReplicaRunner) -> list[dict[str, t.Any]]:
    return [one.row() for one in runner.sent]


def _goal(wanted: Replication, ends: Ends, done: Plan) -> str:
    """The snapshot that a plan has brought the target up to, "" where no snapshots are looked at."""
    if ends.taken:
        return ends.taken
    return wanted.new_snapshot if takes_snapshot(done) else _last(wanted, ends)


def _newest(wanted: Replication, ends: Ends, plan: Plan) -> str | None:
    """The snapshot that the target is, or will be, brought up to; None if it is still to be taken, or none can be."""
    if ends.taken:
        return ends.taken
    if takes_snapshot(plan) or not ends.source.of(wanted.source):
        return None
    return _last(wanted, ends) or None


def _last(wanted: Replication, ends: Ends) -> str:
    if wanted.heads:
        return ""
    return wanted.snapshot or ends.source.of(wanted.source)[-1].name


def _lock_file(wanted: Replication) -> str:
    """One for each target, since a stream may take days, in which other tasks go on."""
    return lock_of(f"{wanted.ssh.host if wanted.ssh else ''}:{wanted.target}")
