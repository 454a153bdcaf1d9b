#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sed_boot
short_description: Let a host unlock its self-encrypting drives when it starts
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Installs a unit of systemd that unlocks drives before ZFS imports its pools, the program that it starts, and a file
    with the passwords, F(/etc/zfs/nasops-drives.json), which only root can read.
  - B(Whoever takes the host as a whole then has the passwords, too). That protects drives that are sent away or stolen
    alone. For more, leave this out, and unlock by the role P(nasops.encryption.unlock#role).
  - The program is F(/etc/zfs/nasops-unlock-drives.pyz), one file that needs Python's own library alone. Each run of the
    module makes it the one of this version of the collection.
  - No drive is touched, and no password tried.
requirements:
  - root
  - systemd, and the units of OpenZFS
extends_documentation_fragment:
  - nasops.encryption.attributes
attributes:
  platform:
    platforms: linux
options:
  state:
    description:
      - V(present) installs all of it, V(absent) removes it, the passwords too.
    type: str
    choices: [present, absent]
    default: present
  devices:
    description:
      - The drives, each as in O(nasops.encryption.sed_lock#module:device). Needed for V(present). Kernel names change
        between boots, so they are not for this.
    type: list
    elements: str
  password:
    description:
      - The password of all drives that have none in O(passwords).
    type: str
  passwords:
    description:
      - Passwords of single drives, by how the drive is spelled in O(devices).
    type: dict
  unproven:
    description:
      - Those of O(devices) of which it is not known that they take their password, such as after a task that a drive
        refused, or of a drive that is not there. For them, the file keeps what it has under the same spelling; of a
        drive of which it has nothing, nothing is written. So a password that was mistyped does not take the place of
        a good one, and holds up no other drive.
      - The common password of the file is O(password) only if one of the other drives has it. Where drives differ,
        each gets its own.
      - If the file is for another O(hash) and has to keep something, nothing is changed, and the module warns of that.
    type: list
    elements: str
    default: []
  hash:
    description:
      - How a password becomes the credential in a drive, see O(nasops.encryption.sed_lock#module:hash).
    type: str
    choices: [sha1, sha512, sha512_500k, raw]
    default: sha1
seealso:
  - module: nasops.encryption.sed_lock
notes:
  - The drives that the host itself starts from can't be unlocked by this, since it is on them.
"""

EXAMPLES = r"""
- name: Unlock the drives of the pool at boot
  nasops.encryption.sed_boot:
    devices: [S5GXNX0R412345, S5GXNX0R412346]
    password: "{{ vault_sed }}"

- name: Never again
  nasops.encryption.sed_boot:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order and in words.
  returned: always, unless the options are wrong
  type: list
  elements: str
  sample:
    - Write /etc/zfs/nasops-drives.json
"""

import os
import typing as t
from dataclasses import replace

from ..module_utils.command import Command, HostRunner, Runner
from ..module_utils.entry import Module, fail, protect, run
from ..module_utils.errors import BadInput, StorageError
from ..module_utils.plan import Plan, Step
from ..module_utils.secrets import Key, Mask
from ..module_utils.sed import options
from ..module_utils.sed.boot_files import UNITS, File, decide, read, unwanted, wanted
from ..module_utils.sed.boot_proven import settle
from ..module_utils.sed.link import require_linux


def main() -> None:
    lock = options.argument_spec()
    arguments = {name: lock[name] for name in ("devices", "password", "passwords", "hash")}
    state = {"type": "str", "default": "present", "choices": ["present", "absent"]}
    unproven = {"type": "list", "elements": "str", "default": [], "no_log": False}
    module = Module({"state": state, "unproven": unproven, **arguments})
    mask = Mask()
    present = module.params["state"] == "present"
    try:
        require_linux()
        files = _files(module.params) if present else unwanted()
        protect(module, mask, (Key("passphrase", text.encode("utf-8")) for text in options.secrets(module.params)))
    except StorageError as error:
        fail(module, error)

    def look() -> dict[str, File | None]:
        return read(file.path for file in files)

    def plan(found: dict[str, File | None]) -> Plan:
        settled, warnings = settle(files, found, module.params["unproven"]) if present else (files, ())
        reload = Step("Let systemd read its units again", _reload)
        return replace(decide(settled, present, found, reload), warnings=warnings)

    run(module, HostRunner(mask), look, plan, lambda _done: {})


def _files(params: t.Mapping[str, t.Any]) -> tuple[File, ...]:
    """What is to be there.

    :raises BadInput: the options are none of a task that unlocks, or the host starts without systemd
    """
    if not params["devices"]:
        raise BadInput("No drive is named.", hint="Name them in devices, or say state: absent.")
    strange = sorted(set(params["unproven"]) - set(params["devices"]))
    if strange:
        raise BadInput(f"unproven has drives that devices has not: {', '.join(strange)}.")
    # What the program would refuse at boot is refused now.
    defaults = {name: one.get("default") for name, one in options.argument_spec().items()}
    options.parse_wishes({**defaults, **params, "state": "unlocked"})
    if not os.path.isdir(UNITS):
        raise BadInput(
            f"There is no {UNITS} on this host, so nothing starts the program at boot.",
            hint="Unlock the drives of this host by the playbook unlock.",
        )
    return wanted(params)


def _reload(runner: Runner) -> None:
    # Where systemd does not run, as in a container that is being built, it reads them when it starts.
    if os.path.isdir("/run/systemd/system"):
        runner.run(Command(("systemctl", "daemon-reload")))


if __name__ == "__main__":
    main()
