# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of geli_migrate, understood without looking at a host."""

from __future__ import annotations

import posixpath
import typing as t
from dataclasses import dataclass, field, replace

from ..errors import BadInput
from ..secrets import Key
from ..zfs import replicate_options
from ..zfs.key_option import KEY_SPEC, WantedKey, parse_key_option
from ..zfs.names import check_dataset_name, within
from ..zfs.replicate_options import CHANGED, REENCRYPT, Replication

PLANNED, SYNCED, VERIFIED, FINALIZED = STATES = ("planned", "synced", "verified", "finalized")
# Each says all that the one before it says.
STREAMS, CHECKSUMS, FULL = LEVELS = ("streams", "checksums", "full")
ZFS_SEND, RSYNC = METHODS = ("zfs_send", "rsync")

_SHARED = (
    "source",
    "target",
    "target_host",
    "ssh",
    "key",
    "cipher",
    "recursive",
    "exclude",
    "properties",
    "snapshot",
    "force",
    "resume",
    "stall_timeout",
    "progress_interval",
    "progress_file",
)


def arguments() -> dict[str, t.Any]:
    """A new argument specification."""
    shared = replicate_options.arguments()
    return {
        "state": {"type": "str", "choices": list(STATES), "default": PLANNED},
        "method": {"type": "str", "choices": list(METHODS), "default": ZFS_SEND},
        **{name: shared[name] for name in _SHARED},
        "include": {"type": "list", "elements": "str"},
        "exclude_files": {"type": "dict", "default": {}},
        "snapshot_prefix": {"type": "str", "default": "migrate-"},
        "verify": {"type": "str", "choices": list(LEVELS), "default": CHECKSUMS},
        "verify_again": {"type": "bool", "default": False},
        "dataset_keys": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "no_log": False,
            "options": {"name": {"type": "str", "required": True}, **KEY_SPEC["options"]},
        },
        "proof_key": dict(KEY_SPEC),
        "allow_degraded": {"type": "bool", "default": False},
    }


@dataclass(frozen=True)
class Migration:
    """What is wanted. ``proof_key`` opens the encryption root of the target, None for the key it is known to have.

    ``skip`` are paths in datasets of the source that rsync leaves alone. ``again`` names this very run, which has to
    have recorded what was compared; "" where the record of any run will do.
    """

    state: str
    replication: Replication
    verify: str = CHECKSUMS
    proof_key: WantedKey | None = field(default=None, repr=False)
    allow_degraded: bool = False
    skip: t.Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    again: str = ""

    def reaches(self, state: str) -> bool:
        """Whether the run is to come so far."""
        return STATES.index(self.state) >= STATES.index(state)

    def skipped(self, name: str) -> tuple[str, ...]:
        """The paths that are left out of a dataset of the source."""
        return self.skip.get(name, ())


def parse(params: t.Mapping[str, t.Any], stamp: str, run: str) -> Migration:
    """Understand the options.

    :param stamp: the present time, for the name of a snapshot
    :param run: what no other run is called, without a colon
    :raises BadInput: they contradict each other or can't be right
    """
    full = {**params, "mode": REENCRYPT, "send_properties": True, "snapshot_when": CHANGED, "keep": None}
    replication = replace(replicate_options.parse(full, stamp), migration=True, streams=params["method"] == ZFS_SEND)
    replication = replace(replication, include=_include(params, replication), keys=_keys(params, replication))
    if params["method"] == RSYNC:
        _check_rsync(params)
    return Migration(
        params["state"],
        replication,
        params["verify"],
        _proof_key(params, replication),
        params["allow_degraded"],
        _skip(params, replication),
        run if params["verify_again"] else "",
    )


def _include(params: t.Mapping[str, t.Any], replication: Replication) -> tuple[str, ...]:
    if params["include"] is None:
        return ()
    if not params["include"]:
        raise BadInput("include is an empty list, which would be nothing.", hint="Leave it out to migrate all.")
    names = replicate_options.parts_below("include", params["include"], replication.source, replication.recursive)
    for name in names:
        if within(name, replication.exclude):
            raise BadInput(f"'{name}' is in include, and exclude leaves it out.", hint="Take it out of one of both.")
    return names


def _keys(params: t.Mapping[str, t.Any], replication: Replication) -> dict[str, WantedKey]:
    found: dict[str, WantedKey] = {}
    for option in params["dataset_keys"]:
        name = check_dataset_name(option["name"])
        if name == replication.source or not within(name, (replication.source,)):
            raise BadInput(
                f"dataset_keys names '{name}', which does not lie below the source '{replication.source}'.",
                hint="The key of the target as a whole is 'key'.",
            )
        if name in found:
            raise BadInput(f"dataset_keys names '{name}' twice.")
        key = parse_key_option(option, replication.at_target(name))
        if key.file is None and key.format == "raw":
            raise BadInput(
                f"The raw key of '{name}' has no file, and can't be handed over without one.",
                hint="Use 'format: hex', or keep the key in a file.",
            )
        found[name] = key
    return found


def _check_rsync(params: t.Mapping[str, t.Any]) -> None:
    if params["verify"] == STREAMS:
        raise BadInput(
            "verify is 'streams', but method is 'rsync', which sends none: no GUID says that both ends are the same.",
            hint="Use 'verify: checksums', which reads both ends.",
        )


def _skip(params: t.Mapping[str, t.Any], replication: Replication) -> dict[str, tuple[str, ...]]:
    given = params["exclude_files"]
    if given and replication.streams:
        raise BadInput("exclude_files is set, but method is 'zfs_send', which sends datasets as a whole.")
    found: dict[str, tuple[str, ...]] = {}
    for name, paths in given.items():
        if not isinstance(paths, list) or not all(isinstance(one, str) for one in paths):
            raise BadInput(f"exclude_files['{name}'] is no list of paths.")
        if not within(check_dataset_name(str(name)), (replication.source,)):
            raise BadInput(f"exclude_files names '{name}', which does not lie in the source '{replication.source}'.")
        for path in paths:
            if path.startswith("/") or posixpath.normpath(path) != path or path.split("/")[0] in ("", ".", ".."):
                raise BadInput(
                    f"exclude_files['{name}'] has '{path}'; wanted is a path from the root of that dataset.",
                    hint="Without a slash at the beginning or end, such as 'photos/broken.raw'.",
                )
        if paths:
            found[name] = tuple(sorted(set(paths)))
    return found


def _proof_key(params: t.Mapping[str, t.Any], replication: Replication) -> WantedKey | None:
    option = params["proof_key"]
    if option is None:
        return None
    if option.get("generate"):
        raise BadInput("proof_key.generate is set, but a new key opens nothing.", hint="Give the key that is kept.")
    if option.get("iterations") is not None:
        raise BadInput("proof_key.iterations is set, but the number of the key that is kept counts.")
    key = parse_key_option(option, replication.target)
    if key.value is not None and key.file is not None:
        raise BadInput("proof_key has a value and a file; it can only be one of both.")
    return key


def keys_to_hide(wanted: Migration) -> t.Iterator[Key]:
    """What must not show up anywhere."""
    yield from replicate_options.key_to_hide(wanted.replication)
    if wanted.proof_key is not None and wanted.proof_key.value is not None:
        yield wanted.proof_key.value
