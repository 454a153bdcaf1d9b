# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What steps on datasets do, apart from single commands: plain values that can be called with a runner."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field

from ..command import Command, CommandError, Runner
from ..errors import Refused, StorageError
from ..secrets import Key, generate
from . import keystore
from .holders import describe_holders, describe_mounts
from .keys import Busy, RootKey, keys_of
from .mount_table import places_of
from .names import lies_below
from .state import Dataset, mount_obstacle, read_datasets, run_zfs

# Seconds. What a service lets go of when it stops, and what the kernel still writes, is gone well before that.
BUSY_PATIENCE = 10.0
# Seconds for udev to make the device node of a volume, generous for a host that has a thousand of them.
NODE_PATIENCE = 60.0
_PAUSE = 0.2


# What the wrapping key of a passphrase is made with.
DERIVATION = ("pbkdf2iters", "pbkdf2salt")


def root_key(root: Dataset, key: Key) -> RootKey:
    """A key with what it takes to derive the wrapping key of a passphrase."""
    if key.format != "passphrase":
        return RootKey(root.name, key)
    iterations, salt = (root.value(name) for name in DERIVATION)
    return RootKey(
        root.name,
        key,
        int(iterations) if iterations.isdigit() else None,
        int(salt) if salt.isdigit() else None,
    )


@dataclass(frozen=True)
class LoadKey:
    """Loads a key, and waits for the device nodes of the volumes that it opens."""

    candidate: RootKey
    volumes: tuple[str, ...] = ()

    def __call__(self, runner: Runner) -> None:
        keys_of(runner).load(self.candidate)
        wait_for_nodes(self.volumes)


@dataclass(frozen=True)
class CreateVolume:
    """Creates a volume, and waits for its device node.

    ``missing`` holds that node afterwards if it did not appear: some hosts show none, such as jails and containers, and
    the volume is there all the same.
    """

    name: str
    command: Command
    missing: list[str] = field(default_factory=list, compare=False)

    def __call__(self, runner: Runner) -> None:
        run_zfs(runner, self.command)
        self.missing.extend(missing_nodes((self.name,)))


def wait_for_nodes(volumes: tuple[str, ...]) -> None:
    """Wait until there are device nodes for these volumes, whose key was loaded.

    :raises StorageError: they did not appear in time
    """
    missing = missing_nodes(volumes)
    if missing:
        raise StorageError(
            f"The key is loaded, but these device nodes did not appear within {NODE_PATIENCE:.0f} seconds: "
            f"{', '.join(missing)}.",
            hint="See 'udevadm settle' and the kernel log.",
        )


def missing_nodes(volumes: tuple[str, ...]) -> list[str]:
    """The device nodes of these volumes that do not appear in time."""
    missing = [] if not volumes or _makes_no_nodes() else list(volumes)
    end = time.monotonic() + NODE_PATIENCE
    while True:
        missing = [name for name in missing if not os.path.exists(node_of(name))]
        if not missing or time.monotonic() > end:
            return [node_of(name) for name in missing]
        time.sleep(_PAUSE / 4)


def _makes_no_nodes() -> bool:
    """Whether OpenZFS was told not to make device nodes, as in containers, or none unless volmode asks for them."""
    return _parameter("zvol_inhibit_dev") not in ("", "0") or _parameter("zvol_volmode") == "3"


def _parameter(name: str) -> str:
    """A parameter of the kernel module, "" where there is none."""
    try:
        with open(f"/sys/module/zfs/parameters/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def node_of(volume: str) -> str:
    """The device node of a volume; udev on Linux writes a blank as a plus sign."""
    return "/dev/zvol/" + (volume.replace(" ", "+") if sys.platform.startswith("linux") else volume)


@dataclass(frozen=True)
class Promote:
    """The next key, which ZFS has taken, gets the name of the one before."""

    path: str

    def __call__(self, runner: Runner) -> None:
        keystore.promote(self.path)


@dataclass(frozen=True)
class StoreKey:
    """Writes a key file, with a new random key unless one is given; what is in the way is known to open nothing."""

    path: str
    key_format: str
    key: Key | None = field(default=None, repr=False)
    replaces: bool = False

    def __call__(self, runner: Runner) -> None:
        if self.replaces and os.path.exists(self.path):
            keystore.remove(self.path)
        keystore.store(self.path, generate(self.key_format) if self.key is None else self.key)


@dataclass(frozen=True)
class ChangeKey:
    """Wraps the master key of a dataset with another key, and proves that it did.

    The key is given, or is in the file ``source``. ``location`` becomes the keylocation.
    """

    name: str
    key_format: str
    location: str
    key: Key | None = field(default=None, repr=False)
    source: str = ""
    iterations: int | None = None

    def __call__(self, runner: Runner) -> None:
        key = self.key
        if key is None:
            found = keystore.read_content(self.source, self.key_format)
            if found.key is None:
                raise Refused(f"The key file {self.source} can't be used: {found.fault or 'it is gone'}")
            key = found.key
        engine = keys_of(runner)
        engine.change(self.name, key, self.location, self.iterations)
        candidate = RootKey(self.name, key)
        if key.format == "passphrase":
            # It was given a new salt.
            candidate = root_key(read_datasets(runner, (self.name,), DERIVATION)[self.name], key)
        proven = engine.try_all([candidate])[0]
        if isinstance(proven, StorageError):
            raise proven
        if not proven:
            raise StorageError(
                f"ZFS accepted the new key of '{self.name}', but is not opened by it; the former key was kept as well."
            )


@dataclass(frozen=True)
class InheritKey:
    """Makes an encryption root use the key of its parent."""

    name: str

    def __call__(self, runner: Runner) -> None:
        keys_of(runner).inherit(self.name)


@dataclass(frozen=True)
class MarkRetired:
    """Marks a key file that goes out of use with the next step."""

    path: str
    mark: str

    def __call__(self, runner: Runner) -> None:
        keystore.mark_retired(self.path, self.mark)


@dataclass(frozen=True)
class RemoveRetired:
    """Removes a marked key file with its mark; ``paths`` are its other names."""

    mark: str
    paths: tuple[str, ...] = ()

    def __call__(self, runner: Runner) -> None:
        keystore.remove_retired(self.mark, self.paths)


@dataclass(frozen=True)
class RemoveFile:
    """Removes a file that holds no key in use."""

    path: str

    def __call__(self, runner: Runner) -> None:
        keystore.remove(self.path)


@dataclass(frozen=True)
class Mount:
    """A filesystem to mount; with ``move_aside`` what is at its mountpoint is moved, to ``aside`` if that is set.

    ``beside``: whether it is mounted does not decide whether the key that was loaded before is unloaded again.
    """

    name: str
    mountpoint: str
    move_aside: bool = False
    aside: str = ""
    beside: bool = False


@dataclass(frozen=True)
class MountAll:
    """Mounts filesystems in this order. If none can be of those that the key opens, it is unloaded again.

    ``volumes`` were opened with them, and may need a while longer. ``moved`` tells afterwards what was moved aside that
    no plan could name, since it showed only when what is above it was mounted.
    """

    mounts: tuple[Mount, ...]
    lock_again: str = ""
    volumes: tuple[str, ...] = ()
    moved: list[str] = field(default_factory=list, compare=False)

    def __call__(self, runner: Runner) -> None:
        failed: list[str] = []
        blocked: list[str] = []
        opened = 0
        for mount in self.mounts:
            over = [path for path in blocked if lies_below(mount.mountpoint, path)]
            reason = f"nothing could be mounted at {over[0]}" if over else self._mount(mount, runner)
            opened += not (reason or mount.beside)
            if reason:
                failed.append(f"'{mount.name}': {reason}")
                blocked.append(mount.mountpoint)
        if not failed:
            wait_for_nodes(self.volumes)
            return
        locked = ""
        if self.lock_again and not opened and not all(mount.beside for mount in self.mounts):
            locked = f" {self._lock_again(runner)}"
        moved = f" Moved aside before: {', '.join(self.moved)}." if self.moved else ""
        raise StorageError(f"Not mounted: {'; '.join(failed)}.{locked}{moved}", not_mounted=failed)

    def _lock_again(self, runner: Runner) -> str:
        """What became of the key, in words."""
        try:
            UnloadKey(self.lock_again, self.volumes, (), tuple(mount.name for mount in self.mounts))(runner)
        except StorageError as error:
            return f"'{self.lock_again}' could not be locked again: {error.message}"
        return f"'{self.lock_again}' was locked again."

    def _mount(self, mount: Mount, runner: Runner) -> str:
        """Why it could not be mounted, "" if it is."""
        obstacle = mount_obstacle(mount.mountpoint)
        if obstacle and read_datasets(runner, (mount.name,), ("mounted",))[mount.name].mounted:
            # ZFS did it when the mountpoint was set.
            return ""
        if obstacle and not mount.move_aside:
            return obstacle
        try:
            if obstacle:
                self._make_room(mount)
            run_zfs(runner, Command(("zfs", "mount", mount.name)))
        except OSError as error:
            return f"{obstacle}, and it can't be moved aside ({error.strerror})"
        except CommandError as error:
            said = error.result.stderr.strip()
            return "" if "already mounted" in said else said
        return ""

    def _make_room(self, mount: Mount) -> None:
        aside = mount.aside or free_name(mount.mountpoint)
        os.rename(mount.mountpoint, aside)
        if not mount.aside:
            self.moved.append(f"{mount.mountpoint} to {aside}")


@dataclass(frozen=True)
class MoveAside:
    """Renames what is in the way of a mount."""

    path: str
    aside: str

    def __call__(self, runner: Runner) -> None:
        try:
            os.rename(self.path, self.aside)
        except OSError as error:
            raise Refused(
                f"{self.path} can't be moved aside ({error.strerror}).",
                hint="Something may be mounted there, or its folder is read-only.",
            ) from None


def free_name(path: str) -> str:
    """A name beside a path that nothing has yet."""
    path = path.rstrip("/")
    number = 1
    while os.path.lexists(f"{path}.aside-{number}"):
        number += 1
    return f"{path}.aside-{number}"


@dataclass(frozen=True)
class Mounted:
    """A filesystem that is mounted at ``place``, which is "" where that is not known.

    ``legacy``: its mountpoint is not kept by ZFS; then ``options`` are those to mount it with again. ``folder``: which
    of its folders is seen there, "" for all of it.
    """

    name: str
    place: str
    legacy: bool = False
    options: tuple[str, ...] = ()
    folder: str = ""

    def unmounting(self, force: bool) -> Command:
        flags = ("-f",) if force else ()
        if self.legacy:
            return Command(("umount", *flags, self.place or self.name))
        return Command(("zfs", "unmount", *flags, self.name))

    def mounting(self) -> Command:
        if self.legacy:
            options = ("-o", ",".join(self.options)) if self.options else ()
            return Command(("mount", "-t", "zfs", *options, self.name, self.place))
        return Command(("zfs", "mount", self.name))


@dataclass(frozen=True)
class Unmount:
    """Unmounts filesystems in this order; when one can't be, those before it are mounted again."""

    mounts: tuple[Mounted, ...]
    force: bool = False

    def __call__(self, runner: Runner) -> None:
        for number, one in enumerate(self.mounts):
            try:
                self._unmount(one, runner)
            except StorageError as error:
                again = _mounted_again(self.mounts[:number], runner)
                error.hint = " ".join(part for part in (error.hint, again) if part)
                raise

    def _unmount(self, mounted: Mounted, runner: Runner) -> None:
        end = time.monotonic() + BUSY_PATIENCE
        while True:
            try:
                run_zfs(runner, mounted.unmounting(self.force))
                return
            except CommandError as error:
                said = error.result.stderr
                if "not currently mounted" in said or "not mounted" in said:
                    return
                if "busy" not in said:
                    raise
                if time.monotonic() > end:
                    raise Refused(
                        f"'{mounted.name}' is in use and can't be unmounted"
                        f"{describe_holders(runner, mounted.place, '')}.",
                        hint="Stop what uses it, then run this again.",
                        **error.details,
                    ) from None
            time.sleep(_PAUSE)


def _mounted_again(unmounted: tuple[Mounted, ...], runner: Runner) -> str:
    """In words, what became of the filesystems that were unmounted for nothing."""
    try:
        Remount(tuple(reversed(unmounted)))(runner)
    except StorageError as error:
        return error.message
    return "All that was unmounted was mounted again." if unmounted else ""


@dataclass(frozen=True)
class Remount:
    """Mounts again what was unmounted for nothing, in this order, as far as that is still possible."""

    mounts: tuple[Mounted, ...]

    def __call__(self, runner: Runner) -> None:
        failed: list[str] = []
        for one in self.mounts:
            if one.legacy and not one.place:
                failed.append(f"'{one.name}': where it was mounted is not known")
                continue
            if one.folder:
                # The whole filesystem there would be something else.
                failed.append(f"'{one.name}' at {one.place}: its folder {one.folder} was there, by 'mount --bind'")
                continue
            said = _words_of(runner, one.mounting())
            if "already mounted" in said and _is_elsewhere(one, runner):
                # ZFS counts a folder of it that is mounted somewhere as well.
                said = _words_of(runner, Command(("mount", "-t", "zfs", "-o", "zfsutil", one.name, one.place)))
            if said and "already mounted" not in said and "key not loaded" not in said:
                failed.append(f"'{one.name}'{f' at {one.place}' if one.place else ''}: {said}")
        if failed:
            raise StorageError(f"Not mounted again: {'; '.join(failed)}.")


def _words_of(runner: Runner, command: Command) -> str:
    """What a program says that ends with an error, "" if it does not."""
    try:
        run_zfs(runner, command)
    except CommandError as error:
        return error.result.stderr.strip() or "it gave no reason"
    except StorageError as error:
        return error.message
    return ""


def _is_elsewhere(mounted: Mounted, runner: Runner) -> bool:
    """Whether a filesystem is mounted, but not where it was; no where that can't be told."""
    places = [one.path for one in places_of(runner, (mounted.name,))[mounted.name]]
    return bool(places and mounted.place) and mounted.place not in places


@dataclass(frozen=True)
class UnloadKey:
    """Unloads a key; ``volumes``, ``clones`` and ``filesystems`` are what may hold it, for the message."""

    root: str
    volumes: tuple[str, ...] = ()
    clones: tuple[str, ...] = ()
    filesystems: tuple[str, ...] = ()

    def __call__(self, runner: Runner) -> None:
        try:
            unload(self.root, runner)
        except Busy as error:
            held = "".join(describe_holders(runner, "", node_of(name)) for name in self.volumes)
            mounted = describe_mounts(self.filesystems)
            clones = f"; clones that use this key: {', '.join(self.clones)}" if self.clones else ""
            raise Refused(
                f"'{self.root}' is in use and its key can't be unloaded{held}{mounted}{clones}.",
                hint="Stop what uses it, then run this again. What was unmounted for it is mounted again, unless "
                "undo_errors says otherwise.",
                **error.details,
            ) from None


def unload(root: str, runner: Runner) -> None:
    """Unload a key; ZFS may need a moment to let go of it."""
    end = time.monotonic() + BUSY_PATIENCE
    while True:
        try:
            keys_of(runner).unload(root)
            return
        except Busy:
            if time.monotonic() > end:
                raise
        time.sleep(_PAUSE)


@dataclass(frozen=True)
class Destroy:
    """Destroys a dataset, with what is below it if asked to; never a clone elsewhere."""

    name: str
    recursive: bool
    mountpoint: str = ""

    def __call__(self, runner: Runner) -> None:
        argv = ("zfs", "destroy", *(("-r",) if self.recursive else ()), self.name)
        end = time.monotonic() + BUSY_PATIENCE
        while True:
            try:
                run_zfs(runner, Command(argv))
                return
            except CommandError as error:
                if "busy" not in error.result.stderr:
                    raise
                if time.monotonic() > end:
                    node = node_of(self.name)
                    raise Refused(
                        f"'{self.name}' is in use and can't be destroyed"
                        f"{describe_holders(runner, self.mountpoint, node)}.",
                        hint="Stop what uses it, then run this again.",
                        **error.details,
                    ) from None
            time.sleep(_PAUSE)
