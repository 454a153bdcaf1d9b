#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: geli_device
short_description: Attach disks that FreeBSD's GELI encrypted, on FreeBSD and on Linux
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Makes decrypted block devices of disks that GELI encrypted, such as the members of a pool of FreeNAS or TrueNAS
    CORE, and takes them away again. All members of a pool are attached in one task.
  - Each key is tried before anything is attached. If one of the disks does not open, none is attached.
  - On FreeBSD it is C(geli) that attaches. On Linux it is either device-mapper, with a stack of its own targets that
    decrypts just what GELI encrypted, or a server of a network block device that runs on the host itself.
  - Devices are read-only, so that the disks stay byte by byte what they were.
requirements:
  - root
  - OpenSSL's libcrypto or the Python package cryptography
  - "Linux: C(dmsetup) and the kernel modules dm_crypt and dm_unstripe, or the kernel module nbd"
extends_documentation_fragment:
  - nasops.encryption.attributes
options:
  state:
    description:
      - V(attached) makes the decrypted devices, V(detached) takes them away. A device that is in use is not detached.
        Export the pool first.
    type: str
    choices: [attached, detached]
    default: attached
  devices:
    description:
      - Partitions, disks or image files, by any of their names. F(/dev/gptid/UUID) of FreeBSD may be written on Linux,
        too.
    type: list
    elements: path
    required: true
  keyfile:
    description:
      - Absolute path of a key file on the host, or several in the order of the arguments of C(geli attach). A recovery
        key is a key file, too.
    type: list
    elements: path
  keyfile_content:
    description:
      - The content of a key file, in base64, in place of O(keyfile).
      - No file is made of it. C(geli) reads only one secret from its standard input. So together with a passphrase it
        gets the key file through a named pipe, which only root can read and which is in no place on a disk.
    type: str
  passphrase:
    description:
      - The passphrase. It is only used if the key file does not open the disk by itself.
    type: str
  config_backup:
    description:
      - Absolute path on the host of a backup of the configuration of FreeNAS or TrueNAS CORE, or of the folder F(/data)
        of the NAS, as in M(nasops.encryption.geli_info). The key of each disk is looked for in it.
    type: path
  read_only:
    description:
      - Whether the decrypted device can only be read. V(false) is for FreeBSD alone.
    type: bool
    default: true
  backend:
    description:
      - How to attach. V(auto) is V(geli) on FreeBSD. On Linux it is V(device_mapper) where that can be done, and V(nbd)
        otherwise.
      - V(device_mapper) is the faster one, and needs no process. It is for AES-XTS only, and takes 1.5 MiB of memory
        for each 4 GiB of a disk with sectors of 4096 bytes, or each 512 MiB with sectors of 512 bytes. At most 40 % of
        the memory that is available may be taken.
      - V(nbd) reads all ciphers, and images that are files. Its server is a process that goes on after the task, until
        the device is detached.
    type: str
    choices: [auto, geli, device_mapper, nbd]
    default: auto
seealso:
  - module: nasops.encryption.geli_info
notes:
  - Import the pool with C(zpool import -d PATH -o readonly=on), with a C(-d PATH) for each entry of RV(import_from).
  - Never start a scrub of a pool that is imported read-only. It waits for ever, and only a restart helps.
  - A passphrase takes as long as FreeBSD made it take, for each disk. That is about two seconds.
  - Like with every module, options are in a file in a private temporary folder of the host while it runs, unless
    pipelining is on. Set C(ansible_pipelining=true) for hosts whose passphrases and keys you give.
  - On FreeBSD this module was tested against recorded output only.
"""

EXAMPLES = r"""
- name: Attach the disks of a pool
  nasops.encryption.geli_device:
    devices:
      - /dev/disk/by-partuuid/5c3b0d8e-24f0-11e3-a1b2-d43d7e000001
      - /dev/disk/by-partuuid/5c3b0d8e-24f0-11e3-a1b2-d43d7e000002
    keyfile: /root/pool_tank_encryption.key
    passphrase: "{{ vault_tank_passphrase }}"
  become: true
  register: geli

- name: Import it, read-only
  ansible.builtin.command:
    argv: >-
      {{ ['zpool', 'import'] + (['-d'] | product(geli.import_from) | flatten)
         + ['-o', 'readonly=on', '-N', '-R', '/mnt/old', 'tank'] }}
  become: true
  changed_when: true

- name: Find the members of the pool first
  nasops.encryption.geli_info:
    config_backup: /root/nas-TrueNAS-13.0-U6.tar
  become: true
  register: found

- name: Attach them with the keys of the backup
  nasops.encryption.geli_device:
    devices: "{{ found.providers | selectattr('pool', 'eq', 'tank') | map(attribute='device') }}"
    config_backup: /root/nas-TrueNAS-13.0-U6.tar
  become: true

- name: Detach them when the pool was exported
  nasops.encryption.geli_device:
    state: detached
    devices: "{{ found.providers | selectattr('pool', 'eq', 'tank') | map(attribute='device') }}"
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample:
    - Attach /dev/sdb2 read-only as /dev/mapper/eli-5c3b0d8e-24f0-11e3-a1b2-d43d7e000001 by device_mapper
devices:
  description: The devices that were asked for, in their order, each once.
  returned: success
  type: list
  elements: dict
  contains:
    device:
      description: The encrypted device, by the kernel's path.
      type: str
      sample: /dev/sdb2
    attached_as:
      description: The decrypted device, V(null) if it is not attached.
      type: str
      sample: /dev/mapper/eli-5c3b0d8e-24f0-11e3-a1b2-d43d7e000001
    backend:
      description: How it is attached, V(null) if it is not.
      type: str
      sample: device_mapper
    read_only:
      description: Whether the decrypted device can only be read, V(null) if it is not attached.
      type: bool
      sample: true
    decrypted_size:
      description: Bytes of the decrypted device. V(null) if there is no GELI metadata.
      type: int
      sample: 3998639456256
    sector_size:
      description: Bytes of a sector of it. V(null) if there is no GELI metadata.
      type: int
      sample: 4096
import_from:
  description:
    - What C(zpool import) is to look at to find the decrypted devices, each with a C(-d) of its own. On Linux this is
      the folder with links to all of them and to nothing else. On FreeBSD these are the devices themselves, since
      C(zpool import -d) does not look into the folders of a folder, and they may be in F(/dev/gptid) and in F(/dev).
    - In check mode it has the names that the devices would have.
  returned: success
  type: list
  elements: str
  sample:
    - /run/nasops-geli
directory:
  description: The one folder that holds all decrypted devices, V(null) if there is none. See RV(import_from).
  returned: success
  type: str
  sample: /run/nasops-geli
"""

import typing as t

from ..module_utils.blockdev.host import this_host
from ..module_utils.command import HostRunner
from ..module_utils.entry import Module, fail, protect, run
from ..module_utils.errors import BadInput, StorageError
from ..module_utils.geli.config_backup import ConfigBackup, load
from ..module_utils.geli.device import Worker, directory, import_from, read
from ..module_utils.geli.device_plan import BACKENDS, Desired, Member, State, decide
from ..module_utils.geli.provider import require_root
from ..module_utils.geli.trial import parse_offer
from ..module_utils.plan import Outcome
from ..module_utils.secrets import Mask


def main() -> None:
    module = Module(
        {
            "state": {"type": "str", "choices": ["attached", "detached"], "default": "attached"},
            "devices": {"type": "list", "elements": "path", "required": True},
            "keyfile": {"type": "list", "elements": "path", "no_log": False},
            "keyfile_content": {"type": "str", "no_log": True},
            "passphrase": {"type": "str", "no_log": True},
            "config_backup": {"type": "path"},
            "read_only": {"type": "bool", "default": True},
            "backend": {"type": "str", "choices": ["auto", *BACKENDS], "default": "auto"},
        }
    )
    params: t.Mapping[str, t.Any] = module.params
    mask = Mask()
    runner, host = HostRunner(mask), this_host()
    try:
        require_root()
        if not params["devices"]:
            raise BadInput("devices is empty; wanted is at least one disk, partition or image.")
        path = params["config_backup"]
        backup = ConfigBackup() if path is None else load(path, runner)
        offer = parse_offer(params["keyfile"] or (), params["keyfile_content"], params["passphrase"], backup)
    except StorageError as error:
        fail(module, error)
    protect(module, mask, offer.secrets())
    desired = Desired(params["state"] == "attached", params["read_only"], params["backend"])
    run(
        module,
        runner,
        lambda: read(runner, host, host.read_table(runner), params["devices"], offer, desired.attached),
        lambda state: decide(desired, state, Worker()),
        describe,
    )


def describe(outcome: Outcome[State]) -> dict[str, t.Any]:
    """The result."""
    paths = import_from(outcome.state.members)
    return {
        "devices": [row(member) for member in outcome.state.members],
        "import_from": paths,
        "directory": directory(paths),
    }


def row(member: Member) -> dict[str, t.Any]:
    """One device."""
    attachment, located = member.attachment, member.provider.located
    return {
        "device": member.provider.path,
        "attached_as": attachment.path if attachment else None,
        "backend": attachment.backend if attachment else None,
        "read_only": attachment.read_only if attachment else None,
        "decrypted_size": located.size or None if located else None,
        "sector_size": located.metadata.sector_size if located else None,
    }


if __name__ == "__main__":
    main()
