# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads which GELI devices are attached on this host, and attaches and detaches them."""

from __future__ import annotations

import contextlib
import os
import sys
import typing as t

from ..blockdev.host import Host
from ..blockdev.identity import BlockDevice, DeviceTable
from ..command import Command, Runner
from ..errors import StorageError
from ..parallel import cores, side_by_side
from ..plan import Action
from . import device_mapper, geli_command, nbd
from .cipher import Engine, find_engine
from .device_plan import DEVICE_MAPPER, GELI, NBD, Attachment, HostState, Member, State, path_of
from .keys import MasterKey
from .metadata import Located
from .places import LINKS
from .provider import Provider, find, read_fully
from .sectors import Plaintext
from .trial import Offer, Verdict, try_offer

_ON_LINUX = "there is no geli(8) on Linux"
_ON_FREEBSD = "it is a part of Linux"


def on_freebsd() -> bool:
    """Whether this host has geli(8)."""
    return sys.platform.startswith("freebsd")


def read(runner: Runner, host: Host, table: DeviceTable, paths: t.Sequence[str], offer: Offer, attach: bool) -> State:
    """The providers behind these paths, what is attached of them, and, if they are to be, which key opens them."""
    providers = list({one.path: one for one in (find(table, path) for path in paths)}.values())
    if on_freebsd():
        read_only = geli_command.read_only_devices(runner) if any(one.holders for one in providers) else frozenset()
        members = [_on_freebsd(one, read_only) for one in providers]
    else:
        members = [read_linux(one, host, table) for one in providers]
    missing = [one for one in members if one.attachment is None]
    if not attach or not missing:
        return State(tuple(members), HostState())
    if offer:
        engine = find_engine()
        verdicts = dict(zip([one.provider.path for one in missing], _try_all(missing, offer, engine)))
        members = [
            Member(one.provider, one.attachment, one.leftovers, verdicts.get(one.provider.path)) for one in members
        ]
    return State(tuple(members), _host(runner))


def _try_all(members: t.Sequence[Member], offer: Offer, engine: Engine) -> list[Verdict]:
    return list(side_by_side(lambda one: try_offer(one.provider, offer, engine), members))


def _host(runner: Runner) -> HostState:
    if on_freebsd():
        return HostState({DEVICE_MAPPER: _ON_FREEBSD, NBD: _ON_FREEBSD})
    missing = {GELI: _ON_LINUX}
    if not runner.has("dmsetup"):
        missing[DEVICE_MAPPER] = "the program dmsetup is not installed"
    elif not _has_modules(runner, device_mapper.MODULES):
        missing[DEVICE_MAPPER] = f"this kernel has not all of the modules {', '.join(device_mapper.MODULES)}"
    if not _has_modules(runner, (nbd.MODULE,)):
        missing[NBD] = f"this kernel has no module {nbd.MODULE}"
    return HostState(missing, available_memory())


def _has_modules(runner: Runner, names: t.Sequence[str]) -> bool:
    if all(os.path.isdir(f"/sys/module/{name}") for name in names):
        return True
    command = Command(("modprobe", "--all", "--dry-run", "--quiet", *names))
    return runner.has("modprobe") and runner.run(command, ok=(0, 1)).rc == 0


def available_memory(path: str = "/proc/meminfo") -> int:
    """Bytes that programs could still get."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def _on_freebsd(provider: Provider, read_only: frozenset[str]) -> Member:
    name = geli_command.attached_name(provider.holders)
    # Swap has a device of GELI too, but no metadata.
    if not name or provider.located is None:
        return Member(provider)
    # Whether it is in use is told by geli itself, which refuses to detach it.
    return Member(provider, Attachment(GELI, f"/dev/{name}", name in read_only))


class Holds(t.Protocol):
    """Tells whether a device can be taken away."""

    def is_free(self, path: str) -> bool:
        """False when the kernel says that something holds it."""


def read_linux(provider: Provider, host: Holds, table: DeviceTable) -> Member:
    """What there is of a device for this provider, by device-mapper or by nbd."""
    label = provider.label
    maps = {device.name: name for device in table.devices for name in _map_names(device)}
    ours = {name: device for device in table.devices for name in _map_names(device)}
    found = [name for name in device_mapper.layer_names(label) if name in ours]
    plain = ours.get(device_mapper.plain_name(label))
    if plain is not None and _stands_on(table, plain, provider, maps):
        path = f"/dev/mapper/{device_mapper.plain_name(label)}"
        busy = bool(plain.holders) or not host.is_free(plain.path)
        return Member(provider, Attachment(DEVICE_MAPPER, path, plain.read_only, busy))
    link = f"{LINKS}/{device_mapper.plain_name(label)}"
    name = _nbd_behind(link)
    if name and nbd.is_connected(name) and _serves(name, provider):
        device = table.named(name)
        busy = device is not None and (bool(device.holders) or not host.is_free(device.path))
        return Member(provider, Attachment(NBD, link, True, busy), tuple(found))
    return Member(provider, None, tuple(found))


def _map_names(device: BlockDevice) -> list[str]:
    """The name below /dev/mapper of a map that is ours."""
    prefix = f"/dev/mapper/{device_mapper.PREFIX}"
    return [path[len("/dev/mapper/") :] for path in device.aliases if path.startswith(prefix)]


def _stands_on(table: DeviceTable, plain: BlockDevice, provider: Provider, maps: t.Mapping[str, str]) -> bool:
    """Whether a stack is whole, down to the provider: a disk by the same name may have been pulled and put back."""
    lower = table.find(provider.path)
    for _layer in ("wide", "dec", "plain"):
        above = next((name for name in (lower.holders if lower else ()) if name in maps), "")
        lower = table.named(above) if above else None
    return lower is not None and lower.name == plain.name


def _serves(name: str, provider: Provider) -> bool:
    """Whether it can be this provider that is served: the server may have died, and another have taken its device."""
    return provider.located is None or nbd.size(name) == provider.located.size


def _nbd_behind(link: str) -> str:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return ""


class Worker:
    """Makes the actions of a plan, see :class:`.device_plan.Workshop`."""

    def attach(self, member: Member, backend: str, read_only: bool) -> Action:
        provider, verdict = member.provider, member.verdict
        if verdict is None or verdict.master is None or provider.located is None:
            raise StorageError(f"{provider.path} has no key.")
        if backend == GELI:
            return lambda runner: _attach_by_geli(runner, provider, verdict, read_only)
        located, master = provider.located, verdict.master
        if backend == DEVICE_MAPPER:
            return lambda runner: _attach_by_maps(runner, provider, located, master)
        return lambda runner: _attach_by_nbd(runner, provider, located, master)

    def clear(self, member: Member) -> Action:
        if on_freebsd():
            device = member.attachment.path if member.attachment else path_of(member.provider, GELI)
            return lambda runner: geli_command.run(runner, geli_command.detach(device))
        return lambda runner: _clear(runner, member.provider)


def _attach_by_geli(runner: Runner, provider: Provider, verdict: Verdict, read_only: bool) -> None:
    """Attach it with the key that was found to fit; one without a file is given to geli without making one."""
    paths, content = verdict.paths, b"" if verdict.paths else b"".join(verdict.credential.key_files)
    if not verdict.with_passphrase:
        wanted = geli_command.Attach(provider.handle, read_only, paths or (geli_command.STDIN,), False)
        geli_command.run(runner, geli_command.attach(wanted, content))
        return
    with geli_command.pipe(content) if content else contextlib.nullcontext("") as pipe:
        wanted = geli_command.Attach(provider.handle, read_only, (pipe,) if pipe else paths, True)
        geli_command.run(runner, geli_command.attach(wanted, verdict.credential.passphrase or b""))


def _attach_by_maps(runner: Runner, provider: Provider, located: Located, master: MasterKey) -> None:
    runner.run(Command(("modprobe", "--all", "--quiet", *device_mapper.MODULES)), ok=(0, 1))
    numbers: dict[str, str] = {}
    for layer in device_mapper.stack(provider.label, provider.number, located, master):
        runner.run(layer.create(numbers))
        if not layer.final:
            numbers[layer.name.rsplit("-", 1)[-1]] = number_of_map(layer.name)
    _link(provider, f"/dev/mapper/{device_mapper.plain_name(provider.label)}")


def _attach_by_nbd(runner: Runner, provider: Provider, located: Located, master: MasterKey) -> None:
    runner.run(Command(("modprobe", "--quiet", nbd.MODULE)), ok=(0, 1))
    name = nbd.find_free()

    def open_content() -> Plaintext:
        descriptor = os.open(provider.path, os.O_RDONLY | os.O_CLOEXEC)
        return Plaintext(lambda offset, length: read_fully(descriptor, offset, length), located, master, find_engine())

    nbd.start(name, open_content, located.metadata.sector_size, cores())
    _link(provider, f"/dev/{name}")


def _clear(runner: Runner, provider: Provider) -> None:
    """Take away what there is of a device, from the top down."""
    link = f"{LINKS}/{device_mapper.plain_name(provider.label)}"
    name = _nbd_behind(link)
    if name.startswith("nbd") and nbd.is_connected(name):
        nbd.stop(name)
    for layer in reversed(device_mapper.layer_names(provider.label)):
        if number_of_map(layer):
            runner.run(device_mapper.remove(layer))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)


def number_of_map(name: str, sys_block: str = "/sys/class/block") -> str:
    """The number of a map by its name, as 253:4; empty if there is none."""
    for entry in os.listdir(sys_block):
        if entry.startswith("dm-"):
            with contextlib.suppress(OSError):
                with open(f"{sys_block}/{entry}/dm/name", encoding="utf-8") as file:
                    if file.read().rstrip("\n") != name:
                        continue
                with open(f"{sys_block}/{entry}/dev", encoding="ascii") as file:
                    return file.read().strip()
    return ""


def _link(provider: Provider, target: str, folder: str = "") -> None:
    """A name that stays the same, in a folder with nothing else in it.

    What else led to this device is of before, and so is what leads nowhere.
    """
    folder = folder or LINKS
    os.makedirs(folder, mode=0o755, exist_ok=True)
    link = f"{folder}/{device_mapper.plain_name(provider.label)}"
    for old in (f"{folder}/{name}" for name in os.listdir(folder)):
        if old == link or (os.path.islink(old) and (os.readlink(old) == target or not os.path.exists(old))):
            os.unlink(old)
    os.symlink(target, link)


def import_from(members: t.Sequence[Member]) -> list[str]:
    """What zpool import is to look at, each with a -d of its own.

    It does not look into the folders of a folder. So on FreeBSD, where the names of the providers tell where the
    decrypted devices are, these are named one by one.
    """
    if not on_freebsd():
        return [LINKS]
    return [one.attachment.path if one.attachment else path_of(one.provider, GELI) for one in members]


def directory(paths: t.Iterable[str]) -> str | None:
    """The one folder that holds all decrypted devices; None if there is none, as with /dev and /dev/gptid."""
    if not on_freebsd():
        return LINKS
    folders = {os.path.dirname(path) for path in paths}
    return folders.pop() if len(folders) == 1 else None
