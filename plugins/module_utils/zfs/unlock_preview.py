# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an unlock would do, told without doing it: which keys it would try, and what would keep a root locked.

The rules are those of the encryption summary of TrueNAS, and so are the short texts.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput, StorageError
from ..secrets import Key
from . import keystore
from .keystore import KeyFile
from .names import ancestors, folders_from, within
from .offers import Offer, Offers, doubt
from .state import Dataset

# Whether a key fits, or what kept from finding out.
Answer = t.Union[bool, StorageError]

NOT_PROVIDED = "Key not provided"
INVALID = "Provided key is invalid"
NOT_TRIED = "Provided key could not be tried"


@dataclass(frozen=True)
class Candidate:
    """A key that an unlock would try. Without a ``key``, ``fault`` tells why there is none to try.

    ``by_zfs``: ZFS itself has to fetch the key, from a URL. ``missing``: there is no such file.
    """

    origin: str
    key: Key | None = field(default=None, repr=False)
    by_zfs: bool = False
    missing: bool = False
    fault: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class Verdict:
    """What came of the keys for one root.

    ``valid`` is ``None`` when it is not known. ``problem`` is what keeps the root locked, in the words of TrueNAS;
    ``error`` tells more of it.
    """

    valid: bool | None
    origin: str | None = None
    problem: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Preview:
    """How an unlock of one root would end."""

    successful: bool
    error: str | None = None


def key_files(root: Dataset) -> tuple[str, ...]:
    """The files that an unlock looks for without being told, in this order."""
    path = keystore.path_of(root.value("keylocation"))
    return () if path is None else keystore.key_files_for(path)


def is_key_present(root: Dataset, offers: Offers, exists: t.Callable[[str], bool]) -> bool:
    """Whether an unlock would have a key to try, good or not."""
    if any(offer.file is None or exists(offer.file) for offer in offers.of(root.name)):
        return True
    if offers.alone(root.name):
        return False
    return _fetched_by_zfs(root) or any(exists(path) for path in key_files(root))


def files_to_read(root: Dataset, offers: Offers, own_files: bool) -> t.Iterator[str]:
    """The key files one has to read to know the candidates of a root."""
    for offer in offers.of(root.name):
        if offer.file is not None:
            yield offer.file
    if own_files and not offers.alone(root.name):
        yield from key_files(root)


def candidates(root: Dataset, offers: Offers, files: t.Mapping[str, KeyFile], own_files: bool) -> tuple[Candidate, ...]:
    """The keys that an unlock would try, in this order.

    A key given for the root by its name is the only one. Otherwise the one that is offered for all below a dataset
    comes first, and then the key files of the root itself.

    :param files: what was read, by path
    :param own_files: whether to try the root's own key files
    """
    found = [_offered(offer, root.value("keyformat"), files) for offer in offers.of(root.name)]
    if own_files and not offers.alone(root.name):
        if _fetched_by_zfs(root):
            found.append(Candidate(keystore.describe_location(root.value("keylocation")), by_zfs=True))
        found += [_from_file(path, files[path]) for path in key_files(root)]
    return tuple(found)


def _fetched_by_zfs(root: Dataset) -> bool:
    return root.value("keylocation").startswith(("http://", "https://"))


def _offered(offer: Offer, key_format: str, files: t.Mapping[str, KeyFile]) -> Candidate:
    if offer.file is not None:
        return _from_file(offer.origin, files[offer.file])
    try:
        key = offer.key_for(key_format)
    except BadInput as error:
        return Candidate(offer.origin, fault=str(error))
    return Candidate(offer.origin, key, doubt=doubt(key, offer.origin))


def _from_file(origin: str, file: KeyFile) -> Candidate:
    if not file.exists:
        return Candidate(origin, missing=True, fault=f"The key file {file.path} does not exist.")
    if file.key is None:
        # A fault found in the content names the file already.
        named = file.fault.startswith("The key file ")
        return Candidate(origin, fault=file.fault if named else f"The key file {file.path}: {file.fault}.")
    return Candidate(origin, file.key, doubt=doubt(file.key, origin))


def judge(root: str, locked: bool, tries: t.Sequence[tuple[Candidate, Answer | None]]) -> Verdict:
    """What the answers mean for a root.

    :param tries: the candidates with their answers, ``None`` for those that were not tried
    """
    for candidate, answer in tries:
        if answer is True:
            return Verdict(True, candidate.origin)
    for candidate, answer in tries:
        if isinstance(answer, StorageError):
            error = f"Whether the key from {candidate.origin} opens '{root}' could not be found out: {answer}"
            return Verdict(None, candidate.origin, NOT_TRIED, error)
    wrong = [candidate for candidate, answer in tries if answer is False]
    faulty = [candidate for candidate, _answer in tries if candidate.fault and not candidate.missing]
    if wrong or faulty:
        errors = [f"The key from {one.origin} is not the one that opens '{root}'. {one.doubt}".strip() for one in wrong]
        errors += [one.fault for one in faulty]
        return Verdict(False, (wrong + faulty)[0].origin, INVALID, " ".join(errors))
    missing = next((candidate.fault for candidate, _answer in tries if candidate.missing), None)
    if not locked:
        return Verdict(None, None, NOT_PROVIDED, missing)
    nothing = f"No key is offered for '{root}', and it has none of its own on this host."
    return Verdict(False, None, NOT_PROVIDED, missing or nothing)


def preview(
    datasets: t.Mapping[str, Dataset], verdicts: t.Mapping[str, Verdict], obstacles: t.Mapping[str, str]
) -> dict[str, Preview]:
    """How an unlock of these roots would end, parents first, as ``zfs_dataset_key`` does it.

    :param datasets: what was read, the datasets above included
    :param verdicts: of the roots to unlock, by name
    :param obstacles: what is in the way of a mount, by mountpoint
    """
    forecast = _Forecast(datasets, verdicts, obstacles)
    for root in sorted(verdicts, key=lambda name: (name.count("/"), name)):
        forecast.settle(root)
    return forecast.previews


def mountpoints(datasets: t.Iterable[Dataset], roots: t.Container[str]) -> list[str]:
    """Where an unlock of these roots would mount something."""
    waiting = (one for one in datasets if one.locked and one.root in roots and _is_waiting(one))
    return list(dict.fromkeys(one.value("mountpoint") for one in waiting))


def _is_waiting(dataset: Dataset) -> bool:
    return dataset.mountable() and not dataset.mounted


def columns(locked: bool, verdict: Verdict | None, end: Preview | None, present: bool | None) -> dict[str, t.Any]:
    """What a row says of the keys for a root; without a verdict, no key was tried."""
    return {
        "key_present": present,
        "valid_key": verdict.valid if verdict else None,
        "key_origin": verdict.origin if verdict else None,
        "key_error": verdict.error if verdict else None,
        "unlock_successful": end.successful if end else None if locked else True,
        "unlock_error": end.error if end else None,
    }


def useless(
    offers: Offers, datasets: t.Mapping[str, Dataset], complete: t.Callable[[str], bool]
) -> list[dict[str, str]]:
    """The keys that are given for no encryption root, with the reason.

    :param complete: whether a name would have been read if it existed
    """
    found: list[dict[str, str]] = []
    for name in sorted(offers.explicit):
        dataset = datasets.get(name)
        if dataset is None:
            reason = "does not exist" if complete(name) else ""
        elif dataset.is_root or any(offer.recursive for offer in offers.explicit[name]):
            reason = ""
        else:
            reason = f"uses the key of '{dataset.root}'" if dataset.encrypted else "is not encrypted"
        if reason:
            found.append({"name": name, "reason": reason})
    return found


class _Forecast:
    """The roots whose end is known so far; one is settled after those it depends on."""

    def __init__(
        self, datasets: t.Mapping[str, Dataset], verdicts: t.Mapping[str, Verdict], obstacles: t.Mapping[str, str]
    ) -> None:
        self.previews: dict[str, Preview] = {}
        self._datasets = datasets
        self._verdicts = verdicts
        self._obstacles = obstacles
        self._members: dict[str, list[Dataset]] = {}
        for dataset in datasets.values():
            if dataset.encrypted:
                self._members.setdefault(dataset.root, []).append(dataset)
        self._held: dict[str, bool] = {}
        self._mounting: set[str] = set()

    def settle(self, root: str) -> None:
        if root in self._held:
            return
        # Only until it is known: clones may let roots depend on each other in a circle.
        self._held[root] = False
        if not self._locked(root):
            self.previews[root] = Preview(True)
            return
        verdict = self._verdicts[root]
        texts: list[str] = []
        above = self._held_above(root)
        if above:
            texts.append(f'Child cannot be unlocked when parent "{above}" is locked')
        refused, mounting = self._mounts(root)
        texts += refused.values()
        # Clones elsewhere are mounted by themselves, and decide nothing.
        own = [one.value("mountpoint") for one in self._members[root] if within(one.name, (root,))]
        nothing = any(one in refused for one in own) and not any(one in mounting for one in own)
        self._held[root] = bool(above) or verdict.valid is not True or nothing
        if not self._held[root]:
            self._mounting |= mounting
        if verdict.problem and not (texts and verdict.problem == NOT_PROVIDED):
            texts.append(verdict.problem[:1].lower() + verdict.problem[1:] if texts else verdict.problem)
        self.previews[root] = Preview(not texts, " and ".join(texts) or None)

    def _held_above(self, root: str) -> str:
        """The topmost encryption root above that stays locked, "" if there is none."""
        for name in reversed(list(ancestors(root))):
            dataset = self._datasets.get(name)
            if dataset is not None and dataset.encrypted and dataset.root != root and self._stays_locked(dataset.root):
                return dataset.root
        return ""

    def _stays_locked(self, root: str) -> bool:
        if root not in self._verdicts:
            return self._locked(root)
        self.settle(root)
        return self._held[root]

    def _locked(self, root: str) -> bool:
        return self._members[root][0].locked

    def _mounts(self, root: str) -> tuple[dict[str, str], set[str]]:
        """By mountpoint what can't be mounted, in words, and the mountpoints of what can."""
        refused: dict[str, str] = {}
        blocked: set[str] = set()
        mounting: set[str] = set()
        waiting = [one for one in self._members[root] if _is_waiting(one)]
        for dataset in sorted(waiting, key=lambda one: (one.value("mountpoint"), one.name)):
            mountpoint = dataset.value("mountpoint")
            folders = set(folders_from(mountpoint))
            if folders & blocked:
                continue
            # What is in a mountpoint below another one shows only when that one is mounted.
            hidden = bool(folders & (mounting | self._mounting))
            obstacle = "" if hidden else self._obstacles.get(mountpoint, "")
            if obstacle:
                blocked.add(mountpoint)
                refused[mountpoint] = f"'{dataset.name}' cannot be mounted: {obstacle}"
            else:
                mounting.add(mountpoint)
        return refused, mounting
