# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach a KMIP server, for the module and the lookup alike."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of the connection; ``plugins`` tells where else a plugin finds them."""

    DOCUMENTATION = r"""
requirements:
  - PyKMIP 0.11 or later, for the Python that connects to the server
options:
  server:
    description:
      - Host name or IP address of the KMIP server.
    type: str
    required: true
  port:
    description:
      - Its port.
    type: int
    default: 5696
  certificate:
    description:
      - Path of the certificate of the client in PEM, with those of intermediate authorities behind it. By it the server
        knows who asks.
      - This and the other paths are those of the machine that connects to the server. For the lookup that is the
        controller, for the module the host of the task.
    type: path
    required: true
  private_key:
    description:
      - Path of the private key of that certificate in PEM. When not given, it is in the same file.
    type: path
  private_key_passphrase:
    description:
      - Passphrase of the private key, if it is encrypted. It is never taken from the environment.
    type: str
  ca_certificate:
    description:
      - Path of the certificates in PEM of the authorities that may have issued that of the server.
      - When not given, those that the system trusts.
    type: path
  verify_hostname:
    description:
      - Whether the certificate of the server has to be one for the name or address in O(server).
      - V(false) trusts every server with a certificate of O(ca_certificate). It is what a TrueNAS does.
    type: bool
    default: true
  tls_version:
    description:
      - The oldest version of TLS that is accepted. PyKMIP's own server speaks nothing newer than V(1.2).
    type: str
    choices: ["1.2", "1.3"]
    default: "1.2"
  timeout:
    description:
      - Seconds to wait for the connection, for the TLS handshake and for each answer, from 1 to 600.
    type: int
    default: 30
"""

    PLUGINS = r"""
options:
  server:
    env:
      - name: NAS_KMIP_SERVER
    ini:
      - section: nas_kmip
        key: server
    vars:
      - name: nas_kmip_server
  port:
    env:
      - name: NAS_KMIP_PORT
    ini:
      - section: nas_kmip
        key: port
    vars:
      - name: nas_kmip_port
  certificate:
    env:
      - name: NAS_KMIP_CERTIFICATE
    ini:
      - section: nas_kmip
        key: certificate
    vars:
      - name: nas_kmip_certificate
  private_key:
    env:
      - name: NAS_KMIP_PRIVATE_KEY
    ini:
      - section: nas_kmip
        key: private_key
    vars:
      - name: nas_kmip_private_key
  private_key_passphrase:
    vars:
      - name: nas_kmip_private_key_passphrase
  ca_certificate:
    env:
      - name: NAS_KMIP_CA_CERTIFICATE
    ini:
      - section: nas_kmip
        key: ca_certificate
    vars:
      - name: nas_kmip_ca_certificate
  verify_hostname:
    env:
      - name: NAS_KMIP_VERIFY_HOSTNAME
    ini:
      - section: nas_kmip
        key: verify_hostname
    vars:
      - name: nas_kmip_verify_hostname
  tls_version:
    env:
      - name: NAS_KMIP_TLS_VERSION
    ini:
      - section: nas_kmip
        key: tls_version
    vars:
      - name: nas_kmip_tls_version
  timeout:
    env:
      - name: NAS_KMIP_TIMEOUT
    ini:
      - section: nas_kmip
        key: timeout
    vars:
      - name: nas_kmip_timeout
"""
