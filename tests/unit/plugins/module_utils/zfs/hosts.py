# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as plain values, for tests of what is planned on them."""

from __future__ import annotations

import typing as t

from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.content import DiskContent, Finding
from ansible_collections.nasops.encryption.plugins.module_utils.blockdev.identity import BlockDevice, DeviceTable
from ansible_collections.nasops.encryption.plugins.module_utils.secrets import Key
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.keystore import KeyFile
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.pool_state import PoolHost
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.properties import Property
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.state import Dataset, Pool
from ansible_collections.nasops.encryption.plugins.module_utils.zfs.status import ImportablePool, Tree, Vdev

GIB = 1 << 30
LETTERS = "abcdefghijkl"
TABLE = DeviceTable(
    tuple(
        BlockDevice(
            f"sd{one}", f"/dev/sd{one}", aliases=(f"/dev/disk/by-id/{one}",), size=4 * GIB, serial=f"SERIAL-{one}"
        )
        for one in LETTERS
    )
)
HEX = Key("hex", b"a1" * 32)
PASSPHRASE = Key("passphrase", b"correct horse battery")


def ids(letters: str) -> list[str]:
    """Disks by their persistent names."""
    return [f"/dev/disk/by-id/{one}" for one in letters]


def content(one: str, *findings: Finding, **facts: t.Any) -> DiskContent:
    """What is on one of the disks; nothing, unless findings are given."""
    path = f"/dev/disk/by-id/{one}"
    values: dict[str, t.Any] = {"kind": "disk", "device": f"/dev/sd{one}", "size": 4 * GIB, "serial": f"SERIAL-{one}"}
    values.update(facts)
    return DiskContent(path, f"/dev/sd{one}", values.pop("access", "write"), findings=findings, **values)


def blank(*special: DiskContent) -> dict[str, DiskContent]:
    """The contents of all disks, blank but for those that are given."""
    found = {one.path: one for one in (content(letter) for letter in LETTERS)}
    found.update({one.path: one for one in special})
    return found


def leaf(path: str, state: str = "ONLINE") -> Vdev:
    return Vdev("disk", path, state)


def mirror(letters: str) -> Vdev:
    return Vdev("mirror", "mirror-0", "ONLINE", tuple(leaf(path) for path in ids(letters)))


def properties(values: t.Mapping[str, str], source: str) -> dict[str, Property]:
    return {name: Property(value, source) for name, value in values.items()}


def root(name: str = "tank", **facts: str) -> Dataset:
    """An encrypted root dataset, unlocked and mounted, its key in the default place."""
    values = {
        "type": "filesystem",
        "encryption": "aes-256-gcm",
        "encryptionroot": name,
        "keystatus": "available",
        "keyformat": "hex",
        "keylocation": f"file:///etc/zfs/keys/{name}.key",
        "pbkdf2iters": "0",
        "mountpoint": f"/{name}",
        "canmount": "on",
        "mounted": "yes",
        "compression": "on",
        "recordsize": "131072",
    }
    values.update(facts)
    return Dataset(name, properties(values, "default"))


def with_own(dataset: Dataset, **own: str) -> Dataset:
    """The same with values of its own."""
    return Dataset(dataset.name, {**dataset.properties, **properties(own, "local")})


def child(name: str, **facts: str) -> Dataset:
    """A filesystem below the root dataset of 'tank', with its key and not mounted."""
    return root(name, **{"encryptionroot": "tank", "keylocation": "none", "mounted": "no", **facts})


def plain(name: str = "tank", **facts: str) -> Dataset:
    """A root dataset that is not encrypted."""
    values = {"encryption": "off", "encryptionroot": "-", "keystatus": "-", "keyformat": "none", "keylocation": "none"}
    return root(name, **{**values, **facts})


def pool(
    name: str = "tank",
    dataset: Dataset | None = None,
    tree: Tree | None = None,
    health: str = "ONLINE",
    options: t.Mapping[str, Property] | None = None,
    below: t.Sequence[Dataset] = (),
) -> Pool:
    """An imported pool with GUID 17, a mirror of a and b unless told otherwise."""
    values = {
        **properties({"guid": "17", "health": health, "altroot": "-", "autotrim": "off"}, "default"),
        **(options or {}),
    }
    tree = {"data": (mirror("ab"),)} if tree is None else tree
    return Pool(name, "17", health, values, tree, dataset or root(name), tuple(below))


def dormant(
    name: str = "tank", guid: str = "17", state: str = "ONLINE", message: str = "", folders: tuple[str, ...] = ()
) -> ImportablePool:
    return ImportablePool(name, guid, state, message, folders)


def key_file(path: str = "/etc/zfs/keys/tank.key", key: Key | None = HEX, **facts: t.Any) -> KeyFile:
    """A key file on the system disk."""
    return KeyFile(path, facts.pop("exists", True), key, **{"source": "/dev/vda1", **facts})


def no_key_file(path: str = "/etc/zfs/keys/tank.key", memory: str = "") -> KeyFile:
    return KeyFile(path, False, source=memory or "/dev/vda1", memory=memory)


def host(
    *pools: Pool,
    importable: t.Sequence[ImportablePool] = (),
    contents: t.Mapping[str, DiskContent] | None = None,
    files: t.Sequence[KeyFile] = (),
    opens: t.Mapping[str, bool] | None = None,
    obstacles: t.Mapping[str, str] | None = None,
    successors: t.Mapping[str, KeyFile] | None = None,
) -> PoolHost:
    return PoolHost(
        pools={one.name: one for one in pools},
        importable=tuple(importable),
        devices=TABLE,
        contents=blank() if contents is None else contents,
        key_files={one.path: one for one in files},
        opens=opens or {},
        obstacles=obstacles or {},
        successors=successors or {},
    )
