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
  - With O(keys), O(manifest), O(manifest_file) or O(try_key_files) it also tells which key opens which root, and how
    an unlock with these keys would end. Each key is tried in a way that loads nothing, on locked and on unlocked roots
    alike.
  - Without keys to try it starts one process of C(zpool) and one of C(zfs), whatever the number of datasets.
requirements:
  - OpenZFS 2.1 or later
  - root
extends_documentation_fragment:
  - nasops.encryption.attributes.info
options:
  name:
    description:
      - A pool, filesystem or volume. When not given, all imported pools are shown. One that is suspended does not
        answer; it is left out, and a warning names it.
    type: str
  recursive:
    description:
      - Show the datasets below O(name) too. Without O(name), only the root datasets of the pools are shown when
        V(false).
    type: bool
    default: true
  keys:
    description:
      - Keys to try, by name of the encryption root. Each is the text of the key itself, or a dictionary with C(value)
        or C(file) (an absolute path on the host, or V(auto) for the file in F(/etc/zfs/keys)), and C(recursive), which
        offers it to all roots below too.
      - The text is read by the format of the root. A raw key is given in base64, or as 64 hexadecimal digits as
        TrueNAS writes it. A passphrase may be of any length.
      - A key that is given for a root by its name is the only one that is tried on it. Otherwise it is that of the
        nearest dataset above it whose key has C(recursive), and then the root's own key file. This is what
        M(nasops.encryption.zfs_dataset_key) does.
      - A mapping, or JSON as text. C(NAME=KEY), which Ansible takes for a mapping elsewhere, is refused.
    type: dict
  manifest:
    description:
      - Keys to try, as TrueNAS exports them. It is a JSON object of dataset names and keys, as text or as a dictionary,
        of at most 10 MiB.
      - An entry of O(keys) for the same dataset counts instead. Entries for datasets that do not exist do no harm.
      - It may be a list of such manifests. The first that has a key for a dataset counts.
    type: raw
  manifest_file:
    description:
      - Absolute path of such a manifest on the host. O(manifest) counts before it.
    type: path
  try_key_files:
    description:
      - Try the root's own key file, too. That is the file of its C(keylocation), and the one of the same name with
        C(.new), which an interrupted rotation may have left. ZFS itself fetches a key whose C(keylocation) is a web
        address.
      - When not given, it is V(true) if O(keys), O(manifest) or O(manifest_file) is given, else V(false).
    type: bool
  minimum_iterations:
    description:
      - PBKDF2 iterations that a passphrase should have. Roots with less are marked as
        RV(roots[].iterations_below_policy).
      - TrueNAS asks for the default since release 26. OpenZFS itself takes 350000 when nothing is said.
    type: int
    default: 1300000
seealso:
  - module: nasops.encryption.zfs_dataset_key
  - module: nasops.encryption.zfs_encrypted_pool
  - plugin: nasops.encryption.encryption_query
    plugin_type: filter
"""

EXAMPLES = r"""
- name: What is encrypted, and what is locked
  nasops.encryption.zfs_encryption_info:
  register: encryption

- name: Which of the keys in this manifest open what, and would an unlock with them succeed
  nasops.encryption.zfs_encryption_info:
    manifest: "{{ lookup('ansible.builtin.file', 'dataset_tank_keys.json') }}"
  register: encryption

- name: Show what would stay locked, and why
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.unlock_error }} {{ item.key_error | default('', true) }}"
  loop: "{{ encryption.roots | rejectattr('unlock_successful') }}"
  loop_control:
    label: "{{ item.name }}"

- name: Try one passphrase on a whole tree
  nasops.encryption.zfs_encryption_info:
    name: tank/clients
    keys:
      tank/clients:
        value: "{{ vault_clients }}"
        recursive: true

- name: Do the key files on this host still open their datasets
  nasops.encryption.zfs_encryption_info:
    try_key_files: true
  register: encryption
  failed_when: encryption.roots | selectattr('valid_key', 'false') | length > 0

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
    iterations_below_policy:
      description: Whether it is a passphrase with less iterations than O(minimum_iterations).
      type: bool
      sample: true
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
    key_present:
      description:
        - Whether an unlock with these options would have a key to try, good or not. That is a key that is offered for
          the root, or a key file of its own that exists, or a web address as its C(keylocation).
        - V(null) if the root is above O(name) and so was not read.
      type: bool
      sample: true
    valid_key:
      description:
        - Whether one of these keys opens the root. It is found out for unlocked roots, too.
        - V(false) also for a locked root without any key to try. V(null) if nothing was tried, or if it could not be
          found out.
      type: bool
      sample: false
    key_origin:
      description: Where the key that fits comes from, or the first that does not. V(null) for none.
      type: str
      sample: keys['tank/media']
    key_error:
      description: What is wrong with the keys, or that there are none. V(null) if one fits, and if no keys were tried.
      type: str
      sample: >-
        The key from keys['tank/media'] is not the one that opens 'tank/media'. The passphrase from keys['tank/media']
        begins or ends with a blank: was it copied by hand?
    unlock_successful:
      description:
        - Whether the root would be unlocked with these keys, and all of it mounted that asks for it. It stays V(true)
          for a root that is unlocked already.
        - V(null) for a locked root if no keys were tried.
      type: bool
      sample: false
    unlock_error:
      description:
        - What would keep the root locked or unmounted, in the words of TrueNAS, several joined by C(and). V(null) for
          nothing, and if no keys were tried.
        - These are V(Key not provided), V(Provided key is invalid), V(Provided key could not be tried) (such as after
          an I/O error, see RV(roots[].key_error)), V(Child cannot be unlocked when parent "tank" is locked), and what
          is in the way of a mount.
      type: str
      sample: Provided key is invalid
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
unused_keys:
  description:
    - The keys that are offered for something that is no encryption root, ordered by name. A manifest may well have
      some.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The dataset they are offered for.
      type: str
      sample: tank/media/video
    reason:
      description: Why such a key is of no use.
      type: str
      sample: uses the key of 'tank/media'
"""

import os
import typing as t

from ..module_utils.command import HostRunner
from ..module_utils.entry import Module, fail, protect
from ..module_utils.errors import StorageError
from ..module_utils.masking import occurs, release
from ..module_utils.secrets import Mask
from ..module_utils.zfs.keys import engine
from ..module_utils.zfs.names import check_dataset_name
from ..module_utils.zfs.offer_options import arguments, offered, was_asked_for
from ..module_utils.zfs.offers import plain_words
from ..module_utils.zfs.reach import read_reachable
from ..module_utils.zfs.state import (
    ENCRYPTION_PROPERTIES,
    MOUNT_PROPERTIES,
    read_pool_properties,
    require_root,
    way_back,
)
from ..module_utils.zfs.summary import MINIMUM_ITERATIONS, summarize, unencrypted
from ..module_utils.zfs.unlock_preview import Preview, Verdict, columns, is_key_present, useless
from ..module_utils.zfs.unlock_preview_read import DERIVATION, Trial, foresee, read_above


def main() -> None:
    module = Module(
        {
            "name": {"type": "str"},
            "recursive": {"type": "bool", "default": True},
            **arguments(),
            "try_key_files": {"type": "bool", "no_log": False},
            "minimum_iterations": {"type": "int", "default": MINIMUM_ITERATIONS},
        }
    )
    release(module, plain_words(module.params["keys"]))
    try:
        require_root()
        result = look(module, module.params)
    except StorageError as error:
        fail(module, error)
    module.exit_json(changed=False, **result)


def look(module: Module, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The result of the module.

    :raises StorageError: bad options, or ZFS can't be asked
    """
    name, recursive = params["name"], params["recursive"]
    if name is not None:
        check_dataset_name(name)
    offers = offered(params)
    mask = Mask()
    protect(module, mask, offers.secrets())
    runner = HostRunner(mask)

    given = any(params[option] is not None for option in ("keys", "manifest", "manifest_file"))
    asked_for = was_asked_for(params)
    own_files = given if params["try_key_files"] is None else params["try_key_files"]
    tried = given or own_files
    properties = (*MOUNT_PROPERTIES, *DERIVATION) if tried else ENCRYPTION_PROPERTIES
    reach = read_reachable(runner, read_pool_properties(runner), name, properties, recursive)
    datasets = reach.datasets
    if name is None:
        for pool, reason in reach.silent.items():
            module.warn(f"{reason} They are missing in the result. {way_back(pool)}")
    above = read_above(runner, datasets, name, properties) if tried else {}
    known = {**above, **datasets}
    if occurs(module, known):
        module.warn(
            "A key of this task is a part of the name of a dataset as well. Ansible hides it there too, so that names "
            "in this result are not those of the datasets. Everybody can read such a key: choose another one."
        )
    rows = summarize(datasets, above, params["minimum_iterations"])
    verdicts: dict[str, Verdict] = {}
    ends: dict[str, Preview] = {}
    if tried:
        trial = Trial(offers, own_files, engine(runner).try_all, lambda keys: protect(module, mask, keys))
        verdicts, ends = foresee(runner, trial, known, (row["name"] for row in rows))
    for row in rows:
        root = known.get(row["name"])
        present = is_key_present(root, offers, os.path.isfile) if root else None
        row.update(columns(row["locked"], verdicts.get(row["name"]), ends.get(row["name"]), present))

    return {
        "roots": rows,
        "unencrypted": unencrypted(datasets),
        "unused_keys": useless(offers, known, lambda one: reach.covers(one) and asked_for(one)),
    }


if __name__ == "__main__":
    main()
