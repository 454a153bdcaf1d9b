# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible Vault as a place for keys: encrypts and decrypts with the secrets of the run, or with a password file."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext, get_file_vault_secret, is_encrypted

from ..module_utils.errors import BadInput, StorageError
from .controller_files import absolute

Secrets = t.Sequence[tuple[str, VaultSecret]]

DEFAULT = "default"


class Vault:
    """One secret to encrypt with, and those to try when something is to be decrypted."""

    def __init__(self, label: str, secret: VaultSecret, secrets: Secrets) -> None:
        self.label = label
        self._secret = secret
        self._secrets = list(secrets)

    def encrypt(self, plain: bytes) -> bytes:
        return bytes(VaultLib(self._secrets).encrypt(plain, secret=self._secret, vault_id=self.label))

    def decrypt(self, data: bytes) -> bytes | None:
        """What is in a file of Ansible Vault; ``None`` if none of the secrets opens it, or it is no such file."""
        if not is_vault(data):
            return None
        try:
            return bytes(VaultLib(self._secrets).decrypt(data))
        except AnsibleError:
            return None


def is_vault(data: bytes) -> bool:
    return bool(is_encrypted(data))


def open_vault(vault_id: str | None, password_file: str | None, loader: t.Any) -> Vault:
    """The vault that the options of a task or lookup mean.

    :raises StorageError: there is no such secret, or the password file can't be read
    """
    if password_file is not None:
        path = absolute(password_file)
        try:
            secret = get_file_vault_secret(path, vault_id=vault_id, loader=loader)
            secret.load()
        except AnsibleError as error:
            raise StorageError(f"The vault password file {path} can't be used: {error}") from None
        label = vault_id or DEFAULT
        return Vault(label, secret, [(label, secret)])
    return choose(vault_id or DEFAULT, run_secrets())


def choose(vault_id: str, secrets: Secrets) -> Vault:
    """The vault with the secret of this name.

    :raises BadInput: there is none
    """
    for label, secret in secrets:
        if label == vault_id:
            return Vault(label, secret, secrets)
    known = ", ".join(dict.fromkeys(label for label, _secret in secrets))
    raise BadInput(
        f"The run has no vault secret '{vault_id}': {f'it has {known}' if known else 'it has none at all'}.",
        hint="Start it with --vault-id, --vault-password-file or --ask-vault-pass, or name a vault_password_file.",
    )


def run_secrets() -> Secrets:
    """The vault secrets that the run was started with."""
    context: VaultSecretsContext | None = VaultSecretsContext.current(optional=True)
    return [] if context is None else list(context.secrets)
