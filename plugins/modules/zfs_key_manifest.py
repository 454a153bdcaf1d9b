#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_key_manifest
short_description: Back up the keys of encrypted ZFS datasets to the controller, each proven first
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Writes the keys of encryption roots into one file on the controller. Its content is the JSON object that TrueNAS
    writes and reads, dataset names and keys of 64 hexadecimal digits.
  - Each key is seen to open its root first, in a way that loads nothing. If one key is not found or does not fit,
    nothing is written, see O(partial).
  - The file is sealed to certificates (O(seal_to)), encrypted by Ansible Vault (O(vault_id), O(vault_password_file)),
    or, only if that is asked for by name, not protected (O(unsealed)). Exactly one of these is wanted.
  - With O(seal_to) the host seals the keys itself, so that neither the controller nor its logs ever see them. Whoever
    runs the backup can't read it. Otherwise the host seals them to a key that the controller has just made, and only
    its memory holds them in clear.
  - A sealed file is opened by P(nasops.encryption.open_manifest#filter), or by C(openssl cms -decrypt) alone.
  - Beside the file a record of the same name with C(.json) is kept. It has no keys in it, but tells when the backup was
    made and last proven, of what, for whom, and by fingerprints whether it is still that of the keys in use.
  - Keys come from the key files of the roots, or from O(keys), O(manifest) and O(manifest_file). Passphrases are in no
    manifest; the roots that have one are in RV(not_exportable).
requirements:
  - OpenZFS 2.1 or later
  - root
  - the program C(openssl) 3.0 or later on the host, and on the controller unless O(seal_to) is used
  - cryptography 42 or later (Python package on the controller)
extends_documentation_fragment:
  - nasops.encryption.attributes
  - nasops.encryption.manifest.seal_to
options:
  name:
    description:
      - A pool, filesystem or volume. When not given, all imported pools are backed up. One that is suspended does not
        answer, and counts as a key that is not found.
      - If it uses the key of a dataset above it, it is that one's key that is backed up.
    type: str
  recursive:
    description:
      - Back up the keys of the datasets below O(name) too. Without O(name), only those of the root datasets of the
        pools when V(false).
    type: bool
    default: true
  dest:
    description:
      - Path of the file on the controller. Only its owner may read it. It is on the disk, with its name, when the task
        ends.
      - Folders that are missing are made, for their owner alone.
    type: path
    required: true
  vault_id:
    description:
      - Encrypt with the vault secret of this name, one of those that the run was started with. V(default) is that of
        C(--ask-vault-pass).
      - Together with O(vault_password_file), only the label that is written into the file.
    type: str
  vault_password_file:
    description:
      - Path on the controller of a file with a vault password, or of a program that prints it. It is used in place of
        the secrets of the run.
    type: path
  unsealed:
    description:
      - Write the keys in clear. Whoever can read the file can open the datasets.
    type: bool
    default: false
  remap:
    description:
      - New names in the backup, by the names they take the place of, such as those on the system that the datasets are
        replicated to. Each counts for all below it, and the longest that fits is used.
      - Where a dataset has several replicas, give a list of names. It may hold the former name too, which is not kept
        otherwise.
    type: dict
  keys:
    description:
      - Keys to try on roots whose own key files don't have the right one, by name of the root. Each is as in
        M(nasops.encryption.zfs_encryption_info).
      - A mapping, or JSON as text. C(NAME=KEY), which Ansible takes for a mapping elsewhere, is refused.
    type: dict
  manifest:
    description:
      - Keys to try, as TrueNAS exports them. It is a JSON object of dataset names and keys, as text or as a dictionary,
        of at most 10 MiB. Names are those before O(remap).
      - An entry of O(keys) for the same dataset counts instead. Entries for datasets that do not exist do no harm.
      - It may be a list of such manifests. The first that has a key for a dataset counts.
    type: raw
  manifest_file:
    description:
      - Absolute path of such a manifest on the host. O(manifest) counts before it.
    type: path
  partial:
    description:
      - Write the keys that were proven, and warn of the others. Otherwise one key that is not found fails the task.
    type: bool
    default: false
  backup:
    description:
      - Keep what is replaced, under its name with the time it was made behind. A replica that was not updated since, or
        a snapshot of the disks, still opens with the former keys.
      - A file that has no record or does not fit it, and a backup with keys that the new one has not, are kept whatever
        this says.
    type: bool
    default: true
seealso:
  - module: nasops.encryption.zfs_encryption_info
  - module: nasops.encryption.zfs_dataset_key
  - plugin: nasops.encryption.open_manifest
    plugin_type: filter
  - plugin: nasops.encryption.remap_manifest
    plugin_type: filter
notes:
  - A backup that can't be opened is none. Open it once with the private key, and again when you change something.
  - Of a backup that is sealed to certificates, a later run can see that it is whole, for whom it is sealed, and that
    the keys have not changed since. It can't see that somebody still has the private key.
"""

EXAMPLES = r"""
- name: Seal all keys of this NAS to the recovery certificate
  nasops.encryption.zfs_key_manifest:
    dest: "backups/{{ inventory_hostname }}.keys"
    seal_to:
      - recovery.pem
  become: true

- name: The keys of one pool, with the names its replica has, in a file of Ansible Vault
  nasops.encryption.zfs_key_manifest:
    name: tank
    dest: backups/replica.yml
    vault_id: default
    remap:
      tank: backup/nas1
  become: true

- name: A manifest to upload to TrueNAS, in clear
  nasops.encryption.zfs_key_manifest:
    name: tank
    dest: /dev/shm/dataset_tank_keys.json
    unsealed: true
    backup: false
  become: true

- name: Is the backup still that of the keys in use
  nasops.encryption.zfs_key_manifest:
    dest: "backups/{{ inventory_hostname }}.keys"
    seal_to:
      - recovery.pem
  become: true
  check_mode: true
  register: backup
  failed_when: backup is failed or backup is changed
"""

RETURN = r"""
exported:
  description: The keys that are in the backup, ordered by name.
  returned: when the roots could be read
  type: list
  elements: dict
  contains:
    name:
      description: Name in the backup.
      type: str
      sample: backup/nas1/media
    dataset:
      description: Name of the encryption root.
      type: str
      sample: tank/media
    fingerprint:
      description:
        - Changes when the key does, and tells nothing else of it. It is made of the key, the name of the root and the
          GUID of its pool.
      type: str
      sample: 3f1f9a7c5b8f0a9d2c4e6b8091a3c5d7
    origin:
      description: Where the key was found.
      type: str
      sample: /etc/zfs/keys/tank%2Fmedia.key
not_exportable:
  description: The roots that a manifest has no keys of, each with the reason, ordered by name.
  returned: when the roots could be read
  type: list
  elements: dict
  contains:
    name:
      description: Name of the encryption root.
      type: str
      sample: tank/clients
    reason:
      description: Why.
      type: str
      sample: "'tank/clients' is opened by a passphrase, which is in no manifest."
failed_datasets:
  description: The roots whose key was not found, or does not fit.
  returned: when the roots could be read
  type: dict
  sample: {"tank/old": {"error": "The key file /etc/zfs/keys/tank%2Fold.key does not exist."}}
unused_keys:
  description: The keys that are offered for something that is no encryption root, ordered by name.
  returned: when the roots could be read
  type: list
  elements: dict
  contains:
    name:
      description: The dataset they are offered for.
      type: str
      sample: tank/media/video
    reason:
      description: Why such a key is of no use.
      type: str
      sample: uses the key of 'tank/media'
digest:
  description: One value for all names and fingerprints. It is the same as long as names and keys are.
  returned: when the roots could be read
  type: str
  sample: c5b1d0f54a9e7f3e1d2c4b6a80917f5e3d2c1b0a99887766554433221100ffee
pools:
  description: The pools of these roots.
  returned: when the roots could be read
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pool.
      type: str
      sample: tank
    guid:
      description: Its GUID.
      type: str
      sample: "9512867134298873421"
actions:
  description: What was done on the controller, or would be done, in order.
  returned: success
  type: list
  elements: str
  sample: ["Write the keys of 3 encryption roots to /srv/backups/nas1.keys, sealed to 1 certificate"]
dest:
  description: The file with the keys.
  returned: success
  type: str
  sample: /srv/backups/nas1.keys
record:
  description: The file that tells of it.
  returned: success
  type: str
  sample: /srv/backups/nas1.keys.json
proven:
  description:
    - When the keys in the backup were last seen to open their datasets, and the backup was seen to be whole. A run that
      has nothing else to do writes this time into the record, which counts as no change. In check mode and after a
      failure it is the time of an earlier run.
    - V(null) if there is no backup.
  returned: when the host was asked for its keys
  type: str
  sample: "2026-11-27T03:00:00Z"
backup_file:
  description: Where what was replaced is kept, V(null) if nothing was.
  returned: success
  type: str
  sample: /srv/backups/nas1.keys.20261126T030000Z
recipients:
  description: The certificates of O(seal_to).
  returned: success
  type: list
  elements: dict
  contains:
    fingerprint:
      description: SHA-256 of the certificate, in hexadecimal digits.
      type: str
      sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    subject:
      description: For whom it is.
      type: str
      sample: CN=recovery
    expires:
      description: Until when it is valid.
      type: str
      sample: "2036-11-26T00:00:00Z"
sealed:
  description:
    - The sealed keys, as the host hands them to the controller. The result of a task does not have them.
  returned: never
  type: str
"""

import typing as t
from dataclasses import replace

from ..module_utils.entry import Module, fail, protect
from ..module_utils.errors import Refused, StorageError
from ..module_utils.masking import occurs, release
from ..module_utils.sealing.recipient import parse_recipients
from ..module_utils.sealing.seal import find_openssl, seal, wrapping
from ..module_utils.secrets import Mask
from ..module_utils.zfs.key_manifest import digest, write_manifest
from ..module_utils.zfs.key_manifest_options import arguments
from ..module_utils.zfs.key_manifest_read import Found, find_keys
from ..module_utils.zfs.keys import ZfsRunner
from ..module_utils.zfs.names import check_dataset_name
from ..module_utils.zfs.offer_options import offered, was_asked_for
from ..module_utils.zfs.offers import Offers, plain_words
from ..module_utils.zfs.reach import read_reachable
from ..module_utils.zfs.remap import parse_remap
from ..module_utils.zfs.state import (
    ENCRYPTION_PROPERTIES,
    Dataset,
    read_pool_properties,
    require_root,
    way_back,
)
from ..module_utils.zfs.unlock_preview import useless
from ..module_utils.zfs.unlock_preview_read import DERIVATION, read_above


class Incomplete(StorageError):
    """Keys that were not found, or do not fit."""


def main() -> None:
    module = Module(arguments())
    release(module, plain_words(module.params["keys"]))
    try:
        require_root()
        result = back_up(module, module.params)
    except StorageError as error:
        fail(module, error)
    module.exit_json(changed=False, **result)


def back_up(module: Module, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The result of the module; the controller's half makes the file of it.

    :raises StorageError: bad options, ZFS or openssl can't be asked, or keys are missing
    """
    name = params["name"]
    if name is not None:
        check_dataset_name(name)
    remap, offers = parse_remap(params["remap"]), offered(params)
    recipients = parse_recipients(params["seal_to"] or ())
    for one in recipients:
        wrapping(one)
    mask = Mask()
    protect(module, mask, offers.secrets())
    runner = ZfsRunner(mask)
    program = find_openssl(runner, "this host")

    properties = (*ENCRYPTION_PROPERTIES, *DERIVATION)
    pools = read_pool_properties(runner)
    reach = read_reachable(runner, pools, name, properties, params["recursive"])
    datasets = reach.datasets
    remap = {source: targets for source, targets in remap.items() if reach.covers(source)}
    known = {**read_above(runner, datasets, name, properties), **datasets}
    roots = roots_of(datasets, known)
    new_names = (target for targets in remap.values() for target in targets)
    if occurs(module, (*(root.name for root in roots), *new_names)):
        raise Refused(
            "A key of this task is a part of the name of an encryption root as well. Ansible hides it there too, so "
            "that the record of the backup would have wrong names; nothing was backed up.",
            hint="Everybody can read it: give its dataset another one, and leave this out of the task until then.",
        )
    guids = {pool: values["guid"].value for pool, values in pools.items()}
    found = find_keys(
        runner, roots, offers, runner.keys.try_all, lambda keys: protect(module, mask, keys), guids, remap
    )

    if name is None:
        # They are failures of their own: nothing is known of the roots in there.
        lost = {pool: f"{reason} {way_back(pool)}" for pool, reason in reach.silent.items()}
        found = replace(found, failures={**found.failures, **lost})

    asked_for = was_asked_for(params)
    unused = [
        *useless(offers, known, lambda one: reach.covers(one) and asked_for(one)),
        *of_passphrases(offers, found),
    ]
    result = describe(found, guids, unused)
    if found.failures and (not params["partial"] or not found.entries):
        raise Incomplete(_complaint(found), hint=_doubt(offers, roots), **result)
    for failure in found.failures.values():
        module.warn(f"Not backed up: {failure}")
    if found.entries and not module.check_mode:
        plain = write_manifest({entry.name: entry.text for entry in found.entries})
        result["sealed"] = seal(runner, program, plain, recipients)
    return result


def roots_of(datasets: t.Mapping[str, Dataset], known: t.Mapping[str, Dataset]) -> list[Dataset]:
    """The encryption roots of these datasets, ordered by name, also those that lie above them."""
    names = sorted({dataset.root for dataset in datasets.values() if dataset.encrypted})
    return [known[name] for name in names]


def describe(found: Found, guids: t.Mapping[str, str], unused: list[dict[str, str]]) -> dict[str, t.Any]:
    """What may be told of the search."""
    rows = sorted((entry.row() for entry in found.entries), key=lambda row: row["name"])
    names = (*(entry.dataset for entry in found.entries), *found.not_exportable, *found.failures)
    pools = sorted({name.split("/")[0] for name in names})
    return {
        "exported": rows,
        "not_exportable": [{"name": name, "reason": reason} for name, reason in sorted(found.not_exportable.items())],
        "failed_datasets": {name: {"error": error} for name, error in sorted(found.failures.items())},
        "unused_keys": sorted(unused, key=lambda row: row["name"]),
        "digest": digest({row["name"]: row["fingerprint"] for row in rows}),
        "pools": [{"name": pool, "guid": guids[pool]} for pool in pools],
    }


def of_passphrases(offers: Offers, found: Found) -> t.Iterator[dict[str, str]]:
    """The keys that are offered for roots of which none can be in a manifest."""
    for name in found.not_exportable:
        if offers.alone(name):
            yield {"name": name, "reason": "is opened by a passphrase, which is in no manifest"}


def _complaint(found: Found) -> str:
    lines = [f"{name}: {found.failures[name]}" for name in sorted(found.failures)]
    good = ", ".join(dict.fromkeys(entry.dataset for entry in found.entries))
    if good:
        lines.append(f"Nothing was backed up, although the keys of these were found: {good}.")
    else:
        lines.append("Nothing was backed up.")
    return "\n".join(lines)


def _doubt(offers: Offers, roots: t.Sequence[Dataset]) -> str:
    """What strikes the eye about the keys that are offered, as a hint."""
    if offers.explicit and not any(offers.of(root.name) for root in roots):
        return "None of the keys that are offered is for an encryption root of this host: are they of another system?"
    return ""


if __name__ == "__main__":
    main()
