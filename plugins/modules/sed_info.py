#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sed_info
short_description: Show the self-encrypting drives of a host, and which of them are locked
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Returns one row for each drive of the host, with what it tells about itself without a password. That is what sort of
    self-encrypting drive it is, whether locking is turned on, and whether it is locked now.
  - Nothing is written, no password is tried, and no program is started.
  - What a drive does not answer is told in its row, and does not hold up the others.
requirements:
  - root
extends_documentation_fragment:
  - nasops.encryption.attributes.info
attributes:
  platform:
    platforms: linux
options:
  devices:
    description:
      - Show only these drives. Each is named by its serial number, a path such as one in F(/dev/disk/by-id), its WWN or
        its kernel name.
    type: list
    elements: str
seealso:
  - module: nasops.encryption.sed_lock
"""

EXAMPLES = r"""
- name: What drives are there
  nasops.encryption.sed_info:
  register: drives

- name: Which of them are locked
  ansible.builtin.debug:
    msg: "{{ drives.drives | selectattr('locked', 'true') | map(attribute='serial') }}"

- name: Fail if a drive of this host does not encrypt
  ansible.builtin.assert:
    that: drives.drives | rejectattr('encrypts', 'true') | length == 0

- name: One drive
  nasops.encryption.sed_info:
    devices: [S5GXNX0R412345]
"""

RETURN = r"""
drives:
  description: The drives, ordered by name.
  returned: success
  type: list
  elements: dict
  contains:
    serial:
      description: Serial number, V(null) if it has none.
      type: str
      sample: S5GXNX0R412345
    device:
      description: Path of its device.
      type: str
      sample: /dev/nvme0n1
    model:
      description: Its model, V(null) if it does not answer.
      type: str
      sample: Samsung SSD 980 PRO 1TB
    firmware:
      description: Revision of its firmware.
      type: str
      sample: 5B2QGXA7
    bus:
      description: V(nvme), V(sata) or V(sas).
      type: str
      sample: nvme
    wwn:
      description: World Wide Name as the kernel writes it, V(null) for none.
      type: str
      sample: eui.002538b411a0b1c2
    size:
      description: Size in bytes.
      type: int
      sample: 1000204886016
    type:
      description:
        - What it shows itself as, V(opal1), V(opal2), V(enterprise), V(ruby), V(opalite), V(pyrite1) or V(pyrite2).
        - V(null) for none of them. Then all below is V(null), too.
      type: str
      sample: opal2
    encrypts:
      description: Whether its media are encrypted, which they are not on V(pyrite1) and V(pyrite2).
      type: bool
      sample: true
    owned:
      description: Whether its owner has another password than the factory's. V(null) if it does not tell, as most.
      type: bool
      sample: true
    locking_enabled:
      description: Whether locking is turned on. An Enterprise drive always tells so.
      type: bool
      sample: true
    locked:
      description: Whether a range of it can't be read or written now.
      type: bool
      sample: false
    shadow_mbr:
      description: Whether MBR shadowing is on, by which a host sees another content until the drive was unlocked.
      type: bool
      sample: false
    shadow_mbr_done:
      description: Whether the shadow is put away now, V(null) if there is none.
      type: bool
      sample: true
    uses:
      description: What uses the drive now, in words.
      type: list
      elements: str
      sample: ['member of the imported pool "tank" on /dev/nvme0n1p1']
    pool:
      description: The imported ZFS pool it belongs to, V(null) for none, or if that could not be read.
      type: str
      sample: tank
    error:
      description: Why it could not be asked, or what keeps it from answering. V(null) for nothing.
      type: str
      sample: /dev/sdb does not answer any more, No such device.
allow_tpm:
  description:
    - Whether libata lets security commands through to SATA drives (C(libata.allow_tpm=1) on the kernel's command line).
      Without that, such drives look as if they did not encrypt.
    - V(null) if libata is not there.
  returned: success
  type: bool
  sample: true
"""

import typing as t

from ..module_utils.blockdev.host import read_table
from ..module_utils.command import HostRunner
from ..module_utils.entry import Module, fail
from ..module_utils.errors import StorageError
from ..module_utils.secrets import Mask
from ..module_utils.sed.info import rows
from ..module_utils.sed.link import libata_passes, require_linux


def main() -> None:
    module = Module({"devices": {"type": "list", "elements": "str"}})
    try:
        require_linux()
        result = look(module.params["devices"])
    except StorageError as error:
        fail(module, error)
    module.exit_json(changed=False, **result)


def look(devices: t.Sequence[str] | None) -> dict[str, t.Any]:
    """The result of the module.

    :raises StorageError: a drive that is named is not there
    """
    runner = HostRunner(Mask())
    return {"drives": rows(runner, read_table(runner), devices), "allow_tpm": libata_passes()}


if __name__ == "__main__":
    main()
