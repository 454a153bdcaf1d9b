# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The types of ZFS properties: how a wanted value is read, what equals it, and when it may be set.

Sources: zfsprops(7), zpoolprops(7) and what ``zfs get -Hp`` prints for values written another way. A property without
an entry here (a user property, or one newer than this table) is compared as text.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput

# What a person may write for a value in YAML. ``None`` and "inherit" mean: no value of its own.
Given = t.Union[None, bool, int, float, str]

UNSET = "inherit"
_UNITS = {unit: 1 << (10 * power) for power, unit in enumerate("BKMGTPE")}
_SWITCH_WORDS = {"on": "on", "yes": "on", "true": "on", "off": "off", "no": "off", "false": "off"}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([BKMGTPE])?(?:IB|B)?", re.IGNORECASE)


@dataclass(frozen=True)
class Property:
    """A property as it was read. ``source`` is default, local, inherited, received, temporary or none."""

    value: str
    source: str

    @property
    def own(self) -> bool:
        """Whether the value was given to this very dataset instead of coming from a parent or a default."""
        return self.source in ("local", "received")


@dataclass(frozen=True)
class PropertyType:
    """How values of one property are compared and when they can be set.

    ``kind``: text, size (bytes), number or switch (on/off). ``aliases``: other spellings of a value.
    ``when``: any (set at any time), create (fixed at creation), attach (at creation or import).
    ``either``: a value that stands for one of several, depending on the version.
    ``default``: the value that "unset" stands for where ZFS has no way to inherit: pool properties, limits, canmount.
    """

    kind: str = "text"
    aliases: t.Mapping[str, str] = field(default_factory=dict)
    when: str = "any"
    default: str | None = None
    either: t.Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_SWITCH = PropertyType("switch")
_SPACE = PropertyType("size", {"none": "0"}, default="none")
_COUNT = PropertyType("size", {"none": str(2**64 - 1)}, default="none")
_OBJECTS = PropertyType("size", {"none": "0"}, default="none")
_FIXED = PropertyType(when="create")

CIPHERS = ("aes-256-gcm", "aes-192-gcm", "aes-128-gcm", "aes-256-ccm", "aes-192-ccm", "aes-128-ccm")
# OpenZFS 0.8.4 and later.
CIPHER_ALIASES = {"on": "aes-256-gcm"}

# These follow from the options for cipher and key; a second way to set them would be a second truth.
MANAGED = ("encryption", "keyformat", "keylocation", "pbkdf2iters")

FILESYSTEM: t.Mapping[str, PropertyType] = {
    "aclinherit": PropertyType(aliases={"secure": "restricted"}),
    "acltype": PropertyType(aliases={"posixacl": "posix", "noacl": "off"}),
    "atime": _SWITCH,
    "canmount": PropertyType(default="on"),
    "casesensitivity": _FIXED,
    "compression": PropertyType(aliases={"gzip-6": "gzip", "zstd-3": "zstd", "zstd-fast-1": "zstd-fast"}),
    "copies": PropertyType("number"),
    "devices": _SWITCH,
    "encryption": PropertyType(aliases=CIPHER_ALIASES, when="create"),
    "exec": _SWITCH,
    "filesystem_limit": _COUNT,
    "nbmand": _SWITCH,
    "normalization": _FIXED,
    "overlay": _SWITCH,
    "quota": _SPACE,
    "readonly": _SWITCH,
    "recordsize": PropertyType("size"),
    "refquota": _SPACE,
    "refreservation": _SPACE,
    "relatime": _SWITCH,
    "reservation": _SPACE,
    "setuid": _SWITCH,
    "snapshot_limit": _COUNT,
    "special_small_blocks": PropertyType("size"),
    "utf8only": PropertyType("switch", when="create"),
    "volblocksize": PropertyType("size", when="create"),
    "volmode": PropertyType(aliases={"full": "geom"}),
    "volsize": PropertyType("size"),
    "volthreading": _SWITCH,
    "vscan": _SWITCH,
    # "on" is what dir reads back as before OpenZFS 2.3, and sa since.
    "xattr": PropertyType(either={"on": ("dir", "sa")}),
    "zoned": _SWITCH,
    "jailed": _SWITCH,
}

POOL: t.Mapping[str, PropertyType] = {
    "altroot": PropertyType(when="attach"),
    "autoexpand": PropertyType("switch", default="off"),
    "autoreplace": PropertyType("switch", default="off"),
    "autotrim": PropertyType("switch", default="off"),
    "bootfs": PropertyType(default=""),
    # The usual path reads back as unset.
    "cachefile": PropertyType(aliases={"/etc/zfs/zpool.cache": "", "/boot/zfs/zpool.cache": ""}, default=""),
    "comment": PropertyType(default=""),
    "compatibility": PropertyType(default="off"),
    "dedup_table_quota": PropertyType("size", {"none": "0", "auto": str(2**64 - 1)}, default="auto"),
    "delegation": PropertyType("switch", default="on"),
    "failmode": PropertyType(default="wait"),
    "listsnapshots": PropertyType("switch", default="off"),
    "multihost": PropertyType("switch", default="off"),
    "readonly": PropertyType("switch", when="attach"),
}

_TEXT = PropertyType()
# A feature that was enabled becomes active with its first use, and can never be taken back.
_FEATURE = PropertyType(aliases={"active": "enabled"})


def filesystem_type(name: str) -> PropertyType:
    """The type of a dataset property.

    Quotas of users, groups and projects have one property for each of them, and since OpenZFS 2.4 one for all others.
    """
    prefix = name.split("@", 1)[0] if "@" in name else ""
    quota = prefix or (name[len("default") :] if name.startswith("default") else "")
    if quota in ("userquota", "groupquota", "projectquota"):
        return _SPACE
    if quota in ("userobjquota", "groupobjquota", "projectobjquota"):
        return _OBJECTS
    return FILESYSTEM.get(name, _TEXT)


def pool_type(name: str) -> PropertyType:
    """The type of a pool property; ``feature@...`` are pool properties too."""
    if name.startswith("feature@"):
        return _FEATURE
    if ":" in name:
        return PropertyType(default="")
    return POOL.get(name, _TEXT)


def wanted_text(name: str, given: Given, kind: PropertyType) -> str | None:
    """The value to hand to zfs for what a person wrote in YAML; ``None`` when the property is to be unset.

    YAML turns a bare ``on`` into true, ``0o1`` and ``128K`` into other types: each is taken for what was meant.

    :raises BadInput: the value does not fit the type of the property
    """
    if given is None or given == UNSET:
        return None
    if isinstance(given, bool):
        if kind.kind in ("size", "number"):
            raise BadInput(
                f"Property '{name}' takes a {kind.kind}, not {str(given).lower()}.",
                hint="YAML reads on, off, yes and no as true and false.",
            )
        return "on" if given else "off"
    text = str(given)
    if "\n" in text and kind.kind != "text":
        raise BadInput(f"The value of property '{name}' has a line break: {text!r}.")
    if kind.kind == "switch":
        if text.lower() not in _SWITCH_WORDS:
            raise BadInput(f"Property '{name}' is either on or off, not '{text}'.")
        return _SWITCH_WORDS[text.lower()]
    if kind.kind == "number" and not text.isdigit():
        raise BadInput(f"Property '{name}' takes a whole number, not '{text}'.")
    if kind.kind == "size":
        # zfs takes "1G" as well as bytes; what it can't take is "1 GB" or a float from YAML, so it gets bytes.
        return text if text in kind.aliases or text == "auto" else str(parse_size(name, text))
    return text


def same(wanted: str, actual: str, kind: PropertyType) -> bool:
    """Whether a wanted value is the one that was read with ``-p``, whatever its spelling."""
    if actual in kind.either.get(wanted, ()) or wanted in kind.either.get(actual, ()):
        return True
    return _canonical(wanted, kind) == _canonical(actual, kind)


def parse_size(name: str, text: str) -> int:
    """Bytes of '128K', '1.5G', '1 GiB' or '131072'; units are powers of 1024 as everywhere in ZFS.

    :raises BadInput: not a size
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadInput(
            f"Property '{name}' takes a size, not '{text}'.", hint="Write bytes or a unit: 131072, 128K, 1.5G."
        )
    number, unit = match.group(1), (match.group(2) or "B").upper()
    if "." in number:
        return int(float(number) * _UNITS[unit])
    return int(number) * _UNITS[unit]


def _canonical(value: str, kind: PropertyType) -> str:
    value = kind.aliases.get(value, value)
    if kind.kind == "size" and not value.isdigit():
        try:
            return str(parse_size("", value))
        except BadInput:
            return value
    if value == "-" and kind.default == "":
        return ""
    return value
