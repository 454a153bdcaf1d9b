# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what a preview of an unlock needs: key files, mountpoints, and whether each key fits."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..command import Command, CommandError, Runner
from ..errors import StorageError
from ..secrets import Key
from . import keystore
from .keys import RootKey
from .names import ancestors
from .offers import Offers
from .state import Dataset, mount_obstacle, read_datasets, run_zfs
from .unlock_preview import (
    Answer,
    Candidate,
    Preview,
    Verdict,
    candidates,
    files_to_read,
    judge,
    mountpoints,
    preview,
)

# What the wrapping key of a passphrase is made with, besides what every reader asks for.
DERIVATION = ("pbkdf2salt",)

TryAll = t.Callable[[t.Sequence[RootKey]], t.Sequence[Answer]]


@dataclass(frozen=True)
class Trial:
    """How the keys are tried: ``own_files`` tells whether the key files of the roots themselves are tried too.

    ``hide`` is told all keys before the first of them is used.
    """

    offers: Offers
    own_files: bool
    try_all: TryAll
    hide: t.Callable[[t.Iterable[Key]], None]


def foresee(
    runner: Runner, trial: Trial, datasets: t.Mapping[str, Dataset], roots: t.Iterable[str]
) -> tuple[dict[str, Verdict], dict[str, Preview]]:
    """Which keys fit, and how an unlock would end; nothing is loaded.

    :param datasets: what was read, with what lies above
    :param roots: the names of the roots that would be unlocked
    """
    targets = [datasets[name] for name in roots]
    found = read_candidates(runner, targets, trial.offers, trial.own_files)
    trial.hide(candidate.key for tries in found.values() for candidate in tries if candidate.key is not None)
    tries = try_in_turn(runner, trial.try_all, targets, found)
    verdicts = {root.name: judge(root.name, root.locked, tries[root.name]) for root in targets}
    return verdicts, preview(datasets, verdicts, _read_obstacles(datasets, verdicts))


def read_above(
    runner: Runner, datasets: t.Mapping[str, Dataset], name: str | None, properties: t.Sequence[str]
) -> dict[str, Dataset]:
    """The datasets above those that were read, and the encryption roots that lie elsewhere: none if all was read."""
    outside = [dataset.root for dataset in datasets.values() if dataset.encrypted and dataset.root not in datasets]
    wanted = dict.fromkeys(ancestors(name or ""))
    for root in dict.fromkeys(outside):
        wanted.update(dict.fromkeys((root, *ancestors(root))))
    missing = [one for one in wanted if one not in datasets]
    return read_datasets(runner, missing, properties) if missing else {}


def read_candidates(
    runner: Runner, roots: t.Sequence[Dataset], offers: Offers, own_files: bool
) -> dict[str, tuple[Candidate, ...]]:
    """The keys to try for each root, with those that are in files read from there."""
    wanted = list(
        dict.fromkeys(
            (path, root.value("keyformat"), False) for root in roots for path in files_to_read(root, offers, own_files)
        )
    )
    files: dict[str, dict[str, keystore.KeyFile]] = {}
    for (path, key_format, _strict), found in zip(wanted, keystore.read_many(runner, wanted)):
        files.setdefault(key_format, {})[path] = found
    return {root.name: candidates(root, offers, files.get(root.value("keyformat"), {}), own_files) for root in roots}


def try_in_turn(
    runner: Runner,
    try_all: TryAll,
    roots: t.Sequence[Dataset],
    found: t.Mapping[str, t.Sequence[Candidate]],
) -> dict[str, list[tuple[Candidate, Answer | None]]]:
    """Try the keys, for all roots at once; the next one of a root only where the one before does not fit."""
    tries: dict[str, list[tuple[Candidate, Answer | None]]] = {root.name: [] for root in roots}
    waiting = list(roots)
    depth = 0
    while waiting:
        waiting = [root for root in waiting if len(found[root.name]) > depth]
        answers = _answers(runner, try_all, [(root, found[root.name][depth]) for root in waiting])
        for root, answer in zip(waiting, answers):
            tries[root.name].append((found[root.name][depth], answer))
        waiting = [root for root, answer in zip(waiting, answers) if answer is not True]
        depth += 1
    return tries


def _answers(runner: Runner, try_all: TryAll, wanted: t.Sequence[tuple[Dataset, Candidate]]) -> list[Answer | None]:
    keys = [_root_key(root, candidate.key) for root, candidate in wanted if candidate.key is not None]
    tried = iter(try_all(keys) if keys else ())
    answers: list[Answer | None] = []
    for root, candidate in wanted:
        if candidate.key is not None:
            answers.append(next(tried))
        else:
            answers.append(_try_by_zfs(runner, root.name) if candidate.by_zfs else None)
    return answers


def _root_key(root: Dataset, key: Key) -> RootKey:
    iterations, salt = root.value("pbkdf2iters"), root.value("pbkdf2salt")
    if key.format != "passphrase":
        return RootKey(root.name, key, None, None)
    return RootKey(
        root.name, key, int(iterations) if iterations.isdigit() else None, int(salt) if salt.isdigit() else None
    )


def _try_by_zfs(runner: Runner, root: str) -> Answer:
    """Let ZFS fetch the key itself; its address may hold a password, so it is in no argument."""
    try:
        run_zfs(runner, Command(("zfs", "load-key", "-n", root)))
    except CommandError as error:
        return False if "Incorrect key provided" in error.result.stderr else error
    except StorageError as error:
        return error
    return True


def _read_obstacles(datasets: t.Mapping[str, Dataset], roots: t.Container[str]) -> dict[str, str]:
    """What is in the way of the mounts that an unlock of these roots would make."""
    found = ((path, mount_obstacle(path)) for path in mountpoints(datasets.values(), roots))
    return {path: text for path, text in found if text}
