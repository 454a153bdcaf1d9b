# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the plan for datasets needs: two processes, and then what the planner asks for, round by round."""

from __future__ import annotations

import contextlib
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ..errors import StorageError
from ..plan import Change, Plan
from . import keystore
from .dataset import plan_datasets
from .dataset_actions import DERIVATION, NODE_PATIENCE, CreateVolume, MountAll, free_name, root_key
from .dataset_options import WantedDataset, Wishes
from .dataset_state import (
    DatasetHost,
    FindPlaces,
    HasReceivedValues,
    Identify,
    ListSnapshots,
    LookAt,
    Obstacle,
    PoolFacts,
    Question,
    ReadKeyFile,
    ReadKeyLocations,
    Snapshot,
    TryKey,
)
from .keys import ZfsRunner
from .mount_table import places_of
from .state import (
    MOUNT_PROPERTIES,
    Dataset,
    NoSuchDataset,
    lines_of_many,
    mount_obstacle,
    read_datasets,
    read_pool_properties,
    require_root,
)

# Bytes of names in the arguments of one process; Linux and FreeBSD take several times as many.
_MOST_ARGUMENTS = 200_000

_KEY_LOCATION = ("encryption", "encryptionroot", "keylocation")


@dataclass(frozen=True)
class Survey:
    """A host as it was read, and the plan that was made for it."""

    host: DatasetHost
    plan: Plan


def survey(runner: ZfsRunner, wishes: Wishes, folder: str = keystore.DEFAULT_FOLDER) -> Survey:
    """Read a host and plan, asking for more until the plan is good.

    :raises StorageError: ZFS can't be asked
    """
    return _plan(runner, wishes, read_host(runner, wishes, folder))


def survey_again(runner: ZfsRunner, wishes: Wishes, before: Survey, done: Plan) -> Survey:
    """The host after a plan was carried out, and what is left to do.

    If nothing but locks, mounts and keys was changed, only the datasets concerned are read again: reading all of a pool
    with a thousand of them can take longer than unlocking them.

    :raises StorageError: ZFS can't be asked
    """
    told = (*_moved_aside(done), *_without_nodes(done))
    try:
        ahead = {one.branch for one in done.postponed} - {step.branch for step in done.steps}
        settled = wishes.settled(ahead)
        found = _plan(runner, settled, _read_again(runner, settled, before))
    except StorageError as error:
        error.message = " ".join((error.message, *told))
        raise
    return replace(found, plan=replace(found.plan, warnings=(*found.plan.warnings, *told)))


def _moved_aside(done: Plan) -> t.Iterator[str]:
    """What the plan could not name."""
    moved = [one for step in done.steps if isinstance(step.action, MountAll) for one in step.action.moved]
    if moved:
        yield f"Moved aside, since it was in the way of a mount: {', '.join(moved)}."


def _without_nodes(done: Plan) -> t.Iterator[str]:
    """Volumes that were created, and can't be used by their names yet."""
    missing = [one for step in done.steps if isinstance(step.action, CreateVolume) for one in step.action.missing]
    if missing:
        yield (
            f"Created, but without a device node after {NODE_PATIENCE:.0f} seconds: {', '.join(missing)}. If this host "
            "is to have them, see 'udevadm settle' and the kernel log (vfs.zfs.vol.mode on FreeBSD)."
        )


def _read_again(runner: ZfsRunner, wishes: Wishes, before: Survey) -> DatasetHost:
    return _read_concerned(runner, wishes, before) or read_host(runner, wishes, before.host.folder)


def _read_concerned(runner: ZfsRunner, wishes: Wishes, before: Survey) -> DatasetHost | None:
    """The host with what its plan was to change; ``None`` if all of it has to be read."""
    # A step that failed may have done something, too.
    changes = [change for step in before.plan.steps for change in step.changes]
    if not all(_is_narrow(one) for one in changes):
        return None
    names = _names_concerned(wishes, before.host, changes)
    if sum(len(name) for name in names) > _MOST_ARGUMENTS:
        return None
    host = replace(before.host, pools=_read_pools(runner), stored=keystore.names_in(before.host.folder))
    if host.silent_pools() != before.host.silent_pools():
        return None
    asked = tuple(dict.fromkeys(_properties(wishes.datasets)))

    def read() -> dict[str, Dataset]:
        return {**host.datasets, **(read_datasets(runner, names, asked) if names else {})}

    try:
        return _read_and_answer(runner, wishes, host, read)
    except NoSuchDataset:
        # Somebody else destroyed it meanwhile.
        return None


# Values of a dataset that ZFS changes for it alone, or also for the datasets that use its key.
_NARROW = ("locked", "mounted", "key", "keyformat", "keylocation", "pbkdf2iters")


def _is_narrow(change: Change) -> bool:
    """Whether it is known of which datasets something has changed: not so where a root comes or goes, or a dataset."""
    kind, *place = change.path
    return kind == "key_files" or (kind == "datasets" and len(place) == 2 and place[1] in _NARROW)


def _names_concerned(wishes: Wishes, host: DatasetHost, changes: t.Sequence[Change]) -> tuple[str, ...]:
    places = [change.path[1:] for change in changes if change.path[0] == "datasets"]
    rewrapped = {name for name, what in places if what == "key"}
    described = (one.name for one in wishes.datasets if one.name in host.datasets)
    using = (name for name, one in host.datasets.items() if one.root in rewrapped)
    return tuple(dict.fromkeys((*described, *(name for name, _what in places), *using)))


def _plan(runner: ZfsRunner, wishes: Wishes, host: DatasetHost) -> Survey:
    plan, questions = plan_datasets(wishes, host)
    while questions:
        host = replace(host, answers={**host.answers, **_answer(runner, host, questions)})
        plan, questions = plan_datasets(wishes, host)
    return Survey(host, plan)


def read_host(runner: ZfsRunner, wishes: Wishes, folder: str) -> DatasetHost:
    """The pools and all datasets in those that the task is about."""
    require_root()
    host = DatasetHost(_read_pools(runner), {}, folder, keystore.names_in(folder))
    named = dict.fromkeys(one.name.split("/")[0] for one in wishes.datasets)
    asked = [name for name in named if host.reachable(name)]
    if not asked:
        return host
    wanted = tuple(_properties(wishes.datasets))
    return _read_and_answer(runner, wishes, host, lambda: read_datasets(runner, asked, wanted, recursive=True))


def _read_pools(runner: ZfsRunner) -> dict[str, PoolFacts]:
    return {
        name: PoolFacts(
            values["health"].value,
            values["readonly"].value == "on",
            values["altroot"].value if values["altroot"].value.startswith("/") else "",
        )
        for name, values in read_pool_properties(runner, ("readonly",)).items()
    }


def _read_and_answer(
    runner: ZfsRunner, wishes: Wishes, host: DatasetHost, read: t.Callable[[], dict[str, Dataset]]
) -> DatasetHost:
    """The host with the datasets that are read, and meanwhile with the answers to what will be asked in any case.

    Reading the state keeps one process busy.
    """
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(_answer_ahead, runner, host, wishes)
        datasets = read()
    return replace(host, datasets=datasets, answers=ahead.result())


def _answer_ahead(runner: ZfsRunner, host: DatasetHost, wishes: Wishes) -> dict[Question, t.Any]:
    # Planning asks once more for what could not be found out, and tells what is wrong.
    with contextlib.suppress(StorageError):
        return _answer(runner, host, list(_foreseen(wishes, host)))
    return {}


def _foreseen(wishes: Wishes, host: DatasetHost) -> t.Iterator[Question]:
    """What planning asks first, as far as options alone tell."""
    for one in wishes.datasets:
        if one.state == "present" and one.key is not None and one.key.file and host.reachable(one.name):
            # Without a format it is that of the present key.
            yield ReadKeyFile(one.key.file, one.key.format or "hex")


def _properties(wanted: t.Sequence[WantedDataset]) -> t.Iterator[str]:
    yield from (*MOUNT_PROPERTIES, *DERIVATION, "origin", "volmode")
    if any(one.state in ("present", "inherited") for one in wanted):
        yield from ("creation", "createtxg", "inconsistent")
    if any(one.state == "present" for one in wanted):
        yield from ("volsize", "volblocksize")
    for one in wanted:
        yield from one.properties


def _answer(runner: ZfsRunner, host: DatasetHost, questions: t.Sequence[Question]) -> dict[Question, t.Any]:
    answers: dict[Question, t.Any] = {}
    keys = [one for one in questions if isinstance(one, TryKey)]
    if keys:
        candidates = [root_key(host.datasets[one.root], one.key) for one in keys]
        answers.update(zip(keys, runner.keys.try_all(candidates)))
    files = [one for one in questions if isinstance(one, ReadKeyFile)]
    if files:
        found = keystore.read_many(runner, [(one.path, one.key_format, one.strict) for one in files])
        answers.update(zip(files, found))
    for question in questions:
        if isinstance(question, LookAt):
            answers[question] = _look_at(question.mountpoint)
        elif isinstance(question, Identify):
            answers[question] = {path: keystore.identify(path) for path in question.paths}
        elif isinstance(question, FindPlaces):
            answers[question] = places_of(runner, question.names)
        elif isinstance(question, ReadKeyLocations):
            elsewhere = read_datasets(runner, question.pools, _KEY_LOCATION, recursive=True)
            answers[question] = {one.name: one.value("keylocation") for one in elsewhere.values() if one.is_root}
    listed = [one for one in questions if isinstance(one, ListSnapshots)]
    if listed:
        answers.update(_snapshots(runner, listed))
    received = [one for one in questions if isinstance(one, HasReceivedValues)]
    if received:
        argv = ("zfs", "get", "-Hp", "-s", "received", "-o", "name", "all")
        having = frozenset(lines_of_many(runner, argv, [one.dataset for one in received]))
        answers.update({one: one.dataset in having for one in received})
    return answers


def _look_at(mountpoint: str) -> Obstacle:
    text = mount_obstacle(mountpoint)
    return Obstacle(text, free_name(mountpoint) if text else "")


def _snapshots(runner: ZfsRunner, questions: t.Sequence[ListSnapshots]) -> dict[Question, t.Any]:
    """The snapshots of many datasets, in one process for each core."""
    argv = ("zfs", "list", "-Hp", "-t", "snapshot", "-o", "creation,createtxg,name", "-d", "1")
    found: dict[str, list[Snapshot]] = {one.dataset: [] for one in questions}
    for line in lines_of_many(runner, argv, tuple(found)):
        creation, createtxg, name = line.split("\t", 2)
        found[name.split("@")[0]].append(Snapshot(int(creation), int(createtxg)))
    return {question: tuple(found[question.dataset]) for question in questions}


def secrets_of(host: DatasetHost) -> t.Iterator[t.Any]:
    """The keys that were read from files."""
    for answer in host.answers.values():
        if isinstance(answer, keystore.KeyFile) and answer.key is not None:
            yield answer.key
