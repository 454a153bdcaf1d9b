#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: geli_info
short_description: Show disks that FreeBSD's GELI encrypted, and which keys open them, on Linux too
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Returns one row for each disk, partition or image with GELI metadata, such as those of pools that FreeNAS and
    TrueNAS CORE encrypted up to version 11.3.
  - With O(keyfile), O(keyfile_content), O(passphrase) or O(config_backup) it also tells which of these keys opens which
    disk, and which pool is inside. This is done by reading the disk. Nothing is attached or written, and no C(geli) is
    needed.
  - Without keys, 8 KiB of each device are read, and no program is started on Linux.
requirements:
  - root
  - OpenSSL's libcrypto or the Python package cryptography, if keys are tried
  - Python 3.11 or later, or a filesystem in memory such as F(/dev/shm), to read a tar file as O(config_backup)
extends_documentation_fragment:
  - nasops.encryption.attributes.info
options:
  devices:
    description:
      - Disks, partitions or image files, by any of their names. When not given, all devices are looked at.
      - On FreeNAS it is the second partition of a disk that is encrypted. F(/dev/gptid/UUID) of FreeBSD may be written
        on Linux, too.
    type: list
    elements: path
  keyfile:
    description:
      - Absolute path of a key file on the host, or several in the order of the arguments of C(geli attach). A recovery
        key is a key file, too.
      - It is tried by itself, and together with O(passphrase).
    type: list
    elements: path
  keyfile_content:
    description:
      - The content of a key file, in base64, in place of O(keyfile).
    type: str
  passphrase:
    description:
      - A passphrase to try, together with the key files and by itself.
    type: str
  config_backup:
    description:
      - Absolute path on the host of a backup of the configuration of FreeNAS or TrueNAS CORE. That is the tar file that
        was saved with the pool encryption keys, the database F(freenas-v1.db) alone, or a folder with this database and
        the folder F(geli), such as F(/data) on the NAS itself.
      - The database has secrets of the NAS in it. One in a tar file is unpacked in memory only, and none is changed.
        Where an older Python finds no memory for it, give the folder.
      - All keys in it are tried, first the one that belongs to the disk.
    type: path
seealso:
  - module: nasops.encryption.zfs_encryption_info
notes:
  - GELI can't tell a wrong key file from a wrong passphrase, and no program can.
  - A passphrase takes as long as FreeBSD made it take, for each disk. That is about two seconds.
  - Like with every module, options are in a file in a private temporary folder of the host while it runs, unless
    pipelining is on. Set C(ansible_pipelining=true) for hosts whose passphrases and keys you give.
"""

EXAMPLES = r"""
- name: Which disks carry GELI
  nasops.encryption.geli_info:
  register: geli

- name: Does the key file open the disks of this pool
  nasops.encryption.geli_info:
    keyfile: /root/pool_tank_encryption.key
    passphrase: "{{ vault_tank_passphrase }}"
  register: geli
  failed_when: geli.providers | rejectattr('opens', 'true') | length > 0

- name: Find the key of each disk in a backup of the configuration
  nasops.encryption.geli_info:
    config_backup: /root/nas-TrueNAS-13.0-U6.tar
    passphrase: "{{ vault_tank_passphrase | default(omit) }}"
  register: geli

- name: Tell which pool is on which disk, and what opens it
  ansible.builtin.debug:
    msg: "{{ item.device }}: {{ item.pool }}, {{ item.key_origin if item.opens else item.key_error }}"
  loop: "{{ geli.providers }}"
  loop_control:
    label: "{{ item.serial }}"

- name: Try the recovery key on one disk
  nasops.encryption.geli_info:
    devices:
      - /dev/disk/by-partuuid/5c3b0d8e-24f0-11e3-a1b2-d43d7e000001
    keyfile_content: "{{ lookup('ansible.builtin.file', 'geli_recovery.key', rstrip=false) | b64encode }}"
"""

RETURN = r"""
providers:
  description: What carries GELI, ordered by path. Those that were asked for in O(devices) are here in any case.
  returned: success
  type: list
  elements: dict
  contains:
    device:
      description: The kernel's path, or that of the file.
      type: str
      sample: /dev/sdb2
    names:
      description: The persistent names of it, best first.
      type: list
      elements: str
      sample: [/dev/disk/by-partuuid/5c3b0d8e-24f0-11e3-a1b2-d43d7e000001]
    partuuid:
      description: UUID of the partition, by which FreeNAS knows the disk (C(gptid)). V(null) for none.
      type: str
      sample: 5c3b0d8e-24f0-11e3-a1b2-d43d7e000001
    disk:
      description: The whole disk. V(null) for a file.
      type: str
      sample: /dev/sdb
    serial:
      description: Serial number of the disk. V(null) if it has none.
      type: str
      sample: WD-WCC4N0000001
    size:
      description: Size in bytes.
      type: int
      sample: 3998639460352
    state:
      description:
        - V(geli). V(damaged) if there is metadata that can't be used. V(none) without metadata, V(unreadable) for a
          device that can't be read. The latter is told of all devices, in case it is a missing member.
      type: str
      sample: geli
    problem:
      description: What is wrong, such as a partition that was resized. V(null) for nothing.
      type: str
      sample: null
    in_use_by:
      description: Names of the devices that are built upon it, such as an attached GELI device.
      type: list
      elements: str
      sample: []
    version:
      description: Version of the metadata, 0 to 7. It and what follows to RV(providers[].slots) are V(null) without it.
      type: int
      sample: 7
    algorithm:
      description: Cipher of the sectors.
      type: str
      sample: AES-XTS
    key_bits:
      description: Length of the key. An AES-XTS key has two halves of that length.
      type: int
      sample: 256
    authentication:
      description: Algorithm that authenticates sectors. V(null) for none, as on all disks of FreeNAS.
      type: str
      sample: null
    sector_size:
      description: Bytes of a sector of the decrypted device.
      type: int
      sample: 4096
    provider_sector:
      description: Bytes of a sector of the encrypted device.
      type: int
      sample: 512
    decrypted_size:
      description: Bytes of the decrypted device. V(null) with RV(providers[].authentication).
      type: int
      sample: 3998639456256
    flags:
      description: Flags in words.
      type: list
      elements: str
      sample: [boot]
    iterations:
      description:
        - PBKDF2 iterations of a passphrase. V(null) if there never was one. It is one number for both slots, and stays
          when the passphrase is removed, so it does not tell that a passphrase is needed.
      type: int
      sample: 1265812
    slots:
      description: Key slots in use. On FreeNAS 0 is that of the key, and 1 that of the recovery key.
      type: list
      elements: int
      sample: [0, 1]
    opens:
      description: Whether one of the keys opens it. V(null) if none was tried, or if it could not be found out.
      type: bool
      sample: true
    slot:
      description: The slot that was opened. V(null) for none.
      type: int
      sample: 0
    with_passphrase:
      description: Whether the passphrase was needed. V(null) if nothing was opened.
      type: bool
      sample: true
    key_origin:
      description: Where the key that opens it comes from, or the first that was tried. V(null) for none.
      type: str
      sample: 0d1c4a2e-9f0b-4f6f-8f1e-2a3b4c5d6e7f.key in the backup
    key_error:
      description: Why it was not opened. V(null) if it was, and if no key was tried.
      type: str
      sample: >-
        The key file does not open it alone. A passphrase was set once on this disk: give it too, or the recovery key as
        key file.
    content:
      description: What is inside, in words. V(null) if it was not opened, or if there is no ZFS label.
      type: str
      sample: ZFS label of exported pool "tank"
    content_error:
      description: Why the inside could not be read, although a key fits. V(null) if it could.
      type: str
      sample: null
    pool:
      description:
        - Pool that it belongs to, read from the decrypted disk. If it was not opened, the one that O(config_backup)
          has for it. V(null) if neither is known.
      type: str
      sample: tank
    pool_guid:
      description: GUID of that pool.
      type: str
      sample: "9512867134298873421"
missing:
  description: The disks in O(config_backup) of which no GELI metadata was found.
  returned: success
  type: list
  elements: dict
  contains:
    provider:
      description: Name of the disk on FreeBSD.
      type: str
      sample: gptid/5c3b0d8e-24f0-11e3-a1b2-d43d7e000002
    pool:
      description: Name of its pool.
      type: str
      sample: tank
    passphrase:
      description: Whether the pool had a passphrase.
      type: bool
      sample: true
    device:
      description:
        - The partition with the UUID of this disk, if it is there, but without metadata. It may have been made larger
          or smaller, or written anew. V(null) if there is none.
      type: str
      sample: /dev/sdc2
"""

import typing as t

from ..module_utils.blockdev.host import read_table
from ..module_utils.command import HostRunner
from ..module_utils.entry import Module, fail, protect
from ..module_utils.errors import StorageError
from ..module_utils.geli.cipher import find_engine
from ..module_utils.geli.config_backup import ConfigBackup, load
from ..module_utils.geli.provider import Provider, find, find_all, require_root
from ..module_utils.geli.report import missing, row
from ..module_utils.geli.trial import Verdict, parse_offer, try_offer
from ..module_utils.parallel import side_by_side
from ..module_utils.secrets import Mask


def main() -> None:
    module = Module(
        {
            "devices": {"type": "list", "elements": "path"},
            "keyfile": {"type": "list", "elements": "path", "no_log": False},
            "keyfile_content": {"type": "str", "no_log": True},
            "passphrase": {"type": "str", "no_log": True},
            "config_backup": {"type": "path"},
        }
    )
    try:
        require_root()
        result = look(module, module.params)
    except StorageError as error:
        fail(module, error)
    module.exit_json(changed=False, **result)


def look(module: Module, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The result of the module.

    :raises StorageError: bad options, or the devices of the host can't be read
    """
    mask = Mask()
    runner = HostRunner(mask)
    path = params["config_backup"]
    backup = ConfigBackup() if path is None else load(path, runner)
    offer = parse_offer(params["keyfile"] or (), params["keyfile_content"], params["passphrase"], backup)
    protect(module, mask, offer.secrets())
    table = read_table(runner)
    asked = params["devices"]
    looked_at = find_all(table) if asked is None else unique(find(table, one) for one in asked)
    # Where all were looked at, it is told of those that carry GELI, or may do so since they can't be read.
    providers = [one for one in looked_at if one.state != "none"] if asked is None else looked_at
    verdicts: list[Verdict | None] = [None] * len(providers)
    if offer and any(one.located for one in providers):
        engine = find_engine()
        verdicts = list(side_by_side(lambda one: try_offer(one, offer, engine), providers))
    pairs = sorted(zip(providers, verdicts), key=lambda pair: pair[0].path)
    return {
        "providers": [row(provider, verdict, backup) for provider, verdict in pairs],
        "missing": missing(backup, looked_at),
    }


def unique(providers: t.Iterable[Provider]) -> t.Sequence[Provider]:
    """Each once, although it was asked for by several of its names."""
    return list({one.path: one for one in providers}.values())


if __name__ == "__main__":
    main()
