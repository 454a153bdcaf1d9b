# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the file of passwords for the boot is to hold where it is not known of some drives whether they take theirs.

Such a drive keeps what the file has of it, since that may be better than what a task was given; the others do not wait
for it.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import replace

from .boot import SETTINGS
from .boot_files import File

Settings = t.Mapping[str, t.Any]


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
    wanted = next(json.loads(file.content) for file in files if file.path == SETTINGS)
    former = _former(found[SETTINGS])
    merged = merge(wanted, former, unproven)
    if merged is None:
        return (), (f"{SETTINGS} was left as it is, with what else unlocks drives at boot. {_why(wanted, former)}",)
    content = json.dumps(merged, indent=2, sort_keys=True).encode("utf-8") + b"\n"
    kept = [one for one in unproven if one in merged["devices"]]
    lost = [one for one in unproven if one not in merged["devices"]]
    warnings = [f"{SETTINGS} has for {', '.join(kept)} what it had before."] if kept else []
    warnings += [f"{SETTINGS} has no password for {', '.join(lost)}: the boot leaves that locked."] if lost else []
    return tuple(replace(one, content=content) if one.path == SETTINGS else one for one in files), tuple(warnings)


def _why(wanted: Settings, former: Settings) -> str:
    if former and former.get("hash") != wanted.get("hash"):
        return "It has passwords for another 'hash', which some of the drives may still need, and can't have two."
    return "No password of a drive is proven, and it has none of these drives."


def merge(wanted: Settings, former: Settings, unproven: t.Collection[str]) -> dict[str, t.Any] | None:
    """New passwords for drives that take them, the former ones for the others; None if that can't be in one file.

    A drive of the others of which there was nothing before is left out, since nothing that is known opens it.
    """
    proven = {one: _password(wanted, one) for one in wanted["devices"] if one not in unproven}
    before = {one: _password(former, one) for one in former.get("devices", ()) if one in unproven}
    kept = {one: text for one, text in before.items() if text is not None}
    if not (proven or kept) or (kept and former.get("hash") != wanted.get("hash")):
        return None
    # One that no drive took is not to be in the file.
    common = None
    for settings, devices in ((former, kept), (wanted, proven)):
        if settings.get("password") and set(devices) - set(settings.get("passwords") or ()):
            common = settings["password"]
    known = {**proven, **kept}
    own = {one: text for one, text in known.items() if text is not None and text != common}
    merged = {**wanted, "devices": [one for one in wanted["devices"] if one in known]}
    for name, value in (("password", common), ("passwords", own)):
        merged.pop(name, None)
        if value:
            merged[name] = value
    return merged


def _password(settings: Settings, device: str) -> str | None:
    return (settings.get("passwords") or {}).get(device) or settings.get("password")


def _former(file: File | None) -> dict[str, t.Any]:
    """What the file holds, nothing if it is not one that the module has written."""
    if file is None or file.target or file.mode & 0o022:
        return {}
    try:
        found = json.loads(file.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("devices"), list) else {}
