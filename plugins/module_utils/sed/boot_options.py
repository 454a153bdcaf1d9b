# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host finds the passwords of its drives when it starts: in the file itself, or on a KMIP server."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from ..errors import BadInput
from ..kmip.connection import Connection, connection_spec, parse_connection
from ..kmip.names import check_name, check_uid
from .options import argument_spec, parse_wishes
from .state import UNLOCKED

# What the file holds, by the names of the options of the module sed_boot.
KEYS = ("devices", "password", "passwords", "hash", "kmip")
BY = ("name", "uid")
DEFAULT_WAIT = 120
_LONGEST_WAIT = 600
_PATHS = ("certificate", "private_key", "ca_certificate")

Params = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Kmip:
    """A server, and by drive the name or the uid of the object that holds its password.

    ``wait``: seconds in which a server that does not answer is asked again.
    """

    connection: Connection
    by: str
    objects: t.Mapping[str, str]
    wait: int

    @property
    def limit(self) -> int:
        """Seconds after which all of it is over: an attempt may begin when the time to wait nearly is.

        That attempt may be one that hangs at an object, and those behind it are asked for after it.
        """
        return self.wait + 2 * self.connection.timeout

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the connection, without those that the system has anyway."""
        found = (getattr(self.connection, name) for name in _PATHS)
        return tuple(dict.fromkeys(path for path in found if path))


@dataclass(frozen=True)
class Sources:
    """The drives whose passwords are in the file, in their order, and the server that has those of the others."""

    filed: tuple[str, ...]
    kmip: Kmip | None = None


def kmip_spec() -> dict[str, t.Any]:
    """The suboptions of kmip. A passphrase of the private key would be beside it, so there is none."""
    connection = {name: one for name, one in connection_spec().items() if name != "private_key_passphrase"}
    return {
        **connection,
        "by": {"type": "str", "default": BY[0], "choices": list(BY)},
        "object": {"type": "str"},
        "objects": {"type": "dict"},
        "wait": {"type": "int", "default": DEFAULT_WAIT},
        "validate": {"type": "bool", "default": True},
    }


def parse_sources(params: Params) -> Sources:
    """Which password is where.

    :raises BadInput: the options contradict each other, one of them can't be right, or a drive has no password
    """
    devices = [str(one) for one in params["devices"] or ()]
    passwords = params.get("passwords") or {}
    _check_named("passwords", passwords, devices)
    if params.get("kmip") is None:
        return Sources(tuple(devices))
    given = _with_defaults(params["kmip"])
    own = {str(device): one for device, one in (given["objects"] or {}).items()}
    _check_named("kmip.objects", own, devices)
    _check_objects(given, own, devices, passwords, params.get("password"))
    objects = {
        device: _term(given["by"], own.get(device, given["object"]), device)
        for device in devices
        if device in own or (device not in passwords and given["object"] is not None)
    }
    if not objects:
        raise BadInput(
            "kmip is given, but all drives have their passwords in passwords.",
            hint="Leave kmip out, or say in its objects which drive has its password on the server.",
        )
    filed = tuple(device for device in devices if device not in objects)
    missing = [device for device in filed if device not in passwords and params.get("password") is None]
    if missing:
        raise BadInput(f"No password is given for {', '.join(missing)}, and no object in kmip.")
    return Sources(filed, Kmip(_connection(given), given["by"], objects, given["wait"]))


def check(params: Params) -> Sources:
    """The same, for what the program at boot would refuse otherwise.

    :raises BadInput: see :func:`parse_sources`
    """
    sources = parse_sources(params)
    given = {name: params.get(name) for name in ("password", "passwords", "hash")}
    if sources.filed:
        parse_wishes(lock_params(given, sources.filed))
    if sources.kmip is not None:
        # As if all were fetched: what is said of the names of drives holds for all of them.
        parse_wishes(lock_params({"password": "there", "hash": given["hash"]}, tuple(params["devices"])))
    return sources


def kept(params: Params, sources: Sources) -> dict[str, t.Any]:
    """What the file is to hold: no password that no drive has there."""
    found = {name: params[name] for name in KEYS if params.get(name)}
    if sources.kmip is None:
        return found
    if all(device in (params.get("passwords") or {}) for device in sources.filed):
        found.pop("password", None)
    given = found["kmip"]
    found["kmip"] = {name: given[name] for name in kmip_spec() if name != "validate" and given.get(name) is not None}
    return found


def lock_params(given: Params, devices: t.Sequence[str]) -> dict[str, t.Any]:
    """The options of a task of sed_lock that unlocks these drives."""
    defaults = {name: one.get("default") for name, one in argument_spec().items()}
    passwords = {device: text for device, text in (given.get("passwords") or {}).items() if device in devices}
    rest = {"devices": list(devices), "password": given.get("password"), "passwords": passwords, "state": UNLOCKED}
    return {**defaults, **rest, "hash": given["hash"]}


def _with_defaults(given: t.Any) -> dict[str, t.Any]:
    spec = kmip_spec()
    if not isinstance(given, dict) or set(given) - set(spec):
        raise BadInput(f"kmip holds something else than {', '.join(spec)}.")
    return {name: given.get(name, one.get("default")) for name, one in spec.items()}


def _check_named(option: str, entries: t.Iterable[str], devices: t.Sequence[str]) -> None:
    unknown = sorted(set(entries) - set(devices))
    if unknown:
        raise BadInput(
            f"{option} has entries for what the task is not about: {', '.join(unknown)}.",
            hint="Its keys are spelled as the drives in devices.",
        )


def _check_objects(
    given: Params, own: t.Mapping[str, t.Any], devices: t.Sequence[str], passwords: Params, password: t.Any
) -> None:
    both = [device for device in devices if device in own and device in passwords]
    if both:
        raise BadInput(f"Both a password and an object on the KMIP server are given for {', '.join(both)}.")
    if given["object"] is not None and password is not None:
        raise BadInput(
            "Both password and kmip.object are given: either is for all drives that have none of their own.",
            hint="Name the objects of single drives in kmip.objects, or their passwords in passwords.",
        )
    if not own and given["object"] is None:
        raise BadInput("kmip needs object, or objects: the name of what holds the password of a drive.")
    if given["by"] not in BY:
        raise BadInput(f"kmip.by is '{given['by']}'; it is one of {', '.join(BY)}.")
    if not 0 <= given["wait"] <= _LONGEST_WAIT:
        raise BadInput(f"kmip.wait is {given['wait']}; wanted is a number of seconds from 0 to {_LONGEST_WAIT}.")


def _term(by: str, term: t.Any, device: str) -> str:
    if by == "uid" and isinstance(term, int) and not isinstance(term, bool):
        # YAML takes the digits of a uid for a number.
        return check_uid(str(term))
    if not isinstance(term, str):
        raise BadInput(f"The object of '{device}' on the KMIP server is not text.")
    return check_uid(term) if by == "uid" else check_name(term)


def _connection(given: Params) -> Connection:
    for name in _PATHS:
        path = given[name]
        if path is None:
            continue
        if not isinstance(path, str) or not os.path.isabs(path) or not path.isprintable():
            raise BadInput(f"kmip.{name} is {path!r}; wanted is an absolute path on the host.")
        if path != os.path.normpath(path) or path.startswith("//"):
            # systemd does not take it, and leaves out what the unit needs.
            raise BadInput(f"kmip.{name} is '{path}'; wanted is that without '.', '..' and needless slashes.")
    return parse_connection({**given, "private_key_passphrase": None})
