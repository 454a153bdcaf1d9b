# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that let a host unlock its drives when it starts: a program, its settings, and a unit of systemd."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import json
import os
import re
import stat
import sys
import typing as t
import zipfile
from dataclasses import dataclass, field

from ..durable import make_folder, sync_folder
from ..errors import StorageError
from ..plan import Change, Plan, Step
from .boot import BY_SERVER, LOCK_PATIENCE, PATIENCE, SETTINGS
from .boot_network import NETWORK
from .boot_options import Kmip, kept, parse_sources

PROGRAM = "/etc/zfs/nasops-unlock-drives.pyz"
UNITS = "/etc/systemd/system"
# What wants the import of pools wants these before.
_WANTS = f"{UNITS}/zfs-import.target.wants"
SERVICE = "nasops-unlock-drives.service"
UNIT, WANTED = f"{UNITS}/{SERVICE}", f"{_WANTS}/{SERVICE}"
# For drives whose passwords are on a server, so that no others wait for the network.
KMIP_SERVICE = "nasops-unlock-drives-kmip.service"
KMIP_UNIT, KMIP_WANTED = f"{UNITS}/{KMIP_SERVICE}", f"{_WANTS}/{KMIP_SERVICE}"
_VERSION = re.compile(r"python3\.([0-9]+)")
# The second number of the oldest version that runs it.
_OLDEST = 9
_PACKAGE = "nasops_encryption"
_START = "sed.boot"
_UTILS = __name__.rsplit(".", 2)[0]
_MAIN = f"""import sys

from {_PACKAGE}.{_START} import main

main(*sys.argv[1:])
"""
# Seconds, when drives have shown themselves and others have let go of them.
_OPENING = 330
_UNIT = """# Installed by the role nasops.encryption.sed_drives, which overwrites what is changed here.

[Unit]
Description=Unlock self-encrypting drives{where}
Documentation=https://github.com/nasops/nasops.encryption/blob/main/docs/sed.md
DefaultDependencies=no
Wants=systemd-udev-settle.service
After=systemd-udev-settle.service systemd-modules-load.service systemd-remount-fs.service{network}
RequiresMountsFor={mounts}
Before=zfs-import-cache.service zfs-import-scan.service zfs-import.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={python} -I {program}{argument}
StandardInput=null
StandardOutput=journal+console
# A drive that stays locked holds up nothing else: the pools that need it are not imported.
TimeoutStartSec={seconds}
TimeoutStopSec=10

[Install]
WantedBy=zfs-import.target
"""


@dataclass(frozen=True)
class File:
    """A file, or a link if ``target`` is given. ``mode``: its permissions; ``owner``: the number of its user.

    ``gone``: it is not to be there.
    """

    path: str
    content: bytes = b""
    mode: int = 0o644
    target: str = ""
    owner: int = field(default_factory=os.geteuid)
    gone: bool = False


def interpreter(usual: str = "/usr/bin/python3") -> str:
    """The Python that starts the program: the system's own, unless it is too old, since Ansible may run in another."""
    found = _VERSION.fullmatch(os.path.basename(os.path.realpath(usual)))
    fits = found is not None and int(found[1]) >= _OLDEST and os.access(usual, os.X_OK)
    return usual if fits else sys.executable


def wanted(settings: t.Mapping[str, t.Any], python: str | None = None) -> tuple[File, ...]:
    """All files, in the order in which they are written: nothing starts before what it needs is there.

    :param settings: what the program is to know, by the names of :data:`.boot_options.KEYS`
    :param python: what starts it, that of :func:`interpreter` if it is not given
    """
    sources = parse_sources(settings)
    start = python or interpreter()
    # A program reads the settings of an older one, which would refuse newer ones.
    files = [
        File(PROGRAM, archive(), 0o644),
        File(SETTINGS, json.dumps(kept(settings, sources), indent=2, sort_keys=True).encode("utf-8") + b"\n", 0o600),
    ]
    if sources.filed:
        files += [File(UNIT, _unit(start).encode("utf-8")), File(WANTED, target=UNIT)]
    if sources.kmip is not None:
        files += [File(KMIP_UNIT, _unit(start, sources.kmip).encode("utf-8")), File(KMIP_WANTED, target=KMIP_UNIT)]
    there = {file.path for file in files}
    return (*files, *(File(path, gone=True) for path in (WANTED, UNIT, KMIP_WANTED, KMIP_UNIT) if path not in there))


def _unit(python: str, kmip: Kmip | None = None) -> str:
    """The unit for drives with passwords in the file, or for those with passwords on a server.

    That one comes after what sets up the network, if there is such a thing, and does not wait until it is online: what
    does so may hang, and the program asks again by itself.
    """
    folders, words = [os.path.dirname(SETTINGS)], {"where": "", "network": "", "argument": ""}
    seconds = int(PATIENCE + LOCK_PATIENCE) + _OPENING
    if kmip is not None:
        folders += kmip.files
        words = {"where": ", by a KMIP server", "network": f" {NETWORK}", "argument": f" {BY_SERVER}"}
        seconds += kmip.limit
    mounts = " ".join(map(_quoted, places(folders)))
    return _UNIT.format(python=python, program=PROGRAM, mounts=mounts, seconds=seconds, **words)


def places(paths: t.Iterable[str]) -> tuple[str, ...]:
    """The paths, and where they lead to by links: both are to be mounted."""
    return tuple(dict.fromkeys(one for path in paths for one in (path, os.path.realpath(path))))


def _quoted(path: str) -> str:
    """A path as a unit has it."""
    plain = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return plain if re.fullmatch(r"[\w./%-]+", plain) else f'"{plain}"'


def unwanted() -> tuple[File, ...]:
    """The same files when they are to go, what starts first, and what a run that was killed had begun to write."""
    paths = (WANTED, KMIP_WANTED, UNIT, KMIP_UNIT, PROGRAM, SETTINGS)
    return tuple(File(path, gone=True) for path in (*paths, *(_part(path) for path in paths)))


def _part(path: str) -> str:
    """Where a file is as long as it is not whole."""
    return f"{path}.part"


def read(paths: t.Iterable[str]) -> dict[str, File | None]:
    """What is there now; None for nothing.

    :raises StorageError: a file can't be read
    """
    return {path: _read(path) for path in paths}


def _read(path: str) -> File | None:
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return File(path, target=os.readlink(path), owner=status.st_uid)
        with open(path, "rb") as file:
            return File(path, file.read(), stat.S_IMODE(status.st_mode), owner=status.st_uid)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} can't be read: {error.strerror}.") from None


def decide(files: t.Sequence[File], found: t.Mapping[str, File | None], reload: Step) -> Plan:
    """What is to be written or removed, and the step that follows it."""
    steps: list[Step] = []
    for file in files:
        there = found[file.path]
        if not file.gone and there != file:
            before = None if there is None else "another one"
            change = Change((file.path,), before, f"link to {file.target}" if file.target else "as described")
            steps.append(_step(f"Write {file.path}", functools.partial(write, file), change))
        elif file.gone and there is not None:
            remove = functools.partial(_remove, file.path)
            steps.append(_step(f"Remove {file.path}", remove, Change((file.path,), "there", None)))
    return Plan((*steps, reload) if steps else ())


def _step(title: str, work: t.Callable[[], None], change: Change) -> Step:
    return Step(title, lambda _runner: work(), (change,))


def write(file: File) -> None:
    """Put a file in its place, whole or not at all, and never readable for others meanwhile.

    :raises StorageError: it can't be written
    """
    part, folder = _part(file.path), os.path.dirname(file.path)
    try:
        if not os.path.isdir(folder):
            # Nothing in it is secret, but what has a mode of its own.
            make_folder(folder)
            os.chmod(folder, 0o755)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        if file.target:
            os.symlink(file.target, part)
        else:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as opened:
                opened.write(file.content)
                opened.flush()
                os.fchmod(opened.fileno(), file.mode)
                os.fsync(opened.fileno())
        os.replace(part, file.path)
        sync_folder(folder)
    except OSError as error:
        # It may hold passwords.
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise StorageError(f"{file.path} can't be written: {error.strerror}.") from None


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        raise StorageError(f"{path} can't be removed: {error.strerror}.") from None


def archive() -> bytes:
    """The program: what :mod:`.boot` needs of this collection, in one file for Python; always the same bytes."""
    sources = _closure()
    folders = {os.path.dirname(name) for name in sources}
    files = {f"{folder}/__init__.py".lstrip("/"): "" for folder in folders}
    files.update(sources)
    content = {"__main__.py": _MAIN, **{f"{_PACKAGE}/{name}": text for name, text in files.items()}}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as writer:
        for name, text in sorted(content.items()):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            writer.writestr(info, text)
    return made.getvalue()


def _closure() -> dict[str, str]:
    """The sources of what runs at boot and of all that it imports of this collection, by their paths."""
    found: dict[str, str] = {}
    waiting = [_START]
    while waiting:
        name = waiting.pop()
        path = f"{name.replace('.', '/')}.py"
        if path in found:
            continue
        text = _source(name)
        if text is not None:
            found[path] = text
            waiting += _imports(name, text)
    return found


def _imports(name: str, text: str) -> t.Iterator[str]:
    """What a module may import of this collection; not all of these names are modules."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = name.split(".")[: -node.level]
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (one for one in (module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)) if one)


def _source(name: str) -> str | None:
    """The source of a module of this collection, also if it is in an archive itself; None if it is none."""
    try:
        module = importlib.import_module(f"{_UTILS}.{name}")
    except ImportError:
        return None
    spec = module.__spec__
    if spec is None or spec.loader is None or spec.submodule_search_locations is not None:
        # A folder: it is made of what is in it.
        return None
    source = getattr(spec.loader, "get_source", None)
    return None if source is None else t.cast("str | None", source(spec.name))
