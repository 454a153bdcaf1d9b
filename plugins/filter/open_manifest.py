# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens a sealed manifest."""

from __future__ import annotations

DOCUMENTATION = r"""
name: open_manifest
short_description: Open a sealed manifest of keys
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Opens what M(nasops.encryption.zfs_key_manifest) or P(nasops.encryption.seal_manifest#filter) sealed.
  - It opens the whole manifest or nothing. One that was changed anywhere, or that is sealed to other certificates, is
    refused.
  - The private key goes to C(openssl) through a pipe. It is in no file and no argument that was not there before.
requirements:
  - the program C(openssl) 3.0 or later on the controller
  - cryptography 42 or later (Python package on the controller)
options:
  _input:
    description:
      - A sealed manifest, as text.
    type: str
    required: true
  private_key:
    description:
      - The private key of one of the certificates it is sealed to, in PEM, as its path on the controller or as its
        text.
    type: str
    required: true
  passphrase:
    description:
      - The passphrase of the private key, if it has one.
    type: str
seealso:
  - module: nasops.encryption.zfs_key_manifest
  - plugin: nasops.encryption.seal_manifest
    plugin_type: filter
notes:
  - The result are keys. Give the task that uses it C(no_log=true) unless it is one of this collection.
"""

EXAMPLES = r"""
- name: Unlock with what is in the backup
  nasops.encryption.zfs_dataset_key:
    name: tank
    state: unlocked
    recursive: true
    manifest: >-
      {{ lookup('ansible.builtin.file', 'backups/nas1.keys')
         | nasops.encryption.open_manifest('recovery.key', passphrase=recovery_passphrase) }}
  become: true

- name: See that the backup can be opened, without showing anything of it
  ansible.builtin.assert:
    that: lookup('ansible.builtin.file', 'backups/nas1.keys')
      | nasops.encryption.open_manifest('recovery.key') | length > 0
    quiet: true
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description:
    - The keys by name.
  type: dict
"""

import typing as t

from ..module_utils.errors import BadInput
from ..module_utils.zfs.manifest import parse_manifest
from ..plugin_utils.controller_files import absolute, read_text
from ..plugin_utils.filters import text_of, told
from ..plugin_utils.opening import open_sealed


@told
def open_manifest(sealed: t.Any, private_key: t.Any, passphrase: t.Any = None) -> dict[str, str]:
    """The filter.

    :raises StorageError: it can't be opened, or there is no manifest in it
    """
    key = text_of(private_key, "private_key")
    if "-----BEGIN" not in key:
        key = read_text(absolute(key), "The private key")
    secret = None if passphrase in (None, "") else text_of(passphrase, "passphrase")
    plain = open_sealed(text_of(sealed, "The sealed manifest"), key, secret)
    try:
        return parse_manifest(plain.decode("utf-8"), "what was sealed")
    except UnicodeDecodeError:
        raise BadInput("What was sealed is no manifest.") from None


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"open_manifest": open_manifest}
