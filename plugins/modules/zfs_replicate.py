#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_replicate
short_description: Replicate ZFS datasets, still encrypted or encrypted anew, never in the clear by accident
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Brings a replica of a filesystem or volume, with all below it, up to date. The source is on the host the module runs
    on. The target is there too, or on another host that it reaches by ssh.
  - The first run sends everything, later ones what has changed since the newest snapshot that both ends have, found by
    its GUID. A stream that broke off is gone on with where it did.
  - What is received is looked at afterwards. If a single dataset is not encrypted as O(mode) promises, the task fails
    and names it. Every snapshot at the target has the GUID of that at the source.
  - Replicas are not mounted, are read-only, and don't take over the mountpoints of the source, see O(properties).
  - While a stream runs, the task tells how much was sent, how fast, and how long it will take.
requirements:
  - OpenZFS 2.1 or later at both ends
  - root at the source; at the target root, or a user with sudo that asks for no password (O(ssh.sudo))
  - the program C(ssh) on the source, if the target is on another host. Nothing but OpenZFS is needed there.
extends_documentation_fragment:
  - nasops.encryption.attributes
  - nasops.encryption.streams
attributes:
  check_mode:
    details:
      - The whole plan is made and returned, and everything that can be refused is refused. Both ends are read.
  idempotent:
    support: partial
    details:
      - A task finds nothing to do if nothing was written to the source, and nobody else has taken a snapshot of it.
        With O(snapshot_when=always) it always does.
options:
  source:
    description:
      - The filesystem or volume to replicate.
    type: str
    required: true
  target:
    description:
      - The replica. It must not be the root of a pool. What lies above it has to exist, the replica itself must not
        unless it is one of this source.
    type: str
    required: true
  mode:
    description:
      - V(raw) sends the data as it lies on the disks, still encrypted. No key is needed at either end, and the replica
        is opened by the key of the source. Datasets that are not encrypted are refused.
      - V(reencrypt) reads the source and encrypts the replica anew, under O(key) or the key of the dataset above the
        target. The source has to be unlocked if it is encrypted, and what encrypts at the target, too. Between the
        hosts only ssh protects the data.
      - V(plaintext) lets the replica lie in the clear.
      - A target keeps to the mode it was made with, since raw and other increments do not fit together.
    type: str
    choices: [raw, reencrypt, plaintext]
    default: raw
  key:
    description:
      - The key of a new replica, for O(mode=reencrypt). What is below it uses it too. It is used when the replica is
        made, and not looked at later.
      - When not given, the replica uses the key of the dataset above it.
    type: dict
    suboptions:
      format:
        description:
          - V(hex) is 64 hexadecimal digits, V(raw) is 32 bytes, V(passphrase) is 8 to 512 bytes in UTF-8.
        type: str
        choices: [hex, raw, passphrase]
        default: hex
      value:
        description:
          - The key itself. A raw key is given in base64, and only together with O(key.file).
          - Without O(key.file) it is kept nowhere at the target, and the C(keylocation) is V(prompt).
        type: str
      file:
        description:
          - Absolute path of the key file at the target. V(auto) is a file named after O(target) in F(/etc/zfs/keys).
          - If it is missing, it is made of O(key.value) or O(key.generate). It is never overwritten.
        type: path
      generate:
        description:
          - Make a new random key if O(key.file) is missing. It exists at the target only, until you make a backup.
          - It is refused where the file would be in memory (tmpfs), as below F(/etc) on TrueNAS CORE, where a folder
            below F(/data) is kept.
        type: bool
        default: false
      iterations:
        description:
          - PBKDF2 iterations for a passphrase, at least 100000. OpenZFS takes 350000 when not given.
        type: int
  cipher:
    description:
      - The encryption suite of a new replica with a O(key). V(on) is V(aes-256-gcm), which is used when not given.
    type: str
    choices: ["on", aes-256-gcm, aes-192-gcm, aes-128-gcm, aes-256-ccm, aes-192-ccm, aes-128-ccm]
  recursive:
    description:
      - Replicate what is below the source, too.
    type: bool
    default: true
  exclude:
    description:
      - Datasets below the source to leave out, with all below them. Whole names.
    type: list
    elements: str
    default: []
  send_properties:
    description:
      - Give the replica the properties that were set at the source. With O(mode=raw) all of them come with the stream.
        Otherwise settings such as C(compression), C(recordsize) and C(quota) are carried over when something is sent,
        and no user properties.
      - With V(false) and O(mode=raw) each dataset is sent on its own, which makes each an encryption root at the
        target.
    type: bool
    default: true
  properties:
    description:
      - Properties of the replica, whatever the source has. What is below it inherits them. V(null) leaves that property
        of the source out.
      - V(readonly) is V(on) and C(mountpoint) left out, unless they are given here.
    type: dict
    default: {}
  snapshot:
    description:
      - Bring the replica up to this snapshot, which all datasets have.
      - When not given, one is taken if something was written since the last one that such a task took.
    type: str
  snapshot_prefix:
    description:
      - What the names of snapshots that are taken begin with. The time in UTC follows. Give each target of a source a
        prefix of its own.
    type: str
    default: nasops-
  snapshot_when:
    description:
      - With V(changed) a snapshot is taken only if something was written or another snapshot taken since the last one
        of these, a dataset is new, or it
        shows that a key was changed. A new hex or raw key does not show, and travels with the next increment.
      - With V(always) every run takes one, and is never without a change.
    type: str
    choices: [changed, always]
    default: changed
  keep:
    description:
      - Destroy the oldest of the snapshots with O(snapshot_prefix) and a time, at both ends, until so many are left.
        When not given, all are kept.
    type: int
  force:
    description:
      - Roll the replica back to the newest snapshot that both ends have, if it was written to or has newer snapshots of
        its own. These are destroyed, and what was received of a stream that broke off. Nothing else is ever destroyed
        at the target.
    type: bool
    default: false
  stall_timeout:
    description:
      - Seconds without any progress after which a stream counts as broken. There is no limit to how long it takes as
        long as it moves. V(0) for never.
    type: int
    default: 300
  progress_interval:
    description:
      - Seconds between two lines that tell how far a stream is. V(0) for none.
    type: int
    default: 15
  progress_file:
    description:
      - Path on the source of a file that tells how far a stream is while it runs, as a JSON object, readable by root
        alone. When not given, one below F(/var/run) that is shown only while the task runs.
    type: path
seealso:
  - module: nasops.encryption.zfs_key_manifest
  - module: nasops.encryption.zfs_dataset_key
  - plugin: nasops.encryption.remap_manifest
    plugin_type: filter
notes:
  - After the key of the source was changed, a raw replica is opened by the former key until its next increment. Keep
    both until you have seen it open.
  - A replica that nobody has opened is none. Unlock it once, and again when you change something.
  - Do not change the key of a raw replica, or let it inherit another one. The next increment would make it impossible
    to open.
"""

EXAMPLES = r"""
- name: Replicate a pool to another host, still encrypted
  nasops.encryption.zfs_replicate:
    source: tank
    target: backup/nas1
    target_host: backup.example.org
    keep: 30
  become: true

# The replica is opened by the keys of the source, under its own names.
- name: Unlock the replica with the manifest of the source
  nasops.encryption.zfs_dataset_key:
    name: backup/nas1
    state: unlocked
    recursive: true
    manifest: "{{ lookup('ansible.builtin.file', 'nas1.keys') | nasops.encryption.open_manifest(recovery_key)
      | nasops.encryption.remap_manifest({'tank': 'backup/nas1'}) }}"
  become: true
  delegate_to: backup.example.org

# It is opened by the key of backup/vault at the target, and needs none of the source.
- name: A replica without properties that does not need the keys of its source
  nasops.encryption.zfs_replicate:
    source: tank/documents
    target: backup/vault/documents
    target_host: backup.example.org
    mode: reencrypt
    send_properties: false
  become: true

- name: Encrypt data that is not, on the way to a pool on this host
  nasops.encryption.zfs_replicate:
    source: old/media
    target: tank/media
    mode: reencrypt
    key:
      file: auto
      generate: true
    properties:
      readonly: false
      mountpoint: /srv/media
  become: true

- name: Through a gateway, as a user with sudo, with all but the scratch space
  nasops.encryption.zfs_replicate:
    source: tank
    exclude:
      - tank/scratch
    target: backup/nas1
    target_host: backup.internal
    ssh:
      user: replica
      sudo: true
      identity_file: /root/.ssh/replica
      args: [-J, gateway.example.org]
  become: true
"""

RETURN = r"""
snapshot:
  description: The snapshot that the replica was brought up to, V(null) in check mode if it is still to be taken.
  returned: success
  type: str
  sample: nasops-20261126T030000Z
replicas:
  description: The datasets at the target, ordered by name of the source.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: Name at the source.
      type: str
      sample: tank/media
    target:
      description: Name at the target.
      type: str
      sample: backup/nas1/media
    snapshot:
      description: The newest snapshot there.
      type: str
      sample: nasops-20261126T030000Z
    guid:
      description: Its GUID, which is that of the snapshot at the source.
      type: str
      sample: "9512867134298873421"
    encryption:
      description: The encryption suite, V(off) for none.
      type: str
      sample: aes-256-gcm
    encryptionroot:
      description: The dataset whose key opens it, V(null) for none.
      type: str
      sample: backup/nas1
    keystatus:
      description: Whether that key is loaded.
      type: str
      sample: unavailable
roots:
  description: The encryption roots among them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name at the target.
      type: str
      sample: backup/nas1
    opened_by:
      description: The dataset whose key opens it. For a raw replica that is one of the source.
      type: str
      sample: tank
    keyformat:
      description: The format of that key.
      type: str
      sample: hex
    extra:
      description:
        - Whether the dataset at the source uses the key of one above it. Its name is then in no manifest of the source,
          so its key has to be given by name, or as a recursive key of one above it.
      type: bool
      sample: false
sent:
  description: The streams that were sent, in order.
  returned: always
  type: list
  elements: dict
  contains:
    source:
      description: The dataset, for a stream of a tree its top.
      type: str
      sample: tank
    target:
      description: Where it was received.
      type: str
      sample: backup/nas1
    estimated_bytes:
      description: How long zfs thought the stream would be.
      type: int
      sample: 104857600
    seconds:
      description: How long it took.
      type: float
      sample: 12.5
    resumed:
      description: Whether it went on with one that had broken off.
      type: bool
      sample: false
actions:
  description: What was done, or would be done, in order.
  returned: success
  type: list
  elements: str
  sample: ["Take a snapshot of 'tank' and 3 below it"]
"""

from ..module_utils.entry import Module, fail
from ..module_utils.errors import StorageError
from ..module_utils.zfs.replicate_options import arguments, key_to_hide, parse
from ..module_utils.zfs.replicate_plan import plan_replication
from ..module_utils.zfs.replicate_read import read_ends
from ..module_utils.zfs.replicate_result import describe_ends
from ..module_utils.zfs.replicate_task import run, stamp


def main() -> None:
    module = Module(arguments())
    try:
        wanted = parse(module.params, stamp())
    except StorageError as error:
        fail(module, error)
    run(
        module,
        wanted,
        key_to_hide(wanted),
        lambda runner, taken: read_ends(runner, wanted, taken),
        lambda ends: (wanted, ends),
        lambda ends: plan_replication(wanted, ends),
        lambda ends: describe_ends(wanted, ends),
    )


if __name__ == "__main__":
    main()
