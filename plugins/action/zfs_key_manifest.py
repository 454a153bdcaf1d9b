# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of zfs_key_manifest: checks certificates, lets the host seal the keys, and keeps the file."""

from __future__ import annotations

import datetime
import typing as t
from dataclasses import dataclass

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.command import HostRunner
from ..module_utils.errors import BadInput, StorageError
from ..module_utils.plan import converge
from ..module_utils.sealing.seal import check, find_openssl
from ..module_utils.secrets import Mask
from ..module_utils.zfs.key_manifest import digest
from ..module_utils.zfs.key_manifest_options import arguments
from ..module_utils.zfs.manifest import parse_manifest
from ..plugin_utils import certificates, ephemeral, key_backup
from ..plugin_utils import controller_files as files
from ..plugin_utils.key_backup import Protection, Wanted
from ..plugin_utils.opening import open_sealed
from ..plugin_utils.vaulting import open_vault

Values = dict[str, t.Any]

# What the host is not told: it is done here.
_OURS = ("seal_to", "vault_id", "vault_password_file", "unsealed", "backup")


@dataclass(frozen=True)
class Sealing:
    """How the keys get here: the certificates that the host seals to, and what opens it if that is for us."""

    certificates: list[str]
    own: ephemeral.Ephemeral | None = None


class ActionModule(ActionBase):
    """What Ansible looks for."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Values | None = None) -> Values:
        result: Values = super().run(tmp, task_vars)
        try:
            result.update(self._back_up(_options(self._task.args), task_vars or {}))
        except StorageError as error:
            result.update(error.details, failed=True, msg=str(error))
        return result

    def _back_up(self, options: Values, task_vars: Values) -> Values:
        """The result of the task.

        :raises StorageError: a person has to do something first
        """
        path = files.absolute(options["dest"])
        files.check_place(path)
        now = datetime.datetime.now(datetime.timezone.utc)
        protection = self._protection(options, now)
        for one in protection.certificates:
            for warning in one.warnings:
                Display().warning(warning)
        sealing = _sealing(protection, now)

        given = {name: value for name, value in self._task.args.items() if name not in _OURS}
        answer: Values = self._execute_module(
            module_name="nasops.encryption.zfs_key_manifest",
            module_args={**given, "seal_to": sealing.certificates},
            task_vars=task_vars,
        )
        sealed = answer.pop("sealed", None)
        if answer.get("failed") or answer.get("skipped") or "exported" not in answer:
            return {**answer, "proven": key_backup.last_proof(path)}
        host = str(task_vars.get("inventory_hostname", ""))
        wanted = Wanted(path, host, protection, answer["exported"], answer["pools"], options["backup"])
        return {**answer, **self._keep(wanted, sealing, sealed)}

    def _protection(self, options: Values, now: datetime.datetime) -> Protection:
        """What is to keep others from reading the backup.

        :raises StorageError: nothing or too much is asked for, or what is asked for can't be had
        """
        vault = options["vault_id"] is not None or options["vault_password_file"] is not None
        chosen = (options["seal_to"] is not None) + vault + bool(options["unsealed"])
        if chosen != 1:
            raise BadInput(
                f"Of seal_to, a vault (vault_id, vault_password_file) and unsealed, {chosen or 'none'} "
                "is given; wanted is exactly one.",
                hint="The file can open all datasets, so it is written in clear only with 'unsealed: true'.",
            )
        if vault:
            found = open_vault(options["vault_id"], options["vault_password_file"], self._loader)
            return Protection(key_backup.VAULT, vault=found)
        if options["unsealed"]:
            return Protection(key_backup.UNSEALED)
        return Protection(key_backup.SEALED, certificates.load(options["seal_to"], now))

    def _keep(self, wanted: Wanted, sealing: Sealing, sealed: str | None) -> Values:
        """Write the backup, unless it is there already, and see that what can be read back is right.

        :raises StorageError: it can't be written, or is not what the host said
        """
        if not wanted.exported:
            Display().warning("There is no key to back up, so no file was written or changed.")
            return _result(wanted, {"changed": False, "actions": [], "diff": {"before": {}, "after": {}}})
        outcome = converge(
            lambda: key_backup.look(wanted),
            lambda present: key_backup.decide(wanted, present, lambda: _content(wanted, sealing, sealed)),
            HostRunner(Mask()),
            bool(self._task.check_mode),
        )
        if not self._task.check_mode and not outcome.plan.changed:
            try:
                key_backup.note_proof(wanted)
            except StorageError as error:
                # It was proven all the same, and may well lie where nothing can be written any more.
                Display().warning(f"That the backup was proven is not in its record: {error}")
        for warning in outcome.plan.warnings:
            Display().warning(warning)
        kept = [one.title for one in outcome.plan.steps if one.title.startswith(key_backup.KEEP)]
        return _result(
            wanted,
            {"changed": outcome.plan.changed, "actions": outcome.plan.actions, "diff": outcome.plan.diff()},
            kept[0][len(key_backup.KEEP) :] if kept else None,
        )


def _options(given: t.Mapping[str, t.Any]) -> Values:
    """The options with their types and defaults.

    :raises BadInput: they are not those that the documentation tells of
    """
    checked = ArgumentSpecValidator(arguments()).validate(dict(given))
    if checked.error_messages:
        raise BadInput(". ".join(checked.error_messages))
    return dict(checked.validated_parameters)


def _sealing(protection: Protection, now: datetime.datetime) -> Sealing:
    """:raises StorageError: the controller can't open what the host would seal"""
    if protection.kind == key_backup.SEALED:
        return Sealing([one.recipient.pem for one in protection.certificates])
    find_openssl(HostRunner(Mask()), "the controller")
    own = ephemeral.make(now)
    return Sealing([own.certificate], own)


def _content(wanted: Wanted, sealing: Sealing, sealed: str | None) -> bytes:
    """What is to be in the file.

    :raises StorageError: the host did not send what it said
    """
    if sealed is None:
        raise StorageError("The host did not send the sealed keys.")
    if sealing.own is None:
        check(sealed, [one.recipient for one in wanted.protection.certificates])
        return sealed.encode("ascii")
    plain = open_sealed(sealed, sealing.own.private_key)
    manifest = parse_manifest(plain.decode("utf-8"), "what the host sent")
    if digest(wanted.fingerprints_of(manifest)) != digest(wanted.fingerprints):
        raise StorageError("The host sent other keys than those it told of.")
    vault = wanted.protection.vault
    return plain if vault is None else vault.encrypt(plain)


def _result(wanted: Wanted, did: Values, former: str | None = None) -> Values:
    return {
        **did,
        "dest": wanted.path,
        "record": wanted.record_path,
        "proven": key_backup.last_proof(wanted.path),
        "backup_file": former,
        "recipients": [one.row() for one in wanted.protection.certificates],
    }
