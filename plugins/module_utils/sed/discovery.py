# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Level 0 discovery: what a drive tells about itself without a password (TCG Storage Core, 3.3.6)."""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass

# By feature code, the one that tells most first.
KINDS = {
    0x0203: "opal2",
    0x0200: "opal1",
    0x0100: "enterprise",
    0x0304: "ruby",
    0x0301: "opalite",
    0x0303: "pyrite2",
    0x0302: "pyrite1",
}
KIND_WORDS = {
    "opal1": "Opal 1",
    "opal2": "Opal 2",
    "enterprise": "Enterprise",
    "ruby": "Ruby",
    "opalite": "Opalite",
    "pyrite1": "Pyrite 1",
    "pyrite2": "Pyrite 2",
    "": "no self-encrypting drive",
}
# These lock and do not encrypt.
WITHOUT_ENCRYPTION = ("pyrite1", "pyrite2")

_HEADER = 48
_TPER, _LOCKING, _GEOMETRY, _BLOCK_SID = 0x0001, 0x0002, 0x0003, 0x0402


@dataclass(frozen=True)
class Discovery:
    """What is known of a drive without a password. ``kind`` "" is a drive that has none of this.

    ``enabled``: the Locking SP is active (an Enterprise drive always tells so). ``locked``: some range can't be read or
    written. ``owned``: None where the drive does not tell whether its owner is still the factory. ``blocked``: the
    firmware of the host keeps everybody from becoming its owner; ``frozen``: from locking and unlocking it. Both until
    its power was off.
    """

    kind: str = ""
    com_id: int = 0
    locking: bool = False
    enabled: bool = False
    locked: bool = False
    encrypts: bool = False
    shadow: bool = False
    shadow_done: bool = False
    owned: bool | None = None
    granularity: int = 1
    # Other kinds it is, too.
    also: tuple[str, ...] = ()
    blocked: bool = False
    frozen: bool = False

    @property
    def enterprise(self) -> bool:
        return self.kind == "enterprise"

    @property
    def shadowed(self) -> bool:
        """Whether a host sees the shadow MBR in place of the data."""
        return self.shadow and not self.shadow_done


def parse(data: bytes) -> Discovery:
    """The answer to Level 0 discovery; a drive that answers with nothing is none of the kinds."""
    features = dict(_features(data))
    kinds = tuple(kind for code, kind in KINDS.items() if code in features)
    if not kinds:
        return Discovery()
    main = next(features[code] for code, kind in KINDS.items() if kind == kinds[0])
    flags = features.get(_LOCKING, b"\0")[0]
    geometry = features.get(_GEOMETRY, b"")
    granularity = 1
    if len(geometry) >= 20 and geometry[0] & 1:
        granularity = max(1, struct.unpack_from(">Q", geometry, 12)[0])
    owner = features.get(_BLOCK_SID)
    return Discovery(
        kind=kinds[0],
        com_id=struct.unpack_from(">H", main)[0] if len(main) >= 2 else 0,
        locking=bool(flags & 0x01),
        enabled=bool(flags & 0x02),
        locked=bool(flags & 0x04),
        encrypts=bool(flags & 0x08),
        shadow=bool(flags & 0x10),
        shadow_done=bool(flags & 0x20),
        owned=bool(owner[0] & 0x01) if owner else None,
        granularity=granularity,
        also=kinds[1:],
        blocked=bool(owner and owner[0] & 0x02),
        frozen=bool(owner and owner[0] & 0x08),
    )


def _features(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    end = min(len(data), 4 + int.from_bytes(data[:4], "big"))
    at = _HEADER
    while at + 4 <= end:
        size = data[at + 3]
        body = data[at + 4 : at + 4 + size]
        if len(body) == size and size:
            yield int.from_bytes(data[at : at + 2], "big"), body
        at += 4 + size
