# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the file of passwords for the boot is to hold where it is not known of some drives whether they take theirs.

Such a drive keeps what the file has of it, a password or an object on a KMIP server, since that may be better than what
a task was given; the others do not wait for it. Of one of which it has nothing, a password is not written. An object
is: its name is no secret, what is in it may be right where the task's password was not, and it costs the drive one try
in a boot at most.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput
from .boot import SETTINGS
from .boot_files import File, wanted
from .boot_options import KEYS, parse_sources

Settings = t.Mapping[str, t.Any]
# What an object is to be found by.
_PLACE = ("server", "port", "by")


@dataclass(frozen=True)
class _Entry:
    """Where a drive has its password: it is that text, or in that object on a server. None: nowhere."""

    text: t.Any = field(repr=False)
    by_server: bool = False


@dataclass(frozen=True)
class Merged:
    """What the file is to hold, and for which drives it is not what is proven."""

    settings: dict[str, t.Any] = field(repr=False)
    kept: tuple[str, ...] = ()
    # They have an object of which it is not known whether it is theirs.
    untried: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    # Their passwords stay in the file, though they are to be on the server.
    late: tuple[str, ...] = ()


def settle(
    files: t.Sequence[File], found: t.Mapping[str, File | None], unproven: t.Collection[str]
) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """The files as they are to be, none if all of them are to be left as they are; and what a person is to know.

    :param files: those that are wanted where all passwords are proven
    :param found: what is there
    :param unproven: the drives of which they are not
    """
    if not unproven:
        return tuple(files), ()
    asked = next(json.loads(file.content) for file in files if file.path == SETTINGS)
    former = _former(found[SETTINGS])
    merged = merge(asked, former, unproven)
    if isinstance(merged, str):
        return (), (f"{SETTINGS} was left as it is, with what else unlocks drives at boot. {merged}",)
    # Not only the file: where a password stays in it, the unit for that is to stay, too.
    return wanted({**dict.fromkeys(KEYS), **merged.settings}), tuple(_words(merged))


def _words(merged: Merged) -> t.Iterator[str]:
    if merged.kept:
        yield f"{SETTINGS} has for {', '.join(merged.kept)} what it had before."
    if merged.late:
        yield (
            f"The passwords of {', '.join(merged.late)} stay in {SETTINGS} until it is known that the drives take "
            "those given; then the objects on the KMIP server take their place."
        )
    if merged.untried:
        yield (
            f"{SETTINGS} has for {', '.join(merged.untried)} what is to be fetched from the KMIP server, though it is "
            "not known whether the drives take that; if not, it costs a try in each boot."
        )
    if merged.lost:
        yield f"{SETTINGS} has no password for {', '.join(merged.lost)}: the boot leaves that locked."


def merge(asked: Settings, former: Settings, unproven: t.Collection[str]) -> Merged | str:
    """New entries for drives that take them, the former ones for the others; or why that can't be in one file.

    A drive of the others of which there was nothing before gets an object if that is asked for, and is left out
    otherwise, since nothing that is known opens it.
    """
    given = {device: _entry(asked, device) for device in asked["devices"]}
    before = {device: _entry(former, device) for device in former.get("devices", ()) if device in given}
    kept = {device: one for device, one in before.items() if device in unproven and one.text is not None}
    if kept and former.get("hash") != asked.get("hash"):
        return "It has passwords for another 'hash', which some of the drives may still need, and can't have two."
    server = asked.get("kmip") or {}
    if server and _place(server) != _place(former.get("kmip") or {}):
        # The objects there are now are those of the task, which the server has shown.
        away = [device for device, one in kept.items() if one.by_server]
        stuck = [device for device in away if not given[device].by_server]
        if stuck:
            return f"It has objects for {', '.join(stuck)} on another KMIP server, and can't have two."
        kept = {device: one for device, one in kept.items() if device not in away}
    fresh = {
        device: one for device, one in given.items() if device in unproven and device not in kept and one.by_server
    }
    proven = {device: one for device, one in given.items() if device not in unproven}
    known = {device: {**proven, **kept, **fresh}.get(device) for device in asked["devices"]}
    entries = {device: one for device, one in known.items() if one is not None}
    if not entries:
        return "No password of a drive is proven, and it has none of these drives."
    settings = {name: value for name, value in asked.items() if name not in ("password", "passwords", "kmip")}
    settings["devices"] = list(entries)
    common = _common(former, kept), _common(asked, proven)
    settings.update(_sources(entries, server or former.get("kmip") or {}, server.get("object"), common[1] or common[0]))
    return Merged(
        settings,
        kept=tuple(device for device in unproven if device in kept),
        untried=tuple(device for device in unproven if device in fresh),
        lost=tuple(device for device in unproven if device not in entries),
        late=tuple(device for device, one in kept.items() if given[device].by_server and not one.by_server),
    )


def _sources(entries: t.Mapping[str, _Entry], server: Settings, shared: t.Any, common: t.Any) -> dict[str, t.Any]:
    """The entries as the file has them.

    :param shared: the object of all drives that have none of their own, if a drive has it
    :param common: the password of all drives that have none of their own
    """
    found: dict[str, t.Any] = {}
    objects = {device: one.text for device, one in entries.items() if one.by_server}
    texts = {device: one.text for device, one in entries.items() if not one.by_server and one.text is not None}
    if objects:
        found["kmip"] = {name: value for name, value in server.items() if name not in ("object", "objects")}
        own = {device: text for device, text in objects.items() if text != shared}
        if len(own) < len(objects):
            found["kmip"]["object"] = shared
            # There can't be both for all others.
            common = None
        if own:
            found["kmip"]["objects"] = own
    own = {device: text for device, text in texts.items() if text != common}
    if common is not None and len(own) < len(texts):
        found["password"] = common
    if own:
        found["passwords"] = own
    return found


def _common(settings: Settings, entries: t.Mapping[str, _Entry]) -> t.Any:
    """The common password of the settings if one of these drives has it: one that no drive took is not to be there."""
    own = settings.get("passwords") or {}
    used = any(device not in own and not one.by_server for device, one in entries.items())
    return (settings.get("password") or None) if used else None


def _entry(settings: Settings, device: str) -> _Entry:
    kmip, passwords = settings.get("kmip") or {}, settings.get("passwords") or {}
    objects = kmip.get("objects") or {}
    if device in objects:
        return _Entry(objects[device], by_server=True)
    if device in passwords:
        return _Entry(passwords[device])
    if kmip.get("object") is not None:
        return _Entry(kmip["object"], by_server=True)
    return _Entry(settings.get("password"))


def _place(kmip: Settings) -> tuple[t.Any, ...]:
    return tuple(kmip.get(name) for name in _PLACE)


def _former(file: File | None) -> dict[str, t.Any]:
    """What the file holds, nothing if it is not one that the module has written."""
    if file is None or file.target or file.mode & 0o022:
        return {}
    try:
        found = json.loads(file.content)
        if not isinstance(found, dict) or not isinstance(found.get("devices"), list):
            return {}
        parse_sources({**dict.fromkeys(KEYS), **found})
    except (ValueError, TypeError, AttributeError, BadInput):
        return {}
    return found
