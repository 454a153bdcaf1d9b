# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives the datasets of a manifest other names."""

from __future__ import annotations

DOCUMENTATION = r"""
name: remap_manifest
short_description: Give the datasets of a manifest of keys other names
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Changes the names in a manifest to those that the datasets have on another system, such as a replica of a pool.
  - A name is replaced for the dataset itself and for all below it. The longest one that fits is used, and what none
    fits keeps its name.
  - It fails if two keys would get the same name, or if there is nothing at or below a name to replace.
extends_documentation_fragment:
  - nasops.encryption.manifest
options:
  remap:
    description:
      - New names, by the names they take the place of. Where a dataset has several replicas, give a list of names. It
        may hold the former name too, which is not kept otherwise.
    type: dict
    required: true
seealso:
  - module: nasops.encryption.zfs_key_manifest
  - plugin: nasops.encryption.open_manifest
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Unlock the replica of tank with the keys of tank
  nasops.encryption.zfs_dataset_key:
    name: backup/nas1
    state: unlocked
    recursive: true
    manifest: >-
      {{ lookup('ansible.builtin.file', 'dataset_tank_keys.json')
         | nasops.encryption.remap_manifest({'tank': 'backup/nas1'}) }}
  become: true

- name: One manifest for tank itself and for both of its replicas
  ansible.builtin.set_fact:
    keys_of_all: >-
      {{ lookup('ansible.builtin.file', 'dataset_tank_keys.json')
         | nasops.encryption.remap_manifest({'tank': ['tank', 'backup/nas1', 'offsite/nas1']}) }}
  no_log: true
"""

RETURN = r"""
_value:
  description:
    - The keys by their new names.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils.zfs.remap import parse_remap, remap_all
from ..plugin_utils.filters import manifest_of, told


@told
def remap_manifest(manifest: t.Any, remap: t.Any) -> dict[str, str]:
    """The filter.

    :raises StorageError: the input is no manifest, or the new names make no sense
    """
    if not isinstance(remap, t.Mapping):
        raise AnsibleFilterError("remap is no dictionary; wanted are new names by the names they take the place of.")
    keys = manifest_of(manifest)
    names = remap_all(list(keys), parse_remap(remap))
    return {new: key for name, key in keys.items() for new in names[name]}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"remap_manifest": remap_manifest}
