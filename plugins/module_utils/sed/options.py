# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task wants of drives, from its options."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput
from . import pin, uids
from .state import LOCKED, READONLY, UNLOCKED, Secret

PRESENT, ABSENT = "present", "absent"
STATES = (PRESENT, UNLOCKED, READONLY, LOCKED, ABSENT)
BACKENDS = ("auto", "native", "sedutil")
# What sedutil-cli can be told: to make the credential in its own way, or to take the password for it.
_SEDUTIL_HASHES = ("sha1", "raw")
# Numbers of ranges that a drive may have; Opal has 8 besides the global one, mostly.
_LAST_RANGE = 1023


@dataclass(frozen=True)
class Wish:
    """What one drive is to be."""

    address: str
    state: str
    ours: Secret | None = field(default=None, repr=False)
    new: Secret | None = field(default=None, repr=False)
    psid: Secret | None = field(default=None, repr=False)
    range: int = 0
    start: int | None = None
    length: int | None = None
    confirm: tuple[str, ...] = ()

    @property
    def target(self) -> Secret | None:
        """The password the drive is to have."""
        return self.new or self.ours


def argument_spec() -> dict[str, t.Any]:
    """The arguments of the module."""
    return {
        "state": {"type": "str", "default": PRESENT, "choices": list(STATES)},
        "device": {"type": "str"},
        "serial": {"type": "str"},
        "devices": {"type": "list", "elements": "str"},
        "password": {"type": "str", "no_log": True},
        "passwords": {"type": "dict", "no_log": True},
        "new_password": {"type": "str", "no_log": True},
        "psid": {"type": "str", "no_log": True},
        "hash": {"type": "str", "default": "sha1", "choices": list(pin.HASHES)},
        "range": {"type": "int", "default": 0},
        "range_start": {"type": "int"},
        "range_length": {"type": "int"},
        "confirm_serial": {"type": "list", "elements": "str", "default": []},
        "check_password": {"type": "bool", "default": False, "no_log": False},
        "backend": {"type": "str", "default": BACKENDS[0], "choices": list(BACKENDS)},
    }


def parse_wishes(params: t.Mapping[str, t.Any]) -> tuple[Wish, ...]:
    """What is wanted of which drives, in the order they were named.

    :raises BadInput: the options contradict each other, or one of them can't be right
    """
    _check_combination(params)
    single = params["device"] or params["serial"]
    addresses = [single] if single else list(params["devices"])
    if not all(str(one).strip() for one in addresses):
        raise BadInput("devices holds an empty name, which is that of no drive.")
    repeated = sorted({one for one in addresses if addresses.count(one) > 1})
    if repeated:
        raise BadInput(f"devices holds the same drive more than once: {', '.join(repeated)}.")
    unknown = sorted(set(params["passwords"] or ()) - set(addresses))
    if unknown:
        raise BadInput(
            f"passwords has entries for what the task is not about: {', '.join(unknown)}.",
            hint="Its keys are spelled as the drives in device, serial or devices.",
        )
    return tuple(_wish(params, str(address)) for address in addresses)


def secrets(params: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Every secret among the options; a module need not have all of them."""
    given = [*map(params.get, ("password", "new_password", "psid")), *(params["passwords"] or {}).values()]
    return (str(one) for one in given if one)


def _wish(params: t.Mapping[str, t.Any], address: str) -> Wish:
    own = (params["passwords"] or {}).get(address)
    password = params["password"] if own is None else own
    where = "password" if own is None else f"passwords['{address}']"
    ours = _secret("ours", password, params["hash"], where)
    new = _secret("new", params["new_password"], params["hash"], "new_password")
    if ours is not None and new is not None and ours.value == new.value:
        # This drive has it already, others of the task may not.
        new = None
    return Wish(
        address=address,
        state=params["state"],
        ours=ours,
        new=new,
        psid=_psid(params["psid"]),
        range=params["range"],
        start=params["range_start"],
        length=params["range_length"],
        confirm=tuple(params["confirm_serial"]),
    )


def _secret(origin: str, text: t.Any, kind: str, where: str) -> Secret | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise BadInput(f"{where} is not text.", hint="In YAML, a password that looks like a number is put in quotes.")
    return Secret(origin, pin.check(text, kind, where))


def _psid(text: str | None) -> Secret | None:
    if text is None:
        return None
    # Labels print it in groups.
    plain = text.replace("-", "").replace(" ", "").upper()
    if not plain.isalnum() or not plain.isascii() or not 8 <= len(plain) <= 32:
        raise BadInput(
            "psid is not the code of a label: letters and digits, 32 of them on nearly all drives.",
            hint="Scan the code beside the word PSID on the drive's label; it is not the serial number.",
        )
    return Secret(uids.PSID, plain.encode("ascii"))


def _check_combination(params: t.Mapping[str, t.Any]) -> None:
    state = params["state"]
    ways = [option for option in ("device", "serial", "devices") if params[option]]
    if len(ways) != 1:
        found = " and ".join(ways) + " are given" if ways else "No drive is named"
        raise BadInput(f"{found}; wanted is one of device, serial and devices.")
    has_password = params["password"] is not None or bool(params["passwords"])
    if params["psid"] is not None and (state != ABSENT or has_password):
        raise BadInput("psid erases a drive whose password is lost: it goes with state: absent, without a password.")
    if state != ABSENT and not has_password:
        raise BadInput("No password is given.")
    if state == ABSENT and not has_password and params["psid"] is None:
        raise BadInput("A drive is reset with its password, or with the psid from its label.")
    if params["psid"] is not None and ways == ["devices"] and len(params["devices"]) > 1:
        raise BadInput("Every drive has a psid of its own, so name one drive in each task.")
    if params["new_password"] is not None and state != PRESENT:
        raise BadInput("new_password goes with state: present.")
    if not 0 <= params["range"] <= _LAST_RANGE:
        raise BadInput(f"range is {params['range']}; ranges have numbers from 0 to {_LAST_RANGE}.")
    if params["range"] and state == ABSENT:
        raise BadInput("state: absent resets a whole drive; it goes without range.")
    geometry = [params["range_start"], params["range_length"]]
    if geometry != [None, None]:
        if None in geometry or not params["range"] or state != PRESENT:
            raise BadInput("range_start and range_length go together, with state: present and a range other than 0.")
        if min(geometry) < 0 or not params["range_length"]:
            raise BadInput("A range begins at block 0 or later and has at least one block.")
    if params["new_password"] is not None and params["new_password"] == params["password"] and not params["passwords"]:
        raise BadInput("new_password is the password that is there already.")
    if params["backend"] == "sedutil" and params["hash"] not in _SEDUTIL_HASHES:
        raise BadInput(
            f"hash is {params['hash']}, but sedutil-cli makes the credential itself, each version in its own way, and "
            "can't be told another.",
            hint="Leave hash as it is for what the sedutil-cli of this host does, raw for its option -n; or use "
            "backend: native.",
        )
