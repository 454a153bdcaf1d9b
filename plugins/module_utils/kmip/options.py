# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task wants of a KMIP server, from its options."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput
from ..secrets import FORMATS, parse_option
from .connection import connection_spec
from .names import check_name, check_own_name, check_uid

STATES = ("present", "absent", "rotated")
PREVIOUS_CHOICES = ("keep", "destroy")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Wish:
    """What one key is to be. ``generate`` is the format of a new random key, "" for none."""

    state: str
    name: str
    uid: str = ""
    value: str | None = field(default=None, repr=False)
    generate: str = ""
    keep_previous: bool = True

    @property
    def label(self) -> str:
        """What the wish is called in results and messages."""
        return self.name or self.uid


def argument_spec() -> dict[str, t.Any]:
    """The arguments of the module."""
    return {
        **connection_spec(),
        "state": {"type": "str", "default": STATES[0], "choices": list(STATES)},
        "name": {"type": "str"},
        "names": {"type": "list", "elements": "str"},
        "uid": {"type": "str"},
        "value": {"type": "str", "no_log": True},
        "keys": {"type": "dict", "no_log": True},
        "generate": {"type": "bool", "default": False},
        "format": {"type": "str", "choices": list(FORMATS)},
        "previous": {"type": "str", "default": PREVIOUS_CHOICES[0], "choices": list(PREVIOUS_CHOICES)},
    }


def parse_wishes(params: t.Mapping[str, t.Any]) -> tuple[Wish, ...]:
    """What is wanted of which keys, in the order they were named.

    :raises BadInput: the options contradict each other, or one of them can't be right
    """
    state = params["state"]
    _check_combination(params)
    check = check_name if state == "absent" else check_own_name
    generate = (params["format"] or FORMATS[0]) if params["generate"] else ""
    keep = params["previous"] == "keep"

    def wish(name: str | None, value: str | None, where: str) -> Wish:
        if value is not None:
            value = _check_value(value, params["format"], where)
        # An empty name is refused, not taken for none: beside a uid it is the guard that comes out of a variable.
        return Wish(state, "" if name is None else check(str(name)), _uid(params["uid"]), value, generate, keep)

    if params["keys"] is not None:
        return tuple(wish(name, value, f"keys['{name}']") for name, value in params["keys"].items())
    if params["names"] is not None:
        repeated = sorted({name for name in params["names"] if params["names"].count(name) > 1})
        if repeated:
            raise BadInput(f"names holds the same name more than once: {', '.join(repeated)}.")
        return tuple(wish(name, None, "names") for name in params["names"])
    return (wish(params["name"], params["value"], "value"),)


def _uid(uid: str | None) -> str:
    return "" if uid is None else check_uid(str(uid))


def _check_combination(params: t.Mapping[str, t.Any]) -> None:
    state = params["state"]
    ways = [option for option in ("name", "names", "keys") if params[option] is not None]
    if len(ways) > 1:
        raise BadInput(f"{' and '.join(ways)} are given; wanted is one of them.")
    if params["uid"] is not None and (state != "absent" or ways not in ([], ["name"])):
        raise BadInput("uid names an object to be removed: it goes with state: absent, alone or with the name it has.")
    if not ways and params["uid"] is None:
        raise BadInput(
            "Neither name, names nor keys is given." if state != "absent" else "Neither a name nor a uid is given."
        )
    if params["value"] is not None and "name" not in ways and params["uid"] is None:
        raise BadInput("value goes with name. For several keys there is the option keys.")
    given = params["value"] is not None or params["keys"] is not None
    if params["generate"] and (given or state == "absent"):
        raise BadInput("generate makes new keys; it goes neither with keys that are given nor with state: absent.")
    if state == "rotated" and not given and not params["generate"]:
        raise BadInput("state: rotated needs the new key, as value or in keys, or generate: true.")


def _check_value(value: t.Any, key_format: str | None, where: str) -> str:
    """The text of a key; a message never repeats it."""
    if not isinstance(value, str):
        raise BadInput(
            f"{where} is not text.", hint="In YAML, a passphrase that looks like a number or a date is put in quotes."
        )
    text = str(value)
    if not text:
        raise BadInput(f"{where} is empty.")
    if _CONTROL.search(text):
        raise BadInput(
            f"{where} holds a line break or another control character.",
            hint="In YAML write '|-' instead of '|'. A raw key is given in base64.",
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"{where} holds half a character, which can't be written in UTF-8.") from None
    if key_format is not None:
        try:
            parse_option(key_format, text)
        except BadInput as error:
            raise BadInput(error.message.replace("key.value", where), hint=error.hint) from None
    return text
