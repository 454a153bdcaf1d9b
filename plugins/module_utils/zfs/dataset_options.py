# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of zfs_dataset_key as checked values; nothing here looks at the host."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field, replace

from ..errors import BadInput, StorageError
from ..secrets import FORMATS, Key, check_iterations, parse_option
from . import keystore
from .key_option import KEY_SPEC
from .names import ancestors, check_dataset_name
from .offer_options import arguments as offer_arguments
from .offer_options import offered
from .offers import Offer, Offers, spellings
from .properties import CIPHER_ALIASES, CIPHERS, MANAGED, filesystem_type, parse_size, wanted_text

STATES = ("present", "unlocked", "locked", "inherited", "absent")
POLICIES = ("truenas", "openzfs")
ON_NONEMPTY = ("fail", "move_aside")
ROTATE = ("when_different", "always", "never")

# Without a default: the key of an existing encryption root has a format already.
_KEY_SPEC: t.Mapping[str, t.Any] = {
    **KEY_SPEC,
    "options": {**KEY_SPEC["options"], "format": {"type": "str", "choices": list(FORMATS)}},
}

# At the top level these describe ``name``, or are what the entries of ``datasets`` have in common.
_SHARED_SPEC: t.Mapping[str, t.Any] = {
    "state": {"type": "str", "choices": list(STATES)},
    "cipher": {"type": "str", "choices": ["on", "off", *CIPHERS]},
    "recursive": {"type": "bool"},
    "mount": {"type": "bool"},
    "on_nonempty_mountpoint": {"type": "str", "choices": list(ON_NONEMPTY)},
    "force_unmount": {"type": "bool"},
    "rotate": {"type": "str", "choices": list(ROTATE)},
    "detach_replica": {"type": "bool"},
}
_OWN_SPEC: t.Mapping[str, t.Any] = {
    "key": _KEY_SPEC,
    "volsize": {"type": "str"},
    "properties": {"type": "dict"},
}
_DEFAULTS: t.Mapping[str, t.Any] = {
    "state": "present",
    "recursive": False,
    "mount": True,
    "on_nonempty_mountpoint": "fail",
    "force_unmount": False,
    "rotate": "when_different",
    "detach_replica": False,
}

_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")


def argument_spec() -> dict[str, t.Any]:
    """The module's options: one dataset by ``name``, or any number in ``datasets``."""
    return {
        "name": {"type": "str"},
        **{word: {**spec, **_default(word)} for word, spec in _SHARED_SPEC.items()},
        **_OWN_SPEC,
        "datasets": {
            "type": "list",
            "elements": "dict",
            "options": {"name": {"type": "str", "required": True}, **_SHARED_SPEC, **_OWN_SPEC},
        },
        **offer_arguments(),
        "create": {"type": "bool", "default": True},
        "policy": {"type": "str", "choices": list(POLICIES), "default": "truenas"},
    }


def _default(word: str) -> dict[str, t.Any]:
    """An entry has no defaults of its own: what it does not say comes from the top level."""
    return {"default": _DEFAULTS[word]} if word in _DEFAULTS else {}


@dataclass(frozen=True)
class KeyWish:
    """The ``key`` of a dataset. Its text is understood once the format is known; ``file`` is an absolute path."""

    format: str | None = None
    text: str | None = field(default=None, repr=False)
    file: str | None = None
    generate: bool = False
    iterations: int | None = None

    def value(self, key_format: str) -> Key | None:
        """The given key, by the rules for a key that is to be set.

        :raises BadInput: it is none of this format
        """
        if self.text is None:
            return None
        if key_format == "raw" and _HEX_KEY.fullmatch(self.text):
            return Key("raw", bytes.fromhex(self.text))
        return parse_option(key_format, self.text)


@dataclass(frozen=True)
class WantedDataset:
    """One dataset as the caller described it. ``cipher`` is ``None`` when it was left open."""

    name: str
    state: str = "present"
    key: KeyWish | None = None
    cipher: str | None = None
    recursive: bool = False
    mount: bool = True
    on_nonempty_mountpoint: str = "fail"
    force_unmount: bool = False
    rotate: str = "when_different"
    detach_replica: bool = False
    volsize: int | None = None
    properties: t.Mapping[str, str | None] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return "filesystem" if self.volsize is None else "volume"


@dataclass(frozen=True)
class Wishes:
    """All that one task asks for."""

    datasets: tuple[WantedDataset, ...]
    offers: Offers = field(default_factory=lambda: Offers({}))
    policy: str = "truenas"
    create: bool = True
    # By what was written for a name in the list, why it is none. Nothing else of the task depends on it.
    misnamed: t.Mapping[str, StorageError] = field(default_factory=dict)

    def settled(self, ahead: t.Collection[str] = ()) -> Wishes:
        """The same once everything that is done at each run was done, but for the datasets that are still ``ahead``."""
        settled = (
            replace(one, rotate="when_different") if one.rotate == "always" and one.name not in ahead else one
            for one in self.datasets
        )
        return replace(self, datasets=tuple(settled))

    def secrets(self) -> t.Iterator[Key]:
        """Every key in the options, as what has to be hidden."""
        yield from self.offers.secrets()
        for one in self.datasets:
            if one.key is not None and one.key.text is not None:
                yield from spellings(one.key.text)


def parse_options(params: t.Mapping[str, t.Any]) -> Wishes:
    """All datasets of the task, and the keys offered for them.

    :raises BadInput: naming the dataset and the option
    """
    misnamed: dict[str, StorageError] = {}
    datasets = tuple(_entries(params, misnamed))
    if misnamed and not datasets:
        raise next(iter(misnamed.values()))
    _check_names(datasets)
    _check_order(datasets)
    _check_key_files(datasets)
    offers = offered(params, _entry_offers(datasets))
    return Wishes(datasets, offers, params["policy"], params["create"], misnamed)


def _entries(params: t.Mapping[str, t.Any], misnamed: dict[str, StorageError]) -> t.Iterator[WantedDataset]:
    """The described datasets; what can't be the name of one is put into ``misnamed``, if it is one of a list."""
    if params.get("datasets") is None:
        if params.get("name") is None:
            raise BadInput("Neither 'name' nor 'datasets' is set, so no dataset is meant.")
        yield _parse_dataset(check_dataset_name(params["name"]), params, {})
        return
    if params.get("name") is not None:
        raise BadInput("Both 'name' and 'datasets' are set.", hint="Describe every dataset as an entry of 'datasets'.")
    stray = sorted(name for name in _OWN_SPEC if params.get(name) is not None)
    if stray:
        raise BadInput(f"With 'datasets', these belong into the entry of the dataset they are for: {', '.join(stray)}.")
    for entry in params["datasets"]:
        try:
            name = check_dataset_name(entry["name"])
        except BadInput as error:
            misnamed[entry["name"]] = error
            continue
        yield _parse_dataset(name, entry, params)


def _parse_dataset(name: str, params: t.Mapping[str, t.Any], common: t.Mapping[str, t.Any]) -> WantedDataset:
    try:
        return _parse_named(name, params, common)
    except BadInput as error:
        raise BadInput(f"Dataset '{name}': {error.message}", hint=error.hint, **error.details) from None


def _parse_named(name: str, params: t.Mapping[str, t.Any], common: t.Mapping[str, t.Any]) -> WantedDataset:
    def option(word: str) -> t.Any:
        own = params.get(word)
        return common.get(word) if own is None else own

    state = option("state")
    own = [word for word in ("key", "volsize", "properties") if params.get(word) is not None]
    own += ["cipher"] if params.get("cipher") is not None else []
    allowed = {"present": own, "unlocked": ["key"], "inherited": ["key"]}.get(state, [])
    useless = [word for word in own if word not in allowed]
    if useless:
        raise BadInput(f"{', '.join(useless)} can't be used with the state '{state}'.")
    cipher = CIPHER_ALIASES.get(option("cipher"), option("cipher")) if state == "present" else None
    key = None if params.get("key") is None else _parse_key(params["key"], name, state)
    if cipher == "off" and key is not None:
        raise BadInput("cipher is off, but a key is given.", hint="Leave the key out, or choose a cipher.")
    volsize = None if params.get("volsize") is None else parse_size("volsize", str(params["volsize"]))
    if volsize == 0:
        raise BadInput("volsize is 0; a volume has at least one block.")
    return WantedDataset(
        name=name,
        state=state,
        key=key,
        cipher=cipher,
        recursive=option("recursive"),
        mount=option("mount"),
        on_nonempty_mountpoint=option("on_nonempty_mountpoint"),
        force_unmount=option("force_unmount"),
        rotate=option("rotate"),
        detach_replica=option("detach_replica"),
        volsize=volsize,
        properties=_properties(params.get("properties")),
    )


def _parse_key(option: t.Mapping[str, t.Any], dataset: str, state: str) -> KeyWish:
    key_format, text, file = option.get("format"), option.get("value"), option.get("file")
    generate, iterations = bool(option.get("generate")), option.get("iterations")
    if state != "present" and (generate or iterations is not None):
        raise BadInput(f"key.generate and key.iterations make a key; the state '{state}' only uses one.")
    if generate and file is None:
        raise BadInput(
            "The key is to be generated, but key.file is missing, so it would exist nowhere.",
            hint="Add 'file: auto' to keep it on the host, or generate it on the controller and give it as key.value.",
        )
    if generate and text is not None:
        raise BadInput("The key has a value and is to be generated; it can only be one of both.")
    if text is None and file is None:
        raise BadInput(
            "The key has neither a value nor a file.",
            hint="Give key.value (from Ansible Vault, say), or key.file with 'generate: true' for a new key.",
        )
    if iterations is not None:
        check_iterations(iterations, key_format or "passphrase")
    # Whether the text is a key of its format is seen with the dataset, so that a wrong one holds up no others.
    return KeyWish(key_format, text, None if file is None else keystore.path_for(file, dataset), generate, iterations)


def _properties(given: t.Mapping[str, t.Any] | None) -> dict[str, str | None]:
    """Property values as text for zfs; ``None`` for one to unset."""
    wishes: dict[str, str | None] = {}
    for name, value in (given or {}).items():
        if isinstance(value, (dict, list)):
            raise BadInput(f"The value of property '{name}' is a {type(value).__name__}; a single value is wanted.")
        wishes[str(name)] = wanted_text(str(name), value, filesystem_type(str(name)))
    managed = sorted(set(wishes) & {*MANAGED, "volsize"})
    if managed:
        raise BadInput(
            f"properties holds {', '.join(managed)}.", hint="Use the options cipher, key and volsize for these."
        )
    return wishes


def _check_names(datasets: t.Sequence[WantedDataset]) -> None:
    names = [one.name for one in datasets]
    twice = sorted(name for name in set(names) if names.count(name) > 1) if len(set(names)) < len(names) else []
    if twice:
        raise BadInput(f"'datasets' names the same dataset more than once: {', '.join(twice)}.")


def _check_order(datasets: t.Sequence[WantedDataset]) -> None:
    """What is locked or destroyed can't hold something that is to be there or unlocked."""
    states = {one.name: one.state for one in datasets}
    for name, state in states.items():
        if state == "absent":
            continue
        for above in ancestors(name):
            other = states.get(above)
            if other == "absent" or (other == "locked" and state != "locked"):
                raise BadInput(
                    f"These contradict each other: '{above}' is to be {other}, and '{name}' below it {state}.",
                )


def _check_key_files(datasets: t.Sequence[WantedDataset]) -> None:
    """Datasets may share a key file that exists, but it can't be written for each of them."""
    users: dict[str, list[WantedDataset]] = {}
    for one in datasets:
        if one.state == "present" and one.key is not None and one.key.file is not None:
            users.setdefault(one.key.file, []).append(one)
    for path, sharing in users.items():
        writes = any(one.key is not None and (one.key.generate or one.key.text is not None) for one in sharing)
        if len(sharing) > 1 and (writes or any(one.rotate == "always" for one in sharing)):
            raise BadInput(
                f"{', '.join(repr(one.name) for one in sharing)} share the key file {path}, and one of them would "
                "write it.",
                hint="Give each a key file of its own, or make the file first and leave out key.generate and "
                "key.value.",
            )


def _entry_offers(datasets: t.Sequence[WantedDataset]) -> t.Iterator[tuple[str, Offer]]:
    """The keys of entries that only use one. That of a dataset to be made or changed is the planner's to judge."""
    for one in datasets:
        if one.key is not None and one.state != "present":
            origin = f"key.file of '{one.name}'" if one.key.text is None else f"key.value of '{one.name}'"
            yield one.name, Offer(origin, one.key.text, one.key.file, one.recursive)
