# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans the import of a pool that is on attached disks."""

from __future__ import annotations

from ..command import Command
from ..errors import Refused
from ..plan import Change, Plan, Step
from . import keystore
from .pool_keys import key_warnings, unlock_step
from .pool_mount import mount_step
from .pool_options import WantedPool
from .pool_state import PoolHost
from .properties import pool_type
from .status import ImportablePool


def find_importable(wanted: WantedPool, host: PoolHost) -> ImportablePool | None:
    named = sorted((pool for pool in host.importable if pool.name == wanted.name), key=lambda pool: int(pool.guid))
    if wanted.confirm_guid:
        chosen = [pool for pool in named if pool.guid == wanted.confirm_guid]
        if named and not chosen:
            raise Refused(
                f"confirm_guid is {wanted.confirm_guid}, but the pool '{wanted.name}' on these disks has the GUID "
                f"{' or '.join(pool.guid for pool in named)}; it was not touched."
            )
        named = chosen
    if len(named) > 1:
        raise Refused(
            f"There are {len(named)} pools named '{wanted.name}' that could be imported: "
            f"{', '.join(pool.guid for pool in named)}.",
            hint="Tell with confirm_guid which one is meant.",
        )
    return named[0] if named else None


def plan_import(wanted: WantedPool, dormant: ImportablePool, host: PoolHost) -> Plan:
    name, key = wanted.name, wanted.key
    command = import_command(wanted, dormant)
    if not dormant.complete:
        raise Refused(
            f"Pool '{name}' ({dormant.guid}) is there, but can't be imported: its state is {dormant.state}. "
            f"{dormant.message}".strip(),
            hint="Some disks are missing or still locked; 'zpool import' shows which.",
        )
    steps = [
        Step(
            f"Import pool '{name}' ({dormant.guid})",
            command,
            (Change(("pools", name, "state"), "exported", "present"),),
        )
    ]
    reveals = "what differs inside an exported pool (vdevs, properties) shows only after its import"
    retreat = (Command(("zpool", "export", name)),)
    if wanted.unlock and key is not None and key.file and key.file + keystore.NEXT in host.key_files:
        reveals = f"{reveals}, and so does which of {key.file} and {key.file + keystore.NEXT} is its key"
        return Plan(tuple(steps), key_warnings(wanted, host), reveals, retreat)
    if wanted.unlock and key is not None:
        # A wrong key shows only now; the pool is then put back as it was found.
        undo = (Command(("zpool", "export", name)),)
        steps.append(unlock_step(name, key, host, undo))
    if wanted.mount:
        steps.append(mount_step(name))
    return Plan(tuple(steps), key_warnings(wanted, host), reveals, retreat)


def import_command(wanted: WantedPool, dormant: ImportablePool) -> Command:
    arguments = ["zpool", "import", "-N"]
    if dormant.foreign:
        if not wanted.import_foreign:
            raise Refused(
                f"Pool '{dormant.name}' ({dormant.guid}) was last used by another host and not exported there.",
                hint="Two hosts writing to one pool destroy it. If the other host is surely off or has lost the disks, "
                "set 'import_foreign: true'.",
            )
        arguments.append("-f")
    for name, value in wanted.properties.items():
        if value is not None and pool_type(name).when == "attach":
            arguments += ["-o", f"{name}={value}"]
    for folder in dormant.folders:
        arguments += ["-d", folder]
    return Command((*arguments, dormant.guid))
