#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_encrypted_pool
short_description: Create, import, extend, unlock, export and destroy ZFS pools with an encrypted root dataset
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Describes a ZFS pool whose root dataset is natively encrypted, and makes it so. A pool that does not exist is
    created, one that is only exported is imported, unlocked and mounted, missing vdevs are added, and properties
    are set.
  - One task can describe all pools of a host in O(pools). It starts three processes of C(zfs) and C(zpool) when
    there is nothing to do, however many pools and datasets there are, and one or two more, which search the disks,
    while a pool that is to be absent is not there.
  - A disk that holds anything is never taken for blank. A vdev is never reshaped or removed. A pool is destroyed
    only if its GUID is spelled out.
  - Keys are handed to ZFS on standard input or in a file that only root can read, never in arguments or the
    environment.
requirements:
  - OpenZFS 2.1 or later
  - util-linux (C(wipefs)) on Linux
  - root
extends_documentation_fragment:
  - nasops.encryption.attributes
options:
  name:
    description:
      - Name of the pool. For several pools use O(pools) instead.
    type: str
  state: &state
    description:
      - V(present) creates or imports the pool, and brings it in line with the other options.
      - V(exported) exports it. Its keys are unloaded by that. A pool that is not imported counts as exported.
      - V(absent) destroys it with all data. This needs O(confirm_guid). Key files are kept.
    type: str
    choices: [present, exported, absent]
    default: present
  vdevs: &vdevs
    description:
      - The top-level vdevs. Needed to create a pool. In a pool that exists, vdevs none of whose disks are in it are
        added.
      - Disks are compared by identity, not by name. F(/dev/sda), its links in F(/dev/disk), one path of a multipath
        disk and the partition ZFS made on a whole disk are the same.
      - Vdevs of the pool that are not described here stay as they are and are named in a warning.
    type: list
    elements: dict
    suboptions:
      type:
        description:
          - How the disks are combined. V(stripe) makes every disk a vdev of its own.
          - V(raidz) is V(raidz1), V(draid) is V(draid1).
        type: str
        choices: [stripe, mirror, raidz, raidz1, raidz2, raidz3, draid, draid1, draid2, draid3]
        default: stripe
      role:
        description:
          - What the vdev is for. V(cache) and V(spare) can only be V(stripe), V(special), V(dedup) and V(log) also
            V(mirror), V(data) anything.
        type: str
        choices: [data, special, dedup, log, cache, spare]
        default: data
      disks:
        description:
          - Disks, partitions or files, best as paths in F(/dev/disk/by-id). Files have to exist and need absolute
            paths.
        type: list
        elements: str
        required: true
      draid_data:
        description:
          - Data disks in each redundancy group of a draid. ZFS takes 8, or as many as there are if they are fewer.
        type: int
      draid_spares:
        description:
          - Distributed spares of a draid, 0 to 4. When not given, none.
        type: int
  cipher: &cipher
    description:
      - The encryption suite of the root dataset. V(on) is V(aes-256-gcm), as in OpenZFS 0.8.4 and later.
      - With V("off") the root dataset is not encrypted, for a pool with encrypted datasets below it. Mind the
        quotes in YAML.
      - When not given, a new pool is created with V(aes-256-gcm), and any cipher of an existing pool is accepted.
      - It is fixed when the pool is created. Another cipher on an existing pool is an error.
    type: str
    choices: ["on", "off", aes-256-gcm, aes-192-gcm, aes-128-gcm, aes-256-ccm, aes-192-ccm, aes-128-ccm]
  key: &key
    description:
      - The key or passphrase of the root dataset.
      - The key of an existing pool is not changed. It is used to unlock the pool, and it is proven before a key
        file is written or O(key.file) becomes the C(keylocation). While a pool is unlocked and its C(keylocation)
        is as wanted, ZFS is not asked whether the key fits.
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
          - The key itself. A raw key is given in base64.
          - Without O(key.file) it is kept nowhere on the host, and the C(keylocation) of a new pool is V(prompt).
          - With O(key.file) it is written there if the file does not exist.
        type: str
      file:
        description:
          - Absolute path of the key file on the host. V(auto) is a file named after the pool in F(/etc/zfs/keys).
          - An existing file is used and never overwritten. It must not be inside the pool.
        type: path
      generate:
        description:
          - Make a new random key when a new pool is created and O(key.file) does not exist.
          - Such a key exists on this host only until you make a backup of the file. So it is refused where the file
            would be in memory (tmpfs), as below F(/etc) on TrueNAS CORE, where a folder below F(/data) is kept.
        type: bool
        default: false
      iterations:
        description:
          - PBKDF2 iterations for a passphrase, at least 100000. OpenZFS takes 350000 when not given.
        type: int
  properties: &properties
    description:
      - Pool properties, see C(zpoolprops(7)). C(altroot) and C(readonly) are possible at creation and import only.
      - V(null) or V(inherit) sets a property back to its default.
    type: dict
  filesystem_properties: &filesystem_properties
    description:
      - Properties of the root dataset, see C(zfsprops(7)). Values are compared by their meaning, so V(128K),
        V(131072) and V(128KiB) are the same size.
      - V(null) or V(inherit) takes back a value that was set or received.
      - Properties that are fixed at creation can be given, and are an error when they differ on an existing pool.
    type: dict
  ashift: &ashift
    description:
      - Sector size as a power of two, used when the pool is created and when vdevs are added. It is not compared
        with the vdevs of an existing pool.
    type: int
    choices: [9, 10, 11, 12, 13, 14, 15, 16]
  unlock: &unlock
    description:
      - Load the key of the root dataset if it is locked, with O(key), or without it from its C(keylocation).
    type: bool
    default: true
  mount: &mount
    description:
      - Mount the filesystems of a pool that is imported or unlocked, as far as C(canmount) and C(mountpoint) ask
        for it.
      - A filesystem is never mounted over a directory that is not empty.
      - Something in the way of a filesystem below the root keeps neither the pool locked nor the others unmounted, but
        the task that mounts them fails in the end. As long as it is in the way, each run names the filesystem in a
        warning. One that is merely not mounted is left so, since that may be meant, as with replicas.
      - A new pool is always mounted by its creation. To have it otherwise, set C(canmount) or C(mountpoint).
    type: bool
    default: true
  import_foreign: &import_foreign
    description:
      - Import a pool although another host used it last and did not export it.
      - If that host still uses it, the pool will be destroyed.
    type: bool
    default: false
  search_paths: &search_paths
    description:
      - Folders to search for the disks or files of an exported pool, instead of the system's device folders.
        The folders of files in O(vdevs) are always searched.
    type: list
    elements: path
  confirm_guid: &confirm_guid
    description:
      - The GUID of the pool in decimal, as C(zpool get guid) prints it. Needed to destroy a pool.
      - For other states, the pool has to have this GUID. That chooses between exported pools of one name. A new pool
        can't have it, so none is created then.
    type: str
  wipe_disks: &wipe_disks
    description:
      - New disks that may be erased if they hold anything, each by its serial number or a persistent path, such as
        one in F(/dev/disk/by-id). Names such as F(/dev/sda) are refused, since they can change with every start.
      - A disk of a pool that is not imported, but that C(zpool import) lists, is erased only if the GUID of that pool
        is named here as well. The error message tells it, and by the state of the pool whether it could be imported.
      - Spares and cache devices of such a pool carry neither its name nor its GUID, so the serial number or path alone
        erases them.
      - A disk that is mounted, is swap, or belongs to an imported pool or active RAID, LVM or multipath is never
        erased.
    type: list
    elements: str
  force: &force
    description:
      - Let ZFS combine disks of different sizes, files with disks, and vdevs of different redundancy.
      - It does not allow disks that hold anything.
    type: bool
    default: false
  pools:
    description:
      - Several pools, each with the options above. Nothing is done for any of them if one can't be as described.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the pool.
        type: str
        required: true
      state: *state
      vdevs: *vdevs
      cipher: *cipher
      key: *key
      properties: *properties
      filesystem_properties: *filesystem_properties
      ashift: *ashift
      unlock: *unlock
      mount: *mount
      import_foreign: *import_foreign
      search_paths: *search_paths
      confirm_guid: *confirm_guid
      wipe_disks: *wipe_disks
      force: *force
seealso:
  - module: nasops.encryption.zfs_encryption_info
notes:
  - Destroying a pool or losing all copies of its key has the same effect. Back up key files to another machine.
  - On FreeBSD the commands and parsers are the same, but were not run there by the tests of this collection.
"""

EXAMPLES = r"""
- name: A mirror, encrypted with a new key in /etc/zfs/keys/tank.key
  nasops.encryption.zfs_encrypted_pool:
    name: tank
    vdevs:
      - type: mirror
        disks:
          - /dev/disk/by-id/ata-WDC_WD40EFRX-68N32N0_WD-WCC7K0AAAAAA
          - /dev/disk/by-id/ata-WDC_WD40EFRX-68N32N0_WD-WCC7K0BBBBBB
    key:
      format: hex
      file: auto
      generate: true

- name: A raidz2 with a special mirror, unlocked by a passphrase that is on the controller only
  nasops.encryption.zfs_encrypted_pool:
    name: vault
    ashift: 12
    force: true # the mirror survives the loss of one disk, the raidz2 of two
    vdevs:
      - type: raidz2
        disks: "{{ vault_disks }}"
      - type: mirror
        role: special
        disks: "{{ vault_nvme }}"
    key:
      format: passphrase
      value: "{{ vault_passphrase }}"
      iterations: 1300000
    properties:
      autotrim: true
    filesystem_properties:
      compression: zstd
      atime: false
      recordsize: 1M

- name: Import a pool that was moved here, unlock and mount it
  nasops.encryption.zfs_encrypted_pool:
    name: vault
    key:
      format: passphrase
      value: "{{ vault_passphrase }}"

- name: All pools of the host in one task
  nasops.encryption.zfs_encrypted_pool:
    pools: "{{ nas_pools }}"

- name: Export a pool before its disks are taken out
  nasops.encryption.zfs_encrypted_pool:
    name: vault
    state: exported

- name: Destroy a pool
  nasops.encryption.zfs_encrypted_pool:
    name: scratch
    state: absent
    confirm_guid: "12345678901234567890"
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order and in words.
  returned: success
  type: list
  elements: str
  sample:
    - Write the new random hex key of 'tank' to /etc/zfs/keys/tank.key
    - Create pool 'tank', encrypted with aes-256-gcm
pools:
  description: The described pools as they are now, in check mode as they were found.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pool.
      type: str
      sample: tank
    state:
      description:
        - V(present) if the pool is imported, V(exported) if it is not, and was to be exported or was seen on attached
          disks, else V(absent).
      type: str
      sample: present
    guid:
      description: GUID of the pool in decimal, V(null) if there is no such pool.
      type: str
      sample: "12345678901234567890"
    health:
      description: Health as C(zpool list) shows it, V(null) if the pool is not imported.
      type: str
      sample: ONLINE
    encryption:
      description: Cipher of the root dataset, V(off) for none.
      type: str
      sample: aes-256-gcm
    keyformat:
      description: Format of its key, V(null) if it is not encrypted.
      type: str
      sample: hex
    keylocation:
      description: Where ZFS looks for the key, V(null) if it is not encrypted.
      type: str
      sample: file:///etc/zfs/keys/tank.key
    locked:
      description: Whether the key is not loaded.
      type: bool
      sample: false
    mounted:
      description: Whether the root filesystem is mounted.
      type: bool
      sample: true
    mountpoint:
      description: Mountpoint of the root filesystem, V(null) for none.
      type: str
      sample: /tank
actions_done:
  description: The steps that were done before one failed.
  returned: failure of a step
  type: list
  elements: str
actions_not_started:
  description: The steps after the one that failed.
  returned: failure of a step
  type: list
  elements: str
refused_disks:
  description: Every disk that can't be used, with the reason.
  returned: when disks are refused
  type: list
  elements: str
stderr:
  description: What the failed program wrote to standard error.
  returned: failure of a program
  type: str
"""

import typing as t

from ..module_utils.command import HostRunner
from ..module_utils.entry import Module, fail, protect, run
from ..module_utils.errors import StorageError
from ..module_utils.plan import Outcome
from ..module_utils.secrets import Mask
from ..module_utils.zfs.pool import plan_pools
from ..module_utils.zfs.pool_options import argument_spec, parse_options
from ..module_utils.zfs.pool_read import read_host
from ..module_utils.zfs.pool_result import describe
from ..module_utils.zfs.pool_state import PoolHost


def main() -> None:
    module = Module(argument_spec())
    mask = Mask()
    try:
        wanted = parse_options(module.params)
    except StorageError as error:
        fail(module, error)
    protect(module, mask, (pool.key.value for pool in wanted if pool.key is not None))

    runner = HostRunner(mask)

    def read() -> PoolHost:
        host = read_host(runner, wanted)
        protect(module, mask, (found.key for found in host.key_files.values()))
        return host

    def result(outcome: Outcome[PoolHost]) -> dict[str, t.Any]:
        return {"pools": [describe(pool, outcome.state) for pool in wanted]}

    run(module, runner, read, lambda host: plan_pools(wanted, host), result)


if __name__ == "__main__":
    main()
