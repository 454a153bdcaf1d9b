# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key that is made once and kept in a file of Ansible Vault."""

from __future__ import annotations

DOCUMENTATION = r"""
name: generated_key
short_description: Make a key once, and keep it in a file of Ansible Vault
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Returns the key that is in a file on the controller. If there is no such file, a new random key of 256 bits is made
    and kept there first, encrypted by Ansible Vault.
  - The key is on the disk before it is returned, so that it never exists on a host only. A file that is there is never
    written to. Several hosts or runs may ask for the same key at once, and get the same one.
  - A file that can't be decrypted, or that does not hold a key of the O(format), is an error; no other key is made
    then.
options:
  _terms:
    description:
      - Paths of the files, one for each key. A relative one begins at the folder that the run was started in.
      - Folders that are missing are made, for their owner alone.
    type: list
    elements: str
    required: true
  format:
    description:
      - V(hex) for 64 hexadecimal digits, V(raw) for the base64 of 32 bytes, V(passphrase) for 43 letters, digits, C(-)
        and C(_). It is how O(nasops.encryption.zfs_dataset_key#module:key.value) wants keys of that format.
    type: str
    choices:
      - hex
      - raw
      - passphrase
    default: hex
  vault_id:
    description:
      - Encrypt with the vault secret of this name, one of those that the run was started with. V(default) is that of
        C(--ask-vault-pass), and is used when neither this nor O(vault_password_file) is given.
      - To decrypt a file, all secrets of the run are tried.
      - Together with O(vault_password_file), only the label that is written into the file.
    type: str
  vault_password_file:
    description:
      - Path on the controller of a file with a vault password, or of a program that prints it. It is used in place of
        the secrets of the run.
    type: str
  unencrypted:
    description:
      - Keep new keys in clear, and read files in clear. Whoever can read such a file has the key.
    type: bool
    default: false
seealso:
  - module: nasops.encryption.zfs_dataset_key
  - module: nasops.encryption.zfs_key_manifest
notes:
  - With C(--check) no file is made. For a key that does not exist yet, a random one is returned that is kept nowhere. A
    task with C(check_mode=true) in a run without C(--check) can't be told from others, so there the key is made and
    kept.
"""

EXAMPLES = r"""
- name: A dataset whose key is made on the controller, and is in the vault before it is on the host
  nasops.encryption.zfs_dataset_key:
    name: tank/media
    key:
      value: "{{ lookup('nasops.encryption.generated_key', file) }}"
  become: true
  vars:
    file: "{{ inventory_dir }}/keys/{{ inventory_hostname }}-media.vault"

- name: A passphrase of its own for each of two datasets
  nasops.encryption.zfs_dataset_key:
    name: "tank/{{ item }}"
    key:
      format: passphrase
      value: "{{ lookup('nasops.encryption.generated_key', file, format='passphrase') }}"
  become: true
  loop:
    - alice
    - bob
  vars:
    file: "{{ inventory_dir }}/keys/{{ item }}.vault"
"""

RETURN = r"""
_raw:
  description:
    - The keys, as texts.
  type: list
  elements: str
"""

import base64
import contextlib
import fcntl
import os
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..module_utils.durable import make_folder
from ..module_utils.errors import BadInput, StorageError
from ..module_utils.secrets import generate, parse_option
from ..plugin_utils import controller_files as files
from ..plugin_utils.vaulting import Vault, is_vault, open_vault


class LookupModule(LookupBase):
    """What Ansible looks for."""

    def run(self, terms: t.Sequence[t.Any], variables: t.Any = None, **options: t.Any) -> list[str]:
        self.set_options(var_options=variables, direct=options)
        check_mode = bool((variables or {}).get("ansible_check_mode", False))
        try:
            vault = None
            if not self.get_option("unencrypted"):
                vault = open_vault(self.get_option("vault_id"), self.get_option("vault_password_file"), self._loader)
            elif self.get_option("vault_id") is not None or self.get_option("vault_password_file") is not None:
                raise BadInput("unencrypted is true, and a vault is given; wanted is one of them.")
            return [stored_key(_path(term), str(self.get_option("format")), vault, check_mode) for term in terms]
        except StorageError as error:
            # Without the cause, whose text may be a part of the key.
            raise AnsibleLookupError(str(error)) from None


def stored_key(path: str, key_format: str, vault: Vault | None, check_mode: bool) -> str:
    """The key in a file, which is made if it is not there.

    :param vault: ``None`` to keep it in clear
    :raises StorageError: the file can't be read or written, or holds something else
    """
    content = files.read(path, "The key file")
    if content is None and check_mode:
        files.check_place(path)
        return _new_text(key_format)
    # Where there are no hard links, a file that another run is about to make is empty for a moment.
    if content is None or not (content.data or check_mode):
        with _alone(path):
            content = files.read(path, "The key file") or _make(path, key_format, vault)
    return _understand(path, content.data, key_format, vault)


def _path(term: t.Any) -> str:
    if not isinstance(term, str) or not term.strip():
        raise BadInput("A path of a key file is empty, or no text.")
    return files.absolute(str(term))


def _make(path: str, key_format: str, vault: Vault | None) -> files.Content:
    """Make a new key and keep it; the one of another run if that was faster.

    :raises StorageError: it can't be kept
    """
    text = _new_text(key_format).encode("ascii") + b"\n"
    files.create(path, text if vault is None else vault.encrypt(text))
    content = files.read(path, "The key file")
    if content is None:
        raise StorageError(f"The key file {path} is gone as soon as it was made.")
    return content


def _new_text(key_format: str) -> str:
    material = generate(key_format).material
    return (base64.b64encode(material) if key_format == "raw" else material).decode("ascii")


def _understand(path: str, data: bytes, key_format: str, vault: Vault | None) -> str:
    """The key in a file.

    :raises StorageError: there is none in it, or it is not kept as it was asked for
    """
    if not data:
        raise BadInput(
            f"The key file {path} is empty.",
            hint="If a run was interrupted when it made the file, no key of it is in use: remove it.",
        )
    if vault is None and is_vault(data):
        raise BadInput(f"The key file {path} is encrypted by Ansible Vault, but unencrypted is true.")
    if vault is not None and not is_vault(data):
        raise BadInput(
            f"The key file {path} is not encrypted.",
            hint="Encrypt it by ansible-vault encrypt, or set unencrypted=true.",
        )
    plain = data if vault is None else vault.decrypt(data)
    if plain is None:
        raise StorageError(f"The key file {path} was encrypted with another vault secret than those of this run.")
    try:
        text = plain.decode("utf-8").removesuffix("\n")
        parse_option(key_format, text)
    except (UnicodeDecodeError, BadInput):
        raise BadInput(f"The key file {path} holds no key of the format {key_format}.") from None
    return text


@contextlib.contextmanager
def _alone(path: str) -> t.Iterator[None]:
    """Let no other run make a key in the same folder meanwhile.

    :raises StorageError: there is no such folder, and it can't be made
    """
    folder = os.path.dirname(path)
    try:
        make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"The folder {folder} can't be used: {error.strerror}.") from None
    try:
        # Where there are no locks, as on some network filesystems, files are still made in one step.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
