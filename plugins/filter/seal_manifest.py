# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seals a manifest to certificates."""

from __future__ import annotations

DOCUMENTATION = r"""
name: seal_manifest
short_description: Seal a manifest of keys to certificates
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Seals a manifest so that only the private key of one of the certificates opens it, such as one that TrueNAS
    exported.
  - The result is a text, in CMS (AuthEnvelopedData) by AES-256-GCM. It is opened by
    P(nasops.encryption.open_manifest#filter), or by C(openssl cms -decrypt) alone.
  - It is another text each time. A task that writes it to a file is changed at each run.
  - The keys are in the memory of the controller for that. M(nasops.encryption.zfs_key_manifest) seals keys where they
    are.
requirements:
  - the program C(openssl) 3.0 or later on the controller
  - cryptography 42 or later (Python package on the controller)
extends_documentation_fragment:
  - nasops.encryption.manifest
  - nasops.encryption.manifest.seal_to
options:
  seal_to:
    required: true
seealso:
  - module: nasops.encryption.zfs_key_manifest
  - plugin: nasops.encryption.open_manifest
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Seal what TrueNAS exported
  ansible.builtin.copy:
    content: >-
      {{ lookup('ansible.builtin.file', 'dataset_tank_keys.json')
         | nasops.encryption.seal_manifest(['recovery.pem']) }}
    dest: dataset_tank.keys
    mode: "0600"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description:
    - The sealed manifest.
  type: str
"""

import datetime
import typing as t

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ..module_utils.command import HostRunner
from ..module_utils.sealing.seal import find_openssl, seal
from ..module_utils.secrets import Mask
from ..module_utils.zfs.key_manifest import write_manifest
from ..plugin_utils.certificates import load
from ..plugin_utils.filters import manifest_of, text_of, told


@told
def seal_manifest(manifest: t.Any, seal_to: t.Any) -> str:
    """The filter.

    :raises StorageError: the input is no manifest, or can't be sealed to the certificates
    """
    given = [seal_to] if isinstance(seal_to, str) else seal_to
    if not isinstance(given, (list, tuple)):
        raise AnsibleFilterError("seal_to is no list of certificates.")
    certificates = load(
        [text_of(one, f"seal_to[{number}]") for number, one in enumerate(given)],
        datetime.datetime.now(datetime.timezone.utc),
    )
    for one in certificates:
        for warning in one.warnings:
            Display().warning(warning)
    runner = HostRunner(Mask())
    program = find_openssl(runner, "the controller")
    return seal(runner, program, write_manifest(manifest_of(manifest)), [one.recipient for one in certificates])


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"seal_manifest": seal_manifest}
