#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sed_lock
short_description: Set up, lock, unlock and reset self-encrypting drives
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Takes ownership of self-encrypting drives (TCG Opal 2 and Enterprise), turns locking on, locks and unlocks them,
    changes their password, and resets them.
  - It speaks the protocol of the drives itself through the kernel (NVMe, SATA and SAS), so no password is in an
    argument of a program. A drive that was set up by C(sedutil-cli) opens with the same password, and the other way
    round.
  - Several drives in one task are done at the same time. What is wrong with one of them does not hold up the others.
    They are done, then the task fails and names what went wrong with which drive.
  - Before anything is written, the drive is asked for its serial number again. After the task its state is read
    again, and there must be nothing left to do.
  - A drive counts wrong passwords, and after a few (five on many) takes none until its power was off. So a task
    offers each authority of a drive one password, and check mode offers none. Where a drive tells how many tries are
    left, the last one is not used up. What a drive may have besides is noted in F(/run/nasops.encryption.drives),
    without any password, and offered by the next task. An authority may refuse two in one task in three cases. A task
    was cut off while it changed the password of that authority, and the next one gives other passwords. Or it is a
    BandMaster with a foreign password, while the Enterprise drive, which does not tell its owner, has the factory's
    for all the rest. Or the drive says that it has stored a new password, and takes neither that nor the former one.
  - Two tasks of this collection never talk to one drive at the same time, whatever backend they use.
requirements:
  - root
  - for SATA drives, C(libata.allow_tpm=1) on the kernel's command line
extends_documentation_fragment:
  - nasops.encryption.attributes
attributes:
  check_mode:
    details:
      - The whole plan is made and returned. Unless O(check_password=true), it is for a drive that has the password of
        the task and is as this module leaves it, and a warning says so.
  platform:
    platforms: linux
options:
  state:
    description:
      - V(present) sees to it that the drive belongs to O(password), that locking is turned on, that O(range) locks
        when the power was off, and that no shadow MBR is in the way. It finishes what an interrupted run, or an
        interrupted C(sedutil-cli --initialSetup), left half-done. It does not lock or unlock, and no data is lost.
        Where Admin1 has the password and the owner (SID) has another one, each run warns of that, since a change was
        not finished; SID is asked once for that, until the host restarts. A drive that this host starts from (C(/),
        C(/boot), C(/efi), C(/usr), C(/var), active swap) is refused unless O(confirm_serial) names it, since the host
        would not start after a power cut. A data pool on it is no hindrance.
      - V(unlocked) opens O(range), and puts a shadow MBR away until the power was off. Then the partition table is
        read again, and the links of udev are waited for. If the kernel does not know the partitions then, the task
        fails, and the next run reads them again. An open drive needs no password, and none is tried. If there
        are partitions on it of which the kernel knows none, as after a task that was cut off, the table is read
        again.
      - V(readonly) opens O(range) for reading only.
      - V(locked) locks O(range) now, for reading and writing. A drive in use is refused.
      - V(absent) resets the drive to the factory's settings, B(which erases all its data), if the drive encrypts. One
        that does not (Pyrite) loses its passwords; its data may be there afterwards or not, as its maker has it, and
        a warning says so. It needs O(confirm_serial), and a drive in use is refused. A drive that is at the factory's
        settings already is left as it is, with a warning. B(Nothing is erased then), and what was written to it can
        still be read.
    type: str
    choices: [present, unlocked, readonly, locked, absent]
    default: present
  device:
    description:
      - The drive, as a path such as one in F(/dev/disk/by-id), its serial number, its WWN or its kernel name. Kernel
        names change between boots.
    type: str
  serial:
    description:
      - The drive by its serial number. The same as O(device).
    type: str
  devices:
    description:
      - Several drives, each as in O(device).
    type: list
    elements: str
  password:
    description:
      - The password of the drive, for V(absent) that of its owner (SID).
    type: str
  passwords:
    description:
      - Passwords of single drives, by how the drive is spelled in O(device), O(serial) or O(devices). They count
        before O(password).
      - A mapping, or JSON as text. C(NAME=KEY), which Ansible takes for a mapping elsewhere, is refused.
    type: dict
  new_password:
    description:
      - With O(state=present), the password the drive is to have. On an Opal drive it is set for Admin1 and SID, on an
        Enterprise drive for EraseMaster, the BandMaster of O(range) and SID, in this order, each proven before the
        next is begun.
      - SID is offered O(password). Whether it takes that tells which of the two the others have. A change that was cut
        off is gone on with by the same task on the same host.
      - A drive of the task whose password is this one already is left as it is.
    type: str
  psid:
    description:
      - With O(state=absent), the code on the label of the drive (PSID), which resets it without the password.
    type: str
  hash:
    description:
      - How the password becomes the credential in the drive. All are salted with the drive's serial number.
      - V(sha1) is what C(sedutil-cli) of Debian and TrueNAS up to 25 do. V(sha512) and V(sha512_500k) are those of
        forks of it. V(raw) is the password itself, of 32 bytes at most, as by C(sedutil-cli -n), by TrueNAS from 26
        on and by firmware that asks at boot.
      - With O(backend=sedutil), the program makes the credential itself, in the one way of its version; V(sha1)
        leaves that to it, V(raw) is its option C(-n), and the others are refused.
    type: str
    choices: [sha1, sha512, sha512_500k, raw]
    default: sha1
  range:
    description:
      - Number of the range. V(0) is the global range, which is the whole drive if there is no other.
    type: int
    default: 0
  range_start:
    description:
      - With O(state=present) and a O(range) other than 0, its first block. If the range is elsewhere now, what is in
        the blocks becomes unreadable, so this needs O(confirm_serial).
    type: int
  range_length:
    description:
      - The number of its blocks.
    type: int
  confirm_serial:
    description:
      - The serial numbers (of what has none, the WWN in digits, as the message asks for it) of the drives whose data
        may be lost, for O(state=absent) and for ranges that are placed; and of those this host starts from and that
        are to be locked when the power was off all the same.
    type: list
    elements: str
    default: []
  check_password:
    description:
      - Try the password in check mode too, as it is tried otherwise. A wrong one costs a try each time.
    type: bool
    default: false
  backend:
    description:
      - V(native) speaks to the drives by itself. V(auto) is V(native).
      - V(sedutil) starts C(sedutil-cli) (1.15 or later, or a fork), which gets passwords as arguments. Every user of
        the host can read them there while it runs, and the task warns of that. It can't make an Enterprise drive
        read-only, nor change the password of its owner. To try a password of EraseMaster, or of SID where
        locking is not on, it sets the same one again; with O(check_password) in check mode these are not tried.
    type: str
    choices: [auto, native, sedutil]
    default: auto
seealso:
  - module: nasops.encryption.sed_info
  - module: nasops.encryption.zfs_encrypted_pool
notes:
  - Only the power locks a drive. A restart of the host that does not take the power leaves it open.
  - The password of a drive travels to it as it is. What hides it from other users of the host does not hide it from
    who taps the bus.
  - Like with every module, options are in a file in a private temporary folder of the host while it runs, unless
    pipelining is on.
"""

EXAMPLES = r"""
- name: Own a new drive, and let it lock when its power is off
  nasops.encryption.sed_lock:
    serial: S5GXNX0R412345
    password: "{{ vault_sed }}"

- name: Unlock all drives of a host after a power cut, one with a password of its own
  nasops.encryption.sed_lock:
    devices:
      - S5GXNX0R412345
      - S5GXNX0R412346
      - /dev/disk/by-id/ata-CT500MX500SSD1_1912E1F8A001
    password: "{{ vault_sed }}"
    passwords:
      S5GXNX0R412346: "{{ vault_sed_of_412346 }}"
    state: unlocked

- name: Change the password
  nasops.encryption.sed_lock:
    serial: S5GXNX0R412345
    password: "{{ vault_sed_old }}"
    new_password: "{{ vault_sed }}"

- name: A second range of a gibibyte
  nasops.encryption.sed_lock:
    serial: S5GXNX0R412345
    password: "{{ vault_sed }}"
    range: 1
    range_start: 0
    range_length: 2097152
    confirm_serial: S5GXNX0R412345

- name: Erase a drive that goes back to its maker
  nasops.encryption.sed_lock:
    serial: S5GXNX0R412345
    password: "{{ vault_sed }}"
    state: absent
    confirm_serial: S5GXNX0R412345

- name: Erase a drive whose password is lost
  nasops.encryption.sed_lock:
    serial: S5GXNX0R412345
    psid: "{{ scanned_from_the_label }}"
    state: absent
    confirm_serial: S5GXNX0R412345
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order and in words.
  returned: always, unless the options are wrong
  type: list
  elements: str
  sample:
    - Unlock range 0 of 'S5GXNX0R412345'
    - Read the partition table of 'S5GXNX0R412345' again
drives:
  description: The drives of the task as they are now, in check mode as they were found.
  returned: always, unless the options are wrong
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
      description: What it shows itself as, see RV(nasops.encryption.sed_info#module:drives[].type).
      type: str
      sample: opal2
    encrypts:
      description: Whether its media are encrypted.
      type: bool
      sample: true
    owned:
      description: Whether its owner has another password than the factory's, V(null) if that is not known.
      type: bool
      sample: true
    locking_enabled:
      description: Whether locking is turned on.
      type: bool
      sample: true
    locked:
      description: Whether a range of it can't be read or written now.
      type: bool
      sample: false
    shadow_mbr:
      description: Whether MBR shadowing is on.
      type: bool
      sample: false
    shadow_mbr_done:
      description: Whether the shadow is put away now, V(null) if there is none.
      type: bool
      sample: true
    error:
      description: What went wrong with it, V(null) if nothing did.
      type: str
      sample: null
    proven:
      description:
        - Whether it was seen that O(password) (or O(new_password)) opens the range, also if something else of the
          drive is not as described, which is in RV(drives[].error). V(false) where none had to be offered, too.
      type: bool
      sample: true
    range:
      description: The range of the task, V(null) if it was not read, because that was not needed or no password fits.
      type: dict
      contains:
        number:
          description: Its number.
          type: int
          sample: 0
        start:
          description: Its first block.
          type: int
          sample: 0
        length:
          description: The number of its blocks, 0 for the global range.
          type: int
          sample: 0
        enabled:
          description: Whether it locks when the power was off.
          type: bool
          sample: true
        state:
          description: V(unlocked), V(readonly), V(locked), or V(writeonly) if it can be written and not read.
          type: str
          sample: unlocked
"""

import contextlib
import typing as t

from ..module_utils.command import HostRunner
from ..module_utils.entry import Module, fail, protect, run
from ..module_utils.errors import StorageError
from ..module_utils.lock import exclusive
from ..module_utils.plan import Outcome
from ..module_utils.secrets import Key, Mask
from ..module_utils.sed.link import require_linux
from ..module_utils.sed.native import Native
from ..module_utils.sed.options import argument_spec, parse_wishes, secrets
from ..module_utils.sed.read import Survey
from ..module_utils.sed.result import describe
from ..module_utils.sed.sedutil import Sedutil
from ..module_utils.sed.state import Backend
from ..module_utils.sed.task import Task


def main() -> None:
    module = Module(argument_spec())
    mask = Mask()
    try:
        require_linux()
        wishes = parse_wishes(module.params)
        protect(module, mask, (Key("passphrase", text.encode("utf-8")) for text in secrets(module.params)))
    except StorageError as error:
        fail(module, error)
    runner = HostRunner(mask)
    trying = not module.check_mode or module.params["check_password"]
    task = Task(runner, _hand(module, mask), wishes, module.check_mode, trying)

    def result(done: Outcome[Survey]) -> dict[str, t.Any]:
        errors = {one.branch: str(one) for one in done.plan.failures}
        return {"drives": [describe(row, errors) for row in done.state.rows]}

    try:
        # What tries passwords takes its turn, as what changes something does by itself.
        with exclusive() if module.check_mode and trying else contextlib.nullcontext():
            run(module, runner, task.read, task.plan, result, task.read_again)
    except StorageError as error:
        fail(module, error)


def _hand(module: Module, mask: Mask) -> Backend:
    """What the task works with."""
    kind = module.params["hash"]
    if module.params["backend"] != "sedutil":
        return Native(kind)
    module.warn(
        "sedutil-cli gets passwords as arguments: every user of this host can read them while it runs, and what "
        "records programs keeps them. With backend: native they are seen nowhere."
    )
    # The other runner refuses to start a program with a secret among its arguments.
    return Sedutil(HostRunner(Mask()), mask, kind == "raw", writes=not module.check_mode, warn=module.warn)


if __name__ == "__main__":
    main()
