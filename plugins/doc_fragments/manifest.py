# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filters for manifests and the module that makes them say alike."""

from __future__ import annotations


class ModuleDocFragment:
    """The input of a filter, and in ``seal_to`` the certificates that something is sealed to."""

    DOCUMENTATION = r"""
options:
  _input:
    description:
      - A manifest, as text or as a dictionary.
    type: raw
    required: true
"""

    SEAL_TO = r"""
options:
  seal_to:
    description:
      - Certificates in PEM, each as its path on the controller or as its text. The private key of any of them opens
        what is sealed.
      - An RSA key has 2048 bits or more, an elliptic curve is P-256, P-384 or P-521. Certificates that have expired,
        are not valid yet or are for another purpose are refused.
    type: list
    elements: str
"""
