# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that send streams say alike."""

from __future__ import annotations


class ModuleDocFragment:
    """Where a stream goes, and what becomes of one that broke off."""

    DOCUMENTATION = r"""
options:
  target_host:
    description:
      - The host with the target, as the source calls it. When not given, it is the host of the source.
    type: str
  ssh:
    description:
      - How to log into O(target_host). All commands share one connection. Nobody is asked for a password.
    type: dict
    suboptions:
      user:
        description:
          - The user there. When not given, that of the configuration of ssh, else C(root).
        type: str
      port:
        description:
          - The port there.
        type: int
      identity_file:
        description:
          - Path on the source of the private key to log in with. It has no passphrase, or an agent has it.
        type: path
      known_hosts_file:
        description:
          - Path on the source of the file with the host's key. When not given, those of root and of the system.
        type: path
      host_keys:
        description:
          - V(strict) wants the host's key to be known. V(accept_new) takes the key of a host that is not, and remembers
            it.
        type: str
        choices: [strict, accept_new]
        default: strict
      sudo:
        description:
          - Run C(zfs), C(zpool) and C(sh) there by C(sudo).
        type: bool
        default: false
      args:
        description:
          - More options for C(ssh), such as V(-J) and the name of a host to go through.
        type: list
        elements: str
        default: []
  resume:
    description:
      - Go on with a stream that broke off. With V(false), what was received of it is discarded.
    type: bool
    default: true
"""
