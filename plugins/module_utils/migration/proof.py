# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that the target is closed without its key, and open with the key that is kept."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass, field

from ..command import Command, CommandError, Runner
from ..errors import Refused, StorageError
from ..secrets import Key
from ..zfs.names import ancestors, lies_below, within
from ..zfs.state import ENCRYPTION_PROPERTIES, Dataset, key_opens, read_datasets, run_zfs
from .options import Migration
from .state import Found

PROMPT = "prompt"
# Tries to unload a key, and seconds between them: the kernel still writes for a moment.
_TRIES, _PAUSE = 20, 0.5
# Bytes of a stream that are read. More than its first record has to come, which tells nothing of the data.
_ENOUGH = 65536
_FIRST_RECORD = 312

# Both read, and give nothing back but a number. zfs is told that nobody listens any more when enough has come.
_TRY = 'zfs send "$1" 2>/dev/null | head -c ' + str(_ENOUGH) + " | wc -c"


@dataclass(frozen=True)
class ProofKey:
    """The key that is kept: itself, or where it is kept at the target (a keylocation)."""

    location: str
    key: Key | None = field(default=None, repr=False)


def own_keys_of_proof(found: Found) -> dict[str, ProofKey]:
    """The keys of what has its own below the target, by the dataset of the source."""
    return {name: ProofKey(key.location, key.by_hand) for name, key in found.wanted.keys.items()}


def key_of_proof(wanted: Migration, found: Found) -> ProofKey | None:
    """The key that the target is to be opened with, None if nothing is known of it."""
    given = wanted.proof_key
    if given is None and (found.target is None or found.target.is_root):
        given = wanted.replication.key
    if given is not None:
        return ProofKey(given.location, given.by_hand)
    location = "none" if found.root is None else found.root.location
    return ProofKey(location) if "://" in location else None


@dataclass(frozen=True)
class LockProof:
    """Locks an encryption root for a moment. Whatever happens, it is opened again, and what was mounted is mounted.

    ``snapshot`` is one of the target that is read: without the key that has to fail, with it to succeed.
    """

    root: str
    target: str
    snapshot: str
    proof: ProofKey

    def __call__(self, runner: Runner) -> None:
        self._test(runner)
        found = read_datasets(runner, (self.root,), ENCRYPTION_PROPERTIES, True)
        users = [one for one in found.values() if one.root == self.root]
        mounted = order_to_unmount(users, [one for one in found.values() if one.root != self.root], self.target)
        unmounted: list[str] = []
        try:
            for name in mounted:
                _run(runner, ("zfs", "unmount", name), "It is in use: see 'fuser -m'. Nothing was locked.")
                unmounted.append(name)
            self._unload(runner)
            try:
                self._see_closed(runner, users)
            finally:
                self._load(runner)
        finally:
            _mount_again(runner, unmounted)
        self._see_open(runner)

    def _stdin(self) -> bytes | None:
        return None if self.proof.key is None else self.proof.key.stdin()

    def _test(self, runner: Runner) -> None:
        """Never lock what could not be opened again."""
        if not key_opens(runner, self.root, self._stdin(), self.proof.location):
            raise Refused(
                f"The key that is to be kept ({_words(self.proof)}) is not the one that opens '{self.root}'. It was "
                "not locked.",
                hint="Before this key is found, nothing else is: keep the source.",
            )

    def _unload(self, runner: Runner) -> None:
        for left in reversed(range(_TRIES)):
            try:
                run_zfs(runner, Command(("zfs", "unload-key", self.root)))
                return
            except CommandError as error:
                if left and "is busy" in error.result.stderr:
                    time.sleep(_PAUSE)
                    continue
                error.hint = f"Something uses what the key of '{self.root}' opens, such as a volume or a clone."
                raise

    def _see_closed(self, runner: Runner, users: t.Sequence[Dataset]) -> None:
        names = [one.name for one in users if within(one.name, (self.target,))]
        state = read_datasets(runner, names, ENCRYPTION_PROPERTIES)
        still = [name for name, one in state.items() if not one.locked]
        if still:
            raise Refused(f"The key of '{self.root}' was unloaded, and these are not locked: {', '.join(still)}.")
        if self._read(runner) > _FIRST_RECORD:
            raise Refused(f"The key of '{self.root}' was unloaded, and '{self.snapshot}' can still be read.")

    def _load(self, runner: Runner) -> None:
        argv = ("zfs", "load-key", "-L", self.proof.location, self.root)
        try:
            run_zfs(runner, Command(argv, stdin=self._stdin()))
        except CommandError as error:
            error.hint = f"'{self.root}' is locked now, and the key that was just accepted did not open it. Try again."
            raise

    def _see_open(self, runner: Runner) -> None:
        if self._read(runner) <= _FIRST_RECORD:
            raise StorageError(f"'{self.root}' was unlocked, and '{self.snapshot}' can't be read.")

    def _read(self, runner: Runner) -> int:
        """How many bytes of a stream come, of those that are asked for."""
        said = runner.run(Command(("sh", "-c", _TRY, "sh", self.snapshot))).stdout.strip()
        return int(said) if said.isdigit() else 0


def order_to_unmount(users: t.Sequence[Dataset], others: t.Sequence[Dataset], target: str) -> list[str]:
    """The mounted filesystems of an encryption root, the deepest first, and what goes with them.

    ``zfs unmount`` takes along what is mounted below a dataset, whatever key opens that.

    :param others: datasets below the root that its key does not open
    :raises Refused: one of them has nothing to do with the target, so somebody may be using it
    """
    mounted = [one for one in users if one.mounted]
    mounted += [one for one in others if one.mounted and any(_goes_with(one, user) for user in mounted)]
    above = set(ancestors(target))
    strangers = [one.name for one in mounted if one.name not in above and not within(one.name, (target,))]
    if strangers:
        own = {one.name for one in users}
        what = "use it too" if own.issuperset(strangers) else "use it too or lie below what does"
        raise Refused(
            f"The key of the target is to be unloaded for a moment, and these {what}, and are mounted: "
            f"{', '.join(repr(name) for name in strangers)}.",
            hint="Unmount them meanwhile. A target with a 'key' of its own is proven without touching others.",
        )
    legacy = [one.name for one in mounted if not one.value("mountpoint").startswith("/")]
    if legacy:
        raise Refused(
            f"These are mounted by hand or by /etc/fstab: {', '.join(repr(name) for name in legacy)}.",
            hint="Unmount them first; they could not be mounted again from here.",
        )
    return [one.name for one in sorted(mounted, key=lambda one: (-_depth(one), one.name))]


def _goes_with(one: Dataset, user: Dataset) -> bool:
    """Whether it is below another one, by its name or by where it is mounted."""
    place, above = one.value("mountpoint"), user.value("mountpoint")
    if not place.startswith("/"):
        # What is mounted by hand is left where it is.
        return False
    return one.name.startswith(f"{user.name}/") or lies_below(place, above)


def _depth(dataset: Dataset) -> int:
    return dataset.value("mountpoint").rstrip("/").count("/")


def _mount_again(runner: Runner, unmounted: t.Sequence[str]) -> None:
    failed = []
    for name in reversed(unmounted):
        try:
            run_zfs(runner, Command(("zfs", "mount", name)))
        except CommandError as error:
            failed.append(f"{name}: {error.result.stderr.strip()}")
    if failed:
        raise StorageError(f"Not mounted again: {'; '.join(failed)}.", hint="See 'zfs mount'.", not_mounted=failed)


def _run(runner: Runner, argv: tuple[str, ...], hint: str) -> None:
    try:
        run_zfs(runner, Command(argv))
    except CommandError as error:
        error.hint = hint
        raise


def _words(proof: ProofKey) -> str:
    return "the given one" if proof.key is not None else proof.location
