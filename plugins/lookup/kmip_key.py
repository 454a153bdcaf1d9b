# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads keys from a KMIP server."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kmip_key
short_description: Read keys from a KMIP server
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Returns the texts of keys on a KMIP server, for use as keys of datasets. All keys of a lookup come through one
    connection, which is made by the controller.
  - Secret data is returned as the text it is. A symmetric key is returned as hexadecimal digits.
  - Nothing is kept. Each time an expression with this lookup is evaluated, the server is asked again.
extends_documentation_fragment:
  - nasops.encryption.kmip
  - nasops.encryption.kmip.plugins
options:
  _terms:
    description:
      - What to look for, according to O(by). Lists are taken for their elements.
    type: list
    elements: str
    required: true
  by:
    description:
      - V(name) takes the terms for names of keys, as M(nasops.encryption.kmip_key) stores them.
      - V(uid) takes them for the unique identifiers that the server gave.
      - V(truenas) takes them for names of datasets whose keys a TrueNAS has stored, under the name of the dataset with
        C(-) and 7 hexadecimal digits behind it. For that, all secret data the client may see has to be looked through.
        An object whose whole name is itself a term is taken for that one only. If the 7 digits hold no letter, it may
        as well be the key of a dataset of that very name, such as a date. The lookup warns of that, with uid and name.
        With C(-v) it tells these of every key. Before it is used for anything that can't be taken back, see that it
        opens the dataset.
    type: str
    choices: [name, uid, truenas]
    default: name
  as_dict:
    description:
      - Return one dictionary with the terms as names and the keys as values. It is what
        O(nasops.encryption.zfs_dataset_key#module:keys) takes.
    type: bool
    default: false
  allow_inactive:
    description:
      - Return also a key that is not active, such as one that was revoked, or one whose storing was interrupted.
    type: bool
    default: false
  missing:
    description:
      - What to do about a term for which there is no key. V(error) fails.
      - V(skip) leaves it out, so it goes with O(as_dict=true). Whatever else is wrong with a key is still an error.
    type: str
    choices: [error, skip]
    default: error
seealso:
  - module: nasops.encryption.kmip_key
  - module: nasops.encryption.zfs_dataset_key
notes:
  - Set C(no_log=true) for a task that would show the key, such as M(ansible.builtin.debug) or
    M(ansible.builtin.set_fact).
"""

EXAMPLES = r"""
- name: Unlock a dataset with its key on the server; the connection is in variables
  nasops.encryption.zfs_dataset_key:
    name: tank/media
    state: unlocked
    key:
      value: "{{ lookup('nasops.encryption.kmip_key', 'tank/media') }}"
  vars:
    nas_kmip_server: kmip.example.org
    nas_kmip_certificate: /etc/nas/kmip/client.crt
    nas_kmip_private_key: /etc/nas/kmip/client.key
    nas_kmip_ca_certificate: /etc/nas/kmip/ca.crt

- name: Several keys at once
  nasops.encryption.zfs_dataset_key:
    name: tank
    state: unlocked
    recursive: true
    keys: "{{ lookup('nasops.encryption.kmip_key', 'tank/media', 'tank/media/video', as_dict=true) }}"

- name: The key of a dataset that a TrueNAS has stored
  nasops.encryption.zfs_dataset_key:
    name: tank/media
    state: unlocked
    key:
      value: "{{ lookup('nasops.encryption.kmip_key', 'tank/media', by='truenas') }}"

- name: The same by the uid that the TrueNAS has in its database
  nasops.encryption.zfs_dataset_key:
    name: tank/media
    state: unlocked
    key:
      value: "{{ lookup('nasops.encryption.kmip_key', '17', by='uid') }}"
"""

RETURN = r"""
_raw:
  description:
    - The texts of the keys in the order of the terms, or with O(as_dict) one dictionary of them.
  type: list
  elements: raw
"""

import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

from ..module_utils.errors import BadInput, StorageError
from ..module_utils.kmip.connection import connection_spec, parse_connection
from ..module_utils.kmip.fetch import Notice, fetch
from ..module_utils.kmip.session import Session
from ..module_utils.masking import register
from ..module_utils.secrets import Mask, encodings


class LookupModule(LookupBase):
    """What Ansible looks for."""

    def run(self, terms: t.Any, variables: t.Any = None, **kwargs: t.Any) -> list[t.Any]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            wanted = _texts(terms)
            if self._option("missing") == "skip" and not self._option("as_dict"):
                raise BadInput("missing='skip' goes with as_dict=true: a list does not tell which keys it lacks.")
            found = self._fetch(wanted)
        except StorageError as error:
            raise AnsibleLookupError(str(error)) from None
        for text in found.values():
            register(None, encodings(text.encode("utf-8", "surrogateescape")))
        return [found] if self._option("as_dict") else [found[term] for term in wanted]

    def _fetch(self, terms: list[str]) -> dict[str, str]:
        params = {name: self._option(name) for name in connection_spec()}
        passphrase = params["private_key_passphrase"]
        if passphrase:
            register(None, encodings(passphrase.encode("utf-8", "surrogateescape")))
        session = Session(parse_connection(params), Mask())
        try:
            skip = self._option("missing") == "skip"
            return fetch(session, terms, self._option("by"), self._option("allow_inactive"), skip, _tell)
        finally:
            session.close()

    def _option(self, name: str) -> t.Any:
        """An option. Ansible's own kind of text becomes one of Python's, which is what the library checks for."""
        value: t.Any = super().get_option(name)
        return str(value) if isinstance(value, str) else value


def _tell(found: Notice) -> None:
    """What a person has to know of a key that was found by a rule and not by its name."""
    if found.doubtful:
        Display().warning(str(found))
    else:
        Display().v(str(found))


def _texts(terms: t.Any) -> list[str]:
    """The terms, with lists among them taken apart."""
    found: list[str] = []
    for term in terms:
        if isinstance(term, (list, tuple)):
            found += _texts(term)
        elif isinstance(term, str):
            found.append(str(term))
        else:
            raise BadInput(f"A term of the lookup is {type(term).__name__}; wanted are texts.")
    return found
