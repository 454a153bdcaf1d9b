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
  - With O(kmip), the host fetches the passwords from a KMIP server each time it starts with locked drives, and has none
    of them itself. Whoever takes the host has what it takes to fetch them, as long as they can reach the server and
    nobody has revoked the certificate or the objects.
  - The program is F(/etc/zfs/nasops-unlock-drives.pyz), one file that needs Python's own library alone. Each run of the
    module makes it the one of this version of the collection.
  - No drive is touched, and no password tried.
  - At boot, a password that a drive did not take is not offered to it again until the host restarts or somebody opens
    the drive, wherever it comes from.
requirements:
  - root
  - systemd, and the units of OpenZFS
  - for O(kmip), a network that is set up before local file systems are mounted, such as by systemd-networkd; nothing
    is installed where it is not
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
      - A mapping, or JSON as text. C(NAME=KEY), which Ansible takes for a mapping elsewhere, is refused.
    type: dict
  kmip:
    description:
      - The KMIP server that has passwords of drives, and who asks. Those of other drives may be in O(passwords) or
        O(password) all the same.
      - The paths are those of the host. The private key has to be readable for root only, and not encrypted. None of
        the files may lie in a pool of ZFS, but for a root file system that is one.
      - These drives have a unit of their own, C(nasops-unlock-drives-kmip.service), which comes after the network; the
        others do not wait for it. If all are open, it ends at once. If the server does not answer within O(kmip.wait),
        or has no such object, the drives stay locked, and none of them was offered a password.
    type: dict
    suboptions:
      server:
        description:
          - Host name or IP address of the KMIP server.
        type: str
        required: true
      port:
        description:
          - Its port.
        type: int
        default: 5696
      certificate:
        description:
          - Path of the certificate of the client in PEM, with those of intermediate authorities behind it. By it the
            server knows who asks, so the objects have to be ones that this client may see.
        type: path
        required: true
      private_key:
        description:
          - Path of the private key of that certificate in PEM. When not given, it is in the same file.
        type: path
      ca_certificate:
        description:
          - Path of the certificates in PEM of the authorities that may have issued that of the server.
          - When not given, those that the system trusts.
        type: path
      verify_hostname:
        description:
          - Whether the certificate of the server has to be one for the name or address in O(kmip.server).
        type: bool
        default: true
      tls_version:
        description:
          - The oldest version of TLS that is accepted. PyKMIP's own server speaks nothing newer than V(1.2).
        type: str
        choices: ["1.2", "1.3"]
        default: "1.2"
      timeout:
        description:
          - Seconds to wait for the connection, for the TLS handshake and for each answer, from 1 to 600.
        type: int
        default: 30
      by:
        description:
          - Whether O(kmip.object) and O(kmip.objects) are names of keys, as M(nasops.encryption.kmip_key) stores them,
            or the unique identifiers that the server gave.
        type: str
        choices: [name, uid]
        default: name
      object:
        description:
          - What holds the password of all drives that have none of their own. It does not go with O(password).
        type: str
      objects:
        description:
          - What holds the passwords of single drives, by how the drive is spelled in O(devices).
        type: dict
      wait:
        description:
          - Seconds in which a server that does not answer is asked again, from 0 to 600. The network of a host that
            starts may come up late. ZFS imports no pool meanwhile. After these and twice O(kmip.timeout) all of it is
            over, whatever the server does.
        type: int
        default: 120
      validate:
        description:
          - See that the server hands out all of these objects to the host now, also in check mode, and install nothing
            if it does not. With V(false), the server need not be there. The files of the connection and the order of
            the units are looked at in any case.
        type: bool
        default: true
  unproven:
    description:
      - Those of O(devices) of which it is not known that they take their password, such as after a task that a drive
        refused, or of a drive that is not there. For them, the file keeps what it has under the same spelling, a
        password or an object of O(kmip). So a password that was mistyped does not take the place of a good one, and
        holds up no other drive.
      - Of a drive of which the file has nothing, no password is written. Its object of O(kmip) is, since that is no
        secret, and may hold the right password where the task had a wrong one. If not, it costs the drive one try in
        each boot.
      - A drive that is to change from a password to an object keeps its password in the file until it is not named
        here any more.
      - An object is kept if O(kmip.server), O(kmip.port) and O(kmip.by) are what they were; the other suboptions are
        always those of the task. Otherwise the drive gets its object of the task, and if it has none there, nothing is
        changed, and the module warns of that. Without O(kmip), the file keeps the former server for it.
      - The common password of the file is O(password) only if one of the other drives has it. Where drives differ,
        each gets its own.
      - If the file is for another O(hash) and has to keep something, nothing is changed, and the module warns of that.
      - None of that is asked of a server; O(kmip.validate) is about the objects of the task.
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
  - module: nasops.encryption.kmip_key
notes:
  - The drives that the host itself starts from can't be unlocked by this, since it is on them.
"""

EXAMPLES = r"""
- name: Unlock the drives of the pool at boot
  nasops.encryption.sed_boot:
    devices: [S5GXNX0R412345, S5GXNX0R412346]
    password: "{{ vault_sed }}"

- name: Fetch them from a KMIP server instead, one for each drive
  nasops.encryption.sed_boot:
    devices: [S5GXNX0R412345, S5GXNX0R412346]
    kmip:
      server: kmip.example.org
      certificate: /etc/nas/kmip/client.crt
      private_key: /etc/nas/kmip/client.key
      ca_certificate: /etc/nas/kmip/ca.crt
      objects:
        S5GXNX0R412345: drives/S5GXNX0R412345
        S5GXNX0R412346: drives/S5GXNX0R412346

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
from ..module_utils.sed.boot_files import UNITS, File, decide, places, read, unwanted, wanted
from ..module_utils.sed.boot_keys import check_files, collect
from ..module_utils.sed.boot_network import check_order, check_places
from ..module_utils.sed.boot_options import Kmip, check, kmip_spec
from ..module_utils.sed.boot_proven import settle
from ..module_utils.sed.link import require_linux

_UNKNOWN = (
    "systemd does not run here, so it was not looked at whether the network of this host can be up before pools are "
    "imported. Where it can't, systemd leaves out a unit when the host starts, maybe the network: run this again when "
    "the host is up."
)


def main() -> None:
    lock = options.argument_spec()
    arguments = {name: lock[name] for name in ("devices", "password", "passwords", "hash")}
    state = {"type": "str", "default": "present", "choices": ["present", "absent"]}
    unproven = {"type": "list", "elements": "str", "default": [], "no_log": False}
    kmip = {"type": "dict", "options": kmip_spec()}
    module = Module({"state": state, "unproven": unproven, **arguments, "kmip": kmip})
    mask = Mask()
    runner = HostRunner(mask)
    present = module.params["state"] == "present"
    try:
        require_linux()
        protect(module, mask, (Key("passphrase", text.encode("utf-8")) for text in options.secrets(module.params)))
        files, warnings = _files(module.params, runner) if present else (unwanted(), ())
    except StorageError as error:
        fail(module, error)

    def look() -> dict[str, File | None]:
        return read(file.path for file in files)

    def plan(found: dict[str, File | None]) -> Plan:
        settled, told = settle(files, found, module.params["unproven"]) if present else (files, ())
        reload = Step("Let systemd read its units again", _reload)
        return replace(decide(settled, found, reload), warnings=(*warnings, *told))

    run(module, runner, look, plan, lambda _done: {})


def _files(params: t.Mapping[str, t.Any], runner: Runner) -> tuple[tuple[File, ...], tuple[str, ...]]:
    """What is to be there and what is not, and what a person is to know of it.

    :raises BadInput: the options are none of a task that unlocks, or the host starts without systemd
    :raises StorageError: the host can't use the KMIP server when it starts
    """
    if not params["devices"]:
        raise BadInput("No drive is named.", hint="Name them in devices, or say state: absent.")
    strange = sorted(set(params["unproven"]) - set(params["devices"]))
    if strange:
        raise BadInput(f"unproven has drives that devices has not: {', '.join(strange)}.")
    # What the program would refuse at boot is refused now.
    sources = check(params)
    if not os.path.isdir(UNITS):
        raise BadInput(
            f"There is no {UNITS} on this host, so nothing starts the program at boot.",
            hint="Unlock the drives of this host by the playbook unlock.",
        )
    warnings: tuple[str, ...] = ()
    if sources.kmip is not None:
        try:
            warnings = _look_ahead(sources.kmip, params, runner)
        except StorageError as error:
            error.hint = f"{error.hint} {_left()}".strip()
            raise
    return wanted(params), warnings


def _look_ahead(kmip: Kmip, params: t.Mapping[str, t.Any], runner: Runner) -> tuple[str, ...]:
    """Whether the host can use the server when it starts; returns what could not be found out.

    :raises StorageError: it can't
    """
    check_files(kmip.connection)
    paths = places(kmip.files)
    check_places(paths)
    if params["kmip"]["validate"]:
        _validate(kmip, params["hash"])
    if check_order(runner, paths):
        return ()
    return (_UNKNOWN,)


def _left() -> str:
    """What is there of an earlier run, in words."""
    if not any(read(file.path for file in unwanted()).values()):
        return "Nothing was installed."
    return (
        "Nothing was changed: what an earlier run has installed is still there, and the host starts with that. "
        "state: absent removes it, in the role sed_drives nas_drive_unlock_at_boot: false."
    )


def _validate(kmip: Kmip, kind: str) -> None:
    """Whether the server hands out all passwords to this host: the next restart is a bad time to learn of it.

    :raises BadInput: it does not; the message tells of each drive why
    """
    # They are of no use here, and go where this function ends.
    faults = collect(kmip, kmip.objects, kind, lambda _line: None, patient=False).faults
    if faults:
        lines = dict.fromkeys(str(error) for error in faults.values())
        raise BadInput(
            f"The KMIP server does not give this host the passwords of {', '.join(faults)}. {' '.join(lines)}",
            hint="With kmip.validate: false the server is not asked now.",
        )


def _reload(runner: Runner) -> None:
    # Where systemd does not run, as in a container that is being built, it reads them when it starts.
    if os.path.isdir("/run/systemd/system"):
        runner.run(Command(("systemctl", "daemon-reload")))


if __name__ == "__main__":
    main()
