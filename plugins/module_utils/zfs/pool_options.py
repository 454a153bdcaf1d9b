# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of zfs_encrypted_pool as checked values; nothing here looks at the host."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput
from .key_option import KEY_SPEC, WantedKey, parse_key_option
from .names import check_pool_name
from .properties import (
    CIPHER_ALIASES,
    CIPHERS,
    MANAGED,
    PropertyType,
    filesystem_type,
    pool_type,
    wanted_text,
)
from .status import ROLES
from .topology import TYPES, WantedVdev, parse_vdev

Wishes = t.Mapping[str, t.Optional[str]]

_VDEV_SPEC: t.Mapping[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "type": {"type": "str", "choices": list(TYPES), "default": "stripe"},
        "role": {"type": "str", "choices": list(ROLES), "default": "data"},
        "disks": {"type": "list", "elements": "str", "required": True},
        "draid_data": {"type": "int"},
        "draid_spares": {"type": "int"},
    },
}

# The options of one pool, at the top level of the module and in each entry of ``pools``.
_POOL_SPEC: t.Mapping[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "exported", "absent"], "default": "present"},
    "vdevs": _VDEV_SPEC,
    "cipher": {"type": "str", "choices": ["on", "off", *CIPHERS]},
    "key": KEY_SPEC,
    "properties": {"type": "dict"},
    "filesystem_properties": {"type": "dict"},
    "ashift": {"type": "int", "choices": list(range(9, 17))},
    "unlock": {"type": "bool", "default": True},
    "mount": {"type": "bool", "default": True},
    "import_foreign": {"type": "bool", "default": False},
    "search_paths": {"type": "list", "elements": "path"},
    "confirm_guid": {"type": "str"},
    "wipe_disks": {"type": "list", "elements": "str"},
    "force": {"type": "bool", "default": False},
}


def argument_spec() -> dict[str, t.Any]:
    """The module's options: one pool by ``name``, or any number in ``pools``."""
    spec: dict[str, t.Any] = {"name": {"type": "str"}}
    spec.update(_POOL_SPEC)
    spec["pools"] = {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, **_POOL_SPEC},
    }
    return spec


@dataclass(frozen=True)
class WantedPool:
    """One pool as the caller described it. ``cipher`` is ``None`` when it was left open, ``off`` for a plain pool."""

    name: str
    state: str = "present"
    vdevs: tuple[WantedVdev, ...] = ()
    cipher: str | None = None
    key: WantedKey | None = None
    properties: Wishes = field(default_factory=dict)
    filesystem_properties: Wishes = field(default_factory=dict)
    ashift: int | None = None
    unlock: bool = True
    mount: bool = True
    import_foreign: bool = False
    search_paths: tuple[str, ...] = ()
    confirm_guid: str = ""
    wipe_disks: tuple[str, ...] = ()
    force: bool = False

    @property
    def disks(self) -> tuple[str, ...]:
        return tuple(disk for vdev in self.vdevs for disk in vdev.disks)

    def mountpoint(self) -> str:
        """Where zpool create will mount the root filesystem of a new pool, "" for nowhere."""
        if self.filesystem_properties.get("canmount") == "off":
            return ""
        mountpoint = self.filesystem_properties.get("mountpoint")
        altroot = self.properties.get("altroot") or ""
        path = f"/{self.name}" if mountpoint is None else mountpoint
        if not path.startswith("/"):
            return ""
        return (altroot.rstrip("/") + path).rstrip("/") or "/"


def parse_options(params: t.Mapping[str, t.Any]) -> tuple[WantedPool, ...]:
    """All pools of the task.

    :raises BadInput: naming the pool and the option
    """
    if params.get("pools") is None:
        if params.get("name") is None:
            raise BadInput("Neither 'name' nor 'pools' is set, so no pool is meant.")
        return (_parse_pool(params),)
    if params.get("name") is not None:
        raise BadInput("Both 'name' and 'pools' are set.", hint="Describe every pool as an entry of 'pools'.")
    stray = [name for name, spec in _POOL_SPEC.items() if _given(params.get(name), spec.get("default"))]
    if stray:
        raise BadInput(
            f"With 'pools', the options of a pool belong into its entry; found outside: {', '.join(sorted(stray))}."
        )
    pools = tuple(_parse_pool(entry) for entry in params["pools"])
    names = [pool.name for pool in pools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"'pools' names the same pool more than once: {', '.join(twice)}.")
    _check_key_files(pools)
    return pools


def _check_key_files(pools: t.Sequence[WantedPool]) -> None:
    """Pools may share a key file that exists, but it can't be written for each of them."""
    writers: dict[str, list[str]] = {}
    for pool in pools:
        if pool.state == "present" and pool.key is not None and pool.key.file is not None:
            writers.setdefault(pool.key.file, []).append(pool.name)
    for pool in pools:
        key = pool.key
        if key is None or key.file is None or not (key.generate or key.value is not None):
            continue
        names = writers.get(key.file, [])
        if len(names) > 1:
            raise BadInput(
                f"The pools {', '.join(names)} share the key file {key.file}, and one of them would write it.",
                hint="Give each pool a key file of its own, or make the file first and leave out key.generate and "
                "key.value.",
            )


def _given(value: t.Any, default: t.Any) -> bool:
    return value is not None and value != default


def _parse_pool(params: t.Mapping[str, t.Any]) -> WantedPool:
    name = check_pool_name(params["name"])
    try:
        return _parse_named(name, params)
    except BadInput as error:
        raise BadInput(f"Pool '{name}': {error.message}", hint=error.hint, **error.details) from None


def _parse_named(name: str, params: t.Mapping[str, t.Any]) -> WantedPool:
    cipher = CIPHER_ALIASES.get(params["cipher"], params["cipher"])
    key = None if params.get("key") is None else parse_key_option(params["key"], name)
    if cipher == "off" and key is not None:
        raise BadInput(
            "cipher is off, but a key is given: the root dataset of a plain pool has none.",
            hint="Leave the key out, or choose a cipher.",
        )
    ashift = params.get("ashift")
    filesystem_properties = _wishes(params.get("filesystem_properties"), filesystem_type)
    managed = sorted(set(filesystem_properties) & set(MANAGED))
    if managed:
        raise BadInput(
            f"filesystem_properties holds {', '.join(managed)}.",
            hint="Encryption is described by the options cipher and key.",
        )
    properties = _wishes(params.get("properties"), pool_type)
    if "ashift" in properties:
        raise BadInput("properties holds ashift.", hint="Use the option ashift.")
    return WantedPool(
        name=name,
        state=params["state"],
        vdevs=tuple(vdev for entry in params.get("vdevs") or () for vdev in parse_vdev(entry)),
        cipher=cipher,
        key=key,
        properties=properties,
        filesystem_properties=filesystem_properties,
        ashift=ashift,
        unlock=params["unlock"],
        mount=params["mount"],
        import_foreign=params["import_foreign"],
        search_paths=tuple(params.get("search_paths") or ()),
        confirm_guid=(params.get("confirm_guid") or "").strip(),
        wipe_disks=tuple(params.get("wipe_disks") or ()),
        force=params["force"],
    )


def _wishes(given: t.Mapping[str, t.Any] | None, kind_of: t.Callable[[str], PropertyType]) -> dict[str, str | None]:
    """Property values as text for zfs; ``None`` for one to unset."""
    wishes: dict[str, str | None] = {}
    for name, value in (given or {}).items():
        if isinstance(value, (dict, list)):
            raise BadInput(f"The value of property '{name}' is a {type(value).__name__}; a single value is wanted.")
        wishes[str(name)] = wanted_text(str(name), value, kind_of(str(name)))
    return wishes
