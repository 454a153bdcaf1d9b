# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup of keys on the controller: what is there, what is wanted, and the plan from one to the other."""

from __future__ import annotations

import hashlib
import json
import time
import typing as t
from dataclasses import dataclass, field

from ..module_utils.command import Runner
from ..module_utils.errors import BadInput, StorageError
from ..module_utils.plan import Change, Plan, Step
from ..module_utils.sealing import envelope
from ..module_utils.zfs.key_manifest import digest, fingerprint
from ..module_utils.zfs.manifest import parse_manifest
from . import controller_files as files
from .certificates import Certificate
from .vaulting import Vault, is_vault

FORMAT = "nasops.encryption key backup 1"

_TIME = "%Y-%m-%dT%H:%M:%SZ"

# How the title of the step begins that keeps what is replaced; its path follows.
KEEP = "Keep the former backup as "

SEALED, VAULT, UNSEALED = "sealed", "vault", "unsealed"


@dataclass(frozen=True)
class Protection:
    """What keeps others from reading a backup: certificates, a vault, or nothing."""

    kind: str
    certificates: tuple[Certificate, ...] = ()
    vault: Vault | None = field(default=None, repr=False)

    def words(self) -> str:
        """Behind a comma, for a sentence."""
        if self.kind == SEALED:
            number = len(self.certificates)
            return f"sealed to {number} certificate{'s' if number > 1 else ''}"
        if self.vault is not None:
            return f"encrypted by Ansible Vault with the secret '{self.vault.label}'"
        return "not protected"

    def names(self) -> tuple[str, ...]:
        """Who can read it: the fingerprints of certificates, or the label of the vault secret."""
        if self.vault is not None:
            return (self.vault.label,)
        return tuple(sorted(one.recipient.fingerprint for one in self.certificates))


@dataclass(frozen=True)
class Wanted:
    """The backup that is wanted. ``exported`` and ``pools`` are as the module on the host returned them."""

    path: str
    host: str
    protection: Protection
    exported: t.Sequence[t.Mapping[str, str]]
    pools: t.Sequence[t.Mapping[str, str]]
    keep_former: bool

    @property
    def record_path(self) -> str:
        return f"{self.path}.json"

    @property
    def fingerprints(self) -> dict[str, str]:
        return {row["name"]: row["fingerprint"] for row in self.exported}

    def fingerprints_of(self, manifest: t.Mapping[str, str]) -> dict[str, str]:
        """Those of keys in clear, so far as their names are wanted; others have none that could be compared."""
        guids = {pool["name"]: pool["guid"] for pool in self.pools}
        roots = {row["name"]: row["dataset"] for row in self.exported}
        return {
            name: fingerprint(guids[roots[name].split("/")[0]], roots[name], text) if name in roots else "unknown"
            for name, text in manifest.items()
        }


@dataclass(frozen=True)
class Present:
    """What is there now.

    ``fault`` tells why it is not a whole backup with its record, "" for nothing. ``former`` is the path to keep it at.
    """

    exists: bool = False
    private: bool = True
    fingerprints: t.Mapping[str, str] = field(default_factory=dict)
    kind: str = ""
    names: tuple[str, ...] = ()
    former: str = ""
    fault: str = ""


def look(wanted: Wanted) -> Present:
    """Read the backup and its record, and see as far as possible that both are whole and belong together.

    :raises StorageError: one of the files can't be read, or is something else
    """
    content = files.read(wanted.path, "The backup")
    record_file = files.read(wanted.record_path, "The record")
    if record_file is not None and FORMAT.encode("ascii") not in record_file.data:
        # It may be a backup itself, in clear.
        raise BadInput(
            f"{wanted.record_path} exists and is no record of a backup, so it is not replaced.",
            hint="Name another file.",
        )
    if content is None:
        return Present()
    record = _record(record_file.data) if record_file else None
    private = not (content.mode | (record_file.mode if record_file else 0)) & 0o077
    if record is None:
        if not _is_backup(content.data):
            raise BadInput(
                f"{wanted.path} exists and is no backup of keys, so it is not replaced.", hint="Name another file."
            )
        written = time.strftime(_TIME, time.gmtime(content.modified))
        former = _former_path(wanted.path, written, content.data)
        return Present(True, private, former=former, fault="it has no record that can be read")
    _refuse_other_host(wanted, record)
    fingerprints = {row["name"]: row["fingerprint"] for row in record["keys"]}
    kind, names = record["protection"], tuple(record["names"])
    fault = ""
    if record["sha256"] != hashlib.sha256(content.data).hexdigest():
        fault = "its record is that of another file"
    elif (kind, names) == (wanted.protection.kind, wanted.protection.names()):
        fault = _fault(wanted, content.data, fingerprints)
    former = _former_path(wanted.path, record["written"], content.data)
    return Present(True, private, fingerprints, kind, names, former, fault)


def last_proof(path: str) -> str | None:
    """When the keys in a backup were last seen to open their datasets; ``None`` if there is no record of it."""
    try:
        content = files.read(f"{path}.json", "The record")
    except StorageError:
        return None
    record = _record(content.data) if content else None
    return None if record is None else str(record.get("proven") or record["written"])


def note_proof(wanted: Wanted) -> None:
    """Write down that the keys were seen to open their datasets now, and that the backup of them is whole.

    That is no change of the backup, which stays as it is, and so is its record but for this one time.

    :raises StorageError: the record can't be read or written
    """
    content = files.read(wanted.record_path, "The record")
    record = _record(content.data) if content else None
    if record is None:
        raise StorageError(f"The record {wanted.record_path} was changed by something else meanwhile.")
    files.write(wanted.record_path, _as_text({**record, "proven": _now()}))


def _refuse_other_host(wanted: Wanted, record: t.Mapping[str, t.Any]) -> None:
    """One host must not write its keys over those of another.

    :raises BadInput: the backup is that of another host, and of other pools
    """
    guids = {str(pool.get("guid")) for pool in record["pools"]}
    if record["host"] != wanted.host and not guids & {pool["guid"] for pool in wanted.pools}:
        raise BadInput(
            f"{wanted.path} is the backup of '{record['host']}', and has the keys of other pools than those of "
            f"'{wanted.host}'; it was not replaced.",
            hint="Give each host a file of its own, for example by inventory_hostname in its name.",
        )


def _former_path(path: str, written: str, data: bytes) -> str:
    """Where a backup is kept that is replaced: its name with the time it was made, and a number if that is taken."""
    start = f"{path}.{written.replace('-', '').replace(':', '')}"
    number, candidate = 1, start
    while True:
        other = files.read(candidate, "The former backup")
        if other is None or other.data == data:
            return candidate
        number += 1
        candidate = f"{start}-{number}"


def _is_backup(data: bytes) -> bool:
    """Whether it looks like one, be it damaged."""
    if is_vault(data) or envelope.BEGIN.encode("ascii") in data or not data:
        return True
    try:
        parse_manifest(data.decode("utf-8"), "the file")
    except (BadInput, UnicodeDecodeError):
        return False
    return True


def _record(data: bytes) -> dict[str, t.Any] | None:
    """The record, if it is one of this form."""
    try:
        found = json.loads(data)
        if found["format"] != FORMAT or found["digest"] != digest(
            {row["name"]: row["fingerprint"] for row in found["keys"]}
        ):
            return None
        # Records of earlier versions don't have the second one.
        for moment in (found["written"], found.get("proven", found["written"])):
            time.strptime(moment, _TIME)
        texts = (found["protection"], found["sha256"], found["host"], *found["names"])
        whole = all(isinstance(text, str) for text in texts) and all(isinstance(one, dict) for one in found["pools"])
        return found if whole else None
    except (ValueError, KeyError, TypeError):
        return None


def _fault(wanted: Wanted, data: bytes, recorded: t.Mapping[str, str]) -> str:
    """What is wrong with the content itself: for a sealed one, what can be seen without the private key."""
    protection = wanted.protection
    if protection.kind == SEALED:
        try:
            found = envelope.parse(data.decode("ascii"))
        except (BadInput, UnicodeDecodeError):
            return "it is not sealed, or damaged"
        people = sorted(one.recipient.issuer_and_serial for one in protection.certificates)
        return "" if sorted(found.recipients) == people and not found.weak else "it is sealed to other certificates"
    plain = protection.vault.decrypt(data) if protection.vault is not None else data
    if plain is None:
        return "the vault secrets of this run do not open it"
    try:
        manifest = parse_manifest(plain.decode("utf-8"), "the backup")
    except (BadInput, UnicodeDecodeError):
        return "it is no manifest"
    fingerprints = wanted.fingerprints_of(manifest)
    same = all(fingerprints.get(name) == value for name, value in recorded.items() if name in wanted.fingerprints)
    return "" if same and len(manifest) == len(recorded) else "its content is not that of its record"


def decide(wanted: Wanted, present: Present, content: t.Callable[[], bytes]) -> Plan:
    """The plan that makes the backup the wanted one.

    :param content: what is to be written; not called before something is
    """
    protection = wanted.protection
    changes = tuple(_changes(wanted, present))
    if not changes:
        return Plan()
    steps: list[Step] = []
    removed = sorted(set(present.fingerprints) - set(wanted.fingerprints))
    if present.exists and (wanted.keep_former or removed or present.fault):
        steps.append(Step(f"{KEEP}{present.former}", lambda _runner: _keep(wanted.path, present.former)))
    # one root may be in it under several names
    number = len({row["dataset"] for row in wanted.exported})
    roots = f"{number} encryption root{'s' if number > 1 else ''}"

    def write(_runner: Runner) -> None:
        data = content()
        # The backup first: a record that is older than it is found out, one that is newer could be believed.
        files.write(wanted.path, data)
        files.write(wanted.record_path, _new_record(wanted, data))

    steps.append(Step(f"Write the keys of {roots} to {wanted.path}, {protection.words()}", write, changes))
    warnings = [f"The backup {wanted.path} is written anew: {present.fault}."] if present.fault else []
    if removed:
        warnings.append(
            f"These keys are not in the backup any more, but in {present.former}: {', '.join(removed)}. Was a pool not "
            "imported, or a key file lost?"
        )
    return Plan(tuple(steps), tuple(warnings))


def _changes(wanted: Wanted, present: Present) -> t.Iterator[Change]:
    if present.fault:
        yield Change((wanted.path, "state"), present.fault, "whole")
    if not present.private:
        yield Change((wanted.path, "private"), False, True)
    if present.kind != wanted.protection.kind:
        yield Change((wanted.path, "protection"), present.kind or None, wanted.protection.kind)
    if present.names != wanted.protection.names():
        yield Change((wanted.path, "readable_by"), present.names or None, wanted.protection.names())
    before, after = present.fingerprints, wanted.fingerprints
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Change((wanted.path, "keys", name), before.get(name), after.get(name))


def _keep(path: str, former: str) -> None:
    """Keep a backup and its record under another name.

    :raises StorageError: they can't be kept
    """
    for source, target in ((path, former), (f"{path}.json", f"{former}.json")):
        content = files.read(source, "The backup")
        if content is None or files.create(target, content.data):
            continue
        other = files.read(target, "The former backup")
        if other is None or other.data != content.data:
            raise StorageError(
                f"{source} can't be kept as {target}, since another run has just made that; it was not replaced.",
                hint="Run it again. Two hosts must not write one backup: put inventory_hostname into its name.",
            )


def _now() -> str:
    return time.strftime(_TIME, time.gmtime())


def _as_text(record: t.Mapping[str, t.Any]) -> bytes:
    return (json.dumps(record, indent=2) + "\n").encode("utf-8")


def _new_record(wanted: Wanted, data: bytes) -> bytes:
    now = _now()
    found = {
        "format": FORMAT,
        "written": now,
        "proven": now,
        "host": wanted.host,
        "pools": [dict(pool) for pool in wanted.pools],
        "protection": wanted.protection.kind,
        "names": list(wanted.protection.names()),
        "recipients": [one.row() for one in wanted.protection.certificates],
        "count": len(wanted.exported),
        "digest": digest(wanted.fingerprints),
        "keys": [{word: row[word] for word in ("name", "dataset", "fingerprint")} for row in wanted.exported],
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return _as_text(found)
