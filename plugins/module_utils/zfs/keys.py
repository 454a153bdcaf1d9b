# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries, loads, unloads and changes wrapping keys: one interface, two ways to do it."""

from __future__ import annotations

import os
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..command import Command, CommandError, HostRunner, Runner
from ..errors import StorageError
from ..secrets import Key, Mask
from .state import run_zfs


@dataclass(frozen=True)
class RootKey:
    """A key for one encryption root, with what is needed to derive the wrapping key of a passphrase."""

    root: str
    key: Key
    iterations: int | None = None
    salt: int | None = None


class WrongKey(StorageError):
    """The key is not the current one of the encryption root."""


class Busy(StorageError):
    """Something uses what the key opens."""


class KeyEngine(t.Protocol):
    """What can be done with wrapping keys."""

    name: str

    def try_all(self, candidates: t.Sequence[RootKey]) -> list[bool | StorageError]:
        """Whether each is the current key of its root, or the error that kept from knowing; loads nothing."""

    def load(self, candidate: RootKey) -> None:
        """Load a key. One that is loaded already is a success."""

    def unload(self, root: str) -> None:
        """Unload a key. One that is not loaded is a success."""

    def change(self, root: str, key: Key, location: str, iterations: int | None) -> None:
        """Wrap the master key with another key; a dataset without a key of its own becomes a root."""

    def inherit(self, root: str) -> None:
        """Let an encryption root use the key of its parent."""


class CommandKeys:
    """Keys through the program zfs, one process for each root."""

    name = "zfs"

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def try_all(self, candidates: t.Sequence[RootKey]) -> list[bool | StorageError]:
        if not candidates:
            return []
        with ThreadPoolExecutor(min(len(candidates), os.cpu_count() or 1)) as pool:
            return list(pool.map(self._try, candidates))

    def _try(self, candidate: RootKey) -> bool | StorageError:
        argv = ("zfs", "load-key", "-n", "-L", "prompt", candidate.root)
        try:
            run_zfs(self._runner, Command(argv, stdin=candidate.key.stdin()))
        except CommandError as error:
            return False if "Incorrect key provided" in error.result.stderr else error
        except StorageError as error:
            return error
        return True

    def load(self, candidate: RootKey) -> None:
        argv = ("zfs", "load-key", "-L", "prompt", candidate.root)
        try:
            run_zfs(self._runner, Command(argv, stdin=candidate.key.stdin()))
        except CommandError as error:
            if "Key already loaded" in error.result.stderr:
                return
            if "Incorrect key provided" in error.result.stderr:
                raise WrongKey(f"The key is not the one that opens '{candidate.root}'.", **error.details) from None
            raise

    def unload(self, root: str) -> None:
        try:
            run_zfs(self._runner, Command(("zfs", "unload-key", root)))
        except CommandError as error:
            if "Key already unloaded" in error.result.stderr:
                return
            if "is busy" in error.result.stderr:
                raise Busy(f"'{root}' is busy.", **error.details) from None
            raise

    def change(self, root: str, key: Key, location: str, iterations: int | None) -> None:
        argv = ["zfs", "change-key", "-o", f"keyformat={key.format}", "-o", "keylocation=prompt"]
        if iterations is not None:
            argv += ["-o", f"pbkdf2iters={iterations}"]
        run_zfs(self._runner, Command((*argv, root), stdin=key.stdin()))
        if location != "prompt":
            run_zfs(self._runner, Command(("zfs", "set", f"keylocation={location}", root)))

    def inherit(self, root: str) -> None:
        run_zfs(self._runner, Command(("zfs", "change-key", "-i", root)))


def engine(runner: Runner, prefer: str = "auto") -> KeyEngine:
    """The best engine there is on this host: libzfs_core, else the program zfs.

    :param prefer: "libzfs_core" or "zfs" for that one, whatever else there is
    :raises OSError: libzfs_core is asked for, but can't be used
    """
    if prefer == "zfs":
        return CommandKeys(runner)
    # Here, since that module uses this one.
    from .lzc import LibraryKeys, NativeLibrary

    try:
        return LibraryKeys(NativeLibrary())
    except (OSError, AttributeError):
        if prefer == "libzfs_core":
            raise
        return CommandKeys(runner)


def keys_of(runner: Runner) -> KeyEngine:
    """The engine of a module run, or the program zfs for a runner that has none."""
    found: KeyEngine | None = getattr(runner, "keys", None)
    return CommandKeys(runner) if found is None else found


class ZfsRunner(HostRunner):
    """Runs programs, and has an engine for keys."""

    def __init__(self, mask: Mask) -> None:
        super().__init__(mask)
        self.keys = engine(self)
