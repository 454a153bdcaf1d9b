# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cases: read from YAML, checked for misspelt words, with the names of disks and keys filled in."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .keys import KeyRing

DEFAULT_MODULE = "zfs_encrypted_pool"

_CASE_WORDS = {"name", "long", "setup", "steps", "cleanup"}
_CALL_WORDS = {
    "module",
    "args",
    "again",
    "uid",
    "changed",
    "failed",
    "apply_only",
    "actions",
    "result",
    "diff",
    "warnings",
    "executes",
    "reveals",
    "repeats",
    "engine",
    "leaves",
    "verify",
}
_SCRIPT_WORDS = {"shell", "save", "out"}
_KILL_WORDS = {"killed", "module", "args", "at"}

_TOKEN = re.compile(r"(?<![$\\])\{([A-Za-z_]+)(\d*)(?::([a-z0-9]+))?\}")


class BadCase(Exception):
    """A case file says something that the suite does not understand."""


@dataclass(frozen=True)
class Call:
    """One call of a module, carried out as check, apply, check, apply."""

    module: str
    args: Mapping[str, Any]
    again: tuple[Mapping[str, Any], ...] = ()
    """Other spellings of the same wish, each on top of ``args``; they must find nothing to do."""
    uid: int | None = None
    changed: bool = True
    failed: str = ""
    """What the message of an expected failure looks like; then nothing may be changed."""
    apply_only: bool = False
    """Check mode can't foresee this failure."""
    actions: tuple[str, ...] | None = None
    result: Any = None
    diff: Any = None
    warnings: tuple[str, ...] = ()
    executes: int = 3
    """Most processes of zfs and zpool that a run with nothing to do may start."""
    reveals: bool = False
    """Check mode can't see everything, so apply does more than it said."""
    engine: str = ""
    """"zfs" to let keys be dealt with by programs instead of libzfs_core."""
    repeats: bool = False
    """What is asked for is done at every run, so only the first pair is made."""
    leaves: tuple[str, ...] = ()
    """What a failure that only apply finds may leave changed: pools, datasets, keys, disks."""
    verify: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Script:
    """Shell lines between calls; ``save`` gives what they print a name for later steps."""

    text: str
    save: str = ""
    out: Any = None


@dataclass(frozen=True)
class Killed:
    """A run of the module that something in the set-up kills before it ends."""

    module: str
    args: Mapping[str, Any]


Step = Call | Script | Killed


@dataclass(frozen=True)
class Case:
    """One case: set-up, steps, clean-up beyond what the reset does."""

    name: str
    setup: str
    steps: tuple[Step, ...]
    cleanup: str = ""
    long: bool = False
    """Only run when all cases are asked for."""


def load(folder: Path) -> list[Case]:
    """All cases, file by file.

    :raises BadCase: a word that means nothing, or a name that is used twice
    """
    cases: list[Case] = []
    for path in sorted(folder.glob("*.yml")):
        for entry in yaml.safe_load(path.read_text("utf-8")):
            try:
                cases.append(_case(entry, path.stem.split("_", 1)[-1]))
            except (AttributeError, KeyError, TypeError, BadCase) as error:
                raise BadCase(f"{path.name}: case {entry.get('name', entry)!r}: {error}") from error
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadCase(f"these names are used for more than one case: {sorted(twice)}")
    return cases


def _case(entry: Mapping[str, Any], group: str) -> Case:
    single = {word: value for word, value in entry.items() if word in _CALL_WORDS}
    _known(entry, _CASE_WORDS | set(single))
    if bool(single) == ("steps" in entry):
        raise BadCase("a case has either 'steps', or the words of one call")
    steps = tuple(_step(step) for step in entry.get("steps", [single]))
    name = f"{group}: {entry['name']}"
    return Case(name, entry.get("setup", ""), steps, entry.get("cleanup", ""), bool(entry.get("long")))


def _step(entry: Mapping[str, Any]) -> Step:
    if "shell" in entry:
        _known(entry, _SCRIPT_WORDS)
        return Script(entry["shell"], entry.get("save", ""), entry.get("out"))
    if "killed" in entry:
        _known(entry, _KILL_WORDS)
        return Killed(entry.get("module", DEFAULT_MODULE), entry["args"])
    _known(entry, _CALL_WORDS)
    values = dict(entry)
    values.setdefault("module", DEFAULT_MODULE)
    for word in ("again", "warnings", "leaves", "actions"):
        if word in values:
            values[word] = tuple(values[word])
    values["verify"] = tuple(item for line in values.get("verify", ()) for item in line.items())
    return Call(**values)


def _known(entry: Mapping[str, Any], words: set[str]) -> None:
    unknown = set(entry) - words
    if unknown:
        raise BadCase(f"unknown words: {sorted(unknown)}; known are {sorted(words)}")


@dataclass
class Names:
    """Fills in ``{d1}`` and the like."""

    disks: Sequence[Mapping[str, Any]]
    partitions: Sequence[Mapping[str, Any]]
    keys: KeyRing
    saved: dict[str, str] = field(default_factory=dict)

    def fill(self, value: Any) -> Any:
        """The value with every name in it, at any depth, replaced by what it stands for."""
        if isinstance(value, str):
            return _TOKEN.sub(self._replace, value).replace("\\{", "{")
        if isinstance(value, Mapping):
            return {self.fill(name): self.fill(inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.fill(inner) for inner in value]
        return value

    def _replace(self, match: re.Match[str]) -> str:
        word, number, detail = match.group(1), match.group(2), match.group(3)
        if word == "p":
            return str(self.partitions[int(number) - 1][detail or "id"])
        if word == "d":
            disk = self.disks[int(number) - 1]
            part = re.fullmatch(r"part(\d+)", detail or "")
            return f"{disk['id']}-part{part.group(1)}" if part else str(disk[detail or "id"])
        if word == "hex":
            return _spoil_hex(self.keys.hex(number), detail)
        if word == "HEX":
            return self.keys.hex(number).upper()
        if word == "raw":
            return base64.b64encode(_spoil_raw(self.keys.raw(number), detail)).decode("ascii")
        if word == "rawhex":
            return _spoil_raw(self.keys.raw(number), detail).hex()
        if word == "rawbytes":
            return "".join(f"\\x{byte:02x}" for byte in _spoil_raw(self.keys.raw(number), detail))
        if word == "pass":
            return self.keys.passphrase(number, int(detail or 24))
        if word == "long":
            # close to the 8191 bytes that ZFS allows for a user property
            return "long text " * 800
        name = word + number
        if name in self.saved:
            return self.saved[name]
        raise BadCase(f"{match.group()} stands for nothing")


def _spoil_hex(key: str, detail: str | None) -> str:
    """A key that is one digit too short, or has a letter that is no digit, or begins with zeros."""
    return {"short": key[:-1], "odd": key[:-1] + "g", "zero": "00" + key[:-2]}[detail] if detail else key


def _spoil_raw(key: bytes, detail: str | None) -> bytes:
    """A key that is a byte too short or too long, or begins with zeros."""
    return {"short": key[:-1], "long": key + b"x", "zero": bytes(2) + key[:-2]}[detail] if detail else key
