# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of geli_migrate, understood without looking at a host."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace

from ..errors import BadInput
from ..secrets import Key
from ..zfs import replicate_options
from ..zfs.key_option import KEY_SPEC, WantedKey, parse_key_option
from ..zfs.replicate_options import CHANGED, REENCRYPT, Replication

PLANNED, SYNCED, VERIFIED, FINALIZED = STATES = ("planned", "synced", "verified", "finalized")
# Each says all that the one before it says.
STREAMS, CHECKSUMS, FULL = LEVELS = ("streams", "checksums", "full")

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
        **{name: shared[name] for name in _SHARED},
        "snapshot_prefix": {"type": "str", "default": "migrate-"},
        "verify": {"type": "str", "choices": list(LEVELS), "default": CHECKSUMS},
        "proof_key": dict(KEY_SPEC),
        "allow_degraded": {"type": "bool", "default": False},
    }


@dataclass(frozen=True)
class Migration:
    """What is wanted. ``proof_key`` opens the encryption root of the target, None for the key it is known to have."""

    state: str
    replication: Replication
    verify: str = CHECKSUMS
    proof_key: WantedKey | None = field(default=None, repr=False)
    allow_degraded: bool = False

    def reaches(self, state: str) -> bool:
        """Whether the run is to come so far."""
        return STATES.index(self.state) >= STATES.index(state)


def parse(params: t.Mapping[str, t.Any], stamp: str) -> Migration:
    """Understand the options.

    :param stamp: the present time, for the name of a snapshot
    :raises BadInput: they contradict each other or can't be right
    """
    full = {**params, "mode": REENCRYPT, "send_properties": True, "snapshot_when": CHANGED, "keep": None}
    replication = replace(replicate_options.parse(full, stamp), migration=True)
    return Migration(
        params["state"], replication, params["verify"], _proof_key(params, replication), params["allow_degraded"]
    )


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
