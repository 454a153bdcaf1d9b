# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A shelf of emulated drives that outlives the program which set it up, for a virtual machine to be plugged into.

A process of its own holds the drives, and all that is written on them, until it is told to stop. It listens on a socket
in the folder of the shelf.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from .drive import KINDS, OPAL2, Drive, Spec
from .nvme_tcp import Target, name_of

_SOCKET = "control"
_LOG = "shelf.log"
_LONGEST = 1 << 20
# Seconds for a process to start, or to answer.
_PATIENCE = 30.0
_BLOCK = 512
_DRIVE = re.compile(r"(?P<serial>[A-Za-z0-9_-]{1,20}):(?P<size>[1-9][0-9]*)(?P<unit>[KMGT]?)(?::(?P<kind>\w+))?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# What ZFS takes for a disk; those of a test NAS have at least as much.
_SMALLEST = 64 << 20
_PROGRAM = Path(__file__).with_name("run")

Answer = dict[str, t.Any]


class ShelfError(Exception):
    """It can't be done; the text says why."""


def parse(text: str) -> Spec:
    """A drive as it stands on the command line, ``SERIAL:SIZE`` or ``SERIAL:SIZE:KIND``.

    :raises ValueError: it is none
    """
    found = _DRIVE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"'{text}' is no drive, which is SERIAL:SIZE or SERIAL:SIZE:KIND, such as S1:512M:opal2: a serial has 1 "
            "to 20 letters, digits, '-' and '_', a size is a whole number, of bytes or with K, M, G or T"
        )
    kind = found["kind"] or OPAL2
    if kind not in KINDS:
        raise ValueError(f"drive {found['serial']}: unknown kind '{kind}', known are {', '.join(KINDS)}")
    size = int(found["size"]) * _UNITS[found["unit"]]
    if size < _SMALLEST or size % _BLOCK:
        wanted = f"at least 64M, in multiples of {_BLOCK}"
        raise ValueError(f"drive {found['serial']}: {size} bytes are too few or not made of sectors: {wanted}")
    return Spec(found["serial"], kind, model="EMU OPAL", blocks=size // _BLOCK)


def parse_all(drives: t.Sequence[str]) -> list[Spec]:
    """The drives of a shelf, each by a serial number of its own.

    :raises ValueError: one is none, or there twice
    """
    specs = [parse(one) for one in drives]
    serials = [spec.serial for spec in specs]
    twice = sorted({serial for serial in serials if serials.count(serial) > 1})
    if twice:
        raise ValueError(f"these serials are given to more than one drive: {', '.join(twice)}")
    return specs


class Shelf:
    """A shelf by its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, word: str, *serials: str) -> Answer | None:
        """What the process answers; None if there is none.

        :raises ShelfError: it says what is wrong
        """
        if not self._folder.is_dir():
            return None
        with socket.socket(socket.AF_UNIX) as line, _place(self._folder) as path:
            line.settimeout(_PATIENCE)
            try:
                line.connect(path)
                line.sendall(json.dumps([word, *serials]).encode() + b"\n")
                said = line.makefile("rb").readline(_LONGEST)
            except (FileNotFoundError, ConnectionError):
                return None
        if not said:
            # It ended meanwhile.
            return None
        answer: Answer = json.loads(said)
        if "error" in answer:
            raise ShelfError(answer["error"])
        return answer

    def start(self, drives: t.Sequence[str], check: bool, anew: bool = False) -> Answer:
        """The shelf with these drives, and whether it had to be set up.

        :param anew: with new drives, whichever are there
        :raises ShelfError: it is there with other drives
        :raises ValueError: these can't be on one shelf
        """
        wanted = [_plain(spec) for spec in parse_all(drives)]
        if anew and not check:
            self.stop(False)
        there = None if anew else self.ask("show")
        if there is not None:
            found = [{name: row[name] for name in wanted[0]} for row in there["drives"]] if wanted else []
            if found != wanted:
                raise ShelfError(f"{self._folder} has other drives: {found}. Stop it first; what is on them is lost.")
            return {**there, "changed": False}
        return {"changed": True} if check else {**self._launch(drives), "changed": True}

    def _launch(self, drives: t.Sequence[str]) -> Answer:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        words = [word for drive in drives for word in ("--drive", drive)]
        with (self._folder / _LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), "serve", str(self._folder), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < end:
            answer = self.ask("show")
            if answer is not None:
                return answer
            time.sleep(0.05)
        said = (self._folder / _LOG).read_text("utf-8", "replace").strip()
        raise ShelfError(f"the process with the drives did not start: {said or 'it said nothing'}")

    def stop(self, check: bool) -> Answer:
        """No shelf any more, and whether there was one."""
        there = self.ask("show" if check else "stop")
        if not check:
            with contextlib.suppress(OSError):
                # What a process left that did not end by itself, too.
                (self._folder / _SOCKET).unlink(missing_ok=True)
                (self._folder / _LOG).unlink(missing_ok=True)
                self._folder.rmdir()
        return {"changed": there is not None}

    def power_cycle(self, serials: t.Sequence[str], check: bool) -> Answer:
        """Off and on, all drives if none is named. Where there is no shelf, nothing has power.

        :raises ShelfError: a drive that is named is not there
        """
        there = self.ask("show" if check else "power-cycle", *serials)
        if there is None and serials:
            raise ShelfError(_nothing(self._folder))
        return {**(there or {}), "changed": there is not None}

    def show(self) -> Answer:
        """What there is.

        :raises ShelfError: nothing
        """
        there = self.ask("show")
        if there is None:
            raise ShelfError(_nothing(self._folder))
        return {**there, "changed": False}

    def serve(self, drives: t.Sequence[str]) -> None:
        """Be that process, until it is told to stop."""
        target = Target()
        with contextlib.closing(target), socket.socket(socket.AF_UNIX) as listener, _place(self._folder) as path:
            plugged = [target.plug(spec) for spec in parse_all(drives)]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            listener.listen()
            going = True
            while going:
                line, _address = listener.accept()
                with line, contextlib.suppress(OSError, ValueError):
                    word, *serials = json.loads(line.makefile("rb").readline(_LONGEST))
                    line.sendall(json.dumps(_do(target, plugged, word, serials)).encode() + b"\n")
                    going = word != "stop"


@contextlib.contextmanager
def _place(folder: Path) -> t.Iterator[str]:
    """The socket of a folder, by a path that is short enough for one however long that of the folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)


def _do(target: Target, drives: t.Sequence[Drive], word: str, serials: t.Sequence[str]) -> Answer:
    """What is asked for by a word, and what the drives are then."""
    missing = set(serials) - {drive.spec.serial for drive in drives}
    if missing:
        return {"error": f"there is no drive {', '.join(sorted(missing))}"}
    if word == "power-cycle":
        target.power_cycle(*(drive for drive in drives if not serials or drive.spec.serial in serials))
    return {
        "pid": os.getpid(),
        "port": target.port,
        "drives": [
            {
                **_plain(drive.spec),
                "name": name_of(drive.spec.serial),
                "owned": drive.owned(),
                "locking_enabled": drive.locking_enabled,
                "locked": drive.locked(),
                "wrong_passwords": len(drive.wrong),
            }
            for drive in drives
        ],
    }


def _nothing(folder: Path) -> str:
    return f"there are no drives in {folder}: start it first"


def _plain(spec: Spec) -> Answer:
    return {"serial": spec.serial, "kind": spec.kind, "size": spec.blocks * spec.block_size}


def main(argv: t.Sequence[str] | None = None) -> int:
    """The command line: every action prints one JSON object."""
    options = _options(argv)
    shelf = Shelf(options.folder)
    try:
        if options.action == "serve":
            shelf.serve(options.drive)
            return 0
        if options.action == "start":
            answer = shelf.start(options.drive, options.check, options.anew)
        elif options.action == "stop":
            answer = shelf.stop(options.check)
        elif options.action == "power-cycle":
            answer = shelf.power_cycle(options.serials, options.check)
        else:
            answer = shelf.show()
    except (ShelfError, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _options(argv: t.Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Emulated self-encrypting drives for a virtual machine.")
    parser.add_argument("action", choices=["start", "show", "power-cycle", "stop", "serve"])
    parser.add_argument("folder", type=Path, help="of the shelf; what is on the drives is in its process")
    parser.add_argument("serials", nargs="*", help="what power-cycle is for, all drives if none is named")
    parser.add_argument("--drive", action="append", default=[], metavar="SERIAL:SIZE[:KIND]")
    parser.add_argument("--anew", action="store_true", help="start with new drives; those that are there are lost")
    parser.add_argument("--check", action="store_true", help="only tell whether something would be done")
    return parser.parse_args(argv)
