#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_encryption_info
short_description: Show the encryption roots of ZFS pools, and which datasets their keys open
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Returns one row per encryption root, with its lock state, key format and the datasets that use its key, and the
    datasets that are not encrypted.
  - It starts one process of C(zfs), whatever the number of datasets, and needs no key.
requirements:
  - OpenZFS 2.1 or later
  - root
extends_documentation_fragment:
  - nasops.encryption.attributes.info
options:
  name:
    description:
      - A pool, filesystem or volume. When not given, all imported pools are shown.
    type: str
  recursive:
    description:
      - Show the datasets below O(name) too. Without O(name), only the root datasets of the pools are shown when
        V(false).
    type: bool
    default: true
seealso:
  - module: nasops.encryption.zfs_encrypted_pool
"""

EXAMPLES = r"""
- name: What is encrypted, and what is locked
  nasops.encryption.zfs_encryption_info:
  register: encryption

- name: Names of the locked encryption roots
  ansible.builtin.debug:
    msg: "{{ encryption.roots | selectattr('locked') | map(attribute='name') }}"

- name: Fail if anything below an encrypted dataset is stored in plain text
  ansible.builtin.assert:
    that: encryption.unencrypted | selectattr('below_encrypted') | length == 0
"""

RETURN = r"""
roots:
  description: The encryption roots, ordered by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the dataset that owns the wrapping key.
      type: str
      sample: tank
    pool:
      description: Pool it belongs to.
      type: str
      sample: tank
    type:
      description: V(filesystem) or V(volume), V(null) if the root is above O(name) and so was not read.
      type: str
      sample: filesystem
    cipher:
      description: Encryption suite of the root, V(null) if it was not read.
      type: str
      sample: aes-256-gcm
    key_format:
      description: V(hex), V(raw) or V(passphrase).
      type: str
      sample: hex
    key_location:
      description: Where ZFS looks for the key, without credentials of a URL, V(null) if the root was not read.
      type: str
      sample: file:///etc/zfs/keys/tank.key
    iterations:
      description: PBKDF2 iterations of a passphrase, V(null) for other formats.
      type: int
      sample: 350000
    key_loaded:
      description: Whether the key is loaded.
      type: bool
      sample: true
    locked:
      description: Whether the key is not loaded. A dataset that is unlocked but not mounted is not locked.
      type: bool
      sample: false
    mounted:
      description: Whether the filesystem is mounted, V(null) for a volume.
      type: bool
      sample: true
    mountpoint:
      description: Its mountpoint, V(null) for none.
      type: str
      sample: /tank
    children:
      description: The other datasets that use this key, ordered by name.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the dataset.
          type: str
          sample: tank/media
        type:
          description: V(filesystem) or V(volume).
          type: str
          sample: filesystem
        cipher:
          description: Encryption suite of the dataset, which may be another than that of its root.
          type: str
          sample: aes-256-gcm
        locked:
          description: Whether the key is not loaded.
          type: bool
          sample: false
        mounted:
          description: Whether the filesystem is mounted, V(null) for a volume.
          type: bool
          sample: true
        mountpoint:
          description: Its mountpoint, V(null) for none.
          type: str
          sample: /tank/media
unencrypted:
  description: The datasets that are not encrypted, ordered by name, with the keys of a child above.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the dataset.
      type: str
      sample: boot
    below_encrypted:
      description: Whether a dataset above it is encrypted, so that it may be taken for protected.
      type: bool
      sample: false
"""

from ..module_utils.command import HostRunner
from ..module_utils.entry import Module, fail
from ..module_utils.errors import StorageError
from ..module_utils.secrets import Mask
from ..module_utils.zfs.names import check_dataset_name
from ..module_utils.zfs.state import ENCRYPTION_PROPERTIES, read_datasets, require_root
from ..module_utils.zfs.summary import summarize, unencrypted


def main() -> None:
    module = Module({"name": {"type": "str"}, "recursive": {"type": "bool", "default": True}})
    name = module.params["name"]
    try:
        require_root()
        names = () if name is None else (check_dataset_name(name),)
        datasets = read_datasets(HostRunner(Mask()), names, ENCRYPTION_PROPERTIES, module.params["recursive"])
    except StorageError as error:
        fail(module, error)
    module.exit_json(changed=False, roots=summarize(datasets), unencrypted=unencrypted(datasets))


if __name__ == "__main__":
    main()
