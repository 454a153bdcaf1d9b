# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of zfs_replicate, understood without looking at a host."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from ..errors import BadInput
from ..remote import ACCEPT_NEW, STRICT, Ssh, check_host
from ..secrets import Key
from .key_option import KEY_SPEC, WantedKey, parse_key_option
from .names import ancestors, check_dataset_name, within, within_each_other
from .properties import CIPHERS, MANAGED, filesystem_type, wanted_text

RAW, REENCRYPT, PLAINTEXT = "raw", "reencrypt", "plaintext"
CHANGED, ALWAYS = "changed", "always"

# What follows the prefix in the name of a snapshot that a task takes: the time in UTC.
STAMP = "%Y%m%dT%H%M%SZ"
_STAMP = re.compile(r"\d{8}T\d{6}Z")
_SNAPSHOT = re.compile(r"[A-Za-z0-9_.:% -]+")
_MOST_PREFIX = 60


def arguments() -> dict[str, t.Any]:
    """A new argument specification."""
    ssh = {
        "user": {"type": "str"},
        "port": {"type": "int"},
        "identity_file": {"type": "path", "no_log": False},
        "known_hosts_file": {"type": "path", "no_log": False},
        "host_keys": {"type": "str", "choices": [STRICT, ACCEPT_NEW], "default": STRICT, "no_log": False},
        "sudo": {"type": "bool", "default": False},
        "args": {"type": "list", "elements": "str", "default": []},
    }
    return {
        "source": {"type": "str", "required": True},
        "target": {"type": "str", "required": True},
        "target_host": {"type": "str"},
        "ssh": {"type": "dict", "options": ssh},
        "mode": {"type": "str", "choices": [RAW, REENCRYPT, PLAINTEXT], "default": RAW},
        "key": dict(KEY_SPEC),
        "cipher": {"type": "str", "choices": ["on", *CIPHERS]},
        "recursive": {"type": "bool", "default": True},
        "exclude": {"type": "list", "elements": "str", "default": []},
        "send_properties": {"type": "bool", "default": True},
        "properties": {"type": "dict", "default": {}},
        "snapshot": {"type": "str"},
        "snapshot_prefix": {"type": "str", "default": "nasops-"},
        "snapshot_when": {"type": "str", "choices": [CHANGED, ALWAYS], "default": CHANGED},
        "keep": {"type": "int"},
        "force": {"type": "bool", "default": False},
        "resume": {"type": "bool", "default": True},
        "stall_timeout": {"type": "int", "default": 300},
        "progress_interval": {"type": "int", "default": 15},
        "progress_file": {"type": "path"},
    }


@dataclass(frozen=True)
class Replication:
    """What is wanted. ``ssh`` is None for a target on this host; ``snapshot`` is "" for one of the task's own.

    ``migration``: the target is to take the place of the source. Clones stay clones of their origins, user properties
    come along, and ``also_read`` names properties of both ends that somebody else decides on. ``heads``: no snapshot
    can be taken, since the pool of the source is imported read-only; so what was written since the last one is sent as
    it is. ``streams`` is false where no stream is sent, so that a dataset without snapshots is none that is arriving.
    ``keys`` are those of datasets below the source that are encryption roots of their own at the target. ``include``
    are the parts of the source that are wanted, none for all of it.
    """

    source: str
    target: str
    ssh: Ssh | None = None
    mode: str = RAW
    key: WantedKey | None = field(default=None, repr=False)
    cipher: str = "on"
    recursive: bool = True
    exclude: tuple[str, ...] = ()
    send_properties: bool = True
    properties: t.Mapping[str, str | None] = field(default_factory=dict)
    snapshot: str = ""
    prefix: str = "nasops-"
    snapshot_when: str = CHANGED
    keep: int | None = None
    force: bool = False
    resume: bool = True
    stall_timeout: float = 300.0
    stamp: str = ""
    migration: bool = False
    heads: bool = False
    also_read: tuple[str, ...] = ()
    streams: bool = True
    keys: t.Mapping[str, WantedKey] = field(default_factory=dict, repr=False)
    include: tuple[str, ...] = ()

    def takes(self, name: str) -> bool:
        """Whether a dataset of the source comes along: what is wanted, what that lies in, and nothing left out."""
        if within(name, self.exclude):
            return False
        return not self.include or any(within_each_other(name, one) for one in self.include)

    @property
    def where(self) -> str:
        """The target for messages."""
        return f"'{self.target}' on '{self.ssh.host}'" if self.ssh else f"'{self.target}'"

    @property
    def above(self) -> str:
        """The dataset in which the target is, or is to be made."""
        return self.target.rsplit("/", 1)[0]

    @property
    def new_snapshot(self) -> str:
        """The name of a snapshot that this run takes."""
        return self.prefix + self.stamp

    def own(self, snapshot: str) -> bool:
        """Whether a snapshot has a name that tasks with this prefix give."""
        return snapshot.startswith(self.prefix) and _STAMP.fullmatch(snapshot[len(self.prefix) :]) is not None

    def at_target(self, dataset: str) -> str:
        """The name of a dataset of the source at the target."""
        return self.target + dataset[len(self.source) :]

    def own_key(self, dataset: str) -> WantedKey | None:
        """The key that a dataset of the source has for itself at the target, None if it uses one above it."""
        return self.key if dataset == self.source else self.keys.get(dataset)

    def root_of(self, dataset: str, above: str) -> str:
        """The encryption root of a dataset of the source at the target.

        :param above: that of what lies above the target
        """
        for one in (dataset, *ancestors(dataset)):
            if within(one, (self.source,)) and self.own_key(one) is not None:
                return self.at_target(one)
        return above


def parse(params: t.Mapping[str, t.Any], stamp: str) -> Replication:
    """Understand the options.

    :param stamp: the present time, for the name of a snapshot
    :raises BadInput: they contradict each other or can't be right
    """
    source, target = check_dataset_name(params["source"]), check_dataset_name(params["target"])
    mode = params["mode"]
    ssh = _ssh(params)
    if "/" not in target:
        raise BadInput(
            f"The target '{target}' is the root of a pool, which ZFS does not receive into.",
            hint=f"Name a dataset in it, such as '{target}/{source.rsplit('/', 1)[-1]}'.",
        )
    if ssh is None and within_each_other(source, target):
        raise BadInput(f"The target '{target}' and the source '{source}' are the same, or one lies in the other.")
    if params["snapshot"] is not None and params["keep"] is not None:
        raise BadInput(
            "keep is set together with snapshot, but only snapshots that the task takes itself are counted.",
            hint="Leave out one of both.",
        )
    if params["keep"] is not None and params["keep"] < 1:
        raise BadInput(f"keep is {params['keep']}; the newest snapshot has to stay, so at least 1 is wanted.")
    for name in ("stall_timeout", "progress_interval"):
        if params[name] < 0:
            raise BadInput(f"{name} is {params[name]}; wanted are seconds, or 0 for none.")
    return Replication(
        source,
        target,
        ssh,
        mode,
        _key(params, target, mode),
        params["cipher"] or "on",
        params["recursive"],
        parts_below("exclude", params["exclude"], source, params["recursive"]),
        params["send_properties"],
        _properties(params["properties"]),
        _snapshot(params["snapshot"]),
        _prefix(params["snapshot_prefix"]),
        params["snapshot_when"],
        params["keep"],
        params["force"],
        params["resume"],
        float(params["stall_timeout"]),
        stamp,
    )


def _ssh(params: t.Mapping[str, t.Any]) -> Ssh | None:
    given = params["ssh"]
    if params["target_host"] is None:
        if given is not None:
            raise BadInput("ssh is set, but target_host is not, so the target would be on this very host.")
        return None
    host = check_host(params["target_host"])
    if given is None:
        return Ssh(host)
    user = given.get("user") or ""
    if user.startswith("-") or "@" in user:
        raise BadInput(f"ssh.user is '{user}', which is no name of a user.")
    return Ssh(
        host,
        user,
        given.get("port"),
        given.get("identity_file") or "",
        given.get("known_hosts_file") or "",
        given.get("host_keys") or STRICT,
        bool(given.get("sudo")),
        tuple(given.get("args") or ()),
    )


def _key(params: t.Mapping[str, t.Any], target: str, mode: str) -> WantedKey | None:
    if mode != REENCRYPT:
        for name in ("key", "cipher"):
            if params[name] is not None:
                raise BadInput(
                    f"{name} is set, but mode is '{mode}': "
                    + ("a raw replica is opened by the key of its source." if mode == RAW else "nothing is encrypted.")
                )
        return None
    if params["key"] is None:
        if params["cipher"] is not None:
            raise BadInput("cipher is set without a key; such a replica is encrypted as the dataset above it is.")
        return None
    key = parse_key_option(params["key"], target)
    if key.file is None and key.format == "raw":
        raise BadInput(
            "A raw key without key.file can't be handed to 'zfs receive', whose standard input is the stream.",
            hint="Use key.format: hex, or keep the key in a file (key.file).",
        )
    return key


def parts_below(option: str, names: t.Sequence[str], source: str, recursive: bool) -> tuple[str, ...]:
    """The datasets that an option names, each once.

    :raises BadInput: one does not lie below the source, or what lies there is not sent
    """
    if names and not recursive:
        raise BadInput(f"{option} is set, but recursive is false, so nothing below the source is sent anyway.")
    for name in names:
        if source not in ancestors(check_dataset_name(name)):
            raise BadInput(f"'{name}' in {option} does not lie below the source '{source}'.")
    return tuple(dict.fromkeys(names))


def _properties(given: t.Mapping[t.Any, t.Any]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name, value in given.items():
        if not isinstance(name, str) or isinstance(value, (list, dict)):
            raise BadInput("properties holds something that is no name and value.")
        if name in MANAGED:
            raise BadInput(f"Property '{name}' follows from mode, key and cipher, and can't be given in properties.")
        kind = filesystem_type(name)
        if kind.when == "create" or name in ("origin", "volsize", "version"):
            raise BadInput(f"Property '{name}' comes with the data and can't be given in properties.")
        found[name] = wanted_text(name, value, kind)
    return found


def _snapshot(name: str | None) -> str:
    if name is None:
        return ""
    text = name[1:] if name.startswith("@") else name
    if not _SNAPSHOT.fullmatch(text):
        raise BadInput(f"'{name}' is no name of a snapshot.", hint="Give what stands behind the @ only.")
    return text


def _prefix(prefix: str) -> str:
    if not prefix or not _SNAPSHOT.fullmatch(prefix) or len(prefix) > _MOST_PREFIX:
        raise BadInput(f"snapshot_prefix is '{prefix}', with which no name of a snapshot can begin.")
    return prefix


def key_to_hide(wanted: Replication) -> t.Iterator[Key]:
    """What must not show up anywhere."""
    for key in (wanted.key, *wanted.keys.values()):
        if key is not None and key.value is not None:
            yield key.value
