#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_dataset_key
short_description: Create, unlock, lock, rekey and destroy encrypted ZFS datasets and volumes
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Owns the whole life of the keys of encrypted filesystems and volumes. It creates them with a key of their own or
    that of their parent, unlocks them with everything below, locks them, changes keys and passphrases, lets them
    inherit, and destroys them.
  - One task deals with any number of datasets, in any mixture of states. What is locked or destroyed comes first,
    children before parents, then the rest, parents before children.
  - Whether a key is the right one is asked of ZFS itself, without loading it. So a second run changes nothing, and a
    wrong key is told apart from a missing file, a locked parent or an I/O error.
  - A dataset with which something is wrong does not hold up the others. They are done, then the task fails and names
    what went wrong with which dataset. Options that contradict each other, name a dataset twice or can't be understood
    are the exception; then nothing is done at all.
  - A new key is durable on disk before ZFS is told to use it, and the former one is kept until ZFS opened the dataset
    with the new one. A run that was interrupted is finished by the next one.
requirements:
  - OpenZFS 2.1 or later
  - root
extends_documentation_fragment:
  - nasops.encryption.attributes
options:
  name:
    description:
      - Name of the filesystem or volume. For several use O(datasets) instead.
    type: str
  datasets:
    description:
      - Several datasets, each with the options above. Those given outside of the list hold for every entry that does
        not say otherwise, except O(key), O(volsize) and O(properties).
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the filesystem or volume.
        type: str
        required: true
      state: &state
        description:
          - V(present) creates the dataset, or brings its key and properties in line with the other options. If its
            key is given and it is locked, it is unlocked and mounted.
          - V(unlocked) loads its key, with O(recursive) also those of all encryption roots below it, and mounts what
            becomes readable by that, clones below it that use such a key among them. The dataset has to exist.
          - V(locked) unmounts what its key opens, with whatever plain filesystems below it are mounted in that, and
            unloads the key. It has to be an encryption root; a plain dataset needs O(recursive), and stays mounted
            itself, as do plain filesystems beside the roots.
          - V(inherited) makes it use the key of its parent, which has to be unlocked, or is to be by another entry. Its
            own key has to be loaded or given.
          - V(absent) destroys it. Snapshots and datasets below it need O(recursive). Clones elsewhere are never
            destroyed. Key files are kept.
        type: str
        choices: [present, unlocked, locked, inherited, absent]
      key: &key
        description:
          - The key or passphrase of this dataset.
          - With O(state=present), a dataset that used the key of its parent becomes an encryption root of its own.
          - With O(state=unlocked) and O(recursive=true) it is also tried on every encryption root below that has no
            key of its own in O(keys), O(manifest) or another entry.
        type: dict
        suboptions:
          format:
            description:
              - V(hex) is 64 hexadecimal digits, V(raw) is 32 bytes, V(passphrase) is 8 to 512 bytes in UTF-8.
              - When not given, it is that of the existing encryption root, and V(hex) for a new one.
            type: str
            choices: [hex, raw, passphrase]
          value:
            description:
              - The key itself. A raw key is given in base64, or as 64 hexadecimal digits as TrueNAS writes it.
              - Without O(key.file) it is kept nowhere on the host, and the C(keylocation) of a new key is V(prompt).
              - With O(key.file) it is written there.
            type: str
          file:
            description:
              - Absolute path of the key file on the host. V(auto) is a file named after the dataset in
                F(/etc/zfs/keys).
              - It must not lie on a dataset that this key opens, nor on a filesystem on such a volume.
              - When the dataset was renamed, V(auto) moves the key to the file of the new name.
            type: path
          generate:
            description:
              - Make a new random key when there is none in O(key.file) yet, and at every rotation.
              - Such a key exists on this host only until you make a backup of the file. So it is refused where the file
                would be in memory (tmpfs), as below F(/etc) on TrueNAS CORE, where a folder below F(/data) is kept.
            type: bool
            default: false
          iterations:
            description:
              - PBKDF2 iterations for a passphrase, at least 100000. OpenZFS takes 350000 when not given, TrueNAS
                1300000.
              - If it is given and the dataset has another number, the passphrase is set anew.
            type: int
      cipher: &cipher
        description:
          - The encryption suite, for O(state=present). V(on) is V(aes-256-gcm).
          - When not given, a new dataset has that of its encrypted parent, else V(aes-256-gcm) if it has a key. Any
            cipher of an existing dataset is accepted.
          - V("off") creates a dataset that is not encrypted. Mind the quotes in YAML.
        type: str
        choices: ["on", "off", aes-256-gcm, aes-192-gcm, aes-128-gcm, aes-256-ccm, aes-192-ccm, aes-128-ccm]
      volsize: &volsize
        description:
          - Size of a volume, such as V(10G). It makes a volume instead of a filesystem. A volume is grown, never
            shrunk.
        type: str
      properties: &properties
        description:
          - Properties of the dataset, see C(zfsprops(7)). Values are compared by their meaning.
          - V(null) or V(inherit) takes back a value that was set or received.
        type: dict
      recursive: &recursive
        description:
          - For O(state=unlocked) and O(state=locked), include all encryption roots below. For O(state=absent),
            destroy the datasets and snapshots below too.
        type: bool
      mount: &mount
        description:
          - Mount what is created or unlocked, as far as C(canmount) and C(mountpoint) ask for it.
          - If nothing of an encryption root that was just unlocked can be mounted, it is locked again.
          - ZFS itself mounts a filesystem that is unlocked when it is given a C(mountpoint), whatever this says.
        type: bool
      on_nonempty_mountpoint: &on_nonempty_mountpoint
        description:
          - What to do when there is a file, or a directory that is not empty, where a filesystem is to be mounted.
          - V(fail) leaves that filesystem unmounted and says so. V(move_aside) renames what is there, to a free name
            that begins with that of the mountpoint and C(.aside-).
          - Where a filesystem above is not mounted yet, what is there shows only during the run. A warning then tells
            what was moved where; check mode warns of the mountpoints that it can't see.
        type: str
        choices: [fail, move_aside]
      force_unmount: &force_unmount
        description:
          - Unmount for O(state=locked) even if files are open. On Linux, ZFS refuses that all the same while a
            process uses the filesystem.
        type: bool
      rotate: &rotate
        description:
          - When to change the key of an encryption root that exists, for O(state=present).
          - V(when_different) does so if ZFS says that the described key is not the current one, or if its format or
            iterations differ.
          - V(always) does so every time, and with O(key.generate) makes a new random key for it. Such a task is never
            without a change.
          - If O(key.file) is V(auto) and has a key already that this module made and that opens nothing, as an
            interrupted run leaves it, V(always) takes that one, with a warning. It does not while another imported
            pool holds an encryption root without a key file, or does not answer.
          - V(never) makes a difference an error.
        type: str
        choices: [when_different, always, never]
      detach_replica: &detach_replica
        description:
          - Change the key, or inherit, although the dataset, or the one whose key it is to use, seems to have been
            received as a raw stream. If another raw increment is received afterwards, no key will open it any more.
          - Not needed for a dataset without a snapshot, since it can't receive an increment then, as long as nothing
            lies below it and nothing else uses its key.
        type: bool
  state:
    <<: *state
    default: present
  key: *key
  cipher: *cipher
  volsize: *volsize
  properties: *properties
  recursive:
    <<: *recursive
    default: false
  mount:
    <<: *mount
    default: true
  on_nonempty_mountpoint:
    <<: *on_nonempty_mountpoint
    default: fail
  force_unmount:
    <<: *force_unmount
    default: false
  rotate:
    <<: *rotate
    default: when_different
  detach_replica:
    <<: *detach_replica
    default: false
  keys:
    description:
      - Keys by name of the encryption root, for unlocking. Each is the key itself, or a dictionary with C(value) or
        C(file) (an absolute path on the host, or C(auto)), and C(recursive), which offers it to all roots below too.
      - Its format is that of the encryption root.
      - A mapping, or JSON as text. C(NAME=KEY), which Ansible takes for a mapping elsewhere, is refused.
      - Keys for datasets of pools that the task is not about are ignored.
      - An explicit key, in O(key) or here, is the only one that is tried on its root. Otherwise that of the nearest
        dataset above it whose key is recursive is tried, then the file of its C(keylocation).
      - A file that lies on a filesystem which the task itself unlocks and mounts is looked for once that is done. Check
        mode can't see it, and says so.
    type: dict
  manifest:
    description:
      - Keys as TrueNAS exports them, a JSON object of dataset names and keys, as text or as a dictionary. An entry of
        O(keys) for the same dataset counts instead. Entries for datasets that do not exist are ignored.
      - It may be a list of such manifests. The first that has a key for a dataset counts.
    type: raw
  manifest_file:
    description:
      - Path of such a manifest on the host.
    type: path
  create:
    description:
      - Create datasets that do not exist, for O(state=present). With V(false) that is an error of each of them, so that
        a task that is to change keys makes nothing of a name that was mistyped or destroyed.
    type: bool
    default: true
  policy:
    description:
      - V(truenas) refuses what TrueNAS refuses. There is no dataset with a key of its own below one with a
        passphrase, no dataset in plain text inside an encrypted one, and roots with keys are locked only when they
        are described by name.
      - V(openzfs) allows what ZFS allows.
    type: str
    choices: [truenas, openzfs]
    default: truenas
seealso:
  - module: nasops.encryption.zfs_encrypted_pool
  - module: nasops.encryption.zfs_encryption_info
notes:
  - Changing a key wraps the same master key anew. It does not encrypt the data again, and what is left of the former
    wrapped key on the disks can still be opened with the former key.
  - Ansible hides a key wherever it occurs in a result. Where a passphrase is a part of the name of a dataset, which
    everybody can read, that name is hidden too, or the task is refused.
  - On FreeBSD the commands and parsers are the same, but were not run there by the tests of this collection.
"""

EXAMPLES = r"""
- name: Create a dataset with a key of its own in /etc/zfs/keys/tank%2Fmedia.key
  nasops.encryption.zfs_dataset_key:
    name: tank/media
    key:
      file: auto
      generate: true

- name: A parent, two children that use its key, and one with its own passphrase
  nasops.encryption.zfs_dataset_key:
    datasets:
      - name: tank/media
        key:
          file: auto
          generate: true
      - name: tank/media/documents
      - name: tank/media/audio
        properties:
          recordsize: 1M
      - name: tank/media/video
        key:
          format: passphrase
          value: "{{ vault_video }}"
          iterations: 1300000

- name: Unlock all of a pool after a reboot
  nasops.encryption.zfs_dataset_key:
    name: tank
    state: unlocked
    recursive: true
    keys:
      tank/media/video: "{{ vault_video }}"

- name: Unlock with the keys that were exported from a TrueNAS
  nasops.encryption.zfs_dataset_key:
    name: tank
    state: unlocked
    recursive: true
    manifest: "{{ lookup('ansible.builtin.file', 'dataset_tank_keys.json') }}"

- name: Lock a dataset
  nasops.encryption.zfs_dataset_key:
    name: tank/media/video
    state: locked

- name: Replace a random key by a new one
  nasops.encryption.zfs_dataset_key:
    name: tank/media
    rotate: always
    key:
      file: auto
      generate: true

- name: Change from a key to a passphrase
  nasops.encryption.zfs_dataset_key:
    name: tank/documents
    key:
      format: passphrase
      value: "{{ vault_documents }}"

- name: Use the key of the parent from now on
  nasops.encryption.zfs_dataset_key:
    name: tank/media/video
    state: inherited

- name: An encrypted volume
  nasops.encryption.zfs_dataset_key:
    name: tank/vm1
    volsize: 20G
    properties:
      refreservation: none
    key:
      file: auto
      generate: true

- name: Destroy a dataset with its snapshots
  nasops.encryption.zfs_dataset_key:
    name: tank/scratch
    state: absent
    recursive: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order and in words.
  returned: always, unless the options are wrong
  type: list
  elements: str
  sample:
    - Unlock 'tank/media' with the key from /etc/zfs/keys/tank%2Fmedia.key
    - Mount 3 filesystems of 'tank/media'
datasets:
  description: The described datasets as they are now, in check mode as they were found.
  returned: always, unless the options are wrong
  type: list
  elements: dict
  contains:
    name:
      description: Name of the dataset.
      type: str
      sample: tank/media
    state:
      description:
        - V(present) or V(absent), or V(unknown) while its pool does not answer. A dataset that is not present has no
          other values.
      type: str
      sample: present
    type:
      description: V(filesystem) or V(volume).
      type: str
      sample: filesystem
    encryption:
      description: Cipher, V(off) for none.
      type: str
      sample: aes-256-gcm
    encryption_root:
      description: The dataset that owns the key, V(null) for none.
      type: str
      sample: tank/media
    key_format:
      description: Format of that key, V(null) for none.
      type: str
      sample: hex
    key_location:
      description: Where ZFS looks for the key of an encryption root, V(null) for other datasets.
      type: str
      sample: file:///etc/zfs/keys/tank%2Fmedia.key
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
unlocked:
  description: The encryption roots that were unlocked, or would be in check mode.
  returned: always, unless the options are wrong
  type: list
  elements: str
  sample: [tank/media]
locked:
  description: The encryption roots that were locked, or would be in check mode.
  returned: always, unless the options are wrong
  type: list
  elements: str
  sample: []
failed_datasets:
  description:
    - By name, the datasets with which something went wrong. Each has C(error), and C(skipped) with the datasets that
      were not attempted because of it.
  returned: always, unless the options are wrong
  type: dict
  sample:
    tank/media/video:
      error: The key from keys['tank/media/video'] is not the one that opens 'tank/media/video'; nothing was changed.
      skipped: []
skipped_datasets:
  description: The datasets that were not attempted because something else failed.
  returned: always, unless the options are wrong
  type: list
  elements: str
  sample: []
stderr:
  description: What the failed program wrote to standard error.
  returned: failure of a program
  type: str
"""

import typing as t

from ..module_utils.entry import Module, fail, protect, run
from ..module_utils.errors import StorageError
from ..module_utils.masking import release
from ..module_utils.plan import Outcome
from ..module_utils.secrets import Mask
from ..module_utils.zfs.dataset_options import argument_spec, parse_options
from ..module_utils.zfs.dataset_read import Survey, secrets_of, survey, survey_again
from ..module_utils.zfs.dataset_result import describe, outcome
from ..module_utils.zfs.keys import ZfsRunner
from ..module_utils.zfs.offers import plain_words


def main() -> None:
    module = Module(argument_spec())
    mask = Mask()
    try:
        wishes = parse_options(module.params)
    except StorageError as error:
        fail(module, error)
    release(module, plain_words(module.params["keys"]))
    protect(module, mask, wishes.secrets())
    runner = ZfsRunner(mask)

    def hidden(found: Survey) -> Survey:
        for key in secrets_of(found.host):
            mask.add(key)
        return found

    def result(done: Outcome[Survey]) -> dict[str, t.Any]:
        return {"datasets": describe(wishes, done.state.host), **outcome(done.plan, done.state.host, module.check_mode)}

    run(
        module,
        runner,
        lambda: hidden(survey(runner, wishes)),
        lambda found: found.plan,
        result,
        lambda before, done: hidden(survey_again(runner, wishes, before, done)),
    )


if __name__ == "__main__":
    main()
