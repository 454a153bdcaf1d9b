# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries, loads, unloads and changes wrapping keys: one interface, two ways to do it."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..command import Command, CommandError, HostRunner, Runner
from ..errors import StorageError
from ..parallel import side_by_side
from ..secrets import Key, Mask
from . import key_errors, keystore
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
    """What can be done with wrapping keys. Several threads may use it at once."""

    name: str

    def try_all(self, candidates: t.Sequence[RootKey]) -> list[bool | StorageError]:
        """Whether each is the current key of its root, or the error that kept from knowing; loads nothing."""

    def load(self, candidate: RootKey) -> None:
        """Load a key. One that is loaded already is a success.

        :raises WrongKey: it is not the current key of the root
        """

    def unload(self, root: str) -> None:
        """Unload a key. One that is not loaded is a success.

        :raises Busy: something is mounted or open
        """

    def change(self, root: str, key: Key, location: str, iterations: int | None) -> None:
        """Wrap the master key with another key; a dataset without a key of its own becomes a root.

        :param location: "prompt" or "file:///...", what the keylocation is to be. The file may still hold the former
            key; then the new one has to be in the file of that name with ".new" behind it.
        """

    def inherit(self, root: str) -> None:
        """Let an encryption root use the key of its parent."""


# What zfs says when a key is not even in the format of the root, so that it can't be the root's key.
_NOT_A_KEY = ("Incorrect key provided", "Hex key too", "Raw key too", "Invalid hex character", "Passphrase too long")


class CommandKeys:
    """Keys through the program zfs, one process for each root."""

    name = "zfs"

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def try_all(self, candidates: t.Sequence[RootKey]) -> list[bool | StorageError]:
        return side_by_side(self._try, candidates)

    def _try(self, candidate: RootKey) -> bool | StorageError:
        argv = ("zfs", "load-key", "-n", "-L", "prompt", candidate.root)
        try:
            run_zfs(self._runner, Command(argv, stdin=candidate.key.stdin()))
        except CommandError as error:
            return False if _wrong(error) else _explain(key_errors.TRY, candidate.root, error)
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
            if _wrong(error):
                raise WrongKey(f"The key is not the one that opens '{candidate.root}'.", **error.details) from None
            raise _explain(key_errors.LOAD, candidate.root, error) from None

    def unload(self, root: str) -> None:
        try:
            run_zfs(self._runner, Command(("zfs", "unload-key", root)))
        except CommandError as error:
            if "Key already unloaded" in error.result.stderr:
                return
            if "is busy" in error.result.stderr:
                raise Busy(f"'{root}' is busy.", **error.details) from None
            raise _explain(key_errors.UNLOAD, root, error) from None

    def change(self, root: str, key: Key, location: str, iterations: int | None) -> None:
        """Change the key, then the keylocation if that has to be another one meanwhile.

        zfs reads the new key from where the keylocation will be. If the file there holds it, one process does both. If
        its successor does, the keylocation is that one until the next process corrects it: after a crash between the
        two, the host still opens the dataset by itself. Only a key that is in neither goes to standard input.
        """
        argv = ["zfs", "change-key", "-o", f"keyformat={key.format}"]
        if iterations is not None:
            argv += ["-o", f"pbkdf2iters={iterations}"]
        source = _file_with(key, location)
        if source:
            command = Command((*argv, "-o", f"keylocation={source}", root))
        else:
            source = "prompt"
            command = Command((*argv, "-o", "keylocation=prompt", root), stdin=key.stdin())
        self._change(key_errors.CHANGE, root, command)
        if source != location:
            self._change(key_errors.CHANGE, root, Command(("zfs", "set", f"keylocation={location}", root)))

    def inherit(self, root: str) -> None:
        self._change(key_errors.INHERIT, root, Command(("zfs", "change-key", "-i", root)))

    def _change(self, task: str, root: str, command: Command) -> None:
        try:
            run_zfs(self._runner, command)
        except CommandError as error:
            raise _explain(task, root, error) from None


def _wrong(error: CommandError) -> bool:
    return any(sentence in error.result.stderr for sentence in _NOT_A_KEY)


def _explain(task: str, root: str, error: CommandError) -> StorageError:
    return key_errors.from_sentence(task, root, error.result.stderr, error.details) or error


def _file_with(key: Key, location: str) -> str:
    """The keylocation of the file that holds a key: the given one, or its successor; "" if neither does."""
    path = keystore.path_of(location)
    if path is None:
        return ""
    for candidate in (path, path + keystore.NEXT):
        try:
            with open(candidate, "rb") as file:
                content = file.read(len(key.file_content()) + 1)
        except OSError:
            continue
        if content in (key.file_content(), key.material):
            return keystore.location_of(candidate)
    return ""


def engine(runner: Runner, prefer: str = "auto") -> KeyEngine:
    """The best engine there is on this host: libzfs_core, else the program zfs.

    :param prefer: "libzfs_core" or "zfs" for that one, whatever else there is
    :raises StorageError: libzfs_core is asked for, but can't be used
    """
    if prefer == "zfs":
        return CommandKeys(runner)
    # Here, since that module uses this one.
    from .lzc import LibraryKeys, NativeLibrary

    try:
        return LibraryKeys(NativeLibrary())
    except (OSError, AttributeError) as error:
        if prefer == "libzfs_core":
            raise StorageError(f"libzfs_core can't be used on this host: {error}.") from error
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
