#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kmip_key
short_description: Store, rotate and remove keys on a KMIP server
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Stores the keys of datasets on a KMIP server, gives them successors, and removes them. The lookup
    P(nasops.encryption.kmip_key#lookup) reads them.
  - A key is stored as secret data of type password that holds its text, as a TrueNAS does. Symmetric keys that others
    have stored are understood, too.
  - It is activated, then read back and compared, before the task reports success.
  - A rotation stores the new key beside the former one, reads it back, and lets the two change names after that.
    Nothing is destroyed unless O(previous=destroy). A run that was interrupted is finished by the next one.
  - Many keys go through one connection. What is wrong with one of them does not hold up the others. They are done, then
    the task fails and names what went wrong with which key.
  - The module connects from the host of the task. Mostly that is the controller, by C(delegate_to=localhost).
requirements:
  - a KMIP server that speaks KMIP 1.2
extends_documentation_fragment:
  - nasops.encryption.attributes
  - nasops.encryption.kmip
attributes:
  action_group:
    description: Use C(group/nasops.encryption.kmip) in C(module_defaults) to set the connection for this module.
    support: full
    membership:
      - nasops.encryption.encryption
      - nasops.encryption.kmip
  idempotent:
    support: partial
    details:
      - With O(state=rotated), O(generate) and O(previous=destroy), each run makes a new key. All else does nothing the
        second time, and a rotation with O(previous=keep) waits until the former key was removed.
options:
  state:
    description:
      - V(present) stores the key if there is none of that name, and activates it if it is not active. It never replaces
        a key. If there is another one of that name, the task fails.
      - V(rotated) puts a new key in the place of the one that is there.
      - V(absent) revokes the key, then destroys it. With O(value) or O(keys) it does so only if it is that very key.
    type: str
    choices: [present, absent, rotated]
    default: present
  name:
    description:
      - Name of the key, mostly that of the dataset. If several objects have this name, nothing is done to any of them.
      - Letters beyond ASCII and the percent sign are stored percent-encoded, since PyKMIP can't transfer them.
      - A rotation of V(tank/media) calls the new key V(tank/media (next\)) at first, and the former one
        V(tank/media (previous\)) in the end. Such keys can be removed by name like others.
    type: str
  names:
    description:
      - Several keys, for which no values are given.
    type: list
    elements: str
  keys:
    description:
      - Several keys with their values, by name.
      - A mapping, or JSON as text. C(NAME=KEY), which Ansible takes for a mapping elsewhere, is refused.
    type: dict
  uid:
    description:
      - The unique identifier that the server gave the object, for O(state=absent). With O(name), the object has to have
        that name, too.
    type: str
  value:
    description:
      - The text of the key, as other modules of this collection take it. A hex key is 64 digits, a raw key is base64, a
        passphrase is itself.
    type: str
  generate:
    description:
      - Make a new random key if there is none, or for O(state=rotated) in every case. Until it is used, it exists on
        the server only.
    type: bool
    default: false
  format:
    description:
      - What O(generate) makes, V(hex) when not given. With O(value) or O(keys), what they have to be.
    type: str
    choices: [hex, raw, passphrase]
  previous:
    description:
      - What becomes of the former key after a rotation.
      - V(keep) leaves it on the server, active, under a name such as V(tank/media (previous\)). Remove it when ZFS has
        opened the dataset with the new key. Until then, no further rotation is begun. With O(generate), the task
        warns of that and changes nothing.
      - V(destroy) revokes and destroys it as soon as the new one is read back. If ZFS was not told the new key by then
        and the dataset is locked before it is, nothing opens it any more. With O(generate), a former key that an
        earlier rotation left is not destroyed, and the task fails; remove that one by its name.
    type: str
    choices: [keep, destroy]
    default: keep
seealso:
  - plugin: nasops.encryption.kmip_key
    plugin_type: lookup
  - module: nasops.encryption.zfs_dataset_key
notes:
  - Like with every module, options are in a file in a private temporary folder of the host while it runs, unless
    pipelining is on. Set C(ansible_pipelining=true) for the task, also on localhost.
  - A PyKMIP server that logs at level C(DEBUG) writes whole messages to its log, and so the keys.
"""

EXAMPLES = r"""
- name: The connection, once for a block of tasks
  delegate_to: localhost
  module_defaults:
    group/nasops.encryption.kmip:
      server: kmip.example.org
      certificate: /etc/nas/kmip/client.crt
      private_key: /etc/nas/kmip/client.key
      ca_certificate: /etc/nas/kmip/ca.crt
  block:
    - name: A new random key on the server, if there is none
      nasops.encryption.kmip_key:
        name: tank/media
        generate: true

- name: Store a passphrase
  nasops.encryption.kmip_key:
    server: kmip.example.org
    certificate: /etc/nas/kmip/client.crt
    private_key: /etc/nas/kmip/client.key
    ca_certificate: /etc/nas/kmip/ca.crt
    name: tank/media/video
    value: "{{ vault_video }}"
  delegate_to: localhost

- name: All keys of a pool that a TrueNAS exported
  nasops.encryption.kmip_key:
    server: kmip.example.org
    certificate: /etc/nas/kmip/client.crt
    private_key: /etc/nas/kmip/client.key
    ca_certificate: /etc/nas/kmip/ca.crt
    keys: "{{ lookup('ansible.builtin.file', 'dataset_tank_keys.json') | from_json }}"
  delegate_to: localhost

- name: Begin to rotate a key; the former one stays
  nasops.encryption.kmip_key:
    server: kmip.example.org
    certificate: /etc/nas/kmip/client.crt
    private_key: /etc/nas/kmip/client.key
    ca_certificate: /etc/nas/kmip/ca.crt
    name: tank/media
    state: rotated
    generate: true
  delegate_to: localhost

- name: End it, once ZFS has taken the new key
  nasops.encryption.kmip_key:
    server: kmip.example.org
    certificate: /etc/nas/kmip/client.crt
    private_key: /etc/nas/kmip/client.key
    ca_certificate: /etc/nas/kmip/ca.crt
    name: tank/media (previous)
    state: absent
  delegate_to: localhost

- name: Remove one of two objects that have the same name
  nasops.encryption.kmip_key:
    server: kmip.example.org
    certificate: /etc/nas/kmip/client.crt
    private_key: /etc/nas/kmip/client.key
    ca_certificate: /etc/nas/kmip/ca.crt
    name: tank/media
    uid: "17"
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order and in words.
  returned: always, unless the options are wrong or the server can't be asked
  type: list
  elements: str
  sample:
    - Store a new key as 'tank/media (next)' and read it back
    - Rename the former key '4' to 'tank/media (previous)'
    - Rename the new key to 'tank/media'
objects:
  description: The keys of the task as they are now, in check mode as they were found.
  returned: always, unless the options are wrong or the server can't be asked
  type: list
  elements: dict
  contains:
    name:
      description: Name of the key, V(null) for an object without any.
      type: str
      sample: tank/media
    uid:
      description: Its unique identifier on the server, V(null) if it is absent or ambiguous.
      type: str
      sample: "4"
    state:
      description:
        - The state it has on the server, V(pre_active), V(active), V(deactivated) or V(compromised), or V(absent).
        - V(ambiguous) if several objects have the name, V(unknown) if the server did not tell.
      type: str
      sample: active
    kind:
      description: V(secret_data) or V(symmetric_key).
      type: str
      sample: secret_data
    algorithm:
      description: Algorithm of a symmetric key, V(null) for secret data.
      type: str
      sample: AES
    length:
      description: Length of a symmetric key in bits, V(null) for secret data.
      type: int
      sample: 256
name:
  description: As in RV(objects[].name).
  returned: when the task is about one key
  type: str
  sample: tank/media
uid:
  description: As in RV(objects[].uid).
  returned: when the task is about one key
  type: str
  sample: "4"
state:
  description: As in RV(objects[].state).
  returned: when the task is about one key
  type: str
  sample: active
kind:
  description: As in RV(objects[].kind).
  returned: when the task is about one key
  type: str
  sample: secret_data
algorithm:
  description: As in RV(objects[].algorithm).
  returned: when the task is about one key
  type: str
  sample: AES
length:
  description: As in RV(objects[].length).
  returned: when the task is about one key
  type: int
  sample: 256
"""

import base64
import typing as t

from ..module_utils.command import HostRunner
from ..module_utils.entry import Module, fail, protect, run
from ..module_utils.errors import StorageError
from ..module_utils.kmip.connection import parse_connection
from ..module_utils.kmip.objects import as_key
from ..module_utils.kmip.options import argument_spec, parse_wishes
from ..module_utils.kmip.read import Survey, survey, survey_again
from ..module_utils.kmip.result import describe
from ..module_utils.kmip.rotation import decide
from ..module_utils.kmip.session import Session
from ..module_utils.plan import Outcome
from ..module_utils.secrets import Mask, generate


def main() -> None:
    module = Module(argument_spec())
    mask = Mask()
    try:
        wishes = parse_wishes(module.params)
        protect(module, mask, (as_key(wish.value) for wish in wishes if wish.value is not None))
        session = Session(parse_connection(module.params), mask)
    except StorageError as error:
        fail(module, error)

    def make(key_format: str) -> str:
        text = new_text(key_format)
        protect(module, mask, (as_key(text),))
        return text

    def result(done: Outcome[Survey]) -> dict[str, t.Any]:
        return describe(wishes, done.state)

    run(
        module,
        HostRunner(mask),
        lambda: survey(session, wishes),
        lambda found: decide(session, make, wishes, found),
        result,
        lambda _before, _done: survey_again(session, wishes),
    )


def new_text(key_format: str) -> str:
    """A new random key, as the options of this collection take it."""
    key = generate(key_format)
    if key_format == "raw":
        return base64.b64encode(key.material).decode("ascii")
    return key.material.decode("ascii")


if __name__ == "__main__":
    main()
