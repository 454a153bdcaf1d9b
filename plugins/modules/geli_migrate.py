#!/usr/bin/python
# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: geli_migrate
short_description: Migrate a pool on GELI disks to native ZFS encryption, in stages that can be gone on with
version_added: 0.1.0
author:
  - nasops.encryption contributors (@nasops)
description:
  - Copies a pool, or a tree of datasets in it, into an encrypted pool on the same host or another one, with its
    snapshots, clones, volumes and properties. The source is one that lies on GELI disks, which were attached with
    M(nasops.encryption.geli_device). It may be any other one that is not encrypted by ZFS, or is unlocked.
  - Goes from stage to stage, and each run as far as O(state) says. What broke off is gone on with, also from another
    controller, since what is known of the migration is kept in user properties of the target.
  - Nothing of the source is destroyed, whatever the options are. A source that is imported read-only is not even
    written to. It can't take snapshots then, so what was written since the last one is sent as it is.
  - What is received is looked at afterwards. If a single dataset is not encrypted, the task fails and names it.
  - While a stream runs, or is compared, the task tells how far it is.
  - By O(method=rsync) only the newest state is copied, for whom streams will not do.
requirements:
  - OpenZFS 2.1 or later at both ends
  - for O(method=rsync) Linux with C(rsync) 3.1.3 or later, and C(unshare), C(nsenter) and C(setpriv) of
    util-linux; if the target is on another host, that has to be Linux, too, with C(rsync) 3.1.3 or later, C(python3)
    3.9 or later, C(unshare), C(nsenter) and C(mount)
  - root at the source; at the target root, or a user with sudo that asks for no password (O(ssh.sudo))
  - the program C(ssh) on the source, if the target is on another host
extends_documentation_fragment:
  - nasops.encryption.attributes
  - nasops.encryption.streams
attributes:
  check_mode:
    details:
      - The whole plan is made and returned, and everything that can be refused is refused. Both ends are read.
  idempotent:
    support: partial
    details:
      - A task finds nothing to do if nothing was written to the source, and nobody else has taken a snapshot of it.
      - With O(verify_again) both ends are compared each time.
options:
  state:
    description:
      - V(planned) changes nothing. It looks at everything, fails with all reasons not to begin that it finds, and
        returns what would be sent.
      - V(synced) brings the target up to date. It may be asked for as often as you like while the source is in use.
      - V(verified) does that, and compares both ends as O(verify) says. Then the target is locked, shown to be
        unreadable, unlocked with the key that is kept, and read. The state is recorded with the GUIDs of all snapshots
        of the target, so that it does not count for anything that comes later or goes missing. What was verified is not
        read again by the next task, unless O(verify_again).
      - V(finalized) sets C(readonly=on) on the source, if that can be written to, does all that again for what was
        written until then, and lets the target be written to. From then on nothing is sent to it any more. Who has
        opened a volume before may go on writing to it; if that is seen, it is refused, and can be run again. With
        O(snapshot) it is not looked for, since what was written since is to stay behind.
      - The source stays read-only for all of that. A comparison by O(verify) begins anew then, and takes as long as the
        one before, even if hardly anything was written since. RV(closing) tells what is closed. To have it short, go to
        V(verified) first, and to V(finalized) with O(verify=streams) soon after; then what came since is not compared.
    type: str
    choices: [planned, synced, verified, finalized]
    default: planned
  source:
    description:
      - The pool, or the filesystem or volume in it, to migrate. The pool has to be imported, unless it is recorded
        at the target that it has taken the place of the source. Then the old disks are not needed any more.
      - It is one dataset, with what is below it. For parts of it use O(include) and O(exclude). To bring parts to
        several places use a task for each, with a O(target) of its own. Each of these is a migration of its own, with
        its own stages and snapshots.
    type: str
    required: true
  target:
    description:
      - What becomes of it. It must not be the root of a pool. What lies above it has to exist, it itself must not
        unless it is a migration of this source.
    type: str
    required: true
  method:
    description:
      - V(zfs_send) sends streams, which bring along all snapshots.
      - V(rsync) copies files by rsync, and volumes block by block, the newest state alone. It is for a source whose
        streams break off on damaged blocks, and for a target that has a C(recordsize), C(compression),
        C(casesensitivity) or such of its own. Then the datasets of the target may be there already, if they are empty,
        encrypted, and no volumes. They keep their properties, but for C(readonly=off) of their own. Nothing that is not
        migrated may be below the target then.
      - rsync carries owners by number, modes, times, POSIX ACLs, extended attributes, hard links, devices, fifos and
        holes. It does not carry NFSv4 ACLs, labels of SELinux, times of access and creation, file flags, and quotas of
        users, groups and projects. Filesystems with C(acltype=nfsv4) are refused, unless O(properties) has an
        C(acltype).
      - Each run copies what differs, and deletes what the source does not have any more. What is read of a source that
        can be written to is a snapshot. Every dataset is mounted for itself where no other process sees it, so what
        else is mounted does not matter. After each pass the target has one snapshot, which stands for what was copied.
      - The target is read-only but for the dataset that is being copied, and what inherits from it. If others have
        written to it, or taken snapshots of it, that is refused without O(force). Where the task was killed amid a
        dataset, what was written to that one until the next run can't be told from what the task had written.
      - A file that was not copied to its end begins anew with the next run, and all others are kept. If a dataset can't
        be copied, the others are, and the task fails and names it.
      - With O(target_host) files go over ssh by rsync at both ends, which goes on within a file that was not copied to
        its end, too. The blocks of volumes are written there by a program of this collection, which comes over ssh,
        needs C(python3) and installs nothing. While a dataset is copied or compared it is locked there. What an earlier
        run of this host has left at work on it, such as after a connection that went silent, is ended before. If
        another host works on it, or this one by another name of O(target_host), it is refused.
      - With V(rsync), O(resume) does not matter.
    type: str
    choices: [zfs_send, rsync]
    default: zfs_send
  key:
    description:
      - The key of the target, which what is below it uses too. It is used when the target is made.
      - When not given, the target uses the key of the dataset above it.
    type: dict
    suboptions:
      format:
        description:
          - V(hex) is 64 hexadecimal digits, V(raw) is 32 bytes, V(passphrase) is 8 to 512 bytes in UTF-8.
        type: str
        choices: [hex, raw, passphrase]
        default: hex
      value:
        description:
          - The key itself. A raw key is given in base64, and only together with O(key.file).
          - Without O(key.file) it is kept nowhere at the target, and the C(keylocation) is V(prompt).
        type: str
      file:
        description:
          - Absolute path of the key file at the target. V(auto) is a file named after O(target) in F(/etc/zfs/keys).
          - If it is missing, it is made of O(key.value) or O(key.generate). It is never overwritten.
        type: path
      generate:
        description:
          - Make a new random key if O(key.file) is missing. It exists at the target only, until you make a backup.
          - It is refused where the file would be in memory (tmpfs), as below F(/etc) on TrueNAS CORE, where a folder
            below F(/data) is kept.
        type: bool
        default: false
      iterations:
        description:
          - PBKDF2 iterations for a passphrase, at least 100000. OpenZFS takes 350000 when not given.
        type: int
  dataset_keys:
    description:
      - Keys of datasets below the source, which become encryption roots of their own at the target. What is below one
        uses its key, too. They are used when the dataset is made, and proven like that of the target, so give them
        every time.
      - As TrueNAS wants it, a key in V(hex) or V(raw) is refused below what a passphrase opens. With
        O(method=zfs_send) a clone can't have a key of its own, since ZFS opens it by that of its origin.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the dataset at the source.
        type: str
        required: true
      format:
        description:
          - As in O(key).
        type: str
        choices: [hex, raw, passphrase]
        default: hex
      value:
        description:
          - As in O(key).
        type: str
      file:
        description:
          - As in O(key). V(auto) is a file named after the dataset at the target.
        type: path
      generate:
        description:
          - As in O(key).
        type: bool
        default: false
      iterations:
        description:
          - As in O(key).
        type: int
  proof_key:
    description:
      - The key that opens the encryption root of the target, to prove that it does. It is needed when that root has
        its key in no file and O(key) is not it, such as a pool with a passphrase.
    type: dict
    suboptions:
      format:
        description:
          - The format of the key.
        type: str
        choices: [hex, raw, passphrase]
        default: hex
      value:
        description:
          - The key itself. A raw key is given in base64.
        type: str
      file:
        description:
          - Absolute path of its file at the target.
        type: path
      generate:
        description:
          - Can't be set here.
        type: bool
        default: false
      iterations:
        description:
          - Can't be set here.
        type: int
  cipher:
    description:
      - The encryption suite of a target with a O(key). V(on) is V(aes-256-gcm), which is used when not given.
    type: str
    choices: ["on", aes-256-gcm, aes-192-gcm, aes-128-gcm, aes-256-ccm, aes-192-ccm, aes-128-ccm]
  recursive:
    description:
      - Migrate what is below the source, too.
    type: bool
    default: true
  include:
    description:
      - Datasets below the source to migrate, each with all below it. Whole names. What is not named is left out, as by
        O(exclude). All of the source is migrated when not given.
      - What they lie in comes along, from the source down to them, with the files in it, since they have to be below
        something at the target. What else is below that does not.
      - Give the same list to every run. Until it is finalized, a longer one brings more along. What was brought along
        and is not in it any more is refused with O(state=finalized), and what is new in it after that.
      - With O(state=finalized) all else in the source inherits C(readonly=on) unless it has a value of its own; a
        warning names it. To keep the rest in use, give a part of it as O(source).
    type: list
    elements: str
  exclude:
    description:
      - Datasets below the source to leave out, with all below them. Whole names. On TrueNAS C(.system) is one.
      - With O(state=finalized) they inherit C(readonly=on) unless they have a value of their own. A warning names them.
    type: list
    elements: str
    default: []
  exclude_files:
    description:
      - With O(method=rsync) files and folders to leave out, such as those with damaged blocks. Names of datasets of the
        source with lists of paths, each from the root of its dataset, without a slash at its beginning or end.
      - What is at the target already stays there. It is not compared.
    type: dict
    default: {}
  properties:
    description:
      - Properties of the target, whatever the source has. What is below it inherits them. V(null) leaves that property
        of the source out.
      - Until it is finalized, the target has C(readonly=on) and C(volmode=none).
      - With O(state=finalized) it gets C(reservation) and C(refreservation) where they were set at the source. ZFS sets
        that room aside as a whole, beside the data. Where there is not so much, RV(notes) tells before, and that stage
        is refused. C(refreservation=null) and C(reservation=null) leave them out, also if they are given at the end
        only; then volumes take room as they are written to.
    type: dict
    default: {}
  snapshot:
    description:
      - Bring the target up to this snapshot, which all datasets have.
      - When not given, one is taken if something was written since the last one that such a task took. Of a source that
        is imported read-only, what was written since its last snapshot is sent without one.
    type: str
  snapshot_prefix:
    description:
      - What the names of snapshots that are taken begin with. The time in UTC follows.
    type: str
    default: migrate-
  verify:
    description:
      - V(streams) sees that the target has each snapshot of the source by its GUID, and that everything is encrypted.
        ZFS has checked every stream while it was received, but the disks are not read again.
      - V(checksums) also reads the newest state of each dataset at both ends, and compares every block of every file
        and volume with its attributes.
      - V(full) also reads all older snapshots of the target, so that ZFS checks each block of them.
      - With O(method=rsync) V(streams) is refused. V(checksums) reads all files at both ends and compares their
        contents with names, owners, modes, times of change, ACLs, extended attributes and links. It does not use rsync
        for that. With O(target_host) each host reads its own files, and contents are compared by their SHA-256. V(full)
        also has ZFS read all of the target.
    type: str
    choices: [streams, checksums, full]
    default: checksums
  verify_again:
    description:
      - Compare and prove the key with O(state=verified) and O(state=finalized), whatever is recorded. Without it a
        target whose snapshots are those that were verified as O(verify) says is not looked at again, and their GUIDs
        say nothing of a disk that has rotted since.
      - That is done by each task that has it, and shown as changed, so don't leave it set. Until the task has come to
        its end, the target does not count as verified. Once it is finalized, it does nothing.
    type: bool
    default: false
  allow_degraded:
    description:
      - Migrate although members of the source pool are missing.
    type: bool
    default: false
  force:
    description:
      - Roll the target back to the newest snapshot that both ends have, if it was written to or has newer snapshots of
        its own. These are destroyed, and what was received of a stream that broke off. Nothing else is ever destroyed
        at the target.
      - With O(method=rsync) what was written to the target is made what the source is. A copy of another source, and
        what was no copy, is refused all the same.
    type: bool
    default: false
  stall_timeout:
    description:
      - Seconds without any progress after which a stream, or what is read of one end to compare it, counts as broken.
        V(0) is for ever.
      - A stream of what is in no snapshot is exempt, since ZFS does not tell how far it is.
      - With O(method=rsync) it is C(--timeout) of rsync, and counts for the connection that the blocks of a volume go
        over.
    type: int
    default: 300
  progress_interval:
    description:
      - Seconds between two lines that tell how far it is, V(0) for none.
    type: int
    default: 15
  progress_file:
    description:
      - Absolute path of a file on the source in which the progress is kept while the task runs, in JSON. With C(async)
        it is the way to see it.
    type: path
seealso:
  - module: nasops.encryption.geli_device
  - module: nasops.encryption.zfs_replicate
  - module: nasops.encryption.zfs_key_manifest
notes:
  - What is in the memory of the host is not read from the disks. To have V(full) look at the disks themselves, export
    and import the target pool before.
  - The proof of a key unmounts what it opens for a moment. If others than the target use that key and are
    mounted, it is refused.
  - Bookmarks and holds are not carried over, nor C(mountpoint), C(sharenfs), C(sharesmb), C(dedup), C(snapdev),
    C(special_small_blocks), C(aclmode), C(nbmand), C(vscan), C(filesystem_limit) and C(snapshot_limit). RV(notes) tells
    where they are set.
  - What is in no snapshot of a source that is imported read-only is known by its sizes. If it is overwritten in place
    between two imports and its sizes stay the same, that is not noticed, and it is not sent again. So such a state does
    not count as verified any more when the pool was imported again; O(verify=checksums) finds the difference then, and
    O(verify=streams) does not. With O(method=rsync) such a state is looked at again, file by file.
  - Like with every module, options are in a file in a private temporary folder of the host while it runs, for
    hours here, unless pipelining is on. Set C(ansible_pipelining=true) for hosts whose passphrases and keys you give.
  - When the play is stopped, or the connection to the host is lost, the task ends what it has begun at both ends as
    soon as the host notices. What was received is kept.
"""

EXAMPLES = r"""
- name: See what a migration would do
  nasops.encryption.geli_migrate:
    source: oldtank
    target: newtank/oldtank
  become: true
  register: plan

- name: Copy and verify, as often as needed
  nasops.encryption.geli_migrate:
    state: verified
    source: oldtank
    target: newtank/oldtank
    exclude: [oldtank/.system]
  become: true

- name: Read all of it once more, after weeks on disks of which you are not sure
  nasops.encryption.geli_migrate:
    state: verified
    source: oldtank
    target: newtank/oldtank
    exclude: [oldtank/.system]
    verify: full
    verify_again: true
  become: true

- name: Let the copy take the place of the source
  nasops.encryption.geli_migrate:
    state: finalized
    source: oldtank
    target: newtank/oldtank
    exclude: [oldtank/.system]
    verify: full
  become: true

- name: Copy file by file, into datasets that are there, without one that is damaged
  nasops.encryption.geli_migrate:
    state: verified
    method: rsync
    source: oldtank
    target: newtank/oldtank
    exclude: [oldtank/.system]
    exclude_files:
      oldtank/photos: [2014/broken.raw]
  become: true

- name: Migrate a list of datasets
  nasops.encryption.geli_migrate:
    state: verified
    source: oldtank
    target: newtank/oldtank
    include:
      - oldtank/media
      - oldtank/home/alice
  become: true

- name: Give one dataset a passphrase of its own
  nasops.encryption.geli_migrate:
    state: verified
    source: oldtank
    target: newtank/oldtank
    dataset_keys:
      - name: oldtank/private
        format: passphrase
        value: "{{ vault_private_passphrase }}"
  become: true

- name: From TrueNAS CORE to another host, under a passphrase
  nasops.encryption.geli_migrate:
    state: synced
    source: tank
    target: vault/tank
    target_host: nas2.example.org
    ssh:
      identity_file: /root/.ssh/migrate
    key:
      format: passphrase
      value: "{{ vault_passphrase }}"
  become: true
"""

RETURN = r"""
reached:
  description: The last stage of which all can be seen to be done, V(planned) for a target that is not up to date.
  returned: success
  type: str
  sample: verified
snapshot:
  description: The snapshot that the target is brought up to, V(null) if it is still to be taken, or none can be.
  returned: success
  type: str
  sample: migrate-20261127T023000Z
source_read_only:
  description: Whether the pool of the source is imported read-only.
  returned: success
  type: bool
  sample: true
members:
  description: The devices of the source pool.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The device.
      type: str
      sample: /run/nasops-geli/eli-5c3b0d8e-24f0-11e3-a1b2-d43d7e000001
    state:
      description: What ZFS says of it.
      type: str
      sample: ONLINE
    geli:
      description: Whether it is a decrypted device of GELI.
      type: bool
      sample: true
datasets:
  description: What is migrated, nothing if the pool of the source is not imported any more.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: Name at the source.
      type: str
      sample: oldtank/docs
    target:
      description: Name at the target.
      type: str
      sample: newtank/oldtank/docs
    type:
      description: V(filesystem) or V(volume).
      type: str
      sample: filesystem
    origin:
      description: The snapshot it is a clone of, V(null) if it is none.
      type: str
      sample: oldtank/docs@monday
    snapshots:
      description: How many snapshots it has.
      type: int
      sample: 12
    bytes:
      description: What it takes at the source, with its snapshots.
      type: int
      sample: 104857600
    snapshot:
      description: The newest snapshot at the target, V(null) if there is none.
      type: str
      sample: migrate-20261127T023000Z
    guid:
      description: The GUID of that.
      type: str
      sample: "5129831201892741"
    encryption:
      description: The encryption suite at the target, V(null) if it is not there.
      type: str
      sample: aes-256-gcm
    encryptionroot:
      description: The dataset whose key opens it.
      type: str
      sample: newtank
estimated_bytes:
  description: What is still to be sent, as it is counted at the source.
  returned: success
  type: int
  sample: 104857600
available_bytes:
  description: The room at the target, V(null) if it is not known.
  returned: success
  type: int
  sample: 1099511627776
streams:
  description: What is to be done to bring the target up to date, as of now.
  returned: success
  type: list
  elements: str
  sample: ["Send 'oldtank/docs' up to @monday to 'newtank/oldtank/docs', to be encrypted there"]
notes:
  description: What a person should know before the start. With O(state=planned) these are warnings, too.
  returned: success
  type: list
  elements: str
  sample: ["Holds of snapshots are not sent."]
closing:
  description:
    - What V(finalized) is going to do to a source that can be written to, with what is left out and closed with it.
      Empty for one that is read-only, and when it is done.
  returned: success
  type: list
  elements: str
  sample: ["Set readonly=on on 'tank', so that nothing is written to the source any more"]
source_guid:
  description:
    - GUID of the pool that the target is recorded to be a migration of, V(null) if nothing is recorded. Once that was
      finalized, the source need not be there, and another pool of its name has another GUID.
  returned: success
  type: str
  sample: "9512867134298873421"
verified:
  description:
    - How a state of the target was verified last, V(null) if none was. RV(reached) tells whether it still counts.
  returned: success
  type: str
  sample: checksums
manifest:
  description: The encryption roots of the target, whose keys are to be backed up.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the dataset.
      type: str
      sample: newtank
    keyformat:
      description: The format of its key.
      type: str
      sample: hex
    keylocation:
      description: Where the key is kept, V(null) if that is not known.
      type: str
      sample: file:///etc/zfs/keys/newtank.key
sent:
  description: The streams that were sent, or with O(method=rsync) the datasets that were copied, in order.
  returned: always
  type: list
  elements: dict
  contains:
    source:
      description: The dataset.
      type: str
      sample: oldtank/docs
    target:
      description: Where it was received.
      type: str
      sample: newtank/oldtank/docs
    estimated_bytes:
      description: How long zfs thought the stream would be.
      type: int
      sample: 104857600
    seconds:
      description: How long it took.
      type: float
      sample: 12.5
    resumed:
      description: Whether it went on with one that had broken off.
      type: bool
      sample: false
left_writable:
  description: What has kept a dataset of the target from being made read-only again after it could not be copied.
  returned: when that failed, with O(method=rsync)
  type: str
  sample: "'zfs inherit readonly newtank/oldtank/docs' ended with exit status 1: pool is busy."
refusals:
  description: Every reason not to begin, or to go on, that can be seen.
  returned: when it is refused
  type: list
  elements: str
  sample: ["The target 'newtank/oldtank' has room for 1.0 GiB, and what is still to be sent takes about 2.0 GiB."]
actions:
  description: What was done, or would be done, in order.
  returned: success
  type: list
  elements: str
  sample: ["Take a snapshot of 'oldtank' and 3 below it"]
"""

import secrets

from ..module_utils.entry import Module, fail
from ..module_utils.errors import StorageError
from ..module_utils.migration.options import arguments, keys_to_hide, parse
from ..module_utils.migration.plan import plan_migration
from ..module_utils.migration.read import read_migration
from ..module_utils.migration.result import describe_migration
from ..module_utils.zfs.replicate_task import run, stamp


def main() -> None:
    module = Module(arguments())
    try:
        wanted = parse(module.params, stamp(), secrets.token_hex(8))
    except StorageError as error:
        fail(module, error)
    run(
        module,
        wanted.replication,
        keys_to_hide(wanted),
        lambda runner, taken: read_migration(runner, wanted, taken),
        lambda found: (found.wanted, found.ends),
        lambda found: plan_migration(wanted, found),
        lambda found: describe_migration(wanted, found),
    )


if __name__ == "__main__":
    main()
